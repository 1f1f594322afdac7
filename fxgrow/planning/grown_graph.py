"""What the nodes of a graph return before and after a growth, as far as it has been carried through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.containers import found, replaced
from ..capture.program.call_key import Meta
from ..capture.program.program import Ref, Value
from ..plans.plan import NodeEdit, Path
from .arguments import as_refs, grown_ref, same_result
from .new_sizes import NewSizes


@dataclass(frozen=True, slots=True)
class Done:
    """How a node was carried through a growth: the call, and the numbers that it gets. Of a node that becomes other
    operators, `target` is None."""

    target: str | Any | nn.Module | None
    numbers: Mapping[Path, object]
    metas: Mapping[int, Meta]
    attributes: Mapping[str, object]
    edits: Mapping[Path, NodeEdit] = field(default_factory=dict)
    """Edits of numbers that are others at other sizes; they stand before `numbers`."""


class GrownGraph:
    """The nodes of a graph before and after a growth."""

    def __init__(
        self,
        analysis: Analysis,
        gm: fx.GraphModule,
        sizes: NewSizes,
        shapes: Mapping[int, tuple[int, ...]],
        detached: Mapping[tuple[str, str], tuple[int, ...]],
        *,
        several: bool = False,
    ) -> None:
        """
        Args:
            shapes: the new shape of each tensor that changes, by identity.
            detached: (consumer, source) edges that get an adapter, with the shape that comes out of it.
            several: go on behind a node that cannot express the growth, and note it.
        """
        self.analysis = analysis
        self.program = analysis.program
        self.gm = gm
        self.sizes = sizes
        self.shapes = shapes
        self.detached = detached
        self.several = several
        self.changed: set[fx.Node] = set()
        """Nodes that return something else after the growth."""
        self.done: dict[fx.Node, Done] = {}
        """How each node was carried through, in order."""
        self.modules_by_name = dict(gm.named_modules(remove_duplicate=False))
        self._refs: dict[int, Ref] = {}
        self._grown: dict[int, Ref] = {}
        """By index of a value that changes, what stands for it afterwards, where containers are written to."""
        self._env: dict[fx.Node, Any] = {}

    def reads_changed_container(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether a node reads a container into which something was written that is changed by the growth."""
        tree = self.program.rewritten.get((node.name, source.name))
        return tree is not None and not same_result(tree, self.predicted(tree))

    def change(self, node: fx.Node, result: Any, how: Done | None = None) -> None:
        """Remember a result; who reads it is looked at only if it is another one than before."""
        self.done[node] = how or Done(None, {}, {}, {})
        old = self.program.results[node.name]
        if not same_result(old, result):
            self._env[node] = result
            self.changed.add(node)
            if self.program.rewritten:
                self._grown.update(
                    (v.index, ref) for v, ref in zip(found(old, Value), found(result, Ref), strict=False)
                )

    def _ref_now(self, value: Value) -> Ref:
        """What stands for a tensor after the growth; one reference for each."""
        shape = self.sizes.shape(value)
        if shape == value.shape:
            ref: Ref = as_refs(value, self._refs)
            return ref
        return self._grown.setdefault(value.index, grown_ref(value, shape))

    def lookup(self, consumer: fx.Node, node: fx.Node, old: bool) -> Any:
        """What a node returns, before or after the growth, as one consumer sees it."""
        if not old:
            shape = self.detached.get((consumer.name, node.name))
            if shape is not None:
                return grown_ref(self.program.results[node.name], shape)
        tree = self.program.rewritten.get((consumer.name, node.name))
        if tree is not None:
            return as_refs(tree, self._refs) if old else replaced(tree, Value, self._ref_now)
        if not old and node in self._env:
            return self._env[node]
        return as_refs(self.program.results[node.name], self._refs)

    def both(self, node: fx.Node) -> tuple[Env, Env]:
        """What nodes return before and after the growth, as one node sees it."""
        return Env(self, node, old=True), Env(self, node)

    def predicted(self, tree: Any) -> Any:
        """A result as the rules predict it."""
        return replaced(tree, Value, lambda value: grown_ref(value, self.sizes.shape(value)))


class Env(Mapping[fx.Node, Any]):
    """What nodes return, as one consumer sees it."""

    def __init__(self, graph: GrownGraph, consumer: fx.Node, old: bool = False) -> None:
        self.graph, self.consumer, self.old = graph, consumer, old

    def __getitem__(self, node: fx.Node) -> Any:
        return self.graph.lookup(self.consumer, node, self.old)

    def __iter__(self) -> Any:
        return iter(self.consumer.all_input_nodes)

    def __len__(self) -> int:
        return len(self.consumer.all_input_nodes)
