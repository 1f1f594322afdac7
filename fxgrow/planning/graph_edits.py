"""Simulate a growth on an fx graph to find which constants and attributes must change, and to check the new shapes.

Every node that reads a grown tensor or a changed number is lowered again at its new shapes with fake tensors, and
compared, operator by operator and argument by argument, with what the rules predict. The model is not changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..analysis.analysis import Analysis, Scales
from ..capture.containers import found
from ..capture.decomposition.attention import Decomposition
from ..capture.decomposition.function_bodies import is_whole_function
from ..capture.decomposition.inline_calls import decomposition_of, kind_of
from ..capture.lowering.lowering import INTRINSICS
from ..capture.program.call_key import Meta
from ..capture.program.program import Op, Program, Value
from ..capture.program.trees import attribute
from ..capture.recording.recorder import broken
from ..capture.user_objects.user_code import is_user_code, may_change, target_of
from ..dims.axis import Atom
from ..errors import GrowthRefused, Kind
from ..functional import ModeValue, window_attention
from ..plans.plan import SPLIT, STATISTIC, ModuleEdit, NodeEdit
from ..rules.concat import CUTS, piece_sizes
from ..rules.mixing import MULTIPLIED, NORMS, PINNED
from .align import align, pin_within
from .arguments import argument, at, grown_ref, put_all, result_of, same_numbers
from .asserted_widths import asserted_number
from .computed_numbers import Sight, computes, given
from .cuts import Cuts
from .grown_graph import Done, Env, GrownGraph
from .guards import check_decision
from .inexpressible import failed, inexpressible, returned_number
from .input_sizes import OtherSizes
from .module_attributes import ModuleSizes
from .new_sizes import NewSizes
from .recordings import Predictions, Recording, difference, other_numbers, plain_name
from .second_sizes import proportional
from .tensor_literals import put_in_tensors
from .uneven_numbers import is_plain
from .whole_functions import why_kept_whole
from .whole_slices import whole_slices

MOST_TRIES = 16
"""The largest number of combinations of edits that are tried for the numbers of one call."""


class GraphEdits(GrownGraph):
    """A simulation of a growth on fake tensors that collects the edits of nodes and modules."""

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
        """See `GrownGraph`; with `several`, refusals of nodes are collected in `refused` instead of raised."""
        super().__init__(analysis, gm, sizes, shapes, detached, several=several)
        self.nodes: list[NodeEdit] = []
        self.kept = ModuleSizes(shapes)
        self.openings: list[Decomposition] = []
        """Calls that cannot express the growth and must be decomposed first."""
        flags = {path for path, module in self.modules_by_name.items() if isinstance(module, ModeValue)}
        modes = {n.name for n in gm.graph.nodes if n.op == "call_module" and n.target in flags} if flags else set()
        self._kept = modes | self.program.varying
        """Names of nodes whose numbers must not be replaced: they come from plain inputs, or depend on the mode."""
        self.elsewhere = OtherSizes(self)
        self.told: list[fx.Node] = []
        """Nodes that see the growth and read numbers which may follow the input, or may compute such numbers."""
        self.scales: Scales = ()
        """The input sizes to check for these nodes, besides the second ones."""
        self.refused: list[GrowthRefused] = []
        self._blamed: dict[fx.Node, frozenset[Atom]] = {}
        """Nodes that cannot express the growth, with the growing units that they see."""
        self._cuts = analysis.kept(Cuts, lambda: Cuts(analysis.dims))

    def run(self) -> GraphEdits:
        """Walk the graph and collect all edits.

        Raises:
            GrowthRefused: a node cannot express the growth: its sizes are computed or stored where fxgrow cannot edit.
        """
        by_name = self.modules_by_name
        touched = {op.node for op in self.sizes.dims.touched(self.sizes.new)}
        called = [node for node in self.gm.graph.nodes if node.op.startswith("call_")]
        opaque = [n for n in called if is_user_code(target_of(n, by_name)) and (n.name in touched or self._grows(n))]
        seeing = [node for node in called if node.name in touched or node in opaque]
        self.told = self._cuts.told(seeing, opaque)
        closed = any(kind_of(self.gm, node) for node in seeing)
        if not closed:
            self._check_groups(opaque)
        for node in self.gm.graph.nodes:
            try:
                self._walk(node, by_name, touched)
            except GrowthRefused as refused:
                left = self._opened(node, refused)
                if left is not None and not self.several:
                    raise left from None
                if left is not None:
                    self._go_on(node, left)
        if closed and not self.openings:
            self._check_groups(opaque)
        for path, module in by_name.items():
            if self.kept.metas(module, recurse=False):
                self.kept.edit(path, module, dict)
        return self

    def _check_groups(self, opaque: Collection[fx.Node]) -> None:
        """Refuse a growth of units that are grouped differently for inputs of other sizes."""
        others: Iterable[Program] = ()
        if self.told:
            self.scales = self._cuts.scales(self.told, opaque, ambiguous=self.analysis.ambiguous(self.gm))
            others = self.analysis.elsewhere(self.gm, self.scales)
        regrouped = self._cuts.regrouped(self.told, self.sizes, others)
        if regrouped is not None:
            raise inexpressible(self.gm, *regrouped, "write the size as a number, or choose another layer")

    def _walk(self, node: fx.Node, by_name: Mapping[str, nn.Module], touched: Collection[str]) -> None:
        """Propagate the growth through one node of the graph, if it reads anything that changes."""
        if node.op == "output":
            self._check_output(node)
        if node.op in ("placeholder", "output"):
            return
        if node.op == "get_attr":
            thing = attribute(self.gm, str(node.target))
            if isinstance(thing, Tensor) and id(thing) in self.shapes:
                self.change(node, grown_ref(self.program.results[node.name], self.shapes[id(thing)]))
            return
        check_decision(self, self.elsewhere, node)
        asserted = asserted_number(self, self.elsewhere, node)
        if asserted is not None:
            path, number = asserted
            self.nodes.append(NodeEdit(node.name, path, at(node, path), number))
            self.change(node, self.program.results[node.name], Done(node.target, {path: number}, {}, {}))
            return
        module = by_name.get(str(node.target)) if node.op == "call_module" else None
        metas = self.kept.metas(module) if module is not None else {}
        seen = node.name in touched or any(
            n in self.changed or self.reads_changed_container(node, n) for n in node.all_input_nodes
        )
        seen = seen or any(
            (node.name, n.name) in self.detached or n in self.elsewhere.uneven for n in node.all_input_nodes
        )
        if not (seen or metas):
            return
        if node.name not in self.program.calls and node.target not in INTRINSICS:  # it modifies a container in place
            self._check_output(node)
            self.change(node, self.predicted(self.program.results[node.name]))
            return
        attributes: Mapping[str, object] = {}
        if module is not None:
            attributes = self.kept.edit(str(node.target), module, lambda: self._facts(node))
        self._node(node, module, metas, attributes)
        self.elsewhere.note(node, module)

    def _opened(self, node: fx.Node, refused: GrowthRefused) -> GrowthRefused | None:
        """Decompose a call of a user function that cannot express the growth.

        Returns the refusal if the node does not call such a function or it cannot be traced through, else None.
        """
        if not is_whole_function(node) or kind_of(self.gm, node) or refused.kind is not Kind.INEXPRESSIBLE:
            return refused
        why = why_kept_whole(self.gm, self.analysis, node)
        if why:
            text = f"{refused.refusal.what}; and the function cannot be traced through: {why}"
            return GrowthRefused(replace(refused.refusal, what=text))
        self.openings.append(decomposition_of(self.gm, node, self.analysis.programs(self.gm)))
        self.change(node, self.predicted(self.program.results[node.name]))
        return None

    def _go_on(self, node: fx.Node, refused: GrowthRefused) -> None:
        """Record a refusal and continue with the result that the rules predict for the node.

        A refusal that only follows from an earlier one is not recorded: the node comes after a recorded node that
        failed for the same units.
        """
        if node.op != "output":
            self.change(node, self.predicted(self.program.results[node.name]))
        units = self._units(refused.refusal.chain[-1]) or self._units(node.name)
        waiting, seen = list(node.all_input_nodes), set(node.all_input_nodes)
        while waiting:
            read = waiting.pop()
            if self._blamed.get(read, frozenset()) & units:
                return
            more = [n for n in read.all_input_nodes if n not in seen and self._units(n.name) & units]
            seen.update(more)
            waiting += more
        self._blamed[node] = units
        self.refused.append(refused)

    def _units(self, name: str) -> frozenset[Atom]:
        """Return the growing units that the operators of a node see."""
        dims = self.sizes.dims
        values = (value for op in self.program.node_ops.get(name, ()) for value in (*op.inputs(), *op.outputs))
        return frozenset(atom for value in values for atom in dims.held(value) if atom in self.sizes.new)

    @property
    def modules(self) -> list[ModuleEdit]:
        """The edits of module attributes."""
        return self.kept.edits

    def _facts(self, node: fx.Node) -> dict[str, Any]:
        """Return what the call of a module says about the module's attributes.

        These are the arguments of its operators, and the number of channels that it reads before and after the growth,
        which norms without parameters and buffers store as an attribute.
        """
        ops = self.program.node_ops.get(node.name, [])
        facts = {k: v for op in ops for k, v in self.sizes.arguments(op).items()}
        read = self.program.results.get(node.all_input_nodes[0].name) if node.all_input_nodes else None
        if isinstance(read, Value) and len(read.shape) > 1:
            facts["channels"] = (read.shape[1], self.sizes.shape(read)[1])
        return facts

    def _check_output(self, node: fx.Node) -> None:
        """Check that numbers which the model returns, or writes into a container, do not change."""
        for source in node.all_input_nodes:
            changed = source in self.changed and not same_numbers(self.program.results[source.name], self._env[source])
            if changed or (source in self.elsewhere.uneven and self.elsewhere.jumps(node, source)):
                raise returned_number(self.gm, source)

    # -- one node -----------------------------------------------------------------------------------------------

    def _node(
        self, node: fx.Node, module: nn.Module | None, metas: dict[int, Meta], attributes: Mapping[str, object]
    ) -> None:
        """Propagate the growth through one call, and collect its edits.

        Args:
            node: The call.
            module: The module that it calls, if it calls one.
            metas: The signatures of the tensors of the module that change, by `id`.
            attributes: The attributes of the module that change.
        """
        target: Any = module if module is not None else node.target
        ops = self.program.node_ops.get(node.name, [])
        if module is None and node.target in INTRINSICS:
            self._intrinsic(node, ops[0])
            return
        ops = [op for op in ops if op.step >= 0]  # the others model what an in-place write does to other views
        closed = bool(kind_of(self.gm, node))
        if not closed:
            self._check_cuts(node, target, ops)
        predicted = [dict(self.sizes.arguments(op)) for op in ops]
        multiples = dict(pin_within(node, ops, predicted)) if node.target is window_attention else {}
        pinned = next(((op, x[PINNED]) for op, x in zip(ops, predicted, strict=True) if PINNED in x), None)
        if pinned is not None:
            self._pin(node, *pinned, alone=len(ops) == 1 and module is None)
            return
        how = Done(target, multiples, metas, attributes)
        expected = Predictions(ops, predicted, self.sizes.shape, self.program.results[node.name])
        for attempt in range(2):
            recording, result, problem = self._record(node, how, expected)
            if not problem or attempt or module is not None:
                break
            meant = ops or [op for op in self.program.unread if op.node == node.name]
            new = [dict(self.sizes.arguments(op)) for op in meant]
            numbers = align(node, meant, new, *self.both(node), self._kept)
            numbers |= put_in_tensors(node, ops, *self.both(node)) | whole_slices(node, *self.both(node))
            how = replace(how, numbers={**numbers, **multiples})
        if problem and len(ops) == 1 and module is None and ops[0].name.removeprefix("aten::") in CUTS:
            self._split(node, ops[0])
            return
        edits: list[NodeEdit] = []
        if recording is not None and not problem and not self.openings:
            how, edits, problem = self._followed(node, how, recording)
        if problem and closed:
            self.openings.append(decomposition_of(self.gm, node, self.analysis.programs(self.gm)))
            self.change(node, self.predicted(self.program.results[node.name]))
            return
        if closed:
            self._check_cuts(node, target, ops)
        if problem:
            raise inexpressible(self.gm, node, problem)
        self.nodes.extend(edits)
        self.change(node, result, how)

    def _grows(self, node: fx.Node) -> bool:
        """Return whether a node reads a growing value, even if it runs no operator for the example inputs."""
        dims, new = self.sizes.dims, self.sizes.new
        values = (v for n in node.all_input_nodes for v in found(self.program.results[n.name], Value))
        return any(dims.carries(value, new.__contains__) for value in values)

    def _is_user(self, node: fx.Node) -> bool:
        """Return whether a node runs user code."""
        return node.op.startswith("call_") and may_change(target_of(node, self.modules_by_name))

    def _other_programs(self) -> Iterable[Program]:
        """Return the programs for inputs of other sizes."""
        return self.analysis.elsewhere(self.gm)

    def _check_cuts(self, node: fx.Node, target: Any, ops: Sequence[Op]) -> None:
        """Refuse a growth of an axis of which the node takes another part for inputs of other sizes."""
        if self.openings:  # the check runs again on the model in which these calls are decomposed
            return
        opaque = is_user_code(target) and not kind_of(self.gm, node)
        programs = self._cuts.programs(node, self._other_programs, self._is_user)
        problem = self._cuts.problem(node, ops, self.sizes.shape, programs, opaque=opaque)
        if problem:
            raise inexpressible(self.gm, node, problem, "take a fixed number of units, or choose another layer")

    def _record(self, node: fx.Node, how: Done, expected: Predictions) -> tuple[Recording | None, Any, str]:
        """Record a call at its new sizes; return the recording, the result and an error text (empty on success)."""
        args, kwargs = put_all(node, Env(self, node), how.numbers)
        assert how.target is not None
        try:
            template, refs, own = self.analysis.lowering.template(how.target, args, kwargs, how.metas, how.attributes)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # torch raises many types of errors for invalid shapes; the text is passed on
            if broken(error):
                raise failed(self.gm, node, error) from error
            return None, None, (str(error).strip().splitlines() or [repr(error)])[0]
        recording = Recording.of(template, args, kwargs, len(own))
        problem = difference(self._recorded(node, len(own)), recording, expected, self.analysis.lowering.compared)
        return recording, result_of(template, refs, node.name), problem

    def _recorded(self, node: fx.Node, own: int) -> Recording:
        """Return the recording of a call before the growth."""
        call = self.program.calls[node.name]
        return Recording.of(call.template, call.args, call.kwargs, own)

    # -- the second sizes ---------------------------------------------------------------------------------------

    def _followed(self, node: fx.Node, how: Done, recording: Recording) -> tuple[Done, list[NodeEdit], str]:
        """Find edits with which the numbers of a call still follow the input; return them, or an error text.

        The second sizes are checked only where computed numbers or user code meet the growth.
        """
        places = {path: argument(node, path) for path in how.numbers}
        computed = {path: arg for path, arg in places.items() if isinstance(arg, fx.Node)}
        constants = {path: number for path, number in how.numbers.items() if path not in computed}
        edits = [NodeEdit(node.name, path, at(node, path), new) for path, new in constants.items()]
        old, new = self.both(node)
        if any(given(arg, old.__getitem__) for arg in computed.values()):
            return how, [], "a number in its arguments is computed from an input of the model"
        plain = is_plain(self.program.results[node.name])
        uneven = {
            path: arg for path, arg in self.elsewhere.arguments(node) if arg in self.elsewhere.uneven and not plain
        }
        user = may_change(how.target) and not plain
        ask = computed or uneven or user or computes(node, old.__getitem__, new.__getitem__)
        if not ask and is_user_code(how.target):
            ask = other_numbers(self._recorded(node, recording.own).template, recording.template)
        second = self.elsewhere.second() if ask else None
        if second is None:
            edits += [NodeEdit(node.name, path, str(arg), how.numbers[path]) for path, arg in computed.items()]
            return how, edits, ""
        second.advance()
        sight = Sight(old.__getitem__, new.__getitem__, second.old, lambda number: second.new(node, number))
        uneven = {path: arg for path, arg in uneven.items() if self.elsewhere.uneven.mixed(arg, sight)}
        ways: list[list[NodeEdit | None]] = []
        sure = True
        for path, arg in (computed | uneven).items():
            some, known = self.elsewhere.ways(node, path, arg, how.numbers.get(path, new[arg]), sight, path in uneven)
            ways.append(some)
            sure &= known
        all_sizes = [second, *(() if sure and not user else self.elsewhere.further(node, uneven.values(), sight))]
        problem = "a number in its arguments is made of a width and of another size, and cannot be edited"
        for chosen in islice(product(*ways), MOST_TRIES):
            made = {path: edit for path, edit in zip(computed | uneven, chosen, strict=True) if edit is not None}
            tried = replace(how, edits=made)
            problem = next(filter(None, (sizes.problem(node, tried, recording) for sizes in all_sizes)), "")
            if not problem:
                return tried, [*edits, *made.values()], ""
        return how, [], problem

    # -- nodes that are replaced --------------------------------------------------------------------------------

    def _intrinsic(self, node: fx.Node, op: Op) -> None:
        """Edit the arguments of a call of fxgrow's own operators, such as `adapt_skip`."""
        names = ("x", "dim", "keep", "pairs", "width", "copies")
        for name, new in self.sizes.arguments(op).items():
            if name != "x" and new != op.args.get(name):
                at = names.index(name)
                self.nodes.append(NodeEdit(node.name, ("args", at), op.args.get(name), new))
        self.change(node, grown_ref(op.outputs[0], self.sizes.shape(op.outputs[0])))

    def _split(self, node: fx.Node, op: Op) -> None:
        """Replace a call whose pieces no longer have one size by a split with explicit sizes."""
        sizes, dim = piece_sizes(op, self.sizes), op.args["dim"]
        if self.elsewhere.varies(node, op.outputs, dim):
            raise inexpressible(
                self.gm, node, "its pieces have other sizes for other inputs, and cannot be written down"
            )
        self.nodes.append(NodeEdit(node.name, (SPLIT,), str(node.target), (tuple(sizes), dim)))
        self.change(node, tuple(grown_ref(out, self.sizes.shape(out)) for out in op.outputs))

    def _pin(self, node: fx.Node, op: Op, number: float, *, alone: bool) -> None:
        """Edit a mean, a norm or a variance so that it keeps its value: by a factor, or by a correction."""
        if not alone and kind_of(self.gm, node):
            self.openings.append(decomposition_of(self.gm, node, self.analysis.programs(self.gm)))
            self.change(node, self.predicted(self.program.results[node.name]))
            return
        family = op.name.removeprefix("aten::")
        if not alone or (op.args.get("dtype") is not None and family not in NORMS):
            text = f"{plain_name(op.name)} would divide by another number of units, which cannot be written there"
            raise inexpressible(self.gm, node, text)
        x, dims = next(op.inputs()), op.args.get("dim")
        rank = len(x.shape)
        some = [dims] if isinstance(dims, int) else dims
        written = () if some is None else tuple(some)
        axes = tuple(d % rank for d in written) or tuple(range(rank))
        varies = family not in MULTIPLIED and (
            self.elsewhere.follows(node)
            or (not proportional(op, axes, number, self.sizes.shape(x)) and self.elsewhere.varies(node, (x,), *axes))
        )
        if varies:
            raise inexpressible(self.gm, node, "what it is divided by depends on the sizes of the input")
        new = (family, written, bool(op.args.get("keepdim")), number)
        self.nodes.append(NodeEdit(node.name, (STATISTIC,), str(node.target), new))
        self.change(node, self.predicted(self.program.results[node.name]))
