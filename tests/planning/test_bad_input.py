"""Bad input: each with one clear error that names the node, the reason and a way out, and the model untouched."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow import FxgrowError, GrowthRefused, Kind, UsageError
from fxgrow.models_zoo import ZOO

from ..untouched import expect, snapshot


@dataclass(frozen=True)
class Call:
    """Arguments of `widen`, and what it must say."""

    kind: Kind
    says: tuple[str, ...]
    node: Any = "layer2.conv1"
    options: dict[str, Any] = field(default_factory=dict)
    error: type[FxgrowError] = UsageError
    model: str = "resnet"


def node(name: object, kind: Kind, *says: str, error: type[FxgrowError] = UsageError, model: str = "resnet") -> Call:
    """A name that cannot be widened."""
    return Call(kind, says, node=name, error=error, model=model)


def option(kind: Kind, *says: str, **options: object) -> Call:
    """An invalid option."""
    return Call(kind, says, options=options)


def image(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """An input that is all zeros."""
    return torch.zeros(shape, dtype=dtype)


SCHEMES = "one of: auto, r2r, net2net, morphism, zero, mean"
CALLS = {
    # names
    "unknown name": node("layer2.conv11", Kind.UNKNOWN_NODE, "'layer2.conv11'", "did you mean layer2.conv1, "),
    "nothing like it": node("zzz", Kind.UNKNOWN_NODE, "'zzz'", "layers are conv1, layer1.conv1"),
    "empty name": node("", Kind.UNKNOWN_NODE, "no module, fx node or parameter is called ''", "layers are conv1"),
    "no such parameter": node("conv1.bias", Kind.UNKNOWN_NODE, "'conv1.bias'", "did you mean bn1.bias"),
    "one good, one bad": node(["layer2.conv1", "layer2.convv2"], Kind.UNKNOWN_NODE, "'layer2.convv2'", "layer2.conv2"),
    "container": node("layer2", Kind.AMBIGUOUS_NODE, "'layer2' holds several", "layer2.downsample.0, layer2.conv1"),
    "no name": node(None, Kind.BAD_OPTION, "not NoneType", 'node="layer2.conv1"'),
    "number": node(3, Kind.BAD_OPTION, "not int", 'node="layer2.conv1"'),
    "module": node(nn.Linear(1, 1), Kind.BAD_OPTION, "not Linear", 'node="layer2.conv1"'),
    "number in a list": node(["layer2.conv1", 3], Kind.BAD_OPTION, "not int"),
    "empty list": node([], Kind.BAD_OPTION, "no node is named", 'node="layer2.conv1"'),
    # nodes without an axis of their own
    "relu": node(
        "layer2.relu", Kind.NO_AXIS, "layer2.relu gives birth to no axis", "layer2_conv1", error=GrowthRefused
    ),
    "bn": node("layer2.bn1", Kind.NO_AXIS, "layer2.bn1", "channels of layer2_conv1: name", error=GrowthRefused),
    "bn weight": node("layer2.bn1.weight", Kind.NO_AXIS, "layer2.bn1.weight", "layer2_conv1", error=GrowthRefused),
    "add": node("add", Kind.NO_AXIS, "add gives birth to no axis", "conv1, layer1_conv2", error=GrowthRefused),
    "input": node("x", Kind.NO_AXIS, "x gives birth to no axis", "fxgrow.inspect(model)", error=GrowthRefused),
    "output node": node("output", Kind.NO_AXIS, "output gives birth", "fxgrow.inspect(model)", error=GrowthRefused),
    "output layer": node("fc", Kind.OUTPUT, "cannot widen fc", "output", "a hidden layer; or", error=GrowthRefused),
    "output weight": node("fc.weight", Kind.OUTPUT, "cannot widen fc.weight", "hidden layer", error=GrowthRefused),
    "barrier on the way": node(
        "conv1", Kind.STATISTIC, "cannot widen conv1", "argmax", error=GrowthRefused, model="refuse_statistic_argmax"
    ),
    # widths
    "the present width": option(Kind.BAD_TARGET, "layer2.conv1 has 32 channels", "to=33 or more", to=32),
    "narrower": option(Kind.BAD_TARGET, "layer2.conv1 has 32 channels; to=31 is not wider", "to=33", to=31),
    "rounded to the present": option(Kind.BAD_TARGET, "is not wider", "to=33", to=30, round_to=32),
    "zero wide": option(Kind.BAD_OPTION, "to= must be a positive whole number, not 0", to=0),
    "by nothing": option(Kind.BAD_OPTION, "by= must be a positive whole number, not 0", by=0),
    "by less": option(Kind.BAD_OPTION, "by= must be a positive whole number, not -4", by=-4),
    "by a fraction": option(Kind.BAD_OPTION, "by=", "not 1.5", by=1.5),
    "to a text": option(Kind.BAD_OPTION, "to=", "not '64'", to="64"),
    "to true": option(Kind.BAD_OPTION, "to=", "not True", to=True),
    "factor one": option(Kind.BAD_TARGET, "factor=1 does not widen", "above 1", factor=1),
    "factor below one": option(Kind.BAD_TARGET, "factor=0.5 does not widen", "above 1", factor=0.5),
    "factor nan": option(Kind.BAD_TARGET, "factor=nan", "above 1", factor=math.nan),
    "factor infinite": option(Kind.BAD_TARGET, "factor=inf", "above 1", factor=math.inf),
    "factor a text": option(Kind.BAD_TARGET, "factor='2'", "above 1", factor="2"),
    "to and by": option(Kind.BAD_OPTION, "both to= and by= are given", "one of them", to=40, by=8),
    "to and factor": option(Kind.BAD_OPTION, "both to= and factor= are given", to=40, factor=2),
    "by and factor": option(Kind.BAD_OPTION, "both by= and factor= are given", by=8, factor=2),
    "round to nothing": option(Kind.BAD_OPTION, "round_to= must be a positive", round_to=0),
    "impossible width": Call(
        Kind.BAD_TARGET,
        ("conv1 cannot have 18 channels: they come in steps of 4 from 16", "nearest possible widths are 20"),
        node="conv1",
        options={"to": 18},
        model="resnet_groupnorm",
    ),
    "between two widths": Call(
        Kind.BAD_TARGET,
        ("conv1 cannot have 23 channels", "nearest possible widths are 20 and 24"),
        node="conv1",
        options={"by": 7},
        model="resnet_groupnorm",
    ),
    # other options
    "unknown scheme": option(Kind.BAD_OPTION, "unknown scheme 'net3net'", SCHEMES, scheme="net3net"),
    "no scheme": option(Kind.BAD_OPTION, "None is not a scheme", SCHEMES, scheme=None),
    "unknown skip": option(Kind.BAD_OPTION, "skip='copy'", "couple, reshape", skip="copy"),
    "unknown adapter": option(Kind.BAD_OPTION, "adapter='crop'", "pad, conv", adapter="crop"),
    "unknown init": option(Kind.BAD_OPTION, "init='ones'", "match, kaiming, xavier", init="ones"),
    "unknown grow": option(Kind.BAD_OPTION, "grow='heads'", "channels, groups", grow="heads"),
    "seed a fraction": option(Kind.BAD_OPTION, "seed must be a whole number from 0, not 0.5", "seed=0", seed=0.5),
    # example inputs
    "two inputs": option(Kind.BAD_INPUTS, "takes 1 inputs (x)", "holds 2", example_inputs=(image(2, 1, 8, 8),) * 2),
    "no tensor": option(Kind.BAD_INPUTS, "not int", "example_inputs=(tensor, ...)", example_inputs=5),
    "channels": option(Kind.BAD_INPUTS, "node conv1", "2x3x8x8", "example_inputs=", example_inputs=image(2, 3, 8, 8)),
    "rank": option(Kind.BAD_INPUTS, "node conv1", "shape 8", "example_inputs=", example_inputs=image(8)),
    "float64": option(
        Kind.BAD_INPUTS, "node conv1", "float64", "dtypes", example_inputs=image(2, 1, 8, 8, dtype=torch.float64)
    ),
    "int64": option(Kind.BAD_INPUTS, "int64", "dtypes", example_inputs=image(2, 1, 8, 8, dtype=torch.int64)),
}


@pytest.fixture(scope="module")
def models() -> dict[str, fx.GraphModule]:
    names = {call.model for call in CALLS.values()}
    return {name: fxgrow.trace(ZOO[name].build().eval(), ZOO[name].example_inputs()) for name in names}


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "inplace"])
@pytest.mark.parametrize("name", CALLS)
def test_bad_calls_say_what_is_wrong_and_change_nothing(
    name: str, inplace: bool, models: dict[str, fx.GraphModule]
) -> None:
    call = CALLS[name]
    gm = models[call.model]
    before = snapshot(gm)
    with pytest.raises(FxgrowError) as caught:
        fxgrow.widen(gm, node=call.node, inplace=inplace, **call.options)
    assert type(caught.value) is call.error
    expect(caught.value, call.kind, call.says)
    assert snapshot(gm) == before
    with pytest.raises(FxgrowError) as planned:
        fxgrow.plan_widen(gm, call.node, **call.options)
    assert str(planned.value) == str(caught.value)


class Named(nn.Module):
    """A module called as an fx node is, an attention, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.add = nn.Linear(4, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.unused = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.add(x + 1))
        z: Tensor = self.head(self.attention(y, y, y)[0])
        return z


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("add", Kind.AMBIGUOUS_NODE, ("'add' is both a module and an fx node", "add_1", "add.weight")),
        ("attention", Kind.AMBIGUOUS_NODE, ("2 axes", "attention.in_proj_weight, attention.out_proj.weight")),
        ("unused", Kind.UNKNOWN_NODE, ("'unused' is in the model, but the traced graph never uses it", "head")),
        ("unused.weight", Kind.UNKNOWN_NODE, ("'unused.weight' is in the model", "did you mean")),
    ],
)
def test_names_with_two_meanings_or_none_are_told_apart(name: str, kind: Kind, says: tuple[str, ...]) -> None:
    gm = fxgrow.trace(Named().eval(), (torch.zeros(5, 2, 4),))
    before = snapshot(gm)
    with pytest.raises(UsageError) as caught:
        fxgrow.widen(gm, node=name, inplace=True)
    expect(caught.value, kind, says)
    assert snapshot(gm) == before
