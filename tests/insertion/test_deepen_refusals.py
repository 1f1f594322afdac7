"""What deepening refuses, in which words, and what would happen otherwise: each kind is forced and breaks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow import Kind, UsageError
from fxgrow.api.analyses import analysis_of
from fxgrow.insertion import silence
from fxgrow.insertion.context import look_around
from fxgrow.insertion.dtypes import nearest_tensor
from fxgrow.insertion.positions import find_position

from .deepened import apart, gradients, mlp, traced

BROKEN = 1e-4


class Ending(nn.Module):
    """Two layers and a last function."""

    def __init__(self, channels: int, last: nn.Module, width: int = 6) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(channels, width), nn.Linear(width, channels), last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.second(torch.tanh(self.first(x))))
        return y


class Shifted(nn.Module):
    """A user's function with σ(0) = 1."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cos(x)


def silenced(model: nn.Module, block: str) -> nn.Module:
    """Halves written by hand, whatever follows them."""
    made: Any = model.get_submodule(block)
    with torch.no_grad():
        made.first.weight[1::2], made.first.bias[1::2] = made.first.weight[::2], made.first.bias[::2]
        made.second.weight[:, 1::2] = -made.second.weight[:, ::2]
        made.second.bias.zero_()
    return model


def forced(gm: torch.fx.GraphModule, factory: Any, monkeypatch: pytest.MonkeyPatch) -> torch.fx.GraphModule:
    """A block inserted without a proof that zeros stay zero."""
    with monkeypatch.context() as patch:
        patch.setattr(silence, "zero_to", lambda *_: ())
        return fxgrow.deepen(gm, after="1", block=factory)


@pytest.mark.parametrize("last", [nn.Sigmoid, nn.Softplus, nn.Hardsigmoid, Shifted], ids=lambda c: c.__name__)
@pytest.mark.parametrize("scheme", ["r2r", "zero"])
def test_a_last_function_with_another_value_at_zero(
    last: type[nn.Module], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gm, x = traced("mlp of three")

    def factory(channels: int) -> nn.Module:
        return Ending(channels, last())

    with pytest.raises(fxgrow.GrowthRefused, match="does not keep zero: σ\\(0\\) = 0 is not given") as caught:
        fxgrow.deepen(gm, after="1", block=factory, scheme=scheme)
    assert caught.value.kind is Kind.NOT_SILENT
    assert f"cannot deepen after 1 with scheme={scheme!r}" in str(caught.value)
    assert "in the new block: " in str(caught.value)
    deeper = silenced(forced(gm, factory, monkeypatch), "1_deeper1")
    assert apart(gm, deeper, x) > BROKEN


def test_a_last_function_without_a_slope_at_zero_would_never_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    gm, x = traced("mlp of three")

    def factory(channels: int) -> nn.Module:
        return Ending(channels, nn.ReLU())

    with pytest.raises(fxgrow.GrowthRefused, match="has slope 0 at 0") as caught:
        fxgrow.deepen(gm, after="1", block=factory, scheme="zero")
    assert caught.value.kind is Kind.NO_SLOPE
    deeper = forced(gm, factory, monkeypatch)
    block: Any = deeper.get_submodule("1_deeper1")
    with torch.no_grad():
        block.second.weight.zero_()
        block.second.bias.zero_()
    assert max(gradients(deeper, x, "1_deeper1").values()) == 0
    alive = fxgrow.deepen(gm, after="1", block=lambda c: Ending(c, nn.LeakyReLU()), scheme="zero")
    assert max(gradients(alive, x, "1_deeper1").values()) > 0


@pytest.mark.parametrize(
    ("model", "place", "words"),
    [
        (mlp(nn.GELU), "1", "act (gelu) changes an already activated value"),
        (mlp(nn.Tanh), "3", "act (tanh) changes an already activated value"),
        (mlp(nn.ReLU), "4", "act (relu) changes values that have not passed it before"),
        (
            nn.Sequential(nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 4)),
            "2",
            "act (hardtanh) changes values",
        ),
    ],
)
def test_an_identity_layer_needs_an_idempotent_function_behind_it(model: nn.Module, place: str, words: str) -> None:
    x = torch.randn(5, 8).double()
    with torch.no_grad():
        [*model.parameters()][-1].sub_(1)  # so that outputs are negative
    gm = fxgrow.trace(model.double().eval(), (x,))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.deepen(gm, after=place, scheme="net2net")
    assert caught.value.kind is Kind.NOT_IDEMPOTENT
    assert words in str(caught.value)
    plain = fxgrow.deepen(gm, after=place, scheme="net2net", activation="none")
    assert apart(gm, plain, x) < 1e-14
    again = nn.Sequential()  # the same with σ, by hand
    for number, layer in enumerate(model):  # type: ignore[arg-type, var-annotated]  # a Sequential
        again.append(layer)
        if str(number) == place:
            again.append(model[1])  # type: ignore[index]  # the same
    assert apart(gm, again, x) > BROKEN


