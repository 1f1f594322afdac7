"""Decompose calls that torch.fx keeps as one node into plain operators."""
