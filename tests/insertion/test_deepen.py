"""Deepening keeps the function: every scheme and block, on every kind of network, in the modes that are claimed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow

from .deepened import EXACT, apart, gradients, traced

BLOCKS: list[tuple[str, str, str]] = [
    ("resnet", "layer2", "basic"),
    ("resnet", "layer3", "bottleneck"),
    ("resnet", "layer1", "depthwise"),
    ("resnet", "layer3", "clone"),
    ("resnet", "flatten", "mlp"),
    ("mlp of three", "1", "mlp"),
    ("vgg11_bn", "features.6", "basic"),
    ("mobilenet_v2", "features.5", "depthwise"),
    ("mobilenet_v2", "features.5", "clone"),
    ("resnet50", "layer3.2", "clone"),
    ("tokens", "layers.1", "transformer"),
    ("tokens", "layers.1", "clone"),
    ("tokens", "embed", "mlp"),
    ("vit", "encoder.layers.encoder_layer_1", "transformer"),
    ("vit", "encoder.layers.encoder_layer_1", "clone"),
    ("vit", "conv_proj", "basic"),
]


@pytest.mark.parametrize("scheme", ["r2r", "zero"])
@pytest.mark.parametrize(("name", "place", "block"), BLOCKS)
def test_a_silent_block_changes_nothing_in_either_mode(name: str, place: str, block: str, scheme: str) -> None:
    gm, x = traced(name)
    plan = fxgrow.plan_deepen(gm, after=place, block=block, scheme=scheme, count=2)
    deeper = fxgrow.apply(plan, gm)
    assert [insert.block for insert in plan.inserts] == [block, block]
    assert apart(gm, deeper, x) < EXACT
    assert plan.eval_only == ()
    assert apart(gm, deeper, x, training=True) < EXACT
    old = gm.state_dict()
    assert all(torch.equal(deeper.state_dict()[k], t) for k, t in old.items())


@pytest.mark.parametrize(("name", "place", "block"), BLOCKS)
def test_every_weight_of_an_r2r_block_learns_unless_a_norm_ends_it(name: str, place: str, block: str) -> None:
    gm, x = traced(name)
    plan = fxgrow.plan_deepen(gm, after=place, block=block)
    deeper, (insert,) = fxgrow.apply(plan, gm), plan.inserts
    found = gradients(deeper, x, insert.name)
    weights = {n: g for n, g in found.items() if deeper.get_parameter(n).dim() > 1}
    slow = {f"{insert.name}.{n}" for n in insert.slow}
    ends_in_norm = block == "clone" and not any(t.states for t in insert.tensors)
    assert all(g > 1e-12 for n, g in weights.items() if n not in slow)
    assert all(g < 1e-12 for n, g in found.items() if n in slow)
    # in a row of three layers, gradients of halves cancel on their way to the first
    assert ends_in_norm or {n for n in weights if n in slow} <= {f"{insert.name}.conv1.weight"}
    assert bool(slow & set(weights)) == (ends_in_norm or block == "bottleneck")
    assert any(g > 1e-12 for g in found.values())
    if not ends_in_norm:
        assert all(bool(deeper.get_parameter(n).all()) for n in weights)  # no weight is zero


@pytest.mark.parametrize(
    ("name", "place", "options", "modes"),
    [
        ("resnet", "layer2", {}, "eval"),
        ("resnet", "layer2", {"norm": "none"}, "both"),
        ("resnet", "relu", {"kernel": 5, "norm": "none", "count": 2}, "both"),
        ("mlp of three", "1", {}, "both"),
        ("mlp of three", "2", {"activation": "none"}, "both"),
        ("mlp of three", "2", {}, "both"),  # σ follows in any case
        ("vgg11_bn", "features", {"norm": "batch"}, "eval"),
        ("mobilenet_v2", "features.4.conv.0", {}, "eval"),
        ("tokens", "embed", {"activation": "none"}, "both"),
    ],
)
def test_an_identity_layer_changes_nothing(name: str, place: str, options: dict[str, Any], modes: str) -> None:
    gm, x = traced(name)
    plan = fxgrow.plan_deepen(gm, after=place, scheme="net2net", **options)
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    assert bool(plan.eval_only) == (modes == "eval")
    if modes == "both":
        assert apart(gm, deeper, x, training=True) < EXACT
    else:
        assert apart(gm, deeper, x, training=True) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_identity_layers_numbers_are_exact_in_every_type(dtype: torch.dtype) -> None:
    gm, x = traced("resnet")
    gm.to(dtype)
    deeper = fxgrow.deepen(gm, after="layer2", scheme="net2net")
    assert deeper.get_parameter("conv1.weight").dtype is dtype
    assert apart(gm.double(), deeper.double(), x.double()) < EXACT


@pytest.mark.parametrize(
    ("name", "place", "options"),
    [
        ("resnet", "layer2.conv1", {}),
        ("resnet", "layer2.conv1", {"hidden": 24, "kernel": 5}),
        ("resnet", "conv1", {"kernel": 7, "count": 2, "hidden": 4}),
        ("resnet", "layer2.downsample.0", {"kernel": 3}),
        ("mobilenet_v2", "features.5.conv.1.0", {"hidden": 384}),
        ("mlp of three", "2", {"hidden": 20}),
        ("mlp of three", "2", {"activation": "gelu", "count": 3}),
        ("tokens", "layers.0.up", {"hidden": 32}),
        ("vit", "conv_proj", {"hidden": 8}),
    ],
)
def test_a_factored_layer_computes_the_same_with_a_learnable_bend(
    name: str, place: str, options: dict[str, Any]
) -> None:
    gm, x = traced(name)
    deeper = fxgrow.deepen(gm, after=place, scheme="morphism", **options)
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT
    bends = [n for n, p in deeper.named_parameters() if "_factor" in n and p.numel() == 1]
    assert len(bends) == options.get("count", 1)
    found = gradients(deeper, x, "")
    assert all(found[n] > 1e-12 for n in found if "_factor" in n and deeper.get_parameter(n).dim() > 1)
    with torch.no_grad():  # behind a ReLU the identity shows the bend no negative value, until it has moved
        for p in deeper.parameters():
            p.sub_(p.grad, alpha=1e-2)  # type: ignore[arg-type]  # all have one
            p.grad = None
    assert all(gradients(deeper, x, "")[n] > 1e-12 for n in bends)
    deeper = fxgrow.deepen(gm, after=place, scheme="morphism", **options)
    with torch.no_grad():
        for n in (n for n in found if "_factor" in n and deeper.get_parameter(n).dim() > 1):
            deeper.get_parameter(n).normal_()
        straight = copy.deepcopy(deeper)
        for n in bends:
            deeper.get_parameter(n).copy_(torch.tensor(0.5))
    assert apart(straight, deeper, x) > 1e-9  # half-way between linear and σ


@pytest.mark.parametrize("padding", [0, 2, "same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_a_larger_window_is_exact_at_the_borders(padding: Any, mode: Any) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=padding, dilation=2, groups=2, padding_mode=mode)
    model, x = nn.Sequential(conv, nn.ReLU(), nn.Conv2d(6, 3, 1)).double().eval(), torch.randn(2, 4, 14, 14).double()
    gm = fxgrow.trace(model, (x,))
    deeper = fxgrow.deepen(gm, after="0", scheme="morphism", hidden=8, kernel=5)
    assert deeper.get_parameter("0.weight").shape == (6, 4, 5, 5)
    assert apart(gm, deeper, x) < EXACT


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions_of_any_rank(dims: int) -> None:
    torch.manual_seed(0)
    conv: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm: Any = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    model = nn.Sequential(conv(2, 6, 3, padding=1), norm(6), nn.SiLU(), conv(6, 2, 1)).double().eval()
    x = torch.randn(3, 2, *([6] * dims)).double()
    gm = fxgrow.trace(model, (x,))
    for block in ("basic", "bottleneck", "depthwise"):
        plan = fxgrow.plan_deepen(gm, after="2", block=block, hidden=7)  # one unit without a twin
        deeper = fxgrow.apply(plan, gm)
        assert dict(plan.inserts[0].settings)["norm"] == "batch"
        assert apart(gm, deeper, x) < EXACT
        assert apart(gm, deeper, x, training=True) < EXACT


def test_defaults_come_from_the_neighbourhood() -> None:
    kinds = {
        ("resnet", "layer2"): ("basic", "batch", "ReLU", 32),
        ("resnet", "flatten"): ("mlp", "none", "ReLU", 64),
        ("mlp of three", "1"): ("mlp", "none", "ReLU", 16),
        ("tokens", "layers.0"): ("transformer", "layer", "GELU", 64),
        ("mobilenet_v2", "features.5"): ("basic", "batch", "ReLU6", 32),
    }
    for (name, place), wanted in kinds.items():
        gm, _ = traced(name)
        (insert,) = fxgrow.plan_deepen(gm, after=place).inserts
        settings = dict(insert.settings)
        assert (insert.block, settings["norm"], settings["activation"], settings["hidden"]) == wanted


def test_new_weights_have_the_spread_of_the_preceding_kernel() -> None:
    gm, _ = traced("resnet")
    old = gm.get_parameter("layer2.conv2.weight").detach()
    for init, wanted in (("match", float(old.std())), ("kaiming", (2 / (32 * 9)) ** 0.5)):
        deeper = fxgrow.deepen(gm, after="layer2", init=init)
        for name in ("conv1", "conv2"):
            new = deeper.get_parameter(f"layer2_deeper1.{name}.weight").detach()
            assert abs(float(new.std()) / wanted - 1) < 0.05
            assert float(new.abs().max()) <= wanted * 3**0.5 * 1.0001  # uniform


def test_a_causal_network_gets_causal_attention() -> None:
    gm, x = traced("causal tokens")
    deeper = fxgrow.deepen(gm, after="layers.1", seed=1)
    with torch.no_grad():
        for parameter in deeper.get_submodule("layers.1_deeper1").parameters():
            parameter.normal_(0, 0.3)
    later = x.clone()
    later[:, -1] += 1
    assert torch.allclose(deeper(x)[:, :-1], deeper(later)[:, :-1])
    assert not torch.allclose(deeper(x)[:, -1], deeper(later)[:, -1])


class Wiggle(nn.Module):
    """A user's block, without a skip path of its own."""

    def __init__(self, channels: int, last: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, 10, 3, padding=1), nn.Conv2d(10, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), 0.5))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.tanh(self.first(x))) * self.scale
        return y if self.last is None else self.last(y)


