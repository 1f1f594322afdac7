"""What `forward` decides by the example inputs while it is traced: conditions, loops, lengths and whole numbers.

torch.fx knows no sizes, so it cannot answer `if x.shape[-2] < 8`, `for part in x.unbind(1)` or `int(x.shape[1])`. The
example inputs answer. The graph then stands for such inputs only, and a node in it (`fxgrow.functional.decided`) raises
an error for others. Answers that are the same for all inputs need no such node.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, MappingView
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx

from ...functional import QUESTIONS, decided
from ..source_lines import user_code_line

_PLAIN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size)
GRADIENTS = frozenset({"requires_grad", "grad", "grad_fn", "is_leaf", "_version", "data_ptr"})
"""Attributes that fake tensors have otherwise than those of a call."""
_RANKS = frozenset({"dim", "ndimension"})
_AS_ARGUMENTS = frozenset({"view", "reshape", "permute", "expand"})
"""Methods whose arguments are one for each axis of the result."""
_PINS = frozenset({"int", "index", "float", "complex", "key"})


Instruction = tuple[int, int]
"""Of code that runs: the identity of its frame, and the place in its code."""


def instruction(frame: FrameType) -> Instruction:
    """What a frame is running."""
    return id(frame), frame.f_lasti


def is_plain(value: object) -> bool:
    """Whether a value is the same in each call with such inputs: a size, a flag, a dtype, or several of them."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, _PLAIN)


def knows_gradients(node: fx.Node) -> bool:
    """Whether a node reads something that has to do with gradients."""
    return node.op == "call_function" and node.target is getattr and node.args[1] in GRADIENTS


def can_answer(asked: str, value: object) -> bool:
    """Whether a question about a value is answered by sizes and other plain things alone."""
    if asked == "length" and isinstance(value, Tensor):
        return value.dim() > 0
    if asked == "length" or (asked == "condition" and isinstance(value, list | tuple | Mapping)):
        return isinstance(value, list | tuple | Mapping | MappingView)
    return isinstance(value, Mapping) and is_plain(tuple(value)) if asked == "keys" else is_plain(value)


def is_fixed(asked: str, node: fx.Node, value: object) -> bool:
    """Whether no input can have another answer without an error of its own."""
    if asked == "length" and isinstance(value, tuple) and type(value) not in (tuple, torch.Size):
        return True  # what torch returns under names: (values, indices)
    if asked == "length" and isinstance(value, torch.Size):
        return _has_fixed_rank(_tensor_of(node))
    if asked == "length" and _called(node) in ("split", "split_with_sizes"):
        return isinstance(_second_argument(node), list | tuple)
    return asked != "length" and _is_fixed_value(node)


def cannot_be_short(node: fx.Node, count: int) -> bool:
    """Whether so many parts are read one by one, so that an input with fewer raises an error, and none has more."""
    return _called(node) == "chunk" and _second_argument(node) == count


def _is_fixed_value(node: fx.Node) -> bool:
    """Whether a value is computed from numbers of axes that are written in the code."""
    if node.op == "call_method" and node.target in _RANKS:
        return _has_fixed_rank(node.args[0])
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return str(node.args[1]) == "ndim" and _has_fixed_rank(node.args[0])
    from_operator = getattr(node.target, "__module__", "") == "_operator"
    sources = node.all_input_nodes
    return bool(from_operator and sources and all(map(_is_fixed_value, sources)))


def _tensor_of(shape: fx.Node) -> object:
    """The tensor whose shape a node is; None if it is a part of one, or computed."""
    is_shape = (shape.op == "call_function" and shape.target is getattr and shape.args[1] == "shape") or (
        shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1
    )
    return shape.args[0] if is_shape else None


def _has_fixed_rank(node: object) -> bool:
    """Whether the code says how many axes a tensor has."""
    if not isinstance(node, fx.Node) or node.op != "call_method" or node.target not in _AS_ARGUMENTS:
        return False
    sizes = node.args[1:]
    if len(sizes) == 1:
        return isinstance(sizes[0], list | tuple)
    return len(sizes) > 1


def _called(node: fx.Node) -> str:
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _second_argument(node: fx.Node) -> object:
    """The number of parts, or their sizes."""
    names = ("chunks", "split_size", "split_sizes", "split_size_or_sections")
    return node.args[1] if len(node.args) > 1 else next((node.kwargs[n] for n in names if n in node.kwargs), None)


class Decisions:
    """The decisions of one trace, each guarded once."""

    def __init__(self, tracer: fx.Tracer) -> None:
        self._tracer = tracer
        self._made: dict[tuple[fx.Node, str], Any] = {}
        self._tested: tuple[Instruction, dict[fx.Node, fx.Node]] | None = None
        """The last instruction that has asked for whole numbers, and the guards that were made for it, by what was
        asked."""

    def answer(
        self, proxy: fx.Proxy, asked: str, value: Any, *, guarded: bool = True, by: Instruction | None = None
    ) -> Any:
        """The answer for the example inputs; the graph is guarded against others.

        Args:
            proxy: what is asked.
            asked: a key of `fxgrow.functional.QUESTIONS`.
            value: what it stands for, for the example inputs.
            guarded: whether the graph needs a guard, unless the answer is the same for all inputs.
            by: the instruction that asks, if it may do so to test for a number only (see `passed_on`).
        """
        key = proxy.node, asked
        answer = QUESTIONS[asked](value)
        if key not in self._made or self._made[key] != answer:  # `forward` may have written to a list or a dict
            if guarded and not is_fixed(asked, proxy.node, value):
                guard = self._tracer.create_proxy(
                    "call_function", decided, (proxy, asked, answer, user_code_line(sys._getframe(1))), {}
                )
                if by is not None:
                    if self._tested is None or self._tested[0] != by:
                        self._tested = by, {}
                    self._tested[1][proxy.node] = guard.node
            self._made[key] = answer
        return self._made[key]

    def passed_on(self, given: Iterable[fx.Node], by: Instruction) -> None:
        """What an instruction has asked for, it gives to a function of torch's that becomes a node: torch's parser of
        arguments has only tested whether they are numbers, and nothing is decided."""
        if self._tested is None or self._tested[0] != by:
            return
        for node in given:
            guard = self._tested[1].pop(node, None)
            if guard is not None:
                guard.graph.erase_node(guard)
                del self._made[node, "index"]


def guards(graph: fx.Graph) -> Iterator[fx.Node]:
    """The nodes that hold a graph to the decisions of its example inputs."""
    return (node for node in graph.nodes if node.op == "call_function" and node.target is decided)


def pins(graph: fx.Graph) -> int:
    """How many numbers of the example inputs a graph holds as they are."""
    return sum(node.args[1] in _PINS for node in guards(graph))


def sentences(graph: fx.Graph) -> tuple[str, ...]:
    """What a graph holds to, for reports: a sentence for each line that has decided something."""
    answers: dict[str, list[str]] = {}
    for node in guards(graph):
        _, asked, answer, place = node.args
        if asked == "axes":
            continue
        text = "the same in each mode" if isinstance(answer, fx.Node) else repr(answer)
        text = text if asked != "none" else "None" if answer else "not None"
        known = answers.setdefault(str(place), [])
        if text not in known:
            known.append(text)
    axes = dict.fromkeys(str(node.args[3]) for node in guards(graph) if node.args[1] == "axes")
    return (
        *(
            f"decided by the example inputs, and guarded: {place or 'a question of forward'} ({', '.join(some)})"
            for place, some in answers.items()
        ),
        *(f"decided by a growth, and guarded: inputs for which {place} raise an error" for place in axes),
    )
