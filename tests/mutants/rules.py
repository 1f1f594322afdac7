"""Every rule made wrong: what a wrong rule would say of its operator, watched by the rules' own oracle.

`WORST` says for some kinds of rules which lies are told in their place: the worst mistakes that authors could make.
Of any other kind they are found from what its rules call while their cases are examined (`LIES_ABOUT`).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest
import torch

from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import STORED
from fxgrow.rules import (
    RULES,
    arithmetic,
    attention,
    broadcasts,
    complexes,
    concat,
    contraction,
    cosine,
    index,
    matmul,
    matrices,
    norm,
    pointwise,
    recurrent,
    reduce,
    repeat,
    sampling,
    shape,
    slicing,
    window,
)
from fxgrow.rules import adapt_skip as skip
from fxgrow.rules import axis_ops as along
from fxgrow.rules import scatter as writing
from fxgrow.rules import unfold as patches
from fxgrow.rules import where as choice
from fxgrow.testing.laws import Held, examine, traced

from ..rules.cases import ROWS, Row
from .lies import Overheard, wrong

FIRST, LAST, SUMS = "the first operand decides", "the last operand decides", "sums need not vanish"
ODD, LINEAR, PASSED = "it is odd", "it is linear", "it is linear in the first operand"
ANY, MIXED, TRAINED = "any operand will do", "units are not mixed", "training is like evaluation"
ZEROS, ORDER, PICKED = "new units are zeros", "new units are in the other order", "the next unit is picked"
PIECE = "the first piece is taken"
OPEN, APART = "any axis may grow", "operands grow by themselves"
STILL, TURNED, UNSIZED = "the result keeps its size", "axes stay in their places", "arguments are no sizes"

WORST: dict[type, tuple[str, ...]] = {
    pointwise.Clamp: (LINEAR,),
    pointwise.Power: (LINEAR, ANY),
    pointwise.Cast: (LINEAR,),
    pointwise.RandomSlope: (TRAINED,),
    pointwise.PRelu: (PASSED, APART),
    arithmetic.Add: (FIRST, LAST, APART),
    arithmetic.Multiply: (FIRST, LAST, APART),
    arithmetic.Divide: (FIRST, ANY),
    arithmetic.Addcmul: (FIRST,),
    attention.Attention: (SUMS, FIRST, APART, UNSIZED),
    concat.Cat: (ORDER, FIRST, APART),
    concat.Stack: (FIRST, APART),
    concat.Pieces: (ZEROS, ORDER, PIECE, UNSIZED),
    concat.Glu: (FIRST, LINEAR, APART),
    contraction.Contraction: (SUMS, FIRST, APART),
    index.Embedding: (OPEN, ZEROS),
    index.EmbeddingBag: (OPEN, LINEAR),
    index.Index: (OPEN, ZEROS),
    index.Create: (STILL,),
    index.Enumerate: (OPEN,),
    matmul.Matmul: (SUMS, APART),
    matmul.Addmm: (SUMS, FIRST, APART),
    matmul.Einsum: (SUMS, FIRST, APART),
    norm.PerChannel: (ANY, OPEN, FIRST, APART),
    norm.GroupNorm: (OPEN, FIRST, APART, UNSIZED),
    norm.WholeAxis: (MIXED, FIRST, APART, UNSIZED),
    cosine.Cosine: (MIXED, APART),
    along.Softmax: (MIXED,),
    along.Along: (OPEN,),
    along.Fourier: (OPEN,),
    along.Differences: (OPEN, FIRST, APART),
    broadcasts.BroadcastTensors: (ZEROS, APART),
    broadcasts.Meshgrid: (ZEROS, TURNED),
    choice.Choose: (FIRST, LAST, LINEAR, APART),
    complexes.ViewAsReal: (ZEROS,),
    complexes.ViewAsComplex: (OPEN, ZEROS),
    complexes.Complex: (FIRST, LAST, APART),
    complexes.Polar: (FIRST, LAST, APART),
    matrices.Inverse: (ANY, OPEN),
    matrices.Diagonal: (OPEN, ZEROS),
    matrices.DiagEmbed: (OPEN, ZEROS),
    matrices.Distances: (MIXED, FIRST, APART),
    patches.Unfold: (OPEN, ZEROS),
    patches.Im2Col: (OPEN, ZEROS),
    patches.Col2Im: (OPEN, ZEROS),
    sampling.GridSample: (OPEN, FIRST, LAST, APART),
    sampling.Unpool: (OPEN, FIRST, APART),
    sampling.AffineGrid: (OPEN, ZEROS, UNSIZED),
    recurrent.OneStep: (SUMS, FIRST, LINEAR, APART),
    recurrent.Sequence: (SUMS, FIRST, LINEAR, APART),
    reduce.Reduce: (OPEN,),
    reduce.Statistic: (MIXED,),
    reduce.Extremum: (MIXED, LINEAR),
    repeat.RepeatInterleave: (ZEROS, UNSIZED),
    repeat.Repeat: (ZEROS, UNSIZED),
    shape.View: (ZEROS, ORDER),
    shape.Permute: (ZEROS, TURNED),
    shape.Squeeze: (ZEROS, OPEN),
    shape.Expand: (ZEROS,),
    skip.AdaptSkip: (ANY, UNSIZED),
    slicing.Unbind: (ZEROS, OPEN, PICKED),
    slicing.Select: (ZEROS, OPEN, PICKED),
    slicing.Slice: (ZEROS, PIECE, UNSIZED),
    window.Window: (OPEN,),
    window.Pad: (ZEROS, OPEN),
    window.Dropout: (TRAINED, ZEROS),
    window.PixelShuffle: (ZEROS, OPEN),
    window.PixelUnshuffle: (ZEROS, OPEN),
    window.ChannelShuffle: (ZEROS, OPEN),
    writing.Copy: (ZEROS, LINEAR),
    writing.IndexPut: (PASSED, OPEN, APART),
    writing.SliceScatter: (FIRST, UNSIZED),
    writing.SelectScatter: (FIRST, OPEN),
}
"""By kind of rule: `LIES` that are told in its place, of which the first is one of every operator that it is for."""


LIES_ABOUT: dict[str, str] = {
    **{"contract": SUMS, "require": ANY, "adapt": ANY, "mix": MIXED, "centre": MIXED, "drawn": TRAINED},
    **{"only_eval": TRAINED, "mul": FIRST, "select": PICKED, "piece": PIECE, "freeze": OPEN, "unify": APART},
    "sizes": UNSIZED,
}
"""By what a rule calls, or `sizes` if it changes arguments: the lie that says it need not. The worst come first.

