"""Checks that a plan lists nothing twice and no more than a model has; done first, to bound the cost of other
checks."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from ..plans import AxisGrowth, Plan, TensorEdit
from ..plans.insertion import BlockTensor, Copies, Insert, Layers
from ..plans.layout import Chain, Grid, Layout, Leaf, Woven

MOST_STEPS = 1000
"""The largest number of steps, and of new blocks in a step; as many as `deepen` makes."""
MOST_PARTS = 1000
"""The largest number of layers, calls and tensors of a block."""
MOST_AXES = 64
"""The largest number of axes of a tensor; torch has the same limit."""
SLACK = 1024
"""Number of extra parts that is allowed here; a size that does not fit the model gets a clearer message later."""
MOST_LINES = 100
"""The largest number of lines of text in a plan, per node and per tensor of the model."""
LONGEST_LINE = 2**14


def repeated(plan: Plan, gm: fx.GraphModule, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield what a plan lists twice, or more often than possible, in words."""
    if len(plan.then) > MOST_STEPS or any(step.then for step in plan.then):
        yield f"the plan has more than {MOST_STEPS:,} steps, or steps within steps"
        return
    modules = sum(1 for _ in gm.named_modules(remove_duplicate=False))
    most = _Most(len(gm.graph.nodes), modules, len(tensors), sum(_numbers((n.args, n.kwargs)) for n in gm.graph.nodes))
    for step in plan.every():
        yield from _step(step, most)
        most = most.after(step)


@dataclass(frozen=True, slots=True)
class _Most:
    """The sizes of a model."""

    nodes: int
    modules: int
    tensors: int
    numbers: int
    """Number of leaves in the arguments of all nodes."""

    def after(self, plan: Plan) -> _Most:
        """Return upper bounds of the sizes after a plan is applied."""
        parts = MOST_PARTS * (len(plan.openings) + len(plan.skips))
        for insert in plan.inserts:
            parts += MOST_PARTS + self.nodes if isinstance(insert.body, Copies) else MOST_PARTS
        tensors = sum(len(insert.tensors) for insert in plan.inserts) + len(plan.skips)
        return _Most(self.nodes + parts, self.modules + parts, self.tensors + tensors, self.numbers + 10 * parts)


def _step(plan: Plan, there: _Most) -> Iterator[str]:
    nodes, modules, tensors = there.nodes, there.modules, there.tensors
    yield from _row("tensors", [name for edit in plan.tensors for name in edit.names], tensors)
    yield from _row("modules", [edit.path for edit in plan.modules], modules)
    yield from _row("adapted skip paths", [(s.node, s.source, s.position) for s in plan.skips], 2 * nodes)
    yield from _row("decomposed calls", [o.node for o in plan.openings], nodes)
    most = nodes * MOST_PARTS if plan.openings else 99
    if len(plan.nodes) > most and not plan.openings:
        most += nodes + there.numbers
    yield from _row("node edits", [(edit.node, edit.path) for edit in plan.nodes], most)
    if any(len(edit.path) > MOST_LINES or _exceeds(edit.new, most) for edit in plan.nodes):
        yield f"the plan edits arguments of nodes at more than {MOST_LINES} levels, or to more than {most:,} values"
    yield from _row("new blocks", [insert.name for insert in plan.inserts], MOST_STEPS)
    yield from _row("names of clones", [name for name, _ in plan.clone_keys], tensors * (1 + len(plan.inserts)))
    yield from _row("growing sets of units", list(enumerate(plan.growths)), 8 * tensors)
    for edit in plan.tensors:
        yield from _tensor(edit)
    for module in plan.modules:
        yield from _row(f"attributes of {module.path:.60}", [name for name, _, _ in module.attributes], MOST_LINES)
        if any(_exceeds(value, MOST_LINES) for _, *both in module.attributes for value in both):
            yield f"the plan gives an attribute of {module.path:.60} more than {MOST_LINES} values"
    for skip in plan.skips:
        yield from _row(f"pairs of {skip.node:.60}", [start for start, _ in skip.pairs], skip.read)
        yield from _row(f"copies of {skip.node:.60}", [channel for channel, _ in skip.copies], skip.width)
    for insert in plan.inserts:
        yield from _block(insert, nodes, tensors)
    lines = [*plan.proof, *plan.eval_only, *plan.notes, *(g.label for g in plan.growths)]
    most = MOST_LINES * (nodes + tensors) + MOST_PARTS * len(plan.inserts)
    if len(lines) > most or any(len(line) > LONGEST_LINE for line in lines):
        yield f"the plan has {len(lines):,} lines of text, more than allowed, or a line that is too long"


