"""A `train` method of the user's that writes to tensors: a trace has no such code, and claims the mode it is in."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

from ..untouched import snapshot

X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Write = Callable[[Any, bool], object]


class Writes(nn.Module):
    """Two layers, and a `train` that writes to tensors."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.write = nn.Linear(5, 8), nn.Linear(8, 3), write
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("fast", self.b.weight.detach().clone())
        self.register_buffer("slow", self.b.weight.detach() * 0.5)

    def train(self, mode: bool = True) -> Any:
        """Set the mode, and write."""
        super().train(mode)
        with torch.no_grad():
            self.write(self, mode)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Both layers."""
        y: Tensor = self.b(torch.relu(self.a(x))) * self.scale
        return y


BY_MODE: dict[str, Write] = {
    "another average": lambda m, mode: m.b.weight.copy_(m.fast if mode else m.slow),
    "a buffer of one element": lambda m, mode: m.scale.fill_(2.0 if mode else 1.0),
    "an item": lambda m, mode: m.scale.__setitem__(0, 2.0 if mode else 1.0),
    "data": lambda m, mode: m.scale.data.fill_(2.0 if mode else 1.0),
}
EACH_TIME: dict[str, Write] = {
    "a sum in place": lambda m, mode: m.scale.add_(1),
    "a product": lambda m, mode: m.scale.mul_(2),
    "a weight that decays": lambda m, mode: m.b.weight.mul_(0.9),
    "another buffer": lambda m, mode: setattr(m, "scale", torch.full((1,), 2.0 if mode else 1.0).double()),
}
HARMLESS: dict[str, Write] = {
    "the same value": lambda m, mode: m.scale.fill_(1.0),
    "a copy of itself": lambda m, mode: m.scale.copy_(torch.ones(1)),
    "a frozen layer": lambda m, mode: m.a.requires_grad_(False),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BY_MODE)
def test_the_other_mode_is_not_claimed(name: str, training: bool) -> None:
    net = Writes(BY_MODE[name]).double().train(training)
    before = snapshot(net)
    traced = fxgrow.trace(net, (X,))
    assert snapshot(net) == before
    wider = fxgrow.widen(traced, "a")
    for model in (traced, wider):
        torch.testing.assert_close(model(X), net(X), rtol=0, atol=1e-12)
        with pytest.raises(fxgrow.UsageError, match=r"FXG009.*train\(\) of Writes writes to"):
            copy.deepcopy(model).train(not training)(X)


@pytest.mark.parametrize("name", EACH_TIME)
def test_what_changes_with_each_call_is_refused(name: str) -> None:
    net = Writes(EACH_TIME[name]).double().eval()
    before = snapshot(net)
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(net, (X,))
    assert snapshot(net) == before


@pytest.mark.parametrize("name", HARMLESS)
def test_what_changes_nothing_stands_for_both_modes(name: str) -> None:
    net = Writes(HARMLESS[name]).double().eval()
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    for training in (False, True):
        torch.testing.assert_close(wider.train(training)(X), net.train(training)(X), rtol=0, atol=1e-12)
