"""Check whether a proved growth holds for inputs of other sizes, for which nodes may run other operators.

The user's code may branch on a size, and an axis may be given as a number that is computed from one. Where such a node
behaves differently, the growth is proved again and the node is recorded again at its new widths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver
from ..capture.containers import found
from ..capture.decomposition.inline_calls import kind_of
from ..capture.lowering.build import lower
from ..capture.lowering.snapshot import Snapshot
from ..capture.program.program import Op, Program, Value
from ..capture.source_lines import location
from ..capture.traced_model.other_modes import in_mode
from ..capture.user_objects.user_code import is_user_code, target_of
from ..dims.axis import Atom
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal
from ..functional import window_attention
from ..proof.both_modes import Unlike, carried, counterparts
from ..proof.prove import prove
from ..schemes import Failure, Proof
from .align import pin_within
from .graph_edits import GraphEdits
from .new_sizes import NewSizes
from .proved import Inexpressible, Proved
from .recordings import Predictions, Recording, difference
from .second_sizes import OutOfStep, SecondSizes

AXES_OF = ("dim", "dims", "dim0", "dim1", "start_dim", "end_dim", "axis", "axis0", "axis1", "source", "destination")
"""Arguments that name axes."""
Copied = Mapping[str, Mapping[Atom, tuple[int, ...]]]


class NotProved(Exception):
    """Raised when a growth does not hold in another program.

    The text says why; `node` is the node at which it fails, or an empty string.
    """

    def __init__(self, text: str, node: str = "") -> None:
        super().__init__(text)
        self.node = node


@dataclass(slots=True)
class _Elsewhere:
    """A cache of what has been computed about a model's programs for inputs of other sizes."""

    other: Analysis | None = None
    """The analysis of the model in its other mode, if that runs the same operators for the example inputs."""
    asked: bool = False
    differing: dict[int, frozenset[str]] = field(default_factory=dict)
    """The nodes that behave differently in a program, by the program's `id`."""
    solved: dict[tuple[int, bool], DimsSolver] = field(default_factory=dict)

    def nodes(self, here: Program, there: Program) -> frozenset[str]:
        """Return the nodes that behave differently in the two programs."""
        if id(there) not in self.differing:
            names = (name for name in here.calls if _work(here, name) != _work(there, name))
            self.differing[id(there)] = frozenset(names)
        return self.differing[id(there)]

    def dims(self, program: Program, *, adapt_skips: bool) -> DimsSolver:
        """Return the solved axes of a program."""
        key = id(program), adapt_skips
        if key not in self.solved:
            self.solved[key] = DimsSolver(program, adapt_skips=adapt_skips).solve()
        return self.solved[key]


def fails_at_other_sizes(
    gm: fx.GraphModule, analysis: Analysis, growth: Proved, simulation: GraphEdits, copied: Copied
) -> tuple[str, ...]:
    """Return the nodes that behave differently for inputs of other sizes, and at which a growth fails in training mode.
    Args:
        gm: The model, in evaluation or in training mode.
        analysis: The analysis of the model.
        growth: The growth, proved for the example inputs.
        simulation: The finished simulation of the growth.
        copied: The copy maps of each skip adapter, by node.

    Raises:
        Inexpressible: the growth fails in evaluation mode, or in the mode that the model is in.
    """
    if not simulation.told:
        return ()
    modules = dict(gm.named_modules(remove_duplicate=False))
    whole = [n for n in simulation.told if is_user_code(target_of(n, modules)) and not kind_of(gm, n)]
    told = {n.name: n for n in simulation.told if n in whole or not is_user_code(target_of(n, modules))}
    known = analysis.kept(_Elsewhere, _Elsewhere)
    failing = []
    for base, model in _modes(gm, analysis, known, both=bool(whole)):
        for other in base.elsewhere(model, simulation.scales):
            differing = [node for name, node in told.items() if name in known.nodes(base.program, other)]
            if not differing:
                continue
            try:
                there = known.dims(other, adapt_skips=growth.dims.adapt_skips)
            except FxgrowError:
                node, text = differing[0], "what becomes of their axes is not known"
            else:
                node, text = _problem(growth, there, differing, simulation if base is analysis else None, copied)
            if text and base.program.training and not analysis.program.training:
                failing.append(node.name)
            elif text:
                what = (
                    f"{node.name} cannot take the new size: for inputs of other sizes it runs other operators: {text}"
                )
                hint = "let this code run the same operators for all sizes, or choose another layer"
                where = location(gm, node.name)
                raise Inexpressible(Refusal(Kind.INEXPRESSIBLE, what, where=where, chain=(node.name,), hint=hint))
    return tuple(dict.fromkeys(failing))


