"""The identity proof: a block returns its input, because everything that it adds is zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..analysis.analysis import Analysis
from ..bounds.idempotent import function_of, idempotent
from ..capture.program.program import Op, Value
from ..errors import Kind
from ..proof.states import Failure, Step
from ..rules import RULES
from ..rules.pointwise import PRelu
from .silence import Silence, silence

_KEEPS = frozenset(f"aten::{n}" for n in ("alias", "clone", "contiguous", "detach", "positive"))


@dataclass(frozen=True, slots=True)
class Identity:
    """The proof that a block is the identity, and the tensor values that it requires."""

    silences: tuple[Silence, ...]
    steps: tuple[Step, ...]
    eval_only: tuple[str, ...]
    stream: frozenset[int] = frozenset()
    """Indices of the values that equal the block's input."""


def prove_identity(
    analysis: Analysis, scheme: str, maps: Mapping[str, str], activated: Callable[[Op], str]
) -> Identity | Failure:
    """Prove that a block is the identity, by following its input through its program.

    Args:
        analysis: the analysis of the block as a separate model.
        scheme: how added branches are made zero: "r2r" or "zero".
        maps: nodes that are the identity because of their values; the text says why in evaluation mode only, if so.
        activated: returns why an operator does not change the block's input; "" if it does, or if that is unknown.
    """
    program = analysis.program
    entry = program.inputs[0]
    same = {entry.index}
    silences: list[Silence] = []
    steps: list[Step] = []
    eval_only: list[str] = []
    refused: Failure | None = None
    for at, op in enumerate(program.ops):
        stream = [v for v in op.inputs() if v.index in same]
        if not stream:
            continue
        if op.node in maps and op.outputs[0].shape == entry.shape:
            eval_only += [op.node] if maps[op.node] else []
            steps.append(Step(op.node, op.name, maps[op.node] or "the identity"))
        elif (branch := _branch(op, same)) is not None:
            found = silence(analysis, branch, at, same, scheme)
            if isinstance(found, Failure):
                refused = refused or found
                continue
            silences.append(found)
            eval_only += found.eval_only
            steps += [*found.steps, Step(op.node, op.name, "x + 0 = x")]
        elif op.name in _KEEPS:
            pass
        elif op.name in RULES and (why := activated(op)):
            steps.append(Step(op.node, op.name, why))
        elif idempotent(op):
            text = f"{op.node} ({op.name.removeprefix('aten::')}) changes values that have not passed it before"
            refused = Failure(Kind.NOT_IDEMPOTENT, at, text)
            continue
        else:
            continue
        same.update(out.index for out in op.outputs)
    result = program.outputs[0]
    if result.index in same and not silences and not maps:
        text = "it has no weights that it could learn to add something by"
        return Failure(Kind.NOT_SILENT, len(program.ops) - 1, text)
    if result.index in same:
        return Identity(tuple(silences), tuple(steps), tuple(dict.fromkeys(eval_only)), frozenset(same))
    if refused is not None:
        return refused
    last = next((i for i, op in enumerate(program.ops) if result in op.outputs), len(program.ops) - 1)
    return _lost(program.ops[last], last, same)


def _lost(op: Op, at: int, same: set[int]) -> Failure:
    name = op.name.removeprefix("aten::")
    learned = isinstance(RULES.get(op.name), PRelu)
    if (learned or function_of(op) is not None) and any(v.index in same for v in op.inputs()):
        return Failure(
            Kind.NOT_IDEMPOTENT, at, f"{op.node} ({name}) changes an already activated value: it is not idempotent"
        )
    return Failure(Kind.NOT_SILENT, at, f"{op.node} ({name}) does not return the block's input plus something")


def _branch(op: Op, same: set[int]) -> Value | None:
    """Return the operand that an addition adds to the stream, or None if the operator is not such an addition."""
    if op.name != "aten::add" or op.args.get("alpha", 1) != 1:
        return None
    a, b = op.args["self"], op.args["other"]
    if not isinstance(a, Value) or not isinstance(b, Value) or (a.index in same) == (b.index in same):
        return None
    stream, branch = (a, b) if a.index in same else (b, a)
    return branch if stream.shape == op.outputs[0].shape else None
