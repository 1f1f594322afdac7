"""One row of the table: a call, its operands, and which of their axes may grow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fxgrow.errors import Kind
from fxgrow.rules import RULES
from fxgrow.testing.blocks import Draw, anything
from fxgrow.testing.laws import Operand

TRUTH = "truth values and whole numbers are not trained through"
EVEN = "an even function would make equal halves of opposite ones; writers are equal by default, so nothing is gained"
PARTLY = "odd in one operand alone, or in two together: not worth a flag of its own"
SINGULAR = "an odd unit without twin is zero, and zero is singular here"
TRAINED = "a norm divides a block of zeros by the root of epsilon: harmless for values, not for gradients in training"
FIRST = "zeros have their extremum in the first place here; other kernels may say otherwise"


@dataclass(frozen=True, slots=True)
class Row:
    """What a rule's oracle must find for a call."""

    title: str
    call: Callable[..., Any]
    operands: tuple[Operand, ...]
    grows: tuple[str, ...]
    why: frozenset[Kind]
    eval_only: bool
    strict: str
    """Why the rule of the operator refuses, or says less, than the numbers would allow; empty if it does not."""

    @property
    def operator(self) -> str:
        """The schema name of the operator that the title names, of an in-place form without its underscore."""
        name = f"aten::{self.title.split()[0]}"
        return name if name in RULES else name.removesuffix("_")


def row(
    title: str,
    call: Callable[..., Any],
    *operands: str,
    why: Kind | Sequence[Kind] = (),
    draw: Draw | Sequence[Draw] = anything,
    eval_only: bool = False,
    strict: str = "",
) -> Row:
    """A row of a table of cases.

    Args:
        title: the operator, and in brackets what is special about the call.
        call: a function of as many tensors as there are operands.
        operands: the size of each axis, and whether it may grow: "2+ 6+ 3. 3." says that the first two may.
        why: the kinds of the reasons for which the others may not.
        draw: how entries are drawn, for all operands or for each.
        eval_only: whether the claim is for evaluation mode only.
        strict: why the rule refuses, or says less, than the numbers would allow, if it does in any case.
    """
    draws = [draw] * len(operands) if callable(draw) else list(draw)
    shapes = [[int(axis[:-1]) for axis in text.split()] for text in operands]
    return Row(
        title,
        call,
        tuple(Operand(tuple(shape), d) for shape, d in zip(shapes, draws, strict=True)),
        tuple("".join(axis[-1] for axis in text.split()) for text in operands),
        frozenset([why] if isinstance(why, Kind) else why),
        eval_only,
        strict,
    )
