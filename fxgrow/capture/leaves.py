"""Modules, classes and functions that a user wants to be kept whole in a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from ..errors import Kind, usage

Leaf = nn.Module | type[nn.Module] | Callable[..., Any]
"""A module of the model, a class of modules, or a function that they call."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """What is kept whole."""

    paths: frozenset[str] = frozenset()
    """Of modules."""
    functions: tuple[Callable[..., Any], ...] = ()


def leaves_of(model: nn.Module, leaf: Iterable[Leaf] | Leaf) -> Leaves:
    """What a user has named, in a model.

    Raises:
        UsageError: the model has no such module, or it is neither a module, a class of modules nor a function.
    """
    several = isinstance(leaf, Iterable) and not isinstance(leaf, nn.Module | type)
    named: list[Any] = list(leaf) if several else [leaf]  # type: ignore[arg-type]  # it is iterable
    paths: set[str] = set()
    functions: list[Callable[..., Any]] = []
    for thing in named:
        if isinstance(thing, FunctionType):
            functions.append(thing)
            continue
        if not isinstance(thing, nn.Module) and not (isinstance(thing, type) and issubclass(thing, nn.Module)):
            raise usage(
                Kind.BAD_OPTION,
                f"leaf= takes modules of the model, classes of modules and functions written in Python, not {thing!r}",
                hint="put the call into a function or into a module of its own, and name that",
            )
        found = {
            path
            for path, module in model.named_modules(remove_duplicate=False)
            if path and (module is thing or (isinstance(thing, type) and isinstance(module, thing)))
        }
        if not found:
            name = thing.__name__ if isinstance(thing, type) else type(thing).__name__
            raise usage(
                Kind.BAD_OPTION,
                f"leaf={name}: no module inside {type(model).__name__} is one",
                hint="name a module that the model calls, or its class; the model itself cannot be kept whole",
            )
        paths |= found
    return Leaves(frozenset(paths), tuple(functions))


def registered(model: nn.Module, whole: Leaves) -> Leaves | None:
    """The same, and what the library of a model says that torch.fx cannot look into; None if that is nothing more."""
    library = sys.modules.get("timm.layers._fx")
    kinds = tuple(getattr(library, "get_notrace_modules", list)())
    functions = [f for f in getattr(library, "get_notrace_functions", list)() if isinstance(f, FunctionType)]
    of_library = any(type(module).__module__.startswith("timm.") for module in model.modules())
    paths = {path for path, module in model.named_modules(remove_duplicate=False) if path and type(module) in kinds}
    further = Leaves(whole.paths | paths, tuple(dict.fromkeys((*whole.functions, *functions))))
    return further if of_library and further != whole else None


def modules_of(functions: Collection[Callable[..., Any]]) -> list[ModuleType]:
    """The files in which functions are, where other code may call them by."""
    return [sys.modules[f.__module__] for f in functions if f.__module__ in sys.modules]
