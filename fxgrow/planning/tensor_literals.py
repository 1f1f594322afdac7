"""Keep numbers that a call stores in a new tensor, as in `torch.tensor(k.shape[-1])`, unchanged under a growth."""

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
    """Return the old values of numbers that become entries of a tensor and that a growth would change, by path.

    No operator takes these numbers as arguments: the tensor is created before, and its entries are treated as those of
    a constant.
    """
    if not any(op.name == "aten::lift_fresh" for op in ops):
        return {}
    places = (*scalars_in(("args",), node.args), *scalars_in(("kwargs",), node.kwargs))
    read = [(path, arg) for path, arg in places if isinstance(arg, fx.Node)]
    return {
        path: old[arg] for path, arg in read if (is_number(old[arg]) or is_tuple(old[arg])) and old[arg] != new[arg]
    }
