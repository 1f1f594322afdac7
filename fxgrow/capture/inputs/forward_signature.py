"""The signature of `forward` and of its trace: which arguments are inputs, which are fixed, and their names.

torch.fx renames the placeholder of a fixed argument, puts keyword-only arguments among the others, and lets arguments
with similar names collide. This module corrects all of that.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.fx._symbolic_trace import PHBase
from torch.utils import _pytree

from ...errors import Kind, usage
from ..containers import found
from .call import KEYWORD, Call

_PLAIN = (bool, int, float, str, type(None))
_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def parameters_of(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    """Return the parameters in the signature of a model's `forward`."""
    return inspect.signature(model.forward).parameters


def given_names(parameters: Mapping[str, inspect.Parameter], call: Call | None) -> dict[str, Any]:
    """Return the arguments of `forward` that a call gives, by name. Whether the call fits is checked later, on the
    graph."""
    if call is None:
        return {}
    by_place = [
        name for name, parameter in parameters.items() if parameter.kind not in (*_MANY, inspect.Parameter.KEYWORD_ONLY)
    ]
    named = {name: call.kwargs[name] for name in parameters if name in call.kwargs}
    return {**dict(zip(by_place, call.args, strict=False)), **named}


def given_inputs(parameters: Mapping[str, inspect.Parameter], call: Call | None) -> dict[str, Any]:
    """Return the arguments that a call gives, by the names of placeholders, including `*rest` and `**more`."""
    found = given_names(parameters, call)
    if call is None:
        return found
    by_place = [p for p in parameters.values() if p.kind not in (*_MANY, inspect.Parameter.KEYWORD_ONLY)]
    for name, parameter in parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found[f"*{name}"] = tuple(call.args[len(by_place) :])
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found[f"**{name}"] = {key: value for key, value in call.kwargs.items() if key not in found}
    return found


