"""A traced model at one moment: its graph, modules and tensors, read once for all who ask about them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from functools import cached_property
from math import prod
from typing import Any

from torch import Tensor, fx, nn

from ..program.call_key import meta_of, module_key
from ..program.trees import attribute
from .shared_storage import place_of


class Snapshot:
    """What an analysis is made from and compared with. Make one for each call; it does not notice later changes."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.nodes = list(gm.graph.nodes)
        self.modules: dict[str, nn.Module] = dict(gm.named_modules(remove_duplicate=False))
        self.parameters, buffers = tensors_in(self.modules)
        self.tensors: list[tuple[str, Tensor]] = [*self.parameters, *buffers]
        """Parameters and buffers by every name they have."""

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The signature of each module that the graph calls."""
        called = dict.fromkeys(str(n.target) for n in self.nodes if n.op == "call_module")
        return {path: module_key(self.modules[path], {}, {}) for path in called}

    @cached_property
    def fingerprint(self) -> int:
        """A number that changes with the graph, the configuration of a module, a tie or the shape of a tensor.

        An analysis belongs to models with its fingerprint, within one process.
        """
        read = tuple(
            meta_of(thing)
            for thing in (attribute(self.gm, str(n.target)) for n in self.nodes if n.op == "get_attr")
            if isinstance(thing, Tensor)
        )
        return hash((self._graph, tuple(self.keys.values()), read, self._ties))

    @cached_property
    def digest(self) -> str:
        """The same for all processes: a plan belongs to models with its digest, and checks shapes by itself."""
        called = [_module_text(self.modules[str(n.target)]) for n in self.nodes if n.op == "call_module"]
        return hashlib.sha256(repr((self._graph, called, self._ties)).encode()).hexdigest()[:16]

    @cached_property
    def places(self) -> list[Hashable]:
        """Where each of `tensors` lies: equal places are one tensor, or one memory."""
        return [place_of(tensor) for _, tensor in self.tensors]

    @cached_property
    def size(self) -> tuple[int, int]:
        """The number of parameters, and the bytes of parameters and buffers; tied tensors count once."""
        everything = {place: t for place, (_, t) in zip(self.places, self.tensors, strict=True)}
        parameters = {place: t for place, (_, t) in zip(self.places, self.parameters, strict=False)}
        return (
            sum(prod(t.shape) for t in parameters.values()),
            sum(prod(t.shape) * t.element_size() for t in everything.values()),
        )

    @cached_property
    def _graph(self) -> tuple[tuple[str, ...], ...]:
        return tuple((n.name, n.op, _target_text(n.target), repr(n.args), repr(n.kwargs)) for n in self.nodes)

    @cached_property
    def _ties(self) -> tuple[int, ...]:
        """For each name of a tensor the number of the tensor: equal numbers are one tensor, or one memory."""
        seen: dict[Hashable, int] = {}
        return tuple(seen.setdefault(place, len(seen)) for place in self.places)


def tensors_in(modules: Mapping[str, nn.Module]) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Parameters and buffers by every name they have, as `named_parameters` and `named_buffers` list them.

    Args:
        modules: all of a model by path, as `named_modules(remove_duplicate=False)` lists them.
    """
    parameters: list[tuple[str, Tensor]] = []
    buffers: list[tuple[str, Tensor]] = []
    for path, module in modules.items():
        start = f"{path}." if path else ""
        parameters += [(start + name, t) for name, t in module._parameters.items() if t is not None]
        buffers += [(start + name, t) for name, t in module._buffers.items() if t is not None]
    return parameters, buffers


def _target_text(target: Any) -> str:
    return target if isinstance(target, str) else f"{target.__module__}.{target.__name__}"


def _module_text(module: nn.Module) -> str:
    return f"{type(module).__name__}({module.extra_repr()})"
