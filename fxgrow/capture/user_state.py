"""What code of the user's leaves behind when it is recorded: tensors kept in caches, lists and settings objects.

A recording passes fake tensors. None of them may stay where the user's own calls would find it.
"""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from .caches import CACHED, holds_stand_in
from .twin import kept

_OTHERS = frozenset({"torch", "builtins", "operator", "_operator", "math", "typing", "functools", "fxgrow", "numpy"})
_STRUCTURE = frozenset({"_parameters", "_buffers", "_modules"})
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial, CACHED)
MOST = 500
"""Functions that are looked through at most."""


@contextmanager
def nothing_left_behind(target: Any) -> Iterator[None]:
    """While a function or a module of the user's is recorded; afterwards what it reaches is as it was."""
    reached = _Reached()
    reached.look(target)
    misses = [(cached, cached.cache_info().misses) for cached in reached.caches]
    with ExitStack() as stack:
        stack.enter_context(kept(reached.things))
        try:
            yield
        finally:
            reached.put_back()
            for cached, before in misses:
                if cached.cache_info().misses != before and holds_stand_in(cached):
                    cached.cache_clear()


class _Reached:
    """Caches, containers and objects that some code reaches by the names in it."""

    def __init__(self) -> None:
        self.caches: list[Any] = []
        self.things: list[Any] = []
        self._bound: list[tuple[Any, str, Any]] = []
        """Class attributes, and globals that functions bind anew: where, under which name, and to what."""
        self._seen: set[int] = set()

    def put_back(self) -> None:
        """Bind class attributes and globals to what they were bound to."""
        for owner, name, value in self._bound:
            if isinstance(owner, dict):
                if owner.get(name) is not value:
                    owner[name] = value
            elif vars(owner).get(name) is not value:
                setattr(owner, name, value)

    def look(self, target: Any) -> None:
        """Look through a function, or through a module and the classes of all modules in it."""
        if isinstance(target, nn.Module):
            kinds: set[type] = set()
            for module in target.modules():
                held = [v for k, v in module.__dict__.items() if k not in ("_parameters", "_buffers", "_modules")]
                self.things += held
                self._all(v for v in held if isinstance(v, _FUNCTIONS))
                for kind in type(module).__mro__:
                    if _own(kind) and kind not in kinds:
                        kinds.add(kind)
                        self._bound += [(kind, k, v) for k, v in vars(kind).items() if _is_data(k, v)]
                        self._all(vars(kind).values())
                self._all(
                    hook for hooks in (module._forward_hooks, module._forward_pre_hooks) for hook in hooks.values()
                )
        else:
            self._all([target])

    def _all(self, things: Any) -> None:
        for thing in list(things):
            self._one(thing)

    def _one(self, thing: Any) -> None:
        if id(thing) in self._seen or len(self._seen) > MOST:
            return
        self._seen.add(id(thing))
        if isinstance(thing, CACHED):
            self.caches.append(thing)
            self._one(getattr(thing, "__wrapped__", None))
        elif isinstance(thing, staticmethod | classmethod | types.MethodType | functools.partial):
            self._one(getattr(thing, "__func__", None) or getattr(thing, "func", None))
        elif isinstance(thing, property):
            self._one(thing.fget)
        elif isinstance(thing, types.FunctionType):
            if _own(thing):
                self._function(thing)
        elif isinstance(thing, types.ModuleType | type | nn.Module) or callable(thing):
            return
        else:
            self.things.append(thing)

    def _function(self, function: types.FunctionType) -> None:
        names: set[str] = set()
        codes = [function.__code__]
        for code in codes:
            names.update(code.co_names)
            codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        for code in codes:
            anew = {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_GLOBAL"}
            self._bound += [
                (function.__globals__, n, function.__globals__[n]) for n in anew & function.__globals__.keys()
            ]
        for name in names & function.__globals__.keys():
            thing = function.__globals__[name]
            self._one(thing)
            if isinstance(thing, types.ModuleType) and _own(thing):
                self._all(vars(thing)[inner] for inner in names & vars(thing).keys())
        self._all(cell.cell_contents for cell in function.__closure__ or () if _filled(cell))
        self._all(function.__defaults__ or ())
        self._one(getattr(function, "__wrapped__", None))


def _own(thing: Any) -> bool:
    """Whether something is made by the user or a library of models, and not by torch or Python."""
    name = getattr(thing, "__module__", None) or getattr(thing, "__name__", None) or "torch"
    return str(name).partition(".")[0] not in _OTHERS


def _is_data(name: str, value: Any) -> bool:
    """Whether a class attribute is a value, not a part of the class."""
    if name.startswith("__") and name.endswith("__"):
        return False
    return not (callable(value) or hasattr(type(value), "__get__"))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  # an empty one raises
    except ValueError:
        return False
    return True
