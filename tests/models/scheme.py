"""Small networks, each with one reason why schemes differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tied import WIDTH, WORDS, Thrice, Tied, TwiceRead
from .weight import Monotone, Pairs

BATCH, TOKENS = 3, 5


class ConvBnRelu(nn.Module):
    """Two convolutions around a batch norm and a rectifier."""

    def __init__(self, groups: int = 1) -> None:
        super().__init__()
        self.writer, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.reader = nn.Conv2d(8, 4, 3, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reader(F.relu(self.norm(self.writer(x))))
        return y


class Residual(nn.Module):
    """A block with a skip path around two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.first = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.norm, self.last, self.head = nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.writer(x))
        y: Tensor = self.head(F.relu(x + self.last(F.relu(self.norm(self.first(x))))))
        return y


class Cat(nn.Module):
    """Two volumes side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.other, self.reader = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(9, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reader(F.gelu(torch.cat([self.writer(x), self.other(x)], 1)))
        return y


class Gated(nn.Module):
    """One half of a layer's units gates the other, in pieces or by glu."""

    def __init__(self, *, pieces: bool) -> None:
        super().__init__()
        self.writer, self.reader, self.pieces = nn.Linear(6, 8), nn.Linear(4, 3), pieces

    def forward(self, x: Tensor) -> Tensor:
        y = self.writer(x)
        if self.pieces:
            value, gate = y.chunk(2, -1)
            y = value * torch.sigmoid(gate)
        else:
            y = F.glu(y, -1)
        z: Tensor = self.reader(y)
        return z


class Packed(nn.Module):
    """Attention whose queries, keys and values come from one layer, (3 h d)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 2, WIDTH // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        z: Tensor = self.out(y.transpose(1, 2).reshape(b, t, WIDTH))
        return z


class Grouped(nn.Module):
    """Attention in which a head of keys and values serves two of queries."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, h, 4).transpose(1, 2) for y, h in ((self.q(x), 4), (self.k(x), 2), (self.v(x), 2)))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        z: Tensor = self.out(y.transpose(1, 2).reshape(b, t, 16))
        return z


