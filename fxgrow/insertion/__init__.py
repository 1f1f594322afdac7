"""New blocks: where they are inserted, what they are made of, and how they are made to contribute zero."""
