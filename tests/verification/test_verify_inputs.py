"""Verification on the inputs that models really take: containers, names, masks, graphs; and in the modes that count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.containers import changed as mapped
from fxgrow.capture.containers import leaves
from fxgrow.capture.inputs.call import Call
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.verification.probes import probes

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(6, 4, generator=RANDOM)


@dataclass(frozen=True)
class Batch:
    """A frozen data class with what need not be a tensor."""

    x: Tensor
    hidden: Tensor | None = None
    name: str = "a"


class Layers(nn.Module):
    """Two layers, and a fault."""

    def __init__(self, fault: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)
        self.fault = fault

    def compute(self, x: Tensor) -> Tensor:
        """The layers."""
        y: Tensor = self.b(torch.relu(self.a(x))) + self.fault
        return y


class Takes(Layers):
    """Takes its input out of whatever it is in."""

    def forward(self, given: Any, extra: Any = None, *, scale: Any = 1.0) -> Any:
        while not isinstance(given, Tensor):
            given = given.x if isinstance(given, Batch) else given["x"] if isinstance(given, dict) else given[0]
        y = self.compute(given) * scale
        return {"y": y, "extra": extra["sizes"][0] * 2 if extra is not None else None}


GIVEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "a dictionary": (({"x": X},), {}),
    "a list in a dictionary": (({"x": [X, None, 3]},), {}),
    "a data class": ((Batch(X),), {}),
    "a data class in a tuple": (((Batch(X, torch.ones(6, 4, dtype=torch.bool)), "text"),), {}),
    "by name": ((), {"given": [X], "scale": torch.ones(3)}),
    "a number by name": ((X,), {"scale": 2.0, "extra": {"sizes": (torch.ones(2), 7)}}),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_containers_and_names_are_passed_on(kind: str) -> None:
    args, kwargs = GIVEN[kind]
    assert fxgrow.verify(Takes(), Takes(), example_inputs=args, example_kwargs=kwargs)
    assert not fxgrow.verify(Takes(), Takes(1e-6), example_inputs=args, example_kwargs=kwargs)


def test_trees_are_opened_and_built_again() -> None:
    tree = ({"x": [X, None]}, Batch(X, name="b"), 3, "text")
    assert [type(leaf) for leaf in leaves(tree)] == [Tensor, type(None), Tensor, type(None), str, int, str]
    doubled = mapped(tree, lambda x: x * 2 if isinstance(x, Tensor) else x)
    assert torch.equal(doubled[0]["x"][0], X * 2)
    assert torch.equal(doubled[1].x, X * 2)
    assert doubled[1].name == "b"
    assert torch.equal(tree[1].x, X)


class Detector(Layers):
    """Takes targets in training mode, and returns a loss then."""

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        if not self.training or target is None:
            assert not self.training, "training needs targets"
            return F.softplus(self.compute(x) - self.fault)
        return F.mse_loss(self.compute(x), target)


def test_training_mode_has_inputs_of_its_own() -> None:
    target = torch.randn(6, 3, generator=RANDOM)
    for train in ({"train_inputs": (X, target)}, {"train_kwargs": {"target": target}}):
        good = fxgrow.verify(Detector(), Detector(), example_inputs=(X,), **train)
        assert good
        assert good.modes == ("eval", "training")
        assert not fxgrow.verify(Detector(), Detector(1e-6), example_inputs=(X,), **train)
    blind = fxgrow.verify(Detector(), Detector(1e-6), example_inputs=(X,))
    assert "training mode not compared, and not claimed" in str(blind)


def test_the_module_itself_is_what_counts() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    traced = fxgrow.trace(module, (X,))
    grown = fxgrow.widen(fxgrow.widen(traced, "0"), "0", by=3)
    strong = fxgrow.verify(module, grown)  # the inputs are those of the graph
    assert strong
    assert "compared with the original module" in str(strong)
    assert len(strong.proof) == 8
    alone = fx.symbolic_trace(module)
    assert "the trace itself was not compared" in str(
        fxgrow.verify(alone, fxgrow.widen(alone, "0", example_inputs=(X,)))
    )
    traced.meta["fxgrow_original"] = Snapshot(traced).digest
    assert "which was compared with its module" in str(fxgrow.verify(traced, grown))
    wider = fxgrow.apply(fxgrow.plan_widen(grown, "0"), grown)
    assert "grown from a trace that was compared" in str(fxgrow.verify(grown, wider))
    for node in grown.graph.nodes:
        if node.op == "output":
            with grown.graph.inserting_before(node):
                node.args = (grown.graph.call_function(torch.tanh, node.args),)
    grown.recompile()
    assert "the trace itself was not compared" in str(fxgrow.verify(grown, fxgrow.widen(grown, "0")))


def test_plans_that_do_not_begin_at_a_module_prove_nothing_of_it() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    once = fxgrow.widen(fxgrow.trace(module, (X,)), "0", to=12)
    twice = fxgrow.widen(once, "0", to=16)
    wide = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 3)).eval()
    wide.load_state_dict(once.state_dict())
    assert len(fxgrow.verify(module, twice).proof) == 2 * len(fxgrow.verify(wide, twice).proof) > 0
    final = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    final.load_state_dict(twice.state_dict())
    assert fxgrow.verify(final, twice).proof == ()


@pytest.mark.parametrize("modes", [("eval",), ("training",)])
def test_a_trace_of_one_mode_is_compared_there_only(modes: tuple[str, ...]) -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train("training" in modes)
    if modes == ("training",):
        module[1] = nn.Identity()
    traced = fxgrow.trace(module, (X,))
    traced.meta["fxgrow_modes"] = modes
    grown = fxgrow.widen(traced, "0")
    grown.meta["fxgrow_modes"] = modes
    certificate = fxgrow.verify(traced, grown)
    assert certificate
    assert {e.mode for e in certificate.errors} == set(modes) == set(certificate.modes)
    assert "mode only: the trace stands for no other mode" in str(certificate)
    if modes == ("training",):
        with pytest.raises(fxgrow.UsageError, match="training mode only"):
            fxgrow.verify(traced, grown, training=False)


class Graph(nn.Module):
    """Nodes x features, and an adjacency of nodes x nodes: no axis is a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        y: Tensor = self.b(adjacency.t() @ torch.relu(adjacency @ self.a(x)))
        return y


