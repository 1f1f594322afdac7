"""Context managers that fx would forget are told by name, with the user's line; nothing is left switched off."""

from __future__ import annotations

import linecache

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow import Kind

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    """Two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(4, 5)


class NoGrad(Two):
    """A part that is not to learn."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y: Tensor = self.a(x)  # blamed
        z: Tensor = self.b(y)
        return z


class Inference(Two):
    """A part in inference mode."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            y: Tensor = x * 2  # blamed
        z: Tensor = self.b(self.a(y))
        return z


class Autocast(Two):
    """A part in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z: Tensor = self.b(y)  # blamed
        return z


class NoAutocast(Two):
    """A part that is to stay as it is under the caller's autocast."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        with torch.autocast("cpu", enabled=False):
            z: Tensor = self.b(y.float())  # blamed
        return z


class Decorated(Two):
    """All of it."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.b(self.a(x))  # blamed
        return z


class LeftOff(Two):
    """Switches gradients off and leaves them so."""

    def forward(self, x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        z: Tensor = self.b(self.a(x))  # blamed
        return z


class ConstantsOnly(Two):
    """Makes a constant without gradients, which the trace keeps as it is."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = torch.ones(3) * 2
        z: Tensor = self.b(self.a(x * scale))
        return z


@pytest.mark.parametrize(
    ("kind", "manager", "way_out"),
    [
        (NoGrad, "torch.no_grad", "x.detach(), or requires_grad_(False)"),
        (Inference, "torch.inference_mode", "x.detach(), or requires_grad_(False)"),
        (Autocast, "torch.autocast", "cast by hand"),
        (NoAutocast, "torch.autocast", "cast by hand"),
        (Decorated, "torch.no_grad", "around the call of the model"),
        (LeftOff, "torch.no_grad", "around the call of the model"),
    ],
)
def test_a_context_manager_in_forward_is_refused_by_name(kind: type[Two], manager: str, way_out: str) -> None:
    before = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    with pytest.raises(fxgrow.UsageError) as caught:
        fxgrow.trace(kind())
    assert caught.value.kind is Kind.NOT_TRACEABLE
    text = str(caught.value)
    assert f"torch.fx forgets {manager}, and forward runs this inside it" in text
    assert "  where   test_contexts.py:" in text
    assert "# blamed" in text
    assert way_out in text
    assert before == (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"))


def test_what_fx_forgets_is_no_fancy() -> None:
    """The oracle of the refusal: plain fx traces these models, and the trace does something else."""
    x = X.requires_grad_()
    model = NoGrad()
    assert not model.a(x).isnan().any()
    torch.fx.symbolic_trace(model)(x).sum().backward()
    assert model.a.weight.grad is not None
    model.zero_grad()
    model(x).sum().backward()
    assert model.a.weight.grad is None
    assert Autocast()(X).dtype is torch.bfloat16
    assert torch.fx.symbolic_trace(Autocast())(X).dtype is torch.float32


def test_constants_made_without_gradients_pass() -> None:
    model = ConstantsOnly()
    assert torch.equal(fxgrow.trace(model)(X), model(X))


@pytest.mark.parametrize("manager", [torch.no_grad(), torch.inference_mode(), torch.autocast("cpu")])
def test_tracing_inside_a_context_manager_is_no_reason(manager: torch.no_grad) -> None:
    with manager:
        fxgrow.trace(ConstantsOnly())


def test_source_lines_of_nodes_are_the_users() -> None:
    node = next(n for n in fxgrow.trace(ConstantsOnly()).graph.nodes if n.name == "a")
    lines = [line for line in (node.stack_trace or "").splitlines() if "capture" in line and "trace(" not in line]
    assert linecache.getline(__file__, 1)
    assert not [line for line in lines if "create_" in line]
