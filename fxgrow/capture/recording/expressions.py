"""Convert a recording to expressions: operators applied to the inputs and tensors of the model, numbered by value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor

from ..containers import classes, found, paths
from ..schemas import Spec
from ..user_objects.container_state import changes, contents, is_object
from .constants import LARGEST_CONSTANT, UNFILLED, Constants, by_value
from .module_recording import Note, Recording
from .recorder import Call, spec_of, storage_of

_IDENTITIES = frozenset({"aten::alias", "aten::lift_fresh", "aten::pin_memory", "aten::_assert_async"})
"""Operators that return their operand unchanged."""
_DROPOUTS = frozenset({"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"})
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

UNWRITTEN = -1
"""The number of a storage's contents before the first write that depends on an input."""
UNREAD = -1
"""The version of a view of constant storage: older than every write, so that its value is read when it is needed."""
AFTERWARDS = " after the call"
"""Suffix of the names of entries that a call has written into a container among its inputs."""


OUTPUT = "output"
"""Prefix of the names of outputs."""
LEFT = "what is left in "
"""Prefix of the names of tensors that outlive the call."""


@dataclass(slots=True)
class Numbers:
    """A table that assigns a number to each distinct expression; shared by the two recordings that are compared."""

    known: dict[Any, int] = field(default_factory=dict)

    def of(self, key: Any) -> int:
        """Return the number of an expression, adding it to the table if it is new."""
        return self.known.setdefault(key, len(self.known))


@dataclass(slots=True)
class Side:
    """One of the two recordings of a comparison, as numbered expressions."""

    ends: dict[str, Any]
    """The outputs and the final contents of tensors that outlive the call: numbers by name."""
    steps: list[tuple[int, int]]
    """The number of each operator, and its index in the recording."""
    recording: Recording


