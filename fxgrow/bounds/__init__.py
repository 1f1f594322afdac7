"""Bounds of the entries of a value, and which pointwise functions are idempotent."""
