"""Decisions that `forward` makes from the example inputs while it is traced: conditions, loops, lengths, integers.

torch.fx does not know sizes, so it cannot answer `if x.shape[-2] < 8`, `for part in x.unbind(1)` or `int(x.shape[1])`.
The example inputs give the answer. The graph is then valid for such inputs only, and a guard node in it
(`fxgrow.functional.decided`) raises an error for others. Answers that are the same for all inputs need no guard.
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
"""Attributes that differ between fake tensors and the tensors of a real call."""
_RANKS = frozenset({"dim", "ndimension"})
_AS_ARGUMENTS = frozenset({"view", "reshape", "permute", "expand"})
"""Methods that take one argument for each dimension of the result."""
_PINS = frozenset({"int", "index", "float", "complex", "key"})


Instruction = tuple[int, int]
"""An instruction that is being executed: the id of its frame, and its offset in the bytecode."""


def instruction(frame: FrameType) -> Instruction:
    """Return the instruction that a frame is executing."""
    return id(frame), frame.f_lasti


def is_plain(value: object) -> bool:
    """Whether a value is a size, a flag, a dtype or the like, or several of them: the same in each call with such
    inputs."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, _PLAIN)


def knows_gradients(node: fx.Node) -> bool:
    """Whether a node reads an attribute that has to do with gradients."""
    return node.op == "call_function" and node.target is getattr and node.args[1] in GRADIENTS


def can_answer(asked: str, value: object) -> bool:
    """Whether a question about a value can be answered without the values of tensors."""
    if asked == "length" and isinstance(value, Tensor):
        return value.dim() > 0
    if asked == "length" or (asked == "condition" and isinstance(value, list | tuple | Mapping)):
        return isinstance(value, list | tuple | Mapping | MappingView)
    return isinstance(value, Mapping) and is_plain(tuple(value)) if asked == "keys" else is_plain(value)


def is_fixed(asked: str, node: fx.Node, value: object) -> bool:
    """Whether the answer is the same for all inputs, except those that raise an error of their own."""
    if asked == "length" and isinstance(value, tuple) and type(value) not in (tuple, torch.Size):
        return True  # a named tuple of torch, such as (values, indices)
    if asked == "length" and isinstance(value, torch.Size):
        return _has_fixed_rank(_tensor_of(node))
    if asked == "length" and _called(node) in ("split", "split_with_sizes"):
        return isinstance(_second_argument(node), list | tuple)
    return asked != "length" and _is_fixed_value(node)


def cannot_be_short(node: fx.Node, count: int) -> bool:
    """Whether a node is a `chunk` into exactly `count` parts. The parts are read one by one, so an input that gives
    fewer raises an error; none gives more."""
    return _called(node) == "chunk" and _second_argument(node) == count


def _is_fixed_value(node: fx.Node) -> bool:
    """Whether a value is computed from numbers of dimensions that the code fixes."""
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
    """Return the tensor whose whole shape a node is; None for other nodes."""
    is_shape = (shape.op == "call_function" and shape.target is getattr and shape.args[1] == "shape") or (
        shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1
    )
    return shape.args[0] if is_shape else None


def _has_fixed_rank(node: object) -> bool:
    """Whether the code fixes the number of dimensions of a tensor."""
    if not isinstance(node, fx.Node) or node.op != "call_method" or node.target not in _AS_ARGUMENTS:
        return False
    sizes = node.args[1:]
    if len(sizes) == 1:
        return isinstance(sizes[0], list | tuple)
    return len(sizes) > 1


def _called(node: fx.Node) -> str:
    """Return the name of the method or function that a node calls; empty for other nodes."""
    if node.op == "call_method":
        return str(node.target)
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _second_argument(node: fx.Node) -> object:
    """Return the number of parts, or their sizes, that a split is given."""
    names = ("chunks", "split_size", "split_sizes", "split_size_or_sections")
    return node.args[1] if len(node.args) > 1 else next((node.kwargs[n] for n in names if n in node.kwargs), None)


class Decisions:
    """The decisions of one trace, each with one guard at most."""

    def __init__(self, tracer: fx.Tracer) -> None:
        self._tracer = tracer
        self._made: dict[tuple[fx.Node, str], Any] = {}
        self._tested: tuple[Instruction, dict[fx.Node, fx.Node]] | None = None
        """The last instruction that asked for integers, and the guards created for it, by the node that was asked."""

    def answer(
        self, proxy: fx.Proxy, asked: str, value: Any, *, guarded: bool = True, by: Instruction | None = None
    ) -> Any:
        """Return the answer for the example inputs, and guard the graph against inputs with another answer.

        Args:
            proxy: the proxy that the question is about.
            asked: a key of `fxgrow.functional.QUESTIONS`.
            value: the value of the proxy for the example inputs.
            guarded: whether to add a guard, unless the answer is the same for all inputs.
            by: the instruction that asks, if it may only test for a number (see `passed_on`).
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
        """Remove the guards of an instruction that passes the values on to a torch function, which becomes a node.

        torch's argument parser has then only tested whether they are integers, so nothing is decided.
        """
        if self._tested is None or self._tested[0] != by:
            return
        for node in given:
            guard = self._tested[1].pop(node, None)
            if guard is not None:
                guard.graph.erase_node(guard)
                del self._made[node, "index"]


def guards(graph: fx.Graph) -> Iterator[fx.Node]:
    """Return the guard nodes of a graph, which raise an error for inputs that would be decided differently."""
    return (node for node in graph.nodes if node.op == "call_function" and node.target is decided)


def pins(graph: fx.Graph) -> int:
    """Return how many numbers of the example inputs are constants in a graph."""
    return sum(node.args[1] in _PINS for node in guards(graph))


def sentences(graph: fx.Graph) -> tuple[str, ...]:
    """Return what a graph is guarded for, for reports: one sentence for each line that has decided something."""
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
