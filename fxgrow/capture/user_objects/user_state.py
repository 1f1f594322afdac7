"""Clean up what user code stores while it is recorded: in caches, lists, objects, classes and globals.

A recording runs user code on fake tensors, and none of them may remain where later calls of the user would find it.
"""

from __future__ import annotations

import dis
import functools
import sys
import sysconfig
import threading
import types
from collections import ChainMap, UserDict, UserList, UserString, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .caches import CACHED, holds_stand_in
from .code_traits import Traits, traits_of
from .locations import Kept, attributes_of, cells_of, class_of, container, entries_of, names_in, slots_of
from .module_twin import filled
from .random_streams import is_generator
from .stand_ins import SIMPLE, attributes, slots
from .user_code import is_own

_HOLDERS = (UserDict, UserList, UserString, ChainMap, types.SimpleNamespace)
"""Standard library classes whose objects hold user values."""
_LIBRARIES = ("<frozen", *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})
_STORES = ("STORE_GLOBAL", "STORE_DEREF")
MOST = 20_000
"""Limit on the number of objects searched, nearest first."""
DEEPEST = 8
"""Limit on the depth to which objects are followed from a name in the code."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Properties of the objects that some code can reach by name."""

    traits: Traits
    """Behavior that a run on fake tensors does not reveal."""
    generators: tuple[Any, ...]
    """Random generators, except the global ones."""
    numpy: bool
    """Whether the code may use NumPy."""


def reach_of(target: Any) -> Reach:
    """Return what a function or module of the user can reach by name."""
    reached = _Reached()
    reached.look(target)
    return reached.told()


@contextmanager
def nothing_left_behind(target: Any) -> Iterator[Reach]:
    """Remove, on exit, all new fake tensors and proxies from the objects that a recorded function or module can reach.

    Yields what its code reaches. If no other thread may have written to them, containers and objects are restored.
    """
    only = no_other_threads()
    reached = _Reached()
    reached.look(target)
    misses = [(cached, cached.cache_info().misses) for cached in reached.caches]
    try:
        yield reached.told()
    finally:
        for kept, whole in reached.kept:
            if whole and only and no_other_threads():
                kept.restore()
            else:
                kept.clean()
        reached.put_back()
        for cached, before in misses:
            if cached.cache_info().misses != before and holds_stand_in(cached):
                cached.cache_clear()


@contextmanager
def gradients_kept(model: nn.Module) -> Iterator[None]:
    """Restore `requires_grad` and `grad` of a model's parameters on exit, unless another thread may be training it."""
    only = no_other_threads()
    before = [(tensor, tensor.requires_grad, tensor.grad) for tensor in model.parameters() if tensor.is_leaf]
    try:
        yield
    finally:
        if only and no_other_threads():
            for tensor, flag, gradient in before:
                if tensor.requires_grad != flag:
                    tensor.requires_grad_(flag)
                if tensor.grad is not gradient:
                    tensor.grad = gradient


def no_other_threads() -> bool:
    """Return whether no other thread runs user code. Threads of Python and of libraries (progress bars, notebooks,
    waiting data loaders) are ignored, as they do not write to the user's objects."""
    here = threading.get_ident()
    return all(number == here or _waits(frame) for number, frame in sys._current_frames().items())


