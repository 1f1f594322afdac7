"""Cache of the analyses of traced models."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis, analyse
from ..capture.inputs.call import Call, as_call, remembered
from ..capture.locks import one_at_a_time
from ..capture.lowering.snapshot import Snapshot

ANALYSES: weakref.WeakKeyDictionary[fx.GraphModule, Analysis] = weakref.WeakKeyDictionary()
"""The latest analysis of each live model. An analysis that no longer matches its model is replaced."""


@one_at_a_time
def analysis_of(
    model: fx.GraphModule,
    example_inputs: Sequence[Any] | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Analysis:
    """Return the analysis of a traced model, from the cache if the model is unchanged."""
    known = ANALYSES.get(model)
    now = Snapshot(model) if known is not None else None
    given = as_call(example_inputs, example_kwargs)
    if now is not None and known is not None and given is None and known.remembered is remembered(model):
        if known.fits(now):
            return known
        given = known.call
    lowering = known.lowering if known is not None else None
    made = ANALYSES[model] = analyse(model, given, lowering=lowering, model=now)
    return made
