"""A model from outside, ready to be grown: built, given its weights or what a folder holds, and traced."""

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
    """A traced model, the factory it comes from, the inputs it was traced with, and where its weights are from."""

    name: str
    model: fx.GraphModule
    inputs: tuple[Any, ...] | None
    origin: str
    original: fx.GraphModule
    """What the factory made, traced: the same model, or the one that a saved model was grown from."""
    weights: Path | None
    seed: int
    """Of the factory's random weights."""

    @property
    def analysed(self) -> Sequence[Any] | Call:
        """The inputs that the analysis uses: given, or inferred."""
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
    """Build a model, give it its weights, and trace it.

    Args:
        factory: `module:factory`.
        weights: a file of tensors.
        grown: a folder with a model that was grown from the factory's; it holds weights already.
        inputs: as for `parse_inputs`.
        unsafe_pickle: unpickle checkpoints that hold more than tensors.
        seed: of the factory's random weights.
        folder: where modules are looked for first.

    Raises:
        UsageError: any of it cannot be done; the message says which and why.
    """
    if grown is not None and weights is not None:
        raise usage(Kind.BAD_OPTION, f"{grown} holds weights already", hint="leave out one of the two")
    texts = list(inputs or (read_saved(grown).inputs if grown is not None else ()))
    values = parse_inputs(texts, folder)
    model = build(factory, seed=seed, folder=folder)
    if grown is not None:
        traced = trace(model, values)
        return Loaded(factory, restore(traced, grown), values, f"grown, from {grown}", traced, None, seed)
    if weights is not None:
        use_weights(model, read_weights(weights, unsafe_pickle=unsafe_pickle), str(weights))
    origin = f"weights {weights}" if weights is not None else f"weights as the factory makes them, seed {seed}"
    traced = trace(model, values)
    return Loaded(factory, traced, values, origin, traced, Path(weights) if weights is not None else None, seed)
