"""The project's own models, the demo and the coverage tables."""
