"""Lower a torch.fx graph to a program of ATen operators."""
