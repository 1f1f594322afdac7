"""Units that nothing reads: new ones would never learn, and are refused, unless others that grow in step are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind

from ..insertion.deepened import EXACT, apart

X = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SCHEMES = ("auto", "r2r", "net2net", "zero", "mean")


class Part(nn.Module):
    """A layer of which a part is returned, or read by another layer."""

    def __init__(self, part: Callable[[Tensor], Tensor], width: int = 0) -> None:
        super().__init__()
        self.first, self.part = nn.Linear(4, 6), part
        self.last = nn.Linear(width, 3) if width else nn.Identity()
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.part(self.first(x)))
        return y


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("part", [lambda h: h[:, :1], lambda h: h[:, 5:], lambda h: h.split([5, 1], 1)[1]])
def test_units_of_a_part_that_is_dropped(part: Callable[[Tensor], Tensor], scheme: str) -> None:
    gm = fxgrow.trace(Part(part), (X,))
    with pytest.raises(GrowthRefused, match="no operator uses the units that would be added") as caught:
        fxgrow.widen(gm, "first", by=1, scheme=scheme)
    assert caught.value.kind is Kind.DEAD
    assert "first" in {site.path for site in fxgrow.inspect(gm).refused}


@pytest.mark.parametrize("part", [lambda h: h.chunk(2, 1)[0], lambda h: h[:, 3:]])
def test_one_half_is_read(part: Callable[[Tensor], Tensor]) -> None:
    gm = fxgrow.trace(Part(part, 3), (X,))
    wider = fxgrow.widen(gm, "first", factor=2)
    assert apart(gm, wider, X) < EXACT
    assert fxgrow.verify(gm, wider).ok
    assert [tuple(p.shape) for p in wider.last.parameters()] == [(3, 6), (3,)]  # type: ignore[union-attr]  # a layer


def test_what_is_left_out() -> None:
    gm = fxgrow.trace(nn.Sequential(nn.Linear(4, 4), Part(lambda h: h[:, :1])).double(), (X,))
    plan = fxgrow.plan_grow(gm, widen=2.0)
    assert any("left out: 1.first: no operator uses" in note for note in plan.notes)
    assert {name for edit in plan.tensors for name in edit.names} == {"0.weight", "0.bias", "1.first.weight"}


class Residual(nn.Module):
    """A stream of dilated blocks, of which the outputs read the skip paths: nothing reads what the last one adds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(5, 2)
        self.gates = nn.ModuleList(nn.Linear(6, 7) for _ in range(2))
        self.skips = nn.ModuleList(nn.Linear(7, 5) for _ in range(2))
        self.sums = nn.ModuleList(nn.Linear(7, 6) for _ in range(2))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        stream, total = self.first(x), torch.zeros((), dtype=x.dtype)
        for gate, skip, some in zip(self.gates, self.skips, self.sums, strict=True):
            z = torch.tanh(gate(stream))
            total = total + skip(z)
            stream = stream + some(z)
        y: Tensor = self.last(total.relu())
        return y


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [{"factor": 2.0}, {"by": 1}])
def test_a_sum_that_nobody_reads_grows_with_the_stream(scheme: str, width: dict[str, float]) -> None:
    module = Residual()
    gm = fxgrow.trace(module, (X,))
    for name in ("first", "sums.1"):
        wider = fxgrow.widen(gm, name, scheme=scheme, **width)  # type: ignore[arg-type]  # one option
        assert wider.get_parameter("sums.1.weight").shape[0] == wider.get_parameter("first.weight").shape[0] > 6
        for x in (X, torch.randn(2, 4, dtype=torch.float64)):
            for training in (True, False):
                torch.testing.assert_close(wider.train(training)(x), module.train(training)(x), rtol=0, atol=1e-12)


def test_a_sum_that_nobody_reads_beside_adapted_skip_paths() -> None:
    module = Residual()
    gm = fxgrow.trace(module, (X,))
    for name in ("first", "sums.0", "sums.1"):
        wider = fxgrow.widen(gm, name, factor=2, skip="reshape")
        torch.testing.assert_close(wider(X), module(X), rtol=0, atol=1e-12)


