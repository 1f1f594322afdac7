"""The algebra of axes against its oracle: on these models, and on planted mistakes, which the oracle must find."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import Op
from fxgrow.dims.algebra import Algebra
from fxgrow.dims.axis import Axis, Fixed, total
from fxgrow.models_zoo import ZOO
from fxgrow.rules import RULES
from fxgrow.rules.base import AxisContext, normal
from tests.oracles.agreement import Agreement, compare
from tests.oracles.labels import Labels

from ..models.orbit import MODELS, program_of

OPAQUE = {
    "refuse_spectrum": ("aten::fft_fft", "aten::real"),
    "refuse_unknown_operator": ("fxgrow_zoo::subtract_sum",),
}
"""Operators that labels do not get through; in these models nothing hides behind them."""


@pytest.mark.parametrize("name", [*MODELS, *ZOO])
def test_algebra_joins_and_splits_as_orbits_do(name: str) -> None:
    found = compare(program_of(name))
    assert found.disagreements == ()
    assert found.unknown == OPAQUE.get(name, ())
    assert found.units > 0


@pytest.mark.parametrize("name", ["densenet, 4 groups"])
def test_some_of_what_does_not_line_up_is_refused_the_rest_grows(name: str) -> None:
    found = compare(program_of(name))
    assert 0 < found.non_aligned <= found.refused < found.units


def test_a_cut_through_a_group_of_channels_refuses_nothing_but_that_group() -> None:
    found = compare(program_of("shufflenet_v2_x1_0"))
    assert (found.disagreements, found.non_aligned) == ((), 0)
    assert 0 < found.refused < found.units


# -- an oracle that cannot fail tells nothing: wrong rules, each on a net that shows what is wrong ------------------


class Exchanged:
    """chunk with its halves exchanged."""

    def dims(self, op: Op, d: AxisContext) -> None:
        x = op.args["self"]
        axes, at = d.of(x), normal(op.args["dim"], len(x.shape))
        parts = d.algebra.cut(axes[at], [out.shape[at] for out in op.outputs])[::-1]
        for out, part in zip(op.outputs, parts, strict=True):
            d.set(out, [part if k == at else axis for k, axis in enumerate(axes)])


class Backwards:
    """cat with its operands in reverse."""

    def dims(self, op: Op, d: AxisContext) -> None:
        rows = [d.of(x) for x in op.args["tensors"]]
        axes = rows[0]
        axes[1] = total([d.algebra.resolve(row[1]) for row in reversed(rows)])
        d.set(op.outputs[0], axes)


class Unchanged:
    """The axes of the first operand stay as they are: a transposition moves nothing, a sum joins nothing."""

    def dims(self, op: Op, d: AxisContext) -> None:
        d.set(op.outputs[0], d.of(next(op.inputs())))


class Unfrozen:
    """A slice with a stride that freezes nothing."""

    def dims(self, op: Op, d: AxisContext) -> None:
        axes: list[Axis] = d.of(op.args["self"])
        at = normal(op.args["dim"], len(axes))
        axes[at] = Fixed(op.outputs[0].shape[at])
        d.set(op.outputs[0], axes)


class Small(nn.Module):
    """conv -> what is asked -> conv, on six channels."""

    def __init__(self, body: Callable[[Tensor], Tensor], *, channels: int = 6) -> None:
        super().__init__()
        self.body = body
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(channels, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.body(self.norm(self.conv1(x))))
        return y


class TwoBranches(Small):
    """The same with a second branch, joined to the first by cat or by a sum."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.conv1(x)), F.relu(self.conv2(x))
        y: Tensor = self.last(torch.cat([a, b], 1) if self.last.in_channels == 12 else a + b)
        return y


def shuffled(x: Tensor, groups: int) -> Tensor:
    y: Tensor = x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
    return y


def halved(x: Tensor) -> Tensor:
    pieces = x.chunk(2, 1)
    a, b = pieces[0], pieces[1]
    return torch.cat([torch.relu(a), torch.sigmoid(b)], 1)


def compared(model: nn.Module) -> Agreement:
    return compare(lower(Snapshot(torch.fx.symbolic_trace(model.eval())), (torch.zeros(2, 3, 4, 4),)))


PLANTS = [
    ("aten::chunk", Exchanged(), lambda: Small(halved)),
    ("aten::cat", Backwards(), lambda: TwoBranches(F.relu, channels=12)),
    ("aten::add", Unchanged(), lambda: TwoBranches(F.relu)),
    ("aten::channel_shuffle", Unchanged(), lambda: Small(lambda x: F.channel_shuffle(x, 2))),
    ("aten::transpose", Unchanged(), lambda: Small(lambda x: shuffled(x[:, :4], 2), channels=4)),
    ("aten::slice", Unfrozen(), lambda: Small(lambda x: x[:, ::2], channels=3)),
    ("aten::batch_norm", Unchanged(), lambda: Small(F.relu)),
]


@pytest.mark.parametrize(("operator", "wrong", "build"), PLANTS, ids=[name.split("::")[1] for name, _, _ in PLANTS])
def test_a_wrong_rule_is_found(
    operator: str, wrong: object, build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compared(build()).disagreements == ()
    monkeypatch.setitem(RULES, operator, wrong)
    assert compared(build()).disagreements != ()


def test_a_split_off_the_boundary_must_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(program_of("refuse_regrouped"))
    assert (found.disagreements, found.non_aligned) == ((), 79)
    monkeypatch.setattr(Algebra, "_misfit", lambda self, *axes: None)
    found = compare(program_of("refuse_regrouped"))
    assert any("covered as one, but are only part of" in text for text in found.disagreements)


def test_a_disagreement_names_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "aten::add", Unchanged())
    first = compared(TwoBranches(F.relu)).disagreements[0]
    assert first.startswith("the algebra splits conv1.weight[0] (d")
    assert "conv2.weight[0]" in first


# -- the oracle's own parts ------------------------------------------------------------------------------------------


def numbered(labels: Labels, count: int) -> list[int]:
    return [labels.new() for _ in range(count)]


def test_labels_that_rename_each_other_are_united() -> None:
    labels = Labels()
    a, b = numbered(labels, 3), numbered(labels, 3)
    assert labels.relate(a, b)
    assert [labels.find(x) for x in b] == a


def test_a_label_that_covers_several_is_their_block() -> None:
    labels = Labels()
    channels, features = numbered(labels, 2), numbered(labels, 6)
    assert not labels.relate([c for c in channels for _ in range(3)], features)
    assert labels.find(labels.block(features[:3])) == channels[0]
    assert len({labels.find(f) for f in features}) == 6


def test_labels_that_cross_have_nothing_to_do_with_each_other() -> None:
    labels = Labels()
    rows, columns = numbered(labels, 2), numbered(labels, 3)
    assert not labels.relate([r for r in rows for _ in columns], columns * 2)
    assert len({labels.find(x) for x in (*rows, *columns)}) == 5


def test_blocks_of_the_same_units_are_one() -> None:
    labels = Labels()
    a, b = numbered(labels, 2), numbered(labels, 2)
    first, second = labels.block(a), labels.block(b)
    for x, y in zip(a, b, strict=True):
        labels.unite(x, y)
    labels.close()
    assert labels.find(first) == labels.find(second)
    labels.unite(*a)
    labels.close()
    assert labels.find(first) == labels.find(a[0])
