"""Module calls that compute something different in the other mode (training or evaluation)."""

from __future__ import annotations

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.traced_model.other_modes import same_work


def veils(gm: fx.GraphModule, analysis: Analysis) -> list[fx.Node]:
    """Return the module calls that behave differently in the other mode: torch modules that do nothing in this mode,
    such as dropout, and user modules that run other operators there. Functions have explicit flags and do not depend on
    the mode."""
    program, others = analysis.program, [mode.analysis for mode in analysis.others(gm)]
    active = {op.node for op in program.ops}

    def veiled(node: fx.Node) -> bool:
        module = gm.get_submodule(str(node.target))
        if type(module).__module__.startswith("torch.nn."):
            return node.name not in active and type(module) is not nn.Identity
        return any(there is None or not same_work(program, there.program, node.name) for there in others)

    return [n for n in gm.graph.nodes if n.op == "call_module" and veiled(n)]