def fixed_arguments(model: nn.Module, call: Call | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `forward` that a trace fixes to a value.

    These are the arguments in `concrete_args`, plain defaults (flags, numbers, None) of arguments that the example does
    not give, and arguments given as None, as code may test `if mask is None`.

    Raises:
        UsageError: `concrete_args` names an unknown argument, or one that takes any number of values.
    """
    parameters = parameters_of(model)
    unknown = [name for name in wanted if name not in parameters]
    if unknown:
        raise usage(
            Kind.BAD_OPTION,
            f"forward of {type(model).__name__} has no argument {unknown[0]!r}",
            hint=f"its arguments are {', '.join(parameters)}",
        )
    many = next((name for name in wanted if parameters[name].kind in _MANY), None)
    if many is not None:
        raise usage(
            Kind.BAD_OPTION,
            f"concrete_args cannot fix {many!r}, which takes any number of arguments",
            hint="give them with example_inputs= and example_kwargs=; the trace takes as many, of the same names",
        )
    given = given_names(parameters, call)
    fixed: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name in wanted:
            fixed[name] = wanted[name]
        elif name in given:
            if given[name] is None:
                fixed[name] = None
        elif parameter.default is not inspect.Parameter.empty and isinstance(parameter.default, _PLAIN):
            fixed[name] = parameter.default
    return fixed


def kept_defaults(model: nn.Module, call: Call | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that hold tensors, or are empty and may be filled, of arguments that the example does not
    give.

    `forward` reads the default objects themselves, and the graph does not take the arguments: a default in the
    signature of a graph cannot hold a tensor.
    """
    parameters = parameters_of(model)
    given = given_names(parameters, call)
    left = {name: p.default for name, p in parameters.items() if name not in given and name not in wanted}
    return {name: default for name, default in left.items() if _holds_tensors(default)}


def _holds_tensors(default: Any) -> bool:
    """Whether a default holds tensors, or is an empty container."""
    empty = isinstance(default, dict | list | set) and not default
    return empty or bool(found(default, Tensor))


def put_defaults(graph: fx.Graph, arguments: Iterable[Any], defaults: Mapping[str, Any]) -> list[Any]:
    """Return the arguments to trace `forward` with, some replaced by the defaults that it reads as they are.

    An argument that the example gives has no default in the graph if its default holds a tensor.

    Args:
        graph: has placeholders for all arguments; those of replaced arguments are erased.
        arguments: what `forward` would be traced with; some are proxies for placeholders.
        defaults: values by the name of the argument.
    """
    made: list[Any] = []
    for argument in arguments:
        node = argument.node if isinstance(argument, fx.Proxy) else None
        if node is None or node.op != "placeholder":
            made.append(argument)
            continue
        constants = node.all_input_nodes
        made.append(defaults.get(str(node.target), argument))
        if made[-1] is not argument:
            graph.erase_node(node)
        elif constants:
            node.args = ()
        for constant in constants:
            if not constant.users:
                graph.erase_node(constant)
    return made


def restore_signature(
    graph: fx.Graph,
    model: nn.Module,
    fixed: Mapping[str, Any],
    call: Call | None,
    without: Container[str] = (),
) -> None:
    """Give a trace the signature of the module.

    Fixed arguments are removed, except those that the example gives: they stay, and accept only the value they are
    fixed to.

    Args:
        graph: the trace, which is changed.
        model: the traced module.
        fixed: the arguments that were fixed.
        call: the call that the model was traced with.
        without: arguments that the trace has no placeholders for.
    """
    given = given_names(parameters_of(model), call)
    for name, parameter, places in _places(graph, model, fixed, without):
        for place in places:
            if name in fixed and name not in given:
                _erase(graph, place)
                continue
            if name in fixed and len(places) == 1:
                place.target = name
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                place.meta[KEYWORD] = True
    _order(graph)
    _tell_apart(graph)


def _places(
    graph: fx.Graph, model: nn.Module, fixed: Mapping[str, Any], without: Container[str]
) -> Iterator[tuple[str, inspect.Parameter, list[fx.Node]]]:
    """Yield each argument with the placeholders that fx has created for it, in fx's order: `*rest` and `**more` come
    last."""
    left = [n for n in graph.nodes if n.op == "placeholder"]
    parameters = [item for item in parameters_of(model).items() if item[0] not in without]
    ordered = sorted(parameters, key=lambda item: item[1].kind in _MANY)
    for name, parameter in ordered:
        count = len(_pytree.tree_leaves(fixed[name])) if name in fixed else 1
        mine, left = left[:count], left[count:]
        if name in fixed:
            leaves = _pytree.tree_leaves(fixed[name])
            mine = [place for place, leaf in zip(mine, leaves, strict=False) if not isinstance(leaf, PHBase)]
        yield name, parameter, mine


def _erase(graph: fx.Graph, place: fx.Node) -> None:
    """Remove a placeholder and the checks that fx has created for it."""
    for user in list(place.users):
        for check in list(user.users):
            graph.erase_node(check)
        graph.erase_node(user)
    graph.erase_node(place)


def _order(graph: fx.Graph) -> None:
    """Move `*rest` before keyword-only inputs, so that further inputs do not end up there. Otherwise remove the
    defaults of inputs that precede one without a default, which Python does not allow."""
    places = [n for n in graph.nodes if n.op == "placeholder"]
    named = [p for p in places if p.meta.get(KEYWORD)]
    rest = [p for p in places if str(p.target).startswith("*") and not str(p.target).startswith("**")]
    if rest and named:
        named[0].prepend(rest[0])
        return
    bare = [k for k, p in enumerate(places) if not p.args and not str(p.target).startswith("*")]
    for place in places[: max(bare, default=0)]:
        place.args = ()


def _tell_apart(graph: fx.Graph) -> None:
    """Rename nodes that have the name of another argument: fx renames an argument `int` to `int_1`, which may be an
    argument too."""
    places = [n for n in graph.nodes if n.op == "placeholder"]
    arguments = {str(p.target).lstrip("*"): p for p in places}
    for node in list(graph.nodes):
        owner = arguments.get(node.name)
        if owner is not None and owner is not node:
            free = next(name for k in range(1, len(places) + 2) if (name := f"{node.name}_in{k}") not in arguments)
            node._rename(free)
