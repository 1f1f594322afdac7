"""Track the lists, dicts and dataclasses that `forward` writes to.

A write by a method of Python's own containers moves values without computing anything, so it is executed on containers
of `Ref`s that represent the real ones. A write by a user-defined class or function is refused.
"""

from __future__ import annotations

import operator
from collections import OrderedDict, UserDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from torch import fx, nn

from ...errors import Kind, UsageError, usage
from ..containers import found
from ..program.plain_inputs import is_plain
from ..program.program import Program, Ref
from ..program.trees import value_tree
from ..user_objects.container_state import is_object, mutable
from .template import Template

WRITES = frozenset(
    {"append", "extend", "insert", "pop", "popitem", "clear", "reverse", "update", "setdefault", "move_to_end"}
)
"""Methods that modify a list or a dict."""
IN_PLACE = frozenset({operator.iadd, operator.ior, operator.imul, operator.delitem})
"""Functions that modify their first operand if it is a list or a dict."""
_FUNCTIONS = IN_PLACE | {operator.setitem}
_PLACES: dict[Any, Sequence[int]] = {
    operator.setitem: (1,),
    operator.delitem: (1,),
    operator.imul: (1,),
    "insert": (1,),
    "pop": (1,),
    "setdefault": (1,),
}
"""Positions of the operands that select the entry to write."""
_PLAIN = (list, dict, OrderedDict, defaultdict, UserDict)
_METHODS = (*WRITES, "__setitem__", "__delitem__", "__getitem__", "__iadd__", "__ior__", "__init__", "get")
_HINT = "write to a new container instead: batch = {**batch, 'features': y}, layers = [*layers, y]"


