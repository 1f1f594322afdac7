"""fxgrow: grow a trained network into a larger one that computes the same function."""

from .api import plan_widen, widen

__all__ = ["plan_widen", "widen"]
