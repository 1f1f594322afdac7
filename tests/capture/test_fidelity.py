"""A traced graph runs what its module runs: the same operators and arguments, in both modes, at two sets of sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.comparison import comparison
from fxgrow.capture.recording.module_recording import record_model
from fxgrow.functional import ModeGuard, ModeValue
from fxgrow.models_zoo.models.catalogue import ZOO
from fxgrow.testing import fidelity
from fxgrow.testing.fidelity import FidelityBroken, check_fidelity

from ..models.library import LIBRARY

X = torch.linspace(-2, 2, 20).view(5, 4).sin()


class Net(nn.Module):
    """A layer, a norm by its function with statistics in buffers, a difference, a view by its sizes, and a counter."""

    mean: Tensor
    var: Tensor
    offset: Tensor
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("var", torch.ones(6))
        self.register_buffer("offset", torch.arange(6.0))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        y = torch.relu(self.a(x))
        y = nn.functional.batch_norm(y, self.mean, self.var, training=self.training)
        z: Tensor = self.b((self.offset - y).view(x.shape[0], 6))
        return z


def node(graph: fx.GraphModule, name: str) -> fx.Node:
    """The first node whose name begins so."""
    found: fx.Node = next(n for n in graph.graph.nodes if n.name.startswith(name))
    return found


def another_function(graph: fx.GraphModule) -> None:
    node(graph, "relu").target = torch.tanh


def operands_swapped(graph: fx.GraphModule) -> None:
    sub = node(graph, "sub")
    sub.args = sub.args[::-1]


def batch_baked(graph: fx.GraphModule) -> None:
    view = node(graph, "view")
    view.args = (view.args[0], len(X), 6)


def buffer_frozen(graph: fx.GraphModule) -> None:
    graph.register_buffer("frozen", graph.get_buffer("offset").clone(), persistent=False)
    node(graph, "offset").target = "frozen"


def flag_does_not_follow(graph: fx.GraphModule) -> None:
    norm = node(graph, "batch_norm")
    norm.kwargs = {**norm.kwargs, "training": False}


def flag_inverted(graph: fx.GraphModule) -> None:
    for module in graph.modules():
        if isinstance(module, ModeValue):
            module.in_training, module.in_evaluation = module.in_evaluation, module.in_training


def write_lost(graph: fx.GraphModule) -> None:
    add = node(graph, "add_")
    add.replace_all_uses_with(add.args[0])  # type: ignore[arg-type]  # a node
    graph.graph.erase_node(add)


def another_number(graph: fx.GraphModule) -> None:
    norm = node(graph, "batch_norm")
    norm.kwargs = {**norm.kwargs, "eps": 1e-4}


def dtype_in_between(graph: fx.GraphModule) -> None:
    relu = node(graph, "relu")
    with graph.graph.inserting_after(relu):
        cast = graph.graph.call_method("to", (relu, torch.bfloat16))
    with graph.graph.inserting_after(cast):
        back = graph.graph.call_method("to", (cast, torch.float32))
    relu.replace_all_uses_with(back, delete_user_cb=lambda user: user is not cast)


PLANTED: list[Callable[[fx.GraphModule], None]] = [
    another_function,
    operands_swapped,
    batch_baked,
    buffer_frozen,
    flag_does_not_follow,
    flag_inverted,
    write_lost,
    another_number,
    dtype_in_between,
]
LOOKS = ["_same_operators", "_same_numbers"]


def nothing(*_: object) -> None:
    """A look that sees nothing."""


def test_the_law_holds_without_a_fault() -> None:
    model = Net().eval()
    assert check_fidelity(model, fxgrow.trace(model, (X,)), (X,)) == (
        "eval mode, the example's sizes",
        "eval mode, other sizes",
        "training mode, the example's sizes",
        "training mode, other sizes",
    )


@pytest.mark.parametrize("blind", LOOKS)
@pytest.mark.parametrize("change", PLANTED)
def test_each_of_the_two_looks_finds_a_planted_fault(
    change: Callable[[fx.GraphModule], None], blind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Net().eval()
    traced = fxgrow.trace(model, (X,))
    change(traced)
    traced.recompile()
    monkeypatch.setattr(fidelity, blind, nothing)
    with pytest.raises(FidelityBroken):
        check_fidelity(model, traced, (X,))


def test_two_blind_looks_find_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net().eval()
    traced = fxgrow.trace(model, (X,))
    operands_swapped(traced)
    traced.recompile()
    for look in LOOKS:
        monkeypatch.setattr(fidelity, look, nothing)
    assert check_fidelity(model, traced, (X,))


def test_the_model_stays_as_it_is() -> None:
    model = Net().train()
    traced = fxgrow.trace(model, (X,))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_fidelity(model, traced, (X,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_a_state_that_is_not_saved_is_found() -> None:
    model = Net().eval()
    traced = fxgrow.trace(model, (X,))
    traced._non_persistent_buffers_set.add("offset")
    with pytest.raises(FidelityBroken, match="only one of them saves offset"):
        check_fidelity(model, traced, (X,))


class Auxiliary(Net):
    """Returns something else in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        z: Tensor = self.b(y) if self.training else self.b(y).softmax(-1)
        return z


