"""`inspect`: which layers of a model can be widened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..capture.locks import one_at_a_time
from ..global_state import plain
from ..inspection.survey import survey
from ..inspection.table import Inspection
from .analyses import analysis_of


@plain
@one_at_a_time
def inspect(
    model: fx.GraphModule,
    example_inputs: Sequence[Any] | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Inspection:
    """Which layers of a traced model can be widened, what grows with them, and why others cannot.

    `print(fxgrow.inspect(model))` shows tables; the result also holds them as data.

    Raises:
        UsageError: the model cannot be analysed.
    """
    return Inspection(survey(model, analysis_of(model, example_inputs, example_kwargs)))
