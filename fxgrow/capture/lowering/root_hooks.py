"""Record the forward hooks of a traced model itself, which are not in its graph: they run around its `forward`."""

from __future__ import annotations

import functools
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import Kind, UsageError, usage
from ..containers import leaves, replaced
from ..inputs.call import call_of
from ..program.call_key import Meta, substitute
from ..program.program import NodeCall, Ref
from ..user_objects.module_twin import filled
from .lowering import Lowering
from .template import Local, Template, locals_in, same_constant

WAY_OUT = "remove the hook, grow, and register it on the grown model"
_WHERE = "the model itself"


def hooks_of(module: nn.Module) -> list[Any]:
    """Return the forward pre-hooks and forward hooks of a module."""
    return [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]


@dataclass(frozen=True, slots=True)
class RootHooks:
    """The recorded forward hooks of a model: what they do in one call, in the current mode and in the other mode."""

    call: NodeCall
    """A call whose arguments are the arguments of the model and the output of its graph."""
    read: tuple[Tensor, ...]
    """Parameters and buffers of the model that the hooks use in a computation or return."""
    forms: tuple[Any, ...]
    """For each mode, the operators and the result, with the model's tensors by name."""
    constants: tuple[Tensor, ...]
    """Other tensors that the hooks read, in the order of reading."""

    def same(self, other: RootHooks) -> bool:
        """Return whether the hooks do the same in another recording, possibly of a model with other tensors."""
        pairs = zip(self.constants, other.constants, strict=False)
        same = self.forms == other.forms and len(self.constants) == len(other.constants)
        return same and all(same_constant(a, b) for a, b in pairs)


class _Called(nn.Module):
    """Calls a model with its `forward` replaced by one that returns a known output, so that only its hooks run."""

    def __init__(self, model: nn.Module, *, other_mode: bool = False) -> None:
        super().__init__()
        self.model = model
        self.other_mode = other_mode
        """Whether to switch the model to the other mode."""

    def forward(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        """Return the arguments that `forward` receives, and the model's result. Call this on a twin of the model."""
        given: list[Any] = []

        def known(*args: Any, **kwargs: Any) -> Any:
            given.append((args, kwargs))
            return output

        model = self.model
        if self.other_mode:
            model.train(not model.training)
        model._backward_hooks, model._backward_pre_hooks = OrderedDict(), OrderedDict()
        model.__dict__["forward"] = known
        returned = nn.Module.__call__(model, *args, **kwargs)
        return given[0], returned


def record_hooks(
    gm: fx.GraphModule,
    lowering: Lowering,
    places: Sequence[fx.Node],
    values: Sequence[Any],
    output: Any,
    metas: Mapping[int, Meta] | None = None,
) -> RootHooks | None:
    """Record the forward hooks of a model.

    Args:
        gm: a traced model.
        lowering: the lowering of the analysis.
        places: the placeholders of its graph.
        values: the value of each placeholder, with `Ref`s for tensors.
        output: the result of the graph, likewise.
        metas: maps the `id` of a tensor of the model to the metadata to assume instead of its own.

    Returns:
        The recording; None if the model has no forward hooks.

    Raises:
        UsageError: a hook reaches the model other than by its argument, changes the shape or structure of the inputs,
            or cannot be recorded.
    """
    if not hooks_of(gm):
        return None
    call = call_of(places, values)
    return _recorded(gm, lowering, NodeCall(None, (call.args, dict(call.kwargs), output), {}), metas)


def record_again(
    gm: fx.GraphModule, lowering: Lowering, known: RootHooks, metas: Mapping[int, Meta] | None = None
) -> RootHooks | None:
    """Record the current forward hooks of a model on the call of an earlier recording; None if it has none."""
    return _recorded(gm, lowering, known.call, metas) if hooks_of(gm) else None


def _recorded(gm: fx.GraphModule, lowering: Lowering, call: NodeCall, metas: Mapping[int, Meta] | None) -> RootHooks:
    """Record the hooks of a model on a call, in both modes."""
    _by_argument(gm)
    read: dict[int, Tensor] = {}
    forms: list[Any] = []
    constants: list[Tensor] = []
    for other_mode in (False, True):
        try:
            template, refs, own = lowering.template(_Called(gm, other_mode=other_mode), call.args, {}, metas)
        except (MemoryError, torch.OutOfMemoryError, UsageError):
            raise
        except Exception as error:  # user code may raise any exception
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                f"a forward hook of the traced model itself cannot be followed: {reason}",
                where=_WHERE,
                hint=WAY_OUT,
            ) from error
        _same_inputs(template, template.result[0], call.args[:2], refs)
        form, more = _form(gm, template, len(refs), own)
        read |= {id(tensor): tensor for tensor in _read(template, len(refs), own)}
        forms.append(form)
        constants += more
    return RootHooks(call, tuple(read.values()), tuple(forms), tuple(constants))


