"""The fuzzer: every feature is drawn, laws hold on some hundred pairs, planted faults are found and shrunk."""

from __future__ import annotations

import itertools
import runpy
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from fxgrow.capture.program.program import Op
from fxgrow.dims.axis import total
from fxgrow.rules import RULES
from fxgrow.rules.base import AxisContext, Rule
from fxgrow.rules.concat import Cat
from fxgrow.testing.fuzz import fuzz, smallest
from fxgrow.testing.fuzzing.choose import Seeded
from fxgrow.testing.fuzzing.common import PARTS
from fxgrow.testing.fuzzing.draw import draw_sketch
from fxgrow.testing.fuzzing.draw_growths import draw_growth
from fxgrow.testing.fuzzing.features import features
from fxgrow.testing.fuzzing.forms import RETURNS, TAKES
from fxgrow.testing.fuzzing.growths import Deepening, Growth, Whole, Widening
from fxgrow.testing.fuzzing.moves import KINDS
from fxgrow.testing.fuzzing.pairs import Breach, pairs, subject
from fxgrow.testing.fuzzing.promises import LawBroken
from fxgrow.testing.fuzzing.script import save
from fxgrow.testing.fuzzing.sketch import Input, Sketch, Step, step
from fxgrow.testing.fuzzing.tally import Tally

from ..verification.test_planted import PLANTED

SEED = 20_261
RUNS, MODELS, GROWTHS = 8, 20, 4
"""So many runs with seeds of their own, models in each, growths asked of each model."""
LEAST = 0.5
"""Share of growths in each of them; in the long run, of more pairs, it is 60 %."""
CENSUS = 1000
"""Sketches that are drawn, not built twice, to see which features they have."""
WITHIN = 2
"""How many more fx nodes than the smallest graph that shows a fault a shrunk one may have."""


@cache
def census() -> Counter[str]:
    tally = Tally()
    for k in range(CENSUS):
        tally.model(draw_sketch(Seeded((SEED, k))))
    return tally.ops + tally.features


FEATURES = [
    *PARTS,
    "again",
    "tied",
    *("grouped conv", "grouped transposed_conv", "dilated conv", "strided conv"),
    *(f"{kind}residual" for kind in ("", "long ", "nested ", "crossing ", "projected ")),
    *(f"input: {name}" for name in ("image 1-D", "image 2-D", "image 3-D", "tokens", "flat", "words")),
    *("training", "evaluation", "channels_last", "several inputs", "several outputs"),
    *(f"takes: {name}" for name in TAKES),
    *(f"returns: {name}" for name in RETURNS),
    *(f"{name} {kind}" for name, count in KINDS.items() if count > 1 for kind in range(count)),
    *("float64", "float32", "bfloat16"),
]


@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_is_drawn(feature: str) -> None:
    assert census()[feature] > 0


@pytest.mark.parametrize("number", range(RUNS))
def test_all_laws_hold_on_hundreds_of_drawn_graphs(number: int) -> None:
    found = fuzz(SEED + number, seconds=300, models=MODELS, growths=GROWTHS)
    assert found.breaches == 0
    assert (found.models, found.pairs) == (MODELS, MODELS * GROWTHS)
    assert found.share >= LEAST
    assert found.further > 0


LAYERS = tuple(step("linear", k, out=4, bias=1) for k in range(5))
PATHS: dict[str, tuple[tuple[Step, ...], set[str]]] = {
    "a plain skip path": ((LAYERS[0], LAYERS[1], step("binary", 1, 2, kind=0)), {"residual"}),
    "a chain": (LAYERS, set()),
    "a long one": ((*LAYERS, step("binary", 1, 5, kind=1)), {"residual", "long residual"}),
    "a product is none": ((LAYERS[0], LAYERS[1], step("binary", 1, 2, kind=2)), set()),
    "one in another": (
        (LAYERS[0], LAYERS[1], LAYERS[2], step("binary", 2, 3, kind=0), step("binary", 1, 4, kind=0)),
        {"residual", "nested residual"},
    ),
    "two that cross": (
        (LAYERS[0], LAYERS[1], LAYERS[2], step("binary", 1, 3, kind=0), step("binary", 2, 4, kind=0)),
        {"residual", "crossing residual"},
    ),
    "two branches": ((LAYERS[0], LAYERS[1], LAYERS[1], step("binary", 3, 2, kind=0)), {"projected residual"}),
}


