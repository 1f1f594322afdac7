"""Tracing: from a module to a torch.fx graph."""
