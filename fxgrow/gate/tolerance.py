"""Tolerances of a gate file belong to outputs that exist: a misspelt one would change nothing, silently."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ..errors import Kind, usage
from .file import Gate, Subject
from .row import ERROR, Row

DEFAULT = "default"
"""Stands for every output that is not named."""


def check_own(model: Subject, outputs: Iterable[str]) -> None:
    """Refuse a tolerance that a model's own table gives to an output that the model does not have.

    Raises:
        UsageError: there is one; the message names the outputs.
    """
    known = tuple(dict.fromkeys(outputs))
    for name in _unknown(model.own, known):
        raise usage(
            Kind.BAD_OPTION,
            f"{model.name} has no output {name!r} that a tolerance could be for",
            hint=f"its outputs are {', '.join(known)}; or default, for all of them",
        )


def check_common(gate: Gate, rows: Collection[Row]) -> Row | None:
    """A row that says which tolerance at the top of the file is for an output that no model has; None if there is none.

    It is not known of a model that could not be compared, and nothing is said then.
    """
    if not {model.name for model in gate.models} <= {row.model for row in rows if row.differences}:
        return None
    known = tuple(dict.fromkeys(d.output for row in rows for d in row.differences))
    for name in _unknown(gate.common, known):
        what = f"no model has an output {name!r} that a tolerance could be for"
        hint = f"outputs are {', '.join(known)}; or default, for all of them"
        return Row("gate file", "tolerance", ERROR, 0.0, (), str(usage(Kind.BAD_OPTION, what, hint=hint)))
    return None


def _unknown(named: Iterable[str], known: Collection[str]) -> list[str]:
    return [name for name in named if name != DEFAULT and name not in known]
