"""Modules, classes and functions that a user asks a trace to keep whole."""

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
"""The key of a traced model's `meta` that holds what was kept whole, as `trace(leaf=…)` takes it."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """The modules and functions that a trace keeps whole."""

    paths: frozenset[str] = frozenset()
    """Paths of the modules."""
    functions: tuple[Callable[..., Any], ...] = ()


def leaves_of(model: nn.Module, leaf: Iterable[Leaf] | Leaf) -> Leaves:
    """Resolve the `leaf` argument of `trace` to paths of modules in a model, and functions.

    Raises:
        UsageError: the model has no such module, or an entry is not a module, a path, a class of modules or a function.
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
    """Return all paths of the module at a path: the same module may be registered under several names."""
    known = {name: module for name, module in model.named_modules(remove_duplicate=False) if name}
    if path not in known:
        raise _unknown(model, path, list(known))
    return {name for name, module in known.items() if module is known[path]}


def _unknown(model: nn.Module, path: str, known: list[str]) -> UsageError:
    """Return the error for a path that is not in the model, with similar paths as a hint."""
    near = get_close_matches(path, known, n=3, cutoff=0.5)
    hint = "the model itself cannot be kept whole; name modules that it calls, as model.named_modules() lists them"
    if near:
        hint = f"did you mean {', '.join(near)}?"
    elif known and path:
        hint = f"modules are {', '.join(known[:6])}{' …' * (len(known) > 6)}"
    return usage(Kind.BAD_OPTION, f"leaf={path!r}: no module inside {type(model).__name__} has this path", hint=hint)


def registered(model: nn.Module, whole: Leaves) -> Leaves | None:
    """Add the modules and functions that timm and torchvision mark as not traceable by torch.fx; None if that adds
    none.

    timm keeps lists; torchvision's feature extraction keeps all modules and functions of `torchvision.ops` whole.
    """
    kinds, functions = _of_libraries()
    names = names_in(model) if functions else frozenset()
    called = [function for function in functions if function.__name__ in names]
    paths = {path for path, module in model.named_modules(remove_duplicate=False) if path and type(module) in kinds}
    further = Leaves(whole.paths | paths, tuple(dict.fromkeys((*whole.functions, *called))))
    return further if further != whole else None


def _of_libraries() -> tuple[tuple[type, ...], list[Callable[..., Any]]]:
    """Return the classes of modules and the functions that these libraries mark, as far as they have been imported."""
    timm, ops = sys.modules.get("timm.layers._fx"), sys.modules.get("torchvision.ops")
    named = [thing for get in ("get_notrace_modules", "get_notrace_functions") for thing in getattr(timm, get, list)()]
    named += [thing for name, thing in vars(ops).items() if name in ops.__all__] if ops is not None else []
    kinds = tuple(thing for thing in named if isinstance(thing, type) and issubclass(thing, nn.Module))
    return kinds, [thing for thing in named if isinstance(thing, FunctionType)]


def modules_of(functions: Collection[Callable[..., Any]]) -> list[ModuleType]:
    """Return the Python modules in which other code may look functions up: where they are defined, and packages that
    re-export them."""
    return [sys.modules[name] for f in functions for name in _places(f) if name in sys.modules]


def _places(function: Callable[..., Any]) -> Iterator[str]:
    """Yield the name of the module that defines a function, and of the parent packages that re-export it."""
    name = function.__module__
    yield name
    while name := name.rpartition(".")[0]:
        if getattr(sys.modules.get(name), function.__name__, None) is function:
            yield name
