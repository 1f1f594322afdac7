"""Operators between a convolution that grows and one that reads it: the whole way through widen and verify."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind
from fxgrow.models_zoo.models.operators import subtract_sum

Function = Callable[[Tensor], Tensor]
WIDTH, SPACE = 8, 6


class Between(nn.Module):
    """A convolution, a function of its result, and a convolution that reads that."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.writer = nn.Conv2d(3, WIDTH, 3, padding=1)
        with torch.no_grad():
            shape = function(torch.rand(2, WIDTH, SPACE, SPACE)).shape
        self.reader = nn.Conv2d(shape[1], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reader(self.function(self.writer(x)))
        return y


def positive(function: Function) -> Function:
    """The function of numbers between 0 and 1."""
    return lambda x: function(torch.sigmoid(x))


def unpooled(x: Tensor) -> Tensor:
    """Max pooling, and back."""
    pooled = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(pooled[0], pooled[1], (2, 2))


PLACES = torch.rand(1, 4, 5, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
VOLUME = torch.rand(1, 1, 4, 5, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
FILTER = torch.rand(SPACE, SPACE // 2 + 1, generator=torch.Generator().manual_seed(0))

KEPT: dict[str, Function] = {
    "relu": F.relu,
    "relu_": lambda x: F.relu(x, inplace=True),
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "cos": torch.cos,
    "tanh, added to itself": lambda x: torch.tanh(x) + x,
    "sin, multiplied": lambda x: torch.sin(x) * x,
    "log": positive(torch.log),
    "sqrt": positive(torch.sqrt),
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "power": lambda x: x**3,
    "a number more": lambda x: 2 - x,
    "divided": lambda x: x / (1 + x.abs()),
    "maximum": lambda x: torch.maximum(x, -x),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "float and back": lambda x: x.to(torch.float64).to(x.dtype),
    "batch norm of its own": lambda x: F.batch_norm(x, None, None, training=True),
    "group norm, a group a channel": lambda x: F.group_norm(x, WIDTH),
    "softmax over space": lambda x: x.flatten(2).softmax(-1).unflatten(2, (SPACE, SPACE)),
    "layer norm over space": lambda x: F.layer_norm(x, (SPACE, SPACE)),
    "max pooling": lambda x: F.max_pool2d(x, 3, 2, 1),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "reflection": lambda x: F.pad(x, (1, 1, 1, 1), "reflect"),
    "ones around": lambda x: F.pad(x, (1, 0), value=1.0),
    "squeeze and excitation": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "chunk, gated": lambda x: x.chunk(2, 1)[0] * torch.sigmoid(x.chunk(2, 1)[1]),
    "glu": lambda x: F.glu(x, 1),
    "split, a part unused": lambda x: x.split([3, WIDTH - 3], 1)[1],
    "sliced": lambda x: x[:, 2:-1],
    "cat with itself": lambda x: torch.cat([x, F.relu(x)], 1),
    "stacked": lambda x: torch.stack([x, -x], 2).flatten(1, 2),
    "channel shuffle": lambda x: x.view(x.shape[0], 2, WIDTH // 2, SPACE, SPACE).transpose(1, 2).reshape(x.shape),
    "channels last and back": lambda x: F.relu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2),
    "zeros beside it": lambda x: torch.cat([x, x.new_zeros((x.shape[0], 2, SPACE, SPACE))], 1),
    "windows written out": lambda x: F.unfold(x, 3, padding=1).unflatten(2, (SPACE, SPACE)),
    "windows put together again": lambda x: F.fold(F.unfold(x, 2), SPACE, 2),
    "windows as views": lambda x: x.unfold(2, 3, 1).unfold(3, 3, 2).mean((4, 5)),
    "sampled at places": lambda x: F.grid_sample(x, torch.cat([PLACES, PLACES]), align_corners=False),
    "sampled nearest, in three dimensions": lambda x: F.grid_sample(
        x.unsqueeze(2), torch.cat([VOLUME, VOLUME]), "nearest", "border", align_corners=True
    ).squeeze(2),
    "max pooling undone": lambda x: unpooled(x),
    "frequencies": lambda x: torch.fft.rfft2(x, norm="ortho").abs(),
    "frequencies filtered": lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * FILTER, s=(SPACE, SPACE)),
    "differences of neighbours": lambda x: x.diff(dim=3, append=x[..., :1]),
    "the largest of each row": lambda x: x.topk(3, dim=3)[0],
    "the second smallest of each column": lambda x: x.kthvalue(2, dim=2, keepdim=True)[0],
    "lower triangles": lambda x: x.tril() + x.diagonal(dim1=2, dim2=3).diag_embed(),
    "tiled": lambda x: x.tile(2, 1),
    "broadcast": lambda x: torch.broadcast_tensors(x, x.mean((2, 3), keepdim=True))[1],
    "logarithms of determinants": lambda x: torch.linalg.slogdet(x @ x.mT + torch.eye(SPACE))[1][..., None, None],
    "distances of rows": lambda x: torch.cdist(x, x.roll(1, 0)),
    "all channels of a slice": lambda x: x[:, :WIDTH, 1:],
    "sizes in a tuple": lambda x: x.view(x.size()[:1] + (2, WIDTH // 2) + x.size()[2:]).flatten(1, 2),  # noqa: RUF005  as users write it
    "mean over channels": lambda x: x - x.mean(1, keepdim=True),
    "spread over channels": lambda x: x / (1 + x.std(1, keepdim=True)),
    "channels of length one": lambda x: F.normalize(x, dim=1),
    "gram matrix": lambda x: torch.einsum("nchw,ndhw->ncd", x, x).unsqueeze(-1).sum(2, keepdim=True) * x,
}
"""Functions of (n, WIDTH, SPACE, SPACE) through which the channels can grow."""

BY_COPIES: dict[str, Function] = {
    "softmax over channels": lambda x: x.softmax(1),
    "layer norm over all": lambda x: F.layer_norm(x, (WIDTH, SPACE, SPACE)),
    "layer norm over channels": lambda x: F.layer_norm(x.movedim(1, 3), (WIDTH,)).movedim(3, 1),
    "one group": lambda x: F.group_norm(x, 1),
    "softmax, gated": lambda x: x.softmax(1) * torch.sigmoid(x),
}
"""Functions that mix the channels, so that they grow only if every one is copied equally often."""

STOPPED: dict[str, tuple[Function, Kind]] = {
    "softmax over channels and numbers": (lambda x: F.pad(x, (0, 0, 0, 0, 0, 1)).softmax(1), Kind.SOFTMAX),
    "log_softmax over channels": (lambda x: x.log_softmax(1), Kind.SOFTMAX),
    "place of the maximum": (lambda x: x * x.max(1, keepdim=True).indices, Kind.STATISTIC),
    "flipped": (lambda x: x.flip(1), Kind.INDEX),
    "every other channel": (lambda x: x[:, ::2], Kind.INDEX),
    "local response": (lambda x: F.local_response_norm(x, 3), Kind.WINDOW),
    "chosen by number": (lambda x: x[:, [0, 2, 1]], Kind.INDEX),
    "Fourier transform": (lambda x: torch.fft.fft(x, dim=1).real, Kind.STATISTIC),
    "a custom operator": (lambda x: subtract_sum(x, 1), Kind.UNKNOWN_OP),
}


def model(function: Function) -> nn.Module:
    """The network, with weights that do not depend on what ran before."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return Between(function).eval()


INPUT = torch.zeros(2, 3, SPACE, SPACE)


@pytest.mark.parametrize("name", KEPT)
def test_the_function_is_kept(name: str) -> None:
    before = fxgrow.trace(model(KEPT[name]), (INPUT,))
    after = fxgrow.widen(before, node="writer", factor=2)
    certificate = fxgrow.verify(before, after, training=False)
    assert certificate.held, str(certificate)
    assert after.get_parameter("writer.weight").shape[0] == 2 * WIDTH


@pytest.mark.parametrize("name", BY_COPIES)
def test_the_function_is_kept_by_equally_many_copies_only(name: str) -> None:
    before = fxgrow.trace(model(BY_COPIES[name]), (INPUT,))
    plan = fxgrow.plan_widen(before, "writer", factor=2)
    assert "scheme net2net, because r2r cannot" in plan.notes[0]
    certificate = fxgrow.verify(before, fxgrow.apply(plan, before))
    assert certificate.held, str(certificate)
    with pytest.raises(GrowthRefused, match="two or three times the width: copies of every unit"):
        fxgrow.widen(before, node="writer", factor=1.5)


@pytest.mark.parametrize("factor", [1.5, 2])
def test_extrema_over_channels_stay_however_often_each_is_copied(factor: float) -> None:
    before = fxgrow.trace(model(lambda x: x - x.amax(1, keepdim=True) * x.min(1, keepdim=True)[0]), (INPUT,))
    plan = fxgrow.plan_widen(before, "writer", factor=factor)
    assert "scheme net2net, because r2r cannot" in plan.notes[0]
    assert fxgrow.verify(before, fxgrow.apply(plan, before)).held


@pytest.mark.parametrize("name", STOPPED)
def test_the_growth_is_refused_by_name(name: str) -> None:
    function, kind = STOPPED[name]
    before = fxgrow.trace(model(function), (INPUT,))
    with pytest.raises(GrowthRefused) as refusal:
        fxgrow.widen(before, node="writer", factor=2)
    assert refusal.value.kind is kind
