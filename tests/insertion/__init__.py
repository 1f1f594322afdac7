"""Deepening: new blocks."""
