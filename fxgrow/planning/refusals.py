"""Build refusals: what was requested, what prevents it, where in the user's code, by which chain, and alternatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from ..analysis.explain import OUTPUT, chain, culprit
from ..analysis.solver import DimsSolver
from ..capture.lowering.root_hooks import WAY_OUT
from ..capture.source_lines import location
from ..dims.axis import Axis, atoms
from ..errors import GrowthRefused, Kind, Refusal
from ..proof.occurrences import MOST_INDICES, crowded
from ..schemes import Failure
from .next_steps import UNTRIED, Named, Refused, Way, by_factors, of_scheme, text
from .targets import Target
from .unit_names import of_units, word
from .widths import Width, chosen_atoms

_WHAT = {
    Kind.UNKNOWN_OP: "its channels reach an operator that fxgrow has no rule for",
    Kind.SOFTMAX: "its channels reach a softmax over the whole axis",
    Kind.NORM: "its channels reach a normalisation that mixes them",
    Kind.STATISTIC: "its channels reach a statistic over the whole axis",
    Kind.OUTPUT: "its channels are an output of the model",
    Kind.INPUT: "its channels are joined with an input of the model",
    Kind.NON_ALIGNED: "its channels are regrouped across the boundaries of other volumes (non-aligned)",
    Kind.WINDOW: "a window runs over its channels, or they become space",
    Kind.BROADCAST: "its one channel is broadcast against many",
    Kind.INDEX: "its channels are addressed by number",
    Kind.CONSTANT: "its channels meet a tensor whose entries are given, not learned",
    Kind.ALIAS: "its channels share storage with a tensor that is written in place",
    Kind.FIXED: "its channels meet an axis of fixed size",
}
_CROWD = (
    f"new units are told apart by at most {MOST_INDICES} parts of one tensor, and here are more: "
    "give them layers of their own"
)
_OUT = {
    Kind.OUTPUT: "more outputs would change the interface; widen a hidden layer",
    Kind.UNKNOWN_OP: "give the operator a rule: fxgrow.register_rule (see CONTRIBUTING)",
    Kind.UNSUPPORTED_MODEL: WAY_OUT,
}


def explain_refusal(
    gm: fx.GraphModule, dims: DimsSolver, target: Target, *, adapt_skips: bool, axis: Axis | None = None
) -> GrowthRefused:
    """Return the refusal for an axis that the analysis has frozen."""
    axis = target.axis if axis is None else axis
    reason = dims.algebra.reason(axis)
    if reason is None:
        return GrowthRefused(
            Refusal(
                Kind.FIXED,
                f"cannot widen {target.name}: nothing in its axis can grow, each unit has a place of its own",
                where=target.node,
                hint="widen a layer whose channels end inside the model; fxgrow.inspect lists them",
            )
        )
    stop = culprit(dims, reason)
    way = chain(dims, axis, target.node, stop)
    marks = {stop: f"{stop} ({reason.text})", target.node: f"{target.node} (born)"}
    if stop == target.node:
        marks[stop] = f"{stop} (born; {reason.text})"
    marked = tuple(marks.get(n, n) for n in _short(way))
    refusal = Refusal(
        reason.kind,
        f"cannot widen {target.name}: {of_units(dims, target, _WHAT.get(reason.kind, reason.text))}",
        where=f"{location(gm, stop)}" if stop != OUTPUT else f"output:  {reason.text}",
        chain=marked,
    )
    return _with_ways(refusal, _ways_out(dims, target, reason.kind, stop, adapt_skips))


def failed(gm: fx.GraphModule, dims: DimsSolver, target: Target, failure: Failure) -> GrowthRefused:
    """Return the refusal for a growth that cannot be proved with any choice of states."""
    node = dims.program.ops[failure.op].node
    mine = set(atoms(dims.algebra.resolve(target.axis)))
    crowd = _CROWD if failure.kind in (Kind.NO_PROOF, Kind.DEAD) and crowded(dims, mine) else ""
    ways = [*([Way(crowd)] if crowd else []), *of_scheme(failure.hint)]
    refusal = Refusal(
        failure.kind,
        f"cannot widen {target.name}: {of_units(dims, target, failure.text)}",
        where=location(gm, node),
        chain=_short(chain(dims, target.axis, target.node, node)),
    )
    return _with_ways(refusal, [*ways, *_ways_out(dims, target, failure.kind, node, adapt_skips=dims.adapt_skips)])


def inexpressible(dims: DimsSolver, target: Target, refused: GrowthRefused) -> GrowthRefused:
    """Return the refusal for a node that cannot express the new size, with the chain from the requested layer to it."""
    r = refused.refusal
    way = chain(dims, target.axis, target.node, r.chain[-1]) if r.chain else ()
    refusal = Refusal(r.kind, f"cannot widen {target.name}: {r.what}", r.where, _short(way), r.hint)
    less = Way("a smaller width, such as factor=1.25", {"width": Width(factor=1.25)})
    return _with_ways(refusal, [*_by_factors(dims, target), less, Way(r.hint)])


def _short(way: tuple[str, ...]) -> tuple[str, ...]:
    """Abbreviate a chain of more than eight nodes."""
    return way if len(way) <= 8 else (*way[:4], f"… {len(way) - 7} more …", *way[-3:])


def _with_ways(refusal: Refusal, ways: Sequence[Way]) -> GrowthRefused:
    """Attach alternatives to a refusal; its hint lists only those that need not be tried."""
    sure = [way for way in ways if not (way.options or way.layers)]
    return Refused(replace(refusal, hint=text(sure, lambda _: Named()) or UNTRIED), ways)


def _by_factors(dims: DimsSolver, target: Target) -> Sequence[Way]:
    """Return the alternatives of growing one or the other factor of a product; empty if there is no such choice."""
    first, last = (chosen_atoms(dims, target.axis, grow) for grow in ("groups", "channels"))
    return by_factors() if first != last else ()


def _ways_out(dims: DimsSolver, target: Target, kind: Kind, stop: str, adapt_skips: bool) -> list[Way]:
    """Return the alternatives to a growth that node `stop` prevents; layers near that node come first."""
    order = dims.program.position()
    limit = order.get(stop, len(order))
    mine = set(atoms(dims.algebra.resolve(target.axis)))
    own = {p.weight.index for p in dims.producers if p.node == target.node}  # another call of it is the same layer
    others = [p for p in dims.producers if p.weight.index not in own and dims.algebra.growable(p.axis)]
    able = [p.node for p in others if not mine & set(atoms(dims.algebra.resolve(p.axis)))]
    near = tuple(sorted(dict.fromkeys(able), key=lambda n: abs(order.get(n, 0) - limit)))
    ways = [Way(_OUT[kind])] if kind in _OUT else []
    ways += _by_factors(dims, target)
    if near:
        ways.append(Way(f"widen a layer whose {word(dims, near)} end elsewhere", layers=near))
    volumes = [v for join in dims.joins for v in (join.main, join.skip)]
    if not adapt_skips and any(mine & set(atoms(a)) for v in volumes for a in dims.resolved(v)):
        ways.append(Way('keep the stream as it is with skip="reshape"', {"skip": "reshape"}))
    return ways


__all__ = ["explain_refusal", "failed", "inexpressible"]
