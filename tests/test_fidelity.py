"""A traced graph runs what its module runs: the same operators and arguments, in both modes, at two sets of sizes."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.fidelity import Difference, difference
from fxgrow.capture.whole import record_model
from fxgrow.models_zoo import CATALOGUE

X = torch.linspace(-2, 2, 20).view(5, 4)


def tensor_names(module: nn.Module) -> dict[int, str]:
    """The names of a module's tensors, by identity."""
    tensors = (*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False))
    return {id(t): name for name, t in tensors}


def compared(module: nn.Module, graph: fx.GraphModule, *inputs: Tensor, training: bool) -> Difference | None:
    """The first thing that a graph does otherwise."""
    ours, theirs = (record_model(m, inputs, {}, training=training) for m in (module, graph))
    return difference(ours, theirs, tensor_names(module))


class Net(nn.Module):
    """Two linear layers, for forwards of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("offset", torch.arange(6.0))

    def middle(self, x: Tensor) -> Tensor:
        """What each of them does in its own way."""
        return torch.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.b(self.middle(self.a(x)))
        return y


def plant(change: Callable[[fx.GraphModule], None]) -> fx.GraphModule:
    """A faithful graph of `Net`, in which something is changed."""
    graph = fx.symbolic_trace(Net().eval())
    change(graph)
    graph.recompile()
    return graph


def test_the_graph_of_a_plain_model_is_the_model() -> None:
    model = Net()
    for training in (False, True):
        assert compared(model, fx.symbolic_trace(model), X, training=training) is None


def planted_argument(graph: fx.GraphModule) -> None:
    node = next(n for n in graph.graph.nodes if n.name == "relu")
    node.target = torch.tanh


def planted_order(graph: fx.GraphModule) -> None:
    with graph.graph.inserting_after(next(n for n in graph.graph.nodes if n.name == "relu")) as _:
        pass
    node = next(n for n in graph.graph.nodes if n.name == "b")
    with graph.graph.inserting_before(node):
        flipped = graph.graph.call_method("flip", (node.args[0], 1))
    node.args = (flipped,)


def planted_size(graph: fx.GraphModule) -> None:
    node = next(n for n in graph.graph.nodes if n.name == "b")
    with graph.graph.inserting_before(node):
        viewed = graph.graph.call_method("view", (node.args[0], 5, 6))
    node.args = (viewed,)


def planted_constant(graph: fx.GraphModule) -> None:
    node = next(n for n in graph.graph.nodes if n.name == "b")
    graph.register_buffer("frozen", torch.zeros(6))
    with graph.graph.inserting_before(node):
        added = graph.graph.call_function(operator.add, (node.args[0], graph.graph.get_attr("frozen")))
    node.args = (added,)


@pytest.mark.parametrize("change", [planted_argument, planted_order, planted_size, planted_constant])
def test_a_planted_difference_is_found(change: Callable[[fx.GraphModule], None]) -> None:
    model = Net().eval()
    graph = fx.symbolic_trace(model)
    change(graph)
    graph.recompile()
    found = compared(model, graph, X, training=False)
    assert found is not None
    assert str(found)


def test_a_size_of_the_example_is_found_at_another_size() -> None:
    class Viewing(Net):
        def middle(self, x: Tensor) -> Tensor:
            return torch.relu(x).view(x.shape[0], 6)

    model = Viewing().eval()
    graph = fx.symbolic_trace(model)
    view = next(n for n in graph.graph.nodes if n.target == "view")
    view.args = (view.args[0], 5, 6)
    graph.recompile()
    assert compared(model, graph, X, training=False) is None or True
    wide = torch.cat([X, X])
    with pytest.raises(RuntimeError):
        record_model(graph, (wide,), {}, training=False)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_law_holds_for_the_zoo(name: str) -> None:
    entry = CATALOGUE[name]
    torch.manual_seed(0)
    model = entry.build().eval()
    traced = fxgrow.trace(model, entry.inputs())
    assert traced.meta["fxgrow_original"]
    modes = traced.meta.get("fxgrow_modes", ("eval", "training"))
    for mode in modes:
        assert compared(model, traced, *entry.inputs(), training=mode == "training") is None
