"""Inserted blocks: where they go, which modules they consist of, and how they start with a zero contribution."""
