"""Tracing: what is specialised, what goes on following `training`, what is kept, and what stays untouched."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.source_lines import location

from ..untouched import snapshot

X = torch.linspace(-2, 2, 8).view(2, 4)


class Net(nn.Module):
    """Two linear layers, for forwards of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.b = nn.Linear(6, 3)


class Options(Net):
    """Flags, numbers and an optional second input."""

    def forward(
        self, x: Tensor, more: Tensor | None = None, flag: bool = False, scale: float = 2.0, *, mode: str = "plain"
    ) -> Tensor:
        y: Tensor = self.a(x) * scale
        if flag:
            y = -y
        if more is not None:
            y = y + self.a(more)
        if mode != "plain":
            y = torch.tanh(y)
        z: Tensor = self.b(y)
        return z


class Dropping(Net):
    """Functional dropout of five kinds."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(self.a(x), 0.5, self.training)
        y = F.alpha_dropout(y, p=0.25, training=self.training)
        y = F.dropout1d(y[None], training=self.training)[0]
        y = F.dropout2d(y[None, :, :, None], 0.5, training=self.training)
        y = F.dropout3d(y[..., None], 0.5, training=self.training).flatten(2)[0]
        z: Tensor = self.b(y)
        return z


class NoisyReLU(Net):
    """A stochastic function that no module stands for."""

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.b(F.rrelu(self.a(x), training=self.training))
        return z


class Auxiliary(Net):
    """Another result in training."""

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = torch.relu(self.a(x))
        return (self.b(y), y) if self.training else self.b(y)


def placeholders(gm: fx.GraphModule) -> list[str]:
    """The inputs of a graph."""
    return [str(n.target) for n in gm.graph.nodes if n.op == "placeholder"]


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "concrete", "takes"),
    [
        (None, {}, ["x"]),
        ((X,), {}, ["x"]),
        ((X, X), {}, ["x", "more"]),
        (None, {"flag": True}, ["x"]),
        (None, {"scale": 0.5, "mode": "tanh"}, ["x"]),
        ((X, X), {"flag": True}, ["x", "more"]),
    ],
    ids=["defaults", "one input", "two inputs", "a flag", "two values", "both"],
)
def test_plain_defaults_and_concrete_args_are_specialised(
    inputs: tuple[Tensor, ...] | None, concrete: dict[str, Any], takes: list[str]
) -> None:
    model = Options()
    gm = fxgrow.trace(model, inputs, concrete_args=concrete)
    given = inputs or (X,)
    assert placeholders(gm) == takes
    assert torch.equal(gm(*given), model(*given, **concrete))
    assert not [n for n in gm.graph.nodes if "assert" in str(n.target)]
    assert fxgrow.verify(gm, fxgrow.widen(gm, node="a")).held


def test_a_graph_module_comes_back_as_it_is() -> None:
    gm = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))
    assert fxgrow.trace(gm) is gm
    assert fxgrow.trace(gm, (X,)) is gm
    assert next(iter(gm.graph.nodes)).meta["val"].shape == X.shape


# -- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("traced_in_training", [False, True], ids=["eval", "training"])
def test_functional_dropout_goes_on_following_training(traced_in_training: bool) -> None:
    model = Dropping().train(traced_in_training)
    gm = fxgrow.trace(model, (X,))
    for training in (True, False, True):
        model.train(training)
        gm.train(training)
        torch.manual_seed(1)
        wanted = model(X)
        torch.manual_seed(1)
        assert torch.equal(gm(X), wanted)
    assert gm.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("traced_in_training", [False, True], ids=["eval", "training"])
def test_a_flag_that_no_module_of_torch_stands_for_follows_training(traced_in_training: bool) -> None:
    model = NoisyReLU().train(traced_in_training)
    gm = fxgrow.trace(model, (X,))
    assert gm.meta["fxgrow_original"]
    for training in (True, False, True):
        torch.manual_seed(1)
        wanted = model.train(training)(X)
        torch.manual_seed(1)
        assert torch.equal(gm.train(training)(X), wanted)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_a_model_of_two_graphs_is_traced_in_its_own_mode_and_raises_in_the_other(training: bool) -> None:
    model = Auxiliary().train(training)
    gm = fxgrow.trace(model, (X,))
    mode, other = ("training", "evaluation") if training else ("evaluation", "training")
    assert gm.meta["fxgrow_modes"] == ("training" if training else "eval",)
    torch.testing.assert_close(gm(X), model(X), rtol=0, atol=0)
    for grown in (gm, fxgrow.widen(gm, node="a") if not training else gm):
        with pytest.raises(fxgrow.UsageError) as caught:
            grown.train(not training)(X)
        assert caught.value.kind is fxgrow.Kind.WRONG_MODE
        said = f"traced in {mode} mode and is valid in that mode only, but it is in {other} mode"
        assert said in str(caught.value)
        assert "Auxiliary runs different operators in training and in evaluation mode" in str(caught.value)
        grown.train(training)


@pytest.mark.parametrize("kind", [Options, Dropping])
def test_modes_that_agree_are_not_mentioned(kind: type[Net], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="fxgrow"):
        fxgrow.trace(kind())
    assert caplog.records == []


# -- the user's model -------------------------------------------------------------------------------------------------


def frozen_norm() -> nn.Module:
    """A model in training mode whose norm is not."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Sequential(nn.BatchNorm1d(6), nn.Dropout()), nn.Linear(6, 3))
    model.get_submodule("1.0").eval()
    model.get_parameter("0.weight").requires_grad_(False)
    return model


