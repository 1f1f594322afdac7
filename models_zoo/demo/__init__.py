"""The demo: train small networks on real digits, grow them, train on, and draw the results."""