@pytest.mark.parametrize("name", PATHS)
def test_residual_connections_are_told_apart(name: str) -> None:
    steps, wanted = PATHS[name]
    found = features(Sketch(inputs=(Input("flat", (3, 4)),), steps=steps, outputs=(len(steps),)))
    assert {one for one in found if one.endswith("residual")} == wanted


def test_every_kind_of_growth_is_drawn() -> None:
    every = (subject(draw_sketch(Seeded((SEED, k)))).sites for k in itertools.count())
    sites = next(s for s in every if len(s.inner) > 1 and len(s.calls) > 1)
    drawn = [draw_growth(Seeded(k), sites) for k in range(1500)]
    assert {type(g) for g in drawn} == {Widening, Deepening, Whole}
    wide = [g for g in drawn if isinstance(g, Widening)]
    assert {g.scheme for g in wide} >= {"auto", "r2r", "net2net", "zero", "morphism", "mean"}
    assert {(g.skip, g.grow) for g in wide} >= {("couple", "channels"), ("reshape", "channels"), ("couple", "groups")}
    assert {(g.to > 0, g.by > 0, g.round_to > 0) for g in wide} >= {(True, True, False), (False, True, True)}
    deep = [g for g in drawn if isinstance(g, Deepening)]
    assert {g.hidden for g in deep} >= {0, 4}
    assert {g.kernel for g in deep} >= {0, 3, 5}
    assert {g.pattern[-1:] for g in drawn if isinstance(g, Whole)} == {"", "*"}
    assert {g.side for g in drawn if isinstance(g, Deepening)} == {"after", "before"}


def breach(seed: int, step: str) -> Breach:
    """The first one that drawn pairs show, of models that have a step."""
    for number in range(1000):
        if step and all(s.op != step for s in draw_sketch(Seeded((seed, number))).steps):
            continue
        for _, found in pairs(Seeded((seed, number)), growths=8):
            if isinstance(found, Breach):
                return found
    raise AssertionError("no breach is found")


class Backwards(Cat):
    """A concatenation whose axis is told from the last operand to the first."""

    def dims(self, op: Op, d: AxisContext) -> None:
        """c = c2 + c1."""
        super().dims(op, d)
        axes = list(d.of(op.outputs[0]))
        at = op.args["dim"] % len(axes)
        axes[at] = total([d.algebra.resolve(d.of(x)[at]) for x in reversed(op.args["tensors"])])
        d.set(op.outputs[0], axes)


FAULTS: dict[str, tuple[str, Rule, int, str]] = {
    "layer norm is pointwise": (*PLANTED["layer norm is pointwise"][:2], 14, "layer_norm"),
    "softmax is pointwise": (*PLANTED["softmax is pointwise"][:2], 14, "softmax"),
    "a concatenation runs backwards": ("cat", Backwards(), 11, "cat"),
}
"""The operator, its rule, a seed with which it is found soon, and the step of models that show it, where few do."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_and_shrinks_to_the_smallest_graph(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    operator, rule, seed, among = FAULTS[fault]
    monkeypatch.setitem(RULES, f"aten::{operator}", rule)
    small = smallest(breach(seed, among))
    nodes = subject(small.sketch).model.graph.nodes
    assert len(nodes) <= len(["input", "linear", operator, "linear", "output"]) + WITHIN
    assert len(small.growths) == 1
    path = save(small, tmp_path)
    with pytest.raises(LawBroken, match="the function stays"):
        runpy.run_path(str(path), run_name="__main__")
    monkeypatch.undo()
    runpy.run_path(str(path), run_name="__main__")


def test_the_same_seed_draws_the_same_pairs() -> None:
    def drawn() -> list[tuple[Sketch, Growth | None]]:
        found = pairs(Seeded((SEED, 3)), growths=3)
        return [(sketch, None if isinstance(seen, Breach) else seen.growth) for sketch, seen in found]

    assert drawn() == drawn()
