"""The program: what every fx node does, as ATen operators over named values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch


class Origin(Enum):
    """Where a value comes from."""

    INPUT = "graph input"
    PARAMETER = "parameter"
    CONSTANT = "constant"
    COMPUTED = "computed"


class Value:
    """One tensor that the program handles; an in-place operator makes a new value. Compared by identity."""

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
    """One operator call. `name` is the schema name without a trailing underscore, e.g. "aten::relu"."""

    name: str
    args: Args
    outputs: tuple[Value, ...]
    node: str
    step: int = -1
    """Its place among the operators of its node, unused ones counted."""
    overload: str = ""
    mutates: bool = False
    seeded: bool = False
    draws: tuple[bool, bool] = (False, False)
    """Whether it draws random numbers for every unit, as dropout does: in evaluation mode, and in training mode."""
    varies: bool = False
    """Whether a number among its arguments was read from a buffer, and so is another one in the next call."""
    repeats: Op | None = None
    """The operator that took a view which is taken anew here, because its base was written to."""
    varying: frozenset[tuple[str, int]] = frozenset()
    """Arguments that are plain inputs of the model, or computed from them: (name, number in a list or -1)."""

    def inputs(self) -> Iterator[Value]:
        """Every tensor argument, in schema order, lists opened."""
        for arg in self.args.values():
            yield from tensors(arg)


def tensors(arg: object) -> Iterator[Value]:
    """The values inside one argument."""
    if isinstance(arg, Value):
        yield arg
    elif isinstance(arg, list | tuple):
        for item in arg:
            if isinstance(item, Value):
                yield item


AFTER_WRITE = -2
"""The step of an operator that no node runs: it says what a write into one tensor means for another."""
STORED = "fxgrow::stored"
"""An operator that no node runs, and that returns nothing: a parameter or buffer was written to, and what it holds at
the end of the call (`after`) is what the next call reads in place of `before`. `lost` says why nothing is known of
`after`; it is empty if it is known. Its step is AFTER_WRITE."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """How a tensor came to share the storage of another: it is result `number` of `op`, `argument` is the base."""

    base: Ref
    op: Op
    argument: str
    number: int


class Ref:
    """A tensor object while the program runs: which value it holds now, in which storage it lies, and what it is a view
    of. `lasting`: it outlives the call. `known`: the real tensor whose value it holds, if code may read that value as a
    number (see `fakes.has_known_value`) and nothing was written to it."""

    __slots__ = ("known", "lasting", "storage", "value", "view")

    def __init__(self, value: Value, storage: int, *, lasting: bool = False) -> None:
        self.value = value
        self.storage = storage
        self.lasting = lasting
        self.known: torch.Tensor | None = None
        self.view: View | None = None


@dataclass(frozen=True, slots=True)
class NodeCall:
    """How a node was lowered: the template of its call, and the arguments of the call, tensors as `Ref`s."""

    template: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(slots=True)
class Program:
    """An fx graph and its lowering. Nodes are known by name, so a program outlives the graph it was read from."""

    values: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    node_ops: dict[str, list[Op]] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    """What each node returned, when it returned: a tree of values and plain numbers."""
    calls: dict[str, NodeCall] = field(default_factory=dict)
    """What each node that calls something ran, unused operators counted."""
    order: tuple[str, ...] = ()
    training: bool = False
    """The mode that the model was in when it was lowered."""
    inputs: tuple[Value, ...] = ()
    outputs: tuple[Value, ...] = ()
    """What is returned, and then what is left in containers among the inputs."""
    left: tuple[Value, ...] = ()
    """The latter alone: tensors that `forward` writes into lists, dicts and dataclasses that it is given."""
    rewritten: dict[tuple[str, str], Any] = field(default_factory=dict)
    """By the names of a node and of one that it reads, the containers that are read, where they were written to after
    they were made: as they are then."""
    parameters: dict[str, Value] = field(default_factory=dict)
    """Every name (tied names share a value) of each parameter or buffer that the graph reads."""
    buffers: set[int] = field(default_factory=set)
    """Indices of the values among them that are buffers: no gradient is asked for."""
    varying: set[str] = field(default_factory=set)
    """Nodes whose results hold plain inputs of the model (numbers, flags, texts), or what is computed from them."""
    measured: set[int] = field(default_factory=set)
    """Indices of the values whose shape may depend on such an input."""
    unread: tuple[Op, ...] = ()
    """Operators whose results nobody reads, which are not among the others, but for layers: these are."""
    written: frozenset[str] = frozenset()
    """Nodes among theirs of which all numbers are written in the model's code, none computed."""
    picked: list[Value] = field(default_factory=list)
    """Values of which such an input says which one is read."""
    hooks: Any = None
    """What the forward hooks of the model itself did; None if it has none."""
    read_by_hooks: tuple[Value, ...] = ()
    """Parameters and buffers that these hooks compute with."""
    _makers: tuple[int, dict[int, Op]] = field(default=(0, {}), init=False, repr=False, compare=False)

    def makers(self) -> Mapping[int, Op]:
        """By the index of a value, the operator that makes it."""
        count, found = self._makers
        if count != len(self.ops):
            found = {out.index: op for op in self.ops for out in op.outputs}
            self._makers = len(self.ops), found
        return found

    def position(self) -> dict[str, int]:
        """Place of each node in execution order."""
        return {name: i for i, name in enumerate(self.order)}
