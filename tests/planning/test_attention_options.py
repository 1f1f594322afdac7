"""nn.MultiheadAttention with every option: written out exactly, and grown in its stream, its heads and their width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.capture.decomposition.inline_calls import decomposition_of, kind_of
from fxgrow.planning.decompose_attention import decomposed

from ..models.attention import HEADS, OPTIONS, TOKENS, WIDTH, Options, shaken
from .test_attention import EXACT, SCHEMES, VECTORS

AVERAGES = tuple(n for n, o in OPTIONS.items() if o.get("needs", True) and not o.get("each"))
"""Options under which the attention weights are averaged over the heads."""
EACH = tuple(n for n, o in OPTIONS.items() if o.get("each"))
"""Options under which each head's weights are an output."""
Batch = tuple[Tensor, ...]


def apart(model: nn.Module, grown: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        return max(float((a - b).abs().max()) for a, b in zip(model(x), grown(x), strict=True))


def made(option: str) -> tuple[nn.Module, Tensor]:
    options = OPTIONS[option]
    x = VECTORS if options.get("batch_first", True) else VECTORS.transpose(0, 1).contiguous()
    return shaken(Options(**options)), x


def written_out(model: nn.Module, inputs: Batch) -> nn.Module:
    traced = fxgrow.trace(model, inputs)
    analysis = fxgrow.analyse(traced, inputs)
    nodes = [n for n in traced.graph.nodes if kind_of(traced, n)]
    assert nodes
    return decomposed(traced, analysis, [decomposition_of(traced, n, (analysis.program,)) for n in nodes])[0]


@pytest.mark.parametrize("option", OPTIONS)
def test_written_out_it_computes_what_torch_does(option: str) -> None:
    model, x = made(option)
    assert apart(model, written_out(model, (x,)), x) < EXACT


class Alone(nn.Module):
    """Attention over one example without a batch, with a mask for each head, returned as torch returns it."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(WIDTH, HEADS, **options)
        self.mask: Tensor
        self.register_buffer("mask", torch.ones(HEADS, TOKENS, TOKENS, dtype=torch.bool).triu(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        out: tuple[Tensor, Tensor | None] = self.attend(x, x, x, attn_mask=self.mask)
        return out


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}])
def test_an_example_without_a_batch_and_a_tuple_that_is_passed_on(options: dict[str, Any]) -> None:
    model, x = shaken(Alone(**options)), torch.rand(TOKENS, WIDTH, dtype=torch.float64)
    assert apart(model, written_out(model, (x,)), x) < EXACT
    traced = fxgrow.trace(model, (x,))
    assert apart(model, fxgrow.widen(traced, "attend.in_proj_weight", scheme="r2r"), x) < EXACT


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_width_of_heads_grows(option: str, scheme: str) -> None:
    model, x = made(option)
    node = "attend.q_proj_weight" if OPTIONS[option].get("memory") == 6 else "attend.in_proj_weight"
    grown = fxgrow.widen(fxgrow.trace(model, (x,)), node, scheme=scheme)
    assert apart(model, grown, x) < EXACT
    assert apart(model, fxgrow.widen(grown, node, scheme=scheme), x) < EXACT


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_heads_grow_unless_their_weights_are_averaged_or_returned(option: str, scheme: str) -> None:
    model, x = made(option)
    node = "attend.q_proj_weight" if OPTIONS[option].get("memory") == 6 else "attend.in_proj_weight"
    traced = fxgrow.trace(model, (x,))
    if option in AVERAGES and scheme not in ("auto", "net2net"):  # any new head but a copy changes the average
        with pytest.raises(fxgrow.GrowthRefused, match=r"statistic over the whole axis|zeros would get no gradient"):
            fxgrow.widen(traced, node, scheme=scheme, grow="groups")
        return
    grown = fxgrow.widen(traced, node, scheme=scheme, grow="groups")
    assert apart(model, grown, x) < EXACT
    if option in EACH:  # the number of heads is part of the interface: their width grows instead
        assert grown(x)[1].shape == model(x)[1].shape


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("scheme", ["auto", "mean", "net2net"])
def test_the_stream_grows(option: str, scheme: str) -> None:
    model, x = made(option)
    traced = fxgrow.trace(model, (x,))
    if option == "keys from elsewhere" and scheme == "mean":  # their columns are those of the queries
        with pytest.raises(fxgrow.GrowthRefused, match="no gradient would ever reach"):
            fxgrow.widen(traced, "enter", scheme=scheme)
        return
    assert apart(model, fxgrow.widen(traced, "enter", scheme=scheme), x) < EXACT


class Fixed(nn.Module):
    """The function with keys and values that are heads already."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.project, self.leave = nn.Linear(6, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.packed = nn.Parameter(torch.zeros(3 * WIDTH, WIDTH))
        self.k, self.v = (nn.Parameter(torch.zeros(2 * HEADS, 3, WIDTH // HEADS)) for _ in "kv")

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y, _ = F.multi_head_attention_forward(
            x, x, x, WIDTH, HEADS, self.packed, None, None, None, False, 0.0, self.project.weight, self.project.bias,
            need_weights=False, static_k=self.k, static_v=self.v,
        )  # fmt: skip
        out: Tensor = self.leave(x + y)
        return out


def test_what_cannot_be_written_out_says_why() -> None:
    x = VECTORS.transpose(0, 1).contiguous()
    with pytest.raises(
        fxgrow.GrowthRefused, match=r"static_k and static_v are heads already(.|\n)*let the call project"
    ):
        fxgrow.widen(fxgrow.trace(shaken(Fixed()), (x,)), "enter")


class Doubled(nn.MultiheadAttention):
    """A class of the user's own."""

    def forward(self, *given: Any, **options: Any) -> Any:
        """Torch's attention twice over."""
        out, weights = super().forward(*given, **options)
        return 2 * out, weights


class Around(nn.Module):
    """Attention between two maps."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.attend = nn.MultiheadAttention(WIDTH, HEADS)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        x = self.enter(x)
        return (self.leave(x + self.attend(x, x, x)[0]),)


class Whole(fx.Tracer):
    """Keeps every module whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """All of them."""
        return True


CHANGED = {
    "hook": "it has hooks",
    "hook before": "it has hooks",
    "hook on gradients": "it has hooks",
    "forward": "the `forward` of attend has been replaced on the instance",
    "class": "it is a Doubled",
}


@pytest.mark.parametrize("how", CHANGED)
def test_attention_that_is_not_quite_torchs_is_not_written_out(how: str) -> None:
    model, x = shaken(Around()), VECTORS.transpose(0, 1).contiguous()
    module: Any = model.attend
    if how == "hook":
        module.register_forward_hook(lambda _, given, out: (2 * out[0], out[1]))
    elif how == "hook before":
        module.register_forward_pre_hook(lambda _, given: (given[0].tanh(), *given[1:]))
    elif how == "hook on gradients":
        module.register_full_backward_hook(lambda _, inner, outer: (2 * inner[0], *inner[1:]))
    elif how == "forward":
        forward = module.forward
        module.forward = lambda *given, **options: (2 * forward(*given, **options)[0], None)
    else:
        module.__class__ = Doubled
    traced = fx.GraphModule(model, Whole().trace(model))
    assert apart(model, traced, x) < EXACT
    for node in ("attend.in_proj_weight", "enter"):
        with pytest.raises(fxgrow.UsageError if how == "forward" else fxgrow.GrowthRefused) as caught:
            fxgrow.widen(traced, node, example_inputs=(x,))
        way = (
            "write the new `forward` in a subclass" if how == "forward" else "make attend a plain nn.MultiheadAttention"
        )
        assert all(text in str(caught.value) for text in (CHANGED[how], way))


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_it_returns_lies_in_memory_as_torchs_own_so_that_dropout_behind_it_draws_the_same(
    batch_first: bool,
) -> None:
    attend = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first).double()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.attend = nn.Linear(6, WIDTH).double(), attend

        def forward(self, x: Tensor) -> Tensor:
            y = self.enter(x)
            return F.dropout(self.attend(y, y, y, need_weights=False)[0], 0.5, self.training)

    traced = fxgrow.trace(Net().train(), (VECTORS,))
    grown = fxgrow.widen(traced, "enter", scheme="zero", by=HEADS)
    certificate = fxgrow.verify(traced, grown)
    assert certificate.held
    assert {e.mode for e in certificate.errors} == {"eval", "training"}
