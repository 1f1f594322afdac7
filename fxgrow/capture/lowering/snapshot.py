"""A snapshot of a traced model: its graph, modules and tensors, read once and shared."""

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
    """The state of a traced model, from which an analysis is made, and with which its validity is checked later.

    Create a new snapshot for each call: it does not reflect later changes of the model.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.nodes = list(gm.graph.nodes)
        self.modules: dict[str, nn.Module] = dict(gm.named_modules(remove_duplicate=False))
        self.parameters, buffers = tensors_in(self.modules)
        self.tensors: list[tuple[str, Tensor]] = [*self.parameters, *buffers]
        """Parameters and buffers, once for each of their names."""

    @cached_property
    def keys(self) -> dict[str, Any]:
        """The `module_key` of each module that the graph calls, by path."""
        called = dict.fromkeys(str(n.target) for n in self.nodes if n.op == "call_module")
        return {path: module_key(self.modules[path], {}, {}) for path in called}

    @cached_property
    def fingerprint(self) -> int:
        """A hash of the graph, the configurations of the modules, the ties, and the metadata of the tensors it uses.

        An analysis is valid for models with the same fingerprint, within one process.
        """
        read = tuple(
            meta_of(thing)
            for thing in (attribute(self.gm, str(n.target)) for n in self.nodes if n.op == "get_attr")
            if isinstance(thing, Tensor)
        )
        return hash((self._graph, tuple(self.keys.values()), read, self._ties))

    @cached_property
    def digest(self) -> str:
        """A digest that is equal in all processes. A plan applies to models with its digest; it checks their shapes."""
        called = [_module_text(self.modules[str(n.target)]) for n in self.nodes if n.op == "call_module"]
        return hashlib.sha256(repr((self._graph, called, self._ties)).encode()).hexdigest()[:16]

    @cached_property
    def places(self) -> list[Hashable]:
        """The memory location of each of `tensors` (see `place_of`); tied tensors have equal locations."""
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
        """For each name of a tensor, the number of its memory location; tied tensors have equal numbers."""
        seen: dict[Hashable, int] = {}
        return tuple(seen.setdefault(place, len(seen)) for place in self.places)


def tensors_in(modules: Mapping[str, nn.Module]) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Return parameters and buffers, once for each name, in the order of `named_parameters` and `named_buffers`.

    Args:
        modules: all modules of a model by path, as listed by `named_modules(remove_duplicate=False)`.
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