If one is true of a new kind of rule, the kind gets a line in `WORST` that leaves it out.
"""


EXCEPT: dict[str, tuple[str, ...]] = {
    "aten::scalar_tensor": (),  # a result without axes
    STORED: (),  # not an operator that a case could call; see tests/capture/test_buffer_writes.py
    "aten::nextafter": (ZEROS,),  # linear in its first operand but for rounding
}


def lies_of(name: str) -> tuple[str, ...]:
    """What a wrong rule of an operator says; what is true of it is no lie."""
    rule = RULES[name]
    if name in EXCEPT:
        return EXCEPT[name]
    match rule:
        case pointwise.Unary() if type(rule) is pointwise.Unary:
            return (ZEROS,) if rule.linear else (ANY,) if rule.unsafe else (PASSED,)
        case reduce.Reduce(sums=True):
            return (SUMS,)
        case matrices.Determinant():
            return (ANY, OPEN) if rule.unsafe else (LINEAR, OPEN)
        case window.Window(linear=False):
            return (*WORST[window.Window], LINEAR)
        case shape.View() | shape.Expand() if rule.sizes:
            return (*WORST[type(rule)], UNSIZED)
    return WORST[type(rule)] if type(rule) in WORST else lies_about_calls(name)


@cache
def lies_about_calls(name: str) -> tuple[str, ...]:
    """The lies about all that a rule calls while the cases named after its operator are examined."""
    heard = Overheard(RULES[name])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RULES, name, heard)
        for row in (row for row in ROWS if row.operator == name):
            examine(row.call, *row.operands)
    return tuple(dict.fromkeys([*(lie for call, lie in LIES_ABOUT.items() if call in heard.calls), ZEROS]))


@dataclass(frozen=True, slots=True)
class Fault:
    """A lie that the rules of some operators tell."""

    lie: str
    operators: tuple[str, ...]


@cache
def faults() -> dict[str, Fault]:
    """The worst lie about every operator by itself, and each other lie of a rule about all of its operators."""
    names: dict[int, list[str]] = {}
    for name, rule in RULES.items():
        names.setdefault(id(rule), []).append(name)
    found: dict[str, Fault] = {}
    for some in names.values():
        found |= {f"{_short(name)}: {lie}": Fault(lie, (name,)) for name in some for lie in lies_of(name)[:1]}
        like = f"{_short(some[0])}{' and others' * (len(some) > 1)}"
        found |= {f"{like}: {lie}": Fault(lie, tuple(some)) for lie in lies_of(some[0])[1:]}
    return found


def _short(name: str) -> str:
    return name.removeprefix("aten::")


@cache
def operators(row: Row) -> frozenset[str]:
    """The names of the operators that a call runs."""
    random = torch.Generator().manual_seed(0)
    held = Held(row.call, {f"x{k}": o.draw(o.shape, random, True) for k, o in enumerate(row.operands)})
    return frozenset(op.name for op in lower(Snapshot(traced(held)), ()).ops)


def rows_of(fault: Fault) -> Iterator[Row]:
    """The cases whose calls run one of the operators, those first that are named after one."""
    short = {name.partition("::")[2] for name in fault.operators}
    named = [row for row in ROWS if row.title.split()[0].removesuffix("_") in short]
    for row in (*named, *(row for row in ROWS if row not in named)):
        if not operators(row).isdisjoint(fault.operators):
            yield row


def caught(fault: Fault, patch: pytest.MonkeyPatch) -> str:
    """What is noticed of a fault in the first case that shows it; nothing if none does."""
    wrong(fault.lie, *fault.operators)(patch)
    with contextlib.redirect_stderr(io.StringIO()):  # where torch.fx says at length what did not run
        return next((text for text in map(complaint, rows_of(fault)) if text), "")


def complaint(row: Row) -> str:
    """What the oracle of rules has against the present rules; nothing if all is as the case says."""
    try:
        found = examine(row.call, *row.operands)
    except Exception as error:  # would fail the test of the case, too
        return f"{type(error).__name__}: {error}"
    checks = {
        "a claim does not hold": found.wrong,
        "other axes may grow": found.grows != row.grows,
        "other reasons are given": found.kinds != row.why,
        "training counts, or does not": found.eval_only is not row.eval_only,
        "nothing is proved": "+" in "".join(row.grows) and not found.accepted and not row.eval_only,
    }
    return next((f"{text}: {row.title}" for text, bad in checks.items() if bad), "")