def _waits(frame: types.FrameType | None) -> bool:
    """Return whether a thread runs only library code, and no model."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_LIBRARIES) or file.endswith("torch/nn/modules/module.py"):
            return False
        frame = frame.f_back
    return True


class _Reached:
    """The caches, containers, objects, classes and globals that code can reach by name, with their saved states."""

    def __init__(self) -> None:
        self.caches: list[Any] = []
        self.codes: list[types.CodeType] = []
        self.generators: list[Any] = []
        self.numpy = False
        self.kept: list[tuple[Kept, bool]] = []
        """Saved locations, each with whether it may be restored completely."""
        self._bound: list[tuple[Any, str, Any]] = []
        """(owner, name, value) of class and function attributes, and of globals and closure cells that code rebinds."""
        self._seen: set[int] = set()
        self._next: deque[tuple[Any, int]] = deque()
        self._alive: list[Any] = []
        self._globals: dict[int, tuple[dict[str, Any], set[str]]] = {}

    def told(self) -> Reach:
        """Return the properties of all objects found so far."""
        return Reach(traits_of(self.codes), tuple(self.generators), self.numpy)

    def put_back(self) -> None:
        """Restore the bindings of attributes, globals and closure cells."""
        for owner, name, value in self._bound:
            if isinstance(owner, dict):
                if owner.get(name) is not value:
                    owner[name] = value
            elif isinstance(owner, types.CellType):
                owner.cell_contents = value
            elif vars(owner).get(name) is not value:
                setattr(owner, name, value)

    def look(self, target: Any) -> None:
        """Search a function, or a module and everything in it."""
        self._later([target], 0)
        while self._next and len(self._seen) < MOST:
            self._one(*self._next.popleft())
        for space, names in self._globals.values():
            self.kept.append((names_in(space, names), False))

    def _later(self, things: Iterable[Any], depth: int) -> None:
        if depth <= DEEPEST:
            self._next.extend((thing, depth) for thing in list(things) if type(thing) not in SIMPLE)

    def _keep(self, kept: Kept | None, *, whole: bool) -> None:
        if kept is not None:
            self.kept.append((kept, whole))

    def _one(self, thing: Any, depth: int) -> None:
        """Search one object, by its kind, unless it was searched before."""
        if id(thing) in self._seen:
            return
        self._seen.add(id(thing))
        self._alive.append(thing)  # so that its id is not reused
        if isinstance(thing, CACHED):
            self.caches.append(thing)
            self._later([getattr(thing, "__wrapped__", None)], 0)
        elif isinstance(thing, types.MethodType):
            self._later([thing.__func__, thing.__self__], depth)
        elif isinstance(thing, staticmethod | classmethod):
            self._later([thing.__func__], 0)
        elif isinstance(thing, functools.partial):
            self._later([thing.func, *thing.args, *thing.keywords.values()], depth)
        elif isinstance(thing, property):
            self._later([thing.fget, thing.fset], 0)
        elif isinstance(thing, functools.cached_property):
            self._later([thing.func], 0)
        elif isinstance(thing, types.FunctionType):
            if is_own(thing):
                self._function(thing)
        elif isinstance(thing, type):
            self._class(thing)
        elif isinstance(thing, nn.Module):
            self._module(thing, depth)
        elif isinstance(thing, types.ModuleType):
            self.numpy = self.numpy or thing.__name__.partition(".")[0] == "numpy"
        elif is_generator(thing):
            self.generators.append(thing)
            self.numpy = self.numpy or type(thing).__module__.startswith("numpy")
        elif not isinstance(thing, Tensor):
            self._object(thing, depth)

    def _object(self, thing: Any, depth: int) -> None:
        """Save a container or an object of the user, and search its contents."""
        self._keep(container(thing), whole=True)
        self._keep(entries_of(thing), whole=True)
        if isinstance(thing, dict):
            self._later(dict.values(thing), depth + 1)
        elif isinstance(thing, list | tuple | set | frozenset | deque):
            self._later(thing, depth + 1)
        if not (is_own(type(thing)) or isinstance(thing, _HOLDERS)):
            return
        whole = not callable(thing)
        self._keep(attributes_of(thing), whole=whole)
        self._keep(slots_of(thing), whole=whole)
        self._later((attributes(thing) or {}).values(), depth + 1)
        self._later(slots(thing).values(), depth + 1)
        self._later([type(thing)], 0)

    def _module(self, module: nn.Module, depth: int) -> None:
        """Save a module and search its contents: the recording runs a twin, but other code may use the original."""
        self._keep(attributes_of(module), whole=False)
        self._keep(container(module._parameters), whole=False)
        self._keep(container(module._buffers), whole=False)
        self._later(module._modules.values(), depth)
        self._later((v for k, v in module.__dict__.items() if k not in _structure()), depth + 1)
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            self._later(hooks.values(), depth)
        self._later([type(module)], 0)

    def _class(self, kind: type) -> None:
        """Save the attributes of a user class, and search them and its bases."""
        if not is_own(kind):
            return
        self._keep(class_of(kind), whole=False)
        self._bound += [(kind, name, value) for name, value in vars(kind).items() if _is_data(name, value)]
        self._later(vars(kind).values(), 0)
        self._later(kind.__bases__, 0)

    def _function(self, function: types.FunctionType) -> None:
        """Save the attributes, closure and named globals of a function, and search them and its defaults."""
        names: set[str] = set()
        codes = [function.__code__]
        for code in codes:
            names.update(code.co_names)
            codes += [c for c in code.co_consts if isinstance(c, types.CodeType)]
        self.codes += codes
        space = function.__globals__
        stores = {(i.opname, i.argval) for code in codes for i in dis.get_instructions(code) if i.opname in _STORES}
        anew = {name for kind, name in stores if kind == "STORE_GLOBAL"}
        self._bound += [(space, name, space[name]) for name in anew & space.keys()]
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            if ("STORE_DEREF", name) in stores and filled(cell):
                self._bound.append((cell, name, cell.cell_contents))
        self._bound += [(function, name, value) for name, value in vars(function).items() if _is_data(name, value)]
        self._names(function.__globals__, names)
        for name in names & function.__globals__.keys():
            thing = function.__globals__[name]
            if isinstance(thing, types.ModuleType) and is_own(thing):
                self._names(vars(thing), names & vars(thing).keys())
        self._keep(attributes_of(function), whole=False)
        self._keep(cells_of(function), whole=False)
        self._later((cell.cell_contents for cell in function.__closure__ or () if filled(cell)), 0)
        self._later(function.__defaults__ or (), 0)
        self._later((function.__kwdefaults__ or {}).values(), 0)
        self._later(function.__dict__.values(), 0)

    def _names(self, space: dict[str, Any], names: set[str]) -> None:
        """Search the globals of a module that some code names, and register them to be saved."""
        self._later((space[name] for name in names & space.keys()), 0)
        self._globals.setdefault(id(space), (space, set()))[1].update(names)


@functools.cache
def _structure() -> frozenset[str]:
    """Return the names of the attributes of every `nn.Module`."""
    return frozenset(vars(nn.Module()))


def _is_data(name: str, value: Any) -> bool:
    """Return whether a class attribute is a data value: neither callable, nor a descriptor, nor a dunder name."""
    if name.startswith("__") and name.endswith("__"):
        return False
    return not (callable(value) or hasattr(type(value), "__get__"))
