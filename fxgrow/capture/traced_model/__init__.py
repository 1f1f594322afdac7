"""The traced model: training and evaluation mode in one graph, what the example decided, and its guards."""
