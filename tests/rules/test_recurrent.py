"""Recurrent layers: widened hidden sizes, in every shape that torch's modules take, and what must stay as it was."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.errors import GrowthRefused, Kind
from fxgrow.models_zoo import ZOO, Tagger
from fxgrow.verification.certificate import FLOAT64_BOUND

TOKENS = torch.randint(0, 24, (3, 7), generator=torch.Generator().manual_seed(0))
WRITER = importlib.import_module("fxgrow.rewrite.apply")


class Sequenced(nn.Module):
    """A linear layer, a recurrent one, and a linear layer that reads everything that it returns."""

    def __init__(self, build: Callable[..., nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)
        self.rnn = build(5, 6, **options)
        width = (self.rnn.proj_size or 6) * (1 + self.rnn.bidirectional)
        self.head = nn.Linear(width, 3)
        self.last = nn.Linear(self.rnn.proj_size or 6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, states = self.rnn(torch.tanh(self.inner(x)))
        h = states[0] if self.rnn.mode == "LSTM" else states
        return self.head(y), self.last(h)


class FromInput(nn.Module):
    """A GRU whose first hidden state is given."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        y: Tensor = self.head(self.rnn(x, h)[0])
        return y


class Encoded(FromInput):
    """A GRU whose first hidden state a linear layer makes, and whose units are split in two afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(4, 6)
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a, b = self.rnn(x, torch.tanh(self.start(h)))[0].chunk(2, -1)
        y: Tensor = self.head(a * torch.sigmoid(b))
        return y


def traced(model: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.6, 0.6)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    return fxgrow.trace(model.double(), inputs)


def part(gm: fx.GraphModule, name: str) -> Any:
    """A layer of a model."""
    return gm.get_submodule(name)


def gap(a: fx.GraphModule, b: fx.GraphModule, *inputs: Tensor) -> float:
    """The largest difference of any output, in both modes."""
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    worst = 0.0
    for mode in (False, True):
        left, right = a.train(mode)(*inputs), b.train(mode)(*inputs)
        pairs = zip(left, right, strict=True) if isinstance(left, tuple) else [(left, right)]
        worst = max(worst, *(float((x - y).detach().abs().max()) for x, y in pairs))
    return worst


SHAPES: dict[str, Callable[[], nn.Module]] = {
    "rnn": partial(Sequenced, nn.RNN),
    "rnn, relu, batch first": partial(Sequenced, nn.RNN, nonlinearity="relu", batch_first=True),
    "gru": partial(Sequenced, nn.GRU),
    "gru, no bias": partial(Sequenced, nn.GRU, bias=False),
    "gru, deep, both directions": partial(Sequenced, nn.GRU, num_layers=3, bidirectional=True),
    "lstm": partial(Sequenced, nn.LSTM),
    "lstm, deep, both directions": partial(Sequenced, nn.LSTM, num_layers=2, bidirectional=True, batch_first=True),
    "lstm, no bias": partial(Sequenced, nn.LSTM, bias=False, num_layers=2),
    "lstm, projected": partial(Sequenced, nn.LSTM, proj_size=3, num_layers=2, bidirectional=True),
}
X = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SHAPES)
def test_a_wider_hidden_size_is_the_same_function(name: str) -> None:
    before = traced(SHAPES[name](), X)
    layer = part(before, "rnn")
    node = "rnn.weight_ih_l0" if layer.proj_size else "rnn"
    wide = fxgrow.widen(before, node=node, to=13)
    wider = fxgrow.widen(fxgrow.widen(wide, node=node, by=3), node="inner", by=1)
    assert gap(before, wide, X) < FLOAT64_BOUND
    assert gap(before, wider, X) < FLOAT64_BOUND
    made = part(wider, "rnn")
    assert (made.hidden_size, made.input_size, type(made)) == (16, 6, type(layer))
    assert list(wider.state_dict()) == list(before.state_dict())
    rebuilt = type(layer)(6, 16, layer.num_layers, **options_of(made))
    rebuilt.load_state_dict(made.state_dict())


def options_of(layer: nn.RNNBase) -> dict[str, Any]:
    """What a recurrent layer was built with."""
    names = ("bias", "batch_first", "bidirectional")
    options: dict[str, Any] = {name: getattr(layer, name) for name in names}
    if layer.mode.startswith("RNN"):
        options["nonlinearity"] = layer.mode.removeprefix("RNN_").lower()
    return {**options, "proj_size": layer.proj_size} if layer.proj_size else options


def test_the_projection_grows_by_itself_and_stays_below_the_cell_state() -> None:
    before = traced(SHAPES["lstm, projected"](), X)
    wide = fxgrow.widen(before, node="rnn.weight_hr_l1", to=5)
    assert gap(before, wide, X) < FLOAT64_BOUND
    assert (part(wide, "rnn").proj_size, part(wide, "rnn").hidden_size) == (5, 6)
    with pytest.raises(GrowthRefused, match="cannot project it to 6 units, only to fewer") as refusal:
        fxgrow.widen(before, node="rnn.weight_hr_l1")
    assert refusal.value.kind is Kind.INEXPRESSIBLE
    both = fxgrow.widen(before, node=["rnn.weight_hr_l0", "rnn.weight_ih_l0"])
    assert gap(before, both, X) < FLOAT64_BOUND


def test_a_hidden_state_that_is_an_input_keeps_its_size() -> None:
    h = torch.zeros(1, 2, 6)
    with pytest.raises(GrowthRefused) as refusal:
        fxgrow.widen(traced(FromInput(), X, h), node="rnn")
    assert refusal.value.kind is Kind.INPUT


def test_a_hidden_state_that_a_layer_makes_grows_along() -> None:
    h = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(1))
    before = traced(Encoded(), X, h)
    wide = fxgrow.widen(before, node="start")
    assert gap(before, wide, X, h) < FLOAT64_BOUND
    assert part(wide, "rnn").hidden_size == 12


def tagger(**options: Any) -> fx.GraphModule:
    return traced(Tagger(**{"dropout": 0.0, **options}), TOKENS)


def flat(gm: fx.GraphModule) -> list[bool]:
    """Whether each weight that the operator is given is the module's own."""
    layer = part(gm, "lstm")
    return [w is getattr(layer, name) for w, name in zip(layer._flat_weights, layer._flat_weights_names, strict=True)]


