"""From axes and states to a plan: which layers grow together, how wide, and every edit of tensors and graph."""
