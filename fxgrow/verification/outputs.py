"""What models return, taken apart into tensors that can be compared entry by entry, and the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

PLAIN = (int, float, complex)


@dataclass(frozen=True, slots=True, eq=False)
class WithInputs:
    """What a model returns, and what it has written into containers among its inputs."""

    output: Any
    left: dict[str, Any]
    """By an expression that reads it: a value that was not there before the call, or the form of a container."""


def flat(output: Any, name: str = "output") -> dict[str, Tensor]:
    """Every tensor of a result, by a readable name: dense ones of numbers, complex ones as pairs of real ones.

    Numbers, and arrays and scalars of numpy, count as tensors.
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
    """What a result holds that is no tensor and no number, by name: texts and None as they are, else the type."""
    if isinstance(output, Tensor | int | float | complex) or _of_numpy(output):
        return {}
    parts = _parts(output, name)
    if parts is not None:
        return {k: x for key, item in parts for k, x in besides(item, key).items()}
    return {name: output if output is None or isinstance(output, str | bytes) else type(output)}


def opaque(output: Any) -> list[str]:
    """Parts of a result that nobody looks into: objects of other classes, of which the class alone is compared."""
    return [f"{name} is a {kind.__name__}" for name, kind in besides(output).items() if isinstance(kind, type)]


def _parts(output: Any, name: str) -> list[tuple[str, Any]] | None:
    """The parts of a container by name; None if it is none."""
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
    """Whether it is an array or a scalar of numbers; numpy itself need not be there."""
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
