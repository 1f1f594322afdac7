"""The traced model: one graph for training and evaluation mode, what the example inputs decided, and its guards."""
