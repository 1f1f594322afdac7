"""Validates plans from outside: they are proved again before they are applied."""

from .check_root_hooks import check_root_hooks
from .prove_again import prove_again, remember, remembered

__all__ = ["check_root_hooks", "prove_again", "remember", "remembered"]
