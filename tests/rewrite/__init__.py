"""Plans as data, and the writer."""
