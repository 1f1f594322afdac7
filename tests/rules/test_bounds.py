"""Bounds of values, and identity layers whose non-linearity they leave nothing to do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.ops
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxgrow
from fxgrow.api.analyses import analysis_of
from fxgrow.bounds.bounds import bounds_of
from fxgrow.capture.inputs.call import as_call, placeholders, spread
from fxgrow.capture.program.program import Value
from fxgrow.capture.traced_model.interpreter import Interpreter
from fxgrow.capture.traced_model.other_modes import modes_of
from fxgrow.testing.fuzzing.choose import Seeded
from fxgrow.testing.fuzzing.draw import draw_sketch
from fxgrow.testing.fuzzing.pairs import subject
from fxgrow.testing.fuzzing.running import probes

from ..insertion.deepened import EXACT, apart

INF = math.inf
StochasticDepth: Any = torchvision.ops.StochasticDepth


class Net(nn.Module):
    """A function of the result of a layer, with a name, and another layer behind it."""

    def __init__(self, function: Callable[[Tensor], Tensor], activation: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(4)
        self.act, self.function = activation or nn.ReLU(), function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.function(self.act(self.first(x))) * 1)
        return y


def traced(function: Callable[[Tensor], Tensor], activation: nn.Module | None = None) -> tuple[fx.GraphModule, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(5, 3, 8, 8, dtype=torch.float64)
    return fxgrow.trace(Net(function, activation).double().eval(), (x,)), x


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda x: F.avg_pool2d(x, 2), 0, INF),
        (lambda x: F.avg_pool2d(x + 1, 2, padding=1), 0, INF),
        (lambda x: x.mean((2, 3), keepdim=True), 0, INF),
        (lambda x: F.adaptive_avg_pool2d(x, 2) + 0.5, 0.5, INF),
        (lambda x: x + x.sigmoid(), 0.5, INF),
        (lambda x: x * x.softmax(1), 0, INF),
        (lambda x: torch.cat([x[:, :2], x[:, 2:].tanh()], 1), 0, INF),
        (lambda x: 3 - x, -INF, 3),
        (lambda x: 1 - 2 * x.tanh(), -1, 1),
        (lambda x: x - x.mean(), -INF, INF),
        (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 0, INF),
        (lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"), -INF, INF),
        (lambda x: F.pad(x, (1, 1)), 0, INF),
        (lambda x: F.pad(x, (1, 1), value=-2.0), -2, INF),
        (lambda x: F.dropout((x - 1).sigmoid(), 0.5), 0, 2),
        (lambda x: (x - 1) * (x - 1), -INF, INF),
        (lambda x: (x - 1).square(), 0, INF),
        (lambda x: x.clamp(-1, 2).neg(), -INF, INF),
        (lambda x: x.exp(), 1, INF),
        (lambda x: F.leaky_relu(x), 0, INF),
        (lambda x: F.leaky_relu(x - 1), -INF, INF),
        (lambda x: x + INF, -INF, INF),
    ],
)
def test_bounds(function: Callable[[Tensor], Tensor], low: float, high: float) -> None:
    gm, _ = traced(function)
    program = analysis_of(gm).program
    last = next(op for op in program.ops if op.node == "last")
    before = next(op for op in program.ops if last.args["input"] in op.outputs)  # `* 1`, which keeps bounds
    assert bounds_of(program, before.args["self"]) == (low, high)


def test_a_square_is_not_negative() -> None:
    class Square(nn.Module):
        """x * x of one tensor, and of two."""

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return x * x, x * y

    gm = fxgrow.trace(Square(), (torch.randn(2, 3), torch.randn(2, 3)))
    program = analysis_of(gm).program
    assert [bounds_of(program, out) for out in program.outputs] == [(0, INF), (-INF, INF)]


def test_no_value_of_a_drawn_model_is_out_of_bounds() -> None:
    known = 0
    for number in range(90):
        one = subject(draw_sketch(Seeded((11, number))))
        program = analysis_of(one.model).program
        for name, inputs in probes(one.inputs):
            seen: dict[str, object] = {}

            class Watch(Interpreter):
                """Keeps what every node returns, before others write to it."""

                def run_node(self, n: fx.Node) -> object:
                    found = super().run_node(n)
                    seen[n.name] = found.clone() if isinstance(found, Tensor) else None  # noqa: B023  # of this round
                    return found

            call = as_call(inputs)
            assert call is not None
            values = spread(placeholders(one.model), call)
            for training in (mode == "training" for mode in modes_of(one.model)):
                with torch.no_grad():
                    try:
                        Watch(one.model.train(training)).run(*values)
                    except ValueError:  # a norm of one number in training mode
                        continue
                for node, value in program.results.items():
                    found = seen.get(node)
                    if not isinstance(value, Value) or not isinstance(found, Tensor) or not found.is_floating_point():
                        continue
                    low, high = bounds_of(program, value)
                    known += low > -INF or high < INF
                    near = 1e-12 * (1 + float(found.abs().max()))
                    assert float(found.min()) >= low - near, (number, name, node)
                    assert float(found.max()) <= high + near, (number, name, node)
    assert known > 300


@pytest.mark.parametrize(
    ("function", "activation", "place"),
    [
        (lambda x: F.avg_pool2d(x, 2), None, "avg_pool2d"),
        (lambda x: x + x.sigmoid(), None, "add"),
        (lambda x: x.softmax(1), None, "softmax"),
        (lambda x: x.clamp(0, 5) / 1, nn.ReLU6(), "clamp"),
        (lambda x: x.sigmoid() + 1, nn.LeakyReLU(), "add"),
        (lambda x: x.sigmoid() + 1, nn.ELU(), "add"),
        (lambda x: torch.relu(torch.cat([x - 1, x + 1], 1).flatten(2)).view(5, 8, 6, 6)[:, :4], None, "cat"),
        (lambda x: F.max_pool2d(x - 1, 2).relu(), None, "sub"),
    ],
)
def test_an_identity_layer_whose_function_has_nothing_to_do(
    function: Callable[[Tensor], Tensor], activation: nn.Module | None, place: str
) -> None:
    gm, x = traced(function, activation)
    kind = type(activation or nn.ReLU())
    deeper = fxgrow.deepen(gm, after=place, scheme="net2net", norm="none", activation=kind)
    assert any("act" in line for line in deeper.meta["fxgrow"][-1].proof)
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT


@pytest.mark.parametrize(
    ("function", "activation", "place"),
    [
        (lambda x: x - 1, None, "sub"),
        (lambda x: x + x.sigmoid(), nn.ReLU6(), "add"),  # up to 7
        (lambda x: x - 1, nn.LeakyReLU(), "sub"),
        (lambda x: (lambda y: y.relu() + y)(x - 1), None, "sub"),  # one of two readers
        (lambda x: F.max_pool2d(x - 3, 2).abs(), None, "sub"),
    ],
)
def test_a_function_that_would_change_something_is_refused(
    function: Callable[[Tensor], Tensor], activation: nn.Module | None, place: str
) -> None:
    gm, x = traced(function, activation)
    made = activation or nn.ReLU()
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.deepen(gm, after=place, scheme="net2net", norm="none", activation=type(made))
    assert caught.value.kind is fxgrow.Kind.NOT_IDEMPOTENT
    forced = fx.GraphModule(gm, gm.graph)
    node = next(n for n in forced.graph.nodes if n.name == place)
    forced.add_module("again", made)
    with forced.graph.inserting_after(node):
        again = forced.graph.call_module("again", (node,))
    node.replace_all_uses_with(again, delete_user_cb=lambda user: user is not again)
    forced.recompile()
    assert apart(gm, forced, 4 * x) > 1e-3


def refused(function: Callable[[Tensor], Any], place: str, activation: nn.Module) -> None:
    """No identity layer may stand there; with a layer in front and none behind."""

    class Model(nn.Module):
        """A layer and a function."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.function = nn.Conv2d(3, 4, 3), activation, function

        def forward(self, x: Tensor) -> Any:
            return self.function(self.first(x))

    gm = fxgrow.trace(Model().double().eval(), (torch.randn(2, 3, 8, 8, dtype=torch.float64),))
    with pytest.raises(fxgrow.GrowthRefused, match="changes values that have not passed it before"):
        fxgrow.deepen(gm, after=place, scheme="net2net", norm="none", activation=type(activation))