class WrittenContainers:
    """The containers among a program's inputs and results, and which of them nodes have written to so far."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._roots: list[Any] = []
        """Containers among the inputs; writes are executed on them."""
        self._given: set[int] = set()
        """The `id`s of the tensors that they held before the call."""
        self._written: dict[int, Any] = {}
        self._unsure: dict[int, Any] = {}
        """Containers that may alias other containers, because a function returned a container among its arguments."""

    def given(self, tree: Any) -> None:
        """Register an input of the program."""
        self._roots += mutable(tree)
        self._given.update(id(ref) for ref in found(tree, Ref))

    def left(self) -> list[Ref]:
        """Return the tensors that were added to containers among the inputs."""
        known: dict[int, Ref] = {}
        for container in self._roots if self._written else ():
            known.update((id(ref), ref) for ref in found(container, Ref) if id(ref) not in self._given)
        return list(known.values())

    def look(self, node: fx.Node, env: Mapping[fx.Node, Any]) -> bool:
        """Return whether a node reads containers, and record the current state of those that were written to."""
        some = [n for n in node.all_input_nodes if not isinstance(env[n], Ref) and mutable(env[n])]
        if self._written:
            for n in some:
                if any(id(c) in self._written for c in mutable(env[n])):
                    self.program.rewritten[node.name, n.name] = value_tree(env[n])
        return bool(some)

    def write(self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any] | None:
        """Execute a node if it is a write to a Python container or dataclass; return its result in a tuple, else None.

        Raises:
            UsageError: the write cannot be tracked.
        """
        if not args or isinstance(args[0], tuple) or not mutable(args[0]):
            return None
        container, target = args[0], node.target
        if is_object(container) and target in (setattr, *_FUNCTIONS):
            raise self._refusal(node, container)
        run: Callable[..., Any]
        if node.op == "call_method" and target in WRITES and _is_python(container):
            run = getattr(container, str(target))
        elif node.op == "call_function" and target in _FUNCTIONS and _is_python(container):
            run = lambda *rest: target(container, *rest)  # noqa: E731
        elif target is setattr and _is_record(container, args[1]):
            run = lambda *rest: setattr(container, *rest)  # noqa: E731
        else:
            return None
        self._check(node, container, args, kwargs)
        self._written[id(container)] = container
        return (run(*args[1:], **kwargs),)

    def _check(self, node: fx.Node, container: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check that a write can be tracked, and mark the container's nodes if it stores plain inputs.

        Raises:
            UsageError: the container may alias another one or would contain itself, a tensor is spread into it, or a
                plain input selects the entry.
        """
        rest = [*args[1:], *kwargs.values()]
        inner = [c for arg in rest for c in mutable(arg)]
        whole = node.target in ("extend", "update", operator.iadd, operator.ior)
        spread = whole and any(isinstance(arg, Ref) for arg in args[1:])
        told = {n.name for n in node.all_input_nodes} & self.program.varying
        places = [node.args[k] for k in _PLACES.get(node.target, ()) if k < len(node.args)]
        places += list(node.kwargs.values()) if node.target in _PLACES else []
        picks = any(n.name in told for place in places for n in found(place, fx.Node))
        if id(container) in self._unsure or any(c is container for c in inner) or spread or picks:
            raise self._refusal(node, container)
        if told and any(is_plain(leaf) for arg in rest for leaf in _leaves(arg)):
            self.program.varying.update(n.name for n in (node, *_behind(node)))

    def called(self, node: fx.Node, template: Template, result: Any) -> None:
        """Process any other call that takes containers, and register returned containers that may alias arguments.

        Raises:
            UsageError: the call writes to a container.
        """
        if template.writes:
            raise self._refusal(node, None)
        if template.shares:
            self._unsure.update((id(c), c) for c in mutable(result))

    def read(self, node: fx.Node, args: Sequence[Any], result: Any) -> Any:
        """Return the result of a node; if it reads a container inside a container, that object itself."""
        if not args or not mutable(result):
            return result
        container = args[0]
        if node.target is operator.getitem and (_is_python(container) or type(container) is tuple):
            return container[args[1]]
        if node.target is getattr and len(args) > 1 and _is_record(container, args[1]):
            return getattr(container, args[1])
        if (
            (node.op, node.target) == ("call_method", "get")
            and _is_python(container)
            and isinstance(result, list | dict)
        ):
            return container.get(*args[1:])
        return result

    def _refusal(self, node: fx.Node, container: Any) -> UsageError:
        kind = "container" if container is None else type(container).__name__
        return usage(
            Kind.UNSUPPORTED_MODEL,
            f"node {node.name} writes to a {kind} among the inputs in a way that cannot be followed",
            where=node.format_node() or node.name,
            hint=_HINT,
        )


def _behind(node: fx.Node) -> list[fx.Node]:
    """Return all nodes from which the first operand of a node was computed."""
    found: dict[fx.Node, None] = {}
    queue = [node.args[0]]
    for n in queue:
        if isinstance(n, fx.Node) and n not in found:
            found[n] = None
            queue += n.args
    return list(found)


def _leaves(tree: Any) -> list[Any]:
    return [tree] if is_plain(tree) else found(tree, (int, float, complex, str))


def _is_python(container: Any) -> bool:
    """Return whether a container is a list or dict whose methods are all Python's own, which never inspect values."""
    kind = type(container)
    if not isinstance(container, _PLAIN) or is_dataclass(kind) or isinstance(container, nn.Module):
        return False
    base = next(b for b in _PLAIN if isinstance(container, b))
    if kind in _PLAIN:
        return True
    return all(
        next((c for c in kind.__mro__ if name in c.__dict__), base).__module__
        in ("builtins", "collections", "_collections_abc", "collections.abc")
        for name in _METHODS
    )


def _is_record(container: Any, name: Any) -> bool:
    """Return whether a container is a dataclass that stores the attribute `name` unchanged on assignment."""
    kind: Any = type(container)
    if (
        not is_dataclass(kind)
        or isinstance(container, list | dict | UserDict)
        or kind.__setattr__ is not object.__setattr__
    ):
        return False
    held = getattr(kind, name, None)
    return not hasattr(type(held), "__set__") or type(held).__name__ == "member_descriptor"