class Attends(nn.Module):
    """Attention with a mask, for padding or for all pairs of positions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            self.m = nn.MultiheadAttention(8, 2, batch_first=True)
        self.kind = kind

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y: Tensor = self.m(x, x, x, need_weights=False, **{self.kind: mask})[0]
        return y


def grown_heads(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Attention, traced, and with more heads."""
    traced = fxgrow.trace(model.eval(), inputs)
    return traced, fxgrow.widen(traced, "m.in_proj_weight", grow="groups")


def test_a_first_axis_that_is_no_batch_is_not_cut() -> None:
    inputs = (X, torch.rand(6, 6, generator=RANDOM))
    module = Graph().eval()
    traced = fxgrow.trace(module, inputs)
    wider = fxgrow.widen(traced, "a", verify=True)
    for before in (module, traced):
        assert fxgrow.verify(before, wider).held
    assert fxgrow.bisect(traced, wider) is None


@pytest.mark.parametrize("batch", [3, 5])
def test_a_mask_of_all_pairs_is_not_cut_with_the_batch(batch: int) -> None:
    inputs = (torch.randn(batch, 5, 8, generator=RANDOM), torch.ones(5, 5, dtype=torch.bool).triu(1))
    module = Attends("attn_mask")
    _, wider = grown_heads(module, inputs)
    certificate = fxgrow.verify(module, wider, example_inputs=inputs)
    assert certificate.held
    assert "batch of one" in {e.probe for e in certificate.errors}


@pytest.mark.parametrize("known", [True, False])
def test_masks_of_probes_hide_no_whole_row(known: bool) -> None:
    hidden = torch.tensor([[False, False, False, True], [False, False, True, True]])
    inputs = (torch.randn(2, 4, 8, generator=RANDOM), hidden)
    module = Attends("key_padding_mask")
    traced, wider = grown_heads(module, inputs)
    for seed in range(12):
        certificate = fxgrow.verify(traced, wider, example_inputs=inputs if known else None, seed=seed)
        assert certificate.held, seed
        assert not any("NaN" in note for note in certificate.notes)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_masks_have_rows_of_the_example(dtype: torch.dtype) -> None:
    rows = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]]).to(dtype)
    for seed in range(20):
        for probe in probes((rows,), seed):
            found = {tuple(row.tolist()) for row in probe.inputs[0]}
            assert found <= {tuple(row.tolist()) for row in rows}
        plain = [p.inputs[0] for p in probes((torch.ones(4, 3, dtype=torch.bool),), seed)[1:4]]
        assert all(bool(mask.any(-1).all()) and not bool(mask.all(-1).any()) for mask in plain)


def test_entries_that_are_nan_before_are_not_compared_and_said_to_be_so() -> None:
    class Root(Layers):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.compute(x), x.sqrt().sum(-1, keepdim=True) + 0 * self.fault], 1)

    certificate = fxgrow.verify(Root(), Root(), example_inputs=(X.abs(),))
    assert certificate.held
    assert "NaN in the model before growth are not compared" in str(certificate)
    assert "as given" in {e.probe for e in certificate.errors}  # where the model is used it is finite
    assert not fxgrow.verify(Root(), Root(1e-6), example_inputs=(X.abs(),))
    given = Call((X,), {"a": [X]})
    assert len(given.leaves) == 2