def largest(x: Tensor) -> Any:
    """The largest entries, and where they are; a Proxy cannot be unpacked."""
    return F.max_pool2d_with_indices(x, (2, 2))


def relu_of_largest(x: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU of the largest entries; where they are is told too."""
    found = largest(x - 100)
    return found[0].relu(), found[1]


def relu_of_both(x: Tensor) -> tuple[Tensor, Tensor]:
    """ReLU of the largest entries and of the whole numbers that say where they are."""
    found = largest(x - 100)
    return found[0].relu(), found[1].relu()


def largest_plus_place(x: Tensor) -> Tensor:
    """A sum of shares and whole numbers."""
    found = largest(x.sigmoid())
    total: Tensor = (found[0] + found[1]) * 1
    return total


@pytest.mark.parametrize("function", [relu_of_largest, relu_of_both])
def test_the_place_of_a_maximum_moves_with_what_is_put_before_it(function: Callable[[Tensor], Any]) -> None:
    refused(function, "sub", nn.ReLU())


@pytest.mark.parametrize(
    ("function", "place", "activation"),
    [
        (largest_plus_place, "add", nn.ReLU6()),
        (lambda x: torch.cat([x.sigmoid(), x.long()], 1) * 1, "cat", nn.ReLU()),
        (lambda x: torch.cat([x.relu(), x.long()], 1) * 1, "cat", nn.ReLU()),
        (lambda x: torch.stack([x.sigmoid(), x.int()], 1).flatten(1, 2) * 1, "flatten", nn.ReLU()),
        (lambda x: (x.sigmoid().view(torch.float32)[..., ::2] + x.sigmoid()) * 1, "add", nn.ReLU()),
        (lambda x: ((x * 100).to(torch.int8).square() + 0 * x) * 1, "add", nn.ReLU()),
    ],
)
def test_whole_numbers_and_bits_have_no_bounds(
    function: Callable[[Tensor], Any], place: str, activation: nn.Module
) -> None:
    refused(function, place, activation)


@pytest.mark.parametrize(
    ("before", "noise", "after"),
    [
        (nn.Hardtanh(), nn.Dropout(0.5), nn.Hardtanh()),
        (nn.ReLU6(), nn.Dropout(0.9), nn.ReLU6()),
        (nn.Sigmoid(), nn.AlphaDropout(0.5), nn.ReLU()),
        (nn.Sigmoid(), nn.FeatureAlphaDropout(0.5), nn.ReLU()),
        (nn.Sigmoid(), StochasticDepth(0.8, "row"), nn.Hardtanh()),
        (nn.Hardtanh(), StochasticDepth(0.8, "row"), nn.Hardtanh()),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_what_training_mode_adds_is_out_of_bounds(
    before: nn.Module, noise: nn.Module, after: nn.Module, training: bool
) -> None:
    model = nn.Sequential(nn.Linear(3, 8), before, noise, nn.Linear(8, 2)).double().train(training)
    x = torch.randn(64, 3, dtype=torch.float64)
    gm = fxgrow.trace(model, (x,))
    with pytest.raises(fxgrow.GrowthRefused, match="changes values that have not passed it before"):
        fxgrow.deepen(gm, after="2", scheme="net2net", norm="none", activation=type(after))
    assert apart(gm, fxgrow.deepen(gm, after="2"), x, training=True) < EXACT  # a block that adds zero


def test_dropout_of_what_is_not_negative_is_not_negative() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Identity(), nn.Linear(8, 2)).double().eval()
    x = torch.randn(64, 3, dtype=torch.float64)
    gm = fxgrow.trace(model, (x,))
    deeper = fxgrow.deepen(gm, after="3", scheme="net2net", norm="none")
    assert apart(gm, deeper, x, training=True) < EXACT


class Noisy(nn.Module):
    """A function whose results are moved in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardtanh(x)
        return y * 3 if self.training else y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("place", "side"), [("1", "after"), ("1", "before")])
