"""Parameters of complex numbers: they grow like real ones, cast or taken apart or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.schemes import Net2Net

DOUBLE = torch.float64
SCHEMES = ("auto", "r2r", "net2net", "zero")
View = Callable[[Any, Any], Any]


class Spectral(nn.Module):
    """A layer, a Fourier transform over the samples, a product with a complex weight in some form, and a layer."""

    def __init__(self, product: View, dtype: torch.dtype = torch.complex128, shape: tuple[int, ...] = (6, 6)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(3, 6, dtype=DOUBLE), nn.Linear(6, 2, dtype=DOUBLE)
        self.w, self.product = nn.Parameter(torch.randn(shape, dtype=dtype)), product

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.product(torch.fft.fft(self.a(x), dim=0), self.w))
        return y


def check(net: nn.Module, grown: nn.Module, *shapes: tuple[int, ...]) -> None:
    """Both models are the same function in both modes; so says the certificate."""
    for training in (False, True):
        for shape in shapes:
            x = torch.randn(shape, dtype=DOUBLE)
            torch.testing.assert_close(grown.train(training)(x), net.train(training)(x), rtol=0, atol=1e-12)
    inputs = (torch.randn(shapes[0], dtype=DOUBLE),)
    assert fxgrow.verify(net.eval(), grown.eval(), example_inputs=inputs)


FORMS: dict[str, tuple[Any, ...]] = {
    "as it is": (lambda z, w: (z @ w).real,),
    "cast": (lambda z, w: (z @ w.to(z.dtype)).real, torch.complex64),
    "cast by name": (lambda z, w: (z @ w.cdouble()).real, torch.complex64),
    "vector": (lambda z, w: (z * w.to(z.dtype)).real, torch.complex64, (6,)),
    "row": (lambda z, w: (z * w[0]).real,),
    "conjugate": (lambda z, w: (z @ w.conj()).real,),
    "adjoint": (lambda z, w: (z @ w.mH).imag,),
    "real part": (lambda z, w: z.real @ w.real,),
    "imaginary part": (lambda z, w: z.real @ w.imag,),
    "einsum": (lambda z, w: torch.einsum("bi,io->bo", z, w).real,),
    "pairs": (lambda z, w: (z @ torch.view_as_complex(torch.view_as_real(w) * 2)).real,),
    "of pairs": (lambda z, w: (z @ torch.view_as_complex(w)).real, DOUBLE, (6, 6, 2)),
    "of two parts": (lambda z, w: (z @ torch.complex(w, w + 1)).real, DOUBLE),
    "polar": (lambda z, w: (z @ torch.polar(w.abs(), w.angle())).real,),
}


CASES = [
    (name, scheme)
    for name, form in FORMS.items()
    for scheme in SCHEMES
    if scheme != "net2net" or torch.complex64 not in form  # shares are rounded to the dtype of the weight
]


@pytest.mark.parametrize(("name", "scheme"), CASES)
def test_a_complex_weight_grows(name: str, scheme: str) -> None:
    net = Spectral(*FORMS[name]).eval()
    traced = fxgrow.trace(net, (torch.zeros(2, 3, dtype=DOUBLE),))
    grown = fxgrow.widen(traced, "a", scheme=scheme)
    assert sum(n == 12 for n in grown.get_parameter("w").shape) == 1
    check(net, grown, (2, 3), (1, 3), (5, 3))


def test_lengths_of_complex_weights_cannot_cancel() -> None:
    net = Spectral(lambda z, w: z.abs() @ w.abs()).eval()
    traced = fxgrow.trace(net, (torch.zeros(2, 3, dtype=DOUBLE),))
    with pytest.raises(fxgrow.GrowthRefused, match="FXG114"):
        fxgrow.widen(traced, "a", scheme="r2r")
    check(net, fxgrow.widen(traced, "a", scheme="net2net"), (2, 3), (5, 3))


@pytest.mark.parametrize("init", ["match", "kaiming", "xavier"])
def test_new_entries_have_both_parts_and_the_spread_of_the_old_ones(init: Any) -> None:
    net = Spectral(lambda z, w: (z @ w).real, shape=(6, 400)).eval()
    net.b = nn.Linear(400, 2, dtype=DOUBLE)
    grown = fxgrow.widen(fxgrow.trace(net, (torch.zeros(2, 3, dtype=DOUBLE),)), "a", scheme="r2r", init=init)
    new = grown.get_parameter("w")[6:].detach()
    wanted = {"match": float(net.w.detach().std()), "kaiming": (2 / 400) ** 0.5, "xavier": (2 / 406) ** 0.5}[init]
    for part in (new.real, new.imag):
        assert float(part.std()) == pytest.approx(wanted / 2**0.5, rel=0.1)


def test_noise_is_complex() -> None:
    net = Spectral(lambda z, w: (z @ w).real).eval()
    traced = fxgrow.trace(net, (torch.zeros(2, 3, dtype=DOUBLE),))
    grown = [fxgrow.widen(traced, "w", scheme=Net2Net(noise=noise)) for noise in (0.0, 0.1)]
    plain, noisy = (model.get_parameter("w").detach() for model in grown)
    assert torch.equal(plain[:, :6], noisy[:, :6])
    assert bool(((plain - noisy)[:, 6:].real != 0).all())
    assert bool(((plain - noisy)[:, 6:].imag != 0).all())


def test_a_changed_imaginary_part_is_found() -> None:
    traced = fxgrow.trace(Spectral(lambda z, w: (z @ w).real).eval(), (torch.zeros(5, 3, dtype=DOUBLE),))
    grown = fxgrow.widen(traced, "a", scheme="r2r")
    assert fxgrow.verify(traced, grown)
    with torch.no_grad():
        grown.get_parameter("w")[1, 2] += 1e-6j
    certificate = fxgrow.verify(traced, grown)
    assert not certificate
    assert "w: its old entries changed, first at [1, 2]" in str(certificate)


class SpectralConv(nn.Module):
    """A convolution by a few frequencies of an image, as Fourier neural operators have it."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.width, self.modes = width, modes
        weights = torch.randn(2, width, width, modes, modes, dtype=torch.complex128) / width
        self.low, self.high = nn.Parameter(weights[0].clone()), nn.Parameter(weights[1].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Low frequencies along the second axis; low ones and their mirror images along the first."""
        n, m = x.shape[0], self.modes
        z = torch.fft.rfft2(x)
        out = torch.zeros(n, self.width, x.size(-2), x.size(-1) // 2 + 1, dtype=z.dtype, device=x.device)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", z[:, :, :m, :m], self.low)
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", z[:, :, -m:, :m], self.high)
        y: Tensor = torch.fft.irfft2(out, s=x.shape[-2:])
        return y


class Operator(nn.Module):
    """Of Li et al. 2021, arXiv 2010.08895, small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lift, self.project = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 1, 1)
        self.spectral = nn.ModuleList(SpectralConv(6, 2) for _ in range(2))
        self.local = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        for spectral, local in zip(self.spectral, self.local, strict=True):
            x = torch.nn.functional.gelu(spectral(x) + local(x))
        y: Tensor = self.project(x)
        return y


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("layer", ["lift", "spectral.0.low", "local.1"])
def test_a_fourier_neural_operator_grows(layer: str, scheme: str) -> None:
    net = Operator().double().eval()
    traced = fxgrow.trace(net, (torch.zeros(2, 3, 6, 6, dtype=DOUBLE),))
    plan = fxgrow.plan_widen(traced, layer, scheme=scheme)
    check(net, fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), traced), (2, 3, 6, 6), (1, 3, 8, 10))


