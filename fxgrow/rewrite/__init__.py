"""Rewriting: the only writer of tensors and graphs."""

from .apply import apply

__all__ = ["apply"]
