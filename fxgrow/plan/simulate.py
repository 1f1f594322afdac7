"""Carry a growth through an fx graph on paper: which constants and attributes change, and do the shapes come out right?

Every node that sees a grown tensor or a changed number is lowered again at its new shapes and compared, operator by
operator and argument by argument, with what the rules predict. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from math import isclose, prod
from typing import Any

from torch import Tensor, fx, nn

from ..analysis import Analysis
from ..capture.attention import Opening
from ..capture.containers import replaced
from ..capture.lowering import INTRINSICS
from ..capture.opening import kind_of, opening_of, why_closed
from ..capture.program import Op, Origin, Ref, Value
from ..capture.signature import Meta, strides_like
from ..capture.source import location
from ..capture.template import Template, fill
from ..capture.trees import attribute
from ..capture.user_code import is_user_code
from ..dims.rules.concat import CUTS, piece_sizes
from ..dims.rules.mixing import PINNED
from ..errors import GrowthRefused, Kind, Refusal
from ..functional import ModeValue
from .align import align
from .arguments import argument, as_refs, at, put_all, same_numbers, same_result
from .attributes import attributes_of
from .follow import Sight, computes, followers, given
from .plan import SPLIT, STATISTIC, ModuleEdit, NodeEdit
from .recordings import Predictions, Recording, difference, other_numbers
from .second import Done, SecondSizes
from .sizes import NewSizes

MOST_TRIES = 16
"""Ways to edit the numbers of one call that are tried."""


class Simulation:
    """What has to be edited for a growth, found by trying it on fake tensors."""

    def __init__(
        self,
        analysis: Analysis,
        gm: fx.GraphModule,
        sizes: NewSizes,
        shapes: Mapping[int, tuple[int, ...]],
        detached: Mapping[tuple[str, str], tuple[int, ...]],
    ) -> None:
        """`shapes`: the new shape of each tensor that changes, by identity. `detached`: (consumer, source) edges that
        get an adapter, with the shape that comes out of it."""
        self.analysis = analysis
        self.program = analysis.program
        self.gm = gm
        self.sizes = sizes
        self.shapes = shapes
        self.detached = detached
        self.nodes: list[NodeEdit] = []
        self.modules: list[ModuleEdit] = []
        self.openings: list[Opening] = []
        """Attention whose module cannot express the growth, and which must be written out first."""
        self._refs: dict[int, Ref] = {}
        self._env: dict[fx.Node, Any] = {}
        self._changed: set[fx.Node] = set()
        flags = {path for path, module in gm.named_modules(remove_duplicate=False) if isinstance(module, ModeValue)}
        modes = {n.name for n in gm.graph.nodes if n.op == "call_module" and n.target in flags} if flags else set()
        self._kept = modes | self.program.varying
        """Nodes whose numbers no edit may replace: they come from plain inputs, or depend on the mode."""
        self.done: dict[fx.Node, Done] = {}
        """How each node was carried through, in order."""
        self._second: SecondSizes | None = None

    def run(self) -> Simulation:
        """Walk the graph.

        Raises:
            GrowthRefused: a node cannot express the growth: its sizes are computed or kept where fxgrow cannot edit.
        """
        by_name = dict(self.gm.named_modules(remove_duplicate=False))
        edited: dict[int, dict[str, object]] = {}
        touched = {op.node for op in self.sizes.dims.touched(self.sizes.new)}
        for node in self.gm.graph.nodes:
            if node.op == "output":
                self._check_output(node)
            if node.op in ("placeholder", "output"):
                continue
            if node.op == "get_attr":
                thing = attribute(self.gm, str(node.target))
                if isinstance(thing, Tensor) and id(thing) in self.shapes:
                    self._change(node, self.grown_ref(self.program.results[node.name], self.shapes[id(thing)]))
                continue
            module = by_name.get(str(node.target)) if node.op == "call_module" else None
            metas = self._metas(module) if module is not None else {}
            seen = node.name in touched or any(n in self._changed for n in node.all_input_nodes)
            seen = seen or any((node.name, n.name) in self.detached for n in node.all_input_nodes)
            if not (seen or metas):
                continue
            attributes: dict[str, object] = {}
            if module is not None:
                if id(module) not in edited:
                    ops = self.program.node_ops.get(node.name, [])
                    facts = {k: v for op in ops for k, v in self.sizes.arguments(op).items()} | self._channels(node)
                    edited[id(module)] = self._edit_module(str(node.target), module, facts)
                attributes = edited[id(module)]
            self._node(node, module, metas, attributes)
        for path, module in by_name.items():
            if id(module) not in edited and self._metas(module, recurse=False):
                edited[id(module)] = self._edit_module(path, module, {})
        return self

    def _check_output(self, node: fx.Node) -> None:
        """Numbers that the model returns must not change."""
        for source in node.all_input_nodes:
            if source in self._changed and not same_numbers(self.program.results[source.name], self._env[source]):
                raise GrowthRefused(
                    Refusal(
                        Kind.OUTPUT,
                        f"{source.name}, a number that is computed from its size, is an output of the model",
                        where=location(self.gm, source.name),
                        chain=(source.name,),
                        hint="return tensors only, or a number that does not depend on a width",
                    )
                )

    # -- one node -----------------------------------------------------------------------------------------------

    def _node(
        self, node: fx.Node, module: nn.Module | None, metas: dict[int, Meta], attributes: dict[str, object]
    ) -> None:
        target: Any = module if module is not None else node.target
        ops = self.program.node_ops.get(node.name, [])
        if module is None and node.target in INTRINSICS:
            self._intrinsic(node, ops[0])
            return
        ops = [op for op in ops if op.step >= 0]  # others say what a write does to other views
        predicted = [self.sizes.arguments(op) for op in ops]
        pinned = next(((op, x[PINNED]) for op, x in zip(ops, predicted, strict=True) if PINNED in x), None)
        if pinned is not None:
            self._pin(node, *pinned, alone=len(ops) == 1 and module is None)
            return
        how = Done(target, {}, metas, attributes)
        expected = Predictions(ops, predicted, self.sizes.shape, self.program.results[node.name])
        for attempt in range(2):
            recording, result, problem = self._record(node, how, expected)
            if not problem or attempt or module is not None:
                break
            how = replace(how, numbers=align(node, ops, predicted, *self._both(node), self._kept))
        if problem and len(ops) == 1 and module is None and ops[0].name.removeprefix("aten::") in CUTS:
            self._split(node, ops[0])
            return
        edits: list[NodeEdit] = []
        if recording is not None and not problem:
            how, edits, problem = self._followed(node, how, recording)
        if problem and kind_of(self.gm, node):
            self.openings.append(opening_of(self.gm, node, self.program))
            self._change(node, self._predicted(self.program.results[node.name]))
            return
        if problem:
            raise self.inexpressible(node, problem)
        self.nodes.extend(edits)
        self._change(node, result, how)

    def _record(self, node: fx.Node, how: Done, expected: Predictions) -> tuple[Recording | None, Any, str]:
        """What a call runs at its new sizes, what it returns, and what is wrong with it."""
        args, kwargs = put_all(node, _Env(self, node), how.numbers)
        assert how.target is not None
        try:
            template, refs, own = self.analysis.lowering.template(how.target, args, kwargs, how.metas, how.attributes)
        except Exception as error:  # torch says in many ways that shapes do not fit; the text is passed on
            return None, None, (str(error).strip().splitlines() or [repr(error)])[0]
        recording = Recording.of(template, args, kwargs, len(own))
        problem = difference(self._recorded(node, len(own)), recording, expected, self.analysis.lowering.compared)
        return recording, self.result(template, refs, node), problem

    def _recorded(self, node: fx.Node, own: int) -> Recording:
        """What a call runs now."""
        call = self.program.calls[node.name]
        return Recording.of(call.template, call.args, call.kwargs, own)

    # -- the second sizes ---------------------------------------------------------------------------------------

    def _followed(self, node: fx.Node, how: Done, recording: Recording) -> tuple[Done, list[NodeEdit], str]:
        """Edits after which a call's numbers go on following the input, or what is wrong.

        The second sizes are looked at only where numbers that are computed, or the user's own code, meet the growth.
        """
        places = {path: argument(node, path) for path in how.numbers}
        computed = {path: arg for path, arg in places.items() if isinstance(arg, fx.Node)}
        constants = {path: number for path, number in how.numbers.items() if path not in computed}
        edits = [NodeEdit(node.name, path, at(node, path), new) for path, new in constants.items()]
        old, new = _Env(self, node, old=True), _Env(self, node)
        if any(given(arg, old.__getitem__) for arg in computed.values()):
            return how, [], "a number in its arguments is computed from an input of the model"
        ask = computed or computes(node, old.__getitem__, new.__getitem__)
        if not ask and is_user_code(how.target):
            ask = other_numbers(self._recorded(node, recording.own).template, recording.template)
        second = self._at_second_sizes() if ask else None
        if second is None:
            edits += [NodeEdit(node.name, path, str(arg), how.numbers[path]) for path, arg in computed.items()]
            return how, edits, ""
        second.advance()
        sight = Sight(old.__getitem__, new.__getitem__, second.old, lambda number: second.new(node, number))
        ways = [followers(node, path, arg, how.numbers[path], sight) for path, arg in computed.items()]
        problem = "a number in its arguments is made of a width and of another size, and cannot be edited"
        for chosen in islice(product(*ways), MOST_TRIES):
            numbers = {**constants, **{path: way.second for path, way in zip(computed, chosen, strict=True)}}
            problem = second.problem(node, replace(how, numbers=numbers), recording)
            if not problem:
                return replace(how, numbers=numbers), [*edits, *(way.edit for way in chosen)], ""
        return how, [], problem

    def _at_second_sizes(self) -> SecondSizes | None:
        if self._second is None:
            program = self.analysis.second(self.gm)
            self._second = SecondSizes(self, program) if program is not None else None
        return self._second

    def _varies(self, node: fx.Node, values: Sequence[Value], *axes: int) -> bool:
        """Whether a size of what an operator reads or returns is another one for inputs of other sizes."""
        second = self._at_second_sizes()
        if second is None:
            return False
        first, others = (p.node_ops[node.name][0] for p in (self.program, second.program))
        known = {id(v): w for op, other in [(first, others)] for v, w in zip(_values(op), _values(other), strict=False)}
        return any(v.shape[k] != known[id(v)].shape[k] for v in values for k in axes if id(v) in known)

    def _proportional(self, op: Op, axes: Sequence[int], correction: float) -> bool:
        """Whether the correction of a variance has grown as the number of units has."""
        x = op.args["self"]
        shape = self.sizes.shape(x)
        old, new = (prod(sizes[k] for k in axes) for sizes in (x.shape, shape))
        return isclose(correction * old, float(op.args.get("correction", 1) or 0) * new)

    # -- nodes that become others -------------------------------------------------------------------------------

    def _intrinsic(self, node: fx.Node, op: Op) -> None:
        names = ("x", "dim", "keep", "pairs", "width", "copies")
        for name, new in self.sizes.arguments(op).items():
            if name != "x" and new != op.args.get(name):
                at = names.index(name)
                self.nodes.append(NodeEdit(node.name, ("args", at), op.args.get(name), new))
        self._change(node, self.grown_ref(op.outputs[0], self.sizes.shape(op.outputs[0])))

    def _split(self, node: fx.Node, op: Op) -> None:
        """Pieces that no longer have one size: the call becomes a split at written places."""
        sizes, dim = piece_sizes(op, self.sizes), op.args["dim"]
        if self._varies(node, op.outputs, dim):
            raise self.inexpressible(node, "its pieces have other sizes for other inputs, and cannot be written down")
        self.nodes.append(NodeEdit(node.name, (SPLIT,), str(node.target), (tuple(sizes), dim)))
        self._change(node, tuple(self.grown_ref(out, self.sizes.shape(out)) for out in op.outputs))

    def _pin(self, node: fx.Node, op: Op, number: float, *, alone: bool) -> None:
        """A mean or variance that goes on dividing by what it divides by now."""
        if not alone or op.args.get("dtype") is not None:
            text = f"{op.name} would divide by another number of units, and stands where that cannot be written"
            raise self.inexpressible(node, text)
        x, dims = op.args["self"], op.args.get("dim")
        rank = len(x.shape)
        axes = tuple(range(rank)) if dims is None or dims == [] else tuple(d % rank for d in dims)
        family = op.name.removeprefix("aten::")
        if family != "mean" and not self._proportional(op, axes, number) and self._varies(node, (x,), *axes):
            raise self.inexpressible(node, "what it is divided by depends on the sizes of the input")
        new = (family, axes, bool(op.args.get("keepdim")), number)
        self.nodes.append(NodeEdit(node.name, (STATISTIC,), str(node.target), new))
        self._change(node, self._predicted(self.program.results[node.name]))

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _change(self, node: fx.Node, result: Any, how: Done | None = None) -> None:
        """Remember a result; who reads it is looked at only if it is another one than before."""
        self.done[node] = how or Done(None, {}, {}, {})
        if not same_result(self.program.results[node.name], result):
            self._env[node] = result
            self._changed.add(node)

    def lookup(self, consumer: fx.Node, node: fx.Node, old: bool) -> Any:
        """What a node returns, before or after the growth, as one consumer sees it."""
        if not old:
            shape = self.detached.get((consumer.name, node.name))
            if shape is not None:
                return self.grown_ref(self.program.results[node.name], shape)
            if node in self._env:
                return self._env[node]
        return as_refs(self.program.results[node.name], self._refs)

    def grown_ref(self, value: Value, shape: tuple[int, ...]) -> Ref:
        stride = strides_like(shape, value.stride)
        return Ref(Value(-1, shape, stride, value.dtype, value.device, value.origin, value.node), -1)

    def _channels(self, node: fx.Node) -> dict[str, tuple[int, int]]:
        """Axis 1 of what a node reads, before and after: norms without tensors keep its size."""
        read = self.program.results.get(node.all_input_nodes[0].name) if node.all_input_nodes else None
        if not isinstance(read, Value) or len(read.shape) < 2:
            return {}
        return {"channels": (read.shape[1], self.sizes.shape(read)[1])}

    def _metas(self, module: nn.Module, recurse: bool = True) -> dict[int, Meta]:
        found: dict[int, Meta] = {}
        for part in module.modules() if recurse and module._modules else (module,):
            for tensor in (*part._parameters.values(), *part._buffers.values()):
                shape = self.shapes.get(id(tensor))
                if tensor is None or shape is None:
                    continue
                found[id(tensor)] = (shape, strides_like(shape, tensor.stride()), tensor.dtype, tensor.device)
        return found

    def _edit_module(self, path: str, module: nn.Module, facts: Mapping[str, Any]) -> dict[str, object]:
        def shape(tensor: Tensor) -> tuple[int, ...]:
            return self.shapes.get(id(tensor), tuple(tensor.shape))

        new = attributes_of(module, shape, facts)
        changed = {k: v for k, v in new.items() if getattr(module, k) != v}
        if changed:
            self.modules.append(ModuleEdit(path, tuple((k, getattr(module, k), v) for k, v in changed.items())))
        return changed

    def result(self, template: Template, refs: list[Ref], node: fx.Node) -> Any:
        made: dict[int, Ref] = dict(enumerate(refs))

        def ref(index: int) -> Ref:
            if index not in made:
                shape, stride, dtype, device = template.metas[index]
                made[index] = Ref(Value(-1, shape, stride, dtype, device, Origin.COMPUTED, node.name), -1)
            return made[index]

        return fill(template.result, lambda local: ref(local.index))

    def _both(self, node: fx.Node) -> tuple[_Env, _Env]:
        """What nodes return before and after the growth, as one node sees it."""
        return _Env(self, node, old=True), _Env(self, node)

    def _predicted(self, tree: Any) -> Any:
        """A result as the rules predict it."""
        return replaced(tree, Value, lambda value: self.grown_ref(value, self.sizes.shape(value)))

    def inexpressible(self, node: fx.Node, problem: str) -> GrowthRefused:
        sizes = "write the size as a number or compute it from x.shape, or choose another layer"
        text, hint = why_closed(self.gm, node) or (problem, sizes)
        return GrowthRefused(
            Refusal(
                Kind.INEXPRESSIBLE,
                f"{node.name} cannot take the new size: {text}",
                where=location(self.gm, node.name),
                chain=(node.name,),
                hint=hint,
            )
        )


def _values(op: Op) -> list[Value]:
    return [*op.inputs(), *op.outputs]


class _Env(Mapping[fx.Node, Any]):
    """What nodes return, as one consumer sees it."""

    def __init__(self, simulation: Simulation, consumer: fx.Node, old: bool = False) -> None:
        self.simulation, self.consumer, self.old = simulation, consumer, old

    def __getitem__(self, node: fx.Node) -> Any:
        return self.simulation.lookup(self.consumer, node, self.old)

    def __iter__(self) -> Any:
        return iter(self.consumer.all_input_nodes)

    def __len__(self) -> int:
        return len(self.consumer.all_input_nodes)
