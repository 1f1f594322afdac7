"""Faults of certificates, and a watch that must notice each: one that is always true certifies nothing."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.schemes.net2net import Net2Net
from fxgrow.verification import Certificate
from fxgrow.verification.derivatives import Slopes
from fxgrow.verification.first_step import backward
from fxgrow.verification.scales import Yardstick

from .gates import changed
from .lies import Plant


class Coarse(Yardstick):
    """Measures every entry by the largest of all."""

    def scales(self, values: Tensor, rounding: Tensor | None, epsilon: float) -> Tensor:
        """The same everywhere."""
        return torch.full_like(values, float(values.abs().max()))


def real(dtype: torch.dtype, wanted: torch.dtype) -> torch.dtype:
    """Complex numbers are taken for real ones."""
    return wanted if dtype.is_floating_point or dtype.is_complex else dtype


def always(patch: pytest.MonkeyPatch) -> None:
    """A certificate is true, whatever it says."""
    patch.setattr(Certificate, "__bool__", lambda _: True)


def believed(patch: pytest.MonkeyPatch) -> None:
    """An output is said to depend on every tensor."""
    patch.setattr(Slopes, "felt", lambda self, tensors, steps: set(tensors))


def unsaid(*args: Any) -> tuple[str, str]:
    """A step in evaluation mode passes for one in training mode."""
    return backward(*args)[0], ""


FAULTS: dict[str, Plant] = {
    "a certificate is always true": always,
    "every difference holds": changed(verification__certificate___all_held=lambda _: True),
    "any noise is excused": changed(api__verifying__without_noise=lambda base, after, history: base),
    "no noise is excused": changed(api__verifying__without_noise=lambda base, after, history: after),
    "everything is felt": changed(api__verifying__unfelt=lambda *_, **__: ()),
    "every tensor among many is felt": believed,
    "derivatives are not checked": changed(verification__derivatives__CERTAIN=0.0),
    "all errors of one class are one": changed(verification__measure___wording=lambda _: ""),
    "a first step in evaluation mode is not named": changed(verification__first_step__backward=unsaid),
    "entries that are not felt are not looked at": changed(api__verifying__suspects=lambda *_: []),
    "small columns are measured by large ones": changed(verification__measure__Yardstick=Coarse),
    "imaginary parts are dropped": changed(verification__compare__like=real),
    "casts are not raised": changed(verification__compare__raised=lambda _: nullcontext()),
    "masks hide everything": changed(verification__probes___mask=lambda x, *_, **__: torch.ones_like(x)),
    "a batch of one is cut from anything": changed(verification__job__called=lambda *_, **__: None),
    "training mode is left out": changed(api__verifying___claims=lambda *_: ("eval",)),
    "frozen parameters are asked for gradients": changed(verification__certificate___gradients=lambda some: []),
}
"""By what is wrong: how it is planted."""

X = torch.linspace(-1, 1, 20).view(4, 5)


class Net(nn.Module):
    """Two layers and a branch that its gate silences; what it computes is turned, and has columns of unlike units."""

    def __init__(self, *, trains: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b, self.c, self.d = nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(5, 8), nn.Linear(8, 4)
            self.turn = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.gate = nn.Parameter(torch.zeros(()))
        self.trains = trains

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.trains:
            raise RuntimeError("it does not train")
        y = self.b(torch.relu(self.a(x))) + self.gate * self.d(torch.relu(self.c(x)))
        turned: Tensor = (y * self.turn).abs() * torch.tensor([1e9, 1e9, 1.0, 1e-3]).to(x)
        return turned


class Casts(nn.Module):
    """Computes in single precision in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(torch.relu(self.a(x)).float().softmax(-1).to(x.dtype))
        return y


class Attends(nn.Module):
    """Attention of a sequence to itself, some of it hidden."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        y: Tensor = self.m(x, x, x, key_padding_mask=hidden, need_weights=False)[0]
        return y


def noticed() -> str:
    """What certificates say of some models that they should not say; empty if all is right."""
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of imaginary parts that are dropped, say
        torch.manual_seed(0)
        return next(_wrong(), "")


def _wrong() -> Iterator[str]:
    before = Net().eval()
    for what, name, entry, by in (
        ("a changed entry", "b.bias", 0, 1e-5),
        ("a change in a small column", "b.bias", 3, 0.05),
        ("a change of an imaginary part", "turn", 0, 1e-3j),
    ):
        if fxgrow.verify(before, _other(before, name, entry, by), example_inputs=(X,)):
            yield f"{what} is missed"
    if not fxgrow.verify(before, copy.deepcopy(before), example_inputs=(X,)):
        yield "a model is not the same function as itself"
    if fxgrow.verify(before, Net(trains=False).eval(), example_inputs=(X,)):
        yield "a model that does not train passes for one that does"
    yield from _noise()
    yield from _failing()
    yield from _feeling()
    yield from _inputs()


def _failing() -> Iterator[str]:
    """Models that do not run in training mode."""
    if fxgrow.verify(Net(trains=False).eval(), _Fails().eval(), example_inputs=(X,)):
        yield "models that fail for different reasons pass for the same"
    normed = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).eval()
    one = fxgrow.trace(normed, (X[:1],))
    if not any("checked in evaluation mode" in note for note in fxgrow.verify(one, fxgrow.widen(one, "0")).notes):
        yield "a first step in evaluation mode is not named"


class _Fails(Net):
    """Fails in training mode, too, for another reason."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("it fails elsewhere")
        return super().forward(x)


