"""Check whether a proved growth holds for inputs with more or fewer axes than the example inputs.

A dimension that is counted from the front (`h.mean(1)`) may be another axis for such inputs. Where the growth does not
hold, the plan adds a guard after the input, so that the grown model raises an error instead of computing another
function.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis, OtherRank
from ..analysis.solver import DimsSolver
from ..capture.containers import found
from ..capture.inputs.second_sizes import MOST_MORE_AXES
from ..capture.lowering.snapshot import Snapshot
from ..capture.program.program import Op, Program, Value
from ..capture.traced_model.other_modes import in_mode, speak_for
from ..capture.traced_model.questions import is_value
from ..capture.user_objects.user_code import is_user_code, target_of
from ..dims.axis import Atom
from ..errors import FxgrowError, Kind, Refusal, usage
from ..plans import ModuleEdit, NodeEdit, SkipEdit
from ..plans.plan import AXES, Ranks, number_of_axes
from ..proof.both_modes import counterparts, scales_by_name
from ..rules import RULES
from ..rules.arithmetic import Add, Addcmul, Divide, Multiply
from ..rules.attention import Attention
from ..rules.contraction import Contraction
from ..rules.index import Embedding
from ..rules.norm import WholeAxis
from ..rules.pointwise import Cast, Clamp, Power, RandomSlope, Unary
from ..rules.where import Choose
from ..rules.window import Dropout, Pad, Window
from .check_other_sizes import AXES_OF, NotProved, proved_there
from .graph_edits import GraphEdits
from .new_sizes import NewSizes
from .proved import Inexpressible, Proved
from .skip_edits import crossings

_FROM_THE_END = (
    *(Add, Addcmul, Attention, Cast, Choose, Clamp, Contraction, Divide, Dropout, Embedding, Multiply, Pad, Power),
    *(RandomSlope, Unary, WholeAxis, Window),
)
"""Rules of operators that are elementwise, or that count the axis of the channels from the last axis.

