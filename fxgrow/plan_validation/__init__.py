"""Validates plans from outside: they are proved again before they are applied."""

from .prove_again import prove_again, remember, remembered

__all__ = ["prove_again", "remember", "remembered"]
