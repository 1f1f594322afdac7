"""Build the plan of a proved growth: every edit of tensors, modules, graph nodes and skip paths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver
from ..capture.decomposition.attention import Decomposition
from ..capture.program.program import Value
from ..capture.program.trees import attribute
from ..capture.traced_model.other_modes import in_mode
from ..dims.axis import Atom, atoms
from ..errors import GrowthRefused, Kind, Refusal
from ..plans import Cost, Growth, ModuleEdit, NodeEdit, Plan, SkipEdit, TensorEdit
from ..schemes import Proof, Scheme, State
from .check_other_ranks import Written, guards_of_ranks
from .check_other_sizes import fails_at_other_sizes
from .cost import costs
from .graph_edits import GraphEdits
from .new_sizes import NewSizes
from .proved import Inexpressible, Proved
from .skip_edits import skip_edits
from .tensor_edits import copy_maps, tensor_edits
from .unit_names import word


@dataclass(frozen=True, slots=True)
class Writing:
    """Options that say how the plan of a proved growth is built."""

    scheme: Scheme
    adapter: str
    seed: int
    init: str
    several: bool = False
    """Whether to collect every node that cannot express the growth, not only the first."""


@dataclass(frozen=True, slots=True)
class Edits:
    """All edits that a proved growth makes to a model, and the cost of the model before and after."""

    tensors: tuple[TensorEdit, ...]
    modules: tuple[ModuleEdit, ...]
    nodes: tuple[NodeEdit, ...]
    skips: tuple[SkipEdit, ...]
    openings: tuple[Decomposition, ...]
    before: Cost
    after: Cost
    eval_only: tuple[str, ...] = ()
    """Nodes that cannot take the new size in training mode, in which the model runs other operators."""
    notes: tuple[str, ...] = ()
    """A sentence for each input rank for which the grown model raises an error, with the reason."""


def written(gm: fx.GraphModule, analysis: Analysis, growth: Proved, how: Writing) -> Plan:
    """Build the plan of a proved growth.

    Raises:
        Inexpressible: a node cannot express the new size.
    """
    proof = growth.proof
    sources = copy_maps(growth.dims, growth.sizes, growth.assignment, proof.uniform, how.seed)
    edits = edits_of(gm, analysis, growth, sources, how.adapter, several=how.several)
    return Plan(
        title=_title(growth),
        scheme=how.scheme.name,
        seed=how.seed,
        init=how.init,
        growths=_growths(growth),
        tensors=edits.tensors,
        modules=edits.modules,
        nodes=edits.nodes,
        skips=edits.skips,
        proof=proof_lines(proof),
        eval_only=tuple(dict.fromkeys((*proof.eval_only, *edits.eval_only))),
        redrawn=proof.redrawn,
        notes=(*_notes(growth), *growth.notes, *edits.notes, *analysis.notes),
        before=edits.before,
        after=edits.after,
        model=analysis.digest,
        openings=edits.openings,
        noise=getattr(how.scheme, "noise", 0.0),
    )


def proof_lines(proof: Proof) -> tuple[str, ...]:
    """Return one line of text for each step of a proof."""
    return tuple(f"{s.node}: {s.op.removeprefix('aten::')}: {s.text}" for s in proof.steps)


def edits_of(
    gm: fx.GraphModule,
    analysis: Analysis,
    growth: Proved,
    sources: Mapping[Atom, tuple[int, ...]],
    adapter: str,
    *,
    several: bool = False,
) -> Edits:
    """Return all edits of a proved growth; they depend only on its states and copy maps (`sources`).

    With `several`, every node that cannot express the growth is collected before an error is raised.

    Raises:
        Inexpressible: a node cannot express the new size.
        GrowthRefused: a skip path cannot be adapted.
    """
    dims, sizes, proof = growth.dims, growth.sizes, growth.proof
    copied = dict.fromkeys(proof.copied, sources)
    new = NewSizes(dims, sizes, proof.numbers, proof.paired, copied)
    skips = skip_edits(gm, analysis, dims, sizes, adapter, growth.targets[0], proof.paired, copied)
    for skip in skips:
        _check_repeated(gm, analysis, growth, skip)
    tensors = tensor_edits(dims, sizes, growth.assignment, proof, sources)
    shapes = {id(attribute(gm, name)): t.new for t in tensors for name in t.names}
    adapted = {(s.node, s.source): _adapted(analysis, s) for s in skips}
    try:
        simulation = GraphEdits(analysis, gm, new, shapes, adapted, several=several).run()
    except GrowthRefused as refused:
        raise Inexpressible(refused.refusal) from None
    if simulation.refused:
        raise Inexpressible(simulation.refused[0].refusal, simulation.refused[1:])
    failing = () if simulation.openings else fails_at_other_sizes(gm, analysis, growth, simulation, copied)
    before, after = costs(analysis, gm, tensors, new, {s: _adapted(analysis, s) for s in skips})
    modules, nodes, openings = tuple(simulation.modules), tuple(simulation.nodes), tuple(simulation.openings)
    edits = Edits(tensors, modules, nodes, skips, openings, before, after, failing)
    if openings:
        return edits
    eval_only = (*failing, *_in_other_modes(gm, proof, sources, edits, shapes))
    guards, notes = guards_of_ranks(Written(gm, analysis, growth, sources, modules, nodes, skips, shapes))
    return replace(edits, nodes=(*nodes, *guards), eval_only=eval_only, notes=notes)


def _check_repeated(gm: fx.GraphModule, analysis: Analysis, growth: Proved, skip: SkipEdit) -> None:
    """Check that a skip path has the same number of channels for all inputs, as its adapter requires.

    The number may vary, because a sum broadcasts an input that has one channel.

    Raises:
        GrowthRefused: a skip path has another number of channels for other inputs.
    """
    other = analysis.second(gm)
    here, there = (p.results.get(skip.source) if p is not None else None for p in (analysis.program, other))
    if isinstance(here, Value) and isinstance(there, Value) and here.shape[skip.axis] != there.shape[skip.axis]:
        sizes = f"{here.shape[skip.axis]} channels for the example, and {there.shape[skip.axis]} for other inputs"
        raise GrowthRefused(
            Refusal(
                Kind.NOT_A_JOIN,
                f"cannot widen {growth.targets[0].name} alone: the skip input of {skip.node} has {sizes}",
                where=skip.node,
                hint='skip="couple" widens the whole stream',
            )
        )


def _in_other_modes(
    gm: fx.GraphModule,
    proof: Proof,
    sources: Mapping[Atom, tuple[int, ...]],
    edits: Edits,
    shapes: Mapping[int, tuple[int, ...]],
) -> tuple[str, ...]:
    """Return nodes at which the edits do not express the growth in training mode, if other operators run in that mode.

    Raises:
        Inexpressible: the edits do not express the growth in evaluation mode.
    """
    found = []
    for there in proof.elsewhere:
        analysis = there.mode.analysis
        assert analysis is not None, "what does not run there is not proved"
        dims = analysis.volumes if edits.skips else analysis.dims
        copied = dict.fromkeys(there.proof.copied, sources)
        new = NewSizes(dims, there.sizes, there.proof.numbers, there.proof.paired, copied)
        adapted = {(s.node, s.source): _adapted(analysis, s) for s in edits.skips}
        twin = in_mode(gm, there.mode.training)
        try:
            simulation = GraphEdits(analysis, twin, new, shapes, adapted).run()
            other = next((e for e in simulation.nodes if e not in edits.nodes), None)
            if other is not None or simulation.openings:
                node = other.node if other is not None else simulation.openings[0].node
                text = f"{node} would need another edit in {there.mode.name}"
                raise GrowthRefused(Refusal(Kind.INEXPRESSIBLE, text, chain=(node,), hint=_ONE_SIZE))
        except GrowthRefused as refused:
            if not there.mode.training:
                raise Inexpressible(refused.refusal) from None
            found.append(refused.refusal.chain[-1])
    return tuple(found)


_ONE_SIZE = "let the module use the size in the same way in both modes"


def _title(growth: Proved) -> str:
    """Return the title of a plan: its layers with their old and new widths."""
    algebra, targets = growth.dims.algebra, growth.targets
    if len(targets) > 4:
        return f"widen {len(targets)} layers"
    now = [algebra.measure(t.axis) for t in targets]
    then = [algebra.measure(t.axis, growth.sizes) for t in targets]
    widths = ", ".join(f"{a} -> {b}" for a, b in zip(now, then, strict=True))
    return f"widen {', '.join(t.name for t in targets)}: {widths} {word(growth.dims, [t.node for t in targets])}"


def _growths(growth: Proved) -> tuple[Growth, ...]:
    """Return the old and new size of each growing atom, with a readable name."""
    algebra = growth.dims.algebra
    labels = {atom: t.node for t in growth.targets for atom in atoms(algebra.resolve(t.axis))}
    return tuple(
        Growth(labels.get(a) or _label(growth.dims, a), algebra.size[a.index], n) for a, n in growth.sizes.items()
    )


def _adapted(analysis: Analysis, skip: SkipEdit) -> tuple[int, ...]:
    """Return the shape that a skip adapter returns for the example inputs."""
    value = analysis.program.results[skip.source]
    shape = list(value.shape)
    shape[skip.axis] = skip.width
    return tuple(shape)


def _label(dims: DimsSolver, atom: Atom) -> str:
    """Return a readable name for an atom: its first producer."""
    for producer in dims.producers:
        if atom in atoms(dims.algebra.resolve(producer.axis)):
            return producer.node
    return dims.algebra.name(atom)


def _notes(growth: Proved) -> list[str]:
    """Return notes on a growth by pairs of units: odd numbers of new units, and weights that are set to zero."""
    notes: list[str] = []
    dims, states = growth.dims, growth.assignment
    if not any(state in (State.EVEN, State.ODD) for state in states.values()):
        return notes
    more = {a: n - dims.algebra.size[a.index] for a, n in growth.sizes.items()}
    odd = [f"{_label(dims, a)} ({n})" for a, n in more.items() if n % 2]
    if odd:
        notes.append(f"odd numbers of new units: {', '.join(odd)}; one of them has no twin, and zero outgoing weights")
    zeros = sorted({dims.program.values[p.value].names[0] for p, s in states.items() if s is State.ZERO})
    if zeros and not {State.FREE, State.MEAN} & set(states.values()):
        notes.append(f"set to zero because its roles contradict each other: {', '.join(zeros)}")
    return notes
