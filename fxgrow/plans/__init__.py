"""Plans: what a growth changes, as frozen data."""

from .insertion import Insert
from .layout import AxisGrowth, Chain, Grid, Layout, Leaf, Still, Woven
from .plan import Cost, Growth, ModuleEdit, NodeEdit, Plan, SkipEdit, TensorEdit

__all__ = [
    "AxisGrowth",
    "Chain",
    "Cost",
    "Grid",
    "Growth",
    "Insert",
    "Layout",
    "Leaf",
    "ModuleEdit",
    "NodeEdit",
    "Plan",
    "SkipEdit",
    "Still",
    "TensorEdit",
    "Woven",
]
