"""Plans from outside, proved once more before they are applied."""

from .check_root_hooks import check_root_hooks
from .prove_again import prove_again, remember, remembered

__all__ = ["check_root_hooks", "prove_again", "remember", "remembered"]
