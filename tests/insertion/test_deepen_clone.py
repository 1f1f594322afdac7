"""Clones: the block that is copied, what keeps it silent, and what a deeper model of the same class calls it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import fxgrow

from .deepened import EXACT, Tokens, apart, traced

ResNet, BasicBlock = torchvision.models.ResNet, torchvision.models.resnet.BasicBlock
Bottleneck = torchvision.models.resnet.Bottleneck


def as_deeper(gm: nn.Module, plan: fxgrow.Plan) -> dict[str, Tensor]:
    """A state_dict under the names of the deeper model."""
    keys = dict(plan.clone_keys)
    return {keys.get(name, name): tensor for name, tensor in gm.state_dict().items()}


@pytest.mark.parametrize("scheme", ["r2r", "zero"])
@pytest.mark.parametrize(
    ("name", "block", "place", "count", "layers"),
    [
        ("resnet18", BasicBlock, "layer3.1", 1, [2, 2, 3, 2]),
        ("resnet18", BasicBlock, "layer3", 2, [2, 2, 4, 2]),
        ("resnet18", BasicBlock, "layer3.0", 1, [2, 2, 3, 2]),
        ("resnet18", BasicBlock, "layer4", 1, [2, 2, 2, 3]),
        ("resnet50", Bottleneck, "layer3.5", 1, [3, 4, 7, 3]),
        ("resnet50", Bottleneck, "layer2.1", 2, [3, 6, 6, 3]),
    ],
)
def test_a_cloned_resnet_is_a_deeper_torchvision_resnet(
    name: str, block: Any, place: str, count: int, layers: list[int], scheme: str
) -> None:
    gm, x = traced(name)
    plan = fxgrow.plan_deepen(gm, after=place, block="clone", count=count, scheme=scheme)
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    twin = ResNet(block, layers, num_classes=5).double().eval()
    twin.load_state_dict(as_deeper(deeper, plan))
    with torch.no_grad():
        assert torch.equal(twin(x), deeper(x))
    ours = [(n.op, str(n.target).rpartition(".")[2]) for n in deeper.graph.nodes]
    theirs = [(n.op, str(n.target).rpartition(".")[2]) for n in torch.fx.symbolic_trace(twin).graph.nodes]
    assert [o for o, _ in ours] == [o for o, _ in theirs]


def test_clones_at_several_places_count_on() -> None:
    gm, x = traced("resnet18")
    plan = fxgrow.plan_deepen(gm, after=["layer1.0", "layer1.1", "layer2"], block="clone")
    deeper = fxgrow.apply(plan, gm)
    twin = ResNet(BasicBlock, [4, 3, 2, 2], num_classes=5).double().eval()
    twin.load_state_dict(as_deeper(deeper, plan))
    with torch.no_grad():
        assert torch.equal(twin(x), deeper(x))


def test_a_cloned_vision_transformer_is_a_deeper_one() -> None:
    gm, x = traced("vit")
    plan = fxgrow.plan_deepen(gm, after="encoder.layers.encoder_layer_1", block="clone")
    deeper = fxgrow.apply(plan, gm)
    twin = torchvision.models.VisionTransformer(16, 4, 4, 4, 32, 64, num_classes=5).double().eval()
    twin.load_state_dict(as_deeper(deeper, plan))
    assert apart(twin, deeper, x) < EXACT


def test_by_the_name_of_a_node_the_period_of_the_graph_is_found() -> None:
    gm, _ = traced("tokens")
    last = [n.name for n in gm.graph.nodes if n.name.startswith("add")]
    whole = fxgrow.plan_deepen(gm, after=last[3], block="clone")  # attention and perceptron
    (insert,) = whole.inserts
    assert len(insert.silenced) == 2
    named = fxgrow.plan_deepen(gm, after="layers.1", block="clone")
    assert [t.name for t in named.inserts[0].tensors] == [t.name for t in insert.tensors]


def test_a_clone_shares_masks() -> None:
    class Masked(nn.Module):
        """A transformer whose blocks take a mask."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            bias = mask * -1e9
            for k in range(0, 6, 2):
                scores = (x @ x.transpose(1, 2) + bias).softmax(-1)
                x = x + self.layers[k + 1](torch.tanh(self.layers[k](scores @ x)))
            return x * 1.5

    torch.manual_seed(0)
    model, x = Masked().double().eval(), torch.randn(2, 5, 8).double()
    mask = torch.triu(torch.ones(5, 5), 1).double()
    gm = fxgrow.trace(model, (x, mask))
    plan = fxgrow.plan_deepen(gm, after="add_3" if "add_3" in gm.code else "add_1", block="clone")
    deeper = fxgrow.apply(plan, gm)
    assert torch.allclose(deeper(x, mask), gm(x, mask), atol=1e-12)
    assert "* -1000000000.0" in deeper.code
    assert deeper.code.count("mask *") == 1  # one mask for all


