"""Finds the plans that lead from one model to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx, nn

from ..plans import Plan
from ..rewrite.apply import tensors_of


def plans_since(before: nn.Module, after: nn.Module) -> tuple[Plan, ...]:
    """Return the plans that lead from one model to the other, from the history in the grown model's `meta`.

    If `before` is not traced, it has no history: the plans are then the first suffix of the grown model's history whose
    expected tensor shapes match.
    """
    old, new = _history(before), _history(after)
    if isinstance(before, fx.GraphModule):
        return new[len(old) :] if new[: len(old)] == old else ()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors_of(before).items()}
    return next((new[k:] for k in range(len(new)) if _starts_at(shapes, new[k:])), ())


def _starts_at(shapes: Mapping[str, tuple[int, ...]], history: Sequence[Plan]) -> bool:
    """Whether every tensor that the plans change has the shape that the first plan to change it expects."""
    expected: dict[str, tuple[int, ...]] = {}
    for plan in history:
        for edit in plan.tensors:
            for name in edit.names:
                expected.setdefault(name, edit.old)
    made = {f"{insert.name}.{new.name}" for plan in history for insert in plan.inserts for new in insert.tensors}
    fits = all(shapes.get(name, shape) == shape for name, shape in expected.items() if name not in made)
    return fits and not made & shapes.keys()


def _history(model: nn.Module) -> tuple[Plan, ...]:
    return tuple(model.meta.get("fxgrow", ())) if isinstance(model, fx.GraphModule) else ()