class Uneven(nn.Module):
    """Attention of two heads inside a stream of seven units."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.q, self.leave = nn.Embedding(9, 7), nn.Linear(7, 6), nn.Linear(6, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        q = self.q(x).unflatten(-1, (2, 3)).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, q, q)
        z: Tensor = x + self.leave(y.transpose(1, 2).flatten(2))
        return z


def test_heads_that_nobody_asked_for_fit() -> None:
    tokens = torch.arange(8).view(2, 4)
    gm = fxgrow.trace(Uneven().double().eval(), (tokens,))
    deeper = fxgrow.deepen(gm, after="table", block="transformer")
    assert apart(gm, deeper, tokens) < 1e-14
    with pytest.raises(UsageError, match="7 features do not split into 2 heads"):
        fxgrow.deepen(gm, after="table", block="transformer", heads=2)


def test_a_learned_activation_is_not_idempotent() -> None:
    gm = fxgrow.trace(mlp(nn.ReLU).double().eval(), (torch.randn(5, 8).double(),))
    layer = next(name for name, module in gm.named_modules() if isinstance(module, nn.Linear))
    morphed = fxgrow.deepen(gm, after=layer, scheme="morphism")
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.deepen(morphed, after=layer, scheme="net2net")
    assert caught.value.kind is Kind.NOT_IDEMPOTENT
    assert "act (prelu) changes an already activated value: it is not idempotent" in str(caught.value)
    assert 'activation="none"' in str(caught.value)


def test_a_cloned_block_whose_last_function_is_not_idempotent() -> None:
    class Net(nn.Module):
        """Post-activation blocks with tanh."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for k in (0, 2):
                x = torch.tanh(x + self.layers[k + 1](torch.relu(self.layers[k](x))))
            return x * 2

    gm = fxgrow.trace(Net(), (torch.randn(3, 8),))
    with pytest.raises(fxgrow.GrowthRefused, match="tanh") as caught:
        fxgrow.deepen(gm, after="tanh", block="clone")
    assert caught.value.kind is Kind.NOT_IDEMPOTENT