class Aside(nn.Module):
    """A layer that is read, and something that is computed with it for nothing."""

    def __init__(self, aside: Callable[[nn.ModuleDict, Tensor, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.some = nn.ModuleDict({"b": nn.Linear(4, 6), "c": nn.Linear(6, 6), "read": nn.Linear(4, 6)})
        self.first, self.last, self.aside = nn.Linear(4, 6), nn.Linear(6, 2), aside
        self.scale = nn.Parameter(torch.rand(6))
        self.some.register_parameter("scale", self.scale)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        self.aside(self.some, x, h)
        y: Tensor = self.last(h) + self.some["read"](x).relu().sum(1, keepdim=True)
        return y


ASIDE: dict[str, Callable[..., object]] = {
    "a sum": lambda some, x, h: some["b"](x) + h,
    "a sum in place": lambda some, x, h: some["b"](x).add_(h),
    "a stack": lambda some, x, h: torch.stack([h, some["c"](h)]),
    "rows below each other": lambda some, x, h: torch.cat([h, some["c"](h)]).softmax(-1),
    "three layers": lambda some, x, h: torch.where(some["b"](x) > 0, h, some["c"](h)),
    "blocks of several layers": lambda some, x, h: torch.cat([h, some["c"](h)], 1) + torch.cat([some["b"](x), h], 1),
    "what is computed of a parameter": lambda some, x, h: h * (1 + some.scale),
    "a view of written sizes": lambda some, x, h: h.view(5, 2, 3) * some["b"](x).view(5, 2, 3),
    "a norm of a written size": lambda some, x, h: torch.nn.functional.layer_norm(h + some["b"](x), (6,)),
    "products of all pairs": lambda some, x, h: h.t() @ some["b"](x),
    "two layers that are read": lambda some, x, h: h + some["read"](x),
}


@pytest.mark.parametrize("aside", ASIDE.values(), ids=ASIDE)
def test_layers_grow_with_what_they_meet_where_nobody_reads_the_result(aside: Callable[..., object]) -> None:
    module = Aside(aside)
    gm = fxgrow.trace(module, (X,))
    assert "first" in {site.path for site in fxgrow.inspect(gm).widenable}
    for wider in (fxgrow.widen(gm, "first", factor=2), fxgrow.grow(gm, widen=1.5)):
        assert wider.get_parameter("first.weight").shape[0] > 6
        torch.testing.assert_close(wider(X), module(X), rtol=0, atol=1e-12)
        assert fxgrow.verify(gm, wider).ok


def test_what_nobody_reads_is_no_reason_against_a_growth() -> None:
    """A view of a size that is left open, a cut and a softmax leave the axis as it is: any width will do."""

    def aside(some: nn.ModuleDict, x: Tensor, h: Tensor) -> object:
        return h.view(5, 2, -1), h.chunk(2, 1)[0] * 2, h.softmax(1)

    module = Aside(aside)
    gm = fxgrow.trace(module, (X,))
    for scheme in SCHEMES:
        for by in (2, 4):
            wider = fxgrow.widen(gm, "first", by=by, scheme=scheme)
            torch.testing.assert_close(wider(X), module(X), rtol=0, atol=1e-12)
    site = next(site for site in fxgrow.inspect(gm).sites if site.path == "first")
    assert "(" not in site.axis


def test_halves_that_nobody_reads_cannot_take_another_size() -> None:
    def aside(some: nn.ModuleDict, x: Tensor, h: Tensor) -> object:
        return h.chunk(2, 1)[0] + some["b"](x).chunk(2, 1)[0]

    gm = fxgrow.trace(Aside(aside), (X,))
    with pytest.raises(GrowthRefused) as caught:
        fxgrow.widen(gm, "first", factor=2)
    assert caught.value.kind is Kind.INEXPRESSIBLE
