"""Tracing: from a module to an fx graph that follows `training`, keeps every parameter, and knows its source lines."""

from __future__ import annotations

import logging
import operator
import traceback
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import fx, nn

from ..errors import Kind, usage
from .call import Call, as_call, remember, remember_training
from .checks import check_model, check_root
from .contexts import Contexts, Forgotten
from .forward import fixed_arguments, restore_signature
from .modes import flags_that_follow, keep_unused, make_dropout_follow
from .patches import Patches
from .written import OPEN, written_out

logger = logging.getLogger("fxgrow")

PLAIN_DICTS = (dict, fx.immutable_collections.immutable_dict, defaultdict, Counter)
"""Dicts that torch.fx writes out as `{…}`; those of other classes are made by a call of their class."""


class Assignable(fx.Proxy):
    """A proxy that takes `x[:, 1:] = y`, which fx can write down but not trace."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class GrowthTracer(fx.Tracer):
    """fx's tracer, with item assignment, source lines on nodes, and stochastic modules (drop path …) kept whole, so
    that they go on following `training`. It refuses context managers that fx would forget."""

    record_stack_traces = True

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace; what `forward` leaves switched off is switched on again, and what fx patches is put back."""
        self._contexts, self._patches = Contexts.now(), Patches()
        try:
            with torch.set_grad_enabled(torch.is_grad_enabled()), written_out():
                return super().trace(root, concrete_args)
        except AssertionError as error:  # fx may take an interruption for a fault of its own
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            try:
                self._patches.put_back()
            finally:  # again, for an interruption of the first time
                self._patches.put_back()

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy for a node."""
        return Assignable(node, self)

    def create_arg(self, a: Any) -> Any:
        """The arguments of a node that is being made: the moment to look at what torch's context managers have set, and
        fx has patched. The last node, the output, is made when all of it is."""
        self._patches.note()
        entered = Contexts.now().entered(self._contexts)
        if entered:
            raise Forgotten(entered)
        if isinstance(a, dict) and type(a) not in PLAIN_DICTS:
            return self._made(a)  # fx would make a plain dict of it
        if is_dataclass(a) and not isinstance(a, type) and not all(f.init for f in fields(a)):
            return self._made(a)  # fx would pass all fields
        return super().create_arg(a)

    def _made(self, a: Any) -> fx.Node:
        """A call that makes a dict of some class (a ModelOutput, say) or a dataclass, as the user's code does."""
        if is_dataclass(a):
            named = {f.name: self.create_arg(getattr(a, f.name)) for f in fields(a) if f.init}
            return self.create_node("call_function", type(a), (), named)
        return self.create_node("call_function", type(a), (super().create_arg(dict(a)),), {})

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """torch's own modules but for whole transformers, and modules without parameters that look at `training`."""
        if type(m) in OPEN:
            return False
        if super().is_leaf_module(m, module_qualified_name):
            return True
        if next(m.parameters(), None) is not None or next(m.children(), None) is not None:
            return False
        code = getattr(type(m).forward, "__code__", None)
        return code is not None and "training" in code.co_names


