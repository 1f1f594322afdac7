"""Oracles: independent computations of what the library claims."""