def test_of_a_module_that_asks_for_the_mode_nothing_is_known(training: bool, place: str, side: str) -> None:
    model = nn.Sequential(nn.Linear(3, 8), Noisy(), nn.Linear(8, 2)).double().train(training)
    x = torch.randn(64, 3, dtype=torch.float64)
    gm = fxgrow.trace(model, (x,))
    where: dict[str, Any] = {side: place}
    with pytest.raises(fxgrow.GrowthRefused, match="changes values that have not passed it before"):
        fxgrow.deepen(gm, **where, scheme="net2net", norm="none", activation=nn.Hardtanh)
    assert apart(gm, fxgrow.deepen(gm, **where), x, training=True) < EXACT


def test_in_front_of_stochastic_depth_and_behind_contiguous_all_is_known() -> None:
    x = torch.randn(64, 3, dtype=torch.float64)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), StochasticDepth(0.5, "row"), nn.Linear(8, 2)).double().eval()
    gm = fxgrow.trace(model, (x,))
    assert apart(gm, fxgrow.deepen(gm, after="1", scheme="net2net", norm="none"), x, training=True) < EXACT
    gm, image = traced(lambda y: y.contiguous() * 1)
    deeper = fxgrow.deepen(gm, after="contiguous", scheme="net2net", norm="none", activation=nn.ReLU)
    assert apart(gm, deeper, image, training=True) < EXACT
