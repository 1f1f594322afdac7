"""Protect the user's own objects (containers, caches, hooks, random generators) from the side effects of a trace."""
