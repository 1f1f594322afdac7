"""Applies plans to models: the only code that writes tensors and graphs."""

from .apply import apply

__all__ = ["apply"]
