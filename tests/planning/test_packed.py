"""Queries, keys and values in one tensor, in every layout: new units differ by which of the three they belong to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.passes.widen import Grow

from ..models.attention import HEADS, WIDTH, shaken
from .test_attention import EXACT, NAMES, SCHEMES, change

Heads = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values: batch, heads, tokens, width of a head."""


def _pieces(y: Tensor, at: int, order: tuple[int, ...]) -> Heads:
    """Cut into three pieces of one unit each."""
    q, k, v = y.chunk(3, at)
    return q.squeeze(at).permute(order), k.squeeze(at).permute(order), v.squeeze(at).permute(order)


def _cut(parts: tuple[Tensor, ...], view: Callable[[Tensor], Tensor]) -> Heads:
    q, k, v = parts
    return view(q), view(k), view(v)


def _half_opened(y: Tensor) -> Heads:
    pair = y[..., 1:].permute(4, 0, 2, 1, 3)
    return y[..., 0].transpose(1, 2), pair[0], pair[1]


def _by_number(y: Tensor) -> Heads:
    return y[0], y[1], y[2]


def _stacked(parts: tuple[Tensor, ...]) -> Heads:
    q, k, v = parts
    q, k, v = torch.stack([q, k, v], 2).unflatten(-1, (HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


WIDE = WIDTH // HEADS
LAYOUTS: dict[str, Callable[[Tensor], Heads]] = {
    "(3 h d)": lambda y: y.unflatten(-1, (3, HEADS, WIDE)).permute(2, 0, 3, 1, 4).unbind(0),
    "(h 3 d)": lambda y: y.unflatten(-1, (HEADS, 3, WIDE)).permute(3, 0, 2, 1, 4).unbind(0),
    "(h d 3)": lambda y: y.unflatten(-1, (HEADS, WIDE, 3)).permute(4, 0, 2, 1, 3).unbind(0),
    "(d h 3)": lambda y: y.unflatten(-1, (WIDE, HEADS, 3)).permute(4, 0, 3, 1, 2).unbind(0),
    "(d 3 h)": lambda y: y.unflatten(-1, (WIDE, 3, HEADS)).permute(3, 0, 4, 1, 2).unbind(0),
    "(3 d h)": lambda y: y.unflatten(-1, (3, WIDE, HEADS)).permute(2, 0, 4, 1, 3).unbind(0),
    "(3 h d), chunk and squeeze": lambda y: _pieces(y.unflatten(-1, (3, HEADS, WIDE)), 2, (0, 2, 1, 3)),
    "(h 3 d), chunk and squeeze": lambda y: _pieces(y.unflatten(-1, (HEADS, 3, WIDE)), 3, (0, 2, 1, 3)),
    "(h d 3), chunk and squeeze": lambda y: _pieces(y.unflatten(-1, (HEADS, WIDE, 3)), 4, (0, 2, 1, 3)),
    "chunk": lambda y: _cut(y.chunk(3, -1), lambda a: a.unflatten(-1, (HEADS, -1)).transpose(1, 2)),
    "split": lambda y: _cut(torch.split(y, WIDTH, -1), lambda a: a.unflatten(-1, (HEADS, -1)).transpose(1, 2)),
    "chunk of each head": lambda y: _cut(y.unflatten(-1, (HEADS, -1)).chunk(3, -1), lambda a: a.transpose(1, 2)),
    "split of each head": lambda y: _cut(y.unflatten(-1, (HEADS, -1)).split(WIDE, -1), lambda a: a.transpose(1, 2)),
    "chunk beside each unit": lambda y: _cut(
        y.unflatten(-1, (WIDE, 3 * HEADS)).chunk(3, -1), lambda a: a.permute(0, 3, 1, 2)
    ),
    "(3 h d), one by one": lambda y: _by_number(y.unflatten(-1, (3, HEADS, WIDE)).permute(2, 0, 3, 1, 4)),
    "(h d 3), one by one": lambda y: _by_number(y.unflatten(-1, (HEADS, WIDE, 3)).permute(4, 0, 2, 1, 3)),
    "(h d 3), keys and values together": lambda y: _half_opened(y.unflatten(-1, (HEADS, WIDE, 3))),
    "stacked": lambda y: _stacked(y.chunk(3, -1)),
}
"""Ways to keep queries, keys and values in one tensor, as they occur in the wild."""


class InOne(nn.Module):
    """Attention whose queries, keys and values come out of one linear layer, in a layout of its own."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.layout = layout
        self.table, self.qkv = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.project, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        q, k, v = LAYOUTS[self.layout](self.qkv(x))
        y = F.scaled_dot_product_attention(q, k, v)
        y = y.permute(0, 2, 3, 1) if self.layout.startswith(("(d", "(3 d", "chunk b")) else y.transpose(1, 2)
        out: Tensor = self.head(x + self.project(y.flatten(2)))
        return out


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_every_layout_of_queries_keys_and_values_grows_both_ways(layout: str, grow: Grow) -> None:
    model = shaken(InOne(layout))
    traced = fxgrow.trace(model, (NAMES,))
    for scheme in SCHEMES:
        for factor in (1.5, 2.0):
            grown = fxgrow.widen(traced, "qkv", scheme=scheme, grow=grow, factor=factor)
            assert change(model, grown, (NAMES,)) < EXACT
            again = fxgrow.widen(grown, "qkv", scheme=scheme, grow=grow, factor=2.0)
            assert change(model, again, (NAMES,)) < EXACT


@pytest.mark.parametrize("layout", ["(h d 3)", "chunk beside each unit"])
def test_a_plan_of_states_that_take_turns_is_replayed_and_followed(layout: str) -> None:
    traced = fxgrow.trace(shaken(InOne(layout)), (NAMES,))
    grow: Grow = "channels" if layout == "(h d 3)" else "groups"
    plan = fxgrow.plan_widen(traced, "qkv", scheme="net2net", grow=grow)
    assert {"copy", "split"} <= set(next(t for t in plan.tensors if t.names[0] == "qkv.weight").states)
    grown = fxgrow.apply(plan, traced)
    replayed = fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced)
    for name, tensor in grown.state_dict().items():
        assert torch.equal(tensor, replayed.state_dict()[name])
    assert fxgrow.verify(traced, grown).held
    assert fxgrow.bisect(traced, grown) is None
    with torch.no_grad():
        grown.get_parameter("project.bias")[0] += 1
    found = fxgrow.bisect(traced, grown)
    assert found is not None
    assert found.name == "project"  # whatever lies before it, qkv among it, agrees in its old units


BETWEEN: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: Turned(nn.BatchNorm1d(3 * WIDTH)),
    "instance norm": lambda: Turned(nn.InstanceNorm1d(3 * WIDTH, affine=True)),
    "PReLU": lambda: Turned(nn.PReLU(3 * WIDTH)),
    "average pooling": lambda: Turned(nn.AvgPool1d(3, 1, 1)),
    "max pooling": lambda: Turned(nn.MaxPool1d(3, 1, 1)),
    "padding": lambda: Done(lambda y: F.pad(y, (0, 0, 1, 2))),
    "centring": lambda: Done(lambda y: y - y.mean(1, keepdim=True)),
    "norm": lambda: Done(lambda y: F.normalize(y, dim=1)),
    "cumulative sum": lambda: Done(lambda y: y.cumsum(1)),
    "flip": lambda: Done(lambda y: y.flip(1)),
    "roll": lambda: Done(lambda y: y.roll(1, 1)),
    "list of indices": lambda: Done(lambda y: y[:, [2, 0, 1]]),
    "indices": lambda: Done(lambda y: y.index_select(1, torch.tensor([2, 0, 1]))),
}
"""What may stand between a projection and its parts, made afresh."""


class Done(nn.Module):
    """A function of queries, keys and values."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, y: Tensor) -> Tensor:
        return self.function(y)


class Turned(nn.Module):
    """A module that wants channels before tokens."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, y: Tensor) -> Tensor:
        out: Tensor = self.inner(y.transpose(1, 2))
        return out.transpose(1, 2)


class Worked(nn.Module):
    """Attention with something between the projection and its parts; in one tensor, or in three."""

    def __init__(self, between: Callable[[], nn.Module], *, apart: bool) -> None:
        super().__init__()
        self.apart = apart
        self.table, self.project, self.head = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 11)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.work = between()
        if apart:
            self.parts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in "qkv")
            self.works = nn.ModuleList(_third(between()) for _ in "qkv")

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        if self.apart:
            pairs = zip(self.parts, self.works, strict=True)
            q, k, v = (work(part(x)).unflatten(-1, (HEADS, WIDE)) for part, work in pairs)
        else:
            q, k, v = self.work(self.qkv(x)).unflatten(-1, (3, HEADS, WIDE)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.head(self.project(y.transpose(1, 2).flatten(2)).mean(1))
        return out


def _third(work: nn.Module) -> nn.Module:
    inner = getattr(work, "inner", None)
    made = {nn.BatchNorm1d: nn.BatchNorm1d(WIDTH), nn.PReLU: nn.PReLU(WIDTH)}
    made[nn.InstanceNorm1d] = nn.InstanceNorm1d(WIDTH, affine=True)
    return Turned(made.get(type(inner), inner)) if inner is not None else work


def _schemes(model: nn.Module, layer: str) -> set[str]:
    """Under which schemes a layer grows, checked."""
    traced = fxgrow.trace(model, (NAMES,))
    able = set()
    for scheme in ("auto", *SCHEMES):
        try:
            grown = fxgrow.widen(traced, layer, scheme=scheme)
        except fxgrow.GrowthRefused:
            continue
        assert change(model, grown, (NAMES,)) < EXACT
        assert fxgrow.verify(traced, grown).held
        able.add(scheme)
    return able


@pytest.mark.parametrize("between", BETWEEN)
def test_three_in_one_tensor_grow_wherever_three_tensors_do(between: str) -> None:
    together = shaken(Worked(BETWEEN[between], apart=False))
    apart = shaken(Worked(BETWEEN[between], apart=True))
    able = _schemes(together, "qkv")
    assert "auto" in able
    assert able == _schemes(apart, "parts.0")


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda y: y.flip(2),
    "roll": lambda y: y.roll(1, 2),
    "indices": lambda y: y.index_select(2, torch.tensor([2, 0, 1])),
    "cumulative sum": lambda y: y.cumsum(2),
    "padding": lambda y: F.pad(y, (0, 0, 0, 0, 1, 0))[:, :, :3],
    "sort": lambda y: y.sort(2)[0],
}


class Moved(InOne):
    """Queries, keys and values change places, or are mixed."""

    def __init__(self, how: str) -> None:
        super().__init__("(3 h d)")
        self.how = how

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        y = MOVED[self.how](self.qkv(x).unflatten(-1, (3, HEADS, WIDE)))
        q, k, v = y.permute(2, 0, 3, 1, 4).unbind(0)
        out: Tensor = self.head(x + self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)))
        return out


@pytest.mark.parametrize("how", MOVED)
@pytest.mark.parametrize("grow", ["channels", "groups"])
def test_parts_that_change_places_are_no_longer_told_apart(how: str, grow: Grow) -> None:
    model = shaken(Moved(how))
    traced = fxgrow.trace(model, (NAMES,))
    for scheme in ("auto", *SCHEMES):
        try:
            grown = fxgrow.widen(traced, "qkv", scheme=scheme, grow=grow)
        except fxgrow.GrowthRefused:
            assert grow == "channels"
            continue
        assert change(model, grown, (NAMES,)) < EXACT
