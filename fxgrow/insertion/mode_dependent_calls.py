"""Calls of modules that are something else in the other mode."""

from __future__ import annotations

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.traced_model.other_modes import same_work


def veils(gm: fx.GraphModule, analysis: Analysis) -> list[fx.Node]:
    """Calls of modules that do something else in the other mode: those of torch that do nothing in this one, like
    dropout, and those of the user that run other operators there. Functions are the same in both, with their flags."""
    program, others = analysis.program, [mode.analysis for mode in analysis.others(gm)]
    active = {op.node for op in program.ops}

    def veiled(node: fx.Node) -> bool:
        module = gm.get_submodule(str(node.target))
        if type(module).__module__.startswith("torch.nn."):
            return node.name not in active and type(module) is not nn.Identity
        return any(there is None or not same_work(program, there.program, node.name) for there in others)

    return [n for n in gm.graph.nodes if n.op == "call_module" and veiled(n)]
