"""Inspect the bytecode of user code for behavior that a run on fake tensors or proxies (stand-ins) does not reveal.

The result only determines how thoroughly the code is recorded; it never causes a refusal.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from .compiled import has_compiled_call, is_compiled
from .user_code import is_own

_GRADIENTS = frozenset({"requires_grad", "grad_fn", "is_grad_enabled", "is_leaf"})
_MEMORY = frozenset({"numpy", "tolist", "asarray", "array", "data_ptr", "untyped_storage"})
_KINDS = frozenset({"type", "repr", "str", "__class__"})
_STAND_INS = frozenset({"FakeTensor", "Proxy", "fake_mode", "is_fx_tracing", "is_fake", "_get_current_dispatch_mode"})
"""Names by which code can detect that it runs on fake tensors or proxies."""
_COMPILING = frozenset({"is_compiling", "is_dynamo_compiling"})
"""Names by which code can detect that torch.compile is compiling it."""
_OTHER_ERRORS = frozenset({"AttributeError", "ImportError", "KeyError", "IndexError", "NameError"})
"""Exceptions that a fake tensor or proxy does not raise when its value is requested."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Behavior that some code may have, according to its bytecode."""

    assigns_data: bool = False
    """It assigns to `data` (`x.data = y`), which no torch operator shows."""
    looks_at_kinds: bool = False
    """It tests the class of a tensor (`type(x) is Tensor`), which differs for a fake tensor or proxy."""
    handles_errors: bool = False
    """It catches errors and accesses the memory of a tensor, for which a stand-in raises an error. (Requests for a
    number are detected by the recorder.)"""
    looks_at_gradients: bool = False
    """It reads the gradient mode (`x.requires_grad`, `torch.is_grad_enabled()`), so it may depend on it."""

    def __or__(self, other: Traits) -> Traits:
        return Traits(*(getattr(self, name) or getattr(other, name) for name in Traits.__slots__))

    @property
    def sees_stand_ins(self) -> bool:
        """Whether the code may behave differently on fake tensors or proxies than on real tensors."""
        return self.looks_at_kinds or self.handles_errors


def traits_of(codes: Iterable[CodeType]) -> Traits:
    """Return the union of the traits of some code objects."""
    found = Traits()
    for code in codes:
        found |= _of(code)
    return found


@functools.lru_cache(maxsize=4096)
def _of(code: CodeType) -> Traits:
    """Return the traits of a single code object (cached)."""
    names = frozenset(code.co_names)
    told = names.union(c for c in code.co_consts if isinstance(c, str))
    kinds = not told.isdisjoint(_STAND_INS) or (not names.isdisjoint(_KINDS) and _calls(code, _KINDS))
    assigns = "setattr" in names and "data" in code.co_consts
    handles = "suppress" in names
    before: dis.Instruction | None = None
    if "data" in names or not names.isdisjoint(_MEMORY):
        for step in dis.get_instructions(code):
            assigns = assigns or (step.opname == "STORE_ATTR" and step.argval == "data")
            bare = before is not None and before.opname == "PUSH_EXC_INFO" and step.opname in ("POP_TOP", "STORE_FAST")
            match = step.opname == "CHECK_EXC_MATCH" and (before is None or before.argval not in _OTHER_ERRORS)
            handles = handles or match or bare
            before = step
    handles = handles and not names.isdisjoint(_MEMORY)
    return Traits(assigns, kinds, handles, not names.isdisjoint(_GRADIENTS))


def _calls(code: CodeType, names: frozenset[str]) -> bool:
    """Return whether code uses global functions of these names, or `__class__`; methods (`x.type(…)`) do not count."""
    return any(
        step.argval in names and (step.opname == "LOAD_GLOBAL" or step.argval == "__class__")
        for step in dis.get_instructions(code)
    )


def traits_of_calls(model: nn.Module) -> Traits:
    """Return the traits of a call of a model: `forward` of its modules, hooks, and the functions they call by name."""
    return traits_of(code for function in _called(model.modules()) for code in _codes(function.__code__))


def names_in(model: nn.Module) -> frozenset[str]:
    """Return all names in the code that a call of a model may reach."""
    functions = _called(model.modules())
    return frozenset(name for function in functions for code in _codes(function.__code__) for name in code.co_names)


def tests_for_none(model: nn.Module) -> bool:
    """Return whether code that a call of a model may reach tests a value other than a `self` attribute for None."""
    return any(map(_tests_for_none, (c for f in _called(model.modules()) for c in _codes(f.__code__))))


@functools.lru_cache(maxsize=4096)
def _tests_for_none(code: CodeType) -> bool:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("COPY", "CACHE", "NOP", "EXTENDED_ARG")]
    for k, step in enumerate(steps):
        compared = step.opname == "IS_OP" and steps[k - 1].argval is None
        if not compared and not ("JUMP" in step.opname and "NONE" in step.opname):
            continue
        first = k - 2 if compared else k - 1
        while first > 0 and steps[first].opname in ("LOAD_ATTR", "LOAD_METHOD"):
            first -= 1
        if first == k - (2 if compared else 1) or steps[first].argval != "self":
            return True
    return False