class Reader:
    """Converts a recording to numbered expressions, tracking views and in-place writes."""

    def __init__(self, recording: Recording, table: Numbers, names: dict[int, str], *, gradients: bool = True) -> None:
        self.gradients = gradients
        self.names = names
        self.recording = recording
        self.table = table
        self.numbers: dict[int, int] = {}
        self.made: dict[int, int] = {}
        """Maps the `id` of a tensor to the number of writes into its storage before its value was numbered."""
        self.places: dict[int, Any] = {}
        """Maps the `id` of a view to a key for the entries of its storage that it covers, whatever they hold."""
        self.versions: dict[int, list[int]] = {}
        """Maps a storage to the numbers of the writes into it so far."""
        self.fresh: set[int] = set()
        """Storages that operators of this call allocated."""
        self.outside: set[int] = set()
        """Storages of views of real tensors that belong neither to the model nor to this call, such as globals."""
        self.constants = Constants()
        self.alive: list[Tensor] = []
        self.draws = 0
        self.known = frozenset(names.values())
        for label, leaf in paths(recording.inputs, "input"):
            if isinstance(leaf, Tensor):
                self._set(leaf, table.of(("input", label)))
        self.given = self._contents(recording.inputs)
        for fake, real in recording.own.items():
            self.numbers[fake] = table.of(("own", names[id(real)])) if id(real) in names else self._constant(real)

    def read(self) -> Side:
        """Number all operators, the outputs and the final state, and return them."""
        steps = []
        for k, call in enumerate(self.recording.calls):
            number = self._step(call, self.recording.notes[k])
            if number is not None:
                steps.append((number, k))
        ends: dict[str, Any] = {}
        for label, leaf in paths(self.recording.output, OUTPUT):
            ends[label] = self._leaf(leaf)
        ends["the class of output"] = classes(self.recording.output)
        for label, leaf in paths(self.recording.inputs, "input"):
            if isinstance(leaf, Tensor) and self.versions.get(storage_of(leaf)):
                ends[f"{LEFT}{label}"] = self._number(leaf)
        for label, what in changes(self.given, self._contents(self.recording.after)).items():
            ends[f"{label}{AFTERWARDS}"] = what
        for name, tensor in self.recording.left.items():
            number = self._number(tensor)
            if name in self.known and number != self.table.of(("own", name)):
                ends[f"{LEFT}{name}"] = number
        ends |= _outlives(self.recording, self.names, self.versions, self.outside)
        ends["draws"] = f"{self.draws} random draws"
        return Side(ends, steps, self.recording)

    def _contents(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """Return what the containers among the inputs hold."""
        return contents(inputs, "input", self._leaf)

    def _leaf(self, leaf: Any) -> int | str:
        if isinstance(leaf, Tensor):
            return self._number(leaf)
        kind: Any = type(leaf)
        return str(kind.__name__) if is_object(leaf) else f"{kind.__name__} {_ADDRESS.sub('', repr(leaf))}"

    def _step(self, call: Call, note: Note) -> int | None:
        """Number the results and writes of an operator call; return None if it adds no operator to compare."""
        func, args, kwargs, out = call
        spec = spec_of(func)
        bound = {
            name: args[i] if i < len(args) else kwargs.get(name, default)
            for i, (name, default) in enumerate(spec.arguments)
        }
        outputs = found(out, Tensor)
        given = {storage_of(t) for value in bound.values() for t in found(value, Tensor)}
        if spec.name == "aten::lift_fresh":  # the result of torch.tensor
            given = set()
        self.fresh |= {storage_of(t) for t in outputs} - given
        if spec.name != "aten::lift_fresh" and any(r.alias_info is not None for r in func._schema.returns):
            self._note_outside(bound, outputs)
        same = _unchanged(spec.name, bound)
        if same is None and spec.name == "aten::detach" and self._constant_of(bound["self"]) is not None:
            same = bound["self"]  # torch.tensor detaches its result
        if same is None and not (spec.writes or spec.moves or spec.seeded):
            same = _returned_as_it_is(bound, outputs)
        if same is not None:
            number = self._number(same)
            for tensor in outputs:
                self._set(tensor, number)
            return None
        if func is torch.ops.aten.copy_.default and self._is_itself(bound["self"], bound["src"]):
            return None  # `x[0] += y` adds in place, and then copies the sum onto itself
        self._place(spec, bound, outputs)
        if not spec.writes and outputs and all(storage_of(t) in self.constants.memory for t in outputs):
            for tensor in outputs:
                self._set(tensor, UNWRITTEN, made=UNREAD)
            return None
        if spec.name == "aten::unbind":  # Python unpacks a tensor with it, whereas torch.fx indexes item by item
            return self._unbound(bound, outputs, note)
        values = tuple((name, self._key(value)) for name, value in bound.items())
        targets = [(name, t, self._number(t)) for name in spec.writes for t in found(bound[name], Tensor)]
        mark = 0
        if spec.seeded:
            self.draws += 1
            mark = self.draws
        contexts = note.contexts if self.gradients else replace(note.contexts, gradients=True)
        key = (spec.name, spec.overload, values, contexts, mark)
        if targets and not mark and self._writes_constants(call, spec, [t for _, t, _ in targets]):
            return None  # torch.fx computes it at trace time
        if spec.name.startswith(UNFILLED):
            self.constants.unfilled |= {storage_of(t) for t in outputs}
        value = None if mark or spec.writes else self.constants.made(call, self._constant_of)
        number = self.table.of(key) if value is None else self._value(value)
        if value is None:
            for k, tensor in enumerate(outputs):
                self._set(tensor, self.table.of((number, k, tensor.dtype)))
        else:
            self._set(outputs[0], number)
        for _, tensor, _ in targets:
            self._forget(tensor)
        for name, tensor, old in targets:
            self._write(tensor, old, self._result(func, bound, name, number))
            for made in outputs:  # the result may be another Python object for the same tensor
                if storage_of(made) == storage_of(tensor):
                    self._set(made, self.numbers[id(tensor)])
        return number

    def _result(self, func: OpOverload, bound: dict[str, Any], argument: str, number: int) -> int:
        """Return the number of a tensor after a write: that of the result of the out-of-place operator."""
        source = bound.get("src")
        if func is torch.ops.aten.copy_.default and isinstance(source, Tensor):
            target = bound["self"]
            if source.shape == target.shape and source.dtype == target.dtype and source.device == target.device:
                return self._number(source)
        in_place = func._schema.name.endswith("_") and argument == "self"
        return self.table.of((number, 0, bound["self"].dtype) if in_place else (number, argument))

    def _place(self, spec: Spec, bound: dict[str, Any], outputs: list[Tensor]) -> None:
        """Record which entries of their storage the output views cover."""
        base = bound.get("self")
        if not isinstance(base, Tensor) or (spec.writes and not spec.moves):
            return
        arguments = tuple((name, self._place_of(value)) for name, value in bound.items())
        for k, tensor in enumerate([*outputs, base] if spec.moves else outputs):
            if storage_of(tensor) == storage_of(base):
                self.places[id(tensor)] = (spec.name, spec.overload, arguments, 0 if spec.moves else k)

    def _place_of(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self.places.get(id(arg), id(arg))
        return (type(arg).__name__, repr(arg))

    def _is_itself(self, target: Tensor, source: Any) -> bool:
        """Return whether source and target of a copy are the same entries of the same storage."""
        return isinstance(source, Tensor) and (
            source is target or (id(source) in self.places and self.places[id(source)] == self.places.get(id(target)))
        )

    def _unbound(self, bound: dict[str, Any], outputs: list[Tensor], note: Note) -> int:
        """Number the results of `unbind` as those of one `select` each, and return the number of the first."""
        first = -1
        for k, tensor in enumerate(outputs):
            some = {"self": bound["self"], "dim": bound["dim"], "index": k}
            values = tuple((name, self._key(value)) for name, value in some.items())
            number = self.table.of(("aten::select", "int", values, note.contexts, 0))
            self._set(tensor, self.table.of((number, 0, tensor.dtype)))
            first = number if k == 0 else first
        return first

    def _set(self, tensor: Tensor, number: int, *, made: int | None = None) -> None:
        self.numbers[id(tensor)] = number
        self.made[id(tensor)] = len(self.versions.get(storage_of(tensor), ())) if made is None else made
        self.alive.append(tensor)

    def _write(self, tensor: Tensor, old: int, number: int) -> None:
        """Record a write into a tensor, which also changes all tensors that share its storage."""
        writes = self.versions.setdefault(storage_of(tensor), [])
        before = writes[-1] if writes else UNWRITTEN
        writes.append(self.table.of(("write", before, old, number)))
        self._set(tensor, number)

    def _number(self, tensor: Tensor) -> int:
        """Return the number of the current value of a tensor."""
        number = self.numbers.get(id(tensor))
        if number is None:
            number = self._unknown(tensor)
        writes = self.versions.get(storage_of(tensor), [])
        if len(writes) > self.made.get(id(tensor), 0):
            value = self.constants.read(tensor)
            if value is None:
                return self.table.of(("after", number, writes[-1]))
            number = self._value(value)
            self._set(tensor, number)
        return number

    def _unknown(self, tensor: Tensor) -> int:
        """Return the number of a tensor that no operator has returned: an external tensor, or another Python object for
        a tensor that is already known."""
        if tensor.layout is torch.strided:
            alike = [t for t in self.alive if storage_of(t) == storage_of(tensor) and t.shape == tensor.shape]
            if alike:
                number = self._number(alike[-1])
                self._set(tensor, number)
                return number
        number = self._constant(tensor)
        self._set(tensor, number)
        return number

    def _constant(self, tensor: Tensor) -> int:
        real = tensor
        if isinstance(tensor, FakeTensor):
            found = tensor.constant
            if found is None:
                return self.table.of(("constant", tuple(tensor.shape), str(tensor.dtype), tensor.device.type))
            real = found
        return self._value(real.detach() if real.is_meta else real.detach().cpu())

    def _value(self, value: Tensor) -> int:
        number = self.table.of(by_value(value))
        if value.numel() <= LARGEST_CONSTANT:
            self.constants.values[number] = value
        return number

    def _constant_of(self, tensor: Tensor) -> Tensor | None:
        """Return the value of a constant tensor, or None if it is not a constant."""
        return self.constants.values.get(self._number(tensor))

    def _key(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self._number(arg)
        if isinstance(arg, list | tuple):
            return tuple(map(self._key, arg))
        return (type(arg).__name__, repr(arg))

    def _note_outside(self, bound: dict[str, Any], outputs: list[Tensor]) -> None:
        """Record views of real tensors, such as globals: their fakes do not share storage with them."""
        tensors = [t for value in bound.values() for t in found(value, Tensor)]
        if any(not isinstance(t, FakeTensor) for t in tensors):
            self.outside |= {storage_of(t) for t in outputs if isinstance(t, FakeTensor)}

    def _writes_constants(self, call: Call, spec: Spec, targets: list[Tensor]) -> bool:
        """Apply a write of constants into a constant (`mask[2:] = True`); return False for any other write."""
        if len(targets) != 1 or targets[0].layout is not torch.strided or spec.moves:
            return False
        target, storage = targets[0], storage_of(targets[0])
        if storage not in self.fresh or storage in self.outside:  # for example a global, where the write persists
            return False
        if not self.constants.known(target, spec, self._constant_of, self.alive):
            return False
        if not self.constants.write(call, target, self._constant_of):
            return False
        self.versions.setdefault(storage, []).append(UNWRITTEN)  # so that its views are read again
        return True

    def _forget(self, tensor: Tensor) -> None:
        """Stop treating a storage as constant, after numbering its views by the values they hold so far."""
        storage = storage_of(tensor)
        if storage in self.constants.memory:
            for view in self.alive:
                if storage_of(view) == storage:
                    self._number(view)
            del self.constants.memory[storage]


def _outlives(
    recording: Recording, names: dict[int, str], versions: dict[int, list[int]], outside: set[int]
) -> dict[str, Any]:
    """Return entries for outputs and writes that involve tensors that outlive the call but are not parameters or
    buffers, such as plain tensor attributes and globals."""
    kept = {storage_of(fake) for real, fake in recording.kept if id(real) not in names}
    ends: dict[str, Any] = {}
    for label, leaf in paths(recording.output, "output"):
        if isinstance(leaf, Tensor) and storage_of(leaf) in kept:
            ends[f"{label}, as a tensor that outlives the call"] = "the same tensor in every call"
    if any(versions.get(storage) for storage in kept | outside):
        ends["a write to a tensor that outlives the call"] = "the same tensor in every call"
    return ends


def _returned_as_it_is(bound: dict[str, Any], outputs: list[Tensor]) -> Tensor | None:
    """Return the operand that the operator returned as the same object, as `contiguous` does for a contiguous tensor;
    None if there is none."""
    given = (t for value in bound.values() for t in found(value, Tensor))
    return next((t for t in given if t is outputs[0]), None) if len(outputs) == 1 else None


def _unchanged(name: str, bound: dict[str, Any]) -> Tensor | None:
    """Return the operand if the operator is an identity, such as `alias` or inactive dropout; else None."""
    first = next(iter(bound.values()), None)
    if not isinstance(first, Tensor):
        return None
    if name in _IDENTITIES or (name in _DROPOUTS and (not bound.get("train") or bound.get("p") == 0)):
        return first
    return None
