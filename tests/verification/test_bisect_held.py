"""Where a growth holds, every node must agree: not only the outputs, and not only nearly all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, fx

import fxgrow
from fxgrow.bisection.bisect import Both
from fxgrow.models_zoo.coverage.subjects import Subject, subjects
from fxgrow.verification.probes import probes

SCHEMES = ("r2r", "net2net", "morphism", "zero", "mean")
ZOO = [s for s in subjects() if "." not in s.name]
TORCHVISION = list(subjects([f"torchvision.{n}" for n in ("resnet18", "shufflenet_v2_x1_0")]))


def differing(before: fx.GraphModule, after: fx.GraphModule, inputs: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Nodes that are said to differ on some probes; an empty list if the plans say where all old channels lie."""
    both = Both.of(before, after, inputs)
    assert both.followed is not None, both.notes
    found = []
    for probe in probes(inputs, 0):
        if probe.name in names:
            for training in (False,) if both.eval_only else (False, True):
                some = both.readings(probe, both.matches, training=training, seed=0)
                assert some[-1].node == "output"
                found += [f"{r.node}: {r.difference:.1e} > {r.bound:.1e}" for r in some if not r.agrees]
    return found


def growths(before: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Iterator[tuple[str, fx.GraphModule]]:
    """The whole network wider, with each scheme that can do it; with adapters; and wider once more."""
    for scheme in SCHEMES:
        once = grown(before, inputs, widen=2 if scheme == "net2net" else 1.5, scheme=scheme)
        if once is None:
            continue
        yield scheme, once
        more = {"net2net": grown(once, inputs, widen=1.5, scheme="r2r")} if scheme == "net2net" else {}
        more |= {"adapters": grown(before, inputs, widen=1.5, skip="reshape")} if scheme == "r2r" else {}
        yield from ((f"{scheme}, {name}", after) for name, after in more.items() if after is not None)


def grown(gm: fx.GraphModule, inputs: tuple[Tensor, ...], **options: Any) -> fx.GraphModule | None:
    """A larger model; none where that is refused."""
    try:
        return fxgrow.grow(gm, example_inputs=inputs, **options)
    except fxgrow.GrowthRefused:
        return None


@pytest.mark.parametrize("subject", ZOO, ids=lambda s: s.name)
def test_all_nodes_of_the_zoo_agree(subject: Subject) -> None:
    model, inputs = subject.made()
    before = fxgrow.trace(model, inputs)
    for name, after in growths(before, inputs):
        assert differing(before, after, inputs, ["normal"]) == [], name


@pytest.mark.slow
@pytest.mark.parametrize("subject", TORCHVISION, ids=lambda s: s.name)
def test_all_nodes_of_torchvisions_models_agree(subject: Subject) -> None:
    model, inputs = subject.made()
    before = fxgrow.trace(model, inputs)
    for name, after in growths(before, inputs):
        assert differing(before, after, inputs, ["normal"]) == [], name


@pytest.mark.parametrize("name", ["densenet", "pre_norm_encoder", "lstm_tagger"])
def test_rounding_to_single_precision_is_no_difference(name: str) -> None:
    model, inputs = next(iter(subjects([name]))).made()
    inputs = tuple(x.float() if x.is_floating_point() else x for x in inputs)
    before = fxgrow.trace(model.float(), inputs)
    for scheme, after in growths(before, inputs):
        if scheme in ("net2net", "mean"):  # shares, means and scales are rounded
            assert differing(before, after, inputs, ["normal", "constant"]) == [], scheme
            assert fxgrow.bisect(before, after) is None


def test_a_difference_in_one_node_is_noticed() -> None:
    model, inputs = next(iter(subjects(["resnet"]))).made()
    before = fxgrow.trace(model, inputs)
    after = fxgrow.widen(before, "layer1.conv1")
    with torch.no_grad():
        after.get_parameter("layer1.conv2.weight")[0, 0] += 1e-3
    assert any(text.startswith("layer1_conv2: ") for text in differing(before, after, inputs, ["normal"]))
