"""Growth by hand, where it is legal: the same harness that shows what breaks shows that this does not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import nn

import fxgrow

from ..models.refused import Plain, prepared
from .by_hand import BROKEN, NEW, SAME, Surgery, effect, grown, read, written

LEGAL: dict[str, tuple[str | type[nn.Module], str, Sequence[str]]] = {
    "pointwise between": (Plain, "conv1", ["conv2"]),
    "beside a join": ("refuse_interface_input", "conv1", ["conv2"]),
    "before a returned volume": ("refuse_interface_output", "conv1", ["conv2"]),
    "after a norm": ("refuse_norm_channels_last", "conv2", ["head"]),
    "two readers": ("refuse_broadcast", "conv1", ["attend", "head"]),
}


@pytest.mark.parametrize("name", LEGAL)
def test_growth_that_is_granted_changes_nothing_by_hand_either(name: str) -> None:
    kind, layer, readers = LEGAL[name]
    model, inputs = prepared(kind)
    legal = effect(model, grown(model, Surgery({**written(layer), **read(*readers)})), inputs)
    wrong = effect(model, grown(model, Surgery({**written(layer), **{f"{r}.weight": (1, 1) for r in readers}})), inputs)
    assert isinstance(legal, float)
    assert legal < SAME
    assert isinstance(wrong, float)
    assert wrong > BROKEN  # the same surgery with equal halves on both sides
    traced = fxgrow.trace(model, inputs)
    assert effect(traced, fxgrow.widen(traced, node=layer, by=NEW), inputs) < SAME  # type: ignore[operator]  # a number
