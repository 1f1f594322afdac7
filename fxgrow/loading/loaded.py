"""Loads a model that is ready to be grown: built by a factory, given weights or a saved growth, and traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import fx

from ..api.analyses import analysis_of
from ..capture.inputs.call import Call
from ..capture.tracing.trace import trace
from ..errors import Kind, usage
from .factory import build
from .inputs import parse_inputs
from .saved import read_saved, restore
from .weights import read_weights, use_weights


@dataclass(frozen=True, slots=True)
class Loaded:
    """A traced model, with its factory, example inputs, and the origin of its weights."""

    name: str
    model: fx.GraphModule
    inputs: tuple[Any, ...] | None
    origin: str
    original: fx.GraphModule
    """The traced model of the factory: `model` itself, or the model that a saved model was grown from."""
    weights: Path | None
    seed: int
    """Seed of the factory's random weights."""

    @property
    def analysed(self) -> Sequence[Any] | Call:
        """The inputs that the analysis uses: the given ones, or inferred ones."""
        return self.inputs if self.inputs is not None else analysis_of(self.model).call


def load(
    factory: str,
    *,
    weights: str | Path | None = None,
    grown: str | Path | None = None,
    inputs: Sequence[str] | None = None,
    unsafe_pickle: bool = False,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Loaded:
    """Build a model, load its weights, and trace it.

    Args:
        factory: `module:factory`.
        weights: a file of tensors.
        grown: the folder of a model that was grown from the factory's model; it contains weights.
        inputs: strings for `parse_inputs`.
        unsafe_pickle: whether to unpickle checkpoints that contain more than tensors.
        seed: the seed of the factory's random weights.
        folder: the folder that is searched for modules first.

    Raises:
        UsageError: a step fails; the message says which and why.
    """
    if grown is not None and weights is not None:
        raise usage(Kind.BAD_OPTION, f"{grown} already contains weights", hint="leave out one of the two")
    texts = list(inputs or (read_saved(grown).inputs if grown is not None else ()))
    values = parse_inputs(texts, folder)
    model = build(factory, seed=seed, folder=folder)
    if grown is not None:
        traced = trace(model, values)
        return Loaded(factory, restore(traced, grown), values, f"grown, from {grown}", traced, None, seed)
    if weights is not None:
        use_weights(model, read_weights(weights, unsafe_pickle=unsafe_pickle), str(weights))
    origin = f"weights {weights}" if weights is not None else f"weights from the factory, seed {seed}"
    traced = trace(model, values)
    return Loaded(factory, traced, values, origin, traced, Path(weights) if weights is not None else None, seed)
