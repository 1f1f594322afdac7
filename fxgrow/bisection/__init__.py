"""Finds the first node at which two models differ."""