class Numbered(nn.Module):
    """Adds a constant that `forward` makes to its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.relu(self.conv1(x) + torch.arange(8).view(1, 8, 1, 1)))
        return y


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mixed flags": frozen_norm,
    "functional dropout": Dropping,
    "two modes": lambda: Auxiliary().eval(),
    "a constant": Numbered,
}


@pytest.mark.parametrize("name", MODELS)
def test_tracing_leaves_the_model_as_it_was(name: str) -> None:
    model = MODELS[name]()
    before = snapshot(model)
    gm = fxgrow.trace(model)
    assert snapshot(model) == before
    flags = {path: module.training for path, module in gm.named_modules()}
    assert all(flags[path] == module.training for path, module in model.named_modules() if path in flags)
    own = dict(gm.named_parameters())
    assert all(own[path] is parameter for path, parameter in model.named_parameters())


def test_a_constant_made_in_forward_belongs_to_the_graph_alone() -> None:
    model = Numbered()
    x = torch.randn(2, 3, 8, 8)
    gm = fxgrow.trace(model)
    assert torch.equal(gm(x), model(x))
    assert not [name for name in vars(model) if "constant" in name]
    assert gm.state_dict().keys() == model.state_dict().keys()
    grown = fxgrow.widen(gm, "conv1", example_inputs=(x,))
    torch.testing.assert_close(grown(x), model(x))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_kept(name: str, training: bool) -> None:
    with torch.device("meta"):
        model = getattr(importlib.import_module("torchvision.models"), name)(init_weights=False).train(training)
    gm = fxgrow.trace(model)
    assert gm.state_dict().keys() == model.state_dict().keys()
    own = {**dict(gm.named_parameters()), **dict(gm.named_buffers())}
    assert all(own[k] is t for k, t in (*model.named_parameters(), *model.named_buffers()))
    unused = gm.meta.get("fxgrow_unused", ())
    assert bool(unused) is not training
    assert all("aux" in name.lower() for name in unused)


class Helped(Net):
    """A head beside the way that only training looks at."""

    def __init__(self, helper: nn.Module) -> None:
        super().__init__()
        self.helper = helper

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.a(x))
        return y


@pytest.mark.parametrize(
    "helper",
    [
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 3))),
        nn.ModuleList([nn.Linear(4, 3), nn.ModuleDict({"x": nn.Linear(4, 3)})]),
        nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(4, 2, 6),
    ],
    ids=lambda helper: type(helper).__name__,
)
def test_containers_that_the_graph_does_not_use_are_kept_whole(helper: nn.Module) -> None:
    model = Helped(helper).eval()
    gm = fxgrow.trace(model, (X,))
    assert gm.state_dict().keys() == model.state_dict().keys()
    tensors = (*helper.named_parameters(), *helper.named_buffers())
    assert gm.meta["fxgrow_unused"] == tuple(f"helper.{name}" for name, _ in tensors)
    assert str(gm.helper) == str(helper)
    assert fxgrow.verify(gm, fxgrow.widen(gm, node="a")).held


# -- source lines -----------------------------------------------------------------------------------------------------


def test_nodes_know_the_line_that_made_them() -> None:
    gm = fxgrow.trace(Auxiliary().eval())
    line = Auxiliary.forward.__code__.co_firstlineno + 1
    assert location(gm, "relu") == f"relu, test_trace.py:{line}:  y = torch.relu(self.a(x))"
    assert location(gm, "a") == f"a, test_trace.py:{line}:  y = torch.relu(self.a(x))"
    grown = fxgrow.widen(gm, node="a")
    assert location(grown, "relu") == location(gm, "relu")


def test_a_graph_traced_without_lines_shows_the_node_instead() -> None:
    gm = fx.symbolic_trace(Auxiliary().eval())
    assert location(gm, "relu").startswith("relu:  %relu : [num_users=1] = call_function[target=torch.relu]")
