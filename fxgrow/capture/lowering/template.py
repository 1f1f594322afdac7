"""Templates: the operators of a call with one signature, with slots for the tensors of a particular call."""

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
"""Classes of arguments that contain no tensor."""


@dataclass(frozen=True, slots=True)
class Local:
    """A tensor slot of a template, by number."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """An operator call of a template, with `Local`s for tensors."""

    name: str
    overload: str
    args: dict[str, Any]
    outputs: tuple[Local, ...]
    writes: tuple[Local, ...]
    seeded: bool
    moves: bool
    varies: bool = False
    """Whether a numeric argument that matters to its rule was read from a buffer."""


@dataclass(frozen=True, slots=True)
class Template:
    """The operators and the result of a call with some signature.

    Locals are numbered in this order: tensor arguments, tensors of the module, then computed and constant tensors.
    """

    steps: tuple[Step, ...]
    metas: tuple[Meta, ...]
    storages: tuple[int, ...]
    """For each local, the first local in the same storage."""
    constants: dict[int, Tensor]
    """Tensors that are neither arguments nor parameters nor computed, such as plain tensor attributes of a module."""
    result: Any
    writes: bool = False
    """Whether the call writes to a list, dict or dataclass among its arguments."""
    shares: bool = False
    """Whether the call returns such an argument."""


def build(inputs: list[Tensor], calls: list[Call], out: Any) -> Template:
    """Convert a recording to a template."""
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
    """Return whether two templates of the same signature are equal."""
    if a is b:
        return True
    if (a.steps, a.metas, a.storages, a.result) != (b.steps, b.metas, b.storages, b.result):
        return False
    return a.constants.keys() == b.constants.keys() and all(
        same_constant(tensor, b.constants[k]) for k, tensor in a.constants.items()
    )


def same_constant(a: Tensor, b: Tensor) -> bool:
    """Return whether two constant tensors hold equal numbers. Fake and meta tensors have no known numbers, so they are
    equal only if they are the same object."""
    if a is b:
        return True
    if a.shape != b.shape or a.dtype is not b.dtype or a.device != b.device or a.layout is not b.layout:
        return False
    if isinstance(a, FakeTensor) or isinstance(b, FakeTensor) or a.is_meta or b.is_meta:
        return False
    with torch.no_grad():
        return bool(torch.equal(a, b) or torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def locals_in(arg: Any) -> list[Local]:
    """Return the locals in an argument."""
    if type(arg) is Local:
        return [arg]
    if type(arg) in _PLAIN:
        return []
    return found(arg, Local)


def fill(arg: Any, tensor: Callable[[Local], Any]) -> Any:
    """Return an argument of a template with its locals replaced by `tensor(local)`."""
    if type(arg) is Local:
        return tensor(arg)
    if type(arg) in _PLAIN:
        return arg
    return replaced(arg, Local, tensor)


class _Builder:
    """Numbers the tensors of a recording, and collects their metadata, storages and constants for a template."""

    def __init__(self) -> None:
        self.known: dict[int, Local] = {}
        self.alive: list[Tensor] = []  # keeps tensors alive, so that their ids stay unique
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
        """Return the local of a factory's result (`torch.zeros` …), for which Python gets another object."""
        first = self.first.get(storage_of(tensor))
        meta = meta_of(tensor)
        alike = [k for k, s in enumerate(self.storages) if s == first and self.metas[k] == meta]
        return Local(alike[-1]) if alike else None

    def replace(self, arg: Any) -> Any:
        if type(arg) in _PLAIN:
            return arg
        return replaced(arg, Tensor, lambda tensor: self.local(tensor, constant=True))
