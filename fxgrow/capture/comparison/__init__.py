"""Comparison of a trace with the module that it was made from, in both modes and at two sets of sizes."""
