"""Surveys a model for `inspect`: every producer, its consumers, what grows with it, and why it may not grow."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import fx

from ..analysis.analysis import Analysis
from ..analysis.solver import DimsSolver, Producer
from ..dims.axis import Atom, Axis, atoms, show
from ..errors import Refusal
from ..planning.cost import flops
from ..planning.targets import owned, paths
from .growable import answers


@dataclass(frozen=True, slots=True)
class Site:
    """One layer that produces channels. It is taken wherever a layer is named: `fxgrow.widen(model, site)`."""

    path: str
    """Its name in `widen`: a module path, or a parameter name where no module owns the parameter."""
    node: str
    """The fx node that computes the channels."""
    parameter: str
    """The weight that they come from."""
    width: int
    """The number of channels."""
    axis: str
    """The axis expression, e.g. `(g c)`; equal names mean the same set of units."""
    readers: tuple[str, ...]
    """Consumers: nodes that sum over the axis."""
    together: tuple[str, ...]
    """Other producers whose channels grow together with these."""
    joins: tuple[str, ...]
    """Residual joins that use these channels."""
    refusal: Refusal | None
    """Why it cannot grow; None if it can."""
    kind: str = ""
    """The class of the module, or the operator where no module is called."""
    parameters: int = 0
    """Number of entries of its own parameters."""
    flops: int = 0
    """Floating-point operations of one call for the example inputs, a multiply and an add for each product."""

    def __str__(self) -> str:
        return self.path

    def __repr__(self) -> str:
        state = "" if self.refusal is None else f", {self.refusal.kind.value}"
        return f"<Site {self.path}: {self.kind}, {self.width} channels{state}>"

    @property
    def widenable(self) -> bool:
        """Whether it can grow together with its coupled layers."""
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class JoinSite:
    """One residual join: the branch point, the ends of the two paths that meet, and which of them is the skip path."""

    node: str
    branch: str
    main: str
    skip: str


@dataclass(frozen=True, slots=True)
class Survey:
    """All producers and residual joins of a model, in execution order."""

    sites: tuple[Site, ...]
    joins: tuple[JoinSite, ...]


def survey(gm: fx.GraphModule, analysis: Analysis, scheme: str = "auto") -> Survey:
    """Survey every producer of a model; growths are planned and proved, but not applied."""
    dims = analysis.dims
    surroundings, refusals = _Surroundings(gm, analysis), answers(gm, analysis, scheme).refusals
    sites = [surroundings.site(path, producer, refusals.get(path)) for path, producer in paths(gm, dims).items()]
    return Survey(tuple(sites), tuple(_joins(gm, dims)))


class _Surroundings:
    """Maps sets of units to the consumers, producers and joins that use them."""

    def __init__(self, gm: fx.GraphModule, analysis: Analysis) -> None:
        self.dims = dims = analysis.dims
        self.program = analysis.program
        self.modules = dict(gm.named_modules(remove_duplicate=False))
        self.targets = {n.name: n.target for n in gm.graph.nodes}
        self.producers = [(p, self._atoms(p.axis)) for p in owned(dims)]
        self.readers = [(r.node, self._atoms(r.axis)) for r in dims.readers]
        self.joins = [(j.node, self._atoms(*dims.of(j.main), *dims.of(j.skip))) for j in dims.joins]

    def _atoms(self, *axes: Axis) -> frozenset[Atom]:
        return frozenset(atom for axis in axes for atom in atoms(self.dims.algebra.resolve(axis)))

    def site(self, path: str, p: Producer, refusal: Refusal | None) -> Site:
        """Return one producer with everything that shares units with it."""
        mine, axis = self._atoms(p.axis), self.dims.algebra.resolve(p.axis)
        together = [q.node for q, held in self.producers if q.weight is not p.weight and mine & held]
        return Site(
            path,
            p.node,
            p.weight.names[0] if p.weight.names else "",
            self.dims.algebra.measure(axis),
            show(axis, self.dims.algebra.name),
            tuple(dict.fromkeys(node for node, held in self.readers if mine & held)),
            tuple(dict.fromkeys(together)),
            tuple(dict.fromkeys(node for node, held in self.joins if mine & held)),
            refusal,
            *self._costs(p),
        )

    def _costs(self, p: Producer) -> tuple[str, int, int]:
        """The kind of a layer, the number of its parameters, and its floating-point operations."""
        ops = self.program.node_ops.get(p.node, [])
        module = self.modules.get(str(self.targets.get(p.node)))
        if module is not None:
            kind, own = type(module).__name__, sum(t.numel() for t in module.parameters(recurse=False))
        else:
            kind = next((op.name.removeprefix("aten::") for op in ops if p.weight in op.inputs()), "")
            own = math.prod(p.weight.shape)
        return kind, own, flops(ops, lambda value: value.shape)


def _joins(gm: fx.GraphModule, dims: DimsSolver) -> list[JoinSite]:
    """Return the residual joins, each with the branch point of its two paths."""
    nodes = {n.name: n for n in gm.graph.nodes}
    ancestors: dict[fx.Node, set[fx.Node]] = {}
    order = {n: i for i, n in enumerate(gm.graph.nodes)}
    for node in gm.graph.nodes:
        found = set()
        for source in node.all_input_nodes:
            found |= ancestors[source]
        ancestors[node] = found | {node}
    sites = []
    for join in dims.joins:
        node = nodes[join.node]
        ins = list(node.all_input_nodes)
        if len(ins) < 2:
            continue
        second = join.argument == "other"
        main, skip = (ins[0], ins[1]) if second else (ins[1], ins[0])
        common = ancestors[main] & ancestors[skip]
        branch = max(common, key=order.__getitem__).name if common else ""
        sites.append(JoinSite(join.node, branch, main.name, skip.name))
    return sites
