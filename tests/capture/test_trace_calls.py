"""Several calls in a row, writes that happen for real while a model is traced, and names that torch.fx uses itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

import fxgrow

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
COUNT = torch.zeros(3)
TIMES = 0


class Net(nn.Module):
    """Two layers, and what a test has done to the features between them."""

    def __init__(self, between: Callable[[Any, Tensor], Any] = lambda net, y: y) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)
        self.between = between
        self.kept: Any = None
        self.log: list[Tensor] = []
        self.calls = 0
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.between(self, torch.relu(self.a(x))))
        return y


class Teacher(Net):
    """A second layer that follows the first in training mode, as it is reached by `parameters()`."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Linear(5, 8).double().requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        COUNT.add_(1)
        if self.training:
            with torch.no_grad():
                for mine, other in zip(self.t.parameters(), self.a.parameters(), strict=True):
                    mine.mul_(0.9).add_(other, alpha=0.1)
        y: Tensor = self.b(torch.relu(self.a(x)) + torch.relu(self.t(x)))
        return y


@pytest.mark.parametrize("training", [False, True])
def test_parameters_and_tensors_elsewhere_that_forward_writes_to_are_what_they_were(training: bool) -> None:
    COUNT.zero_()
    model = Teacher().train(training)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    if training:  # torch.fx does not see these writes
        with pytest.raises(fxgrow.UsageError, match="does not run what the module runs"):
            fxgrow.trace(model, (X,))
    else:
        fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    assert not COUNT.any()


class Counted(Net):
    """It counts its calls in the class, and in a global name."""

    calls_of_all = 0

    def forward(self, x: Tensor) -> Tensor:
        global TIMES
        TIMES += 1
        type(self).calls_of_all += 1
        return super().forward(x)


def test_class_attributes_and_global_names_are_bound_to_what_they_were() -> None:
    model = Counted()
    model(X)
    before = TIMES, Counted.calls_of_all
    fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    assert (TIMES, Counted.calls_of_all) == before


class Slots:
    """An object without a dict."""

    __slots__ = ("__own", "last", "unset")

    def __init__(self) -> None:
        self.last: Any = None
        self.__own: Any = None

    def put(self, y: Tensor) -> Tensor:
        self.last = self.__own = self.unset = y
        return y

    @property
    def all(self) -> list[Any]:
        return [self.last, self.__own, getattr(self, "unset", None)]


def test_objects_with_slots_and_deques_hold_no_stand_in_afterwards() -> None:
    slots, queue = Slots(), deque[Tensor](maxlen=2)

    def between(net: Any, y: Tensor) -> Any:
        queue.append(y)
        net.kept[0].append(y)
        net.kept[1].put(y)
        return slots.put(y)

    model = Net(between)
    model.kept = (deque([X]), Slots())
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    held = [*queue, *model.kept[0], *model.kept[1].all, *slots.all]
    assert not any(isinstance(thing, FakeTensor | torch.fx.Proxy) for thing in held)
    assert len(model.kept[0]) == 1
    assert not queue
    assert torch.allclose(model(X), grown(X), rtol=0, atol=1e-12)


def counts(net: Any, y: Tensor) -> Any:
    net.calls += 1
    return y * net.calls


def remembers(net: Any, y: Tensor) -> Any:
    before, net.kept = net.kept, y.detach().mean(0)
    return y if before is None else y + before


def collects(net: Any, y: Tensor) -> Any:
    for old in net.log:
        y = y + old
    net.log.append(y.detach().mean(0))
    return y


def starts_from_the_first_batch(net: Any, y: Tensor) -> Any:
    net.kept = y.detach().mean(0) if net.kept is None else net.kept
    return y - net.kept


@pytest.mark.parametrize("between", [counts, remembers, collects, starts_from_the_first_batch])
def test_a_model_that_does_something_else_when_it_is_called_again_is_refused(
    between: Callable[[Any, Tensor], Any],
) -> None:
    with pytest.raises(fxgrow.UsageError, match="when it is called again") as caught:
        fxgrow.trace(Net(between), (X,))
    assert caught.value.kind is fxgrow.Kind.NOT_TRACEABLE


def keeps_unread(net: Any, y: Tensor) -> Any:
    net.calls += 1
    net.log.append(y)
    net.kept = y
    return y


def keeps_a_table(net: Any, y: Tensor) -> Any:
    net.kept = torch.arange(1.0, dtype=y.dtype) + 2 if net.kept is None else net.kept
    return y * net.kept


@pytest.mark.parametrize("between", [keeps_unread, keeps_a_table])
def test_what_a_model_keeps_and_does_not_read_is_no_obstacle(between: Callable[[Any, Tensor], Any]) -> None:
    model = Net(between)
    grown = fxgrow.widen(fxgrow.trace(model, (X,)), "a")
    for scale in (1, 2, 3):
        assert torch.allclose(model(scale * X), grown(scale * X), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["code", "graph", "meta", "recompile", "shape_env"])
@pytest.mark.parametrize("kind", ["module", "buffer", "parameter"])
def test_names_of_graph_modules_are_refused_by_name(name: str, kind: str) -> None:
    def between(net: Any, y: Tensor) -> Any:
        thing = getattr(net, name)
        return thing(y) if kind == "module" else y * thing

    model = Net(between)
    if kind == "module":
        model.add_module(name, nn.Linear(8, 8).double())
    elif kind == "buffer":
        model.register_buffer(name, torch.ones(8))
    else:
        model.register_parameter(name, nn.Parameter(torch.ones(8)))
    with pytest.raises(fxgrow.UsageError, match=f"'{name}'") as caught:
        fxgrow.trace(model, (X,))
    assert caught.value.kind is fxgrow.Kind.UNSUPPORTED_MODEL


@pytest.mark.parametrize("name", ["self", "in", "torch", "a b"])
def test_a_module_may_be_called_like_something_in_the_code_and_like_the_beginning_of_another(name: str) -> None:
    model = nn.Sequential()
    for key, layer in {name: nn.Linear(5, 8), "relu": nn.ReLU(), f"{name}_proj": nn.Linear(8, 3)}.items():
        model.add_module(key, layer)
    model.double().eval()
    traced = fxgrow.trace(model, (X,))
    for grown in (fxgrow.widen(traced, name), fxgrow.deepen(traced, after=name)):
        assert torch.allclose(model(X), grown(X), rtol=0, atol=1e-12)


def test_no_block_is_made_for_the_height_of_an_image() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1)).double().eval()
    traced = fxgrow.trace(model, (torch.randn(3, 9, 7, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take") as caught:
        fxgrow.deepen(traced, after="0")
    assert caught.value.kind is fxgrow.Kind.NO_VALUE
    with_batch = fxgrow.trace(model, (torch.randn(1, 3, 9, 7, dtype=torch.float64),))
    grown = fxgrow.deepen(with_batch, after="0")
    image = torch.randn(1, 3, 6, 12, dtype=torch.float64)
    assert torch.allclose(model(image), grown(image), rtol=0, atol=1e-12)


def test_numbers_on_the_meta_device_are_not_compared() -> None:
    model = Net().to("meta")
    grown = fxgrow.widen(fxgrow.trace(model, (X.to("meta"),)), "a")
    assert grown.get_parameter("a.weight").shape == (16, 5)
    with pytest.raises(fxgrow.UsageError, match="no numbers") as caught:
        fxgrow.verify(model, grown)
    assert caught.value.kind is fxgrow.Kind.BAD_INPUTS
