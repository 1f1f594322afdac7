"""Hashable keys for calls: calls with equal keys run the same ATen operators, so each key is lowered only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from ..containers import found, replaced, way_into
from .program import Ref

Meta = tuple[tuple[int, ...], tuple[int, ...], torch.dtype, torch.device]
"""The metadata of a tensor: shape, stride, dtype and device."""

PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.memory_format, torch.layout, complex)
_PLAIN = frozenset(PLAIN)
_STRUCTURE = frozenset({"_parameters", "_buffers", "_modules"})
_BOOKKEEPING = frozenset(
    {"_non_persistent_buffers_set", "_backward_hooks", "_backward_pre_hooks", "_flat_weights", "_flat_weight_refs"}
    | {"_compiled_call_impl"}
)


class ById:
    """A key part compared by identity; it keeps its object alive so that the identity cannot be reused."""

    __slots__ = ("thing",)

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ById) and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def strides_like(shape: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a dense tensor of this shape whose memory order of dimensions is that of `stride`."""
    order = sorted(range(len(shape)), key=lambda k: (stride[k], k < 0), reverse=True)
    result, step = [0] * len(shape), 1
    for k in reversed(order):
        result[k] = step
        step *= max(shape[k], 1)
    return tuple(result)


def meta_of(tensor: Tensor) -> Meta:
    """Return the metadata of a tensor: shape, stride, dtype and device."""
    return (tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)


def meta_of_ref(ref: Ref) -> Meta:
    """Return the metadata of a tensor of the program."""
    value = ref.value
    return (value.shape, value.stride, value.dtype, value.device)


def plain_key(arg: Any) -> Any:
    """Return a key for a non-tensor argument. It includes the type, because 1, 1.0 and True are different arguments."""
    kind = type(arg)
    if kind in _PLAIN:
        return (kind, arg)
    if kind in (list, tuple, torch.Size):
        return (kind, *map(plain_key, arg))
    if isinstance(arg, PLAIN):
        return (kind, arg)
    if kind is slice:
        return (slice, plain_key(arg.start), plain_key(arg.stop), plain_key(arg.step))
    if kind is dict:
        return (dict, *((k, plain_key(v)) for k, v in arg.items()))
    return ById(arg)


def key_of(arg: Any, slots: dict[Ref, int]) -> Any:
    """Return a key for an argument. Each distinct tensor is assigned the next slot number in `slots`."""
    if isinstance(arg, Ref):
        known = slots.get(arg)
        if known is None:
            slots[arg] = len(slots)
            return (Ref, meta_of_ref(arg))
        return (Ref, known)
    kind = type(arg)
    if kind is tuple:
        return (tuple, *[key_of(item, slots) for item in arg])
    if kind in _PLAIN:
        return (kind, arg)
    way = way_into(kind)
    if way is None:
        return plain_key(arg)
    return (kind, way.names(arg), *(key_of(item, slots) for item in way.items(arg)))


def substitute(arg: Any, tensor: Callable[[Ref], Any]) -> Any:
    """Return the argument with each `Ref` in it replaced."""
    return replaced(arg, Ref, tensor)


def positions(arg: Any) -> list[Ref]:
    """Return the `Ref`s in a tree of arguments, in order and with repetitions."""
    return found(arg, Ref)


def module_key(module: nn.Module, metas: Mapping[int, Meta], attributes: Mapping[str, object]) -> Any:
    """Return a key for a leaf module: its class, its configuration and the metadata of its tensors.

    `metas` (by tensor id) and `attributes` override those of the module, so that the key of a module after a planned
    change can be computed before the change.
    """
    state = module.__dict__
    config = [(k, plain_key(attributes.get(k, v))) for k, v in state.items() if _counts(k, v)]
    tensors = [
        (k, None if t is None else metas.get(id(t)) or meta_of(t))
        for group in (module._parameters, module._buffers)
        for k, t in group.items()
    ]
    children = [(k, None if m is None else module_key(m, metas, {})) for k, m in module._modules.items()]
    return (type(module), tuple(config), tuple(tensors), tuple(children))


def _counts(name: str, value: object) -> bool:
    if name in _STRUCTURE or name in _BOOKKEEPING:
        return False
    return not (name.startswith("_") and type(value).__name__ in ("OrderedDict", "dict", "set") and not value)


def in_mode(module: nn.Module, training: bool) -> nn.Module:
    """Return a shallow copy of a module in the given mode, with the same tensors; the original is not modified."""
    twin = module.__class__.__new__(module.__class__)
    twin.__dict__ = {**module.__dict__, "training": training}
    twin.__dict__["_modules"] = {k: None if m is None else in_mode(m, training) for k, m in module._modules.items()}
    return twin


def flat_weights(module: nn.RNNBase) -> dict[str, Any]:
    """Return the attributes `_flat_weights` and `_flat_weight_refs` of a recurrent layer for its current weights."""
    flat = [module._parameters.get(name) for name in module._flat_weights_names]
    return {"_flat_weights": flat, "_flat_weight_refs": [None if w is None else ref(w) for w in flat]}
