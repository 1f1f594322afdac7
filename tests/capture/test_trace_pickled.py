"""Pickled traces and grown models: torch.fx traces their code again, and what comes out must be the same program."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow

X = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two layers, a buffer, and what a test does with them."""

    def __init__(self, body: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a, self.b, self.unused = nn.Linear(5, 8), nn.Linear(8, 3), nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("unread", torch.zeros(3))

    def forward(self, x: Tensor) -> Any:
        """Of the body."""
        return self.body(self, x)


class OwnTrain(Layers):
    """With a `train` of its own."""

    def train(self, mode: bool = True) -> OwnTrain:
        """The first layer stays in evaluation mode."""
        super().train(mode)
        self.a.eval()
        return self


def core(net: Any, x: Tensor) -> Tensor:
    y: Tensor = net.b(torch.relu(net.a(x)))
    return y


def seen_by_a_view(net: Any, x: Tensor) -> Any:
    y = core(net, x)
    view = y[:, :2]
    y += 1
    return y, view


def in_its_own_dtype(net: Any, x: Tensor) -> Any:
    y = core(net, x).float()
    y += x[:, :3]
    return y


def filled_in_pieces(net: Any, x: Tensor) -> Any:
    out = torch.empty(2, 5, dtype=torch.float64)
    out[0] = x.sum(0)
    out[1] = 1.0
    return core(net, x * out.sum(0))


def noise(net: Any, x: Tensor) -> Any:
    return core(net, x) + torch.empty(3, dtype=torch.float64).normal_()


def flags(net: Any, x: Tensor) -> Any:
    positive = torch.zeros(4, 3, dtype=torch.bool)
    positive |= core(net, x) > 0
    return positive


def by_mode(net: Any, x: Tensor) -> Any:
    return core(net, x) * torch.tensor(2.0 if net.training else 1.0)


def into_a_view_of_a_buffer(net: Any, x: Tensor) -> Any:
    y = core(net, x)
    net.mean[1:].mul_(0.9)
    net.mean += y.detach().mean(0)
    return y - net.mean


def dtype_of_a_buffer(net: Any, x: Tensor) -> Any:
    return core(net, x).to(net.mean.dtype)


BODIES = [
    seen_by_a_view,
    in_its_own_dtype,
    filled_in_pieces,
    noise,
    flags,
    by_mode,
    into_a_view_of_a_buffer,
    dtype_of_a_buffer,
]


def pickled(gm: fx.GraphModule) -> fx.GraphModule:
    again: fx.GraphModule = pickle.loads(pickle.dumps(gm))
    return again


def saved(gm: fx.GraphModule) -> fx.GraphModule:
    file = io.BytesIO()
    torch.save(gm, file)
    file.seek(0)
    again: fx.GraphModule = torch.load(file, weights_only=False)
    return again


@pytest.mark.parametrize("kind", [Layers, OwnTrain])
@pytest.mark.parametrize("body", BODIES)
def test_they_are_the_same_program(body: Callable[[Any, Tensor], Any], kind: type[Layers]) -> None:
    traced = fxgrow.trace(kind(body).double().eval(), (X,))
    models = [traced] if body is flags else [traced, fxgrow.widen(traced, "a")]
    for model in models:
        for again in (pickled(model), saved(model), pickled(pickled(model))):
            saved_names = [name for name in again.state_dict() if not name.startswith("_tensor_constant")]
            assert saved_names == list(model.state_dict())  # torch 2.11 saves constants of what was pickled, too
            for training in (False, True):
                model.train(training)
                again.train(training).load_state_dict({**again.state_dict(), **model.state_dict()})
                for _ in range(2):
                    torch.manual_seed(1)
                    expected = model(X)
                    torch.manual_seed(1)
                    torch.testing.assert_close(again(X), expected, rtol=0, atol=0)


def test_dtypes_of_buffers_follow_a_cast() -> None:
    again = pickled(fxgrow.trace(Layers(dtype_of_a_buffer).double().eval(), (X,)))
    again.get_buffer("mean")
    again.mean = again.get_buffer("mean").half()
    assert again(X).dtype is torch.float16
