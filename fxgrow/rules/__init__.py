"""The rules of ATen operators, one module per family. Importing this package registers all of them.

The exported names serve to write further rules: the classes that fit most operators, the contexts that the methods of a
rule get (`fxgrow/rules/base.py` describes them), and `register`. `fxgrow.testing.check_rule` compares a rule with its
operator.
"""

from importlib import import_module
from pkgutil import iter_modules

from .axis_ops import Along
from .base import RULES, AxisContext, AxisStates, Rule, SameSizes, SizeContext, StateContext, pad_states, register
from .contraction import Contraction
from .pointwise import Unary
from .reduce import Reduce

__all__ = [
    "RULES",
    "Along",
    "AxisContext",
    "AxisStates",
    "Contraction",
    "Reduce",
    "Rule",
    "SameSizes",
    "SizeContext",
    "StateContext",
    "Unary",
    "pad_states",
    "register",
]

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")  # so that a new file needs no line here