def _row(what: str, row: Sequence[Hashable], most: int) -> Iterator[str]:
    if len(row) > most:
        yield f"the plan lists {len(row):,} {what}, but at most {most:,} are possible"
    elif len(set(row)) < len(row):
        yield f"the plan lists {what} twice"


def _tensor(edit: TensorEdit) -> Iterator[str]:
    name = edit.names[0] if edit.names else "a tensor"
    rows = edit.old[0] if edit.old else 0
    yield from _row(f"rows of padding of {name:.60}", edit.padding, rows)
    yield from _row(f"axes of {name:.60}", [growth.axis for growth in edit.axes], len(edit.old))
    yield from _axes(name, edit.old, edit.axes)
    yield from _axes(name, edit.new, edit.axes)


def _axes(name: str, shape: Sequence[int], axes: Iterable[AxisGrowth]) -> Iterator[str]:
    if len(shape) > MOST_AXES:
        yield f"the plan gives {name:.60} {len(shape):,} axes, but at most {MOST_AXES} are possible"
        return
    for growth in axes:
        size = shape[growth.axis] if 0 <= growth.axis < len(shape) else 0
        if any(count > 4 * size + SLACK for count in _widths(growth.layout)):
            yield f"the plan divides axis {growth.axis} of {name:.60} into more parts than it has units"


def _widths(layout: Layout) -> Iterator[int]:
    if isinstance(layout, Leaf):
        yield len(layout.source)
    if isinstance(layout, Grid | Chain | Woven):
        yield len(layout.parts)
        for part in layout.parts:
            yield from _widths(part)


def _block(insert: Insert, nodes: int, tensors: int) -> Iterator[str]:
    name, body = f"{insert.name:.60}", insert.body
    yield from _row(f"consumers of {name}", insert.users, nodes)
    yield from _row(f"settings of {name}", [key for key, _ in insert.settings], MOST_LINES)
    yield from _row(f"tensors of {name}", [fresh.name for fresh in insert.tensors], MOST_PARTS + tensors)
    yield from _row(f"late tensors of {name}", insert.slow, MOST_PARTS + tensors)
    yield from _lines(name, insert.silenced)
    match body:
        case Layers():
            yield from _row(f"layers of {name}", [part.path for part in body.parts], MOST_PARTS)
            yield from _row(f"calls of {name}", [call.name for call in body.calls], MOST_PARTS)
            for part in body.parts:
                yield from _row(f"options of {part.path:.60}", [key for key, _ in part.options], MOST_LINES)
            for call in body.calls:
                if _exceeds(call.args, MOST_PARTS):
                    yield f"the plan gives {call.name:.60} more than {MOST_PARTS:,} arguments"
        case Copies():
            yield from _row(f"nodes of {name}", [node for node, _ in body.nodes], nodes)
            yield from _row(f"copies in {name}", [path for path, _ in (*body.parts, *body.tensors)], nodes)
    yield from _fresh(insert.tensors)


def _lines(name: str, lines: Collection[str]) -> Iterator[str]:
    if len(lines) > MOST_PARTS or any(len(line) > LONGEST_LINE for line in lines):
        yield f"the plan has {len(lines):,} lines of text about {name}, more than allowed, or a line that is too long"


def _fresh(tensors: Iterable[BlockTensor]) -> Iterator[str]:
    for fresh in tensors:
        yield from _row(f"axes of {fresh.name:.60}", [growth.axis for growth in fresh.axes], len(fresh.shape))
        yield from _axes(fresh.name, fresh.shape, fresh.axes)


def _exceeds(tree: object, most: int) -> bool:
    """Whether an argument tree has more than `most` leaves."""
    return (isinstance(tree, list | tuple | dict) and len(tree) > most) or _numbers(tree) > most


def _numbers(tree: object) -> int:
    """Count the leaves of an argument tree."""
    if isinstance(tree, list | tuple):
        return sum(map(_numbers, tree))
    if isinstance(tree, dict):
        return sum(map(_numbers, tree.values()))
    return 3 if isinstance(tree, slice) else 1
