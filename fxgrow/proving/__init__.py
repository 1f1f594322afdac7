"""Plans from outside, proved once more before they are applied."""

from .again import prove_again, remember, remembered

__all__ = ["prove_again", "remember", "remembered"]
