"""Record the ATen operators of one call on fake tensors, and compare two recordings."""