class Odd(nn.Module):
    """Values of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.rest, self.tied = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.tied.weight = self.rest.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        best = y.argmax(-1)
        mask = y > 0
        halves = y.chunk(2, -1)
        z = torch.cat([halves[1], halves[0]], -1) * mask + best.unsqueeze(-1) * 0.1
        total = self.body(z).sum()
        out: Tensor = self.tied(self.rest(z)) + total
        return out


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("argmax", "argmax is a tensor of int64, which no layer can add to"),
        ("gt", "gt is a tensor of bool, which no layer can add to"),
        ("chunk", "chunk returns 2 values, not one tensor"),
        ("sum_1", "sum_1 has 0 axes"),
    ],
)
def test_places_where_no_single_tensor_passes(place: str, words: str) -> None:
    gm = fxgrow.trace(Odd(), (torch.randn(3, 8),))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.deepen(gm, after=place)
    assert caught.value.kind is Kind.NO_VALUE
    assert words in str(caught.value)
    values: dict[str, Any] = {}

    class Run(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    Run(gm).run(torch.randn(3, 8))
    with pytest.raises((TypeError, RuntimeError, AttributeError)):  # forced
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))(values[place])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("rest", "its weight is tied: rest.weight = tied.weight"),
        ("body", "it is called several times"),
    ],
)
def test_layers_that_cannot_be_factored(place: str, words: str) -> None:
    torch.manual_seed(0)
    gm = fxgrow.trace(Odd(), (torch.randn(3, 8),))
    with pytest.raises(fxgrow.GrowthRefused) as caught:
        fxgrow.deepen(gm, after=place, scheme="morphism", hidden=12)
    assert caught.value.kind is Kind.NO_FACTOR
    assert words in str(caught.value)
    x = torch.randn(3, 8)
    wanted, weight = gm(x).detach(), gm.get_parameter(f"{place}.weight")
    factor = nn.Linear(12, 8, bias=False)  # a second kernel for one of its two uses: the other no longer fits
    with torch.no_grad():
        weight.copy_(factor.weight[:, :8])
    assert float((gm(x).detach() - wanted).abs().max()) > BROKEN


def test_a_value_that_a_reader_overwrites() -> None:
    class Overwriting(nn.Module):
        """relu_ writes into what is read again."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.act, self.head = nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            z = self.act(y)
            out: Tensor = self.head(z) + y
            return out

    torch.manual_seed(0)
    gm, x = fxgrow.trace(Overwriting(), (torch.randn(3, 8),)), torch.randn(3, 8)
    with pytest.raises(fxgrow.GrowthRefused, match="act writes into body, and others read it afterwards") as caught:
        fxgrow.deepen(gm, before="act")
    assert caught.value.kind is Kind.WRITTEN
    graph = torch.fx.Graph()
    nodes: dict[torch.fx.Node, torch.fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, nodes))
    body, act = (next(new for old, new in nodes.items() if old.name == name) for name in ("body", "act"))
    with graph.inserting_before(act):
        zero = graph.call_function(torch.zeros_like, (body,))
        act.args = (graph.call_function(torch.add, (body, zero)),)
    assert float((torch.fx.GraphModule(gm, graph)(x) - gm(x)).abs().max().detach()) > BROKEN
    fxgrow.deepen(gm, after="act", verify=True)


def test_every_kind_of_refusal_is_tested_here_or_with_the_clones() -> None:
    tested = {Kind.NOT_SILENT, Kind.NO_SLOPE, Kind.NOT_IDEMPOTENT, Kind.NO_VALUE, Kind.NO_FACTOR, Kind.WRITTEN}
    assert {kind for kind in Kind if kind.value.startswith("FXG2")} - tested == {Kind.NO_BLOCK}  # nothing to force


