"""Calls that torch.fx keeps as one node, decomposed into plain operators."""
