"""Diagnostics: whether twins part, how much new filters differ from old ones, and where the gradient goes.

    recorder = fxgrow.diagnostics.Recorder(wider)
    for batch in batches:
        ...                       # forward, backward, optimizer.step()
        recorder.record()
    print(recorder.course)

docs/symmetry.md derives what to expect.
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
