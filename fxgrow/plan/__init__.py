"""Plans: what a growth changes, as frozen data."""

from .layout import Chain, Grid, Layout, Leaf, Still
from .plan import AxisGrowth, Cost, Growth, ModuleEdit, NodeEdit, Plan, SkipEdit, TensorEdit

__all__ = [
    "AxisGrowth",
    "Chain",
    "Cost",
    "Grid",
    "Growth",
    "Layout",
    "Leaf",
    "ModuleEdit",
    "NodeEdit",
    "Plan",
    "SkipEdit",
    "Still",
    "TensorEdit",
]
