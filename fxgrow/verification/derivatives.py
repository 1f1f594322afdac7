"""Finds the tensors on which the outputs depend: by derivatives for all tensors at once, confirmed by differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from math import isfinite, sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .compare import forward, place, seeded, standing
from .outputs import flat
from .precision import raised
from .probes import Probe

STEPS = (1e-7, 1e-6, 1e-8)
"""Step sizes of the differences, as parts of the perturbation: small ones drown in rounding, large ones cross kinks."""
CHECKS = 2
"""Number of random directions in which differences are taken."""
CERTAIN = 100.0
"""A derivative counts if it is this many times the disagreement between derivatives and differences."""
LUCK = 6.0
"""A sum of N numbers of at most 1 with random signs exceeds this times sqrt(N) once in thirty million times."""


class Slopes:
    """The derivatives of a model's outputs with respect to its tensors, at their current values.

    The outputs are summed with random signs and scaled so that the sum changes by at most 1 if every entry of every
    output changes by at most its unit.
    """

    def __init__(
        self, model: nn.Module, probe: Probe, units: Mapping[str, Tensor], *, seed: int, epsilon: float | None
    ) -> None:
        self.model, self.probe, self.seed, self.epsilon = model, probe, seed, epsilon
        self.random = torch.Generator().manual_seed(seed)
        self.weights = {name: self._weights(unit) / len(units) for name, unit in units.items()}

    def _weights(self, unit: Tensor) -> Tensor:
        signs = torch.rand(unit.shape, generator=self.random, dtype=torch.float64).round() * 2 - 1
        usable = (unit > 0) & unit.isfinite()
        return torch.where(usable, signs.to(unit.device) / (unit * LUCK * sqrt(max(unit.numel(), 1))), 0.0)

    def felt(self, tensors: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> set[str]:
        """Return the tensors whose steps change an output by more than its unit, to first order.

        A model's derivatives may differ from those of its forward function (`x + (y - x).detach()`, a custom backward),
        so they must agree with differences of the outputs. Small derivatives are confirmed only after the tensors with
        large ones have been left out.

        Args:
            tensors: tensors of the model, by name.
            steps: the perturbation of each tensor.

        Raises:
            Exception: the model cannot be differentiated.
        """
        slopes = self._slopes(tensors, steps)
        left = {name: slope for name, slope in slopes.items() if isfinite(slope) and abs(slope) > 1.0}
        found: set[str] = set()
        for size in STEPS:
            fresh = set(left)
            while left and fresh:
                for _ in range(CHECKS):
                    fresh &= self._confirmed({n: tensors[n] for n in left}, steps, left, size)
                found |= fresh
                left = {name: slope for name, slope in left.items() if name not in fresh}
                fresh = fresh and set(left)
        return found

    def _slopes(self, tensors: Mapping[str, Tensor], steps: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the derivative of the sum with respect to each tensor along its step."""
        with torch.enable_grad(), _learning(tensors.values()), _Written():
            total = self._sum()
            if not total.requires_grad:
                return {}
            grads: Sequence[Tensor | None] = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
        found = zip(tensors, grads, strict=True)
        return {n: float((_dense(g) * steps[n]).real.sum()) for n, g in found if g is not None}

    def _confirmed(
        self, some: Mapping[str, Tensor], steps: Mapping[str, Tensor], slopes: Mapping[str, float], size: float
    ) -> set[str]:
        """Return the tensors whose derivative is far larger than its disagreement with a difference in a random
        direction."""
        factors = {name: float(torch.rand((), generator=self.random)) * 1.5 - 0.75 for name in some}
        rest = {name: tensor.detach().clone() for name, tensor in some.items()}
        sums = []
        with torch.no_grad(), _Written():
            for step in (size, -size):
                for name, tensor in some.items():
                    tensor.copy_(rest[name] + step * factors[name] * steps[name])
                sums.append(float(self._sum()))
            for name, tensor in some.items():
                tensor.copy_(rest[name])
        wrong = abs((sums[0] - sums[1]) / (2 * size) - sum(factors[n] * slopes[n] for n in some))
        return {n for n in some if abs(factors[n] * slopes[n]) > CERTAIN * wrong}

    def _sum(self) -> Tensor:
        device, _ = standing(self.model)
        inputs = self.probe.given.changed(lambda x: place(x, device, torch.float64))
        with seeded(self.seed), raised(self.epsilon) if self.epsilon is not None else nullcontext():
            outputs = flat(forward(self.model, inputs))
            total = torch.zeros((), dtype=torch.float64, device=device)
            for name, weight in self.weights.items():
                if outputs[name].shape != weight.shape:
                    raise ValueError(f"{name} has another shape")
                if outputs[name].is_floating_point():
                    total = total + torch.where(weight == 0, 0.0, outputs[name].to(weight) * weight).sum()
        return total


def _dense(grad: Tensor) -> Tensor:
    return grad if grad.layout is torch.strided else grad.to_dense()


@contextmanager
def _learning(tensors: Any) -> Iterator[None]:
    """Set `requires_grad` on some tensors, including buffers and frozen parameters, and restore it afterwards."""
    changed = [t for t in tensors if not t.requires_grad]
    try:
        for tensor in changed:
            tensor.requires_grad_(True)
        yield
    finally:
        for tensor in changed:
            tensor.requires_grad_(False)


class _Written(TorchFunctionMode):
    """Replaces batch norms with given statistics by elementary operations: torch has no derivative for the
    statistics."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in (F.batch_norm, torch.batch_norm):
            names = PYTHON if func is F.batch_norm else NATIVE
            given = dict(zip(names, args, strict=False)) | dict(kwargs or {})
            if given.get("running_mean") is not None and not given.get("training"):
                return _batch_norm(given)
        return func(*args, **(kwargs or {}))


PYTHON = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
NATIVE = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")
"""Parameter names of `F.batch_norm` and of `torch.batch_norm`, in order."""


def _batch_norm(given: Mapping[str, Any]) -> Any:
    shape = [-1 if axis == 1 else 1 for axis in range(given["input"].dim())]
    weight, bias = (None if given.get(name) is None else given[name].view(shape) for name in ("weight", "bias"))
    scale = torch.rsqrt(given["running_var"] + given.get("eps", 1e-5)).view(shape)
    y = (given["input"] - given["running_mean"].view(shape)) * scale
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
