"""Diagnostics for training a grown model: how twins separate, how new filters differ from old ones, and gradient norms.

    recorder = fxgrow.diagnostics.Recorder(wider)
    for batch in batches:
        ...                       # forward, backward, optimizer.step()
        recorder.record()
    print(recorder.course)

docs/symmetry.md derives the expected values.
"""

from .filters import Diversity, Filters, diversity, effective_rank, filters, similarity
from .gradients import BlockGradient, GradientNorms, gradient_norms
from .pairs import Pairs, pairs_of
from .separation import Course, Recorder, Separation, separation

__all__ = [
    "BlockGradient",
    "Course",
    "Diversity",
    "Filters",
    "GradientNorms",
    "Pairs",
    "Recorder",
    "Separation",
    "diversity",
    "effective_rank",
    "filters",
    "gradient_norms",
    "pairs_of",
    "separation",
    "similarity",
]
