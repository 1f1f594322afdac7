"""Watching: does any law of growth break on the subjects?"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fxgrow.errors import FxgrowError, Kind
from fxgrow.testing.fuzzing.laws import watch
from fxgrow.testing.fuzzing.promises import LawBroken

from .subject import Subject
from .subjects import SUBJECTS


@dataclass(frozen=True, slots=True)
class Breach:
    """A law that was broken, and where."""

    law: str
    subject: str
    growth: str

    def __str__(self) -> str:
        return f"{self.law}: {self.subject}" + (f", {self.growth}" if self.growth else "")


def breaches(first: Sequence[str] = (), *, others: bool = True) -> Iterator[Breach]:
    """All laws that are broken, one for each subject: those that are named first, then the others."""
    for name in dict.fromkeys((*first, *(SUBJECTS if others else ()))):
        with contextlib.redirect_stderr(io.StringIO()):  # where torch.fx says at length what did not run
            found = _breach(name, SUBJECTS[name])
        if found is not None:
            yield found


def _breach(name: str, subject: Subject) -> Breach | None:
    try:
        model, inputs = subject.traced()
    except FxgrowError as error:
        return Breach(f"every model is traced ({error.kind.value})", name, "")
    for growth in (*subject.made, *subject.refused):
        try:
            seen, _ = watch(model, inputs, growth)
        except LawBroken as error:
            return Breach(error.law, name, str(growth))
        if seen.refusal is Kind.CHECK_FAILED:
            return Breach("no rule loses track", name, str(growth))
        if seen.refusal is not None and growth in subject.made:
            return Breach(f"what can grow grows ({seen.refusal.value})", name, str(growth))
        if seen.refusal is None and growth in subject.refused:
            return Breach("what cannot grow is refused", name, str(growth))
    return None
