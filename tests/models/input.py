"""Models whose inputs and outputs are containers, numbers and texts: one `forward` each, on the same two layers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.containers import found


@dataclass
class Output:
    """What some models return."""

    logits: Any
    hidden: Any = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What some models take; it cannot be assigned to."""

    x: Tensor
    scale: float = 1.0
    rest: tuple[Tensor, ...] = ()


class Pair(NamedTuple):
    """A named tuple of tensors."""

    x: Any
    y: Any


class ModelOutput(OrderedDict):  # type: ignore[type-arg]  # as in transformers, whose class this follows
    """A dict whose entries are attributes, too, and whose entries that are None are none."""

    def __post_init__(self) -> None:
        for f in fields(self):  # type: ignore[arg-type]  # its subclasses are dataclasses
            if getattr(self, f.name) is not None:
                self[f.name] = getattr(self, f.name)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]  # as above


@dataclass
class Classified(ModelOutput):
    """A ModelOutput of two entries."""

    logits: Any = None
    hidden: Any = None


class Net(nn.Module):
    """Two layers; what `forward` does is given."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.a(x))


def net(forward: Callable[..., Any]) -> nn.Module:
    """A model with that `forward`, in float64."""
    torch.manual_seed(0)
    made: nn.Module = type("Net", (Net,), {"forward": forward})().double()
    return made.eval()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y, M = normal(3, 4), normal(3, 4, seed=2), normal(3, 1, seed=3)


def same(before: Any, after: Any) -> bool:
    """Whether two results are of one class, and their tensors equal but for rounding."""
    a, b = found(before, Tensor), found(after, Tensor)
    close = len(a) == len(b) and all(torch.allclose(x, y, rtol=0, atol=1e-11) for x, y in zip(a, b, strict=True))
    return close and type(before) is type(after)


def grown(model: nn.Module, *args: Any, **kwargs: Any) -> fx.GraphModule:
    """A model traced on one call and widened, which is to need no second telling of the inputs."""
    traced = fxgrow.trace(model, args, example_kwargs=kwargs)
    assert same(model(*args, **kwargs), traced(*args, **kwargs))
    return fxgrow.widen(traced, "a", verify=True)
