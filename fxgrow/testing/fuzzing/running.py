"""Run models for the laws: on which inputs, in which mode, and how much rounding alone moves what they return."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...verify.compare import distance, flat, seeded

LAST_PLACE = 2.0**-52
GIVEN = "given"
"""The inputs that come with a model."""
Outputs = dict[str, Tensor]


def probes(inputs: Sequence[Tensor]) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """The inputs that are given, and others of their shapes, by name."""
    random = torch.Generator().manual_seed(1)
    yield GIVEN, tuple(inputs)
    yield (
        "large, sparse",
        tuple(
            torch.where(torch.rand(x.shape, generator=random) < 0.5, x * 30, torch.zeros_like(x))
            if x.is_floating_point()
            else x.flip(0)
            for x in inputs
        ),
    )


class Stand:
    """A copy of a model for test runs: each of them finds it as the model was when the copy was made."""

    def __init__(self, model: nn.Module, *, own: bool = False) -> None:
        """`own`: nobody else needs the model, so that it need not be copied."""
        self.twin = model if own else copy.deepcopy(model)
        self.training = model.training
        self.warned: set[str] = set()
        """What torch has warned of."""
        tensors = [*self.twin.parameters(), *self.twin.buffers()]
        self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._known: dict[tuple[str, bool], Outputs | None] = {}

    def renewed(self, training: bool) -> nn.Module:
        """The copy in one mode, as it was."""
        with torch.no_grad():
            for tensor, value in self._kept:
                tensor.copy_(value)
                tensor.grad = None
        return self.twin.train(training)

    def outputs(self, inputs: Sequence[Tensor], training: bool, name: str = "") -> Outputs | None:
        """What the model returns; in training mode also what it returns afterwards, out of what it then has learned
        about its inputs (running statistics). None if it cannot run (a norm of one number).

        Args:
            inputs: for it.
            training: the mode.
            name: of the inputs, if they come again: then the same outputs are returned.
        """
        key = (name, training)
        if name and key in self._known:
            return self._known[key]
        twin = self.renewed(training)
        found: Outputs | None = None
        try:
            with torch.no_grad(), seeded(0), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = flat(twin(*inputs))
                if training:
                    found |= flat(twin.eval()(*inputs), "afterwards")
        except (RuntimeError, ValueError):
            found = None
        self.warned.update(str(one.message) for one in told)
        if name:
            self._known[key] = found
        return found

    def own_rounding(self, inputs: Sequence[Tensor], training: bool, wanted: Outputs) -> float:
        """How far the outputs move when inputs and weights change in their last place."""
        random = torch.Generator().manual_seed(2)
        other = Stand(self.renewed(training))
        with torch.no_grad():
            for p, kept in other._kept:
                if isinstance(p, nn.Parameter):
                    kept.mul_(1 + LAST_PLACE * (2 * torch.rand(p.shape, generator=random, dtype=p.dtype) - 1))
        moved = tuple(x + LAST_PLACE * x.abs().max() if x.is_floating_point() else x for x in inputs)  # zeros, too
        found = other.outputs(moved, training)
        return max((distance(wanted[k], found[k]) for k in wanted), default=0.0) if found else float("inf")

    def gradients(self, inputs: Sequence[Tensor]) -> tuple[nn.Module, Outputs]:
        """The copy with the gradients of the sum of all squared outputs, and these.

        Raises:
            RuntimeError, ValueError: it cannot run, or no output depends on a weight.
        """
        twin = self.renewed(self.training).requires_grad_(True)
        with seeded(0):
            found = flat(twin(*inputs))
            sum((y.square().sum() for y in found.values() if y.is_floating_point()), torch.zeros(())).backward()
        return twin, found
