"""Trace into user functions that a trace keeps whole: one node becomes the nodes of the function's code.

This works only for code that does the same for all inputs: the trace fails if the code branches on a size or a value.
The caller checks that the nodes run what the function runs (`planning/whole_functions.py`).
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from types import FunctionType
from typing import Any

import torch
from torch import fx, nn

from ...global_state import settings_kept
from ..locks import ONE_AT_A_TIME
from ..tracing.reasons import in_plain_words
from ..tracing.trace_options import TraceOptions
from ..tracing.tracer import GrowthTracer
from ..user_objects.code_traits import looks_at_mode
from ..user_objects.random_streams import streams_kept
from ..user_objects.undo_writes import WritesUndone
from ..user_objects.user_code import is_user_code
from ..user_objects.user_state import no_other_threads, nothing_left_behind
from ..user_objects.warnings import silent


class Closed(ValueError):
    """Raised if a call cannot be decomposed; the message is the reason."""


def is_whole_function(node: fx.Node) -> bool:
    """Whether a node calls a Python function of the user or of a library of models."""
    return node.op == "call_function" and isinstance(node.target, FunctionType) and is_user_code(node.target)


class _Called(nn.Module):
    """A module that makes the call of a node; its inputs are the values that the node reads."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        self.function: Any = node.target
        self.arguments = node.args, node.kwargs
        self.reads = list(node.all_input_nodes)

    def forward(self, *given: Any) -> Any:
        """Call the function. `given` holds the values that the node reads."""
        known = {node: given[k] for k, node in enumerate(self.reads)}
        args, kwargs = fx.map_arg(self.arguments, known.__getitem__)
        return self.function(*args, **kwargs)


def body_of(node: fx.Node) -> fx.Graph:
    """Return the graph of a function's code, for one call. Its only placeholder holds all values that the call reads.

    Raises:
        Closed: the code cannot be traced, or its trace would do something else.
    """
    try:
        graph = _traced(node)
    except (Closed, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the user's code runs on proxies here and may raise anything
        raise Closed(in_plain_words(error)) from error
    if any(inner.op in ("get_attr", "call_module") for inner in graph.nodes):
        raise Closed("it reads a tensor or calls a module that is not among its arguments")
    if not isinstance(_returned(graph), fx.Node) and not _is_row(_returned(graph)):
        raise Closed("it returns something else than a tensor or a tuple of tensors")
    return graph


def _traced(node: fx.Node) -> fx.Graph:
    """Trace the code of the function that a node calls."""
    called = _Called(node)
    with ONE_AT_A_TIME, nothing_left_behind(node.target) as reach:
        if reach.traits.sees_stand_ins or reach.traits.looks_at_gradients or reach.traits.assigns_data:
            raise Closed("its code looks at the class or the gradients of a tensor, handles errors, or assigns to data")
        if looks_at_mode(called):
            raise Closed("its code reads the mode of a module that it is not given")
        tracer = GrowthTracer(options=TraceOptions(keep_in_place=True, trace_factories=True))
        tracer._autowrap_search += [sys.modules[m] for m in {node.target.__module__} if m in sys.modules]
        streams = streams_kept(reach.generators, devices=True)
        with silent(), WritesUndone(), settings_kept(no_other_threads), streams as kept:
            graph = tracer.trace(called)
            if kept.drawn():
                raise Closed("it draws random numbers from a generator of Python or NumPy")
    if tracer.noted_error is not None:
        raise tracer.noted_error  # the code caught it and may have taken another path
    return graph


def pair(node: fx.Node) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return a model that makes only the call of a node, and one with the nodes of the function's code in its place.

    Both take the values that the call reads, in the order of `Node.all_input_nodes`.

    Raises:
        Closed: see `body_of`.
    """
    models = []
    for opened in (False, True):
        graph = fx.Graph()
        known = {read: graph.placeholder(read.name) for read in node.all_input_nodes}
        call = graph.node_copy(node, known.__getitem__)
        graph.output(call)
        if opened:
            with graph.inserting_before(call):
                write_out(graph, call)
        models.append(fx.GraphModule(nn.Module(), graph))
    return models[0], models[1]


def read_by(node: fx.Node, args: Any, kwargs: Any) -> list[Any]:
    """Return the values that one call of a node has read, in the order of `Node.all_input_nodes`, from its
    arguments."""
    known = dict(_pairs((node.args, node.kwargs), (args, kwargs)))
    return [known[read] for read in node.all_input_nodes]


def write_out(graph: fx.Graph, node: fx.Node) -> None:
    """Replace a function call by the nodes of the function's code, at the current insertion point of the graph.

    Raises:
        Closed: see `body_of`.
    """
    body, reads = body_of(node), list(node.all_input_nodes)
    env: dict[fx.Node, fx.Node] = {}
    for inner in body.nodes:
        if _is_read(inner):
            env[inner] = reads[inner.args[1]]
        elif inner.op not in ("placeholder", "output"):
            args, kwargs = fx.map_arg((inner.args, inner.kwargs), env.__getitem__)
            made = env[inner] = graph.create_node(
                inner.op, inner.target, args, kwargs, name=f"{node.name}_{inner.name}"
            )
            made.meta = {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
            made.meta |= {k: v for k, v in inner.meta.items() if k in ("is_wrapped", "stack_trace")}
    result: Any = fx.map_arg(_returned(body), env.__getitem__)
    for user in list(node.users):
        part = _part(user, result)
        for reader, old in [(user, node)] if part is None else [(reader, user) for reader in user.users]:
            new = result if part is None else part
            put = lambda n, old=old, new=new: new if n is old else n  # noqa: E731  # bound early
            reader.args, reader.kwargs = fx.map_arg((reader.args, reader.kwargs), put)
        if part is not None:
            graph.erase_node(user)
    graph.erase_node(node)
    if isinstance(result, fx.Node) and result not in reads:
        result.name = node.name  # the name that the user knows
        graph._graph_namespace._rename_object(result, node.name)


def _is_read(inner: fx.Node) -> bool:
    """Whether a node of a function's code stands for a value that the call reads."""
    source = inner.args[0] if inner.target is operator.getitem else None
    return isinstance(source, fx.Node) and source.op == "placeholder"


def _returned(body: fx.Graph) -> Any:
    """Return what the output node of a function's graph holds."""
    return next(inner for inner in reversed(body.nodes) if inner.op == "output").args[0]


def _is_row(returned: Any) -> bool:
    """Whether a function returns a tuple of nodes."""
    return type(returned) is tuple and all(isinstance(part, fx.Node) for part in returned)


def _part(user: fx.Node, result: Any) -> fx.Node | None:
    """Return the result that a node takes of several; None if it takes them in another way, or there is only one."""
    number = user.args[1] if user.op == "call_function" and user.target is operator.getitem else None
    if isinstance(result, fx.Node) or type(number) is not int or not -len(result) <= number < len(result):
        return None
    part: fx.Node = result[number]
    return part


def _pairs(argument: Any, value: Any) -> Iterator[tuple[fx.Node, Any]]:
    """Yield the nodes among nested arguments, each with the value at the same position in other arguments."""
    if isinstance(argument, fx.Node):
        yield argument, value
    elif isinstance(argument, list | tuple):
        for one, other in zip(argument, value, strict=True):
            yield from _pairs(one, other)
    elif isinstance(argument, dict):
        for key, one in argument.items():
            yield from _pairs(one, value[key])
    elif isinstance(argument, slice):
        for name in ("start", "stop", "step"):
            yield from _pairs(getattr(argument, name), getattr(value, name))
