"""Find the skip paths that need an adapter, between a widened volume and an unchanged one (paper, equation 38)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver, SoftJoin
from ..dims.axis import Atom, Axis, Sum, atoms, last_growing
from ..errors import GrowthRefused, Kind, Refusal
from ..functional import adapt_skip
from ..plans import SkipEdit
from .targets import Target
from .unit_names import word

CopyMaps = Mapping[str, Mapping[Atom, tuple[int, ...]]]
"""For each node and atom, the old unit that each new unit copies."""


def skip_edits(
    gm: fx.GraphModule,
    analysis: Analysis,
    dims: DimsSolver,
    sizes: Mapping[Atom, int],
    kind: str,
    target: Target,
    paired: frozenset[str],
    copied: CopyMaps,
) -> tuple[SkipEdit, ...]:
    """Return one edit for each residual join at which only one side grows, or both sides grow independently.

    `copied` holds, by node of a join, the copy maps of its volume, if the channels that the skip path lacks are copies.

    Raises:
        GrowthRefused: the join is inside a leaf module, or the new units would not come after all old ones.
    """
    _adapters_stay_simple(gm, dims, sizes, target)
    edits = crossings(gm, dims, sizes, kind, target, paired, copied)
    elsewhere = _counted_from_the_end(gm, analysis) if edits else frozenset()
    return tuple(_placed(edit, elsewhere) for edit in edits)


def crossings(
    gm: fx.GraphModule,
    dims: DimsSolver,
    sizes: Mapping[Atom, int],
    kind: str,
    target: Target,
    paired: frozenset[str],
    copied: CopyMaps,
) -> list[SkipEdit]:
    """Return the edits of `skip_edits` for one program, with axes as counted for its inputs.

    Raises:
        GrowthRefused: see `skip_edits`.
    """
    if not dims.adapt_skips:
        return []
    edits = []
    for adapt_skips in dims.soft_joins:
        out, skip = dims.algebra.resolve(adapt_skips.out), dims.algebra.resolve(adapt_skips.skip)
        if out == skip or not (_grows(out, sizes) or _grows(skip, sizes)):
            continue
        edits.append(
            _edit(gm, dims, sizes, adapt_skips, out, skip, kind, target, adapt_skips.join.node in paired, copied)
        )
    return edits


def _placed(edit: SkipEdit, elsewhere: Collection[tuple[str, int, int]]) -> SkipEdit:
    """Return an edit whose adapter uses the right axis for inputs with more or fewer axes, too.

    Args:
        edit: The edit, with the axis for the example inputs.
        elsewhere: The result of `_counted_from_the_end`.
    """
    found = {axis for node, axis, rank in elsewhere if node == edit.node and rank != edit.rank}
    from_the_end = edit.axis - edit.rank in found
    if edit.kind == "conv":
        if has_convolution(edit.axis, edit.rank) and (from_the_end or not found):
            return edit
        edit = replace(edit, kind="linear")
    return replace(edit, axis=edit.axis - edit.rank) if from_the_end else edit


def has_convolution(axis: int, rank: int) -> bool:
    """Return whether `axis` is the channel axis of a convolution (batched or not) or of a linear layer at this rank."""
    return axis == rank - 1 or (0 <= axis <= 1 and rank - axis <= 4)


def _counted_from_the_end(gm: fx.GraphModule, analysis: Analysis) -> frozenset[tuple[str, int, int]]:
    """Return (node, channel axis counted from the end, rank) of each join, for inputs with more or fewer axes.

    `nn.Linear` reads the last axis of a tensor of any rank; the channel axis of a convolution precedes its spatial
    axes, with or without a batch axis; that of a batch norm is the second.
    """
    others = (there.program for there in analysis.at_other_ranks(gm))
    joins = (j for program in others for j in DimsSolver(program, adapt_skips=True).solve().soft_joins)
    ranks = ((adapt_skips, len(adapt_skips.join.skip.shape)) for adapt_skips in joins)
    return frozenset((adapt_skips.join.node, adapt_skips.at - rank, rank) for adapt_skips, rank in ranks)


def behind(dims: DimsSolver, axis: Axis, chosen: list[Atom]) -> list[Atom]:
    """Return those of the chosen atoms of an axis that may grow where a skip path is adapted.

    An adapter requires that new channels come after all old ones, so only the last piece of a concatenated volume may
    grow.
    """
    resolve = dims.algebra.resolve
    sides = [{resolve(adapt_skips.out), resolve(adapt_skips.skip)} for adapt_skips in dims.soft_joins]
    axes = [axis for pair in sides if len(pair) > 1 for axis in pair]
    for op in dims.program.ops:
        if op.name == "fxgrow::adapt_skip":
            axes += [dims.resolved(value)[op.args["dim"]] for value in (op.args["x"], op.outputs[0])]
    met = {a for axis in axes if isinstance(axis, Sum) for a in atoms(axis)}
    resolved = resolve(axis)
    last = resolved.terms[-1] if isinstance(resolved, Sum) and met.issuperset(chosen) else None
    return [last] if isinstance(last, Atom) and last in chosen else chosen


def _grows(axis: Axis, sizes: Mapping[Atom, int]) -> bool:
    """Return whether an axis contains a growing atom."""
    return any(a in sizes for a in atoms(axis))


def _edit(
    gm: fx.GraphModule,
    dims: DimsSolver,
    sizes: Mapping[Atom, int],
    adapt_skips: SoftJoin,
    out: Axis,
    skip: Axis,
    kind: str,
    target: Target,
    paired: bool,
    copied: CopyMaps,
) -> SkipEdit:
    """Return the edit that puts an adapter on the skip path of a residual join.

    Raises:
        GrowthRefused: the join is inside a leaf module, or the new units would not come after all old ones.
    """
    join = adapt_skips.join
    for axis in (out, skip):
        if _grows(axis, sizes) and last_growing(axis, sizes) is None:
            raise GrowthRefused(
                Refusal(
                    Kind.NON_ALIGNED,
                    f"cannot widen {target.name} alone: new {word(dims, [target.node])} would lie between old ones "
                    f"where a skip path enters {join.node}",
                    where=join.node,
                    hint='skip="couple" widens the whole stream',
                )
            )
    node = next(n for n in gm.graph.nodes if n.name == join.node)
    position = 0 if join.argument == "self" else 1
    source = node.args[position] if len(node.args) > position else node.kwargs.get("other")
    if node.op == "call_module" or not isinstance(source, fx.Node):
        raise GrowthRefused(
            Refusal(
                Kind.NOT_A_JOIN,
                f"cannot widen {target.name} alone: the residual join is inside {join.node}, beyond an adapter",
                where=node.format_node() or join.node,
                hint='skip="couple" widens the whole stream, or trace into that module',
            )
        )
    algebra = dims.algebra
    read, width = algebra.measure(skip, sizes), algebra.measure(out, sizes)
    before = algebra.measure(skip)
    pairs = (read - before) // 2
    blocks = ((before, pairs),) if pairs and paired else ()
    last = last_growing(out, sizes)
    source_of = copied.get(join.node, {}).get(last, ()) if last is not None else ()
    start = algebra.measure(out) - (algebra.measure(last) if last is not None else 0)
    copies = tuple(enumerate((start + unit for unit in source_of), algebra.measure(out)))
    rank = len(join.skip.shape)
    return SkipEdit(node.name, source.name, position, kind, adapt_skips.at, rank, before, blocks, read, width, copies)


def _adapters_stay_simple(gm: fx.GraphModule, dims: DimsSolver, sizes: Mapping[Atom, int], target: Target) -> None:
    """Check that new units come after all old ones at every skip adapter that the model already has.

    Raises:
        GrowthRefused: new units would be inserted between old ones.
    """
    for node in gm.graph.nodes:
        if node.op != "call_function" or node.target is not adapt_skip:
            continue
        op = dims.program.node_ops[node.name][0]
        for value in (op.args["x"], op.outputs[0]):
            axis = dims.resolved(value)[op.args["dim"]]
            if _grows(axis, sizes) and last_growing(axis, sizes) is None:
                raise GrowthRefused(
                    Refusal(
                        Kind.NON_ALIGNED,
                        f"cannot widen {target.name}: the skip adapter {node.name} reads {word(dims, [target.node])} "
                        "that would be interleaved with new ones",
                        where=node.name,
                        hint="widen the layers by themselves before reshaping their skip paths",
                    )
                )
