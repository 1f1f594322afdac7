"""Takes a model's output apart into tensors, which are compared entry by entry, and other objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

PLAIN = (int, float, complex)


@dataclass(frozen=True, slots=True, eq=False)
class WithInputs:
    """A model's output together with what the model wrote into containers among its inputs."""

    output: Any
    left: dict[str, Any]
    """Maps an expression to the value that it has after the call: a new value, or the structure of a container."""


def flat(output: Any, name: str = "output") -> dict[str, Tensor]:
    """Return every tensor of an output by a readable name, as dense real tensors; complex ones as pairs of real
    numbers.

    Numbers, NumPy arrays and NumPy scalars count as tensors.
    """
    if isinstance(output, Tensor):
        return dict(_dense(output, name))
    if isinstance(output, PLAIN):
        dtype = torch.complex128 if isinstance(output, complex) else torch.float64
        return dict(_dense(torch.tensor(output, dtype=dtype), name))
    if _of_numpy(output):
        return dict(_dense(torch.as_tensor(output), name))
    return {k: t for key, item in _parts(output, name) or () for k, t in flat(item, key).items()}


def besides(output: Any, name: str = "output") -> dict[str, Any]:
    """Return all parts of an output that are not tensors or numbers, by name: strings and None as they are, else the
    type."""
    if isinstance(output, Tensor | int | float | complex) or _of_numpy(output):
        return {}
    parts = _parts(output, name)
    if parts is not None:
        return {k: x for key, item in parts for k, x in besides(item, key).items()}
    return {name: output if output is None or isinstance(output, str | bytes) else type(output)}


def opaque(output: Any) -> list[str]:
    """Describe the parts of an output that are objects of unknown classes: only their class is compared."""
    return [f"{name} is a {kind.__name__}" for name, kind in besides(output).items() if isinstance(kind, type)]


def _parts(output: Any, name: str) -> list[tuple[str, Any]] | None:
    """Return the parts of a container by name, or None if the object is not a container."""
    if isinstance(output, WithInputs):
        return [(name, output.output), *output.left.items()]
    if isinstance(output, Mapping):
        return [(f"{name}[{key!r}]", item) for key, item in output.items()]
    if isinstance(output, list | tuple):
        return [(f"{name}[{i}]", item) for i, item in enumerate(output)]
    if is_dataclass(output) and not isinstance(output, type):
        return [(f"{name}.{f.name}", getattr(output, f.name)) for f in fields(output)]
    return None


def _of_numpy(x: Any) -> bool:
    """Whether an object is a numeric NumPy array or scalar; works without NumPy installed."""
    kind = getattr(getattr(x, "dtype", None), "kind", "")
    return type(x).__module__ == "numpy" and isinstance(kind, str) and kind in tuple("biufc")


def _dense(x: Tensor, name: str) -> Iterator[tuple[str, Tensor]]:
    if x.is_nested:
        for i, part in enumerate(x.unbind()):
            yield from _dense(part, f"{name}[{i}]")
        return
    if x.is_quantized:
        x = x.dequantize()
    if x.layout is not torch.strided:
        x = x.to_dense()
    yield name, torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