def test_copied_values() -> None:
    gm, x = traced("resnet18")
    deeper = fxgrow.deepen(gm, after="layer3.1", block="clone", init="copy")
    old, new = gm.state_dict(), deeper.state_dict()
    for name in ("conv1.weight", "bn1.running_mean", "bn1.weight", "conv2.weight"):
        assert torch.equal(new[f"layer3.1_deeper1.{name}"], old[f"layer3.1.{name}"])
    assert not new["layer3.1_deeper1.bn2.weight"].any()
    assert apart(gm, deeper, x) < EXACT
    fresh = fxgrow.deepen(gm, after="layer3.1", block="clone")
    ours, theirs = fresh.get_parameter("layer3.1_deeper1.conv1.weight"), old["layer3.1.conv1.weight"]
    assert not torch.equal(ours, theirs)
    assert abs(float(ours.detach().std() / theirs.std()) - 1) < 0.05
    assert float(fresh.get_submodule("layer3.1_deeper1.bn1").running_mean.abs().max()) == 0  # type: ignore[operator]  # a buffer


def test_the_nearest_repeated_block_is_taken_where_none_ends() -> None:
    gm, _ = traced("resnet18")
    (insert,) = fxgrow.plan_deepen(gm, after="layer3.0", block="clone").inserts
    assert dict(insert.settings)["of"] == "layer3_1_relu_1"


@pytest.mark.parametrize("place", ["features.6", "classifier.1"])
def test_a_network_without_repeated_blocks_has_nothing_to_clone(place: str) -> None:
    gm, _ = traced("vgg11_bn")
    with pytest.raises(fxgrow.GrowthRefused, match="the graph repeats no residual block from") as caught:
        fxgrow.plan_deepen(gm, after=place, block="clone")
    assert caught.value.kind is fxgrow.Kind.NO_BLOCK


def test_keys_are_only_given_where_blocks_are_numbered() -> None:
    gm, _ = traced("resnet")
    assert fxgrow.plan_deepen(gm, after="layer1", block="clone").clone_keys != ()
    plain = fxgrow.plan_deepen(gm, after="layer2")
    assert plain.clone_keys == ()
    tokens = fxgrow.trace(Tokens(), (torch.randn(2, 7, 6),))
    keys = dict(fxgrow.plan_deepen(tokens, after="layers.0", block="clone").clone_keys)
    assert keys["layers.0_deeper1.up.weight"] == "layers.1.up.weight"
    assert keys["layers.2.up.weight"] == "layers.3.up.weight"
    assert all(re.match(r"layers\.\d\.", name) for name in keys.values())


def test_a_clone_that_draws_random_numbers_claims_evaluation_mode_only() -> None:
    torch.manual_seed(0)
    model, x = torchvision.models.convnext_tiny(num_classes=5).double().eval(), torch.randn(2, 3, 32, 32).double()
    gm = fxgrow.trace(model, (x,))
    for place in ("features.5.3", "features.5"):  # a block, and a stage of nine
        plan = fxgrow.plan_deepen(gm, after=place, block="clone")
        (insert,) = plan.inserts
        assert insert.silenced == ("block.5.weight is two opposite halves over 1536 units, which are two equal halves",)
        assert plan.eval_only == (f"{insert.name}.stochastic_depth",)
        assert apart(gm, fxgrow.apply(plan, gm), x) < EXACT


class Scaled(nn.Module):
    """A residual block whose norm is scaled by one plus a parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.g, self.up, self.down = nn.Parameter(torch.randn(width)), nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1 + self.g)
        z: Tensor = x + self.down(torch.tanh(self.up(y)))
        return z


class InARow(nn.Module):
    """Blocks in a row, some of them perhaps of another kind."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        self.enter, self.blocks, self.leave = nn.Linear(4, 8), nn.Sequential(*blocks), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.leave(self.blocks(self.enter(x)))
        return y


def test_a_clone_owns_what_its_block_computes_from_parameters_alone() -> None:
    torch.manual_seed(0)
    model, x = InARow(Scaled(8), Scaled(8)).double().eval(), torch.randn(3, 4).double()
    gm = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_deepen(gm, after="blocks.0", block="clone", init="copy")
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    own = deeper.get_parameter("blocks.0_deeper1.g")
    assert torch.equal(own, model.get_parameter("blocks.0.g"))
    assert own.data_ptr() != model.get_parameter("blocks.0.g").data_ptr()
    assert dict(plan.clone_keys)["blocks.0_deeper1.g"] == "blocks.1.g"
    assert (fxgrow.apply(fxgrow.Plan.from_json(plan.to_json()), gm)(x) - model(x)).abs().max() < EXACT


