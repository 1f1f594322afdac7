"""Carry a growth through an fx graph on paper: which constants and attributes change, and do the shapes come out right?

Every node that sees a grown tensor or a changed number is lowered again at its new shapes and compared, operator by
operator and argument by argument, with what the rules predict. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher
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
from ..capture.template import Template, fill, locals_in
from ..capture.trees import attribute, plain
from ..dims.rules.concat import CUTS, piece_sizes
from ..dims.rules.mixing import PINNED
from ..errors import GrowthRefused, Kind, Refusal
from .arguments import as_refs, at, left_out, numbers, put, same_numbers, same_result, scalar, scalars_in, shape_text
from .attributes import attributes_of
from .plan import SPLIT, STATISTIC, ModuleEdit, NodeEdit, Path
from .sizes import NewSizes


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
                    self._change(node, self._grown_ref(self.program.results[node.name], self.shapes[id(thing)]))
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
        overrides: dict[Path, object] = {}
        problem = ""
        for attempt in range(2):
            args, kwargs = self._arguments(node, overrides)
            try:
                template, refs, _ = self.analysis.lowering.template(target, args, kwargs, metas, attributes)
                problem = self._compare(ops, predicted, template)
            except Exception as error:  # torch says in many ways that shapes do not fit; the text is passed on
                template, refs, problem = None, [], str(error).strip().splitlines()[0]
            if not problem or attempt or module is not None:
                break
            overrides = self._align(node, ops, predicted)
        if problem and len(ops) == 1 and module is None and ops[0].name.removeprefix("aten::") in CUTS:
            self._split(node, ops[0])
            return
        if (problem or template is None) and kind_of(self.gm, node):
            self.openings.append(opening_of(self.gm, node, self.program))
            self._change(node, self._predicted(self.program.results[node.name]))
            return
        if problem or template is None:
            raise self._inexpressible(node, problem)
        self.nodes.extend(NodeEdit(node.name, path, at(node, path), new) for path, new in overrides.items())
        self._change(node, self._result(template, refs, node))

    def _intrinsic(self, node: fx.Node, op: Op) -> None:
        names = ("x", "dim", "keep", "pairs", "width", "copies")
        for name, new in self.sizes.arguments(op).items():
            if name != "x" and new != op.args.get(name):
                at = names.index(name)
                self.nodes.append(NodeEdit(node.name, ("args", at), op.args.get(name), new))
        self._change(node, self._grown_ref(op.outputs[0], self.sizes.shape(op.outputs[0])))

    def _split(self, node: fx.Node, op: Op) -> None:
        """Pieces that no longer have one size: the call becomes a split at written places."""
        sizes, dim = piece_sizes(op, self.sizes), op.args["dim"]
        self.nodes.append(NodeEdit(node.name, (SPLIT,), str(node.target), (tuple(sizes), dim)))
        self._change(node, tuple(self._grown_ref(out, self.sizes.shape(out)) for out in op.outputs))

    def _pin(self, node: fx.Node, op: Op, number: float, *, alone: bool) -> None:
        """A mean or variance that goes on dividing by what it divides by now."""
        if not alone or op.args.get("dtype") is not None:
            text = f"{op.name} would divide by another number of units, and stands where that cannot be written"
            raise self._inexpressible(node, text)
        x, dims = op.args["self"], op.args.get("dim")
        rank = len(x.shape)
        axes = tuple(range(rank)) if dims is None or dims == [] else tuple(d % rank for d in dims)
        new = (op.name.removeprefix("aten::"), axes, bool(op.args.get("keepdim")), number)
        self.nodes.append(NodeEdit(node.name, (STATISTIC,), str(node.target), new))
        self._change(node, self._predicted(self.program.results[node.name]))

    def _arguments(self, node: fx.Node, overrides: Mapping[Path, object]) -> tuple[Any, dict[str, Any]]:
        env = _Env(self, node)
        args, kwargs = plain(node.args, env), plain(node.kwargs, env)
        for path, value in overrides.items():
            whole = {"args": args, "kwargs": kwargs}
            put(whole, path, value)
            args, kwargs = whole["args"], whole["kwargs"]
        return args, kwargs

    def _compare(self, ops: list[Op], predicted: list[Mapping[str, Any]], template: Template) -> str:
        """Empty if the template is what the rules predict, else the first difference."""
        for op, arguments in zip(ops, predicted, strict=True):
            if op.step >= len(template.steps) or template.steps[op.step].name != op.name:
                return f"at the new size it runs other operators than {op.name}"
            step = template.steps[op.step]
            for name, want in arguments.items():
                have = step.args[name]
                if not isinstance(want, Value) and not locals_in(have) and numbers(have) != numbers(want):
                    return f"argument {name} of {op.name} would be {have}, not {want}"
            for out, local in zip(op.outputs, step.outputs or step.writes, strict=True):
                have_shape, want_shape = template.metas[local.index][0], self.sizes.shape(out)
                if have_shape != want_shape:
                    return f"{op.name} would return {shape_text(have_shape)}, not {shape_text(want_shape)}"
        return ""

    def _align(self, node: fx.Node, ops: list[Op], predicted: list[Mapping[str, Any]]) -> dict[Path, object]:
        """Find the numbers in the node's arguments that reach the operators, and what they must be."""
        old_env, new_env = _Env(self, node, old=True), _Env(self, node)
        ours = list(scalars_in(("args",), node.args)) + list(scalars_in(("kwargs",), node.kwargs))
        before = [scalar(arg, old_env) for _, arg in ours]
        wanted: list[tuple[object, object]] = []
        for op, arguments in zip(ops, predicted, strict=True):
            for name, old in op.args.items():
                wanted.extend(zip(numbers(old), numbers(arguments[name]), strict=False))
        keep = [i for i, value in enumerate(before) if value is not None]
        matcher = SequenceMatcher(
            None, [_typed(before[i]) for i in keep], [_typed(x) for x, _ in wanted], autojunk=False
        )
        overrides: dict[Path, object] = {}
        for block in matcher.get_matching_blocks():
            for k in range(block.size):
                path, arg = ours[keep[block.a + k]]
                new = wanted[block.b + k][1]
                if scalar(arg, new_env) != new and not (isinstance(arg, fx.Node) and arg.name in self.program.varying):
                    overrides[path] = new
        return {**overrides, **_defaults(node, ops, predicted)}

    # -- bookkeeping --------------------------------------------------------------------------------------------

    def _change(self, node: fx.Node, result: Any) -> None:
        """Remember a result; who reads it is looked at only if it is another one than before."""
        if not same_result(self.program.results[node.name], result):
            self._env[node] = result
            self._changed.add(node)

    def lookup(self, consumer: fx.Node, node: fx.Node, old: bool) -> Any:
        """What a node returns, before or after the growth, as one consumer sees it."""
        if not old:
            shape = self.detached.get((consumer.name, node.name))
            if shape is not None:
                return self._grown_ref(self.program.results[node.name], shape)
            if node in self._env:
                return self._env[node]
        return as_refs(self.program.results[node.name], self._refs)

    def _grown_ref(self, value: Value, shape: tuple[int, ...]) -> Ref:
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
        for tensor in (*module.parameters(recurse), *module.buffers(recurse)):
            shape = self.shapes.get(id(tensor))
            if shape is not None:
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

    def _result(self, template: Template, refs: list[Ref], node: fx.Node) -> Any:
        made: dict[int, Ref] = dict(enumerate(refs))

        def ref(index: int) -> Ref:
            if index not in made:
                shape, stride, dtype, device = template.metas[index]
                made[index] = Ref(Value(-1, shape, stride, dtype, device, Origin.COMPUTED, node.name), -1)
            return made[index]

        return fill(template.result, lambda local: ref(local.index))

    def _predicted(self, tree: Any) -> Any:
        """A result as the rules predict it."""
        return replaced(tree, Value, lambda value: self._grown_ref(value, self.sizes.shape(value)))

    def _inexpressible(self, node: fx.Node, problem: str) -> GrowthRefused:
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


def _defaults(node: fx.Node, ops: list[Op], predicted: list[Mapping[str, Any]]) -> dict[Path, object]:
    """Numbers that the call leaves at their default, or None, and that must change, e.g. the scale of attention."""
    found: dict[Path, object] = {}
    for op, arguments in zip(ops, predicted, strict=True):
        for name, new in arguments.items():
            path = left_out(node, op, name) if isinstance(new, float) and new != op.args[name] else None
            if path is not None:
                found[path] = new
    return found


def _typed(number: object) -> tuple[bool, object]:
    """A number that is told from an equal flag."""
    return isinstance(number, bool), number


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