@pytest.mark.parametrize("node", ["lstm", "embed", "lstm.weight_ih_l1_reverse"])
def test_the_tagger_grows_twice_and_in_place(node: str) -> None:
    before = tagger()
    wide = fxgrow.widen(before, node=node)
    wider = fxgrow.widen(wide, node=node, by=1)
    mine = copy.deepcopy(before)
    assert fxgrow.widen(mine, node=node, inplace=True) is mine
    for after in (wide, wider, mine):
        assert gap(before, after, TOKENS) < FLOAT64_BOUND
        assert list(after.state_dict()) == list(before.state_dict())
        assert all(flat(after))
    assert fxgrow.verify(before, wide).held
    assert part(before, "lstm").hidden_size == 6


def test_the_padding_row_of_a_bag_stays_zero() -> None:
    gm = fxgrow.trace(ZOO["bag_of_words"].build().eval(), (TOKENS,))
    wide = fxgrow.widen(gm, node="embed")
    assert part(wide, "embed").embedding_dim == 16
    assert not part(wide, "embed").weight[0].any()
    assert gap(gm, wide, TOKENS) < 1e-6


def test_halves_part_when_the_tagger_is_trained() -> None:
    wide = fxgrow.widen(tagger(), node="lstm").train()
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
    tags = TOKENS % 4
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(wide(TOKENS).flatten(0, 1), tags.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    rows = part(wide, "lstm").weight_hh_l0.unflatten(0, (4, 12))[:, 6:]
    assert bool((rows[:, 0::2] != rows[:, 1::2]).any(-1).all())


def test_trouble_while_writing_in_place_leaves_the_weights_that_the_operator_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gm = tagger()
    before, lists = gm(TOKENS), [id(w) for w in part(gm, "lstm")._flat_weights]
    monkeypatch.setattr(WRITER, "_refresh", _troubled(WRITER._refresh))
    with pytest.raises(KeyboardInterrupt):
        fxgrow.widen(gm, node="lstm", inplace=True)
    assert [id(w) for w in part(gm, "lstm")._flat_weights] == lists
    assert all(flat(gm))
    assert torch.equal(gm(TOKENS), before)


def _troubled(function: Callable[..., None]) -> Callable[..., None]:
    def call(*args: Any) -> None:
        function(*args)
        raise KeyboardInterrupt

    return call


def test_dropout_between_layers_leaves_the_claim_for_evaluation() -> None:
    plan = fxgrow.plan_widen(tagger(dropout=0.1), "lstm")
    assert set(plan.eval_only) == {"lstm", "drop"}
    assert not fxgrow.plan_widen(tagger(dropout=0.1), "embed").eval_only


def test_a_new_bias_is_taken_from_the_same_gate() -> None:
    model = Tagger(dropout=0.0)
    with torch.no_grad():
        dict(model.lstm.named_parameters())["bias_ih_l0"].copy_(torch.arange(4.0).repeat_interleave(6))
    wide = fxgrow.widen(fxgrow.trace(model, (TOKENS,)), node="lstm", to=11)
    assert torch.equal(part(wide, "lstm").bias_ih_l0, torch.arange(4.0).repeat_interleave(11))


def test_cells_in_a_loop_start_from_zeros_of_the_new_width() -> None:
    (x,) = ZOO["recurrent_cells"].example_inputs()
    before = traced(ZOO["recurrent_cells"].build(), x)
    wide = fxgrow.widen(before, node=["lstm_2", "gru_1", "rnn"], by=5)
    assert gap(before, wide, x) < FLOAT64_BOUND
    assert [part(wide, name).hidden_size for name in ("lstm", "gru", "rnn")] == [11, 13, 12]
