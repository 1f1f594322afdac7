"""Templates: the operators of one signature, with slots where a call puts its own tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ..containers import found, replaced
from ..program.call_key import PLAIN, Meta, meta_of
from ..recording.recorder import Call, spec_of, storage_of

_PLAIN = frozenset(PLAIN)
"""Kinds of arguments that hold no tensor."""


@dataclass(frozen=True, slots=True)
class Local:
    """A tensor within a template."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One operator of a template."""

    name: str
    overload: str
    args: dict[str, Any]
    outputs: tuple[Local, ...]
    writes: tuple[Local, ...]
    seeded: bool
    moves: bool
    varies: bool = False
    """Whether a number among its arguments was read from a buffer, and matters to its rule."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a call of some signature does: `inputs` leading locals, then parameters, then whatever it computes."""

    steps: tuple[Step, ...]
    metas: tuple[Meta, ...]
    storages: tuple[int, ...]
    """For each local the first local in the same storage."""
    constants: dict[int, Tensor]
    """Tensors that are neither arguments nor parameters: made outside, e.g. plain attributes of a module."""
    result: Any
    writes: bool = False
    """Whether it writes to a list, a dict or a dataclass that it is given."""
    shares: bool = False
    """Whether it returns such a container that it is given."""


def build(inputs: list[Tensor], calls: list[Call], out: Any) -> Template:
    """Read a recording into a template."""
    builder = _Builder()
    for tensor in inputs:
        builder.local(tensor, constant=False)
    steps = []
    for func, args, kwargs, result in calls:
        spec = spec_of(func)
        bound = {
            name: builder.replace(args[i] if i < len(args) else kwargs.get(name, default))
            for i, (name, default) in enumerate(spec.arguments)
        }
        writes = tuple(x for name in spec.writes for x in locals_in(bound[name]))
        outputs = tuple(builder.local(t, constant=False) for t in found(result, Tensor))
        steps.append(Step(spec.name, spec.overload, bound, outputs, writes, spec.seeded, spec.moves))
    result = builder.replace(out)
    return Template(tuple(steps), tuple(builder.metas), tuple(builder.storages), builder.constants, result)


def same_template(a: Template, b: Template) -> bool:
    """Whether two recordings of one signature are the same."""
    if a is b:
        return True
    if (a.steps, a.metas, a.storages, a.result) != (b.steps, b.metas, b.storages, b.result):
        return False
    return a.constants.keys() == b.constants.keys() and all(
        same_constant(tensor, b.constants[k]) for k, tensor in a.constants.items()
    )


def same_constant(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors that are no parameters hold the same numbers. Of tensors without storage that is not known,
    and the answer is no."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype is not b.dtype or a.device != b.device or a.layout is not b.layout:
        return False
    if isinstance(a, FakeTensor) or isinstance(b, FakeTensor) or a.is_meta or b.is_meta:
        return False
    with torch.no_grad():
        return bool(torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def locals_in(arg: Any) -> list[Local]:
    """The locals of one argument."""
    if type(arg) is Local:
        return [arg]
    if type(arg) in _PLAIN:
        return []
    return found(arg, Local)


def fill(arg: Any, tensor: Callable[[Local], Any]) -> Any:
    """An argument of a template with its locals replaced."""
    if type(arg) is Local:
        return tensor(arg)
    if type(arg) in _PLAIN:
        return arg
    return replaced(arg, Local, tensor)


class _Builder:
    def __init__(self) -> None:
        self.known: dict[int, Local] = {}
        self.alive: list[Tensor] = []  # ids stay unique only while their tensors live
        self.metas: list[Meta] = []
        self.storages: list[int] = []
        self.first: dict[int, int] = {}
        self.constants: dict[int, Tensor] = {}

    def local(self, tensor: Tensor, *, constant: bool) -> Local:
        found = self.known.get(id(tensor)) or (self._same(tensor) if constant else None)
        if found is not None:
            return found
        index = len(self.metas)
        made = self.known[id(tensor)] = Local(index)
        self.alive.append(tensor)
        self.metas.append(meta_of(tensor))
        self.storages.append(self.first.setdefault(storage_of(tensor), index))
        if constant:
            self.constants[index] = tensor
        return made

    def _same(self, tensor: Tensor) -> Local | None:
        """The tensor that a factory (torch.zeros …) has made; Python gets another object for it than the recorder."""
        first = self.first.get(storage_of(tensor))
        meta = meta_of(tensor)
        alike = [k for k, s in enumerate(self.storages) if s == first and self.metas[k] == meta]
        return Local(alike[-1]) if alike else None

    def replace(self, arg: Any) -> Any:
        if type(arg) in _PLAIN:
            return arg
        return replaced(arg, Tensor, lambda tensor: self.local(tensor, constant=True))