# -- invalid calls --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, Kind.BAD_OPTION, "no place is named"),
        ({"after": []}, Kind.BAD_OPTION, "no place is named"),
        ({"after": "layer9"}, Kind.UNKNOWN_NODE, "did you mean layer"),
        ({"after": 3}, Kind.BAD_OPTION, "after must be a name or a list of names, not int"),
        ({"after": "layer2.relu"}, Kind.AMBIGUOUS_NODE, "2 values leave 'layer2.relu'"),
        ({"before": "add_1"}, Kind.AMBIGUOUS_NODE, "2 values enter 'add_1'"),
        ({"after": "x", "scheme": "best"}, Kind.BAD_OPTION, "scheme='best' is unknown"),
        ({"after": "layer2", "block": "big"}, Kind.BAD_OPTION, "unknown block 'big'"),
        ({"after": "layer2", "block": nn.ReLU()}, Kind.BAD_OPTION, "unknown block ReLU()"),
        ({"after": "layer2", "count": 0}, Kind.BAD_OPTION, "count= must be a positive whole number, not 0"),
        ({"after": "layer2", "hidden": -1}, Kind.BAD_OPTION, "hidden= must be a positive whole number"),
        ({"after": "layer2", "kernel": 4}, Kind.BAD_OPTION, "kernel=4 is even and would shift the image"),
        ({"after": "layer2", "seed": "a"}, Kind.BAD_OPTION, "seed must be a whole number"),
        ({"after": "layer2", "norm": "spectral"}, Kind.BAD_OPTION, "norm='spectral' is unknown"),
        ({"after": "layer2", "activation": "rectify"}, Kind.BAD_OPTION, "no activation called 'rectify'"),
        ({"after": "layer2", "init": "copy"}, Kind.BAD_OPTION, "needs something to copy"),
        ({"after": "layer2", "block": "mlp", "scheme": "net2net"}, Kind.BAD_OPTION, "inserts one identity layer"),
        ({"after": "layer2", "block": "transformer"}, Kind.BAD_OPTION, "takes (batch, tokens, features), not 4 axes"),
        ({"after": "flatten", "block": "basic"}, Kind.BAD_OPTION, "flatten has 2 axes"),
        ({"after": "layer2.conv1", "scheme": "morphism", "hidden": 8}, Kind.BAD_OPTION, "hidden=8 cannot carry"),
        ({"after": "layer2.conv1", "scheme": "morphism", "kernel": 4}, Kind.BAD_OPTION, "does not enclose the window"),
        ({"after": "layer2", "scheme": "morphism"}, Kind.UNKNOWN_NODE, "no layer is called 'layer2'"),
        ({"after": "layer2", "block": lambda c: 3}, Kind.BAD_BLOCK, "returns int, no torch.nn.Module"),
        ({"after": "layer2", "block": lambda c: 1 / 0}, Kind.BAD_BLOCK, "fails on 32 channels: division by zero"),
        ({"after": "layer2", "block": lambda c: nn.Conv2d(c, 7, 1)}, Kind.BAD_BLOCK, "returns 5x7x"),
        ({"after": "layer2", "block": lambda c: nn.Conv2d(9, c, 1)}, Kind.BAD_BLOCK, "cannot take 5x32"),
        (
            {"after": "layer2", "block": lambda c: nn.Bilinear(c, c, c)},
            Kind.BAD_BLOCK,
            "takes 2 inputs",
        ),
        ({"after": "layer2", "block": lambda c: nn.ReLU()}, Kind.NOT_SILENT, "add (add) does not return"),
        (
            {"after": "layer2", "block": lambda c: nn.Conv2d(c, c, 1)},
            Kind.NOT_SILENT,
            "the block's own input",
        ),
    ],
)
def test_calls_that_cannot_be_meant(options: dict[str, Any], kind: Kind, words: str) -> None:
    gm, _ = traced("resnet")
    with pytest.raises(fxgrow.FxgrowError) as caught:
        fxgrow.deepen(gm, **options)
    assert words in str(caught.value)
    assert caught.value.kind is kind
    assert isinstance(caught.value, fxgrow.UsageError) == kind.value.startswith("FXG0")


