"""Optional dependencies: imported when they are needed, with a clear error message if they are not installed."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import Kind, usage


def optional(module: str, *, extra: str, what: str) -> Any:
    """Import a module of an optional dependency.

    Args:
        module: full name of the module.
        extra: the extra of fxgrow that installs it.
        what: what needs it, as the beginning of a sentence.

    Raises:
        UsageError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise usage(
            Kind.BAD_OPTION, f"{what} needs {package}, which is not installed", hint=f"pip install 'fxgrow[{extra}]'"
        ) from error
