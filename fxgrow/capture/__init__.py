"""Capture a model: trace it and lower it to a program of ATen operators over named values."""
