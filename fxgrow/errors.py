"""Everything fxgrow says no with: one clear message that names the node, the reason and a way out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Why an axis may not grow. The value is the code that the message begins with."""

    # bad input
    UNKNOWN_NODE = "FXG001"
    AMBIGUOUS_NODE = "FXG002"
    BAD_TARGET = "FXG003"
    BAD_OPTION = "FXG004"
    BAD_INPUTS = "FXG005"
    UNSUPPORTED_MODEL = "FXG006"
    NOT_TRACEABLE = "FXG007"
    STALE_PLAN = "FXG008"
    WRONG_MODE = "FXG009"
    OTHER_DECISION = "FXG010"
    BAD_BLOCK = "FXG020"
    # refusals to widen
    NO_AXIS = "FXG101"
    UNKNOWN_OP = "FXG102"
    SOFTMAX = "FXG103"
    NORM = "FXG104"
    STATISTIC = "FXG105"
    OUTPUT = "FXG106"
    INPUT = "FXG107"
    NON_ALIGNED = "FXG108"
    WINDOW = "FXG109"
    BROADCAST = "FXG110"
    INDEX = "FXG111"
    CONSTANT = "FXG112"
    ALIAS = "FXG113"
    NO_PROOF = "FXG114"
    DEAD = "FXG115"
    INEXPRESSIBLE = "FXG116"
    FIXED = "FXG117"
    NOT_A_JOIN = "FXG118"
    DECIDED = "FXG119"
    # refusals to deepen
    NOT_SILENT = "FXG201"
    NOT_IDEMPOTENT = "FXG202"
    NO_VALUE = "FXG203"
    NO_BLOCK = "FXG204"
    NO_FACTOR = "FXG205"
    NO_SLOPE = "FXG206"
    WRITTEN = "FXG207"
    # broken promises: a defect in fxgrow or in a rule that a user registered
    CHECK_FAILED = "FXG901"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One complete refusal, as a value: what was asked, what stops it, where, by which chain, and a way out."""

    kind: Kind
    what: str
    where: str = ""
    chain: tuple[str, ...] = ()
    hint: str = ""

    def __str__(self) -> str:
        lines = [f"{self.kind.value}  {self.what}"]
        if self.where:
            lines.append(f"  where   {self.where}")
        if self.chain:
            lines.append(f"  chain   {' -> '.join(self.chain)}")
        if self.hint:
            lines.append(f"  try     {self.hint}")
        return "\n".join(lines)


class FxgrowError(Exception):
    """Base of every error that fxgrow raises on purpose; `refusal` holds its parts."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal

    @property
    def kind(self) -> Kind:
        """Why: a member of `Kind`."""
        return self.refusal.kind


class UsageError(FxgrowError, ValueError):
    """the call is invalid: a name, an option or an input is wrong."""


class GrowthRefused(FxgrowError):
    """The growth would change the function or the interface of the model, or cannot be written down."""


class VerificationFailed(FxgrowError):
    """A grown model did not compute what was promised; the model that was passed in is untouched."""


def usage(kind: Kind, what: str, hint: str = "", where: str = "") -> UsageError:
    """The error for an invalid call."""
    return UsageError(Refusal(kind, what, where=where, hint=hint))
