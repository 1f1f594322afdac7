"""Runs models for the laws: the inputs, the modes, and how much rounding alone changes their outputs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...capture.containers import changed
from ...capture.inputs.call import Call, as_call
from ...capture.traced_model.other_modes import MODES, modes_of
from ...verification.compare import distance, flat, forward, seeded

LAST_PLACE = 2.0**-52
TRIES = 4
GIVEN = "given"
"""The name of the inputs that come with a model."""
Outputs = dict[str, Tensor]
Inputs = Sequence[Tensor] | Call
"""A sequence of tensors, or a call with containers or keyword arguments."""


def probes(inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """Yield the given inputs, and other inputs of the same shapes, by name."""
    random = torch.Generator().manual_seed(1)
    yield GIVEN, inputs
    yield "large, sparse", mapped(inputs, lambda x: _sparse(x, random))


def _sparse(x: Tensor, random: torch.Generator) -> Tensor:
    if not x.is_floating_point():
        return x.flip(0)
    return torch.where(torch.rand(x.shape, generator=random) < 0.5, x * 30, torch.zeros_like(x))


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return the inputs with changed tensors."""
    if isinstance(inputs, Call):
        return inputs.changed(lambda x: change(x) if isinstance(x, Tensor) else x)
    return tuple(changed(x, lambda leaf: change(leaf) if isinstance(leaf, Tensor) else leaf) for x in inputs)


def tensors_in(inputs: Inputs) -> list[Tensor]:
    """Return the tensors among the inputs."""
    return [x for x in (inputs.leaves if isinstance(inputs, Call) else inputs) if isinstance(x, Tensor)]


def called(model: nn.Module, inputs: Inputs) -> Any:
    """Call a model with copies of containers, and return its output and what it wrote into them."""
    call = as_call(inputs if isinstance(inputs, Call) else tuple(inputs))
    assert call is not None, "inputs are given"
    return forward(model, call.changed(lambda leaf: leaf))


class Stand:
    """A copy of a model for test runs; each run starts from the state that the model had when the copy was made."""

    def __init__(self, model: nn.Module, *, own: bool = False, modes: Sequence[str] = ()) -> None:
        """Copy the model, unless `own` says that no one else needs it. `modes` are the modes in which it runs; by
        default those that it was traced for."""
        self.modes = tuple(modes) or modes_of(model)
        self.twin = model if own else copy.deepcopy(model)
        self.training = model.training
        self.warned: set[str] = set()
        """Warnings that torch gave."""
        tensors = [*self.twin.parameters(), *self.twin.buffers()]
        self._kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
        self._known: dict[tuple[str, bool], Outputs | None] = {}

    def renewed(self, training: bool) -> nn.Module:
        """Return the copy in one mode, with its original tensors."""
        with torch.no_grad():
            for tensor, value in self._kept:
                tensor.copy_(value)
                tensor.grad = None
        return self.twin.train(training)

    def outputs(self, inputs: Inputs, training: bool, name: str = "") -> Outputs | None:
        """Run the model and return its outputs; in training mode also the outputs in evaluation mode afterwards, which
        depend on running statistics. None if it cannot run (e.g. a norm of one number), or must not run in that mode.

        Args:
            inputs: the inputs.
            training: whether it runs in training mode.
            name: the name of the inputs; outputs of named inputs are cached.
        """
        key = (name, training)
        if name and key in self._known:
            return self._known[key]
        if MODES[training] not in self.modes:
            return None
        twin = self.renewed(training)
        found: Outputs | None = None
        try:
            with torch.no_grad(), seeded(0), warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = flat(called(twin, inputs))
                if training and "eval" in self.modes:
                    found |= flat(called(twin.eval(), inputs), "afterwards")
        except (RuntimeError, ValueError):
            found = None
        self.warned.update(str(one.message) for one in told)
        if name:
            self._known[key] = found
        return found

    def own_rounding(self, inputs: Inputs, training: bool, wanted: Outputs) -> float:
        """Return how far the outputs move when inputs and weights change in their last place; the largest of a few
        tries."""
        return max(self._moved(inputs, training, wanted, seed) for seed in range(TRIES))

    def _moved(self, inputs: Inputs, training: bool, wanted: Outputs, seed: int) -> float:
        random = torch.Generator().manual_seed(seed)
        other = Stand(self.renewed(training), modes=self.modes)
        with torch.no_grad():
            for p, kept in other._kept:
                if isinstance(p, nn.Parameter):
                    kept.mul_(1 + LAST_PLACE * (2 * torch.randint(2, p.shape, generator=random) - 1).to(p.dtype))
        moved = mapped(
            inputs, lambda x: x + LAST_PLACE * x.abs().max() if x.is_floating_point() else x
        )  # changes zeros too
        found = other.outputs(moved, training)
        return max((distance(wanted[k], found[k]) for k in wanted), default=0.0) if found else float("inf")

    def gradients(self, inputs: Inputs) -> tuple[nn.Module, Outputs]:
        """Return the copy with the gradients of the sum of all squared outputs, and the outputs.

        Raises:
            RuntimeError, ValueError: it cannot run, or no output depends on a weight.
        """
        twin = self.renewed(self.training).requires_grad_(True)
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `outputs` records them
            found = flat(called(twin, inputs))
            sum((y.square().sum() for y in found.values() if y.is_floating_point()), torch.zeros(())).backward()
        return twin, found
