"""The demo's parts: the digits are split the same way every time, and the picture shows what grew."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import fx

import fxgrow
from fxgrow.models_zoo import ResNet
from fxgrow.models_zoo.demo.data import digits
from fxgrow.models_zoo.demo.diagram import Diagram, diagram
from fxgrow.models_zoo.demo.growth_picture import Curve, Story, draw


@pytest.fixture(scope="module")
def example() -> tuple[torch.Tensor]:
    return (digits().images[:2],)


def grown(
    example: tuple[torch.Tensor],
    *,
    skip: Literal["couple", "reshape"] = "reshape",
    adapter: Literal["pad", "conv"] = "pad",
) -> Diagram:
    """The diagram of a narrow ResNet with a volume inside a block widened, and one that meets a join."""
    net = fx.symbolic_trace(ResNet(widths=(4, 6, 6, 8)).eval())
    wider = fxgrow.widen(net, "layer2.conv1", example_inputs=example)
    return diagram(net, fxgrow.widen(wider, "layer3.conv2", skip=skip, adapter=adapter), example)


def test_the_split_is_fixed_disjoint_and_fair() -> None:
    first, second = digits(), digits()
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.held_out, second.held_out)
    assert first.images.shape == (1797, 1, 8, 8)
    assert sorted([*first.train.tolist(), *first.held_out.tolist()]) == list(range(1797))
    assert (len(first.train), len(first.held_out)) == (1347, 450)
    assert float(first.images.min()) == 0.0
    assert float(first.images.max()) == 1.0
    counts = torch.bincount(first.labels[first.held_out], minlength=10)
    assert int(counts.max() - counts.min()) <= 4  # every class is held out alike


@pytest.mark.parametrize("adapter", ["pad", "conv"])
def test_the_diagram_shows_what_grew_and_the_adapter(
    example: tuple[torch.Tensor], adapter: Literal["pad", "conv"]
) -> None:
    boxes = grown(example, adapter=adapter).boxes
    widened = {box.name: (box.old, box.new) for box in boxes if box.role == "widened"}
    assert widened == dict.fromkeys(("layer2_conv1", "layer3_conv2", "add_2"), (6, 12))
    (skip,) = (box for box in boxes if box.role == "adapter")
    assert (skip.old, skip.new) == (6, 12)
    assert skip.lane == 1


def test_a_coupled_growth_has_no_adapter(example: tuple[torch.Tensor]) -> None:
    roles = {box.name: box.role for box in grown(example, skip="couple").boxes}
    assert "adapter" not in roles.values()
    assert roles["layer2_downsample_0"] == roles["layer2_conv2"] == roles["add_1"] == "widened"


def test_no_two_boxes_stand_in_one_place(example: tuple[torch.Tensor]) -> None:
    boxes = grown(example).boxes
    for number, one in enumerate(boxes):
        assert all(one.lane != other.lane or abs(one.row - other.row) >= 1 for other in boxes[:number])


def test_the_picture_is_written(example: tuple[torch.Tensor], tmp_path: Path) -> None:
    curve = Curve("grown", 2, (97.0, 98.0, 98.5))
    halves = (Curve("", 2, (0.0, 0.1, 0.2)),)
    story = Story("A net grows", Curve("before", 0, (10.0, 90.0, 97.0)), (curve,), halves, grown(example))
    path = tmp_path / "picture.png"
    draw(story, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
