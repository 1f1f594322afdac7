"""The data of the picture of the schemes: actual kernels and volumes before and after a growth, entry by entry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, fx, nn

import fxgrow

State = Literal["old", "rescaled", "even", "odd", "copy", "split", "mean", "zero", "free"]
OLD, NEW = 4, 6
"""Number of units before and after the growth: one new pair, or two copies."""
OUTER = 3
"""Number of input and output channels, and of positions at which the volume is evaluated."""
TINY = 1e-12
"""Tolerance for rounding in float64."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The entries of a tensor with their states. Units are rows (producer, volume, scale of a norm) or columns
    (consumer)."""

    title: str
    values: tuple[tuple[float, ...], ...]
    states: tuple[tuple[State, ...], ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One scheme applied to a pair of layers."""

    scheme: str
    between: str
    """The module between producer and consumer."""
    formula: str
    matrices: tuple[Matrix, ...]
    learning: tuple[str, ...]
    """Which of the two layers have a gradient in their new entries at the first step."""

    @property
    def signs(self) -> tuple[str, ...]:
        """The symbols between successive matrices: the name of a function, or an equals sign."""
        if len(self.matrices) > 3:
            return ("", "norm", "=", "")
        return ("", "") if self.between == "Identity" else ("σ", "")


class Pair(nn.Module):
    """Two layers with a module between them. The layers are linear or 1x1 convolutions, whose kernels are matrices."""

    def __init__(self, between: nn.Module, *, conv: bool) -> None:
        super().__init__()
        layer = partial(nn.Conv1d, kernel_size=1, bias=False) if conv else partial(nn.Linear, bias=False)
        self.writer = layer(OUTER, OLD)
        self.between = between
        self.reader = layer(OLD, OUTER + 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reader(self.between(self.writer(x)))
        return y


def panels() -> tuple[Panel, ...]:
    """Return one panel for each effect of a scheme on a pair of layers.

    Raises:
        AssertionError: a growth changed the function.
    """
    return (
        _panel("r2r", nn.Tanh(), r"$W' = [W;\,U;\,U]\qquad V' = [V,\;U',\,-U']$"),
        _panel("net2net", nn.Tanh(), r"$W'_u = W_{g(u)}\qquad V'_u = V_{g(u)}\,/\,|g^{-1}(g(u))|$"),
        _panel("zero", nn.Tanh(), r"$W' = [W;\,U]\qquad V' = [V,\;0]$"),
        _panel("morphism", nn.Identity(), r"$W' = [W;\,0]\qquad V' = [V,\;U']$"),
        _panel(
            "zero", nn.RMSNorm(OLD, eps=1e-6), r"$W' = [W;\,0]\quad \gamma' = \gamma\sqrt{D/D'}\quad V' = [V,\;U']$"
        ),
        _panel(
            "mean",
            nn.LayerNorm(OLD),
            r"$W' = [W;\,\overline{W}]\quad \gamma' = \gamma\sqrt{D/D'}\quad V' = [V,\;U']$",
        ),
    )


def _panel(scheme: str, between: nn.Module, formula: str) -> Panel:
    norm = not isinstance(between, nn.Tanh | nn.Identity)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        pair = Pair(between, conv=not norm).double().eval()
        if norm:
            nn.init.uniform_(pair.get_parameter("between.weight"), 0.7, 1.3)
        x = torch.randn(1, OUTER, OUTER, dtype=torch.float64)
    before = fxgrow.trace(pair, (x,))
    plan = fxgrow.plan_widen(before, "writer", to=NEW, scheme=scheme)
    after = fxgrow.apply(plan, before)
    assert torch.allclose(before(x), after(x), rtol=0, atol=TINY)
    states = {edit.names[0]: edit.states[0] for edit in plan.tensors}
    name = type(between).__name__
    old, new = _chain(before), _chain(after)
    volumes = [_volume("volume", new, old, x)]
    if norm:
        volumes = [
            _volume("before the norm", new[:1], old[:1], x),
            _kernel(r"scale  $\gamma$", before, after, "between.weight", states),
            _volume("after the norm", new, old, x),
        ]
    writer = _kernel("writer  $W$", before, after, "writer.weight", states)
    reader = _kernel("reader  $V$", before, after, "reader.weight", states, across=True)
    return Panel(scheme, name, formula, (writer, *volumes, reader), _learning(after, x))


def _learning(after: fx.GraphModule, x: Tensor) -> tuple[str, ...]:
    """Return the layers whose new entries have a gradient under a loss of all outputs."""
    after(x).square().sum().backward()
    new = {"writer": after.get_parameter("writer.weight").grad, "reader": after.get_parameter("reader.weight").grad}
    fresh = {"writer": new["writer"][OLD:], "reader": new["reader"][:, OLD:]}  # type: ignore[index]  # both have one
    return tuple(name for name, gradient in fresh.items() if float(gradient.abs().max()) > TINY)


def _chain(gm: fx.GraphModule) -> nn.Sequential:
    return nn.Sequential(gm.get_submodule("writer"), gm.get_submodule("between"))


def _kernel(
    title: str,
    before: fx.GraphModule,
    after: fx.GraphModule,
    name: str,
    states: dict[str, str],
    *,
    across: bool = False,
) -> Matrix:
    """Return a parameter as a matrix, with the states that the plan gives to its new entries."""
    old, new = (gm.get_parameter(name).detach().reshape(len(gm.get_parameter(name)), -1) for gm in (before, after))
    if across:
        old, new = old.T, new.T
    rows = [_old(a, b) for a, b in zip(old, new, strict=False)] + [(states[name],) * new.shape[1]] * (NEW - OLD)
    return _matrix(title, new, rows, across=across)


def _old(before: Tensor, after: Tensor) -> tuple[str, ...]:
    return tuple("old" if a == b else "rescaled" for a, b in zip(before.tolist(), after.tolist(), strict=True))


def _volume(title: str, after: nn.Module, before: nn.Module, x: Tensor) -> Matrix:
    """Return a volume as a matrix with units as rows; the states of new units are inferred from the values."""
    with torch.no_grad():
        old, new = (model(x)[0] for model in (before, after))
    if new.shape[0] != NEW:  # linear layers have units on the last axis
        old, new = old.T, new.T
    assert torch.allclose(old, new[:OLD], rtol=0, atol=TINY)
    return _matrix(title, new, [("old",) * OUTER] * OLD + [(_seen(new, unit),) * OUTER for unit in range(OLD, NEW)])


def _seen(volume: Tensor, unit: int) -> str:
    """Infer the state of a new unit from its values."""
    mine, old = volume[unit], volume[:OLD]
    others = [volume[other] for other in range(OLD, NEW) if other != unit]
    if torch.allclose(mine, torch.zeros_like(mine)):
        return "zero"
    if any(torch.allclose(mine, one) for one in old):
        return "copy"
    if torch.allclose(mine, old.mean(0)):
        return "mean"
    return "even" if any(torch.allclose(mine, other) for other in others) else "free"


def _matrix(title: str, values: Tensor, states: Sequence[Sequence[str]], *, across: bool = False) -> Matrix:
    rows = values.T.tolist() if across else values.tolist()
    marks = list(zip(*states, strict=True)) if across else states
    return Matrix(title, tuple(map(tuple, rows)), tuple(tuple(row) for row in marks))  # type: ignore[arg-type]  # plan states are text
