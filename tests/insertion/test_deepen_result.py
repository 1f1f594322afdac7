"""What deepening gives back: a native, independent model that can be grown, traced, saved and compiled again."""

from __future__ import annotations

import copy
import importlib
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow

from ..untouched import snapshot
from .deepened import EXACT, apart, gradients, traced

INSERT = importlib.import_module("fxgrow.rewrite.insert_blocks")
WRITER = importlib.import_module("fxgrow.rewrite.apply")
NATIVE = {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear, nn.LayerNorm, nn.GELU, nn.Module}
PLACES = {"resnet": ["layer1", "layer2"], "tokens": ["layers.0", "embed"]}


@pytest.mark.parametrize("name", PLACES)
def test_deepen_widen_deepen_chains(name: str) -> None:
    gm, x = traced(name)
    first = fxgrow.deepen(gm, after=PLACES[name])
    layer = {"resnet": "layer2_deeper1.conv1", "tokens": "embed_deeper1.linear1"}[name]
    place = layer.partition(".")[0]
    wide = fxgrow.widen(first, layer, factor=1.5)
    stream = fxgrow.widen(wide, layer, by=2)
    again = fxgrow.deepen(stream, after=place, count=2)
    inside = fxgrow.deepen(again, after=f"{place}.act", block="mlp" if name == "tokens" else "basic")
    for model in (first, wide, stream, again, inside):
        model.graph.lint()
        assert apart(gm, model, x) < EXACT
        assert apart(gm, model, x, training=True) < EXACT
    assert fxgrow.verify(gm, inside).held
    assert all(check.calm for check in fxgrow.verify(gm, again).blocks)


def test_the_stream_through_a_new_block_widens() -> None:
    gm, x = traced("resnet")
    deeper = fxgrow.deepen(gm, after="layer3", block="bottleneck")
    wide = fxgrow.widen(deeper, "layer2.conv2", factor=1.5)
    assert wide.get_parameter("layer3_deeper1.conv3.weight").shape[0] == 48
    assert apart(gm, wide, x) < EXACT


def test_new_modules_are_native_and_named_after_their_place() -> None:
    gm, _ = traced("resnet")
    deeper = fxgrow.deepen(gm, after=["layer2", "layer3.conv1"], before="fc", count=2)
    new = [n for n, _ in deeper.named_modules() if n not in dict(gm.named_modules())]
    assert {n for n in new if n.rpartition(".")[0] not in new} == {
        "layer2_deeper1",
        "layer2_deeper2",
        "layer3.conv1_deeper1",
        "layer3.conv1_deeper2",
        "fc_ahead1",
        "fc_ahead2",
    }
    assert all(type(deeper.get_submodule(n)) in NATIVE | {nn.BatchNorm1d} for n in new)
    again = fxgrow.deepen(deeper, after="layer2")
    assert "layer2_deeper3" in dict(again.named_modules())


def test_the_result_is_independent_and_the_model_untouched() -> None:
    gm, x = traced("resnet")
    before = snapshot(gm)
    deeper = fxgrow.deepen(gm, after="layer2", block="clone")
    assert snapshot(gm) == before
    shared = {t.data_ptr() for t in gm.parameters()} & {t.data_ptr() for t in deeper.parameters()}
    assert not shared
    with torch.no_grad():
        for parameter in deeper.parameters():
            parameter.add_(1)
    assert snapshot(gm) == before
    twin = copy.deepcopy(deeper)
    assert torch.equal(twin(x), deeper(x))
    loaded = pickle.loads(pickle.dumps(deeper))
    assert torch.equal(loaded(x), deeper(x))


def test_the_result_is_traced_saved_and_compiled_again() -> None:
    gm, x = traced("tokens")
    deeper = fxgrow.deepen(gm, after="layers.1")
    retraced = fx.symbolic_trace(deeper)
    assert torch.equal(retraced(x), deeper(x))
    wide = fxgrow.widen(fxgrow.trace(retraced, (x,)), "layers.1_deeper1.linear1", by=4)
    assert apart(gm, wide, x) < EXACT
    file = io.BytesIO()
    torch.save(deeper.state_dict(), file)
    file.seek(0)
    other = fxgrow.deepen(gm, after="layers.1", seed=3)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(x), deeper(x))
    compiled = torch.compile(deeper, backend="aot_eager")
    assert torch.allclose(compiled(x), deeper(x), atol=1e-12)


def test_device_dtype_and_flags_are_the_neighbourhoods() -> None:
    gm, x = traced("resnet")
    gm = gm.to(torch.bfloat16)
    gm.train()
    deeper = fxgrow.deepen(gm, after="layer2", example_inputs=(x.to(torch.bfloat16),))
    block = deeper.get_submodule("layer2_deeper1")
    assert {p.dtype for p in block.parameters()} == {torch.bfloat16}
    assert all(m.training for m in block.modules())
    meta = fxgrow.deepen(gm.to("meta"), after="layer2", example_inputs=(x.to("meta", torch.bfloat16),))
    assert {p.device.type for p in meta.parameters()} == {"meta"}