def test_masked_attention_is_not_guessed() -> None:
    class Masked(nn.Module):
        """Attention with a mask."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            q: Tensor = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
            y = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
            z: Tensor = self.out(y.transpose(1, 2).flatten(2) + x)
            return z

    x, mask = torch.randn(2, 5, 8), torch.ones(5, 5).tril().bool()
    gm = fxgrow.trace(Masked(), (x, mask))
    with pytest.raises(fxgrow.UsageError, match="attention in this network is masked"):
        fxgrow.deepen(gm, after="add", block="transformer")
    deeper = fxgrow.deepen(gm, after="add", block="transformer", causal=True)
    assert torch.allclose(deeper(x, mask), gm(x, mask), atol=1e-6)


class Biased(nn.Module):
    """Attention whose logits get a bias that is looked up by the distance of two tokens, and perhaps something else."""

    def __init__(self, more: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.out, self.table = nn.Linear(8, 8), nn.Linear(8, 8), nn.Parameter(torch.randn(9, 2))
        place = torch.arange(5)
        self.index: Tensor
        self.shut: Tensor
        self.register_buffer("index", place[:, None] - place[None, :] + 4)
        self.register_buffer("shut", torch.full((5, 5), -100.0).triu(1))
        self.more = more

    def forward(self, x: Tensor) -> Tensor:
        q: Tensor = self.q(x).unflatten(-1, (2, 4)).transpose(1, 2)
        bias = self.more(self.table[self.index.view(-1)].view(5, 5, 2).permute(2, 0, 1).unsqueeze(0), self.shut)
        y = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=bias)
        z: Tensor = self.out(y.transpose(1, 2).flatten(2) + x)
        return z


def test_a_bias_that_is_learned_is_no_mask() -> None:
    for more in (
        lambda bias, _: bias,
        lambda bias, _: 16 * bias.sigmoid(),
        lambda bias, _: nn.functional.pad(bias[..., :3], (0, 2)),
        lambda bias, _: nn.functional.pad(bias[..., :3], (0, 2, 0, 0), mode="replicate"),
        lambda bias, _: torch.cat([bias[..., :3], bias[..., :2]], -1),
        lambda bias, _: 2 * torch.cat([bias[..., :3], bias.new_zeros(1, 2, 5, 2)], -1),
    ):
        module, x = Biased(more), torch.randn(2, 5, 8)
        deeper = fxgrow.deepen(fxgrow.trace(module, (x,)), after="add", block="transformer")
        assert len(list(deeper.parameters())) > len(list(module.parameters())) + 4
        torch.testing.assert_close(deeper(x), module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "more",
    [
        lambda bias, shut: bias + shut,
        lambda bias, shut: torch.where(shut < 0, -100.0, bias),
        lambda bias, shut: bias * (shut == 0) + shut,
        lambda bias, shut: shut.expand(1, 2, 5, 5),
        lambda bias, shut: nn.functional.pad(bias[..., :3], (0, 2), value=-torch.inf),
        lambda bias, shut: 16 * nn.functional.pad(bias[..., :3], (0, 2), value=-100.0).tanh(),
        lambda bias, shut: (
            nn.functional.pad(bias[..., :3], (0, 2)) + nn.functional.pad(bias[..., :3], (0, 2), value=-9)
        ),
        lambda bias, shut: torch.cat([bias[..., :3], torch.full((1, 2, 5, 2), -torch.inf)], -1),
        lambda bias, shut: 2 * torch.cat([bias[..., :3], shut[:, 3:].expand(1, 2, 5, 2)], -1),
        lambda bias, shut: torch.slice_scatter(torch.full((1, 2, 5, 5), -torch.inf), bias[..., :3], 3, 0, 3),
    ],
    ids=[
        *("a mask beside it", "entries of it chosen", "both", "a mask alone"),
        *("padded", "padded and computed with", "padded twice", "numbers beside it", "a mask in a row with it"),
        "written into numbers",
    ],
)
def test_what_is_added_to_a_learned_bias_or_cut_out_of_it_is_a_mask(more: Callable[[Tensor, Tensor], Tensor]) -> None:
    gm = fxgrow.trace(Biased(more), (torch.randn(2, 5, 8),))
    with pytest.raises(fxgrow.UsageError, match="attention in this network is masked"):
        fxgrow.deepen(gm, after="add", block="transformer")


class Flattened(nn.Module):
    """A mean over the pixels of an image, of whatever size, in front of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x.flatten(2).mean(-1))
        return y


def test_a_block_that_would_take_the_size_of_the_example_only(monkeypatch: pytest.MonkeyPatch) -> None:
    gm = fxgrow.trace(Flattened().eval(), (torch.ones(2, 3, 4, 4),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="flatten")
    monkeypatch.setattr("fxgrow.insertion.inserting.check_other_sizes", lambda *_: None)
    forced = fxgrow.deepen(gm, after="flatten")
    forced(torch.ones(2, 3, 4, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        forced(torch.ones(2, 3, 5, 5))


class Pooled(nn.Module):
    """A mean over what pooling leaves of an image, times a scale that is repeated along it."""

    def __init__(self, pool: nn.Module, *, scaled: bool) -> None:
        super().__init__()
        self.pool, self.head = pool, nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.full((1, 1, 1), 0.5)) if scaled else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.pool(x)
        h = h if self.scale is None else h * self.scale
        y: Tensor = self.head(h.flatten(2).mean(-1))
        return y


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("window", "size"), [(2, 2), (5, 5), (40, 48), (70, 70)])
def test_positions_that_pooling_makes_one_of(window: int, size: int, scaled: bool) -> None:
    model = Pooled(nn.AvgPool2d(window), scaled=scaled).eval()
    gm = fxgrow.trace(model, (torch.ones(2, 3, size, size),))
    with pytest.raises(fxgrow.GrowthRefused, match=r"2x3x1 passes .* which the block would not take"):
        fxgrow.deepen(gm, after="flatten")
    fxgrow.deepen(gm, after="pool")


@pytest.mark.parametrize("side", [1, 2])
def test_positions_whose_number_is_the_models(side: int) -> None:
    model = Pooled(nn.AdaptiveAvgPool2d(side), scaled=True).double().eval()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 8, 8, dtype=torch.float64),))
    grown = fxgrow.deepen(gm, after="flatten")
    for size in (1, 8, 9, 200):
        x = torch.randn(3, 3, size, size, dtype=torch.float64)
        torch.testing.assert_close(grown(x), model(x), rtol=0, atol=1e-12)


