"""Plans of many kinds, and every way to change one field of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxgrow
from fxgrow.models_zoo import ResNet
from fxgrow.schemes import State

Where = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model with a plan for it."""

    model: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Tensor, ...]]
    plan: Callable[[Any], fxgrow.Plan]


class Attention(nn.Module):
    """Queries, keys and values in one weight, and a stream with layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(5, 8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, t, 3, 2, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, -1)
        found: Tensor = self.head(x + self.out(y))
        return found


class Packed(nn.Module):
    """torch's attention layer, which must be written out where its heads are to grow."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.mix, self.head = nn.Linear(5, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        found: Tensor = self.head(x + self.mix(x, x, x, need_weights=False)[0])
        return found


class Statistics(nn.Module):
    """Sizes that are written out, a mean over the units, a padding row."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8, padding_idx=2)
        self.fc, self.head = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        y = self.fc(x).reshape(2, 4, 12)
        found: Tensor = self.head(y * (x.mean(-1, keepdim=True) + x.var(-1, keepdim=True)))
        return found


def conv() -> nn.Module:
    """Convolutions, a norm, and a classifier."""
    entry = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()
    return nn.Sequential(*entry, nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(36, 2))


def mlp() -> nn.Module:
    """Linear layers."""
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def numbers(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    """An input of a shape."""
    return lambda: (torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),)


def words() -> tuple[Tensor, ...]:
    """Numbers of words."""
    return (torch.tensor([[0, 1, 2, 3], [6, 5, 4, 3]]),)


SUBJECTS: dict[str, Subject] = {
    "convolution": Subject(conv, numbers(2, 3, 5, 5), lambda m: fxgrow.plan_widen(m, "0", to=9)),
    "copies": Subject(conv, numbers(2, 3, 5, 5), lambda m: fxgrow.plan_widen(m, "0", to=9, scheme="net2net")),
    "zeros": Subject(mlp, numbers(4, 5), lambda m: fxgrow.plan_widen(m, ["0", "2"], scheme="zero")),
    "heads": Subject(Attention, numbers(2, 4, 5), lambda m: fxgrow.plan_widen(m, "qkv", grow="groups")),
    "head width": Subject(Attention, numbers(2, 4, 5), lambda m: fxgrow.plan_widen(m, "qkv")),
    "means": Subject(Attention, numbers(2, 4, 5), lambda m: fxgrow.plan_widen(m, "up", scheme="mean")),
    "even copies": Subject(Attention, numbers(2, 4, 5), lambda m: fxgrow.plan_widen(m, "up", scheme="net2net")),
    "written out": Subject(Packed, numbers(2, 4, 5), lambda m: fxgrow.plan_widen(m, "mix.in_proj_weight")),
    "statistics": Subject(Statistics, words, lambda m: fxgrow.plan_widen(m, "table")),
    "padded skips": Subject(
        ResNet, numbers(2, 1, 8, 8), lambda m: fxgrow.plan_widen(m, "layer2.conv2", skip="reshape")
    ),
    "skips with a layer": Subject(
        ResNet, numbers(2, 1, 8, 8), lambda m: fxgrow.plan_widen(m, "layer2.conv2", skip="reshape", adapter="conv")
    ),
    "halves": Subject(ResNet, numbers(2, 1, 8, 8), lambda m: fxgrow.plan_deepen(m, "layer2")),
    "bottleneck of zeros": Subject(
        ResNet, numbers(2, 1, 8, 8), lambda m: fxgrow.plan_deepen(m, "layer2", block="bottleneck", scheme="zero")
    ),
    "transformer": Subject(Attention, numbers(2, 4, 5), lambda m: fxgrow.plan_deepen(m, "up")),
    "clone": Subject(ResNet, numbers(2, 1, 8, 8), lambda m: fxgrow.plan_deepen(m, "layer2", block="clone")),
    "identity": Subject(mlp, numbers(4, 5), lambda m: fxgrow.plan_deepen(m, "3", scheme="net2net")),
    "factor": Subject(
        conv, numbers(2, 3, 5, 5), lambda m: fxgrow.plan_deepen(m, "3", scheme="morphism", kernel=3, hidden=8, count=2)
    ),
    "both": Subject(conv, numbers(2, 3, 5, 5), lambda m: fxgrow.plan_grow(m, widen={"0": 1.5}, deepen={"2": "basic"})),
}


def changes(plan: fxgrow.Plan) -> Iterator[tuple[Where, Any]]:
    """Every place in a plan with another value for it."""
    yield from _changes(plan, ())


def _changes(thing: Any, where: Where) -> Iterator[tuple[Where, Any]]:
    if is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from _changes(getattr(thing, field.name), (*where, field.name))
    elif isinstance(thing, tuple | list):
        yield from ((where, other) for other in _rows(tuple(thing)))
        for k, item in enumerate(thing):
            yield from _changes(item, (*where, k))
    else:
        yield from ((where, other) for other in _others(thing) if other is not thing and repr(other) != repr(thing))


def _rows(row: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if row:
        yield row[1:]
        yield row[:-1]
        yield (*row, row[-1])
        yield (row[0], *row)
    if len(row) > 1 and row[0] != row[-1]:
        yield (row[-1], *row[1:-1], row[0])
    if not row or isinstance(row[0], int):
        yield (*row, 0)
        yield (*row, 1)


def rows(plan: fxgrow.Plan) -> Iterator[tuple[Where, tuple[Any, ...]]]:
    """Every field of a plan that holds a row of any length which is not empty, and where it is."""
    yield from _all_rows(plan, ())


def _all_rows(thing: Any, where: Where) -> Iterator[tuple[Where, tuple[Any, ...]]]:
    if is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from _all_rows(getattr(thing, field.name), (*where, field.name))
    elif isinstance(thing, tuple | list):
        if thing and isinstance(where[-1], str):
            yield where, tuple(thing)
        for k, item in enumerate(thing):
            yield from _all_rows(item, (*where, k))


def _others(value: Any) -> Iterator[Any]:
    states = [state.value for state in State]
    if value in states:
        yield from (state for state in states if state != value)
    elif isinstance(value, bool):
        yield from (not value, int(value))
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value + 2, 0, -value - 1, float(value))
    elif isinstance(value, float):
        yield from (value * 2 + 1, -value - 1, value + 1e-9, 0.0, 1.0)
    elif isinstance(value, str):
        yield from ("", f"{value}_1", "x", "1", "0.weight", "weights", "units", "keep", "draw", "zero", "identity")
        yield from ("ReLU", "GELU", "Sigmoid", "Identity", "Conv2d", "operator.sub", "operator.mul", "pad", "conv")
    elif value is None:
        yield from (0, 1.5)


def changed(thing: Any, where: Where, value: Any) -> Any:
    """The same plan with another value at a place."""
    if not where:
        return value
    key, *rest = where
    if isinstance(key, str):
        return replace(thing, **{key: changed(getattr(thing, key), tuple(rest), value)})
    items = [changed(item, tuple(rest), value) if k == key else item for k, item in enumerate(thing)]
    return tuple(items)


def outputs(model: nn.Module, inputs: tuple[Tensor, ...], training: bool) -> Tensor:
    """What a copy of a model returns in a mode."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        found: Tensor = copy.deepcopy(model).train(training)(*inputs)
    return found
