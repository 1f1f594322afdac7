"""The writer: the one place that changes a model. A plan is applied wholly or not at all."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..capture.lowering.shared_storage import in_storages_of, overlapping, place_of
from ..capture.lowering.snapshot import Snapshot, tensors_in
from ..capture.program.call_key import flat_weights
from ..errors import Kind, usage
from ..plans import Plan, TensorEdit
from .copies import alike, copied, tangled
from .edit_graph import edit_graph
from .new_values import grown
from .validate import misfit

Undo = Callable[[], object]
"""Takes one write back; noted before the write, and safe to run twice, or when there was none."""

ATTEMPTS = 3
"""To take the writes back, should that be interrupted too."""


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
    undo: list[Undo] = []
    gradients = torch.is_grad_enabled()
    try:
        compared = was_compared(gm, plan.model if checked else "")
        new = _ready(plan, gm, checked)
        target = gm if inplace else _copy(gm, new)
        _commit(plan, target, {edit.names[0]: t for edit, (_, t) in zip(plan.tensors, new, strict=True)}, undo)
        for step in plan.then:
            ready = _ready(step, target, checked)
            _commit(step, target, {edit.names[0]: t for edit, (_, t) in zip(step.tensors, ready, strict=True)}, undo)
        if compared:
            target.meta["fxgrow_grown"] = Snapshot(target).digest
        return target
    except BaseException:
        _take_back(undo)
        torch.set_grad_enabled(gradients)  # an interruption may come while torch.no_grad() ends
        raise


def was_compared(gm: fx.GraphModule, digest: str = "") -> bool:
    """Whether a graph is a trace that was compared with its module, or was grown from one, and was not edited since.
    `digest`: of the graph, where it is known."""
    told = {gm.meta.get("fxgrow_original"), gm.meta.get("fxgrow_grown")} - {None}
    return bool(told) and (digest or Snapshot(gm).digest) in told


def _take_back(undo: list[Undo], attempts: int = ATTEMPTS) -> None:
    """Undo all writes, latest first. A second interruption must not leave the model half undone, so this goes on where
    it was interrupted; what is raised in the end is the first trouble."""
    try:
        while undo:
            undo[-1]()
            undo.pop()
    except BaseException:
        if attempts == 1:
            raise
        _take_back(undo, attempts - 1)


def sketch(gm: fx.GraphModule) -> fx.GraphModule:
    """A copy of a model on the meta device: its structure and its sizes, no numbers."""
    tensors = {id(t): t for t in tensors_of(gm).values()}
    memo: dict[int, Any] = {}
    for key, tensor in tensors.items():
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        like = isinstance(tensor, nn.Parameter)
        memo[key] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if like else empty
    for group in overlapping(tensors.values()):
        same = {place_of(t) for t in group}
        for tensor in group if len(same) == 1 else ():
            memo[id(tensor)] = alike(memo[id(group[0])], tensor)
    return copied(gm, {}, memo)


def _ready(plan: Plan, gm: fx.GraphModule, checked: bool) -> list[tuple[Tensor, Tensor]]:
    """Every tensor that a plan changes, before and after, if the plan fits the model. Writes nothing."""
    if not checked:
        check(plan, gm)
    names = tensors_of(gm)
    problem = tangled(names, {edit.names[0]: names[edit.names[0]] for edit in plan.tensors})
    if problem is not None:
        raise problem
    return [(names[edit.names[0]], _grow(names[edit.names[0]], edit, plan)) for edit in plan.tensors]


def check(plan: Plan, gm: fx.GraphModule) -> None:
    """Compare the names, sizes and shapes in one step of a plan with a model; allocates and writes nothing.

    Raises:
        UsageError: the plan was made for another model, or is damaged.
    """
    problem = misfit(plan, gm, tensors_of(gm))
    if problem:
        raise usage(Kind.STALE_PLAN, problem, hint="make the plan anew for this model")
    if plan.model and Snapshot(gm).digest != plan.model:
        raise usage(
            Kind.STALE_PLAN,
            "the plan was made for another model: graph, modules or tied weights differ",
            hint="make the plan anew for this model",
        )


def tensors_of(gm: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by every name they have."""
    parameters, buffers = tensors_in(dict(gm.named_modules(remove_duplicate=False)))
    return dict([*parameters, *buffers])


def _grow(old: Tensor, edit: TensorEdit, plan: Plan) -> Tensor:
    new = grown(old, edit, seed=plan.seed, init=plan.init, noise=plan.noise)
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _copy(gm: fx.GraphModule, new: list[tuple[Tensor, Tensor]]) -> fx.GraphModule:
    """An independent copy in which grown tensors stand already in the place of the old ones."""
    tensors = tensors_of(gm)
    replaced = {id(old): made for old, made in new}
    made_at = {place_of(old): made for old, made in new}
    for tensor in tensors.values():  # in the same memory as one that grows
        made = made_at.get(place_of(tensor))
        if made is not None and id(tensor) not in replaced:
            replaced[id(tensor)] = alike(made, tensor)
    return copied(gm, tensors, replaced)


def _commit(plan: Plan, gm: fx.GraphModule, new: dict[str, Tensor], undo: list[Undo]) -> None:
    names: dict[Hashable, list[str]] = {}
    tensors = tensors_of(gm)
    near = set(map(id, in_storages_of([tensors[edit.names[0]] for edit in plan.tensors], tensors.values())))
    for name, tensor in tensors.items():
        if id(tensor) in near:
            names.setdefault(place_of(tensor), []).append(name)
    for edit in plan.tensors:  # modules that share a weight and are never called get it, too
        old, made = tensors[edit.names[0]], new[edit.names[0]]
        twins: dict[int, Tensor] = {id(old): made}
        for name in dict.fromkeys((*edit.names, *names[place_of(old)])):
            path, _, leaf = name.rpartition(".")
            now = tensors[name]
            if id(now) not in twins:
                twins[id(now)] = now if place_of(now) == place_of(made) else alike(made, now)
            _set_tensor(gm.get_submodule(path), leaf, twins[id(now)], undo)
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
    owners = {name.rpartition(".")[0]: None for edit in plan.tensors for name in edit.names}
    for module in map(gm.get_submodule, owners):
        if isinstance(module, nn.RNNBase):
            _refresh(module, undo)
    before_meta = dict(gm.meta)
    undo.append(lambda: gm.meta.update(before_meta))
    undo.append(gm.meta.clear)
    gm.meta["fxgrow"] = (*before_meta.get("fxgrow", ()), replace(plan, then=()))


def _refresh(module: nn.RNNBase, undo: list[Undo]) -> None:
    """A recurrent layer keeps its weights a second time, in the list that its operator takes; on a GPU side by side."""
    new = flat_weights(module)
    before = {name: getattr(module, name) for name in new}
    undo.append(lambda: module.__dict__.update(before))
    module.__dict__.update(new)
    module.flatten_parameters()


def _set_tensor(module: nn.Module, name: str, tensor: Tensor, undo: list[Undo]) -> None:
    group: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
    before = group[name]
    undo.append(lambda: group.__setitem__(name, before))
    group[name] = tensor