@pytest.mark.parametrize("training", [False, True])
def test_a_mode_that_is_not_claimed_must_raise(training: bool) -> None:
    model = Auxiliary().train(training)
    traced = fxgrow.trace(model, (X,))
    assert len(check_fidelity(model, traced, (X,))) == 2
    for guard in [n for n in traced.graph.nodes if n.op == "call_module" and "guard" in n.name]:
        assert isinstance(traced.get_submodule(guard.target), ModeGuard)
        traced.graph.erase_node(guard)
    traced.recompile()
    with pytest.raises(FidelityBroken, match="which it does not claim"):
        check_fidelity(model, traced, (X,))


def test_a_comparison_of_nothing_is_no_comparison() -> None:
    model = Net().eval()
    traced = fxgrow.trace(model, (X,))
    with pytest.raises(FidelityBroken, match="nothing was compared"):
        check_fidelity(model, traced, (X[:, :3],))


def test_inputs_of_training_mode_are_those_that_are_given_for_it() -> None:
    class Targets(Net):
        def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
            y: Tensor = self.b(torch.relu(self.a(x)))
            return y if target is None else (y - target).square()

    model, target = Targets().train(), torch.zeros(5, 3)
    traced = fxgrow.trace(model, (X,), train_inputs=(X, target))
    assert len(check_fidelity(model, traced, (X,), (X, target))) == 2


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ZOO)
def test_the_law_holds_for_the_zoo(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = ZOO[name].build().eval(), ZOO[name].example_inputs()
    assert len(check_fidelity(model, fxgrow.trace(model, inputs), inputs)) == 4


@pytest.mark.parametrize("name", LIBRARY)
def test_the_law_holds_for_models_of_libraries(name: str) -> None:
    case = LIBRARY[name]
    torch.manual_seed(0)
    model, inputs = case.build().train(case.training), case.inputs()
    found = check_fidelity(model, fxgrow.trace(model, inputs), inputs)
    assert len(found) == case.compared
    assert f"{'training' if case.training else 'eval'} mode, other sizes" in found


def recordings(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor) -> set[tuple[bool, bool | None, int]]:
    """What `trace` records: of the graph or of the module, the mode, and the size of the batch."""
    made: set[tuple[bool, bool | None, int]] = set()

    def noted(which: nn.Module, args: tuple[Tensor], *rest: Any, **options: Any) -> Any:
        recording = record_model(which, args, *rest, **options)
        made.add((isinstance(which, fx.GraphModule), options["training"], len(args[0])))
        return recording

    monkeypatch.setattr(comparison, "record_model", noted)
    traced = fxgrow.trace(model, (x,))
    assert "fxgrow_modes" not in traced.meta
    assert len(traced.meta["fxgrow_compared"]) == 4
    return made


@pytest.mark.parametrize("training", [False, True])
def test_a_trace_is_compared_on_both_sides_in_both_modes_at_two_sizes(
    monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    made = recordings(monkeypatch, Net().train(training), X)
    assert made == {(graph, mode, size) for graph in (False, True) for mode in (False, True) for size in (5, 6)}


class Mixes(nn.Module):
    """It takes one kind of batches in one of the modes, and perhaps another kind in the other one."""

    def __init__(self, in_training: int, in_evaluation: int) -> None:
        super().__init__()
        self.in_training, self.in_evaluation = in_training, in_evaluation

    def forward(self, h: Tensor) -> Tensor:
        count = self.in_training if self.training else self.in_evaluation
        n, c = h.shape
        return h.view(count, n // count, c).flip(0).reshape(n, c) if count > 1 else h


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("counts", "batch"), [((2, 1), 4), ((1, 2), 4), ((4, 3), 12), ((2, 3), 6)])
def test_sizes_that_one_mode_does_not_take_are_searched_again(
    monkeypatch: pytest.MonkeyPatch, counts: tuple[int, int], batch: int, training: bool
) -> None:
    x = torch.randn(batch, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Linear(4, 6), Mixes(*counts), nn.Linear(6, 2)).train(training)
    made = recordings(monkeypatch, model, x)
    for mode in (False, True):
        some, others = ({size for which, at, size in made if at is mode and which is side} for side in (False, True))
        assert len(some & others) >= 2
