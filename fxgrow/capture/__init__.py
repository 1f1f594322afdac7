"""Capture: a model becomes a program of ATen operators over named values."""