def may_compile(model: nn.Module) -> bool:
    """Return whether code that a call of a model may reach calls torch.compile."""
    codes = (code for function in _called(model.modules()) for code in _codes(function.__code__))
    return any({"torch", "compile"} <= {*code.co_names} for code in codes)


def differs_when_compiled(model: nn.Module) -> bool:
    """Return whether some code of a model is compiled by torch.compile and some code tests whether it is compiling."""
    reached = list(_reached(model.modules()))
    codes = (code for _, function in reached for code in _codes(function.__code__))
    if all(_COMPILING.isdisjoint(code.co_names) for code in codes):
        return False
    return any(map(has_compiled_call, model.modules())) or any(is_compiled(thing) for thing, _ in reached)


def looks_at_mode(module: nn.Module) -> bool:
    """Return whether user code that a call of a module reaches, other than through its submodules, reads `training`."""
    codes = (code for function in _called([module]) for code in _codes(function.__code__))
    return any("training" in (*code.co_names, *code.co_consts) for code in codes)


def patterns(paths: Sequence[str]) -> list[list[str]]:
    """Return groups of paths by the binary digits of their positions: each path is in at least one group, and no two
    paths are in the same set of groups."""
    digits = range(len(paths).bit_length())
    return [[path for number, path in enumerate(paths, 1) if number >> digit & 1] for digit in digits]


def read_by_others(model: nn.Module) -> list[str]:
    """Return the paths of modules whose `training` flag other modules may read, as in `if self.norm.training`."""
    codes = [code for function in _called(model.modules()) for code in _codes(function.__code__)]
    names = {name for code in codes for name in _asked(code)}
    paths = [path for path, _ in model.named_modules() if path]
    return [path for path in paths if "" in names or path.rpartition(".")[2] in names]


@functools.lru_cache(maxsize=4096)
def _asked(code: CodeType) -> frozenset[str]:
    """Return the names of the attributes whose `training` flag code reads; "" for a local variable other than `self`
    or another expression."""
    if "training" in code.co_consts:
        return frozenset({""})
    if "training" not in code.co_names:
        return frozenset()
    found = set()
    before: dis.Instruction | None = None
    for step in dis.get_instructions(code):
        if step.opname == "LOAD_ATTR" and step.argval == "training" and before is not None:
            local = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
            if not (local == "self" and before.opname.startswith(("LOAD_FAST", "LOAD_DEREF"))):
                found.add(str(local) if before.opname == "LOAD_ATTR" else "")
        before = step
    return frozenset(found)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Iterate over a code object and all code objects nested in it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _called(modules: Iterable[nn.Module]) -> Iterator[FunctionType]:
    """Iterate over the functions of the user and of model libraries that a call of some modules may reach."""
    return (function for _, function in _reached(modules))


def _reached(modules: Iterable[nn.Module]) -> Iterator[tuple[Any, FunctionType]]:
    """Iterate over (object, function) for the functions in `_called`, each with the object that wraps it, or itself."""
    seen: set[tuple[int, type | None]] = set()
    waiting: list[tuple[Any, type | None]] = []
    kind: type | None
    for module in modules:
        kind = type(module)
        hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        waiting += [(getattr(module, "forward", None), kind), *((hook, None) for hook in hooks)]
        own = (value for name, value in vars(module).items() if not name.startswith("_") and callable(value))
        waiting += [(value, kind) for value in own]
    while waiting:
        thing, kind = waiting.pop()
        if isinstance(thing, functools.partial):
            waiting += [(part, kind) for part in (thing.func, *thing.args, *thing.keywords.values()) if callable(part)]
            continue
        if isinstance(thing, type):
            parts = (inspect.getattr_static(thing, name, None) for name in ("__init__", "__call__", "forward"))
            waiting += [(part, thing) for part in parts] if is_own(thing) else []
            continue
        if isinstance(thing, property | functools.cached_property):
            thing = thing.fget if isinstance(thing, property) else thing.func
        outer = thing
        thing = inspect.unwrap(getattr(thing, "__func__", thing)) if callable(thing) else thing
        if not isinstance(thing, FunctionType):
            called = getattr(type(thing), "__call__", None)  # noqa: B004  # the function itself is needed
            thing = called if isinstance(called, FunctionType) else None
        if thing is None or not is_own(thing) or (id(thing), kind) in seen:
            continue
        seen.add((id(thing), kind))
        yield outer, thing
        waiting += _named(thing, kind)


def _named(function: FunctionType, kind: type | None) -> Iterator[tuple[Any, type | None]]:
    """Iterate over the callables a function may call, each with its class: methods, globals, defaults, closure."""
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    for name in names:
        found = inspect.getattr_static(kind, name, None) if kind is not None else None
        if isinstance(found, FunctionType | property | functools.cached_property | staticmethod | classmethod):
            yield found, kind
        thing = function.__globals__.get(name)
        if isinstance(thing, ModuleType) and is_own(thing):
            yield from ((vars(thing)[inner], None) for inner in names & vars(thing).keys())
        elif isinstance(thing, FunctionType | type | MethodType | functools.partial):
            yield thing, None
    if kind is not None and "super" in names:
        for base in kind.__mro__[1:]:
            yield from ((vars(base)[name], kind) for name in names & vars(base).keys())
    defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    yield from ((value, None) for value in defaults if callable(value))
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents, kind
        except ValueError:  # an empty cell
            continue
