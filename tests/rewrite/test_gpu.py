"""On an accelerator: the same growths, on the device the model lives on."""

from __future__ import annotations

import pytest
import torch

import fxgrow
from fxgrow.models_zoo import ZOO


@pytest.mark.gpu
@pytest.mark.parametrize("skip", ["couple", "reshape"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_growth_stays_on_the_device_and_keeps_the_function(skip: str, dtype: torch.dtype) -> None:
    entry = ZOO["resnet"]
    model = entry.build().to("cuda", dtype).eval()
    inputs = tuple(x.to("cuda", dtype) for x in entry.example_inputs())
    traced = fxgrow.trace(model, inputs)
    wider = fxgrow.widen(traced, "layer3.conv2", skip="couple" if skip == "couple" else "reshape")
    assert {p.device.type for p in wider.parameters()} == {"cuda"}
    assert {p.dtype for p in wider.parameters()} == {dtype}
    assert fxgrow.verify(traced, wider, example_inputs=inputs).held


@pytest.mark.gpu
def test_new_values_do_not_depend_on_the_device() -> None:
    torch.manual_seed(0)
    model = ZOO["resnet"].build().eval()
    here = fxgrow.widen(fxgrow.trace(model), "layer2.conv1")
    there = fxgrow.widen(fxgrow.trace(model.to("cuda")), "layer2.conv1")
    for (name, a), (_, b) in zip(here.named_parameters(), there.named_parameters(), strict=True):
        torch.testing.assert_close(a, b.cpu(), msg=name)
