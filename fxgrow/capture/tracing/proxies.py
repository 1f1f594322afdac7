"""Proxies for tracing with torch.fx: they support item assignment, and buffers that are read when the graph runs."""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import CodeType
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.proxy import Attribute

from ...functional import numpy_number
from ..containers import leaves
from ..program.call_key import PLAIN
from ..recording.recorder import data_assigned
from ..traced_model.decisions import GRADIENTS, Decisions, Instruction, can_answer, cannot_be_short, instruction
from ..traced_model.questions import READS, asks_for_class, asks_for_hash, is_read, is_size, is_value, unpacked
from .error_tracker import ErrorTracker
from .numpy_functions import OPERATORS, is_array, name_of, plain_number
from .trace_options import TraceOptions
from .values import Unknown, Values


class ReadsValues(Exception):
    """Raised if `forward` reads the values of buffers as numbers or conditions, which only a real tensor can answer."""

    def __init__(self, buffers: frozenset[str]) -> None:
        super().__init__(f"forward reads the values of {', '.join(sorted(buffers))}")
        self.buffers = buffers


_NAMES = {
    "condition": "a condition",
    "length": "a length",
    "keys": "keys",
    "int": "int",
    "float": "float",
    "complex": "complex",
    "index": "a whole number",
    "key": "a key",
}
"""What a value is read as, by the question asked; used in error messages."""
_OF_PROXIES = ("tracer", "node", "data", "_real", "root", "attr", "_node")
"""Attributes of the proxy itself: assignments to them are not traced."""


_OF_CLASSES = frozenset({"__dataclass_fields__", "_fields"})
"""Attributes that dataclasses and named tuples share between all instances of a class."""