def _by_argument(gm: fx.GraphModule) -> None:
    """Refuse hooks that name the model, or something in it: those of a copy would still use the original.

    Raises:
        UsageError: there is one.
    """
    own = {id(module) for module in gm.modules()} | {id(t) for t in (*gm.parameters(), *gm.buffers())}
    for hook in hooks_of(gm):
        if any(id(thing) in own for thing in _reached(hook)):
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                "a forward hook of the traced model itself names the model, or a layer or tensor of it, and the hook "
                "of a grown copy would still use the original",
                where=_WHERE,
                hint=f"use the module that the hook is given as its first argument, or {WAY_OUT}",
            )


def _reached(thing: Any) -> Iterator[Any]:
    """Iterate over the objects that a function refers to: closure, defaults, globals, and arguments of a partial."""
    if isinstance(thing, types.MethodType):
        yield thing.__self__
        yield from _reached(thing.__func__)
    elif isinstance(thing, functools.partial):
        for part in (thing.func, *thing.args, *thing.keywords.values()):
            yield from _items(part)
            yield from _reached(part)
    elif isinstance(thing, types.FunctionType):
        held = [cell.cell_contents for cell in thing.__closure__ or () if filled(cell)]
        held += [*(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
        held += [thing.__globals__.get(name) for name in thing.__code__.co_names]
        for item in held:
            yield from _items(item)


def _items(thing: Any) -> Iterator[Any]:
    yield thing
    if isinstance(thing, list | tuple | dict):
        yield from thing.values() if isinstance(thing, dict) else thing


def _same_inputs(template: Template, given: Any, before: Any, refs: Sequence[Ref]) -> None:
    """Check that the hooks do not change the shape, dtype or structure of the model's inputs.

    Raises:
        UsageError: a hook changes them.
    """
    order = {ref: Local(k) for k, ref in enumerate(refs)}

    def told(tree: Any) -> list[Any]:
        return leaves(replaced(tree, Local, lambda x: repr(template.metas[x.index][0::2])))

    if told(given) != told(substitute(before, order.__getitem__)):
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            "a forward-pre hook of the traced model itself gives its graph inputs of another shape or kind",
            where=_WHERE,
            hint="do it in `forward`, and trace the model again",
        )


def _read(template: Template, inputs: int, own: Sequence[Tensor]) -> Iterator[Tensor]:
    """Iterate over the model's own tensors that the recorded operators use, or that are returned."""
    used = [x.index - inputs for step in template.steps for arg in step.args.values() for x in locals_in(arg)]
    used += [x.index - inputs for x in locals_in(template.result)]
    return (own[k] for k in dict.fromkeys(used) if 0 <= k < len(own))


def _form(
    gm: fx.GraphModule, template: Template, inputs: int, own: Sequence[Tensor]
) -> tuple[tuple[Any, ...], tuple[Tensor, ...]]:
    """Return the operators and result, with the model's tensors by name and others by number, and the constants."""
    names = {id(t): name for name, t in (*gm.named_parameters(), *gm.named_buffers())}
    known: dict[int, Any] = {k: k for k in range(inputs)}
    known |= {inputs + k: names.get(id(t), k) for k, t in enumerate(own)}
    constants: list[Tensor] = []

    def told(local: Local) -> Any:
        index = local.index
        if index not in known:
            known[index] = ("made", len(known) - len(own), template.metas[index])
            if index in template.constants:
                constants.append(template.constants[index])
        return known[index]

    def named(tree: Any) -> Any:
        return replaced(tree, Local, told)

    steps = tuple(
        (s.name, s.overload, named(s.args), named(list(s.outputs)), named(list(s.writes))) for s in template.steps
    )
    result = named(template.result)
    return (steps, result), tuple(constants)
