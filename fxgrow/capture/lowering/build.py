"""Build a program from the templates of an fx graph's nodes, with in-place writes and views functionalized."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import Kind, UsageError, usage
from ...functional import ModeValue
from ..containers import changed, replaced
from ..locks import ONE_AT_A_TIME
from ..program.call_key import Meta, key_of, meta_of, meta_of_ref, substitute
from ..program.plain_inputs import note, varying
from ..program.program import STORED, NodeCall, Op, Origin, Program, Ref, Value, View
from ..program.trees import attribute, leaves, plain, value_tree
from ..recording.fake_tensors import has_known_value
from ..user_objects.container_state import copied
from .buffer_numbers import Undecided
from .container_writes import WrittenContainers
from .functionalize import forgotten, refreshed, root_of, stored, understood
from .lowering import INTRINSICS, Lowering
from .random_ops import flag_follows, hides_its_mode, in_other_mode, modes_of
from .root_hooks import record_hooks
from .shared_storage import place_of
from .snapshot import Snapshot
from .template import Local, Step, Template, fill, locals_in
from .value_errors import reads_values


class Builder:
    """Assembles templates into a program. It tracks values, storages, views and the model's own tensors."""

    def __init__(self, model: Snapshot, lowering: Lowering) -> None:
        self.model = model
        self.lowering = lowering
        self.program = Program(training=model.gm.training)
        self._refs: dict[Hashable, Ref] = {}
        self._views: dict[int, list[Ref]] = {}
        self._storages = 0
        self._lasting: dict[Hashable, int] = {}
        """Maps the identity of a storage of the model's own tensors to its number in the program."""
        self._first: list[tuple[Ref, Value]] = []
        """The model's own tensors with their values before the call."""
        self._lost: dict[int, str] = {}
        """Maps a storage whose final contents are unknown to the operator that wrote into it."""
        self._names: dict[Hashable, list[str]] = {}
        self._alive: list[Tensor] = []
        self._places: dict[int, Hashable] = {}
        """Maps the `id` of a tensor of the model to its memory location (see `place_of`)."""
        self._own: dict[int, Ref] = {}
        """Maps the `id` of a tensor of the model to its `Ref`."""
        self._drawn: dict[tuple[int, bool], list[tuple[bool, bool]]] = {}
        """Cache of `_modes`, by the `id` of the template and whether flags follow modules."""
        self._has_flags = any(isinstance(module, ModeValue) for module in model.modules.values())
        for (name, tensor), place in zip(model.tensors, model.places, strict=True):
            self._places[id(tensor)] = place
            self._names.setdefault(place, []).append(name)

    def value(self, meta: Meta, origin: Origin, node: str, names: tuple[str, ...] = ()) -> Value:
        """Add a new value to the program and return it."""
        shape, stride, dtype, device = meta
        made = Value(len(self.program.values), shape, stride, dtype, device, origin, node, names)
        self.program.values.append(made)
        return made

    def new_ref(self, value: Value, storage: int | None = None, *, lasting: bool = False) -> Ref:
        """Return a new `Ref` to a value, in a new storage or in the given one."""
        if storage is None:
            storage = self._storages
            self._storages += 1
        ref = Ref(value, storage, lasting=lasting)
        self._views.setdefault(storage, []).append(ref)
        return ref

    def parameter(self, tensor: Tensor, node: str) -> Ref:
        """Return the `Ref` of a real tensor of the model, or of a constant tensor, creating it on first use."""
        known = self._own.get(id(tensor))
        if known is not None:
            return known
        place = self._places.get(id(tensor)) or place_of(tensor)
        found = self._refs.get(place)
        if found is None:
            names = tuple(self._names.get(place, ()))
            origin = Origin.PARAMETER if names else Origin.CONSTANT
            value = self.value(meta_of(tensor), origin, node, names)
            storage = place[0] if isinstance(place, tuple) else place
            found = self._refs[place] = self.new_ref(value, self._lasting.get(storage), lasting=True)
            self._lasting[storage] = found.storage
            self._first.append((found, value))
            self._alive.append(tensor)
            for name in names:
                self.program.parameters[name] = found.value
            if names and not isinstance(tensor, nn.Parameter):
                self.program.buffers.add(value.index)
                if has_known_value(tensor):
                    found.known = tensor
        if id(tensor) in self._places:  # the lifetime of other tensors is not guaranteed, so their ids are not cached
            self._own[id(tensor)] = found
        return found

    def input(self, example: Any, node: str) -> Any:
        """Return an input of the model with each tensor in it replaced by a `Ref`."""

        def ref_of(leaf: Any) -> Any:
            if isinstance(leaf, Tensor):
                return self.new_ref(self.value(meta_of(leaf), Origin.INPUT, node))
            return copied(leaf)

        return changed(example, ref_of)

    def call(self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Lower a call node and return its result as a tree of `Ref`s and plain numbers."""
        if not isinstance(target, str | nn.Module) and target in INTRINSICS:
            return self._intrinsic(node, target, args, kwargs)
        key = self.model.keys[str(node.target)] if node.op == "call_module" else None
        template, inputs, own = self.lowering.template(target, args, kwargs, key=key)
        self.program.calls[node.name] = NodeCall(template, args, kwargs)
        modes = self._modes(node, target, args, kwargs, template)
        return self.instantiate(node.name, template, [*inputs, *(self.parameter(t, node.name) for t in own)], modes)

    def _modes(
        self, node: fx.Node, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], template: Template
    ) -> list[tuple[bool, bool]]:
        """Return, for each operator of a call, whether it draws random numbers in evaluation and in training mode."""
        training = self.program.training
        others: Sequence[Step | None] = [None] * len(template.steps)
        follows = flag_follows(node, args, kwargs)
        if not self._has_flags and (id(template), follows) in self._drawn:
            return self._drawn[id(template), follows]
        otherwise = in_other_mode(node, args, kwargs, self.model.modules, training=training)
        hidden = isinstance(target, nn.Module) and hides_its_mode(target)
        if hidden or otherwise is not None:
            try:
                if hidden:
                    there = self.lowering.in_mode(target, *(otherwise or (args, kwargs)), not training).steps
                else:
                    there = self.lowering.template(target, *(otherwise or (args, kwargs)))[0].steps
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # user code may fail in the other mode
                there = ()
            if [step.name for step in there] == [step.name for step in template.steps]:
                others = there
        found = [
            modes_of(s.name, s.args, other.args if other else None, follows=follows, training=training)
            for s, other in zip(template.steps, others, strict=True)
        ]
        if not hidden:
            self._drawn[id(template), follows] = found  # the program's calls keep the template alive
        return found

    def instantiate(
        self, node: str, template: Template, given: Sequence[Ref], modes: Sequence[tuple[bool, bool]]
    ) -> Any:
        """Add a template's operators to the program, applied to the given tensors, and return its result."""
        refs: dict[int, Ref] = dict(enumerate(given))

        def ref_of(local: Local) -> Ref:
            ref = refs.get(local.index)
            if ref is None:
                index = local.index
                if index in template.constants:
                    ref = self.parameter(template.constants[index], node)
                else:
                    base = template.storages[index]
                    storage = refs[base].storage if base != index and base in refs else None
                    ref = self.new_ref(self.value(template.metas[index], Origin.COMPUTED, node), storage)
                refs[index] = ref
            return ref

        for number, step in enumerate(template.steps):
            args = {k: fill(v, lambda x: ref_of(x).value) for k, v in step.args.items()}
            fresh = [k for k, x in enumerate(step.outputs) if x.index not in refs]
            written = [ref_of(x) for x in step.writes]
            lost = [ref for ref in written if step.moves or not understood(ref, self._others(ref))]
            for ref, local in zip(written, step.writes, strict=True):
                if ref in lost and root_of(ref).lasting:
                    self._lost.setdefault(ref.storage, step.name)
                for other in (ref, *self._others(ref)):
                    other.known = None
                before, ref.value = ref.value, self.value(template.metas[local.index], Origin.COMPUTED, node)
                if ref in lost:
                    self._add(node, forgotten(ref, before, self._others(ref), step.name, self.value))
            outputs = tuple(ref_of(x).value for x in step.outputs) or tuple(ref_of(x).value for x in step.writes)
            mutates, draws = bool(step.writes), modes[number]
            op = Op(step.name, args, outputs, node, number, step.overload, mutates, step.seeded, draws, step.varies)
            self._add(node, [op])
            self._note_views(op, step, template, fresh, ref_of)
            for ref in written:
                if ref not in lost:
                    self._add(node, refreshed(ref, self._others(ref), node, self.value))
        self.program.node_ops.setdefault(node, [])
        return fill(template.result, ref_of)

    def hooks(self, env: Mapping[fx.Node, Any], output: Any) -> None:
        """Record the forward hooks of the model itself."""
        gm = self.model.gm
        places = [node for node in self.model.nodes if node.op == "placeholder"]
        found = record_hooks(gm, self.lowering, places, [env[place] for place in places], output)
        if found is not None:
            self.program.hooks = found
            self.program.read_by_hooks = tuple(self.parameter(tensor, "output").value for tensor in found.read)

    def store(self) -> None:
        """Add a STORED operator for each of the model's own tensors that was written to.

        If several tensors share a storage and one is written to, their final values are unknown.
        """
        changed = {ref.storage for ref, first in self._first if ref.value is not first} | set(self._lost)
        for ref, first in self._first:
            if ref.storage not in changed:
                continue
            shared = sum(other.storage == ref.storage for other, _ in self._first) > 1
            lost = self._lost.get(ref.storage, "a tensor that shares its storage is written to" if shared else "")
            op = stored(ref, first, lost)
            self._add(op.node, [op])

    def _add(self, node: str, ops: Sequence[Op]) -> None:
        self.program.ops.extend(ops)
        self.program.node_ops.setdefault(node, []).extend(ops)

    def _others(self, ref: Ref) -> list[Ref]:
        """Return all other tensors in the same storage, in order of creation."""
        return [r for r in self._views[ref.storage] if r is not ref]

    def _note_views(
        self, op: Op, step: Step, template: Template, fresh: Sequence[int], ref_of: Callable[[Local], Ref]
    ) -> None:
        """Record which results are views of an operand."""
        operands = [(name, x) for name, arg in step.args.items() for x in locals_in(arg)]
        for k in fresh:
            storage = template.storages[step.outputs[k].index]
            base = next(((name, x) for name, x in operands if template.storages[x.index] == storage), None)
            if base is not None:
                ref_of(step.outputs[k]).view = View(ref_of(base[1]), op, base[0], k)

    def _intrinsic(self, node: fx.Node, target: Callable[..., Any], args: Any, kwargs: Any) -> Ref:
        """Add a call of a function in INTRINSICS to the program as a single operator."""
        slots: dict[Ref, int] = {}
        key_of(args, slots)
        fakes = {ref: self.lowering.fake(meta_of_ref(ref), i) for ref, i in slots.items()}
        with ONE_AT_A_TIME, self.lowering.mode:
            out = target(*substitute(args, fakes.__getitem__), **kwargs)
        ref = self.new_ref(self.value(meta_of(out), Origin.COMPUTED, node.name))
        names = ("x", "dim", "keep", "pairs", "width", "copies")
        values = substitute(args, lambda r: r.value)
        self._add(node.name, [Op(INTRINSICS[target], dict(zip(names, values, strict=False)), (ref.value,), node.name)])
        return ref


def lower(model: Snapshot, inputs: Sequence[Any], lowering: Lowering | None = None) -> Program:
    """Lower a traced model to a program.

    Args:
        model: the traced model; it is not run, and it and its tensors are not modified.
        inputs: one entry for each placeholder: a tensor (only its metadata is used), a plain value, or a container of
            them.
        lowering: the lowering of an earlier analysis, to share its cached templates.

    Raises:
        UsageError: a node cannot run on inputs of these shapes; the message names the node.
    """
    builder = Builder(model, lowering or Lowering())
    gm, modules = model.gm, model.modules
    program = builder.program
    env: dict[fx.Node, Any] = {}
    remaining = list(inputs)
    given: list[Value] = []
    written = WrittenContainers(program)
    for node in model.nodes:
        if node.op == "output":
            tree = plain(node.args[0], env)
            program.left = tuple(ref.value for ref in written.left())
            program.outputs = (*leaves(value_tree(tree)), *program.left)
            builder.hooks(env, tree)
            continue
        if node.op == "placeholder":
            example = remaining.pop(0)
            env[node] = builder.input(example, node.name)
            written.given(env[node])
            given += leaves(value_tree(env[node]))
            if varying(example):
                program.varying.add(node.name)
        elif node.op == "get_attr":
            thing = attribute(gm, str(node.target))
            env[node] = builder.parameter(thing, node.name) if isinstance(thing, Tensor) else thing
        else:
            target = modules[str(node.target)] if node.op == "call_module" else node.target
            args, kwargs = plain(node.args, env), plain(node.kwargs, env) if node.kwargs else {}
            containers = written.look(node, env)
            try:
                done = written.write(node, args, kwargs) if containers else None
                if done is not None:
                    env[node] = done[0]
                    program.node_ops.setdefault(node.name, [])
                else:
                    env[node] = builder.call(node, target, args, kwargs)
                    if containers:
                        made = program.calls[node.name]
                        now = (replaced(tree, Ref, lambda ref: ref) for tree in (args, dict(kwargs)))
                        program.calls[node.name] = NodeCall(made.template, *now)  # they may be written to later
                        written.called(node, made.template, env[node])
                        env[node] = written.read(node, args, env[node])
            except UsageError:
                raise
            except Undecided as error:
                raise _undecided(node, error) from error
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                raise (reads_values(node, target, error) or _cannot_run(node, args, error)) from error
            if program.varying and done is None:
                note(program, node, env, target)
        program.results[node.name] = value_tree(env[node])
    program.inputs = tuple(given)
    program.order = tuple(n.name for n in model.nodes)
    builder.store()
    _drop_unused(program)
    if program.unread:
        program.written = _written(model.nodes, program)
    return program


def _written(nodes: Iterable[fx.Node], program: Program) -> frozenset[str]:
    """Return the nodes of unread operators that read only tensors from other nodes, so their numbers are constants."""
    unread = {op.node for op in program.unread}
    some = (node for node in nodes if node.name in unread)
    return frozenset(
        node.name for node in some if all(isinstance(program.results[n.name], Value) for n in node.all_input_nodes)
    )


def _undecided(node: fx.Node, error: Undecided) -> UsageError:
    return usage(
        Kind.UNSUPPORTED_MODEL,
        f"cannot tell what node {node.name} does in the next call: {error}",
        where=node.format_node() or node.name,
        hint="keep such numbers in tensors (torch.where instead of if), or grow the model in the mode that reads none",
    )


def _cannot_run(node: fx.Node, args: Any, error: Exception) -> UsageError:
    shapes: list[Ref] = []
    substitute(args, shapes.append)
    text = ", ".join("x".join(map(str, r.value.shape)) or "scalar" for r in shapes)
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return usage(
        Kind.BAD_INPUTS,
        f"cannot run node {node.name} on inputs of shape {text}: {reason}",
        where=node.format_node() or node.name,
        hint="pass example_inputs= with the shapes and dtypes that this model takes",
    )


_EFFECTS = (STORED, "aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")


def _runs_layer(inputs: Sequence[int], own: Set[int], ties: Set[int]) -> bool:
    """Return whether an operator reads a parameter or buffer in `ties`, and a value that is not in `own`."""
    return not ties.isdisjoint(inputs) and bool(set(inputs) - own)


def _drop_unused(program: Program) -> None:
    """Remove operators whose results are not used, such as the averaging of attention weights that are discarded.

    The final value of a parameter or buffer is used by the next call, and a number read from a tensor is used by
    Python; these operators are kept unless they depend only on scalars, such as a call counter. A layer whose result is
    not used, such as an auxiliary head outside training, is kept too: it still runs, so its weight must have a
    consistent shape.
    """
    own = {value.index for value in program.parameters.values()}
    ties = {value.index for value in program.parameters.values() if any(size > 1 for size in value.shape)}
    read = [[v.index for v in op.inputs()] for op in program.ops]
    sized: set[int] = set()
    if any(op.name in _EFFECTS for op in program.ops):
        sized.update(v.index for v in program.values if v.shape)
        for op, inputs in zip(program.ops, read, strict=True):
            if not sized.isdisjoint(inputs):
                sized.update(out.index for out in op.outputs)
    needed = {v.index for v in program.outputs}
    used = set(needed)
    """Values that the outputs depend on; `needed` also includes those that unused layers depend on."""
    keep: list[Op] = []
    unread: list[Op] = []
    for op, inputs in zip(reversed(program.ops), reversed(read), strict=True):
        effect = op.name in _EFFECTS and not sized.isdisjoint(inputs)
        if effect or any(out.index in used for out in op.outputs):
            used.update(inputs)
        else:
            unread.append(op)
        if effect or _runs_layer(inputs, own, ties) or any(out.index in needed for out in op.outputs):
            keep.append(op)
            needed.update(inputs)
            if op.repeats is not None:  # its sizes are taken from the user's own view call
                needed.update(v.index for v in op.repeats.outputs)
    if len(keep) == len(program.ops):
        return
    program.unread = tuple(reversed(unread))
    program.ops = keep[::-1]
    kept = {id(op) for op in keep}
    program.node_ops = {n: [op for op in ops if id(op) in kept] for n, ops in program.node_ops.items()}
