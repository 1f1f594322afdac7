"""The exceptions that fxgrow raises: each message names the node, the reason and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """The reason for an error. Its value is the code with which the message begins."""

    # invalid calls
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
    # failed checks: a bug in fxgrow, or in a rule that a user registered
    CHECK_FAILED = "FXG901"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The parts of an error message; `str` returns the whole message."""

    kind: Kind
    what: str
    """What was requested, and why it is not possible."""
    where: str = ""
    """The node or the argument at fault."""
    chain: tuple[str, ...] = ()
    """The nodes that lead from the requested layer to the node at fault."""
    hint: str = ""
    """What to do instead."""

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
    """Base class of all errors that fxgrow raises; `refusal` holds the parts of the message."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal

    @property
    def kind(self) -> Kind:
        """The reason for the error."""
        return self.refusal.kind


class UsageError(FxgrowError, ValueError):
    """The call is invalid: a name, an option or an input is wrong."""


class GrowthRefused(FxgrowError):
    """The growth would change the function or the interface of the model, or the graph cannot express it."""


class VerificationFailed(FxgrowError):
    """The grown model does not compute what it should; the model that was passed in is unchanged."""


def usage(kind: Kind, what: str, hint: str = "", where: str = "") -> UsageError:
    """Return the error for an invalid call."""
    return UsageError(Refusal(kind, what, where=where, hint=hint))
