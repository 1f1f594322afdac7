"""Plans: frozen dataclasses that describe what a growth changes in a model."""

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
