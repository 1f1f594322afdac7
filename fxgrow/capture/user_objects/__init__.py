"""The user's own objects: containers, caches, hooks and code, which a trace must leave as they were."""
