"""Applies a plan to a model, completely or not at all. This is the only place that changes a model."""

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
"""Undoes one write. Idempotent; registered before the write."""

ATTEMPTS = 3
"""Number of attempts to undo the writes, if undoing is interrupted."""


def apply(plan: Plan, gm: fx.GraphModule, *, inplace: bool = False, checked: bool = False) -> fx.GraphModule:
    """Apply a plan to the model it was made for, or to another copy of it.

    Args:
        plan: the changes.
        gm: the traced model.
        checked: whether the caller has just made the plan for `gm`, so that it need not be validated.
        inplace: whether to write into `gm`; otherwise a copy is written, and `gm` stays unchanged, bit for bit.

    Returns:
        The grown model: the same classes, parameter names, device, dtype, training flags and requires_grad.

    Raises:
        UsageError: the plan does not fit the model. Nothing has been written then.
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
        torch.set_grad_enabled(gradients)  # an interruption may occur while torch.no_grad() exits
        raise


def was_compared(gm: fx.GraphModule, digest: str = "") -> bool:
    """Whether a graph is a trace that was compared with its module, or was grown from one, and was not edited since.
    `digest` is the digest of the graph, if known."""
    told = {gm.meta.get("fxgrow_original"), gm.meta.get("fxgrow_grown")} - {None}
    return bool(told) and (digest or Snapshot(gm).digest) in told


def _take_back(undo: list[Undo], attempts: int = ATTEMPTS) -> None:
    """Undo all writes, the latest first. If it is interrupted, it continues, so that the model is not left half undone;
    the first exception is raised at the end."""
    try:
        while undo:
            undo[-1]()
            undo.pop()
    except BaseException:
        if attempts == 1:
            raise
        _take_back(undo, attempts - 1)


def sketch(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of a model on the meta device: its structure and sizes without data."""
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
    """Return every tensor that a plan changes, before and after; raises if the plan does not fit. Writes nothing."""
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
        raise usage(Kind.STALE_PLAN, problem, hint="make a new plan for this model")
    if plan.model and Snapshot(gm).digest != plan.model:
        raise usage(
            Kind.STALE_PLAN,
            "the plan was made for another model: the graph, the modules or the tied weights differ",
            hint="make a new plan for this model",
        )


def tensors_of(gm: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under every name they have."""
    parameters, buffers = tensors_in(dict(gm.named_modules(remove_duplicate=False)))
    return dict([*parameters, *buffers])


def _grow(old: Tensor, edit: TensorEdit, plan: Plan) -> Tensor:
    new = grown(old, edit, seed=plan.seed, init=plan.init, noise=plan.noise)
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _copy(gm: fx.GraphModule, new: list[tuple[Tensor, Tensor]]) -> fx.GraphModule:
    """Return an independent copy in which grown tensors already replace the old ones."""
    tensors = tensors_of(gm)
    replaced = {id(old): made for old, made in new}
    made_at = {place_of(old): made for old, made in new}
    for tensor in tensors.values():  # shares memory with a tensor that grows
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
    for edit in plan.tensors:  # modules that share a weight get it even if they are never called
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
            undo.append(lambda m=module, n=name, v=before: setattr(m, n, v))  # type: ignore[misc]  # binds the loop variables early
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
    """Update the list of weights that a recurrent layer keeps for its operator; on a GPU, also make them contiguous."""
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
