"""The models that a sweep measures: all of torchvision's, and a small one of each timm module."""

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
    """Return all models that a sweep measures."""
    return [*torchvision_subjects(), *timm_subjects()]


def names_like(*patterns: str) -> list[str]:
    """Return the names that match a pattern, or all if there is none. The small models of the zoo are included if
    named."""
    names = [subject.name for subject in library_subjects()]
    if not patterns:
        return names
    names += [subject.name for subject in subjects() if subject.name not in names]
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def measure_named(name: str, say: Callable[[dict[str, Any]], None], *, seed: int) -> dict[str, Any]:
    """Measure a model by name. Must run in its own process, because it silences warnings permanently."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    known = {subject.name: subject for subject in (*subjects(), *library_subjects())}
    return cast(dict[str, Any], measure(known[name], seed, lambda found: say(cast(dict[str, Any], found))))
