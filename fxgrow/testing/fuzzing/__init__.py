"""Models and growths drawn at random, as data; the laws that every pair of them obeys; and what to do with a breach."""
