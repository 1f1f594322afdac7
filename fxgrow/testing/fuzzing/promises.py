"""Checks the promises of a plan: a proof, the shapes, and the same bits whenever it is applied."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from ...api.applying import apply
from ...capture.inputs.call import Call
from ...plans import Plan
from ...plans.layout import old_positions
from ...rewrite.apply import tensors_of
from ..bits import contents, digest
from .entries import EntriesChanged, look, steps
from .running import GIVEN, Inputs, Stand


class LawBroken(AssertionError):
    """fxgrow broke one of its laws."""

    def __init__(self, law: str, text: str) -> None:
        super().__init__(f"{law}: {text}")
        self.law = law


def eval_only(plan: Plan) -> tuple[str, ...]:
    """Return the nodes because of which a plan is valid in evaluation mode only."""
    return tuple(node for p in steps(plan) for node in p.eval_only)


def claimed(plan: Plan) -> tuple[bool, ...]:
    """Return the modes in which a plan preserves the outputs, as values of `training`; none if random draws change in
    both."""
    if any(p.redrawn for p in steps(plan)):
        return ()
    return (False,) if eval_only(plan) else (False, True)


def proved(plan: Plan, grown: Stand, inputs: Inputs) -> None:
    """Check that a plan contains a proof; one without is allowed if no output depends on the new units."""
    for p in steps(plan):
        if not p.proof and (p.inserts or reached(p, grown, inputs)):
            raise LawBroken("a plan holds its proof", p.title)


def reached(plan: Plan, grown: Stand, inputs: Inputs) -> bool:
    """Whether some output depends on new entries."""
    twin, _ = grown.gradients(inputs)
    for edit in plan.tensors:
        tensor = tensors_of(twin)[edit.names[0]]
        if tensor.grad is not None:
            changed = tensor.grad.clone()
            old = torch.ones(edit.old, dtype=torch.bool)
            for growth in edit.axes:
                shape = list(old.shape)
                shape[growth.axis] = edit.new[growth.axis]
                places = torch.tensor(old_positions(growth.layout))
                old = torch.zeros(shape, dtype=torch.bool).index_copy(growth.axis, places, old)
            if bool(changed[~old].any()):
                return True
    return False


def predicted(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Check that shapes and the number of parameters match the plan, and that the number has increased."""
    law = "a plan predicts what it makes"
    tensors = tensors_of(grown)
    last = {name: edit.new for p in steps(plan) for edit in p.tensors for name in edit.names}
    last |= {f"{i.name}.{t.name}": t.shape for p in steps(plan) for i in p.inserts for t in i.tensors if not plan.then}
    for name, shape in last.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise LawBroken(law, f"{name} is {tuple(tensors[name].shape)}, not {shape}")
    parameters = sum(p.numel() for p in grown.parameters())
    if parameters != [*steps(plan)][-1].after.parameters:
        raise LawBroken(law, f"{parameters} parameters, not {[*steps(plan)][-1].after.parameters}")
    if parameters <= sum(p.numel() for p in model.parameters()):
        raise LawBroken("what grows is larger", f"{parameters} parameters as before")


def kept(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Check that old entries are unchanged or changed as planned, and that dtypes, formats and flags stay."""
    try:
        look(plan, model, grown)
    except EntriesChanged as changed:
        raise LawBroken("old entries stay", str(changed)) from changed


def repeatable(plan: Plan, model: fx.GraphModule, grown: fx.GraphModule, ran: Stand, inputs: Inputs) -> None:
    """Check that a plan restored from JSON and applied in place makes the same model, and has the same description."""
    try:
        text, words = plan.to_json(), str(plan)
        read = Plan.from_json(text)
        again = apply(read, copy.deepcopy(model), inplace=True, **_given(inputs))
    except Exception as error:
        raise LawBroken("a plan can be kept as text", f"{type(error).__name__}: {error}") from error
    if read != plan or read.to_json() != text or str(read) != words:
        raise LawBroken("a plan can be kept as text", "it is restored as a different plan")
    a, b = contents(grown), contents(again)
    if a != b:
        raise LawBroken("a plan makes the same bits again", ", ".join(k for k in {**a, **b} if a.get(k) != b.get(k)))
    training = "eval" not in ran.modes
    wanted, found = ran.outputs(inputs, training, GIVEN), Stand(again, own=True).outputs(inputs, training)
    if digest(wanted) != digest(found):
        raise LawBroken("a plan makes the same bits again", "a model that is grown in place returns different outputs")


def _given(inputs: Inputs) -> dict[str, Any]:
    if isinstance(inputs, Call):
        return {"example_inputs": inputs.args, "example_kwargs": dict(inputs.kwargs)}
    return {"example_inputs": inputs}


def tied(model: fx.GraphModule, grown: fx.GraphModule) -> None:
    """Check that weights with several names still have them."""
    new = tensors_of(grown)
    first: dict[int, str] = {}
    for name, tensor in tensors_of(model).items():
        other = first.setdefault(id(tensor), name)
        if name in new and other in new and new[name] is not new[other]:
            raise LawBroken("tied weights stay tied", f"{other} and {name}")
