"""Code that does something else with stand-ins for tensors, or that no operator shows: it is seen, or refused."""

from __future__ import annotations

import contextlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor

import fxgrow

X = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SAME = 1e-12
PLAIN, KINDS, BY_KIND = Tensor, (Tensor, nn.Parameter), {Tensor: True}


class Net(nn.Module):
    """Layers, and what a test does with them."""

    def __init__(self, body: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = body
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.parts = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
        self.register_buffer("scale", torch.tensor(0.5))
        self.double()

    def forward(self, x: Tensor) -> Any:
        return self.body(self, x)


@fx.wrap
def softer(y: Tensor) -> Tensor:
    """It looks at the class of what it gets."""
    return y.softmax(-1) if type(y) is Tensor else y * 2


@fx.wrap
def by_its_sum(y: Tensor) -> Tensor:
    """It goes on where it gets no value."""
    try:
        total = max(y.sum().item(), 1e-3)
    except Exception:
        total = 1.0
    return y / total


@fx.wrap
def by_an_array(y: Tensor) -> Tensor:
    """It asks NumPy."""
    try:
        total = max(float(y.detach().numpy().sum()), 1e-3)
    except Exception:
        total = 1.0
    return y / total


@fx.wrap
def by_history(y: Tensor) -> Tensor:
    """It looks at gradients."""
    return y.softmax(-1) if y.requires_grad else y * 2


@fx.wrap
def centred(y: Tensor) -> Tensor:
    """It gives a tensor other entries behind the back of torch."""
    y.data = y.data - y.data.mean(-1, keepdim=True)
    return y


def by_class(net: Any, x: Tensor) -> Any:
    return net.c(net.a(x * 2 if type(x) is Tensor else x))


def by_class_name(net: Any, x: Tensor) -> Any:
    return net.c(net.a(x * 2 if x.__class__.__name__ == "Tensor" else x))


def by_a_parameters_class(net: Any, x: Tensor) -> Any:
    return net.c(net.a(x * 2 if type(net.a.weight) is nn.Parameter else x))


def by_a_value(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    with contextlib.suppress(Exception):
        y = y / float(y.abs().max())
    return net.c(y)


def by_a_condition(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    try:
        larger = bool(y.abs().max() > 0)
    except (TypeError, RuntimeError, ValueError):
        larger = False
    return net.c(y * 2 if larger else y)


def by_gradient_mode(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    return net.c(F.relu(y) if torch.is_grad_enabled() else F.gelu(y))


def assigned(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    y.data = y.data * 2
    return net.c(y)


def assigned_input(net: Any, x: Tensor) -> Any:
    x.data = x.data / 2
    return net.c(net.a(x))


LOOKS: list[Callable[[Tensor], bool]] = [
    lambda x: type(x) is PLAIN,
    lambda x: type(x) in KINDS,
    lambda x: BY_KIND.get(type(x), False),
    lambda x: type(x).__module__ == "torch",
    lambda x: not isinstance(x, FakeTensor | fx.Proxy),
    lambda x: not hasattr(x, "fake_mode"),
    lambda x: repr(x).startswith("tensor"),
    lambda x: str(x).startswith("tensor"),
]
"""Ways to find out that a tensor is one."""


WRONG: list[Callable[[Any, Tensor], Any]] = [
    by_class,
    by_class_name,
    by_a_parameters_class,
    by_a_value,
    by_a_condition,
    by_gradient_mode,
    assigned,
    assigned_input,
    *(lambda net, x, look=look: net.c(net.a(x * 2 if look(x) else x)) for look in LOOKS),
    *(lambda net, x, f=f: net.c(f(F.relu(net.a(x)))) for f in (softer, by_its_sum, by_an_array, by_history, centred)),
]


@pytest.mark.parametrize("body", WRONG)
def test_what_stand_ins_do_not_show_is_refused(body: Callable[[Any, Tensor], Any]) -> None:
    net = Net(body).eval()
    with pytest.raises(fxgrow.UsageError, match=r"FXG00[67]") as caught:
        fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    assert caught.value.refusal.hint
    assert torch.equal(X, torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def unharmed(net: Any, x: Tensor) -> Any:
    y = torch.relu(net.a(x))
    if type(net) is Tensor:
        y = y * 2
    try:
        n = {"n": 1}["m"]
    except KeyError:
        n = 2
    return net.c(y * n)


def limited(net: Any, x: Tensor) -> Any:
    """A limit on the norm of weights, as networks for brain signals have it."""
    net.b.weight.data = net.b.weight.data.clamp(-0.2, 0.2)
    return net.c(net.b(torch.relu(net.a(x))))


def halved(net: Any, x: Tensor) -> Any:
    net.scale.data = net.scale.data * 0.5
    return net.c(torch.relu(net.a(x))) * net.scale


def sliced(net: Any, x: Tensor) -> Any:
    return net.c(net.parts[:2](x) + torch.relu(net.a(x)))


def made_on_the_way(net: Any, x: Tensor) -> Any:
    return net.c(nn.Sequential(net.a, nn.ReLU(), net.b)(x) + nn.GELU()(net.a(x)))


@pytest.mark.parametrize("body", [unharmed, limited, halved, sliced, made_on_the_way])
def test_what_can_be_followed_grows(body: Callable[[Any, Tensor], Any]) -> None:
    for training in (False, True):
        net, other = Net(body).train(training), Net(body).train(training)
        wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
        assert wider.get_parameter("a.weight").shape[0] == 16
        with torch.no_grad():
            for _ in range(3):
                assert torch.allclose(wider(X), other(X), rtol=SAME, atol=SAME)


class Rows(list[Any]):
    """A list of the user's."""


@pytest.mark.parametrize(
    "made",
    [
        lambda y: defaultdict(list, {"y": y}),
        lambda y: defaultdict(dict, {"y": {"z": y}}),
        lambda y: Rows([y, y + 1]),
        lambda y: Counter({"y": y}),
        lambda y: OrderedDict(y=y),
        lambda y: {"y": (y, [y])},
    ],
)
def test_containers_of_outputs_keep_their_classes(made: Callable[[Tensor], Any]) -> None:
    net = Net(lambda net, x: made(net.c(torch.relu(net.a(x)))))
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    ours, theirs = net(X), wider(X)
    assert type(ours) is type(theirs)
    assert getattr(ours, "default_factory", None) is getattr(theirs, "default_factory", None)
    assert fxgrow.verify(net, wider)


def test_a_default_of_the_users_is_refused() -> None:
    net = Net(lambda net, x: defaultdict(lambda: 1, {"y": net.c(net.a(x))}))
    with pytest.raises(fxgrow.UsageError, match="FXG007"):
        fxgrow.trace(net, (X,))


def tag() -> None:
    """A function with an attribute."""


tag.calls = 0  # type: ignore[attr-defined]  # the test's own


def test_counters_in_closures_and_on_functions_stay() -> None:
    calls = 0

    class Logs(nn.Module):
        log: list[int] = []  # noqa: RUF012  # what users do

        def __init__(self) -> None:
            super().__init__()
            self.a, self.c = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            tag.calls += 1  # type: ignore[attr-defined]  # the test's own
            self.log.append(1)
            y: Tensor = self.c(torch.relu(self.a(x)))
            return y

    net = Logs().double()
    wider = fxgrow.widen(fxgrow.trace(net, (X,)), "a")
    assert fxgrow.verify(net, wider)
    assert (calls, tag.calls, net.log) == (0, 0, [])  # type: ignore[attr-defined]  # the test's own


def test_numbers_in_the_default_dtype_are_compared_as_the_graph_has_them() -> None:
    net = Net(lambda net, x: net.c(torch.relu(net.a(x))) / torch.tensor(3.0) + torch.linspace(0, 1, 3))
    assert fxgrow.verify(net, fxgrow.widen(fxgrow.trace(net, (X,)), "a"))