class Rotated(nn.Module):
    """Attention with rotary positions, whose angles lie in a buffer of complex numbers."""

    angles: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)
        angles = torch.outer(torch.arange(16, dtype=DOUBLE), 100.0 ** (-torch.arange(4) / 4))
        self.register_buffer("angles", torch.polar(torch.ones_like(angles), angles))

    def rotated(self, x: Tensor) -> Tensor:
        """Pairs of features, as complex numbers, are turned by their position."""
        z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * self.angles[: x.shape[1]]
        return torch.view_as_real(z).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.rotated(self.q(x)), self.rotated(self.k(x))
        y: Tensor = self.o(torch.softmax(q @ k.transpose(1, 2) * 8**-0.5, -1) @ self.v(x))
        return y


@pytest.mark.parametrize("scheme", SCHEMES)
def test_angles_of_rotary_positions_are_those_of_old_features(scheme: str) -> None:
    net = Rotated().double().eval()
    grown = fxgrow.widen(fxgrow.trace(net, (torch.zeros(2, 5, 4, dtype=DOUBLE),)), "q", scheme=scheme)
    columns = grown.get_buffer("angles").unbind(1)
    assert len(columns) == 8
    assert all(any(torch.equal(column, old) for old in net.angles.unbind(1)) for column in columns)
    check(net, grown, (2, 5, 4), (1, 9, 4))
