"""Weights under masks of zeros and ones: the weight changes its sign or is shared out, and the mask stays a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxgrow
from fxgrow.plans.layout import Leaf


class Masked(nn.Linear):
    """A linear layer of which some weights are masked."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", (torch.rand(outputs, inputs) > 0.4).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


class Early(nn.Module):
    """Masked before anything is computed, with nothing but sums between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), Masked(8, 8), Masked(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        last, middle = self.c.weight * self.c.mask, self.b.weight * self.b.mask
        return F.linear(F.linear(self.a(x), middle, self.b.bias), last, self.c.bias)


class OfChannels(nn.Module):
    """A convolution whose kernels are masked channel by channel."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.register_buffer("mask", (torch.rand(4, 8, 1, 1) > 0.4).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(torch.relu(self.a(x)), self.b.weight * self.mask, self.b.bias)


@pytest.mark.parametrize("scheme", ["r2r", "net2net", "zero", "morphism"])
@pytest.mark.parametrize(
    ("kind", "shape", "layer"), [(Early, (4, 5), "a"), (Early, (4, 5), "b"), (OfChannels, (2, 3, 8, 8), "a")]
)
def test_a_mask_stays_a_mask(kind: type[nn.Module], shape: tuple[int, ...], layer: str, scheme: str) -> None:
    torch.manual_seed(0)
    model, x = kind().double().eval(), torch.randn(shape, dtype=torch.float64)
    wider = fxgrow.widen(fxgrow.trace(model, (x,)), layer, to=13, scheme=scheme)
    assert (wider(x) - model(x)).abs().max() < 1e-12
    for name, mask in wider.named_buffers():
        assert set(mask.unique().tolist()) == {0.0, 1.0}, name


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a product": lambda w, mask: w * mask,
    "the mask first": lambda w, mask: mask * w,
    "a cast": lambda w, mask: w * mask.to(w.dtype),
    "what is not masked": lambda w, mask: w * (1 - mask.long()),
    "a choice": lambda w, mask: torch.where(mask.bool(), w, 0),
    "a choice of a tensor": lambda w, mask: torch.where(mask == 1, w, torch.zeros_like(w)),
    "filled": lambda w, mask: w.masked_fill(mask == 0, 0),
    "filled in place": lambda w, mask: w.clone().masked_fill_(~mask.bool(), 0.0),
    "two masks": lambda w, mask: w * (mask.bool() & (mask > 0)),
    "turned": lambda w, mask: (w.t() * mask.t()).t(),
}
DTYPES = {"flags": torch.bool, "whole numbers": torch.int64, "bytes": torch.uint8, "numbers": torch.float64}


class Chosen(nn.Module):
    """A linear layer between two others, whose weight is masked in some way."""

    mask: Tensor

    def __init__(self, form: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.double()
        self.register_buffer("mask", (torch.rand(6, 8) > 0.4).to(dtype))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.c(F.linear(torch.relu(self.a(x)), self.form(self.b.weight, self.mask), self.b.bias))
        return y


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_masks_of_every_dtype_stay_masks(form: str, kind: str) -> None:
    torch.manual_seed(0)
    model, x = Chosen(FORMS[form], DTYPES[kind]).eval(), torch.randn(4, 5, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    for layer in ("a", "b"):
        for scheme in ("r2r", "net2net", "zero", "morphism"):
            wider = fxgrow.widen(traced, layer, to=13, scheme=scheme)
            assert (wider(x) - model(x)).abs().max() < 1e-12
            mask = wider.get_buffer("mask")
            assert mask.dtype is DTYPES[kind]
            assert set(mask.unique().tolist()) == {0, 1}


def test_the_mask_of_a_plan_may_not_change_its_sign() -> None:
    model, x = Chosen(FORMS["a product"], torch.int64).eval(), torch.randn(4, 5, dtype=torch.float64)
    traced = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_widen(traced, "a", to=12, scheme="r2r")
    (mask,) = [edit for edit in plan.tensors if "mask" in edit.names]
    (axis,) = mask.axes
    assert isinstance(axis.layout, Leaf)
    odd = replace(mask, axes=(replace(axis, layout=replace(axis.layout, state="odd")),))
    wrong = replace(plan, tensors=tuple(odd if edit is mask else edit for edit in plan.tensors))
    with pytest.raises(fxgrow.FxgrowError, match="new units of a boolean or integer tensor cannot be odd"):
        fxgrow.apply(type(plan).from_json(wrong.to_json()), traced)


class Placed(nn.Module):
    """Rows that are taken by numbers, which are multiplied by as well."""

    places: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.table, self.b = nn.Linear(5, 8), nn.Embedding(9, 8), nn.Linear(8, 3)
        self.register_buffer("places", torch.arange(8))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x) * self.places + self.table(self.places).sum(-1))
        return y


def test_numbers_of_rows_are_no_mask() -> None:
    gm = fxgrow.trace(Placed(), (torch.randn(4, 5),))
    with pytest.raises(fxgrow.GrowthRefused, match="meet a tensor whose entries are given, not learned"):
        fxgrow.widen(gm, "a", to=13)