class Skipping(Wiggle):
    """The same with one."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


@pytest.mark.parametrize("scheme", ["r2r", "zero"])
@pytest.mark.parametrize("factory", [Wiggle, Skipping, lambda c: Wiggle(c, nn.GELU())])
def test_a_users_own_block(factory: Any, scheme: str) -> None:
    gm, x = traced("resnet")
    plan = fxgrow.plan_deepen(gm, after="layer2", block=factory, scheme=scheme)
    deeper = fxgrow.apply(plan, gm)
    assert apart(gm, deeper, x) < EXACT
    assert apart(gm, deeper, x, training=True) < EXACT
    found = gradients(deeper, x, "layer2_deeper1")
    if scheme == "r2r":
        assert all(g > 1e-12 for n, g in found.items() if n != "layer2_deeper1.scale")
    assert found["layer2_deeper1.second.weight"] > 1e-12
    assert "tests.insertion.test_deepen:" in plan.inserts[0].settings[0][1]  # type: ignore[operator]  # a text


def test_the_proof_of_a_factor_names_its_own_layer() -> None:
    linear = fxgrow.trace(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval(), (torch.randn(2, 4),))
    plain = fxgrow.plan_deepen(linear, after="2", scheme="morphism", activation="none")
    (line,) = plain.proof
    assert line.startswith("2_factor1.linear: linear: W' U = W entry by entry")
    assert len(fxgrow.plan_deepen(linear, after="2", scheme="morphism", activation="tanh").proof) == 2
    image = fxgrow.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3)).eval(), (torch.randn(1, 3, 8, 8),))
    assert fxgrow.plan_deepen(image, after="1", scheme="morphism").proof[0].startswith("1_factor1.conv: conv2d: ")
