"""Numbers that a call puts into a tensor of its own: `torch.tensor(k.shape[-1])` stays what it is under a growth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..capture.program.program import Op
from ..plans.plan import Path
from .arguments import is_number, is_tuple, scalars_in


def put_in_tensors(
    node: fx.Node, ops: Sequence[Op], old: Mapping[fx.Node, Any], new: Mapping[fx.Node, Any]
) -> dict[Path, object]:
    """The numbers among a node's arguments that become entries of a tensor, and that a growth would change, by place.

    No operator takes them: the tensor is made outside, and its entries are given like those of any constant.
    """
    if not any(op.name == "aten::lift_fresh" for op in ops):
        return {}
    places = (*scalars_in(("args",), node.args), *scalars_in(("kwargs",), node.kwargs))
    read = [(path, arg) for path, arg in places if isinstance(arg, fx.Node)]
    return {
        path: old[arg] for path, arg in read if (is_number(old[arg]) or is_tuple(old[arg])) and old[arg] != new[arg]
    }
