"""Widening and whole networks: what grows, what is edited, what is refused."""