def trace(
    model: nn.Module,
    example_inputs: Sequence[Any] | torch.Tensor | Call | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    train_inputs: Sequence[Any] | torch.Tensor | Call | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """Trace a model with torch.fx, ready to be grown.

    Args:
        model: any module; it is not changed. A GraphModule comes back as it is.
        example_inputs: what the model takes: tensors, numbers, flags, texts, None, and lists, tuples, dicts and
            dataclasses of them. All later calls remember it: shapes and dtypes, of whole numbers and flags their
            values. It also decides which arguments of `forward` are inputs. A number among them stays a number that
            may be another one in the next call; where None is given, the trace takes None only.
        example_kwargs: the same by name.
        train_inputs: what the model takes in training mode, where that is something else (a detector's targets, say).
            A model that is in training mode is traced with it.
        train_kwargs: the same by name.
        concrete_args: values for other arguments of `forward`. Arguments with plain defaults (flags, numbers, None)
            are specialised to them, so that `if flag:` does not stop the trace.

    Returns:
        A GraphModule that shares the model's parameters. Functional dropout follows `training`. Parameters that the
        graph does not use are kept; `result.meta["fxgrow_unused"]` lists them.

    Raises:
        UsageError: the model cannot be traced (the message names the line), or must not be grown (lazy, quantised,
            parametrised).
    """
    call, in_training = as_call(example_inputs, example_kwargs), as_call(train_inputs, train_kwargs)
    if in_training is not None and (model.training or call is None):
        call = in_training
    if isinstance(model, fx.GraphModule):
        _remember(model, call, in_training)
        return model
    check_model(model)
    check_root(model)
    concrete = fixed_arguments(model, call, concrete_args or {})
    attributes = set(model.__dict__)
    flags = {name: module.training for name, module in model.named_modules(remove_duplicate=False)}
    other = _in_other_mode(model, concrete)
    _forget_constants(model, attributes)
    graph = _traced(model, concrete)
    follow = flags_that_follow(graph, other)
    restore_signature(graph, model, concrete, call)
    gm = fx.GraphModule(model, graph, type(model).__name__)
    gm.training = model.training
    gm._non_persistent_buffers_set.update(gm._buffers.keys() - model._buffers.keys())  # tensors made in `forward`
    _forget_constants(model, attributes)
    if follow is None:
        logger.warning(
            "%s has different graphs in training and evaluation mode; this trace is of %s mode",
            type(model).__name__,
            "training" if model.training else "evaluation",
        )
    else:
        make_dropout_follow(gm, follow)
    unused = keep_unused(gm, model)
    if unused:
        gm.meta["fxgrow_unused"] = unused
        logger.info("kept although the graph does not use them: %s", ", ".join(unused))
    for name, module in gm.named_modules(remove_duplicate=False):
        module.training = flags.get(name, model.training)
    _remember(gm, call, in_training)
    gm.recompile()
    return gm


def _remember(gm: fx.GraphModule, call: Call | None, in_training: Call | None) -> None:
    if call is not None:
        remember(gm, call)
    if in_training is not None:
        remember_training(gm, in_training)


def _forget_constants(model: nn.Module, attributes: set[str]) -> None:
    """Remove what fx leaves on the model itself: tensors that `forward` made while it was traced."""
    for name in set(model.__dict__) - attributes:
        delattr(model, name)


def _traced(model: nn.Module, concrete: Mapping[str, Any]) -> fx.Graph:
    try:
        return GrowthTracer().trace(model, concrete_args=dict(concrete) or None)
    except Forgotten as error:
        raise usage(Kind.NOT_TRACEABLE, str(error), where=_user_line(error), hint=error.way_out) from None
    except Exception as error:  # user code runs here; whatever it raises becomes one message with its line
        raise usage(
            Kind.NOT_TRACEABLE,
            f"torch.fx cannot trace {type(model).__name__}: {(str(error).strip() or repr(error)).splitlines()[0]}",
            where=_user_line(error),
            hint="fix a flag with concrete_args={'name': value}, keep the branch in a function under torch.fx.wrap, "
            "or trace and grow the submodules that can be traced",
        ) from error


def _user_line(error: Exception) -> str:
    """The last line of the traceback that is not torch's own."""
    torch_root = torch.__file__.rsplit("/", 1)[0]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(torch_root)]
    frames = [f for f in frames if f.filename != __file__ and "<eval" not in f.filename]
    if not frames:
        return ""
    last = frames[-1]
    return f"{last.filename.rsplit('/', 1)[-1]}:{last.lineno}, in {last.name}:  {last.line}"


def _in_other_mode(model: nn.Module, concrete: Mapping[str, Any]) -> fx.Graph | None:
    """The graph in the other mode; None if it cannot be traced there. Flags are put back as they were."""
    flags = [(m, m.training) for m in model.modules()]
    try:
        for m, flag in flags:
            m.training = not flag
        return GrowthTracer().trace(model, concrete_args=dict(concrete) or None)
    except Exception:  # the other mode may well be untraceable; the mode that was asked for is not
        return None
    finally:
        for m, flag in flags:
            m.training = flag
