"""Simulate a growth at the second sizes of the input, and check that numbers still follow the input there.

The second sizes are those of another set of inputs that the model accepts. A number that differs between the two sets
follows the input.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import fx

from ..capture.containers import found, replaced, way_into
from ..capture.program.program import Op, Program, Ref, Value
from ..capture.recording.recorder import broken
from .arguments import as_refs, grown_ref, numbers, put_all, result_of, same_result
from .computed_numbers import edited, in_step
from .grown_graph import Done, GrownGraph
from .inexpressible import failed, inexpressible
from .recordings import Predictions, Recording, difference, plain_name


class OutOfStep(Exception):
    """Raised when a node behaves differently at the second sizes than at the example's; the text says how."""


class NoShare(OutOfStep):
    """Raised when the new size of an axis at the second sizes cannot be determined."""


class SecondSizes:
    """The results of nodes at the second sizes of the input, computed on demand."""

    def __init__(self, graph: GrownGraph, program: Program, *, further: bool = False) -> None:
        """Start a simulation; with `further`, it is given up (`lost`) where a size cannot be determined."""
        self.further, self.lost = further, False
        self.graph = graph
        self.program = program
        self._refs: dict[int, Ref] = {}
        self._grown: dict[int, Ref] = {}
        self._env: dict[fx.Node, Any] = {}
        self._next = 0

    def old(self, node: fx.Node) -> Any:
        """Return the result of a node before the growth."""
        return as_refs(self.program.results[node.name], self._refs)

    def new(self, consumer: fx.Node, node: fx.Node) -> Any:
        """Return the result of a node after the growth, as one consumer sees it."""
        shape = self.graph.detached.get((consumer.name, node.name))
        if shape is not None:
            return self._shared(self.graph.program.results[node.name], shape, self.program.results[node.name])
        key = consumer.name, node.name
        if key in self.program.rewritten:
            here, there = self.graph.program.rewritten[key], self.program.rewritten[key]
            made = self._shared(here, self.graph.lookup(consumer, node, False), there)
            refs = iter(zip(found(there, Value), found(made, Ref), strict=True))
            return replaced(made, Ref, lambda _: self._ref_of(*next(refs)))
        return self._env[node] if node in self._env else self.old(node)

    def _ref_of(self, old: Value, new: Ref) -> Ref:
        """Return the one reference that represents a tensor in a container that is modified in place."""
        if old.shape == new.value.shape:
            ref: Ref = as_refs(old, self._refs)
            return ref
        return self._grown.setdefault(old.index, new)

    def advance(self) -> None:
        """Run all nodes that the simulation at the example's sizes has passed.

        Raises:
            GrowthRefused: one of these nodes fails.
        """
        done = list(self.graph.done.items())[self._next :]
        for node, how in done:
            if self.lost:
                return
            self._next += 1
            try:
                result = self.run(node, how)[0]
            except OutOfStep as error:
                if self.further and isinstance(error, NoShare):
                    self.lost = True
                    return
                if self.graph.several:
                    self._take(node)
                raise inexpressible(self.graph.gm, node, str(error)) from None
            if not same_result(self.program.results[node.name], result):
                self._env[node] = result
                if self.program.rewritten:
                    old = found(self.program.results[node.name], Value)
                    self._grown.update((v.index, ref) for v, ref in zip(old, found(result, Ref), strict=False))

    def _take(self, node: fx.Node) -> None:
        """Continue after a node that fails, with a result whose axes grow as they do at the example's sizes."""
        old, new = self.graph.program.results[node.name], self.graph.lookup(node, node, False)
        with suppress(OutOfStep):
            self._env[node] = self._shared(old, new, self.program.results[node.name])

    def run(self, node: fx.Node, how: Done) -> tuple[Any, Recording | None]:
        """Run a node after the growth; return its result and its recording (None if it is not called).

        Raises:
            OutOfStep: the node fails, or its result cannot be determined.
        """
        if how.target is None:
            old, new = self.graph.program.results[node.name], self.graph.lookup(node, node, False)
            return self._shared(old, new, self.program.results[node.name]), None
        env = {source: self.new(node, source) for source in node.all_input_nodes}
        later = {path: edited(edit, node, lambda number: self.new(node, number)) for path, edit in how.edits.items()}
        if None in later.values():
            raise OutOfStep("a number in its arguments cannot be computed for inputs of other sizes")
        args, kwargs = put_all(node, env, {**how.numbers, **later})
        lowering = self.graph.analysis.lowering
        try:
            template, refs, own = lowering.template(how.target, args, kwargs, how.metas, how.attributes)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # torch raises many types of errors for invalid shapes; the text is passed on
            if broken(error):
                raise failed(self.graph.gm, node, error) from error
            lines = str(error).strip().splitlines() or [repr(error)]
            raise OutOfStep(f"for inputs of other sizes than the example it fails: {lines[0]}") from None
        return result_of(template, refs, node.name), Recording.of(template, args, kwargs, len(own))

    def problem(self, node: fx.Node, how: Done, new: Recording | None) -> str:
        """Return how a node differs at the second sizes from what it does at the example's; empty if it does not."""
        try:
            _, recording = self.run(node, how)
        except OutOfStep as error:
            return str(error)
        first, second = self.graph.program, self.program
        if recording is None or new is None:
            return ""
        own = recording.own
        before = [p.calls[node.name] for p in (first, second)]
        old, old_second = (Recording.of(c.template, c.args, c.kwargs, own) for c in before)
        ops = [op for op in second.node_ops[node.name] if op.step >= 0]
        expected = Predictions(ops, (), lambda v: v.shape, second.results[node.name], numbers=False)
        text = difference(old_second, recording, expected, self.graph.analysis.lowering.compared)
        if not text:
            text = _apart([old, old_second, new, recording], {op.step for op in first.node_ops[node.name]})
        return f"for inputs of other sizes than the example: {text}" if text else ""

    def varies(self, node: fx.Node, values: Sequence[Value], axes: Sequence[int]) -> bool:
        """Return whether the size of one of `axes` of `values` differs here, at the only operator of a node."""
        first, second = (p.node_ops[node.name][0] for p in (self.graph.program, self.program))
        pairs = zip([*first.inputs(), *first.outputs], [*second.inputs(), *second.outputs], strict=False)
        other = {id(value): partner for value, partner in pairs}
        return any(v.shape[k] != other[id(v)].shape[k] for v in values for k in axes if id(v) in other)

    def _shared(self, old: Any, new: Any, second: Any) -> Any:
        """Return a result at the second sizes whose axes grow as they do at the example's."""
        if isinstance(old, Value):
            shape = new.value.shape if isinstance(new, Ref) else new
            return grown_ref(second, tuple(map(_axis, old.shape, shape, second.shape)))
        way = way_into(type(old))
        if way is not None:
            some = zip(*(way.items(tree) for tree in (old, new, second)), strict=True)
            return way.rebuilt(old, [self._shared(*three) for three in some])
        return second