class Assignable(fx.Proxy):
    """A proxy that supports `x[:, 1:] = y`, `x += y` and `x.n = y`.

    fx can represent item assignment but does not trace it; it computes `x + y` for `x += y`, and sets the attribute of
    the proxy for `x.n = y`. With `TraceOptions.keep_in_place`, both become nodes.
    """

    _iterated: tuple[CodeType, int] | None = None
    """The last instruction that started a loop over this proxy."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})
        if isinstance(index, str):  # an entry of a dict
            entries = self._entries()
            for place in [place for place in entries if place[1] == index]:  # two nodes may read the same dict
                del entries[place]
            entries[self.node, index] = value

    def __delitem__(self, index: Any) -> None:
        self.tracer.create_proxy("call_function", operator.delitem, (self, index), {})

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        options: TraceOptions | None = None if name in _OF_PROXIES else getattr(self.tracer, "options", None)
        if options is not None:
            options.has_in_place = True
            if options.keep_in_place:
                self.tracer.create_proxy("call_function", setattr, (self, name, value), {})

    def __getitem__(self, index: Any) -> Any:
        entries = self._entries()
        if isinstance(index, str) and (self.node, index) in entries:
            return entries[self.node, index]
        return self._or_none(super().__getitem__(index))  # type: ignore[misc]  # set by fx

    def __getattr__(self, name: str) -> Any:
        if name in _OF_CLASSES:
            with suppress(Unknown, AttributeError):
                return getattr(type(self._value()), name)
        return Shape(self, name) if name == "shape" else self._or_none(Property(self, name))

    def keys(self) -> Any:
        """Return the keys of a dict; `f(**batch)` calls this too."""
        return dict.fromkeys(self._decided("keys")).keys() if self._is_decided("keys") else super().keys()

    def _or_none(self, read: Assignable) -> Any:
        """Return an entry of an input. If it is None in the example, return None, as code may test `if batch["mask"] is
        None`, and guard the graph against inputs that have a value there."""
        decisions: Decisions | None = getattr(self.tracer, "decisions", None)
        if decisions is None or not self._holds_entries():
            return read
        try:
            value = read._value()
        except Unknown:
            return read
        if value is not None:
            return read
        decisions.answer(read, "none", value)
        return None

    def _holds_entries(self) -> bool:
        """Whether this is an input, or was read from one, that is a list, a dict or an object."""
        values: Values | None = getattr(self.tracer, "values", None)
        proxy: Any = self
        while isinstance(proxy, Property):
            proxy = proxy.root
        node = proxy.node
        while node.op != "placeholder":
            if not is_read(node):
                return False
            node = node.args[0]
        return values is not None and not isinstance(values.given(node), (Tensor, *PLAIN))

    def _entries(self) -> dict[tuple[fx.Node, str], Any]:
        """Return the values that `forward` has written into dicts."""
        found: dict[tuple[fx.Node, str], Any] = getattr(self.tracer, "entries", {})
        return found

    @property
    def data(self) -> Any:
        """The same tensor without autograd history."""
        return self.tracer.create_proxy("call_function", getattr, (self, "data"), {})

    @data.setter
    def data(self, value: Any) -> None:
        if self.node.op != "get_attr":
            raise data_assigned()
        self.tracer.create_proxy("call_method", "copy_", (self.data, value), {})

    def __iadd__(self, other: Any) -> Any:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> Any:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> Any:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> Any:
        return self._in_place(operator.itruediv, other)

    def __ifloordiv__(self, other: Any) -> Any:
        return self._in_place(operator.ifloordiv, other)

    def __imod__(self, other: Any) -> Any:
        return self._in_place(operator.imod, other)

    def __ipow__(self, other: Any) -> Any:
        return self._in_place(operator.ipow, other)

    def __iand__(self, other: Any) -> Any:
        return self._in_place(operator.iand, other)

    def __ior__(self, other: Any) -> Any:
        return self._in_place(operator.ior, other)

    def __ixor__(self, other: Any) -> Any:
        return self._in_place(operator.ixor, other)

    def _in_place(self, function: Callable[[Any, Any], Any], other: Any) -> Any:
        """Create a node for an in-place operator, or return NotImplemented, for which Python calls the out-of-place
        one."""
        options: TraceOptions | None = getattr(self.tracer, "options", None)
        if options is None:
            return NotImplemented
        options.has_in_place = True
        if not options.keep_in_place:
            return NotImplemented
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __hash__(self) -> int:
        if asks_for_hash(sys._getframe(1)) and self._is_value():
            return hash(self._decided("key"))
        return object.__hash__(self)

    def _is_value(self) -> bool:
        """Whether this stands for a plain value that is compared by equality, and not for a tensor."""
        try:
            return not isinstance(self._value(), Tensor)
        except Unknown:
            return is_value(self.node)

    def _value(self) -> Any:
        """Return the value for the example inputs.

        Raises:
            Unknown: the value cannot be determined.
        """
        values: Values | None = getattr(self.tracer, "values", None)
        if values is None:
            raise Unknown
        found = values.of(self.node)
        if not isinstance(found, (Tensor, tuple, *PLAIN)):
            values.catch_up(self.node.graph)
        return found

    @property  # type: ignore[misc]  # nothing assigns to it
    def __class__(self) -> Any:
        """The class of the value, for `isinstance(x, torch.Tensor)` and `isinstance(x.shape[0], int)` in user code."""
        return self._python_class() if asks_for_class(sys._getframe(1)) else type(self)

    def _python_class(self) -> type:
        """Return the class that the value has when the graph runs."""
        try:
            value = self._value()
        except Unknown:
            return int if is_size(self.node) else type(self)
        return Tensor if isinstance(value, Tensor) else type(value)

    def __bool__(self) -> bool:
        answer: bool = self._decided("condition") if self._is_decided("condition") else super().__bool__()
        return answer

    def __len__(self) -> int:
        if not self._is_decided("length"):
            return super().__len__()
        caller = sys._getframe(1)
        if self._iterated == (caller.f_code, caller.f_lasti):  # `list(x)` also calls `len`, for a size hint
            return len(self._value())
        return self._decided("length")  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        caller = sys._getframe(1)
        entries = self._of_dict()
        if entries is not None:
            self.__dict__["_iterated"] = caller.f_code, caller.f_lasti
            return iter(entries)
        names = unpacked(caller)
        if names is not None:
            return iter([self[k] for k in range(names)])
        if not self._is_decided("length"):
            return self.tracer.iter(self)
        count = len(self._value())
        self.__dict__["_iterated"] = caller.f_code, caller.f_lasti
        if isinstance(self._value(), Mapping):
            return iter(self._decided("keys"))
        if not cannot_be_short(self.node, count):
            count = self._decided("length")
        parts = self.unbind(0) if isinstance(self._value(), Tensor) else self
        return iter([parts[k] for k in range(count)])

    def _of_dict(self) -> list[Any] | None:
        """Return the entries of `batch.items()` or `batch.values()`; None for anything else, or if the keys are
        unknown."""
        if self.node.op != "call_method" or self.node.target not in ("items", "values") or len(self.node.args) != 1:
            return None
        batch = self.tracer.proxy(self.node.args[0])  # type: ignore[arg-type]  # a node
        if not isinstance(batch, Assignable) or not batch._is_decided("keys"):
            return None
        entries = {key: batch[key] for key in batch._decided("keys")}
        return list(entries.items() if self.node.target == "items" else entries.values())

    def __int__(self) -> int:
        return self._decided("int")  # type: ignore[no-any-return]

    def __float__(self) -> float:
        return self._decided("float")  # type: ignore[no-any-return]

    def __complex__(self) -> complex:
        return self._decided("complex")  # type: ignore[no-any-return]

    def __index__(self) -> int:
        return self._decided("index", instruction(sys._getframe(1)))  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = None, kwargs: Any = None) -> Any:
        """Create a node for a torch function. If torch's argument parser has read an argument as an integer only to
        test for one, drop the guard for it."""
        given = [leaf for leaf in leaves((args or (), kwargs or {})) if isinstance(leaf, fx.Proxy)]
        decisions: Decisions | None = getattr(given[0].tracer, "decisions", None)
        if decisions is not None:
            decisions.passed_on([proxy.node for proxy in given], instruction(sys._getframe(1)))
        return super().__torch_function__(function, types, args, kwargs)

    def __round__(self, digits: int | None = None) -> Any:
        return self._numeric(round, *(() if digits is None else (digits,)))

    def __trunc__(self) -> Any:
        return self._numeric(math.trunc)

    def __floor__(self) -> Any:
        return self._numeric(math.floor)

    def __ceil__(self) -> Any:
        return self._numeric(math.ceil)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __array_ufunc__(self, function: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        """Create a node for a NumPy ufunc, as in `np.sqrt(x.shape[-1])` or `np.float64(2) * x`."""
        arithmetic = OPERATORS.get(name_of(function, method, kwargs))
        if arithmetic is not None and not kwargs and not any(map(is_array, args)):
            return arithmetic(*map(plain_number, args))
        return self._by_numpy(name_of(function, method, kwargs), args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Create a node for a NumPy function of several numbers, as in `np.prod(x.shape)`."""
        return self._by_numpy(name_of(function, "__call__", kwargs), args, kwargs)

    def _by_numpy(self, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Create a node for a NumPy function of plain numbers; refuse arrays."""
        given = [leaf for leaf in leaves((args, dict(kwargs))) if isinstance(leaf, Assignable)]
        if not name or not all(proxy._is_value() for proxy in given):
            raise self._value_read("an array of numbers")
        return self.tracer.create_proxy("call_function", numpy_number, (name, *args), dict(kwargs))

    def _numeric(self, function: Callable[..., Any], *args: Any) -> Any:
        """Create a node that applies a function of numbers to this value."""
        return self.tracer.create_proxy("call_function", function, (self, *args), {})

    def _is_decided(self, asked: str) -> bool:
        """Whether the example inputs answer a question about this value."""
        if getattr(self.tracer, "decisions", None) is None:
            return False
        try:
            return can_answer(asked, self._value())
        except Unknown:
            return False

    def _decided(self, asked: str, by: Instruction | None = None) -> Any:
        """Return the answer for the example inputs, and guard the graph against inputs with another answer.

        Raises:
            Exception: the example inputs do not determine the answer.
        """
        if not self._is_decided(asked):
            raise self._value_read(_NAMES[asked])
        decisions: Decisions = self.tracer.decisions  # type: ignore[attr-defined]  # there is one
        return decisions.answer(self, asked, self._value(), by=by)

    def _value_read(self, what: str) -> Exception:
        """Return the error to raise where code reads a traced value, and record it in the tracer."""
        buffers = buffers_behind(self.node)
        error: Exception = TypeError(f"a traced value cannot be read as {what}: it is known only when the model runs")
        if buffers:
            error = ReadsValues(buffers)
        if isinstance(self.tracer, ErrorTracker):
            self.tracer.note_error(error)
        return error


class Property(Attribute, Assignable):
    """A proxy for an attribute of a value: its shape, its dtype, a method. It supports assignment too: `batch.inner.y =
    y`, `batch.layers += [y]`."""

    def _value(self) -> Any:
        """Return the value of the attribute for the example inputs, without creating a node."""
        values: Values | None = getattr(self.tracer, "values", None)
        if values is None:
            raise Unknown
        if self.attr in GRADIENTS:
            raise Unknown
        owner = values.of(self.root.node)
        if not isinstance(owner, (Tensor, tuple, *PLAIN)):
            values.catch_up(self.root.node.graph)
        try:
            return getattr(owner, self.attr)
        except AttributeError:
            raise Unknown from None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Create a node for a method call. An entry of an input that is None in the example is returned as None."""
        called = super().__call__(*args, **kwargs)
        return self.root._or_none(called) if self.attr in READS else called

    def _python_class(self) -> type:
        """Return the class of the attribute, which is known for some attributes without an example."""
        known = {"ndim": int, "dtype": torch.dtype, "shape": torch.Size}.get(self.attr)
        return super()._python_class() if known is None else known


class Sizes(Assignable):
    """A proxy for all sizes of a tensor: `x.size()`."""


class Shape(Property, Sizes):
    """A proxy for all sizes of a tensor: `x.shape`."""


Sequence.register(Sizes)  # otherwise `match x.shape: case [n, c]` silently does not match


class BufferProxy(Assignable):
    """A proxy for a buffer. Its shape is known while the model is traced; its values are read when the graph runs."""

    def __init__(self, node: fx.Node, tracer: fx.Tracer, tensor: Tensor) -> None:
        super().__init__(node, tracer)
        self._real = tensor

    @property
    def shape(self) -> torch.Size:
        """The shape of the buffer."""
        return self._real.shape

    @property
    def ndim(self) -> int:
        """The number of dimensions of the buffer."""
        return self._real.ndim

    @property
    def dtype(self) -> Any:
        """The dtype of the buffer when the graph runs, as a cast may change it; its current dtype if the tracer does
        not follow dtypes."""
        options: TraceOptions | None = getattr(self.tracer, "options", None)
        if options is not None:
            options.reads_dtypes = True
        followed = isinstance(self.tracer, ErrorTracker) and self.tracer.follows_dtypes
        return Property(self, "dtype") if followed else self._real.dtype

    @property
    def device(self) -> torch.device:
        """The device of the buffer."""
        return self._real.device

    @property
    def is_cuda(self) -> bool:
        """Whether the buffer is on a CUDA device."""
        return self._real.is_cuda

    @property
    def requires_grad(self) -> bool:
        """Whether the buffer requires gradients."""
        return self._real.requires_grad

    def size(self, dim: int | None = None) -> Any:
        """Return the size of the buffer, or its size along one dimension."""
        return self._real.size() if dim is None else self._real.size(dim)

    def dim(self) -> int:
        """Return the number of dimensions of the buffer."""
        return self._real.dim()

    def numel(self) -> int:
        """Return the number of elements of the buffer."""
        return self._real.numel()

    def nelement(self) -> int:
        """Return the number of elements of the buffer, as `numel` does."""
        return self._real.numel()

    def is_floating_point(self) -> bool:
        """Return whether the dtype of the buffer is a floating-point dtype."""
        return self._real.is_floating_point()

    def is_complex(self) -> bool:
        """Return whether the dtype of the buffer is a complex dtype."""
        return self._real.is_complex()

    def get_device(self) -> int:
        """Return the device index of the buffer."""
        return self._real.get_device()

    def element_size(self) -> int:
        """Return the size of one element in bytes."""
        return self._real.element_size()

    def item(self) -> Any:
        """Raise `ReadsValues`, as the trace has to fix the value of the buffer."""
        raise self._value_read("a number")

    def tolist(self) -> Any:
        """Raise `ReadsValues`, as the trace has to fix the values of the buffer."""
        raise self._value_read("numbers")

    def __len__(self) -> int:
        return len(self._real)

    def __iter__(self) -> Iterator[Any]:
        found = ((operator.getitem, (self, k)) for k in range(len(self._real)))
        return (self.tracer.create_proxy("call_function", target, args, {}) for target, args in found)


def buffers_behind(node: fx.Node) -> frozenset[str]:
    """Return the names of the buffers that a value is computed from; empty if it also depends on an input, a module or
    a parameter."""
    found: set[str] = set()
    queue, seen = [node], {node}
    while queue:
        current = queue.pop()
        if current.op == "get_attr" and current.meta.get("fxgrow_buffer"):
            found.add(str(current.target))
        elif current.op in ("call_function", "call_method") and current.all_input_nodes:
            new = [n for n in current.all_input_nodes if n not in seen]
            seen.update(new)
            queue += new
        else:
            return frozenset()
    return frozenset(found)
