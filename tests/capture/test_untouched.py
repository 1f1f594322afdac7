"""The oracle of "untouched": it must notice every kind of change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import fx, nn

from ..untouched import snapshot


def _next_float(gm: fx.GraphModule) -> None:
    weight = gm.get_parameter("0.weight").detach()
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))


def _equal_parameter(gm: fx.GraphModule) -> None:
    module = gm.get_submodule("0")
    module.weight = nn.Parameter(gm.get_parameter("0.weight").detach().clone())


def _wider_attribute(gm: fx.GraphModule) -> None:
    vars(gm.get_submodule("0"))["out_features"] = 7


def _other_argument(gm: fx.GraphModule) -> None:
    node = next(n for n in gm.graph.nodes if n.op == "output")
    node.args = (next(iter(gm.graph.nodes)),)


def _new_module(gm: fx.GraphModule) -> None:
    gm.add_submodule("extra", nn.ReLU())


CHANGES: dict[str, Callable[[fx.GraphModule], object]] = {
    "one bit of a weight": _next_float,
    "an equal parameter in another's place": _equal_parameter,
    "a module attribute": _wider_attribute,
    "a training flag": lambda gm: gm.get_submodule("1").train(),
    "requires_grad": lambda gm: gm.get_parameter("2.bias").requires_grad_(False),
    "a node's argument": _other_argument,
    "a module more": _new_module,
    "an entry in meta": lambda gm: gm.meta.update(fxgrow=()),
    "a running statistic": lambda gm: gm.get_buffer("1.num_batches_tracked").add_(1),
    "a hook": lambda gm: gm.get_submodule("2").register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_snapshots_tell_a_changed_model_from_an_untouched_one(change: str) -> None:
    gm = fx.symbolic_trace(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval())
    before = snapshot(gm)
    assert snapshot(gm) == before
    CHANGES[change](gm)
    assert snapshot(gm) != before
