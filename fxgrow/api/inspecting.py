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
    """Find out which layers of a traced model can be widened, what grows together with them, and why others cannot.

    `print(fxgrow.inspect(model))` shows tables; the result also holds them as data.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> found = fxgrow.inspect(traced)
        >>> [site.path for site in found.refused]
        ['fc']

    Raises:
        UsageError: the model cannot be analysed.
    """
    return Inspection(survey(model, analysis_of(model, example_inputs, example_kwargs)))
