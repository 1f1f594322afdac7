"""Choose the block that a clone copies, and describe the copy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from ..analysis.analysis import Analysis
from ..capture.program.program import Value
from ..errors import GrowthRefused, Kind, Refusal
from ..plans.insertion import Copies
from .positions import Position
from .segments import Segment, alike, between, stretches


def find_block(gm: fx.GraphModule, analysis: Analysis, position: Position) -> Segment:
    """Find the block to copy: the one that ends at the position, or else the nearest repeated block of the same shape.

    Raises:
        GrowthRefused: the graph repeats no residual block that maps this shape to itself.
    """
    named = _container(gm, analysis, position)
    if named is not None:
        return named
    known = stretches(gm, analysis)
    fitting = [s for s in known if _shape(analysis, s.entry) == _shape(analysis, s.last) == position.value.shape]
    ends = [k for k, s in enumerate(known) if s.last == position.node.name]
    if ends:
        period = _period(gm, analysis, known[: ends[0] + 1])
        if period is not None:
            return period
        if known[ends[0]] in fitting:
            return known[ends[0]]
    order = analysis.program.position()
    here = order[position.node.name]
    repeated = [s for s in fitting if any(s is not other and _same(gm, analysis, s, other) for other in known)]
    if not repeated:
        text = "x".join(map(str, position.value.shape))
        raise GrowthRefused(
            Refusal(
                Kind.NO_BLOCK,
                f"cannot clone at {position.name}: the graph repeats no residual block from {text} to {text}",
                where=position.node.name,
                hint='name a repeated block, or say which one to insert: block="basic", "mlp" …',
            )
        )
    return min(repeated, key=lambda s: abs(order[s.last] - here))


def _same(gm: fx.GraphModule, analysis: Analysis, a: Segment, b: Segment) -> bool:
    """Return whether two segments are the same block. If their shapes are equal, integer arguments must be equal,
    too."""
    shapes = [(_shape(analysis, s.entry), _shape(analysis, s.last)) for s in (a, b)]
    return alike(gm, a, b, numbers=shapes[0] == shapes[1])


def _shape(analysis: Analysis, node: str) -> tuple[int, ...] | None:
    value = analysis.program.results.get(node)
    return value.shape if isinstance(value, Value) else None


def _container(gm: fx.GraphModule, analysis: Analysis, position: Position) -> Segment | None:
    """Return the container that the user named if it is a block: one input, one output of the same shape, a join
    inside."""
    inside = set(position.inside)
    if position.side == "before" or len(inside) < 2 or position.node.name not in inside:
        return None
    nodes = [n for n in gm.graph.nodes if n.name in inside and n.op != "get_attr"]
    entering = dict.fromkeys(i.name for n in nodes for i in n.all_input_nodes if i.name not in inside)
    fitting = [n for n in entering if _shape(analysis, n) == position.value.shape]
    if len(fitting) != 1 or not inside & {j.node for j in analysis.dims.joins}:
        return None
    on_the_way = between(gm, fitting[0], position.node.name)
    pieces = [s for s in stretches(gm, analysis) if set(s.nodes) <= set(on_the_way)]
    if _period(gm, analysis, pieces) is not None:  # a stage of several blocks, not one block
        return None
    return Segment(fitting[0], position.node.name, on_the_way)


def _period(gm: fx.GraphModule, analysis: Analysis, known: Sequence[Segment]) -> Segment | None:
    """Return the shortest run of segments at the end that repeats the run before it and preserves the shape, or
    None."""
    for length in range(1, len(known) // 2 + 1):
        last, before = known[-length:], known[-2 * length : -length]
        if all(_same(gm, analysis, a, b) for a, b in zip(last, before, strict=True)):
            joined = Segment(last[0].entry, last[-1].last, tuple(n for s in last for n in s.nodes))
            if _shape(analysis, joined.entry) == _shape(analysis, joined.last):
                return joined
    return None


def copies(gm: fx.GraphModule, stretch: Segment, *, afresh: bool) -> Copies:
    """Describe a copy of a segment. Modules keep their names relative to their common container."""
    nodes = {n.name: n for n in gm.graph.nodes}
    inside = [nodes[n] for n in stretch.nodes]
    shared = common(gm, stretch)
    targets = dict.fromkeys(str(n.target) for n in inside if n.op in ("call_module", "get_attr"))
    parts: dict[str, str] = {}
    tensors: dict[str, str] = {}
    for target in targets:
        path = target.removeprefix(f"{shared}.") if shared else target.replace(".", "_")
        (parts if any(n.op == "call_module" and n.target == target for n in inside) else tensors)[path] = target
    stem = shared.replace(".", "_")
    names = [(n.name.removeprefix(f"{stem}_") if stem else n.name, n.name) for n in inside]
    return Copies(stretch.entry, tuple(names), tuple(parts.items()), tuple(tensors.items()), afresh)


def common(gm: fx.GraphModule, stretch: Segment) -> str:
    """Return the path of the innermost container that holds all modules of a segment."""
    nodes = {n.name: n for n in gm.graph.nodes}
    targets = [str(nodes[n].target) for n in stretch.nodes if nodes[n].op in ("call_module", "get_attr")]
    if not targets:
        return ""
    above = [t.split(".")[:-1] for t in targets]
    found: list[str] = []
    for steps in zip(*above, strict=False):
        if len(set(steps)) > 1:
            break
        found.append(steps[0])
    return ".".join(found)