class Cut(nn.Module):
    """A table of positions, cut to the size of the input, which is at most its own; and a mean over the positions."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.table, self.head, self.rank = nn.Parameter(torch.randn(3, *(8,) * rank)), nn.Linear(3, 2), rank

    def forward(self, x: Tensor) -> Tensor:
        table: Tensor = self.table
        for axis in range(1, self.rank + 1):
            table = table.narrow(axis, 0, x.shape[axis + 1])
        y: Tensor = self.head(torch.tanh(x + table).flatten(2).mean(-1))
        return y


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 3, 8, 8)])
def test_positions_up_to_the_length_of_a_table(shape: tuple[int, ...]) -> None:
    gm = fxgrow.trace(Cut(len(shape) - 2).eval(), (torch.ones(shape),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="flatten")


class Averaged(nn.Module):
    """The mean over the last axis of a function of the input, and a layer."""

    def __init__(self, body: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(channels, 2)
        self.table = nn.Parameter(torch.randn(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.tanh(self.body(x)).mean(-1))
        return y


def stacked(x: Tensor) -> Tensor:
    """Two frames in one, with a table of eight positions."""
    h = x.reshape(x.shape[0], x.shape[1] // 2, 6)
    return (h + torch.ones(8, 6)[: h.shape[1]]).transpose(1, 2)


@pytest.mark.parametrize(
    ("body", "channels", "shape"),
    [
        (nn.Identity(), 4, (2, 4, 4)),  # the length is what the channels are
        (lambda x: torch.cat([x, x], 1), 8, (2, 4, 4)),
        (stacked, 6, (2, 16, 3)),  # only even lengths, and at most 16
        (nn.Sequential(nn.AvgPool2d(7, stride=64), nn.Flatten(2)), 3, (2, 3, 8, 8)),  # one position up to 70 pixels
        (nn.Sequential(*(nn.Conv1d(3, 3, 3, 2, 1) for _ in range(5))), 3, (2, 3, 8)),  # up to a length of 32
    ],
)
def test_positions_of_which_there_are_more_for_inputs_that_are_hard_to_find(
    body: Callable[[Tensor], Tensor], channels: int, shape: tuple[int, ...]
) -> None:
    gm = fxgrow.trace(Averaged(body, channels).eval(), (torch.ones(shape),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="tanh", block="mlp")


class Windows(nn.Module):
    """A user's block with a window of four, without padding."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, channels, 4, 4), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(self.last(torch.tanh(self.first(x))), size=x.shape[2:])


def test_a_users_block_that_takes_no_smaller_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    gm = fxgrow.trace(model, (torch.ones(2, 3, 4, 4),))
    with pytest.raises(fxgrow.GrowthRefused, match="which the block would not take"):
        fxgrow.deepen(gm, after="1", block=Windows)


def test_a_batch_of_one_sample_behind_global_pooling() -> None:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(*layers).double()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 8, 8, dtype=torch.float64),))
    one = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    for place in ("3", "4", "5"):
        plan = fxgrow.plan_deepen(gm, after=place)  # without a batch norm
        assert not plan.eval_only
        assert torch.allclose(fxgrow.apply(plan, gm).train()(one), copy.deepcopy(model)(one), rtol=0, atol=1e-12)
    plan = fxgrow.plan_deepen(gm, after="3", norm="batch")
    assert plan.eval_only
    assert "in training mode it does not take 1x8x1x1, which passes here for other inputs" in str(plan)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fxgrow.apply(plan, gm).train()(one)
    for place in ("0", "2"):
        assert not fxgrow.plan_deepen(gm, after=place).eval_only
        assert dict(fxgrow.plan_deepen(gm, after=place).inserts[0].settings)["norm"] == "batch"