def _noise() -> Iterator[str]:
    model = fxgrow.trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), (X,))
    plan = fxgrow.plan_widen(model, "0", scheme=Net2Net(noise=1e-3))
    noisy = fxgrow.apply(plan, model)
    if not fxgrow.verify(model, noisy):
        yield "noise that was asked for is a fault"
    if fxgrow.verify(model, _other(noisy, "2.bias", 0, 1e-3)):
        yield "noise excuses another fault"
    if fxgrow.verify(model, _other(fxgrow.apply(replace(plan, noise=0.0), model), "2.bias", 0, 1e-3)):
        yield "a fault of the size of noise is missed where none was asked for"


def _feeling() -> Iterator[str]:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 4), nn.Linear(5, 4)
            self.gate = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.c(x) + self.gate * self.b(torch.relu(self.a(x)))
            return y

    module = Gated().eval().requires_grad_(False)
    grown = fxgrow.widen(fxgrow.trace(module, (X,)), "a")
    certificate = fxgrow.verify(module, grown)
    if not certificate:
        yield "a growth behind a closed gate is a fault"
    if not certificate.unfelt:
        yield "what is behind a closed gate is felt"
    if "frozen" not in str(certificate):
        yield "frozen parameters are not named"
    if fxgrow.verify(module, _other(grown, "b.weight", -1, 1.0)):
        yield "a wrong entry behind a closed gate is missed"
    for through in (False, True):
        traced = fxgrow.trace(_Many(through).eval(), (X,))
        grown = fxgrow.grow(traced, widen=2.0)
        if "dead.2.weight" not in fxgrow.verify(traced, grown).unfelt:
            yield "a tensor that no output feels is missed among many"
        if fxgrow.verify(traced, _other(grown, "dead.2.weight", -1, 1.0)):
            yield "a wrong entry that no output feels is missed among many"


class _Many(nn.Module):
    """Branches, the last of which has no effect: it is silenced, or taken away again."""

    def __init__(self, through: bool) -> None:
        super().__init__()
        branches = [nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 5)) for _ in range(4)]
        self.live, self.dead = nn.ModuleList(branches[1:]), branches[0]
        self.gate = nn.Parameter(torch.zeros(()))
        self.through = through

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.live:
            x = x + branch(x)
        y: Tensor = self.dead(x)
        x = x + (y - y.detach() if self.through else self.gate * y)
        return x


def _inputs() -> Iterator[str]:
    casts = Casts().eval()
    if not fxgrow.verify(casts, fxgrow.widen(fxgrow.trace(casts, (X,)), "a", scheme="net2net"), example_inputs=(X,)):
        yield "casts are a fault"
    traced = fxgrow.trace(casts, (X,))
    if fxgrow.verify(casts, fxgrow.widen(traced, "a", scheme="net2net"), example_inputs=(X,)).float64 > 1e-12:
        yield "casts are not raised"
    hidden = torch.tensor([[False, False, False, True], [False, False, True, True]])
    attention = fxgrow.trace(Attends().eval(), (torch.randn(2, 4, 8), hidden))
    heads = fxgrow.widen(attention, "m.in_proj_weight", grow="groups")
    found = fxgrow.verify(attention, heads, example_inputs=(torch.randn(2, 4, 8), hidden))
    if not found or any("in the model before" in note for note in found.notes):
        yield "masks hide everything"
    nodes = _Nodes().eval()
    found = fxgrow.verify(nodes, copy.deepcopy(nodes), example_inputs=(torch.randn(6, 5), torch.rand(6, 6)))
    if not any("batch of one not compared" in note for note in found.notes):
        yield "a batch of one is cut from a graph"


class _Nodes(nn.Module):
    """A layer on the nodes of a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 4)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y: Tensor = adjacency @ self.a(x)
        return y.view(6, 4)  # so many nodes, and no fewer


def _other(model: nn.Module, name: str, entry: int, by: complex) -> nn.Module:
    """A copy with one entry changed."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        made.get_parameter(name).view(-1)[entry] += by
    assert isinstance(made, fx.GraphModule | Net)
    return made