def _modes(
    gm: fx.GraphModule, analysis: Analysis, known: _Elsewhere, *, both: bool
) -> Iterator[tuple[Analysis, fx.GraphModule]]:
    """Yield the analyses to check, each with the model in the mode that it was made for.

    With `both`, the other mode is always included: user code that is kept whole may test the mode for some sizes only.
    """
    yield analysis, gm
    if not both:
        return
    others = analysis.others(gm)
    twin = in_mode(gm, not analysis.program.training)
    if not others and not known.asked:
        known.asked = True
        try:
            program = lower(Snapshot(twin), analysis.inputs, analysis.lowering)
            known.other = Analysis(program, analysis.lowering, analysis.call, analysis.inputs, Snapshot(twin))
        except FxgrowError:
            known.other = None
    for other in [mode.analysis for mode in others] or [known.other]:
        if other is not None:
            yield other, twin


def _problem(
    growth: Proved, there: DimsSolver, nodes: Sequence[fx.Node], simulation: GraphEdits | None, copied: Copied
) -> tuple[fx.Node, str]:
    """Return one of `nodes` and why a growth fails at it for inputs of other sizes; the text is empty if it holds."""
    try:
        sizes, proof = proved_there(growth, there)
    except NotProved as error:
        return nodes[0], str(error)
    if simulation is None:
        return nodes[0], ""
    second = SecondSizes(simulation, there.program, further=True)
    try:
        second.advance()
    except GrowthRefused as refused:
        at = refused.refusal.chain[-1:]
        return next((n for n in nodes if n.name in at), nodes[0]), refused.refusal.what
    if second.lost:
        return nodes[0], ""
    new = NewSizes(there, sizes, proof.numbers, proof.paired, copied)
    for node in nodes:
        text = _unlike(node, second, simulation, new)
        if text:
            return node, text
    return nodes[0], ""


def proved_there(growth: Proved, there: DimsSolver) -> tuple[Mapping[Atom, int], Proof]:
    """Return the sizes and the proof of a growth in another program of the same model.

    Raises:
        NotProved: the growth does not hold in that program.
    """
    try:
        sizes, states = carried(growth.dims, growth.sizes, growth.assignment, there)
        here = counterparts(growth.dims, growth.sizes, there)
    except Unlike as error:
        raise NotProved(str(error)) from None
    proof = prove(there, sizes, states)
    if isinstance(proof, Failure):
        ops = there.program.ops
        raise NotProved(proof.text, ops[proof.op].node if 0 <= proof.op < len(ops) else "")
    if any(not growth.proof.uniform.issuperset(here.get(atom, growth.sizes)) for atom in proof.uniform):
        raise NotProved("each unit would have to be copied equally often")
    return sizes, proof


def _unlike(node: fx.Node, second: SecondSizes, simulation: GraphEdits, new: NewSizes) -> str:
    """Return how a node differs from what the rules predict for inputs of other sizes; empty if it does not."""
    how = simulation.done.get(node)
    if how is None or how.target is None:
        return ""
    try:
        _, recording = second.run(node, how)
    except OutOfStep as error:
        return str(error)
    assert recording is not None, "it is called"
    program = new.dims.program
    call = program.calls[node.name]
    ops = [op for op in program.node_ops[node.name] if op.step >= 0]
    predicted = [dict(new.arguments(op)) for op in ops]
    if node.target is window_attention:
        list(pin_within(node, ops, predicted))
    expected = Predictions(ops, predicted, new.shape, program.results[node.name])
    old = Recording.of(call.template, call.args, call.kwargs, recording.own)
    return difference(old, recording, expected, simulation.analysis.lowering.compared)


def _work(program: Program, node: str) -> list[Any]:
    """Return what a node does regardless of sizes: its operators, their operands and their axis arguments."""
    made: dict[int, Any] = {}
    steps: list[Any] = []
    for op in program.node_ops.get(node, ()):
        if op.step >= 0:
            reads = tuple(made.get(value.index, (value.node, value.names)) for value in op.inputs())
            steps.append((op.name, reads, *_manner(op)))
        made |= {out.index: (len(steps), place) for place, out in enumerate(op.outputs)}
    return [*steps, [made.get(v.index, (v.node, v.names)) for v in found(program.results.get(node), Value)]]


def _manner(op: Op) -> Iterator[tuple[str, Any]]:
    """Yield the arguments of an operator that are not sizes: axes, flags and strings; and the lengths of lists."""
    x = op.args.get("self")
    rank = len(x.shape) if isinstance(x, Value) else 0
    for name, value in op.args.items():
        if name in AXES_OF and rank and isinstance(value, int | list | tuple):
            axes = value if isinstance(value, list | tuple) else [value]
            yield name, tuple(k % rank if type(k) is int else k for k in axes)
        elif isinstance(value, bool | str | None):
            yield name, value
        elif isinstance(value, list | tuple) and op.name not in ("aten::cat", "aten::stack"):
            yield name, len(value)
