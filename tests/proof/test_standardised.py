"""Kernels that are standardised over their inputs: copies leave mean and variance, and the gain takes the share."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow

SAME = 1e-12
Act = Callable[[Tensor], Tensor]


class Standardised(nn.Conv2d):
    """As in timm's ResNet V2."""

    def kernel(self, gain: Tensor | None = None) -> Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        return F.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=1e-6).reshape_as(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel(), self.bias, padding=self.padding)


class Scaled(Standardised):
    """As in timm's networks without norms."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size)
        self.gain = nn.Parameter(torch.rand(outputs, 1, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel((self.gain * 0.7).view(-1)), self.bias, padding=self.padding)


class Network(nn.Module):
    """Two kernels in a row, with what stands between them."""

    def __init__(self, kind: Callable[[int, int, int], nn.Module], size: int, norm: nn.Module, act: Act) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = kind(3, 4, 3), norm, kind(4, 6, size)
        self.act, self.last = act, nn.Linear(6, 2)
        for parameter in norm.parameters():
            nn.init.normal_(parameter, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.second(self.act(self.norm(self.first(x)))))
        y: Tensor = self.last(x.mean((2, 3)))
        return y


IMAGE = torch.randn(2, 3, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NETWORKS: dict[str, Callable[[], Network]] = {
    "the gain takes the share": lambda: Network(Scaled, 3, nn.Identity(), F.gelu),
    "the gain of a kernel of size one": lambda: Network(Scaled, 1, nn.Identity(), F.silu),
    "the affine map of one group": lambda: Network(Standardised, 3, nn.GroupNorm(1, 4), F.relu),
    "that of a group for each channel": lambda: Network(Standardised, 3, nn.GroupNorm(4, 4), F.relu),
    "that of a batch norm": lambda: Network(Standardised, 3, nn.BatchNorm2d(4), F.relu),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_inputs_of_standardised_kernels_grow_by_copies(name: str) -> None:
    module = NETWORKS[name]().double()
    module(IMAGE)  # running statistics that are not those of the start
    gm = fxgrow.trace(module.eval(), (IMAGE,))
    once = fxgrow.widen(gm, "first.weight", factor=3)
    for grown in (once, fxgrow.widen(once, "first.weight", factor=2)):
        before = copy.deepcopy(module)
        for training in (False, True, False):
            torch.testing.assert_close(grown.train(training)(IMAGE), before.train(training)(IMAGE), rtol=0, atol=SAME)
    once = fxgrow.widen(gm, "first.weight", factor=3)
    assert fxgrow.verify(module, once).held


class Stack(nn.Module):
    """Kernels in a row, each of which reads the units of the one before it and has units of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kernels = nn.ModuleList(Scaled(n, 4, size) for n, size in ((3, 3), (4, 3), (4, 1)))
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        for kernel in self.kernels:
            x = F.silu(kernel(x))
        y: Tensor = self.last(x)
        return y


def test_kernels_in_a_row_grow_together_each_with_a_share_of_its_own() -> None:
    module = Stack().double().eval()
    gm = fxgrow.trace(module, (IMAGE,))
    able = [site.path for site in fxgrow.inspect(gm).widenable]
    assert able == [f"kernels.{k}.weight" for k in range(3)]
    grown = fxgrow.grow(gm, widen=2.0)
    assert [grown.get_parameter(name).shape[0] for name in able] == [8, 8, 8]
    for k in (1, 2):  # of the units that are copied, those of the last kernel are drawn
        gain, old = grown.get_parameter(f"kernels.{k}.gain"), module.get_parameter(f"kernels.{k}.gain")
        torch.testing.assert_close(gain.flatten()[:4] * 2, old.flatten())
    for x in (IMAGE, torch.randn(3, 3, 9, 8, dtype=torch.float64)):
        for training in (True, False):
            torch.testing.assert_close(grown.train(training)(x), module.train(training)(x), rtol=0, atol=SAME)
    assert fxgrow.verify(module, grown).held


def test_a_gain_keeps_its_shape_but_for_the_channels_where_the_width_allows_it() -> None:
    module = Stack().double().eval()
    gm = fxgrow.trace(module, (IMAGE,))
    grown = fxgrow.widen(gm, "kernels.2.weight", to=5)
    assert grown.get_parameter("kernels.2.gain").shape == (5, 1, 1, 1)
    torch.testing.assert_close(grown(IMAGE), module(IMAGE), rtol=0, atol=SAME)
    by_copies = fxgrow.widen(gm, "kernels.0.weight", factor=1.25)  # which there must be equally many of
    assert by_copies.get_parameter("kernels.0.weight").shape[0] == 8
    torch.testing.assert_close(by_copies(IMAGE), module(IMAGE), rtol=0, atol=SAME)
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "kernels.0.weight", to=5)
    assert caught.value.kind is fxgrow.Kind.NORM


def test_the_gain_is_divided_by_the_number_of_copies_and_the_plan_is_data() -> None:
    module = NETWORKS["the gain takes the share"]().double().eval()
    gm = fxgrow.trace(module, (IMAGE,))
    plan = fxgrow.plan_widen(gm, "first.weight", factor=2)
    assert [(edit.names, edit.scale, edit.axes) for edit in plan.tensors if edit.scale != 1] == [
        (("second.gain",), 0.5, ())
    ]
    grown = fxgrow.apply(type(plan).from_json(plan.to_json()), gm)
    torch.testing.assert_close(grown.get_parameter("second.gain") * 2, module.second.gain)
    torch.testing.assert_close(grown(IMAGE), module(IMAGE), rtol=0, atol=SAME)


def test_a_gain_that_serves_two_kernels_takes_no_share() -> None:
    class Twice(Network):
        def forward(self, x: Tensor) -> Tensor:
            second: Scaled = self.second  # type: ignore[assignment]  # so it was made
            y: Tensor = super().forward(x)
            return y * second.gain.sum()

    module = Twice(Scaled, 3, nn.Identity(), F.gelu).double().eval()
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(fxgrow.trace(module, (IMAGE,)), "first.weight", factor=2)
    assert caught.value.kind is fxgrow.Kind.NORM


@pytest.mark.parametrize("scheme", ["r2r", "zero", "mean"])
def test_other_new_units_would_change_the_kernels(scheme: str) -> None:
    gm = fxgrow.trace(NETWORKS["the gain takes the share"]().double().eval(), (IMAGE,))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.widen(gm, "first.weight", factor=2, scheme=scheme)
    assert caught.value.kind is fxgrow.Kind.NORM


def test_channels_weighed_by_their_mean_and_their_maximum_grow_by_copies() -> None:
    class Weighed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.weigh, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 1, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            seen = [x.mean(1, keepdim=True), x.amax(1, keepdim=True), x.min(1, keepdim=True).values]
            y: Tensor = self.b(x * self.weigh(torch.cat(seen, 1)).sigmoid())
            return y

    module = Weighed().double().eval()
    grown = fxgrow.widen(fxgrow.trace(module, (IMAGE,)), "a", factor=2)
    torch.testing.assert_close(grown(IMAGE), module(IMAGE), rtol=0, atol=SAME)
