"""The models that are swept: all of torchvision's, and a small one of each module of timm."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, cast

from .measure import measure
from .subjects import Subject, subjects
from .timm_models import timm_subjects
from .torchvision_models import torchvision_subjects


def library_subjects() -> list[Subject]:
    """All that are swept."""
    return [*torchvision_subjects(), *timm_subjects()]


def names_like(*patterns: str) -> list[str]:
    """The names of those that fit a pattern; all if there is none. The small models of the zoo count if named."""
    names = [subject.name for subject in library_subjects()]
    if not patterns:
        return names
    names += [subject.name for subject in subjects() if subject.name not in names]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def measure_named(name: str, say: Callable[[dict[str, Any]], None], *, seed: int) -> dict[str, Any]:
    """Measure a model by its name, in a process of its own: warnings of the models are silenced for good."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    known = {subject.name: subject for subject in (*subjects(), *library_subjects())}
    return cast(dict[str, Any], measure(known[name], seed, lambda found: say(cast(dict[str, Any], found))))