class Between(nn.Module):
    """Two layers and a function between them."""

    def __init__(self, function: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.writer, self.reader = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.scale, self.shift = nn.Parameter(torch.rand(WIDTH) + 0.5), nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.reader(self.function(self, self.writer(x)))
        return y


def layer_norm(model: Between, x: Tensor) -> Tensor:
    """A norm with the default epsilon."""
    return F.layer_norm(x, x.shape[-1:], model.scale, model.shift)


def shared_scale(model: Between, x: Tensor) -> Tensor:
    """The scale of a norm is also a parameter of something else."""
    return F.rms_norm(x, x.shape[-1:], model.scale, 1e-5) * model.scale


def made_scale(model: Between, x: Tensor) -> Tensor:
    """The scale of a norm is computed."""
    return F.rms_norm(x, x.shape[-1:], 1 + model.scale, 1e-5)


def small_rms(model: Between, x: Tensor) -> Tensor:
    """A norm whose epsilon is that of the dtype, of numbers so small that it counts."""
    return F.rms_norm(x * 1e-8, x.shape[-1:], model.scale)


@dataclass(frozen=True)
class Net:
    """A network, its input, which layer is widened, and what each scheme says that refuses it."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (BATCH, 6)
    node: str = "writer"
    refused: tuple[tuple[str, str], ...] = ()

    @property
    def refusals(self) -> dict[str, str]:
        """By scheme: part of what it says."""
        return dict(self.refused)

    def made(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The model, trained a little so that no statistic and no scale is what it was at the start."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            model = self.build()
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.3 * torch.randn(p.shape))
                for _ in range(3):
                    model(self.input(torch.float32))
            return model.to(dtype)

    def input(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Data of its shape; a shape of no floats means words."""
        random = torch.Generator().manual_seed(1)
        if self.shape == (BATCH, TOKENS):
            return torch.randint(0, WORDS, self.shape, generator=random)
        return torch.randn(self.shape, generator=random).to(dtype)


MIXED, SOFTMAX = "reach a normalisation that mixes them", "reach a softmax over the whole axis"
IMAGE, SEQUENCE, TEXT = (BATCH, 3, 6, 6), (BATCH, TOKENS, 6), (BATCH, TOKENS)
NETS: dict[str, Net] = {
    "convolutions": Net(ConvBnRelu, IMAGE),
    "grouped convolution": Net(lambda: ConvBnRelu(groups=2), IMAGE),
    "residual": Net(Residual, IMAGE),
    "concatenation": Net(Cat, IMAGE),
    "chunks": Net(lambda: Gated(pieces=True)),
    "glu": Net(lambda: Gated(pieces=False)),
    "a map of two volumes": Net(lambda: Pairs(one=False)),
    "its second volume": Net(lambda: Pairs(one=False), node="other"),
    "its results": Net(lambda: Pairs(one=False), node="pairs"),
    "a map of a volume and itself": Net(lambda: Pairs(one=True)),
    "packed attention": Net(Packed, (BATCH, TOKENS, WIDTH), "qkv"),
    "grouped attention": Net(Grouped, SEQUENCE, "q"),
    "weights that are never negative": Net(
        lambda: Monotone(torch.relu),
        refused=(("r2r", "nothing can cancel them"), *((s, "get no gradient") for s in ("zero", "morphism", "mean"))),
    ),
    "weights of which the larger counts": Net(
        lambda: Monotone(lambda w: torch.maximum(w, -w / 2)),
        refused=(("r2r", "nothing can cancel them"), *((s, "get no gradient") for s in ("zero", "morphism", "mean"))),
    ),
    "tied, layer norm": Net(
        lambda: Tied(nn.LayerNorm), TEXT, "words", (("r2r", MIXED), ("morphism", MIXED), ("zero", MIXED))
    ),
    "tied, rms norm": Net(lambda: Tied(lambda n: nn.RMSNorm(n, eps=1e-5)), TEXT, "words", (("r2r", MIXED),)),
    "tied, rms norm of the dtype": Net(lambda: Tied(nn.RMSNorm), TEXT, "words", (("r2r", MIXED),)),
    "tied, read behind its norm and as it is": Net(
        lambda: Thrice(lambda n: nn.RMSNorm(n, eps=1e-5)),
        TEXT,
        "words",
        (("r2r", MIXED), ("net2net", "zero and split")),
    ),
    "tied, no norm": Net(lambda: Tied(nn.Identity), TEXT, "words"),
    "tied, read by a layer and by itself": Net(
        TwiceRead, TEXT, "words", (("r2r", "nothing can cancel them"), ("net2net", "nothing can cancel them"))
    ),
    "functional layer norm": Net(
        lambda: Between(layer_norm), refused=(("r2r", MIXED), ("morphism", MIXED), ("zero", MIXED))
    ),
    "rms norm of the dtype, told by position": Net(
        lambda: Between(lambda model, x: torch.rms_norm(x * 1e-3, x.shape[-1:], model.scale, None)),
        refused=(("r2r", MIXED),),
    ),
    "rms norm of small numbers": Net(lambda: Between(small_rms), refused=(("r2r", MIXED),)),
    "softmax": Net(
        lambda: Between(lambda _, x: x.softmax(-1)),
        refused=(("r2r", SOFTMAX), ("morphism", SOFTMAX), ("zero", SOFTMAX), ("mean", SOFTMAX)),
    ),
    "scale used twice": Net(
        lambda: Between(shared_scale),
        refused=(("r2r", MIXED), *((s, "uses the scale of a normalisation") for s in ("morphism", "zero", "mean"))),
    ),
    "computed scale": Net(
        lambda: Between(made_scale),
        refused=(("r2r", MIXED), *((s, "no scale parameter") for s in ("morphism", "zero", "mean"))),
    ),
}
"""Networks by what is special about them."""