def proportional(op: Op, axes: Sequence[int], correction: float, shape: tuple[int, ...]) -> bool:
    """Return whether the correction of a variance grows in proportion to the number of entries it is taken over."""
    old, new = (math.prod(sizes[k] for k in axes) for sizes in (op.args["self"].shape, shape))
    before = op.args.get("correction", 1)
    return math.isclose(correction * old, float(before if before is not None else 1) * new)


def _axis(old: int, new: int, second: int) -> int:
    """Return the new size of an axis at the second sizes.

    Raises:
        NoShare: the size is not an integer.
    """
    if old == new:
        return second
    if old == second:
        return new
    if (second * new) % old:
        raise NoShare(f"an axis of {old} that grows to {new} has no whole share of {second}")
    return second * new // old


def _apart(recordings: list[Recording], steps: set[int]) -> str:
    """Return the first number or size that does not follow the input after the growth as before; empty if none.

    The four recordings are: old at the example's sizes and at the second, then new at the example's and at the second.
    """
    templates = [r.template for r in recordings]
    if len({tuple(step.name for step in t.steps) for t in templates}) > 1:
        return ""  # it runs other operators for inputs of other sizes, also before the growth
    for number in sorted(k for k in steps if k >= 0):
        four = [t.steps[number] for t in templates]
        for key in four[0].args:
            rows = [numbers(step.args[key]) for step in four]
            if len({len(row) for row in rows}) == 1 and not all(map(in_step, *rows)):
                return f"it would call {plain_name(four[0].name)} with {key}={four[3].args[key]}"
        results = [s.outputs or s.writes for s in four]
        if len(set(map(len, results))) > 1:
            continue  # the number of results is the size of an axis
        for outputs in zip(*results, strict=True):
            shapes = [t.metas[local.index][0] for t, local in zip(templates, outputs, strict=True)]
            if len({len(shape) for shape in shapes}) == 1 and not all(map(in_step, *shapes)):
                return f"{plain_name(four[0].name)} would return a shape that does not follow the input"
    return ""
