"""The program: the ATen operators that each fx node runs, over named values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch


class Origin(Enum):
    """The origin of a value: an input, a parameter or buffer, a constant tensor, or an operator."""

    INPUT = "graph input"
    PARAMETER = "parameter"
    CONSTANT = "constant"
    COMPUTED = "computed"


class Value:
    """A tensor value of the program. An in-place operator creates a new value. Values are compared by identity."""

    __slots__ = ("device", "dtype", "index", "names", "node", "origin", "shape", "stride")

    def __init__(
        self,
        index: int,
        shape: tuple[int, ...],
        stride: tuple[int, ...],
        dtype: torch.dtype,
        device: torch.device,
        origin: Origin,
        node: str = "",
        names: tuple[str, ...] = (),
    ) -> None:
        self.index = index
        self.shape = shape
        self.stride = stride
        self.dtype = dtype
        self.device = device
        self.origin = origin
        self.node = node
        self.names = names

    def __repr__(self) -> str:
        return f"%{self.index}:{'x'.join(map(str, self.shape))}"


Args = Mapping[str, Any]
"""An operator's arguments by schema name, defaults filled in; tensors are `Value`s."""


@dataclass(slots=True, eq=False)
class Op:
    """An operator call. `name` is the schema name without a trailing underscore, such as "aten::relu"."""

    name: str
    args: Args
    outputs: tuple[Value, ...]
    node: str
    step: int = -1
    """The index among the operators of its node, unused ones included."""
    overload: str = ""
    mutates: bool = False
    seeded: bool = False
    draws: tuple[bool, bool] = (False, False)
    """Whether it draws random numbers for every unit, as dropout does: in evaluation mode, and in training mode."""
    varies: bool = False
    """Whether a numeric argument was read from a buffer, so that it may differ in the next call."""
    repeats: Op | None = None
    """The view operator that this one repeats because the base of the view was written to."""
    varying: frozenset[tuple[str, int]] = frozenset()
    """Arguments that are plain inputs of the model, or computed from them: (name, index in a list or -1)."""

    def inputs(self) -> Iterator[Value]:
        """Iterate over the tensor arguments in schema order, including those in lists."""
        for arg in self.args.values():
            yield from tensors(arg)


def tensors(arg: object) -> Iterator[Value]:
    """Iterate over the values in one argument: the argument itself, or the items of a list."""
    if isinstance(arg, Value):
        yield arg
    elif isinstance(arg, list | tuple):
        for item in arg:
            if isinstance(item, Value):
                yield item


AFTER_WRITE = -2
"""The `step` of an operator that no node runs, but that expresses how an in-place write changes other tensors."""
STORED = "fxgrow::stored"
"""An operator without results that no node runs. It records that a parameter or buffer was written to: the next call
reads `after` instead of `before`. `lost` is the reason if the value of `after` is not known, else empty. Its step is
AFTER_WRITE."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Describes a view: it is result `number` of `op`, whose argument named `argument` is the base."""

    base: Ref
    op: Op
    argument: str
    number: int


class Ref:
    """A tensor object during lowering: its current value, its storage and, for a view, how it was created.

    `lasting`: whether it outlives the call. `known`: the real tensor that it represents, if code may read its value as
    a number (see `fake_tensors.has_known_value`) and it was not written to; else None.
    """

    __slots__ = ("known", "lasting", "storage", "value", "view")

    def __init__(self, value: Value, storage: int, *, lasting: bool = False) -> None:
        self.value = value
        self.storage = storage
        self.lasting = lasting
        self.known: torch.Tensor | None = None
        self.view: View | None = None


@dataclass(frozen=True, slots=True)
class NodeCall:
    """The template of a node's call, and the arguments of the call, with `Ref`s for tensors."""

    template: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Program:
    """An fx graph lowered to ATen operators. It refers to nodes by name, so it does not keep the graph alive."""

    values: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    node_ops: dict[str, list[Op]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    """The result of each node at the time it ran: a tree of values and plain numbers."""
    calls: dict[str, NodeCall] = field(default_factory=dict)
    """The call of each call node, unused operators included."""
    order: tuple[str, ...] = ()
    training: bool = False
    """The training mode of the model when it was lowered."""
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    """The tensors that `forward` returns, followed by those in `left`."""
    left: tuple[Value, ...] = ()
    """Tensors that `forward` writes into lists, dicts and dataclasses among its inputs."""
    rewritten: dict[tuple[str, str], Any] = field(default_factory=dict)
    """Maps (consumer node, producer node) to the state of the producer's container when the consumer reads it, if the
    container was written to after it was created."""
    parameters: dict[str, Value] = field(default_factory=dict)
    """Maps each name of a parameter or buffer that the graph reads to its value; tied names share a value."""
    buffers: set[int] = field(default_factory=set)
    """Indices of the values in `parameters` that are buffers, and so have no gradient."""
    varying: set[str] = field(default_factory=set)
    """Nodes whose results contain plain inputs of the model (numbers, flags, strings) or values computed from them."""
    measured: set[int] = field(default_factory=set)
    """Indices of the values whose shape may depend on a plain input."""
    unread: tuple[Op, ...] = ()
    """Operators whose results are not used. They are removed from `ops`, except for layers (operators with weights)."""
    written: frozenset[str] = frozenset()
    """Nodes of unread operators whose inputs from other nodes are all tensors, so that their numbers are constants."""
    picked: list[Value] = field(default_factory=list)
    """Values that are selected by a plain input."""
    hooks: Any = None
    """The recorded forward hooks of the model itself (`RootHooks`); None if it has none."""
    read_by_hooks: tuple[Value, ...] = ()
    """Parameters and buffers that these hooks use in a computation or return."""
    _makers: tuple[int, dict[int, Op]] = field(default=(0, {}), init=False, repr=False, compare=False)

    def makers(self) -> Mapping[int, Op]:
        """Return a map from the index of a value to the operator that produces it."""
        count, found = self._makers
        if count != len(self.ops):
            found = {out.index: op for op in self.ops for out in op.outputs}
            self._makers = len(self.ops), found
        return found

    def position(self) -> dict[str, int]:
        """Return a map from the name of each node to its index in execution order."""
        return {name: i for i, name in enumerate(self.order)}
