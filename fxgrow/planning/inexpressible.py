"""Build refusals for nodes of the graph that cannot express a growth."""

from __future__ import annotations

import torch
from torch import fx

from ..capture.decomposition.inline_calls import why_closed
from ..capture.source_lines import location
from ..capture.user_objects.user_code import is_user_code
from ..errors import GrowthRefused, Kind, Refusal


def inexpressible(gm: fx.GraphModule, node: fx.Node, problem: str, way_out: str = "") -> GrowthRefused:
    """Return the refusal for a node that cannot express the new size."""
    way_out = way_out or "write the size as a number or compute it from x.shape, or choose another layer"
    if is_user_code(gm.get_submodule(str(node.target)) if node.op == "call_module" else node.target):
        way_out = "let this code do the same for every width, or choose another layer"
    if node.target is torch._assert:
        problem = f"it asserts of a width what is not so for the new one (it says {problem!r})"
        way_out = (
            "compare with a size that grows along, as self.head.weight.shape[1], or choose a width for which it is so"
        )
    text, hint = why_closed(gm, node) or (problem, way_out)
    what = f"{node.name} cannot take the new size: {text}"
    return GrowthRefused(Refusal(Kind.INEXPRESSIBLE, what, location(gm, node.name), (node.name,), hint))


def failed(gm: fx.GraphModule, node: fx.Node, error: Exception) -> GrowthRefused:
    """Return the refusal for a node whose recording fails for a reason that is not its sizes."""
    what = f"{node.name} cannot be recorded: {str(error).strip() or repr(error)}"
    hint = "leave torch's modes of dispatch and try again; if it fails again, choose another layer"
    return GrowthRefused(Refusal(Kind.INEXPRESSIBLE, what, location(gm, node.name), (node.name,), hint))


def returned_number(gm: fx.GraphModule, node: fx.Node) -> GrowthRefused:
    """Return the refusal for a number that the model returns and that the growth would change."""
    return GrowthRefused(
        Refusal(
            Kind.OUTPUT,
            f"{node.name}, a number that is computed from its size, is an output of the model",
            where=location(gm, node.name),
            chain=(node.name,),
            hint="return tensors only, or a number that does not depend on a width",
        )
    )
