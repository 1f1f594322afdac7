"""Loads models from outside: factories by name, weights from files, inputs as text, and saved grown models."""

from .applied import grown_by
from .factory import build, named
from .inputs import parse_inputs
from .loaded import Loaded, load
from .saved import Saved, is_saved, restore, save
from .weights import read_weights, use_weights

__all__ = [
    "Loaded",
    "Saved",
    "build",
    "grown_by",
    "is_saved",
    "load",
    "named",
    "parse_inputs",
    "read_weights",
    "restore",
    "save",
    "use_weights",
]
