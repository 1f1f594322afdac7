"""Build a plan from axes and states: which layers grow together, how wide, and every edit of tensors and graph."""
