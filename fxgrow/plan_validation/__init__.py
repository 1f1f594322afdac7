"""Plans from outside, proved once more before they are applied."""

from .prove_again import prove_again, remember, remembered

__all__ = ["prove_again", "remember", "remembered"]
