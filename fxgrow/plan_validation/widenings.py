"""Validates a widening: proves it again from the states in its plan, and derives everything else in the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver
from ..capture.decomposition.attention import Decomposition
from ..capture.decomposition.inline_calls import decomposition_of, kind_of
from ..errors import FxgrowError, Kind
from ..planning.build_plan import edits_of, proof_lines
from ..planning.decompose_attention import decomposed, drawing_behind, redrawn_lines
from ..planning.proved import Proved
from ..planning.targets import Target
from ..planning.whole_functions import why_kept_whole
from ..plans import Plan
from ..proof.unread import unread
from ..schemes import Failure, Problem, Proof, State, prove, prove_in_modes
from .differences import cost_difference, first_difference
from .recover_states import Recovered, Unread, even, recover

COPIES = frozenset({State.COPY, State.SPLIT})


def solvers(plan: Plan, analysis: Analysis) -> list[DimsSolver]:
    """Return the two axis analyses, for coupled and uncoupled residual joins; the more likely one for the plan
    first."""
    return [analysis.volumes, analysis.dims] if plan.skips else [analysis.dims, analysis.volumes]


def proved_again(plan: Plan, dims: DimsSolver) -> tuple[Recovered, Proof] | Failure:
    """Prove one step from the states that it lists."""
    try:
        found = recover(plan, dims)
    except Unread as error:
        return Failure(Kind.STALE_PLAN, 0, str(error))
    proof = prove(dims, found.sizes, found.assignment)
    if isinstance(proof, Failure):
        return proof
    uneven = [a for a in proof.uniform if a in found.copies and not even(found.copies[a], dims.algebra.size[a.index])]
    if uneven:
        label = dims.algebra.name(uneven[0])
        return Failure(Kind.NO_PROOF, 0, f"units of {label} must be copied equally often, but are not")
    return found, proof


def widened_again(plan: Plan, gm: fx.GraphModule, analysis: Analysis) -> Plan | str:
    """Prove a plan of wider layers again.

    Returns:
        The plan with the derived proof and costs; or a description of the first difference, or of why its states do
        not prove.
    """
    behind = drawing_behind(plan.openings, gm, analysis)
    left = plan.openings
    while left:
        names = {node.name for node in gm.graph.nodes}
        some = tuple(
            opening for opening in left if opening.node in names
        )  # the others appear when these are decomposed
        text = next(filter(None, (_not_opened(o, gm, analysis) for o in some or left)), "")
        if text:
            return text
        left = tuple(opening for opening in left if opening not in some)
        gm, analysis = decomposed(gm, analysis, some)
    problems = []
    for dims in solvers(plan, analysis):
        found = _again(plan, gm, analysis, dims, behind)
        if isinstance(found, Plan):
            return found
        problems.append(found)
    return problems[0]


def _not_opened(opening: Decomposition, gm: fx.GraphModule, analysis: Analysis) -> str:
    """Describe why a call cannot be decomposed as a plan lists it; "" if it can."""
    try:
        node = next(n for n in gm.graph.nodes if n.name == opening.node)
        right = decomposition_of(gm, node, analysis.program)
    except (StopIteration, FxgrowError, LookupError, AttributeError, TypeError, AssertionError):
        return f"the plan decomposes {opening.node}, which cannot be decomposed as attention"
    why = "" if kind_of(gm, node) else why_kept_whole(gm, analysis, node)
    if why:
        return f"the plan decomposes {opening.node}, which cannot be traced through: {why}"
    return first_difference([opening], [right], "attention")


def _again(plan: Plan, gm: fx.GraphModule, analysis: Analysis, dims: DimsSolver, behind: Sequence[str]) -> Plan | str:
    others = analysis.others(gm)  # before the proof: if there are others, the program covers only one mode
    again = proved_again(plan, dims)
    if isinstance(again, Failure):
        return unproved(dims, again)
    found, proof = again
    if not found.sizes:
        return "the plan grows nothing"
    growing = Problem(analysis, dims, found.sizes, others)
    everywhere = prove_in_modes(growing, found.assignment)
    if isinstance(everywhere, Failure):
        return unproved(dims, everywhere)
    proof = everywhere
    failure = unread(growing, proof)
    if failure is not None:
        return unproved(dims, failure)
    copied = COPIES & set(found.assignment.values())
    if plan.noise and not copied:
        return f"the plan adds noise of {plan.noise}, but copies nothing"
    target = Target("the layers of the plan", "", next(iter(found.sizes)))
    growth = Proved(dims, found.sizes, (target,), found.assignment, proof, ())
    kinds = {skip.kind for skip in plan.skips} or {"pad"}
    if len(kinds) > 1:
        return "the plan adapts skip paths in two ways"
    try:
        edits = edits_of(gm, analysis, growth, found.copies, next(iter(kinds)))
    except FxgrowError as error:
        return error.refusal.what
    parts: list[tuple[object, object, str]] = [
        (plan.tensors, edits.tensors, "tensor"),
        (plan.modules, edits.modules, "module"),
        (plan.nodes, edits.nodes, "node"),
        (plan.skips, edits.skips, "the skip path into"),
        ((), edits.openings, "attention"),
        (plan.eval_only, tuple(dict.fromkeys((*proof.eval_only, *edits.eval_only))), "evaluation mode only at"),
        (plan.redrawn, tuple(dict.fromkeys((*proof.redrawn, *behind))), "other random numbers at"),
    ]
    texts = (first_difference(have, want, what) for have, want, what in parts)  # type: ignore[arg-type]  # rows
    problem = next(filter(None, texts), "") or cost_difference(plan, edits.before, edits.after)
    lines = (*proof_lines(proof), *redrawn_lines([node for node in behind if node not in proof.redrawn]))
    return problem or replace(plan, proof=lines, before=edits.before, after=edits.after)


def unproved(dims: DimsSolver, failure: Failure) -> str:
    """Describe why the states of a plan are not proved."""
    if failure.kind is Kind.STALE_PLAN:
        return failure.text
    ops = dims.program.ops
    where = f" (at {ops[failure.op].node})" if 0 <= failure.op < len(ops) else ""
    return f"its states do not preserve the function{where}: {failure.text}"