Compared by exact type: a subclass may behave differently.
"""
_FROM_THE_FRONT = frozenset({"aten::feature_dropout", "aten::feature_alpha_dropout"})
"""Operators that use one of these rules but count the axis of the channels from the front."""


@dataclass(frozen=True, slots=True)
class Written:
    """The edits of a growth as planned for the example inputs, before guards for inputs of other ranks are added."""

    gm: fx.GraphModule
    analysis: Analysis
    growth: Proved
    sources: Mapping[Atom, tuple[int, ...]]
    """Copy maps: for each atom, the old unit that each new unit copies."""
    modules: tuple[ModuleEdit, ...]
    nodes: tuple[NodeEdit, ...]
    skips: tuple[SkipEdit, ...]
    shapes: Mapping[int, tuple[int, ...]]
    """The new shape of each tensor that changes, by identity."""


def guards_of_ranks(written: Written) -> tuple[tuple[NodeEdit, ...], tuple[str, ...]]:
    """Return the guards that a growth needs for inputs with more or fewer axes, and the notes that explain them.

    Raises:
        UsageError: input shapes are inferred, and the growth does not hold for inputs with more axes.
        Inexpressible: a guard is needed, but no tensor in the graph differs in its number of axes for these inputs.
    """
    analysis, growth = written.analysis, written.growth
    ranks: dict[str, tuple[int, set[Ranks]]] = {}
    notes: dict[str, None] = {}
    modes = [(analysis, written.gm, growth.dims, growth.sizes)]
    for there in growth.proof.elsewhere:
        other = there.mode.analysis
        assert other is not None, "what does not run there is not proved"
        dims = other.volumes if growth.dims.adapt_skips else other.dims
        modes.append((other, in_mode(written.gm, there.mode.training), dims, there.sizes))
    for base, gm, dims, sizes in modes:
        if not _counts_from_front(gm, dims, sizes):
            continue
        problems: list[tuple[Program, str, str]] = []
        held: set[tuple[str, int]] = set()
        for elsewhere in base.at_other_ranks(gm):
            if len(modes) > 1:
                speak_for(elsewhere.program, training=base.program.training)
            problem = _problem(written, base, gm, elsewhere)
            if problem is None:
                results = elsewhere.program.results.items()
                held.update((name, len(value.shape)) for name, value in results if isinstance(value, Value))
            else:
                problems.append((elsewhere.program, *problem))
        for program, node, text in problems:
            site, here, rank = _site(gm, base.program, program, node, held)
            found_at = (rank, None if rank - here >= MOST_MORE_AXES else rank)  # higher ranks are not tried
            ranks.setdefault(site, (here, set()))[1].add(found_at)
            axes = number_of_axes(*found_at)
            notes[f"raises FXG010 for inputs for which {site} has {axes}: {node}: {text}"] = None
    for site, (here, others) in ranks.items():
        if analysis.guessed and any(low > here for low, _ in others):  # the guess may well be wrong
            raise usage(
                Kind.BAD_INPUTS,
                f"the input shapes are inferred, and the growth does not hold where {site} has more than {here} axes",
                where=next(iter(notes)),
                hint="pass example_inputs=, with the shapes that the model is used on",
            )
    edits = (
        NodeEdit(site, (AXES,), here, tuple(sorted(others, key=lambda ranks: ranks[0])))
        for site, (here, others) in ranks.items()
    )
    return tuple(edits), tuple(notes)


def _counts_from_front(gm: fx.GraphModule, dims: DimsSolver, sizes: Mapping[Atom, int]) -> bool:
    """Return whether any node that handles a growing value may count axes from the front."""
    touched = dims.touched(sizes)
    if any(map(_op_counts_from_front, touched)):
        return True
    modules = dict(gm.named_modules(remove_duplicate=False))
    names = {op.node for op in touched}
    return any(
        (node.name in names and is_user_code(target_of(node, modules))) or _reads_size(node, dims, sizes)
        for node in gm.graph.nodes
        if node.op.startswith("call_")
    )


def _op_counts_from_front(op: Op) -> bool:
    """Return whether an operator may count axes from the front."""
    axes = [k for name, value in op.args.items() if name in AXES_OF for k in _numbers(value)]
    if axes:
        return max(axes) >= 0
    return type(RULES.get(op.name)) not in _FROM_THE_END or op.name in _FROM_THE_FRONT


def _numbers(axes: Any) -> list[int]:
    """Return the integers in an argument that names one axis or several."""
    return [k for k in (axes if isinstance(axes, list | tuple) else [axes]) if type(k) is int]


def _reads_size(node: fx.Node, dims: DimsSolver, sizes: Mapping[Atom, int]) -> bool:
    """Return whether a node reads the shape of a growing tensor, or a size at an index counted from the front."""
    if not is_value(node) or not node.all_input_nodes:
        return False
    last = node.args[-1] if len(node.args) > 1 else None
    read = dims.program.results.get(node.all_input_nodes[0].name)
    grows = any(dims.carries(value, sizes.__contains__) for value in found(read, Value))
    return grows and not (type(last) is int and last < 0)


def _problem(written: Written, base: Analysis, gm: fx.GraphModule, elsewhere: OtherRank) -> tuple[str, str] | None:
    """Return the node at which a growth does not hold in a program for inputs of another rank, and why.

    Returns None if the growth holds.
    """
    growth = written.growth
    first = next(iter(growth.targets)).node
    try:
        analysis = Analysis(elsewhere.program, base.lowering, base.call, elsewhere.inputs, Snapshot(gm))
        there = analysis.volumes if growth.dims.adapt_skips else analysis.dims
    except FxgrowError as error:
        return first, error.refusal.what
    except LookupError:  # a rule reads an axis that does not exist
        return first, "what becomes of its axes is not known"
    try:
        sizes, proof = proved_there(growth, there)
        sources = _carried(written, there)
    except NotProved as error:
        return error.node or first, str(error)
    except FxgrowError as error:  # a rule fails on inputs of this rank
        return error.refusal.where or first, error.refusal.what
    if scales_by_name(growth.dims, growth.proof) != scales_by_name(there, proof):
        return first, "normalisations would need other scales"
    more = [*_more(growth.proof.eval_only, proof.eval_only), *_more(growth.proof.redrawn, proof.redrawn)]
    if more:
        return more[0], "it would hold in evaluation mode only, or with other random draws"
    copied = dict.fromkeys(proof.copied, sources)
    try:
        skips = crossings(gm, there, sizes, "pad", growth.targets[0], proof.paired, copied)
        text = _unlike_skips(written.skips, skips)
        if text:
            return text, "the channels of a skip path are on another axis"
        new = NewSizes(there, sizes, proof.numbers, proof.paired, copied)
        adapted = {(s.node, s.source): _adapted(analysis.program, s) for s in skips}
        simulation = GraphEdits(analysis, gm, new, written.shapes, adapted).run()
    except FxgrowError as error:
        chain = error.refusal.chain
        return chain[-1] if chain else first, error.refusal.what
    if simulation.openings:
        return simulation.openings[0].node, "it would have to be written out"
    other = next(_unlike_edits(written, simulation), "")
    return (other, "it would need other numbers") if other else None


def _carried(written: Written, there: DimsSolver) -> dict[Atom, tuple[int, ...]]:
    """Return the copy maps of a growth, keyed by the atoms of another program of the same model."""
    pairs = counterparts(written.growth.dims, written.growth.sizes, there)
    return {atom: written.sources[mine] for atom, ours in pairs.items() for mine in ours if mine in written.sources}


def _more(here: Collection[str], there: Collection[str]) -> Iterator[str]:
    """Yield the nodes of `there` that are not in `here`."""
    return (node for node in there if node not in here)


def _unlike_skips(here: Collection[SkipEdit], there: Collection[SkipEdit]) -> str:
    """Return the consumer of a skip path that needs another adapter than the one planned for the example inputs.

    Returns an empty string if the planned adapters are right.
    """
    by_node = {(s.node, s.source): s for s in there}
    for skip in here:
        other = by_node.pop((skip.node, skip.source), None)
        if other is None:
            return skip.node
        from_the_end = skip.kind == "conv" or skip.axis < 0
        place = skip.axis % skip.rank - skip.rank if from_the_end else skip.axis
        same = replace(other, kind=skip.kind, axis=skip.axis, rank=skip.rank) == skip
        if not same or place != (other.axis - other.rank if from_the_end else other.axis):
            return skip.node
    return next((node for node, _ in by_node), "")


def _adapted(program: Program, skip: SkipEdit) -> tuple[int, ...]:
    """Return the shape that a skip adapter returns in a program."""
    shape = list(program.results[skip.source].shape)
    shape[skip.axis] = skip.width
    return tuple(shape)


def _unlike_edits(written: Written, simulation: GraphEdits) -> Iterator[str]:
    """Yield the nodes and modules that need other edits than those of the plan."""
    ours, theirs = ({(e.node, e.path): e.new for e in edits} for edits in (written.nodes, simulation.nodes))
    yield from (node for node, path in {**ours, **theirs} if ours.get((node, path)) != theirs.get((node, path)))
    if set(written.modules) != set(simulation.modules):
        edits = {*written.modules} ^ {*simulation.modules}
        yield min(edit.path for edit in edits)


def _site(
    gm: fx.GraphModule, here: Program, there: Program, name: str, held: Collection[tuple[str, int]]
) -> tuple[str, int, int]:
    """Return the node whose result a guard checks, with its rank in both programs.

    Candidates are the tensors that have different ranks in the two programs; ancestors of node `name`, usually inputs,
    come first. A tensor of a rank with which the growth holds for other inputs (`held`) is taken only as a last resort.

    Raises:
        Inexpressible: there is no such tensor.
    """
    above, waiting = set(), [node for node in gm.graph.nodes if node.name == name]
    while waiting:
        node = waiting.pop()
        above.add(node)
        waiting += [n for n in node.all_input_nodes if n not in above]
    sites = []
    for node in sorted(gm.graph.nodes, key=lambda n: n not in above):
        values = [program.results.get(node.name) for program in (here, there)]
        ranks = [len(value.shape) for value in values if isinstance(value, Value)]
        if len(ranks) == 2 and ranks[0] != ranks[1] and node.op != "output":
            sites.append((node.name, ranks[0], ranks[1]))
    if sites:
        return min(sites, key=lambda site: (site[0], site[2]) in held)
    what = f"the growth does not hold for inputs with another number of axes, of which {name} reads no tensor"
    hint = "count the axes from the end in forward, or choose another layer"
    raise Inexpressible(Refusal(Kind.INEXPRESSIBLE, what, chain=(name,), hint=hint))
