"""The analyses of traced models that are still alive."""

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
"""What is known of models that are still alive; an analysis that no longer fits its model is made anew."""


@one_at_a_time
def analysis_of(
    model: fx.GraphModule,
    example_inputs: Sequence[Any] | Call | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
) -> Analysis:
    """The analysis of a traced model: the one made before if the model is unchanged, else a new one."""
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
