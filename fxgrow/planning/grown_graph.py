"""Look up what the nodes of a graph return before and after a growth, up to the node the simulation has reached."""

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
    """How a node runs after a growth: its call and new numbers; `target` is None if its result is only predicted."""

    target: str | Any | nn.Module | None
    numbers: Mapping[Path, object]
    metas: Mapping[int, Meta]
    attributes: Mapping[str, object]
    edits: Mapping[Path, NodeEdit] = field(default_factory=dict)
    """Edits of numbers that differ at other input sizes; they take precedence over `numbers`."""


class GrownGraph:
    """The results of the nodes of a graph before and after a growth."""

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
            shapes: The new shape of each tensor that changes, by `id`.
            detached: The edges (consumer, source) that get a skip adapter, with the shape that the adapter returns.
            several: Whether to continue after a node that cannot express the growth.
        """
        self.analysis = analysis
        self.program = analysis.program
        self.gm = gm
        self.sizes = sizes
        self.shapes = shapes
        self.detached = detached
        self.several = several
        self.changed: set[fx.Node] = set()
        """Nodes whose result changes with the growth."""
        self.done: dict[fx.Node, Done] = {}
        """How each node that was propagated runs after the growth, in graph order."""
        self.modules_by_name = dict(gm.named_modules(remove_duplicate=False))
        self._refs: dict[int, Ref] = {}
        self._grown: dict[int, Ref] = {}
        """The new reference of each changed value, by index; used for containers that are modified in place."""
        self._env: dict[fx.Node, Any] = {}

    def reads_changed_container(self, node: fx.Node, source: fx.Node) -> bool:
        """Return whether a node reads a container that was modified in place and has items that the growth changes."""
        tree = self.program.rewritten.get((node.name, source.name))
        return tree is not None and not same_result(tree, self.predicted(tree))

    def change(self, node: fx.Node, result: Any, how: Done | None = None) -> None:
        """Record the new result of a node; its consumers are propagated only if it differs from the old result."""
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
        """Return the one reference that represents a value after the growth."""
        shape = self.sizes.shape(value)
        if shape == value.shape:
            ref: Ref = as_refs(value, self._refs)
            return ref
        return self._grown.setdefault(value.index, grown_ref(value, shape))

    def lookup(self, consumer: fx.Node, node: fx.Node, old: bool) -> Any:
        """Return the result of a node before or after the growth, as one consumer sees it."""
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
        """Return the results of all nodes before and after the growth, as one consumer sees them."""
        return Env(self, node, old=True), Env(self, node)

    def predicted(self, tree: Any) -> Any:
        """Return the result that the rules predict after the growth."""
        return replaced(tree, Value, lambda value: grown_ref(value, self.sizes.shape(value)))


class Env(Mapping[fx.Node, Any]):
    """A mapping from nodes to their results, as one consumer sees them."""

    def __init__(self, graph: GrownGraph, consumer: fx.Node, old: bool = False) -> None:
        self.graph, self.consumer, self.old = graph, consumer, old

    def __getitem__(self, node: fx.Node) -> Any:
        return self.graph.lookup(self.consumer, node, self.old)

    def __iter__(self) -> Any:
        return iter(self.consumer.all_input_nodes)

    def __len__(self) -> int:
        return len(self.consumer.all_input_nodes)
