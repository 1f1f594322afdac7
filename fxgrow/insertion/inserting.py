"""Draft the insertion of a block: build and analyse the block separately, and prove that it is the identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.analysis import Analysis, OtherMode, analyse
from ..capture.containers import replaced
from ..capture.lowering.random_ops import has_flag
from ..capture.program.program import Op, Program, Value
from ..capture.source_lines import location
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal, usage
from ..planning.cost import flops
from ..plans import Cost, Insert, ModuleEdit, TensorEdit
from ..plans.insertion import BlockTensor, Body, Copies, Factory
from ..schemes import Failure
from .assemble import assemble, outer
from .block_tensors import fresh_tensors, slow
from .context import BlockContext, passed
from .dtypes import nearest_tensor, other_dtype
from .identity_proof import Identity, prove_identity
from .other_sizes import BlockSizes, check_other_sizes, fails_in_training
from .positions import Position

_HINTS = {
    Kind.NOT_SILENT: "end the block in its last layer, or in a function with σ(0) = 0 (gelu, silu, tanh, leaky_relu)",
    Kind.NO_SLOPE: "end the block in its last layer, or in a function with a slope at 0 (gelu, silu, tanh, leaky_relu)",
}


@dataclass(frozen=True, slots=True)
class Drafted:
    """A planned insertion with its proof, and the edits of existing layers that belong to it."""

    insert: Insert
    proof: tuple[str, ...]
    eval_only: tuple[str, ...]
    flops: int
    size: int
    tensors: tuple[TensorEdit, ...] = ()
    modules: tuple[ModuleEdit, ...] = ()
    redrawn: tuple[str, ...] = ()

    @staticmethod
    def costs(gm: fx.GraphModule, analysis: Analysis, drafts: Sequence[Drafted]) -> tuple[Cost, Cost]:
        """Return the cost of the model before and after the insertions."""
        parameters, size = analysis.size
        ops = analysis.program.ops
        before = Cost(parameters, size, flops(ops, lambda value: value.shape))
        total = before.flops
        for d in drafts:
            parameters += sum(prod(t.shape) for t in d.insert.tensors if t.learns)
            size += d.size
            total += d.flops
            for edit in d.tensors:
                more = prod(edit.new) - prod(edit.old)
                parameters += more
                size += more * gm.get_parameter(edit.names[0]).element_size()
                weight = analysis.program.parameters[edit.names[0]]
                own = flops([op for op in ops if weight in op.inputs()], lambda value: value.shape)
                total += own * more // prod(edit.old)
        return before, Cost(parameters, size, total)


def draft(
    gm: fx.GraphModule,
    analysis: Analysis,
    position: Position,
    body: Body,
    kind: str,
    scheme: str,
    context: BlockContext,
    where: str,
    settings: tuple[tuple[str, object], ...],
    *,
    maps: Mapping[str, str] | None = None,
    fills: Mapping[str, str] | None = None,
    idle: Callable[[Op], str] | None = None,
    shape: tuple[int, ...] | None = None,
) -> Drafted:
    """Draft a block for a position, with the proof that it does not change the function.

    Args:
        maps: nodes that are the identity because of their values (see `prove_identity`).
        fills: predetermined fills, by tensor name.
        idle: explains why an operator does not change the value at the position, or returns "".
        shape: shape of the value that enters, if it differs from the position's.

    Raises:
        UsageError: the block does not accept the value, or returns another shape.
        GrowthRefused: the block would change the function.
    """
    value = position.value
    block = assemble(body, gm, meta=True)
    dtype = other_dtype(gm, analysis, body, nearest_tensor(gm, context, value, where), value)
    if dtype or not isinstance(body, Copies):
        block.to(dtype=value.dtype)
    example = torch.empty(value.shape if shape is None else shape, dtype=value.dtype, device="meta")
    beside = _examples(analysis.program, outer(body, gm))
    inner = _analysed(block, (example, *beside), body, kind)
    sizes = BlockSizes(position, block, lambda program: _examples(program, outer(body, gm)), body)
    if shape is None:
        check_other_sizes(gm, analysis, sizes, where)
    known = idle if idle is not None else passed(gm, analysis, position.node, value)
    if scheme == "morphism":
        proof: Identity | Failure = Identity((), (), ())
        lines = _factored(inner)
    else:
        tries = "zero" if scheme == "net2net" else scheme
        proof = prove_identity(inner, tries, maps or {}, known)
        lines = () if isinstance(proof, Failure) else tuple(f"{s.node}: {_short(s.op)}: {s.text}" for s in proof.steps)
    if isinstance(proof, Failure):
        zeros = scheme == "r2r" and not isinstance(prove_identity(inner, "zero", maps or {}, known), Failure)
        raise _refused(block, inner, proof, where, scheme, body, 'scheme="zero"' if zeros else "")
    limits: tuple[str, ...] = ()
    made = fresh_tensors(block, inner, body, proof, context.like, fills or {})
    if scheme != "morphism":
        for other in inner.others(block):
            text = _silent_in(other, block, body, tries, maps or {}, known, context.like, fills or {}, made)
            if text and not other.training:
                failure = Failure(Kind.NOT_SILENT, 0, f"in evaluation mode {text}")
                raise _refused(block, inner, failure, where, scheme, body)
            limits += (f"{kind}: in evaluation mode only: in training mode {text}",) if text else ()
    if shape is None and (passes := fails_in_training(gm, analysis, sizes)):
        text = f"in training mode it does not take {'x'.join(map(str, passes))}, which passes here for other inputs"
        limits += (f"{kind}: in evaluation mode only: {text}",)
    insert = Insert(
        name="",
        node=position.node.name,
        users=position.users,
        block=kind,
        scheme=scheme,
        settings=settings,
        body=body,
        tensors=made,
        like=nearest_tensor(gm, context, value, where),
        silenced=tuple(s.text for s in proof.silences),
        slow=slow(block, inner, proof),
        dtype=dtype,
    )
    own = isinstance(body, Copies | Factory)
    redrawn = random_nodes(block, (example, *beside), training=False) if own else ()
    draws = random_nodes(block, (example, *beside), training=True) if own else ()
    draws = tuple(node for node in draws if node not in redrawn)
    lines += tuple(f"{node}: in evaluation mode only: it draws random numbers before others do" for node in draws)
    lines += tuple(f"{node}: other random draws: it draws random numbers before others do" for node in redrawn)
    lines += limits
    only = (kind,) if limits else ()
    eval_only = tuple(dict.fromkeys((*proof.eval_only, *draws, *only)))
    work = flops(inner.program.ops, lambda v: v.shape)
    tensors = {id(t): t for t in (*block.parameters(), *block.buffers())}
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    return Drafted(insert, lines, eval_only, work, size, redrawn=redrawn)


def _factored(inner: Analysis) -> tuple[str, ...]:
    """Return the proof lines for a factor in front of a layer, one per operator."""
    first, *rest = inner.program.ops
    lines = [
        f"{first.node}: {_short(first.name)}: W' U = W entry by entry: U is the identity and further rows, and W' has "
        "zeros for those"
    ]
    if rest:
        lines.append(f"{rest[0].node}: the P-activation starts linear, so the product is what it was")
    return tuple(lines)


def _silent_in(
    other: OtherMode,
    block: fx.GraphModule,
    body: Body,
    scheme: str,
    maps: Mapping[str, str],
    known: Callable[[Op], str],
    like: str,
    fills: Mapping[str, str],
    tensors: tuple[BlockTensor, ...],
) -> str:
    """Return why the tensors that make a block zero fail to do so in another mode; empty if they do not fail."""
    if other.analysis is None:
        return f"the block does not run: {other.problem}"
    proof = prove_identity(other.analysis, scheme, maps, known)
    if isinstance(proof, Failure):
        return proof.text
    same = fresh_tensors(block, other.analysis, body, proof, like, fills) == tensors
    return "" if same else "the block would have to be silenced otherwise"


def random_nodes(block: fx.GraphModule, inputs: tuple[Any, ...], *, training: bool) -> tuple[str, ...]:
    """Return the nodes that draw random numbers in one mode (dropout, stochastic depth). With the same seed, later
    draws then differ from those without the block."""
    flags = {module: module.training for module in block.modules()}
    block.train(training)
    try:
        ops = analyse(block, inputs).program.ops
    except FxgrowError:  # in training mode the block may not run on one example
        ops = []
    for module, flag in flags.items():
        module.training = flag
    return tuple(dict.fromkeys(op.node for op in ops if _random(op, training)))


def _random(op: Op, training: bool) -> bool:
    if has_flag(op.name):
        return op.draws[training]
    named = any(word in op.name for word in ("bernoulli", "rand", "multinomial"))
    return op.args.get("p") != 0 and (op.seeded or named)


def made_by(
    build: Callable[[int], nn.Module],
    gm: fx.GraphModule,
    analysis: Analysis,
    position: Position,
    scheme: str,
    context: BlockContext,
    where: str,
) -> Drafted:
    """Draft a block from a user's factory. The module may contain its own skip connection; otherwise its input is
    added."""
    text = f"{getattr(build, '__module__', '?')}:{getattr(build, '__qualname__', type(build).__qualname__)}"
    axis = context.axis if context.axis > 0 else 1 if len(position.value.shape) != 3 else 2
    body = Factory(text, build, position.value.shape[axis], residual=True)
    refused: GrowthRefused | None = None
    for residual in (False, True):
        try:
            chosen = replace(body, residual=residual)
            return draft(gm, analysis, position, chosen, "factory", scheme, context, where, (("by", text),))
        except GrowthRefused as error:
            refused = error
    assert refused is not None
    raise refused


def _examples(program: Program, nodes: Sequence[fx.Node]) -> list[Any]:
    def example(value: Value) -> Tensor:
        return torch.empty(value.shape, dtype=value.dtype, device="meta")

    return [replaced(program.results[node.name], Value, example) for node in nodes]


def _analysed(block: fx.GraphModule, inputs: tuple[Any, ...], body: Body, kind: str) -> Analysis:
    """Analyse a block as a separate model.

    Raises:
        UsageError: the block does not run on the value at the position, or returns another shape.
    """
    shape = tuple(inputs[0].shape)
    who = f"the block that {body.text} makes" if isinstance(body, Factory) else f"a {kind} block"
    way_out = "let it take a tensor of this shape" if isinstance(body, Factory) else "choose another norm= or block="
    try:
        made = analyse(block, inputs, fresh=True)
    except FxgrowError as error:
        raise usage(
            Kind.BAD_BLOCK,
            f"{who} cannot take {'x'.join(map(str, shape))}: {error.refusal.what}",
            hint=way_out,
            where=error.refusal.where,
        ) from error
    results = made.program.outputs
    output = block.graph.output_node().args[0]
    found = made.program.results.get(output.name) if isinstance(output, fx.Node) else None
    if kind != "factor" and (len(results) != 1 or not isinstance(found, Value) or found.shape != shape):
        text = "x".join(map(str, results[0].shape)) if len(results) == 1 else f"{len(results)} values"
        raise usage(
            Kind.BAD_BLOCK,
            f"{who} returns {text}, not {'x'.join(map(str, shape))} as it takes",
            hint="let the block return one tensor of the shape that it takes",
        )
    return made


def _refused(
    block: fx.GraphModule, inner: Analysis, failure: Failure, where: str, scheme: str, body: Body, hint: str = ""
) -> GrowthRefused:
    ops = inner.program.ops
    node = ops[failure.op].node if failure.op < len(ops) else "it computes nothing"
    place = location(block, node) if isinstance(body, Factory) else node
    return GrowthRefused(
        Refusal(
            failure.kind,
            f"cannot deepen {where} with scheme={scheme!r}: {failure.text}",
            where=f"in the new block: {place}",
            hint=hint or _HINTS.get(failure.kind, "choose another block or scheme"),
        )
    )


def _short(op: str) -> str:
    return op.removeprefix("aten::")