def test_a_batch_norm_of_small_images() -> None:
    layers = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    model = nn.Sequential(*layers).double()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 8, 8, dtype=torch.float64),))
    small = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    grown = fxgrow.deepen(gm, after="3")
    assert torch.allclose(grown.train()(small), copy.deepcopy(model)(small), rtol=0, atol=1e-12)
    assert fxgrow.plan_deepen(gm, after="3", norm="batch").eval_only
    assert not fxgrow.plan_deepen(gm, after="0", norm="batch").eval_only


class Positions(nn.Module):
    """A table of positions, cut to the height of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.table = nn.BatchNorm2d(3), nn.Parameter(torch.randn(1, 3, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x) + self.table[:, :, : x.shape[2]]
        return y


def test_a_batch_norm_of_a_table_that_is_cut_to_one_entry() -> None:
    model = Positions().double()
    gm = fxgrow.trace(model, (torch.randn(2, 3, 4, 4, dtype=torch.float64),))
    flat = torch.randn(2, 3, 1, 4, dtype=torch.float64)
    grown = fxgrow.deepen(gm, after="getitem_1")
    assert torch.allclose(grown.train()(flat), copy.deepcopy(model)(flat), rtol=0, atol=1e-12)
    assert fxgrow.plan_deepen(gm, after="getitem_1", norm="batch").eval_only


def test_a_block_of_the_norms_that_do_not_fit() -> None:
    gm = fxgrow.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), (torch.ones(2, 3, 8, 8),))
    with pytest.raises(UsageError, match="choose another norm= or block="):
        fxgrow.deepen(gm, after="1", norm="layer")
    fxgrow.deepen(gm, after="1", norm="group")


def test_a_block_in_a_model_without_weights_has_the_dtype_of_what_passes_there() -> None:
    class Weightless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x).view(x.shape[0], 3)

    model = Weightless()
    for x in (torch.ones(2, 3), torch.ones(2, 3, dtype=torch.float64)):
        grown = fxgrow.deepen(fxgrow.trace(model, (x,)), after="tanh")
        assert {p.dtype for p in grown.parameters()} == {x.dtype}
        assert torch.equal(grown(x), model(x))


def test_a_block_has_no_device_in_a_model_without_weights() -> None:
    gm = fxgrow.trace(nn.Tanh(), (torch.ones(2, 3),))
    analysis = analysis_of(gm)
    position = find_position(gm, analysis, next(n.name for n in gm.graph.nodes), "after")
    elsewhere = copy.copy(position.value)
    elsewhere.device = torch.device("meta")
    around = look_around(gm, analysis, position.node, position.value)
    assert nearest_tensor(gm, around, position.value, "here") == ""
    with pytest.raises(fxgrow.GrowthRefused, match="no weights on whose device a new block could be"):
        nearest_tensor(gm, around, elsewhere, "here")


class Fills(nn.Module):
    """A tensor that is read between two writes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Filled in pieces."""
        table = x.new_ones(3, 2)
        table[1:] = 0.5
        table[0] = x[0]
        table[2] = table[0] + 1
        y: Tensor = table.mean() * x * self.w
        return y


def test_a_block_does_not_miss_what_is_written_before_it() -> None:
    net, x = Fills().eval(), torch.randn(2, 2, dtype=torch.float64)
    traced = fxgrow.trace(net, (x,))
    table = next(n for n in traced.graph.nodes if n.target in ("new_ones", torch.ones))
    for reader in [user.name for user in table.users if "setitem" not in user.name]:
        try:
            deeper = fxgrow.deepen(traced, before=reader)
        except fxgrow.GrowthRefused:
            continue
        torch.testing.assert_close(deeper(x), net(x), rtol=0, atol=1e-12)
