"""Operators that return an operand as it is, and what is said of two calls that read the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.capture.recording.fidelity import difference
from fxgrow.capture.recording.module_recording import StandIns, record_model

X = torch.randn(6, 8, dtype=torch.float64)


class Between(nn.Module):
    """Some code between two layers."""

    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.code = nn.Linear(8, 16), nn.Linear(16, 4), code
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).tanh()
        y: Tensor = self.b(h) * self.code(h)
        return y


RETURNED: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda h: (h.flatten(0, -2).T @ h.flatten(0, -2)).pow(2).sum(),
    "contiguous": lambda h: (h.contiguous().T @ h.contiguous()).pow(2).sum(),
    "to": lambda h: (h.to(torch.float64).T @ h.double().contiguous()).pow(2).sum(),
}


@pytest.mark.parametrize("name", RETURNED)
def test_an_operand_that_is_returned_as_it_is_is_no_other_tensor(name: str) -> None:
    model = Between(RETURNED[name])
    traced = fxgrow.trace(model, (X,))
    assert torch.equal(traced(X), model(X))


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (
            lambda h: h.relu().sin().sum() + h.tanh().sum(),
            "the module runs sin(6x16) on the result of tanh(6x16), and the graph runs sin(6x16) on the result of relu",
        ),
        (lambda h: _quiet(h), "the module runs sin(6x16) under torch.enable_grad, and the graph runs sin(6x16) under"),
    ],
)
def test_two_calls_that_read_the_same_are_told_apart(graph: Callable[[Tensor], Tensor], says: str) -> None:
    stand_ins, model = StandIns(), Between(lambda h: h.tanh().sin().sum() + h.relu().sum())
    other = Between(graph)
    other.a, other.b = model.a, model.b
    names = {id(t): name for name, t in model.named_parameters()}
    one, two = (record_model(m, (X,), {}, training=False, stand_ins=stand_ins) for m in (model, other))
    found = difference(one, two, names)
    assert found is not None
    assert str(found).startswith(says)


def _quiet(h: Tensor) -> Tensor:
    z = h.tanh()
    with torch.no_grad():
        z = z.sin()
    return z.sum() + h.relu().sum()
