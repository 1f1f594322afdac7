"""Determine the layers near a position, so that a new block there matches the surrounding network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from typing import Any

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..bounds.bounds import bounds_of
from ..bounds.idempotent import CLAMPS, KEEPS_VALUES, function_of, idempotent, keeps_type, kept_by, same_function
from ..capture.program.program import Op, Origin, Value
from ..capture.program.trees import leaves
from ..dims.axis import atoms
from ..plans.insertion import options
from .attention_masks import MASKING, hides
from .mode_dependent_calls import veils
from .one_value import one_value

ATTENTION = "aten::scaled_dot_product_attention"
Options = tuple[tuple[str, object], ...]
_ACTIVATIONS: dict[str, str] = {
    "relu": "ReLU",
    "gelu": "GELU",
    "silu": "SiLU",
    "mish": "Mish",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "elu": "ELU",
    "selu": "SELU",
    "celu": "CELU",
    "softplus": "Softplus",
    "leaky_relu": "LeakyReLU",
    "hardswish": "Hardswish",
    "relu6": "ReLU6",
    "hardtanh": "Hardtanh",
    "hardsigmoid": "Hardsigmoid",
    "prelu": "PReLU",
}
"""The class in torch.nn of each function that serves as an activation."""


@dataclass(frozen=True, slots=True)
class Activation:
    """The name of an activation class in torch.nn, and its options."""

    kind: str
    options: Options = ()


@dataclass(frozen=True, slots=True)
class BlockContext:
    """The layers that the network uses near a position."""

    like: str
    """The name of the preceding layer's weight; "" if there is none."""
    layer: str
    """Its operator: "conv2d", "linear" …; "" if there is none."""
    axis: int
    """The axis of the value along which the preceding layer's units lie; -1 if unknown."""
    norm: str
    """The kind of the nearest norm: "batch", "group", "layer", "rms" or "none"."""
    groups: int
    """The number of groups of that norm; 1 unless it is a group norm."""
    activation: Activation | None
    heads: int
    """The number of heads of the nearest attention; 0 if the network has none."""
    causal: bool
    masked: bool
    """Whether attention in this network takes masks that a new block cannot reproduce."""


def look_around(gm: fx.GraphModule, analysis: Analysis, node: fx.Node, value: Value) -> BlockContext:
    """Return the context of a node: the operators before it, nearest first, then those after it."""
    program = analysis.program
    order = program.position()
    here = order[node.name]
    before = [op for op in reversed(program.ops) if order.get(op.node, 0) <= here]
    ops = before + [op for op in program.ops if order.get(op.node, 0) > here]
    like, layer = next(_weights(analysis, ops), ("", ""))
    norm = next((op for op in ops if _norm(op)), None)
    kind = _norm(norm) if norm is not None else "none"
    if kind == "batch" and one_value(gm, analysis, node.name):
        kind = "none"
    attention = [op for op in ops if op.name == ATTENTION]
    masks = [op.args["attn_mask"] for op in attention if op.args.get("attn_mask") is not None]
    nodes = {n.name: n for n in gm.graph.nodes}
    return BlockContext(
        like=like,
        layer=layer,
        axis=_units(analysis, before, value),
        norm=kind,
        groups=norm.args["num_groups"] if norm is not None and _norm(norm) == "group" else 1,
        activation=next((a for op in ops if (a := _activation(gm, nodes[op.node], op)) is not None), None),
        heads=attention[0].args["query"].shape[-3] if attention and len(attention[0].args["query"].shape) > 3 else 0,
        causal=any(op.args.get("is_causal") for op in attention),
        masked=any(map(partial(hides, program), masks)) or any(op.name in MASKING for op in ops),
    )


def _units(analysis: Analysis, before: list[Op], value: Value) -> int:
    """Return the axis along which the units of the nearest producer of a value lie; -1 if unknown."""
    dims = analysis.dims
    axes = [set(atoms(axis)) for axis in dims.resolved(value)]
    near = {op.node: k for k, op in enumerate(before)}
    for producer in sorted(dims.producers, key=lambda p: near.get(p.node, len(near))):
        made = set(atoms(dims.algebra.resolve(producer.axis)))
        found = [k for k, held in enumerate(axes) if k and held & made]
        if found and producer.node in near:
            return found[-1]
    return -1


def _weights(analysis: Analysis, ops: list[Op]) -> Iterator[tuple[str, str]]:
    for op in ops:
        name = op.name.removeprefix("aten::")
        if not name.startswith(("conv", "linear", "matmul", "mm", "bmm", "addmm")):
            continue
        for value in op.inputs():
            if value.origin is Origin.PARAMETER and len(value.shape) > 1 and value.names:
                yield value.names[0], name


