"""The writer: the one place that changes a model. A plan is applied wholly or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor, fx, nn

from ..capture.snapshot import Snapshot
from ..errors import Kind, usage
from ..plan import Plan, TensorEdit
from .graph import edit_graph
from .values import grown

Undo = Callable[[], None]


def apply(plan: Plan, gm: fx.GraphModule, *, inplace: bool = False, checked: bool = False) -> fx.GraphModule:
    """Apply a plan to the model it was made for, or to another copy of it.

    Args:
        plan: what to change.
        gm: the traced model.
        checked: the caller has just made the plan for `gm`, so it need not be compared again.
        inplace: write into `gm`; otherwise an independent copy is written and `gm` stays as it is, bit for bit.

    Returns:
        The grown model: the same classes, parameter names, device, dtype, training flags and requires_grad.

    Raises:
        UsageError: the model does not have the tensors that the plan speaks of. Nothing has been written then.
    """
    names = tensors_of(gm)
    if plan.model and not checked and Snapshot(gm).digest != plan.model:
        raise usage(
            Kind.STALE_PLAN,
            "the plan was made for another model: graph, modules or tied weights differ",
            hint="make the plan anew for this model",
        )
    for edit in plan.tensors:
        for name in edit.names:
            _check(names, name, edit)
    new = {edit.names[0]: _grow(names[edit.names[0]], edit, plan) for edit in plan.tensors}
    target = gm if inplace else _copy(gm, {id(names[k]): t for k, t in new.items()})
    undo: list[Undo] = []
    try:
        _commit(plan, target, new, names, undo)
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    return target


def tensors_of(gm: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name they have."""
    return {
        **dict(gm.named_parameters(remove_duplicate=False)),
        **dict(gm.named_buffers(remove_duplicate=False)),
    }


def _check(names: dict[str, Tensor], name: str, edit: TensorEdit) -> None:
    if name not in names or tuple(names[name].shape) != edit.old:
        found = "has no such tensor" if name not in names else f"has {tuple(names[name].shape)} there"
        raise usage(
            Kind.STALE_PLAN,
            f"the plan changes {name} from {edit.old}, but this model {found}",
            hint="make the plan anew for this model",
        )


def _grow(old: Tensor, edit: TensorEdit, plan: Plan) -> Tensor:
    new = grown(old, edit, seed=plan.seed, init=plan.init)
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _copy(gm: fx.GraphModule, replaced: dict[int, Any]) -> fx.GraphModule:
    """An independent copy in which grown tensors stand already in the place of the old ones."""
    memo: dict[int, Any] = dict(replaced)
    return copy.deepcopy(gm, memo)


def _commit(plan: Plan, gm: fx.GraphModule, new: dict[str, Tensor], old: dict[str, Tensor], undo: list[Undo]) -> None:
    for edit in plan.tensors:
        for name in edit.names:
            path, _, leaf = name.rpartition(".")
            _set_tensor(gm.get_submodule(path), leaf, new[edit.names[0]], undo)
    for module_edit in plan.modules:
        module = gm.get_submodule(module_edit.path)
        for name, _, value in module_edit.attributes:
            before = getattr(module, name)
            undo.append(lambda m=module, n=name, v=before: setattr(m, n, v))  # type: ignore[misc]  # bound early
            setattr(module, name, value)
    if plan.nodes or plan.skips or plan.inserts or plan.openings:
        before_graph = gm.graph
        graph = edit_graph(gm, plan, undo)
        undo.append(lambda: setattr(gm, "graph", before_graph))
        gm.graph = graph
    before_meta = dict(gm.meta)
    undo.append(lambda: gm.meta.update(before_meta))
    undo.append(gm.meta.clear)
    gm.meta["fxgrow"] = (*before_meta.get("fxgrow", ()), plan)


def _set_tensor(module: nn.Module, name: str, tensor: Tensor, undo: list[Undo]) -> None:
    group: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
    before = group[name]
    undo.append(lambda: group.__setitem__(name, before))
    group[name] = tensor
