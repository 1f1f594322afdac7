"""Look up the axis that a user names by a module path, an fx node name or a parameter name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Protocol

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver, Producer
from ..capture.program.program import Origin, Value
from ..dims.axis import Atom, Axis, atoms
from ..errors import FxgrowError, GrowthRefused, Kind, Refusal, usage


class Named(Protocol):
    """An object with the name of a layer as its `path`, such as a site that `fxgrow.inspect` returns."""

    @property
    def path(self) -> str:
        """A module path, an fx node name or a parameter name."""


Name = str | Named


@dataclass(frozen=True, slots=True)
class Target:
    """An axis to widen, the name it was requested by, and the node that creates its channels."""

    name: str
    node: str
    axis: Axis


def find_target(gm: fx.GraphModule, analysis: Analysis, dims: DimsSolver, name: str) -> Target:
    """Return the axis that a module path, an fx node name or a parameter name stands for.

    Raises:
        UsageError: the name is unknown or ambiguous.
        GrowthRefused: the node creates no channels.
    """
    if not isinstance(name, str):
        what = f"node must be a name or a list of names, not {type(name).__name__}"
        raise usage(Kind.BAD_OPTION, what, hint='node="layer2.conv1"')
    called = [n.name for n in gm.graph.nodes if n.op == "call_module" and n.target == name]
    named = [n.name for n in gm.graph.nodes if n.name == name and n.op.startswith("call_")]
    if called and named and not set(named) <= set(called):
        raise usage(
            Kind.AMBIGUOUS_NODE,
            f"{name!r} is both a module and an fx node that is not that module's call",
            hint=f"name the module's own call ({called[0]}), or a parameter: {name}.weight",
        )
    nodes = called or named
    if nodes:
        born = [p for p in dims.producers if p.node in nodes]
        return _one(gm, dims, name, nodes[0], born)
    if name in analysis.program.parameters:
        value = analysis.program.parameters[name]
        born = [p for p in dims.producers if p.weight is value]
        if born:
            return Target(name, born[0].node, born[0].axis)
        born = _born_of(dims, value)
        if born:
            whole = _whole(dims, value, born)
            return Target(name, born[0].node, whole) if whole else _one(gm, dims, name, born[0].node, born)
        users = [op.node for op in analysis.program.ops if value in op.inputs()]
        raise _no_axis(gm, dims, f"parameter `{name}`", users[0] if users else name, value)
    if any(n.name == name and n.op in ("placeholder", "output") for n in gm.graph.nodes):
        raise _no_axis(gm, dims, f"node `{name}`", name)
    if f"{name}.weight" in analysis.program.parameters:  # a user module that fx traces into
        return find_target(gm, analysis, dims, f"{name}.weight")
    raise _unknown(gm, analysis, dims, name)


def _born_of(dims: DimsSolver, parameter: Value) -> list[Producer]:
    """Return the producers whose weight is computed from a parameter (standardised, scaled …) and shares its rows."""
    mine = {a for axis in dims.resolved(parameter) for a in atoms(axis)}
    return [p for p in dims.producers if parameter in _sources(dims, p.weight) and mine & _atoms(dims, p)]


def _atoms(dims: DimsSolver, producer: Producer) -> set[Atom]:
    """Return the atoms of the axis that a producer creates."""
    return set(atoms(dims.algebra.resolve(producer.axis)))


def _sources(dims: DimsSolver, weight: Value) -> set[Value]:
    """Return the parameters and other stored or given values that a weight is computed from; itself if it is one."""
    if weight.origin is not Origin.COMPUTED:
        return {weight}
    made = {out: op for op in dims.program.node_ops.get(weight.node, ()) for out in op.outputs}
    found: set[Value] = set()
    queue, seen = [weight], {weight}
    while queue:
        value = queue.pop()
        if value.origin is not Origin.COMPUTED:
            found.add(value)
            continue
        if value not in made:
            made.update({out: op for op in dims.program.node_ops.get(value.node, ()) for out in op.outputs})
        for source in made[value].inputs() if value in made else ():
            if source not in seen:
                seen.add(source)
                queue.append(source)
    return found


def _whole(dims: DimsSolver, parameter: Value, born: Sequence[Producer]) -> Axis | None:
    """Return the axis of a parameter that contains the channels of all producers, e.g. queries, keys and values."""
    made = set[Atom]().union(*(_atoms(dims, p) for p in born))
    return next((axis for axis in dims.of(parameter) if made <= set(atoms(dims.algebra.resolve(axis)))), None)


def owned(dims: DimsSolver) -> list[Producer]:
    """Return one producer for each weight; weights that are slices of one parameter share a producer of it."""
    found: dict[int, Producer] = {}
    for producer in dims.producers:
        if not producer.weight.names:
            for parameter in sorted(_sources(dims, producer.weight), key=lambda v: v.index):
                axis = _whole(dims, parameter, [producer]) if parameter.names else None
                if axis is not None:
                    producer = replace(producer, weight=parameter, axis=axis)
                    break
        found.setdefault(producer.weight.index, producer)
    return list(found.values())


def paths(gm: fx.GraphModule, dims: DimsSolver) -> dict[str, Producer]:
    """Return the producers by name: a module path, or a parameter name if the module has several producers."""
    nodes = {n.name: n for n in gm.graph.nodes}
    producers = owned(dims)
    at = Counter(p.node for p in producers)
    found: dict[str, Producer] = {}
    for producer in producers:
        node = nodes[producer.node]
        parameter = producer.weight.names[0] if producer.weight.names else producer.node
        found[str(node.target) if node.op == "call_module" and at[producer.node] == 1 else parameter] = producer
    return found


def _one(gm: fx.GraphModule, dims: DimsSolver, name: str, node: str, born: list[Producer]) -> Target:
    """Return the target for a name, given its producers.

    Raises:
        UsageError: the producers create several different axes.
        GrowthRefused: there are no producers.
    """
    axes = {dims.algebra.resolve(p.axis): p for p in born}
    weights = {p.weight.index: p for p in born}
    if len(weights) > 1 and len(axes) > 1:
        names = [p.weight.names[0] for p in weights.values() if p.weight.names]
        raise usage(
            Kind.AMBIGUOUS_NODE,
            f"`{name}` creates {len(axes)} sets of channels",
            hint=f"name the weight instead: {', '.join(names)}" if names else "name a smaller module",
        )
    if not born:
        what = "module" if any(n.op == "call_module" and n.target == name for n in gm.graph.nodes) else "node"
        raise _no_axis(gm, dims, f"{what} `{name}`", node)
    return Target(name, born[0].node, born[0].axis)


def _no_axis(gm: fx.GraphModule, dims: DimsSolver, what: str, node: str, parameter: Value | None = None) -> FxgrowError:
    """Return the refusal for a node or a parameter that creates no channels."""
    last = dims.program.node_ops.get(node, [])[-1:]
    values = [parameter] if parameter is not None else [out for op in last for out in op.outputs]
    carried = {a for value in values for axis in dims.resolved(value) for a in atoms(axis)}
    layers = _layers(gm, dims)
    owners = [name for name, p in layers.items() if carried & _atoms(dims, p) and dims.algebra.growable(p.axis)]
    weight = last[0].args.get("weight") if last else None
    why = "it is not the weight of a layer" if parameter is not None else "it has no weight whose rows are channels"
    if last and last[0].name in dims.unknown:
        why = f"fxgrow has no rule for {last[0].name}"
    elif parameter is None and isinstance(weight, Value) and weight.origin is Origin.COMPUTED:
        why = f"its weight is computed by {weight.node} from the inputs of the model, so it has no rows to add to"
    hint = f"it carries the channels of {', '.join(owners)}: name one of them" if owners else ""
    return GrowthRefused(
        Refusal(
            Kind.NO_AXIS,
            f"{what} creates no channels: {why}",
            where=node,
            hint=hint or "name a convolution, a linear layer or an embedding; fxgrow.inspect(model) lists them",
        )
    )


def _layers(gm: fx.GraphModule, dims: DimsSolver) -> dict[str, Producer]:
    """Return the producers by the shortest name that `find_target` accepts for each."""
    taken = {n.name for n in gm.graph.nodes} | {str(n.target) for n in gm.graph.nodes if n.op == "call_module"}
    short = {name: name.removesuffix(".weight") for name in paths(gm, dims)}
    return {name if short[name] in taken else short[name]: producer for name, producer in paths(gm, dims).items()}


def _unknown(gm: fx.GraphModule, analysis: Analysis, dims: DimsSolver, name: str) -> FxgrowError:
    """Return the error for an unknown name, with similar or contained names that are known."""
    layers = _layers(gm, dims)
    able = [layer for layer, producer in layers.items() if dims.algebra.growable(producer.axis)]
    inside = [layer for layer in able if name and layer.startswith(f"{name}.")]
    if inside:
        more = f" and {len(inside) - 4} more" if len(inside) > 4 else ""
        return usage(
            Kind.AMBIGUOUS_NODE,
            f"{name!r} holds several layers" if len(inside) > 1 else f"{name!r} holds a layer, and is not one",
            hint=f"name {'one' if len(inside) > 1 else 'it'}: {', '.join(inside[:4])}{more}",
        )
    near = get_close_matches(name, able, n=3, cutoff=0.5) or get_close_matches(name, layers, n=3, cutoff=0.5)
    hint = f"layers are {', '.join(able[:6])}{' …' * (len(able) > 6)}" if able else "no layer of it can be widened"
    if near:
        hint = f"did you mean {', '.join(near)}?"
    unused = name and name in {**dict(gm.named_modules()), **dict(gm.named_parameters(remove_duplicate=False))}
    what = f"{name!r} is in the model, but the traced graph never uses it" if unused else ""
    return usage(Kind.UNKNOWN_NODE, what or f"no module, fx node or parameter is called {name!r}", hint=hint)


def names_in(names: Any) -> tuple[Any, ...]:
    """Return one name or several as a tuple; an object with a `path`, such as a site, stands for its path.

    Unknown names are reported later, by `find_target`.
    """
    some = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else (names,)
    return tuple(getattr(name, "path", name) for name in some)