def test_values_depend_on_the_seed_and_the_name_alone() -> None:
    gm, _ = traced("resnet")
    one = fxgrow.deepen(gm, after=["layer1", "layer2"])
    state = torch.random.get_rng_state()
    two = fxgrow.deepen(fxgrow.deepen(gm, after="layer2"), after="layer1")
    assert torch.equal(torch.random.get_rng_state(), state)
    ours, theirs = one.state_dict(), two.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    other = fxgrow.deepen(gm, after="layer2", seed=1).state_dict()
    assert not torch.equal(other["layer2_deeper1.conv1.weight"], ours["layer2_deeper1.conv1.weight"])


class Trouble(BaseException):
    """Something that no `except Exception` catches."""


def on_call(count: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that gets into trouble at its so-and-so-manieth call, after its work is done."""
    calls = 0

    def troubled(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        result = function(*args, **kwargs)
        if calls == count:
            raise Trouble
        return result

    return troubled


POINTS: dict[str, tuple[object, str, int]] = {
    "the first block": (INSERT, "_made", 1),
    "the last values": (INSERT, "fill_block", 4),
    "the first registration": (INSERT, "_register", 1),
    "the second registration": (INSERT, "_register", 2),
    "the nodes": (INSERT, "_write", 3),
    "an old tensor": (WRITER, "_set_tensor", 1),
    "the new graph": (WRITER, "edit_graph", 1),
    "recompilation": (fx.GraphModule, "recompile", 5),
}


@pytest.mark.parametrize("point", POINTS)
def test_trouble_leaves_the_model_as_it_was(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gm, x = traced("resnet")
    wanted, before = gm(x), snapshot(gm)
    scheme = "morphism" if point == "an old tensor" else "r2r"
    places = ["layer1.conv1", "layer3.conv2"] if scheme == "morphism" else ["layer1", "layer3"]
    plan = fxgrow.plan_deepen(gm, after=places, scheme=scheme, count=2, hidden=32)
    owner, name, count = POINTS[point]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, on_call(count, getattr(owner, name)))
        with pytest.raises(Trouble):
            fxgrow.apply(plan, gm, inplace=True)
    assert snapshot(gm) == before
    assert torch.equal(gm(x), wanted)
    grown = fxgrow.apply(plan, gm, inplace=True)
    assert grown is gm
    torch.testing.assert_close(gm(x), wanted)


def test_inplace_gives_the_same_bits_as_a_copy() -> None:
    gm, x = traced("resnet")
    for options in ({"block": "clone"}, {"scheme": "net2net"}, {}):
        copied = fxgrow.deepen(gm, after="layer2", **options)  # type: ignore[arg-type]  # options of three kinds
        inplace = fxgrow.deepen(copy.deepcopy(gm), after="layer2", inplace=True, verify=True, **options)  # type: ignore[arg-type]  # the same
        assert inplace.code == copied.code
        assert torch.equal(inplace(x), copied(x))


def test_the_certificate_tells_scheme_modes_gradients_and_calm() -> None:
    gm, _ = traced("resnet")
    quiet = fxgrow.verify(gm, fxgrow.deepen(gm, after="layer2"))
    assert quiet.held
    assert quiet.schemes == ("r2r",)
    assert [c.block for c in quiet.blocks] == ["layer2_deeper1"]
    assert all(c.silent < 1e-15 and 1e-6 < c.moved < 0.1 for c in quiet.blocks)
    assert all(g.reached for g in quiet.gradients)
    assert all(p.separated for p in quiet.pairs)
    zero = fxgrow.verify(gm, fxgrow.deepen(gm, after="layer2", scheme="zero"))
    unreached = {g.parameter for g in zero.gradients if not g.reached}
    assert unreached == {f"layer2_deeper1.{n}" for n in ("conv1.weight", "norm.weight", "norm.bias")}
    assert "its gradient is zero until step 2, because the layer after it starts at zero" in str(zero)
    identity = fxgrow.verify(gm, fxgrow.deepen(gm, after="layer2", scheme="net2net"))
    assert identity.held
    assert "holds in evaluation mode only, because of layer2_deeper1.norm" in str(identity)


class Cancelling(nn.Module):
    """A block that ends in a norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU()
        self.second, self.norm = nn.Conv2d(8, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.second(self.act(self.first(x))))
        return y


def test_cancelling_in_front_of_a_norm_is_not_done_and_would_not_be_calm() -> None:
    gm, x = traced("resnet")
    plan = fxgrow.plan_deepen(gm, after="layer2", block=Cancelling)
    assert plan.inserts[0].silenced == (
        "norm.weight is zero: the block ends in a norm, and nothing may cancel in front of it",
    )
    deeper = fxgrow.apply(plan, gm)
    assert fxgrow.verify(gm, deeper).blocks[0].calm
    assert gradients(deeper, x, "layer2_deeper1")["layer2_deeper1.norm.weight"] > 1e-12
    block: Any = deeper.get_submodule("layer2_deeper1")
    with torch.no_grad():  # now by force
        block.first.weight[1::2] = block.first.weight[::2]
        block.first.bias[1::2] = block.first.bias[::2]
        block.second.weight.normal_()
        block.second.weight[:, 1::2] = -block.second.weight[:, ::2]
        block.norm.weight.fill_(1)
    forced = fxgrow.verify(gm, deeper)
    assert not forced.blocks[0].calm
    assert "use a smaller learning rate" in str(forced)
