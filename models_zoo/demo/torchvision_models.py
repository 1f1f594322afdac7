"""The last step of the demo: grow torchvision's ResNets, with random weights and without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx, nn
from torchvision.models import resnet18, resnet50

import fxgrow

NETS: tuple[tuple[str, Callable[[], nn.Module], str, str], ...] = (
    ("resnet18", resnet18, "layer2.0.conv1", "layer2.1.conv2"),
    ("resnet50", resnet50, "layer2.0.conv1", "layer2.1.conv3"),
)
"""Name, builder, a layer inside a residual block, and one whose output is added at a join with an identity skip."""
PIXELS = 64
"""Side of the probe images. They are small so that two dozen runs in float64 take seconds; widths do not depend on
it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One growth of one network, and its certificate in evaluation mode."""

    net: str
    what: str
    width: str
    skip: str
    parameters: str
    adapters: int
    certificate: fxgrow.Certificate


def grow_all(announce: Callable[[str], None]) -> list[Row]:
    """Widen each network inside a block, then at a residual join in both skip modes, then as a whole with a new block;
    verify each result.

    `announce` receives a description of each step before it starts.
    """
    rows = []
    examples = (torch.zeros(2, 3, PIXELS, PIXELS),)
    for name, make, inside, at_join in NETS:
        net = fx.symbolic_trace(make().eval())
        announce(f"{name}: widen {inside}")
        plan = fxgrow.plan_widen(net, inside, example_inputs=examples)
        wider = fxgrow.widen(net, node=inside)
        rows.append(_row(name, inside, "–", plan, net, wider))
        for skip in ("couple", "reshape"):
            announce(f'{name}: widen {at_join}, skip="{skip}"')
            plan = fxgrow.plan_widen(wider, at_join, skip=skip)
            rows.append(_row(name, at_join, skip, plan, net, fxgrow.widen(wider, node=at_join, skip=skip)))
        announce(f"{name}: everything wider by half, and a block more")
        plan = fxgrow.plan_grow(net, widen=1.5, deepen={"layer3.1": "clone"})
        rows.append(_row(name, "everything, layer3.1 cloned", "couple", plan, net, fxgrow.apply(plan, net)))
    return rows


def _row(name: str, what: str, skip: str, plan: fxgrow.Plan, before: fx.GraphModule, after: fx.GraphModule) -> Row:
    certificate = fxgrow.verify(before, after, training=False)
    last = plan.then[-1] if plan.then else plan
    parameters = f"+{(last.after.parameters - plan.before.parameters) / 1e6:.2f} M"
    width = f"{plan.growths[0].old} → {plan.growths[0].new}" if len(plan.growths) == 1 else "all × 1.5"
    return Row(name, what, width, skip, parameters, len(plan.skips), certificate)
