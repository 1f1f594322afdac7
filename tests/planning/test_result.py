"""What a widening gives back: old entries, new halves, names, flags, dtypes; and what it must not depend on."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial
from typing import Literal

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.models_zoo import ZOO, ResNet
from fxgrow.plans import Plan, TensorEdit
from fxgrow.plans.layout import leaves, old_positions, partners

from ..untouched import digest, snapshot

Skip = Literal["couple", "reshape"]
GROWING = [name for name, entry in ZOO.items() if not entry.refuses]


def traced(name: str = "resnet") -> tuple[fx.GraphModule, tuple[Tensor, ...]]:
    """A model of the zoo and inputs for it."""
    torch.manual_seed(0)
    inputs = ZOO[name].example_inputs()
    return fxgrow.trace(ZOO[name].build().eval(), inputs), inputs


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by all their names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def bits(model: nn.Module) -> dict[str, object]:
    """Parameters and buffers, in a form that `==` compares bit for bit."""
    return {name: digest(tensor) for name, tensor in tensors(model).items()}


# -- entries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GROWING)
def test_old_entries_stay_and_new_ones_are_twins(name: str) -> None:
    gm, _ = traced(name)
    layers = [site.parameter or site.path for site in fxgrow.inspect(gm).widenable]
    before = snapshot(gm)
    for some in (layers, layers[::-1]):
        plan = next(plan for plan in map(partial(by_halves, gm), some) if plan is not None)
        old, new = tensors(gm), tensors(fxgrow.apply(plan, gm))
        assert list(old) == list(new)
        changed = {n: edit for edit in plan.tensors for n in edit.names}
        for key, tensor in old.items():
            assert new[key].untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
            if key in changed:
                check_entries(tensor, new[key], changed[key])
            else:
                assert digest(new[key]) == digest(tensor)
    assert snapshot(gm) == before


def by_halves(gm: fx.GraphModule, layer: str) -> Plan | None:
    """A layer half as wide again by r2r; None where a norm mixes its units, or that is no possible width."""
    try:
        return fxgrow.plan_widen(gm, layer, factor=1.5, scheme="r2r")
    except fxgrow.GrowthRefused:
        return None


def check_entries(old: Tensor, new: Tensor, edit: TensorEdit) -> None:
    """Old entries bit for bit; halves equal, opposite or zero, as the plan says."""
    kept = new
    for growth in edit.axes:
        kept = take(kept, growth.axis, old_positions(growth.layout))
    assert torch.equal(kept, old)
    for growth in edit.axes:
        for number, leaf in enumerate(leaves(growth.layout)):
            left, right, lone = (take(new, growth.axis, places) for places in partners(growth.layout, number))
            assert torch.equal(right, {"even": left, "odd": -left, "zero": torch.zeros_like(left)}[leaf.state])
            assert left.any() or leaf.state == "zero" or not old.any()  # a bias of zeros stays one
            assert leaf.state == "even" or not lone.any()


def take(tensor: Tensor, axis: int, places: list[int]) -> Tensor:
    """Some units of one axis."""
    return tensor.index_select(axis, torch.tensor(places, dtype=torch.int64))


def test_twins_of_a_plain_volume_lie_side_by_side() -> None:
    gm, _ = traced()
    new = tensors(fxgrow.widen(gm, node="layer2.conv1", by=7))
    for key in ("layer2.conv1.weight", "layer2.bn1.weight", "layer2.bn1.bias", "layer2.bn1.running_var"):
        assert torch.equal(new[key][32:38:2], new[key][33:38:2])
    columns = new["layer2.conv2.weight"][:, 32:]
    assert torch.equal(columns[:, 0:6:2], -columns[:, 1:6:2])
    assert not columns[:, 6].any()  # the one without a twin
    assert new["layer2.conv1.weight"][38].any()
    spread = tensors(gm)["layer2.conv1.weight"].std() / new["layer2.conv1.weight"][32:].std()
    assert 0.8 < spread < 1.25


def test_values_depend_on_the_seed_and_not_on_global_random_state() -> None:
    gm, _ = traced()
    first = bits(fxgrow.widen(gm, node="layer2.conv1", seed=3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert bits(fxgrow.widen(gm, node="layer2.conv1", seed=3, verify=True)) == first
    assert torch.equal(torch.get_rng_state(), state)
    other = bits(fxgrow.widen(gm, node="layer2.conv1", seed=4))
    assert {k for k in first if first[k] != other[k]} == {"layer2.conv1.weight", "layer2.conv2.weight"}


def test_the_order_of_widenings_does_not_matter() -> None:
    gm, _ = traced("resnet_bottleneck")
    a, b = "layer1.conv1", "layer3.conv2"
    together = bits(fxgrow.widen(gm, node=[a, b], by=4))
    assert bits(fxgrow.widen(gm, node=[b, a], by=4)) == together
    assert bits(fxgrow.widen(fxgrow.widen(gm, node=a, by=4), node=b, by=4)) == together
    assert bits(fxgrow.widen(fxgrow.widen(gm, node=b, by=4), node=a, by=4)) == together
    meeting = ["layer1.conv1", "layer1.conv2"]  # two sides of one weight
    assert bits(fxgrow.widen(gm, node=meeting, by=4)) == bits(fxgrow.widen(gm, node=meeting[::-1], by=4))


# -- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", ["couple", "reshape"])
def test_copies_files_and_pickles_of_the_result_work(skip: Skip) -> None:
    gm, inputs = traced()
    grown = fxgrow.widen(gm, node=["layer1.conv2", "layer2.conv1"], skip=skip)
    assert list(grown.state_dict()) == list(gm.state_dict())
    wanted = grown(*inputs)
    assert torch.equal(copy.deepcopy(grown)(*inputs), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(grown))(*inputs), wanted)
    file = io.BytesIO()
    torch.save(grown.state_dict(), file)
    file.seek(0)
    again = copy.deepcopy(grown)
    for tensor in tensors(again).values():
        tensor.detach().zero_()
    again.load_state_dict(torch.load(file))
    assert torch.equal(again(*inputs), wanted)


def test_a_coupled_result_is_the_same_class_built_wider() -> None:
    gm, inputs = traced()
    grown = fxgrow.widen(fxgrow.widen(gm, node="conv1", to=20), node=["layer2.conv2", "layer3.conv1"], to=40)
    native = ResNet(stem=20, widths=(20, 40, 40, 64), hidden=(16, 32, 40, 64)).eval()
    native.load_state_dict(grown.state_dict())
    assert torch.equal(native(*inputs), grown(*inputs))
    wanted = {path: repr(module) for path, module in native.named_modules() if not any(module.children())}
    assert {path: repr(module) for path, module in grown.named_modules() if path in wanted} == wanted


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dtype_memory_format_and_flags_are_kept(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = ResNet().to(dtype=dtype, memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's
    model.get_submodule("layer2.bn1").eval()
    model.get_submodule("layer3").requires_grad_(False)
    gm = fxgrow.trace(model, (torch.zeros(2, 1, 8, 8, dtype=dtype),))
    before = snapshot(gm)
    grown = fxgrow.widen(gm, node=["layer2.conv1", "layer3.conv1", "layer1.conv2"], skip="reshape", adapter="conv")
    assert snapshot(gm) == before
    assert {path: m.training for path, m in grown.named_modules() if not path.startswith("adapt")} == {
        path: m.training for path, m in model.named_modules()
    }
    old = tensors(gm)
    for key, tensor in tensors(grown).items():
        if key in old:
            assert tensor.requires_grad == old[key].requires_grad
            assert type(tensor) is type(old[key])
            assert tensor.dtype == old[key].dtype
        elif tensor.is_floating_point():
            assert tensor.dtype == dtype
    assert not grown.get_parameter("layer3.conv1.weight").requires_grad
    for key in ("layer2.conv1.weight", "layer2.conv2.weight"):
        assert grown.get_parameter(key).is_contiguous(memory_format=torch.channels_last)
        assert not grown.get_parameter(key).is_contiguous()


@pytest.mark.parametrize("skip", ["couple", "reshape"])
def test_a_model_on_the_meta_device_is_analysed_planned_and_grown(skip: Skip) -> None:
    with torch.device("meta"):
        model = ResNet()
    gm, nodes = fxgrow.trace(model), ["layer2.conv1", "layer3.conv2"]
    plan = fxgrow.plan_widen(gm, nodes, skip=skip)
    grown = fxgrow.apply(plan, gm)
    assert all(t.is_meta for t in tensors(grown).values())
    real, inputs = traced()
    real_grown = fxgrow.apply(plan, real)  # a plan is data: it fits any copy of the model
    assert {k: t.shape for k, t in tensors(grown).items()} == {k: t.shape for k, t in tensors(real_grown).items()}
    assert grown.code == real_grown.code
    assert grown(torch.zeros(2, 1, 8, 8, device="meta")).shape == (2, 10)
    assert fxgrow.verify(real, real_grown, example_inputs=inputs, training=False).held


@pytest.mark.parametrize(
    ("skip", "adapter"), [("couple", "pad"), ("reshape", "pad"), ("reshape", "conv")], ids=["couple", "pad", "conv"]
)
def test_the_result_compiles_without_graph_breaks(skip: Skip, adapter: Literal["pad", "conv"]) -> None:
    gm, inputs = traced()
    grown = fxgrow.widen(gm, node=["layer2.conv1", "layer3.conv2"], skip=skip, adapter=adapter)
    torch._dynamo.reset()
    compiled = torch.compile(grown, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), grown(*inputs))


@pytest.mark.parametrize(
    ("norm", "attribute"),
    [
        (nn.InstanceNorm2d(4), "num_features"),
        (nn.BatchNorm2d(4, affine=False, track_running_stats=False), "num_features"),
        (nn.GroupNorm(2, 4, affine=False), "num_channels"),
    ],
)
def test_norms_without_tensors_know_their_new_width(norm: nn.Module, attribute: str) -> None:
    x = torch.randn(2, 3, 4, 4)
    wide = fxgrow.widen(fxgrow.trace(nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Conv2d(4, 2, 1)), (x,)), "0", by=4)
    assert getattr(wide.get_submodule("1"), attribute) == 8
    wide(x)  # torch warns of instance norms of other widths, and warnings are errors
