"""Does a traced graph run what the module runs? Both are recorded, and compared operator by operator.

Each operator becomes an expression over the inputs and the tensors of the model; equal expressions have equal numbers,
on both sides. What a model returns, and what it leaves in its buffers and inputs (in tensors, and in lists, dicts and
dataclasses that it is given), must be the same expressions. So the
order of independent operators, unused ones and repeated ones do not matter, and everything else does: every argument,
dtype, flag, and the context managers around it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._mode_utils import no_dispatch

from .container_state import changes, contents, is_object
from .containers import classes, found, paths, replaced
from .recorder import Call, spec_of, storage_of
from .specs import Spec
from .whole import Note, Recording

_IDENTITIES = frozenset({"aten::alias", "aten::lift_fresh", "aten::pin_memory", "aten::_assert_async"})
"""Operators that return what they are given."""
_DROPOUTS = frozenset({"aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::feature_alpha_dropout"})
_FILLS = frozenset({"aten::fill", "aten::zero"})
"""Writes after which it does not matter what a tensor has held."""
_UNFILLED = ("aten::empty", "aten::new_empty")
"""Operators that return memory as they find it begin so."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
LARGEST_CONSTANT = 2**20
"""Tensors of more elements that are made from numbers alone are compared by how they are made."""

AFTERWARDS = " after the call"
"""Ends the names of entries that a call has written into a container among its inputs."""
_WRITE = (
    "write to inputs by plain operations that torch.fx can see, such as feats.append(y) and batch['y'] = y, or return "
    "what is computed"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a graph first does something else than its module."""

    module: str
    """What the module runs."""
    graph: str
    """What the graph runs instead; empty if it lacks it."""
    where: str
    """The user's line."""
    verb: str = "runs"
    hint: str = ""
    """A way out of its own."""

    def __str__(self) -> str:
        return f"the module {self.verb} {self.module}, and the graph {self.graph or 'does not'}"


@dataclass(slots=True)
class Numbers:
    """Numbers of expressions; one table for both sides."""

    known: dict[Any, int] = field(default_factory=dict)

    def of(self, key: Any) -> int:
        """The number of an expression."""
        return self.known.setdefault(key, len(self.known))


@dataclass(slots=True)
class Side:
    """A recording as expressions."""

    ends: dict[str, Any]
    """What is returned, and what is left in tensors that outlive the call: their names and numbers."""
    steps: list[tuple[int, int]]
    """The number of each operator, and its place in the recording."""
    recording: Recording


def difference(
    module: Recording, graph: Recording, names: dict[int, str], *, gradients: bool = True
) -> Difference | None:
    """The first thing that a graph does not do as the module does; None if they are the same program.

    Args:
        module: a recording of the module.
        graph: one of the graph, on the same inputs in the same mode.
        names: for each tensor of either model, by identity, the name by which both know it.
        gradients: whether it counts that autograd is on in one of them and off in the other.
    """
    table = Numbers()
    ours, theirs = (_Reader(side, table, names, gradients=gradients).read() for side in (module, graph))
    if ours.ends == theirs.ends:
        return None
    return _first(ours, theirs)


def _first(ours: Side, theirs: Side) -> Difference:
    known, made = {n for n, _ in theirs.steps}, {n for n, _ in ours.steps}
    mine = next((k for n, k in ours.steps if n not in known), None)
    other = next((k for n, k in theirs.steps if n not in made), None)
    if mine is None and other is None:
        name = next(k for k in (*ours.ends, *theirs.ends) if ours.ends.get(k) != theirs.ends.get(k))
        left, right = (_end(side.ends.get(name)) for side in (ours, theirs))
        return Difference(f"{left} as {name}", f"has {right} there", "", "has", _WRITE if AFTERWARDS in name else "")
    left, right = ("" if k is None else _text(side, k) for k, side in ((mine, ours), (other, theirs)))
    where = _where((ours if mine is not None else theirs), mine if mine is not None else other)
    return Difference(left or "nothing more", f"runs {right}" if right else "", where)


def _end(end: Any) -> str:
    return "another value" if isinstance(end, int) else "nothing" if end is None else str(end)


def _text(side: Side, k: int) -> str:
    func, args, kwargs, _ = side.recording.calls[k]
    shown = [_short(a) for a in args] + [f"{name}={_short(a)}" for name, a in kwargs.items()]
    return f"{spec_of(func).name.removeprefix('aten::')}({', '.join(shown)})"


def _short(arg: Any) -> str:
    if isinstance(arg, Tensor):
        return "x".join(map(str, arg.shape)) or "a scalar"
    if isinstance(arg, list | tuple):
        return f"[{', '.join(map(_short, arg))}]"
    return repr(arg)


def _where(side: Side, k: int | None) -> str:
    note: Note | None = side.recording.notes[k] if k is not None else None
    return f"{note.file.rsplit('/', 1)[-1]}:{note.line}, in {note.function}" if note is not None and note.file else ""


class _Reader:
    """Reads a recording into expressions."""

    def __init__(self, recording: Recording, table: Numbers, names: dict[int, str], *, gradients: bool = True) -> None:
        self.gradients = gradients
        self.names = names
        self.recording = recording
        self.table = table
        self.numbers: dict[int, int] = {}
        self.made: dict[int, int] = {}
        """By identity of a tensor, how often its storage had been written to when it was made."""
        self.places: dict[int, Any] = {}
        """By identity of a view, which entries of its storage it shows, however often they are written to."""
        self.versions: dict[int, list[int]] = {}
        """By storage, the numbers of the writes into it so far."""
        self.fresh: set[int] = set()
        """Storages that operators of this call have made."""
        self.outside: set[int] = set()
        """Storages of views of tensors that neither the model nor this call has made."""
        self.unfilled: set[int] = set()
        """Storages that are made from numbers alone and hold nothing yet."""
        self.constants: dict[int, Tensor] = {}
        """By number, the value of a tensor that is made from numbers alone."""
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
        """All operators, and what is left in the end."""
        steps = []
        for k, call in enumerate(self.recording.calls):
            number = self._step(call, self.recording.notes[k])
            if number is not None:
                steps.append((number, k))
        ends: dict[str, Any] = {}
        for label, leaf in paths(self.recording.output, "output"):
            ends[label] = self._leaf(leaf)
        ends["the class of output"] = classes(self.recording.output)
        for label, leaf in paths(self.recording.inputs, "input"):
            if isinstance(leaf, Tensor) and self.versions.get(storage_of(leaf)):
                ends[f"what is left in {label}"] = self._number(leaf)
        for label, what in changes(self.given, self._contents(self.recording.after)).items():
            ends[f"{label}{AFTERWARDS}"] = what
        for name, tensor in self.recording.left.items():
            number = self._number(tensor)
            if name in self.known and number != self.table.of(("own", name)):
                ends[f"what is left in {name}"] = number
        ends |= _outlives(self.recording, self.names, self.versions, self.outside)
        ends["draws"] = f"{self.draws} random draws"
        return Side(ends, steps, self.recording)

    def _contents(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        """What the containers among the inputs hold."""
        return contents(inputs, "input", self._leaf)

    def _leaf(self, leaf: Any) -> int | str:
        if isinstance(leaf, Tensor):
            return self._number(leaf)
        kind: Any = type(leaf)
        return str(kind.__name__) if is_object(leaf) else f"{kind.__name__} {_ADDRESS.sub('', repr(leaf))}"

    def _step(self, call: Call, note: Note) -> int | None:
        func, args, kwargs, out = call
        spec = spec_of(func)
        bound = {
            name: args[i] if i < len(args) else kwargs.get(name, default)
            for i, (name, default) in enumerate(spec.arguments)
        }
        outputs = found(out, Tensor)
        given = {storage_of(t) for value in bound.values() for t in found(value, Tensor)}
        if spec.name == "aten::lift_fresh":  # what torch.tensor makes of numbers
            given = set()
        self.fresh |= {storage_of(t) for t in outputs} - given
        if spec.name != "aten::lift_fresh" and any(r.alias_info is not None for r in func._schema.returns):
            self._note_outside(bound, outputs)
        same = _unchanged(spec.name, bound)
        if same is None and spec.name == "aten::detach" and self._number(bound["self"]) in self.constants:
            same = bound["self"]  # torch.tensor makes its results so
        if same is not None:
            number = self._number(same)
            for tensor in outputs:
                self._set(tensor, number)
            return None
        if func is torch.ops.aten.copy_.default and self._is_itself(bound["self"], bound["src"]):
            return None  # `x[0] += y` adds in place, and then assigns the sum to where it is
        self._place(spec, bound, outputs)
        if spec.name == "aten::unbind":  # Python unpacks tensors by it, where torch.fx takes one item after another
            return self._unbound(bound, outputs, note)
        values = tuple((name, self._key(value)) for name, value in bound.items())
        targets = [(name, t, self._number(t)) for name in spec.writes for t in found(bound[name], Tensor)]
        mark = 0
        if spec.seeded:
            self.draws += 1
            mark = self.draws
        contexts = note.contexts if self.gradients else replace(note.contexts, gradients=True)
        key = (spec.name, spec.overload, values, contexts, mark)
        if targets and not mark and self._written_constants(call, spec, [t for _, t, _ in targets]):
            return None  # torch.fx does that while it traces
        folded = self._folded(call, mark, bool(spec.writes))
        number = self.table.of(key) if folded is None else folded[0]
        if folded is None:
            for k, tensor in enumerate(outputs):
                self._set(tensor, self.table.of((number, k, tensor.dtype)))
        else:
            self._set(outputs[0], number)
            self.constants[number] = folded[1]
        for name, tensor, old in targets:
            self._write(tensor, old, self._result(func, bound, name, number))
            for made in outputs:  # Python may get another object for the tensor that was written to
                if storage_of(made) == storage_of(tensor):
                    self._set(made, self.numbers[id(tensor)])
        return number

    def _result(self, func: OpOverload, bound: dict[str, Any], argument: str, number: int) -> int:
        """What a tensor holds after a write: what the operator would return if it did not write in place."""
        source = bound.get("src")
        if func is torch.ops.aten.copy_.default and isinstance(source, Tensor):
            target = bound["self"]
            if source.shape == target.shape and source.dtype == target.dtype and source.device == target.device:
                return self._number(source)
        in_place = func._schema.name.endswith("_") and argument == "self"
        return self.table.of((number, 0, bound["self"].dtype) if in_place else (number, argument))

    def _place(self, spec: Spec, bound: dict[str, Any], outputs: list[Tensor]) -> None:
        """Note which entries of their storages views show."""
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
        """Whether a tensor is copied to where it is."""
        return isinstance(source, Tensor) and (
            source is target or (id(source) in self.places and self.places[id(source)] == self.places.get(id(target)))
        )

    def _unbound(self, bound: dict[str, Any], outputs: list[Tensor], note: Note) -> int:
        """The pieces as if each had been selected."""
        first = -1
        for k, tensor in enumerate(outputs):
            some = {"self": bound["self"], "dim": bound["dim"], "index": k}
            values = tuple((name, self._key(value)) for name, value in some.items())
            number = self.table.of(("aten::select", "int", values, note.contexts, 0))
            self._set(tensor, self.table.of((number, 0, tensor.dtype)))
            first = number if k == 0 else first
        return first

    def _set(self, tensor: Tensor, number: int) -> None:
        self.numbers[id(tensor)] = number
        self.made[id(tensor)] = len(self.versions.get(storage_of(tensor), ()))
        self.alive.append(tensor)

    def _write(self, tensor: Tensor, old: int, number: int) -> None:
        """Note that a tensor holds something else now, and whatever shares its memory, too."""
        writes = self.versions.setdefault(storage_of(tensor), [])
        before = writes[-1] if writes else -1
        writes.append(self.table.of(("write", before, old, number)))
        self._set(tensor, number)

    def _number(self, tensor: Tensor) -> int:
        """The number of what a tensor holds now."""
        number = self.numbers.get(id(tensor))
        if number is None:
            number = self._unknown(tensor)
        writes = self.versions.get(storage_of(tensor), [])
        if len(writes) > self.made.get(id(tensor), 0):
            return self.table.of(("after", number, writes[-1]))
        return number

    def _unknown(self, tensor: Tensor) -> int:
        """Of a tensor that no operator has returned: one from outside, or another object for what a factory made."""
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
        number = self.table.of(_by_value(real))
        if real.numel() <= LARGEST_CONSTANT:
            self.constants[number] = real.detach() if real.is_meta else real.detach().cpu()
        return number

    def _key(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self._number(arg)
        if isinstance(arg, list | tuple):
            return tuple(map(self._key, arg))
        return (type(arg).__name__, repr(arg))

    def _note_outside(self, bound: dict[str, Any], outputs: list[Tensor]) -> None:
        """Note views of real tensors (globals): the fake tensors that stand for them share no memory with them."""
        tensors = [t for value in bound.values() for t in found(value, Tensor)]
        if any(not isinstance(t, FakeTensor) for t in tensors):
            self.outside |= {storage_of(t) for t in outputs if isinstance(t, FakeTensor)}

    def _written_constants(self, call: Call, spec: Spec, targets: list[Tensor]) -> bool:
        """Whether a write changes tensors that are made from numbers alone to others that are: `mask[2:] = True`."""
        func, args, kwargs, _ = call
        if len(targets) != 1 or targets[0].layout is not torch.strided or spec.moves:
            return False
        target, storage = targets[0], storage_of(targets[0])
        if storage not in self.fresh or storage in self.outside:  # a global, say, which keeps what is written
            return False
        size = target.untyped_storage().nbytes() // target.element_size()
        fills = spec.name in _FILLS and storage in self.unfilled and target.numel() == size
        there = [t for t in self.alive if storage_of(t) == storage and t.dtype is target.dtype]
        there = [t for t in {id(t): t for t in there}.values() if self._number(t) in self.constants]
        others = [t for t in found((args, kwargs), Tensor) if t is not target]
        if size > LARGEST_CONSTANT or any(self._number(t) not in self.constants for t in others):
            return False
        if not fills and all(t is not target for t in there):
            return False
        image = torch.zeros(size, dtype=target.dtype)

        def shown(tensor: Tensor) -> Tensor:
            if storage_of(tensor) != storage:
                return self.constants[self._number(tensor)]
            return image.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

        try:
            with no_dispatch(), torch.no_grad():
                for tensor in there:
                    shown(tensor).copy_(self.constants[self._number(tensor)])
                given, named = (_on_the_cpu(replaced(tree, Tensor, shown)) for tree in (args, kwargs))
                func(*given, **named)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # then it is compared as a write
            return False
        self.unfilled.discard(storage)
        self._write(target, self._number(target), self._value(shown(target).clone()))
        for tensor in there:
            self._set(tensor, self._value(shown(tensor).clone()))
        return True

    def _value(self, value: Tensor) -> int:
        number = self.table.of(_by_value(value))
        self.constants[number] = value
        return number

    def _folded(self, call: Call, seeded: int, writes: bool) -> tuple[int, Tensor] | None:
        """The value of a tensor that is made from numbers and constants alone: torch.fx makes it while it traces."""
        func, args, kwargs, out = call
        if seeded or writes or not isinstance(out, Tensor) or out.numel() > LARGEST_CONSTANT:
            return None
        if spec_of(func).name.startswith(_UNFILLED):
            self.unfilled.add(storage_of(out))
            return None
        tensors = found((args, kwargs), Tensor)
        if any(self._number(t) not in self.constants for t in tensors):
            return None
        known = {id(t): self.constants[self._number(t)] for t in tensors}
        try:
            with no_dispatch(), torch.no_grad():
                given, named = (_on_the_cpu(replaced(tree, Tensor, lambda t: known[id(t)])) for tree in (args, kwargs))
                value = func(*given, **named)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # then it is compared by how it is made
            return None
        if not isinstance(value, Tensor) or value.shape != out.shape:
            return None
        return self.table.of(_by_value(value)), value


def _outlives(
    recording: Recording, names: dict[int, str], versions: dict[int, list[int]], outside: set[int]
) -> dict[str, Any]:
    """Which tensors that a model keeps, and are no parameters or buffers of the module, it returns or writes to."""
    kept = {storage_of(fake) for real, fake in recording.kept if id(real) not in names}
    ends: dict[str, Any] = {}
    for label, leaf in paths(recording.output, "output"):
        if isinstance(leaf, Tensor) and storage_of(leaf) in kept:
            ends[f"{label}, as a tensor that outlives the call"] = "the same tensor in every call"
    if any(versions.get(storage) for storage in kept | outside):
        ends["a write to a tensor that outlives the call"] = "the same tensor in every call"
    return ends


def _unchanged(name: str, bound: dict[str, Any]) -> Tensor | None:
    """The operand that an operator returns as it is; None if it does something."""
    first = next(iter(bound.values()), None)
    if not isinstance(first, Tensor):
        return None
    if name in _IDENTITIES or (name in _DROPOUTS and (not bound.get("train") or bound.get("p") == 0)):
        return first
    return None


def _by_value(tensor: Tensor) -> tuple[str, tuple[int, ...], str, str]:
    """A tensor by its contents; on the meta device it has none."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype)
    if tensor.is_meta or tensor.layout is not torch.strided:
        return "constant", shape, dtype, tensor.device.type
    with torch.inference_mode(False), torch.no_grad():
        plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return "constant", shape, dtype, hashlib.sha256(data).hexdigest()


def _on_the_cpu(tree: Any) -> Any:
    """The same arguments with another device: constants are compared by value, wherever they lie."""
    return replaced(tree, torch.device, lambda device: device if device.type == "meta" else torch.device("cpu"))