def _norm(op: Op) -> str:
    name = op.name.removeprefix("aten::")
    return name.removesuffix("_norm") if name in ("batch_norm", "group_norm", "layer_norm", "rms_norm") else ""


def _activation(gm: fx.GraphModule, node: fx.Node, op: Op) -> Activation | None:
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        kind = type(module).__name__
        if getattr(nn, kind, None) is type(module) and kind in _ACTIVATIONS.values():
            return Activation(kind, _constants(module))
    kind = _ACTIVATIONS.get(op.name.removeprefix("aten::"), "")
    if kind in ("", "PReLU", "Hardtanh", "ELU", "CELU", "LeakyReLU", "Softplus"):
        return None  # their options are not recovered from function calls
    return Activation(kind, options(approximate=op.args["approximate"]) if kind == "GELU" else ())


def _constants(module: Any) -> Options:
    takes = signature(type(module)).parameters
    names = [c for c in getattr(module, "__constants__", ()) if c not in ("inplace", "num_parameters")]
    return tuple((c, getattr(module, c)) for c in names if c in takes and hasattr(module, c))


def activated_by(analysis: Analysis, value: Value, veiled: Collection[Value] = ()) -> list[Op]:
    """Return the elementwise functions whose outputs make up a value, up to operators that only move entries. Return
    none if they are unknown, or if the value may be another one (one of `veiled`) in the other mode."""
    ops = analysis.program.ops
    idle = {id(op) for op in ops if op.name in KEEPS_VALUES and set(op.outputs) <= set(op.inputs())}
    made = {out.index: op for op in ops if id(op) not in idle for out in op.outputs}  # idle: no-ops (flatten of flat)

    def sources(v: Value) -> list[Op] | None:
        op = made.get(v.index)
        if op is None or v in veiled:
            return None
        if op.name in KEEPS_VALUES and keeps_type(op):
            found = [sources(x) for x in op.inputs()]
            return None if any(f is None for f in found) or not found else [o for f in found for o in f or ()]
        return [op] if function_of(op) is not None else None

    return sources(value) or []


def passed(gm: fx.GraphModule, analysis: Analysis, node: fx.Node, value: Value) -> Callable[[Op], str]:
    """Return a function that explains why an operator leaves a node's value, and everything computed from it,
    unchanged. Either the operator is idempotent and has been applied to all entries before, or will be applied on every
    path; or it is the identity on the range of the value. The explanation is "" if none of this is known."""
    hidden = veils(gm, analysis)
    order = {n.name: k for k, n in enumerate(gm.graph.nodes)}
    veiled = _results(analysis, [n for n in hidden if order[n.name] <= order[node.name]])
    known = activated_by(analysis, value, veiled)
    bounds = cache(lambda: bounds_of(analysis.program, value, veiled))

    def why(op: Op) -> str:
        name = op.name.removeprefix("aten::")
        if idempotent(op):
            twice = f"{name}({name}(x)) = {name}(x), and"
            followed = _followed(analysis, value, op, hidden)
            if followed:
                return f"{twice} {', '.join(dict.fromkeys(r.node for r in followed))} follows"
            if known and all(same_function(op, k) for k in known):
                return f"{twice} {', '.join(dict.fromkeys(k.node for k in known))} gave x"
        kept = kept_by(op)
        if kept is not None and kept[0] <= bounds()[0] and bounds()[1] <= kept[1]:
            return f"{name}(x) = x, because x is within [{bounds()[0]:g}, {bounds()[1]:g}] here"
        return ""

    return why


def _results(analysis: Analysis, nodes: Collection[fx.Node]) -> list[Value]:
    return [value for n in nodes for value in leaves(analysis.program.results.get(n.name))]


def _followed(analysis: Analysis, value: Value, op: Op, hidden: Collection[fx.Node]) -> list[Op]:
    """Return the later calls of a function through which every path from a value passes; none if some path avoids it.

    Before such a call, a path may only move entries or take their maximum: a non-decreasing function commutes with the
    maximum. It may change the indices of the maximum, so these must have no consumers.
    """
    found: list[Op] = []
    values = [value]
    veiled, closed = _results(analysis, hidden), {n.name for n in hidden}
    for v in values:
        readers = [r for r in analysis.program.ops if v in r.inputs()]
        if v in analysis.program.outputs or v in veiled or (readers and not v.dtype.is_floating_point):
            return []
        if any(reader.node in closed for reader in readers):
            return []
        for reader in readers:
            rises = op.name in CLAMPS or not reader.name.startswith(("aten::max_pool", "aten::adaptive_max_pool"))
            if same_function(op, reader):
                found.append(reader)
            elif reader.name in KEEPS_VALUES and keeps_type(reader) and rises:
                values += [out for out in reader.outputs if out not in values]
            else:
                return []
    return found
