"""Choose the input sizes, other than the example's, at which the nodes of a growth are checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import fx, nn

from ..capture.program.program import Value
from ..plans.plan import NodeEdit, Path
from .arguments import is_tuple, same_numbers, scalars_in
from .computed_numbers import Sight, followers, follows_input, given, keepers, reads_of
from .grown_graph import GrownGraph
from .second_sizes import SecondSizes
from .size_tuples import together
from .uneven_numbers import Uneven, goals, is_plain, sizes_in


class OtherSizes:
    """The simulations of one growth at other input sizes, each created when it is first needed."""

    def __init__(self, graph: GrownGraph) -> None:
        self.graph = graph
        self.uneven = Uneven()
        self._second: SecondSizes | None = None
        self._further: dict[tuple[tuple[tuple[int, int], int], ...], SecondSizes] = {}

    def second(self) -> SecondSizes | None:
        """Return the simulation at the second sizes; None if the model accepts only inputs of the example's sizes."""
        if self._second is None:
            program = self.graph.analysis.second(self.graph.gm)
            self._second = SecondSizes(self.graph, program) if program is not None else None
        return self._second

    def further(self, node: fx.Node, numbers: Iterable[fx.Node], sight: Sight) -> list[SecondSizes]:
        """Return simulations at accepted input sizes near multiples of the widths that a node sees."""
        reads = [*node.all_input_nodes, *(read for number in numbers for read in reads_of(number, sight))]
        reads += [n for read in reads for n in read.all_input_nodes]
        sizes = [
            s
            for read in dict.fromkeys(reads)
            for s in sizes_in(*(see(read) for see in (sight.old, sight.new, sight.second_old)))
        ]
        found = []
        for goal in goals(sizes, self.graph.analysis.following()):
            key = tuple(sorted(goal.items()))
            if key not in self._further:
                program = self.graph.analysis.further(self.graph.gm, goal)
                if program is None:
                    continue
                self._further[key] = SecondSizes(self.graph, program, further=True)
            self._further[key].advance()
            found += [] if self._further[key].lost else [self._further[key]]
        return found

    def varies(self, node: fx.Node, values: Sequence[Value], *axes: int) -> bool:
        """Return whether the size of one of these axes varies with the input, at the only operator of a node."""
        second = self.second()
        return second is not None and second.varies(node, values, axes)

    def note(self, node: fx.Node, module: nn.Module | None) -> None:
        """Record whether a node returns a number that is computed from a width by a discontinuous operation."""
        target = module if module is not None else node.target
        beside = any(
            n in self.graph.changed and not is_plain(self.graph.program.results[n.name]) for n in node.all_input_nodes
        )
        self.uneven.note(node, target, lambda n: self.graph.program.results[n.name], node in self.graph.changed, beside)

    def arguments(self, node: fx.Node) -> list[tuple[Path, fx.Node]]:
        """Return the nodes among a node's arguments, with their paths."""
        found = [*scalars_in(("args",), node.args), *scalars_in(("kwargs",), node.kwargs)]
        return [(path, arg) for path, arg in found if isinstance(arg, fx.Node)]

    def jumps(self, node: fx.Node, number: fx.Node) -> bool:
        """Return whether a number that keeps its value for the example inputs changes for inputs of other sizes."""
        second = self.second()
        if second is None:
            return False
        second.advance()
        old, new = self.graph.both(node)
        sight = Sight(old.__getitem__, new.__getitem__, second.old, lambda n: second.new(node, n))
        if not self.uneven.mixed(number, sight):
            return False
        tried = [second, *self.further(node, [number], sight)]
        return any(not same_numbers(sizes.old(number), sizes.new(node, number)) for sizes in tried)

    def follows(self, node: fx.Node) -> bool:
        """Return whether an argument of a node is computed from a plain input of the model, or from a varying size."""
        second = self.second()
        numbers = [n for _, n in self.arguments(node) if is_plain(self.graph.program.results[n.name])]
        old, new = self.graph.both(node)
        if second is None or not numbers:
            return any(given(n, old.__getitem__) for n in numbers)
        sight = Sight(old.__getitem__, new.__getitem__, second.old, lambda n: second.new(node, n))
        return any(given(n, sight.old) or follows_input(n, sight) for n in numbers)

    def ways(
        self, node: fx.Node, path: Path, arg: fx.Node, wanted: Any, sight: Sight, uneven: bool
    ) -> tuple[list[NodeEdit | None], bool]:
        """Return the edits to try for a computed number, and whether checking them at two input sizes is sufficient."""
        if is_tuple(sight.old(arg)):
            return list(together(node, path, arg, wanted, sight)), not uneven
        if not uneven:
            return list(followers(node, path, arg, wanted, sight)), True
        kept = keepers(node, path, arg, wanted, sight)
        if kept and wanted == sight.old(arg) and self.uneven.pinned(arg, sight):
            return list(kept), True
        present: list[NodeEdit | None] = [None] if wanted == sight.new(arg) else []
        return [*present, *kept, *followers(node, path, arg, wanted, sight)], False