class Rolled(nn.Module):
    """A block that shifts tokens by a number of its own."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.up, self.down, self.shift = nn.Linear(width, 12), nn.Linear(12, width), shift

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(torch.tanh(self.up(torch.roll(x, shifts=[self.shift], dims=[1]))))
        return y


def rolled(depth: int) -> InARow:
    """Blocks that take turns, as in a Swin transformer."""
    return InARow(*(Rolled(8, k % 2) for k in range(depth)))


@pytest.mark.parametrize("depth", [2, 4])
def test_blocks_that_take_turns_are_cloned_together(depth: int) -> None:
    torch.manual_seed(0)
    model, x = rolled(depth).double().eval(), torch.randn(2, 5, 4).double()
    gm = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_deepen(gm, after="blocks", block="clone")
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    twin = rolled(depth + 2).double().eval()
    twin.load_state_dict(as_deeper(deeper, plan))
    assert apart(twin, deeper, x) < EXACT


@pytest.mark.parametrize("place", ["blocks.0", "blocks.1", "blocks.3"])
def test_one_of_two_kinds_that_take_turns_is_cloned_without_keys(place: str) -> None:
    torch.manual_seed(0)
    model, x = rolled(4).double().eval(), torch.randn(2, 5, 4).double()
    gm = fxgrow.trace(model, (x,))
    plan = fxgrow.plan_deepen(gm, after=place, block="clone")
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    shifts = [n.kwargs["shifts"] for n in deeper.graph.nodes if n.target is torch.roll]
    number = int(place[-1])
    assert shifts[number] == shifts[number + 1]  # the block that was named, and its clone
    assert plan.clone_keys == ()  # no model of the class has two of a kind in a row


def test_a_first_block_of_its_own_kind_takes_no_turns() -> None:
    torch.manual_seed(0)
    model, x = InARow(*(Rolled(8, int(k > 0)) for k in range(3))).double().eval(), torch.randn(2, 5, 4).double()
    gm = fxgrow.trace(model, (x,))
    keys = dict(fxgrow.plan_deepen(gm, after="blocks.1", block="clone").clone_keys)
    assert keys["blocks.1_deeper1.up.weight"] == "blocks.2.up.weight"
    assert keys["blocks.2.up.weight"] == "blocks.3.up.weight"
    assert fxgrow.plan_deepen(gm, after="blocks.0", block="clone", scheme="zero").clone_keys == ()


class Cast(nn.Module):
    """A part in single precision."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.a, self.middle, self.b = nn.Linear(6, 6), middle, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.middle(torch.tanh(self.a(x).float()))
        y: Tensor = self.b(h.double())
        return y


@pytest.mark.parametrize("block", ["mlp", "transformer"])
def test_a_block_behind_a_cast_is_of_the_dtype_that_passes_there(block: str) -> None:
    torch.manual_seed(0)
    model, x = Cast(nn.Identity()).double().eval(), torch.randn(2, 4, 6, dtype=torch.float64)
    gm = fxgrow.trace(model, (x,))
    heads = {"causal": False, "heads": 2} if block == "transformer" else {}
    plan = fxgrow.plan_deepen(gm, after="tanh", block=block, **heads)  # type: ignore[arg-type]  # options of a block
    for made in (plan, fxgrow.Plan.from_json(plan.to_json())):
        deeper = fxgrow.apply(made, gm)
        new = [p for name, p in deeper.named_parameters() if "_deeper" in name]
        assert {p.dtype for p in new} == {torch.float32}
        assert (deeper(x) - model(x)).abs().max() < 1e-6  # halves cancel as far as single precision goes
    assert fxgrow.verify(gm, fxgrow.apply(plan, gm)).held


def test_a_clone_keeps_the_dtypes_of_its_block() -> None:
    class Mixed(Scaled):
        """Computed in single precision, but for its scale."""

        def forward(self, x: Tensor) -> Tensor:
            y = (x * (1 + self.g)).float()
            z: Tensor = x + self.down(torch.tanh(self.up(y))).double()
            return z

    torch.manual_seed(0)
    model, x = InARow(Mixed(8), Mixed(8)).double().eval(), torch.randn(3, 4).double()
    for block in model.blocks.children():
        block.get_submodule("up").float()
        block.get_submodule("down").float()
    deeper = fxgrow.deepen(fxgrow.trace(model, (x,)), after="blocks.0", block="clone")
    assert deeper.get_parameter("blocks.0_deeper1.g").dtype is torch.float64
    assert deeper.get_parameter("blocks.0_deeper1.up.weight").dtype is torch.float32
    assert (deeper(x) - model(x)).abs().max() < 1e-6
