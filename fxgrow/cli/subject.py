"""The model that a command is about: built, given its weights, and traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import fx

from ..api import analysis_of
from ..capture.tracer import trace
from ..loading import build, parse_inputs, read_weights, restore, use_weights
from ..loading.saved import read_saved
from ..plan import Plan
from ..rewrite import apply
from ..rewrite.apply import tensors_of
from ..rewrite.limits import overflow
from ..errors import Kind, usage


@dataclass(frozen=True, slots=True)
class Subject:
    """A traced model, what it was made from in words, and the inputs it was traced with."""

    name: str
    model: fx.GraphModule
    inputs: tuple[Any, ...] | None
    origin: str

    @property
    def analysed(self) -> tuple[Any, ...]:
        """The inputs that the analysis uses: given, or inferred."""
        return analysis_of(self.model, self.inputs).inputs


def subject(
    factory: str,
    *,
    weights: Path | None = None,
    grown: Path | None = None,
    inputs: Sequence[str] | None = None,
    unsafe_pickle: bool = False,
    seed: int = 0,
) -> Subject:
    """Build, restore and trace a model.

    Raises:
        UsageError: any of it cannot be done; the message says which and why.
    """
    if grown is not None and weights is not None:
        raise usage(
            Kind.BAD_OPTION, f"{grown} holds weights already", hint="leave out --weights, or --grown"
        )
    texts = list(inputs or ())
    if grown is not None and not texts:
        texts = list(read_saved(grown).inputs)
    values = parse_inputs(texts)
    model = build(factory, seed=seed)
    if grown is not None:
        return Subject(factory, restore(model, grown, values), values, f"grown, from {grown}")
    if weights is not None:
        use_weights(model, read_weights(weights, unsafe_pickle=unsafe_pickle), str(weights))
    origin = f"weights {weights}" if weights is not None else f"weights as the factory makes them, at seed {seed}"
    return Subject(factory, trace(model, values), values, origin)


def grow_by(plan: Plan, model: fx.GraphModule, *, checked: bool) -> fx.GraphModule:
    """A plan applied to a copy, if this machine can hold the result.

    Raises:
        UsageError: it cannot, or the plan was made for another model.
    """
    problem = overflow(plan, tensors_of(model))
    if problem:
        raise usage(Kind.BAD_TARGET, problem, hint="a smaller growth, or a larger machine")
    return apply(plan, model, checked=checked)
