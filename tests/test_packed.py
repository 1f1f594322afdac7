"""Queries, keys and values in one tensor, in every layout: new units differ by which of the three they belong to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.passes.widen import Grow

from .attention_models import HEADS, WIDTH, shaken
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
