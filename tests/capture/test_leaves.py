"""What a trace keeps whole: what a user names, and where nothing else serves what timm and torchvision name."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import pytest
import timm.layers._fx
import torch
import torchvision.ops
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import Kind, UsageError
from fxgrow.capture.tracing.leaves import leaves_of, modules_of

from ..untouched import expect

X = torch.randn(3, 4)


class Tiny(nn.Module):
    """A layer that torch.fx can look into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.relu(self.inner(x))
        return y


class Reading(Tiny):
    """A layer that reads a value, so that torch.fx cannot."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y if y.sum() > 0 else torch.relu(y)


def halved(x: Tensor) -> Tensor:
    """A function that torch.fx can look into."""
    return x / 2


def counted(x: Tensor) -> Tensor:
    """A function that reads a value, so that torch.fx cannot."""
    return x / (1 + len(x.nonzero()))


class Net(nn.Module):
    """Two layers around a module."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.a, self.inside, self.b = nn.Linear(4, 4), inside, nn.Linear(4, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.inside(self.a(x)))
        return y


class Halves(nn.Module):
    """Calls the first function."""

    def forward(self, x: Tensor) -> Tensor:
        return halved(x)


class Counts(nn.Module):
    """Calls the second one."""

    def forward(self, x: Tensor) -> Tensor:
        return counted(halved(x))


def targets(traced: fx.GraphModule) -> list[Any]:
    """What the calls of a graph call."""
    return [node.target for node in traced.graph.nodes if node.op.startswith("call_")]


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """timm's lists, which name the modules and functions above and nothing else."""
    monkeypatch.setattr(timm.layers._fx, "_leaf_modules", {Tiny, Reading})
    monkeypatch.setattr(timm.layers._fx, "_autowrap_functions", {halved, counted})
    return timm.layers._fx


def test_modules_that_timm_names_are_kept_whole_where_nothing_else_serves(lists: ModuleType) -> None:
    net = Net(Reading())
    traced = fxgrow.trace(net, (X,))
    assert targets(traced) == ["a", "inside", "b"]
    for x in (X, -X, torch.randn(5, 4)):
        torch.testing.assert_close(traced(x), net(x))
    lists._leaf_modules.clear()
    with pytest.raises(UsageError, match="FXG007"):
        fxgrow.trace(net, (X,))


def test_functions_that_timm_names_are_kept_whole_where_nothing_else_serves(lists: ModuleType) -> None:
    net = Net(Counts())
    traced = fxgrow.trace(net, (X,))
    assert counted in targets(traced)
    for x in (X, torch.zeros(2, 4), torch.randn(5, 4)):
        torch.testing.assert_close(traced(x), net(x))
    lists._autowrap_functions.clear()
    with pytest.raises(UsageError, match="FXG007"):
        fxgrow.trace(net, (X,))


@pytest.mark.parametrize(("kind", "leaf"), [(Tiny, "inside"), (Halves, halved)])
@pytest.mark.usefixtures("lists")
def test_what_timm_names_is_looked_into_where_that_serves(kind: type[nn.Module], leaf: Any) -> None:
    traced = fxgrow.trace(Net(kind()), (X,))
    assert leaf not in targets(traced)
    if kind is Tiny:
        fxgrow.widen(traced, "inside.inner")
        assert fxgrow.inspect(traced)


@pytest.mark.usefixtures("lists")
def test_where_nothing_serves_the_first_error_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reading = Reading()

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                x = -x
            return counted(self.reading(x))

    with pytest.raises(UsageError, match=re.escape("in forward:  if x.sum() > 0:")):
        fxgrow.trace(Net(Both()), (X,))


class Boxes(nn.Module):
    """Detections, by a function of torchvision's that looks at numbers of boxes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        boxes: Tensor = self.b(torch.relu(self.a(x)))
        kept: Tensor = torchvision.ops.batched_nms(boxes, x[:, 0], x[:, 1].long(), 0.5)
        return kept


def test_operators_of_torchvision_are_kept_whole_where_nothing_else_serves() -> None:
    net = Boxes().eval()
    assert torchvision.ops.batched_nms not in targets(fxgrow.trace(net, (X,)))
    traced = fxgrow.trace(net)  # without inputs that say how many boxes there are
    assert torchvision.ops.batched_nms in targets(traced)
    assert torch.equal(traced(X), net(X))


def test_layers_of_torchvision_are_kept_whole_where_nothing_else_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.ops, "Reading", Reading, raising=False)
    with pytest.raises(UsageError, match="FXG007"):
        fxgrow.trace(Net(Reading()), (X,))
    monkeypatch.setattr(torchvision.ops, "__all__", [*torchvision.ops.__all__, "Reading"])
    assert targets(fxgrow.trace(Net(Reading()), (X,))) == ["a", "inside", "b"]


def test_functions_are_found_in_the_packages_that_offer_them() -> None:
    names = [module.__name__ for module in modules_of([torchvision.ops.nms, halved])]
    assert names == ["torchvision.ops.boxes", "torchvision.ops", __name__]


# -- what a user names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaf", ["inside", ["inside"], ("inside", nn.Linear), {"inside"}])
def test_a_path_names_a_leaf(leaf: Any) -> None:
    net = Net(Reading())
    traced = fxgrow.trace(net, (X,), leaf=leaf)
    assert targets(traced) == ["a", "inside", "b"]
    torch.testing.assert_close(fxgrow.trace(net, (X,), leaf=net.inside)(X), traced(X))


def test_a_path_names_a_module_inside() -> None:
    net = Net(nn.Sequential(Reading(), nn.ReLU()))
    assert targets(fxgrow.trace(net, (X,), leaf="inside.0")) == ["a", "inside.0", "inside.1", "b"]


def test_a_shared_module_is_a_leaf_by_all_its_paths() -> None:
    net = Net(Tiny())
    net.again = net.inside
    assert leaves_of(net, "again").paths == leaves_of(net, net.inside).paths == {"inside", "again"}


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("insides", "did you mean inside, inside.inner?"),
        ("inside.iner", "did you mean inside.inner, inside?"),
        ("zzz", "modules are a, inside, inside.inner, b"),
        ("", "the model itself cannot be kept whole"),
    ],
)
def test_an_unknown_path_is_one_error_that_names_like_ones(path: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        fxgrow.trace(Net(Tiny()), (X,), leaf=path)
    expect(caught.value, Kind.BAD_OPTION, (f"leaf={path!r}: no module inside Net has this path", hint))
