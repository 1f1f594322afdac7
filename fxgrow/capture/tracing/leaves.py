"""Modules, classes and functions that a user wants to be kept whole in a trace."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from types import FunctionType, ModuleType
from typing import Any

from torch import nn

from ...errors import Kind, UsageError, usage
from ..user_objects.code_traits import names_in

Leaf = nn.Module | str | type[nn.Module] | Callable[..., Any]
"""A module of the model or its path, a class of modules, or a function that they call."""
LEAVES = "fxgrow_leaf"
"""Where the `meta` of a traced model keeps what was kept whole, as `trace(leaf=…)` takes it."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """What is kept whole."""

    paths: frozenset[str] = frozenset()
    """Of modules."""
    functions: tuple[Callable[..., Any], ...] = ()


def leaves_of(model: nn.Module, leaf: Iterable[Leaf] | Leaf) -> Leaves:
    """What a user has named, in a model.

    Raises:
        UsageError: the model has no such module, or it is neither a module, a path, a class of modules nor a function.
    """
    several = isinstance(leaf, Iterable) and not isinstance(leaf, nn.Module | type | str)
    named: list[Any] = list(leaf) if several else [leaf]  # type: ignore[arg-type]  # it is iterable
    paths: set[str] = set()
    functions: list[Callable[..., Any]] = []
    for thing in named:
        if isinstance(thing, FunctionType):
            functions.append(thing)
            continue
        if isinstance(thing, str):
            paths |= _at(model, thing)
            continue
        if not isinstance(thing, nn.Module) and not (isinstance(thing, type) and issubclass(thing, nn.Module)):
            raise usage(
                Kind.BAD_OPTION,
                "leaf= takes modules of the model, their paths, classes of modules and functions written in Python, "
                f"not {thing!r}",
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


def _at(model: nn.Module, path: str) -> set[str]:
    """All paths of the module at a path: it is one leaf by whatever name it is called."""
    known = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if path not in known:
        raise _unknown(model, path, list(known))
    return {name for name, module in known.items() if module is known[path]}


def _unknown(model: nn.Module, path: str, known: list[str]) -> UsageError:
    near = get_close_matches(path, known, n=3, cutoff=0.5)
    hint = "the model itself cannot be kept whole; name modules that it calls, as model.named_modules() lists them"
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif known and path:
        hint = f"modules are {', '.join(known[:6])}{' …' * (len(known) > 6)}"
    return usage(Kind.BAD_OPTION, f"leaf={path!r}: no module inside {type(model).__name__} has this path", hint=hint)


def registered(model: nn.Module, whole: Leaves) -> Leaves | None:
    """The same, and what timm and torchvision say that torch.fx cannot look into; None if that is nothing more.

    timm keeps lists; torchvision's feature extraction keeps all modules and functions of `torchvision.ops` whole.
    """
    kinds, functions = _of_libraries()
    names = names_in(model) if functions else frozenset()
    called = [function for function in functions if function.__name__ in names]
    paths = {path for path, module in model.named_modules(remove_duplicate=False) if path and type(module) in kinds}
    further = Leaves(whole.paths | paths, tuple(dict.fromkeys((*whole.functions, *called))))
    return further if further != whole else None


def _of_libraries() -> tuple[tuple[type, ...], list[Callable[..., Any]]]:
    """Classes of modules and functions that the libraries name, of those that have been imported."""
    timm, ops = sys.modules.get("timm.layers._fx"), sys.modules.get("torchvision.ops")
    named = [thing for get in ("get_notrace_modules", "get_notrace_functions") for thing in getattr(timm, get, list)()]
    named += [thing for name, thing in vars(ops).items() if name in ops.__all__] if ops is not None else []
    kinds = tuple(thing for thing in named if isinstance(thing, type) and issubclass(thing, nn.Module))
    return kinds, [thing for thing in named if isinstance(thing, FunctionType)]


def modules_of(functions: Collection[Callable[..., Any]]) -> list[ModuleType]:
    """The files in which functions are, where other code may call them by, and the packages that offer them."""
    return [sys.modules[name] for f in functions for name in _places(f) if name in sys.modules]


def _places(function: Callable[..., Any]) -> Iterator[str]:
    """The names of a function's file, and of the packages around it that have the function under its name."""
    name = function.__module__
    yield name
    while name := name.rpartition(".")[0]:
        if getattr(sys.modules.get(name), function.__name__, None) is function:
            yield name
