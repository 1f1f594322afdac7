"""Packages that fxgrow can do without: imported when they are needed, with one clear error where they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import Kind, usage


def optional(module: str, *, extra: str, what: str) -> Any:
    """A module of an optional dependency.

    Args:
        module: its full name.
        extra: the extra of fxgrow that installs it.
        what: what it is needed for, as the beginning of a sentence.

    Raises:
        UsageError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise usage(
            Kind.BAD_OPTION, f"{what} needs {package}, which is not installed", hint=f"pip install 'fxgrow[{extra}]'"
        ) from error
