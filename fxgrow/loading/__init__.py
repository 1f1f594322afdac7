"""Models from outside: from the name of a factory, with weights as data, on inputs given as text; and the saved form."""

from .factory import build, named
from .inputs import parse_inputs
from .saved import Saved, is_saved, restore, save
from .weights import read_weights, use_weights

__all__ = [
    "Saved",
    "build",
    "is_saved",
    "named",
    "parse_inputs",
    "read_weights",
    "restore",
    "save",
    "use_weights",
]
