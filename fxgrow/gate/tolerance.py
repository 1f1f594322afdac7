"""Checks that the tolerances of a gate file are for outputs that exist: a misspelled name would be silently ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import Kind, usage
from .file import Gate, Subject
from .row import ERROR, Row

DEFAULT = "default"
"""The key for every output that is not named."""


def check_own(model: Subject, outputs: Iterable[str]) -> None:
    """Check that a model has every output named in its own tolerance table.

    Raises:
        UsageError: it does not have one; the message names its outputs.
    """
    known = tuple(dict.fromkeys(outputs))
    for name in _unknown(model.own, known):
        raise usage(
            Kind.BAD_OPTION,
            f"a tolerance names {name!r}, which is not an output of {model.name}",
            hint=f"its outputs are {', '.join(known)}; or use default for all of them",
        )


def check_common(gate: Gate, rows: Collection[Row]) -> Row | None:
    """Return an error row if the tolerance table at the top of the file names an output that no model has, else None.

    Returns None also if some model could not be compared, because its outputs are then unknown.
    """
    if not {model.name for model in gate.models} <= {row.model for row in rows if row.differences}:
        return None
    known = tuple(dict.fromkeys(d.output for row in rows for d in row.differences))
    for name in _unknown(gate.common, known):
        what = f"a tolerance names {name!r}, which is not an output of any model"
        hint = f"outputs are {', '.join(known)}; or use default for all of them"
        return Row("gate file", "tolerance", ERROR, 0.0, (), str(usage(Kind.BAD_OPTION, what, hint=hint)))
    return None


def _unknown(named: Iterable[str], known: Collection[str]) -> list[str]:
    return [name for name in named if name != DEFAULT and name not in known]
