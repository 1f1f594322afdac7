"""`trace`: convert a module to an fx graph and compare the two, in both modes and at two sets of sizes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import FxgrowError, Kind, usage
from ...global_state import settings_kept, surroundings
from ..comparison.compare_trace import compare
from ..comparison.comparison import Examples
from ..inputs.call import Call, as_call, as_training_call, remember, remember_training
from ..inputs.forward_signature import fixed_arguments, given_inputs, kept_defaults, parameters_of, restore_signature
from ..locks import ONE_AT_A_TIME
from ..recording.contexts import Forgotten
from ..source_lines import located, user_line
from ..traced_model.checks import (
    check_called,
    check_compiled,
    check_hooks,
    check_made,
    check_model,
    check_root,
    check_train,
)
from ..traced_model.decisions import pins
from ..traced_model.modes import can_stay_whole, culprits, follow_flags, guard, guard_buffers, keep_unused, same_wiring
from ..traced_model.other_modes import MODES, modes_of
from ..traced_model.traced import (
    FLAGS,
    TracedModule,
    flags_in,
    flags_of,
    has_train_of_its_own,
    set_mode,
    written_by_train,
)
from ..user_objects.caches import Caches, caches_kept_clean
from ..user_objects.code_traits import may_compile, patterns, read_by_others, tests_for_none
from ..user_objects.compiled import eager
from ..user_objects.locations import Kept, container
from ..user_objects.module_twin import Twin, iterators_copied_once
from ..user_objects.random_streams import streams_kept
from ..user_objects.state_dict_hooks import carry, root_is_carried
from ..user_objects.undo_writes import WritesUndone
from ..user_objects.user_state import gradients_kept, no_other_threads, nothing_left_behind
from ..user_objects.warnings import silent
from .leaves import LEAVES, Leaf, Leaves, leaves_of, registered
from .module_names import check_names, quote_names, rename_self
from .optional_inputs import guard_what_is_given
from .proxies import ReadsValues
from .reasons import in_plain_words
from .trace_options import TraceOptions
from .tracer import GrowthTracer
from .transformer_forwards import KINDS
from .values import Values

ROUNDS = 12
"""The maximum number of times a model is traced to find modules to keep whole and buffers whose values to fix."""


def trace(
    model: nn.Module,
    example_inputs: Sequence[Any] | torch.Tensor | Call | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    train_inputs: Sequence[Any] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
    leaf: Iterable[Leaf] | Leaf = (),
) -> fx.GraphModule:
    """Trace a model with torch.fx, ready to be grown, and compare the graph with the model.

    The graph runs the same operators as the model, with the same arguments, in evaluation and in training mode, and at
    a second set of input sizes. If the two modes run different graphs (auxiliary heads), the trace is valid for the
    mode that the model is in: in the other mode, it raises an error.

    Example:
        >>> import torch, torchvision, fxgrow
        >>> model = torchvision.models.resnet18()
        >>> traced = fxgrow.trace(model, (torch.randn(2, 3, 64, 64),))

    Args:
        model: any module; it is not changed. A GraphModule is returned as it is.
        example_inputs: the inputs of the model: tensors, numbers, flags, strings, None, and lists, tuples, dicts and
            dataclasses of them; inferred from the first layers by default. They are stored for later calls: the shapes
            and dtypes of tensors, and the values of integer and bool tensors. They also determine which arguments of
            `forward` are inputs. A number among them may change in the next call; an argument given as None accepts
            only None. `*rest` and `**more` accept as many arguments as are given, of the same names, where `forward`
            depends on them.
        example_kwargs: keyword inputs of the model.
        train_inputs: the inputs of the model in training mode, if they differ (a detector's targets, say). A model in
            training mode is traced with them.
        train_kwargs: keyword inputs of the model in training mode.
        concrete_args: values for other arguments of `forward`. Arguments with plain defaults (flags, numbers, None) are
            specialised to them, so that `if flag:` does not stop the trace.
        leaf: what the trace does not look into: modules of the model or their paths, classes of modules, functions.
            Each call of one becomes one node. Torch's own layers are always leaves.

    Code that `torch.compile` compiles (`module.compile()`, a compiled function or `forward`) is traced as the eager
    code behind it, and the traced model runs that code.

    Where `forward` branches on sizes (`if x.shape[1] < 8`, a loop over `x.unbind(1)`, `int(x.shape[0])`), the example
    inputs determine the result. The graph raises FXG010 for inputs with a different result.

    Returns:
        A GraphModule that shares the model's parameters. Functional dropout and flags follow `training`. Parameters
        that the graph does not use are kept; `result.meta["fxgrow_unused"]` lists them.

    Raises:
        UsageError: the model cannot be traced (the message names the line), the graph would not run what the model
            runs, or the model is not supported (lazy, quantised, parametrised).
    """
    given = as_call(example_inputs, example_kwargs)
    in_training = as_training_call(given, train_inputs, train_kwargs)
    call = in_training if in_training is not None and (model.training or given is None) else given
    if isinstance(model, fx.GraphModule):
        _remember(model, call, in_training)
        return model
    check_model(model)
    check_root(model)
    check_train(model)
    check_compiled(model)
    fixed = fixed_arguments(model, call, concrete_args or {})
    whole = leaves_of(model, leaf)
    left, plain = nothing_left_behind(model), eager(load=may_compile(model))
    with ONE_AT_A_TIME, plain, surroundings(), caches_kept_clean() as caches, left as reach, iterators_copied_once():
        examples = Examples(given, in_training, concrete_args or {})

        def compared(options: TraceOptions, whole: Leaves) -> fx.GraphModule:
            settings = _Settings(options, reach.generators, whole.functions, set(whole.paths))
            settings.follows_dtypes = options.follows_dtypes
            gm = _graph_module(model, _in_both_modes(model, fixed, call, caches, settings))
            _remember(gm, call, in_training)
            if whole != Leaves():
                gm.meta[LEAVES] = (*whole.functions, *sorted(whole.paths))
            compare(model, gm, examples, caches, reach)
            return gm

        try:
            return _best(lambda options: compared(options, whole))
        except FxgrowError as error:
            further = registered(model, whole)
            if further is None or error.kind not in (Kind.NOT_TRACEABLE, Kind.UNSUPPORTED_MODEL):
                raise
            try:
                return _best(lambda options: compared(options, further))
            except FxgrowError:
                raise error from None


def _best(compared: Callable[[TraceOptions], fx.GraphModule]) -> fx.GraphModule:
    """Return the best graph that can be made: valid for the most modes, then with the fewest sizes of the example
    fixed.

    Raises:
        FxgrowError: no graph can be made; this is the first error.
    """
    options = TraceOptions()
    best: fx.GraphModule | None = None
    failed: FxgrowError | None = None
    while True:
        try:
            made = compared(options)
        except FxgrowError as error:
            failed = failed or error
        else:
            best = made if best is None or _worth(made) > _worth(best) else best
        if best is not None and len(modes_of(best)) == len(MODES):
            if pins(best.graph) and options.try_factories():
                continue
            return best
        if not options.try_next(failed=best is None):
            break
    if best is None:
        assert failed is not None, "one of the two"
        raise failed
    return best


def _worth(gm: fx.GraphModule) -> tuple[int, int]:
    """Rank a graph by the number of modes it is valid for, then by how few numbers of the example it fixes."""
    return len(modes_of(gm)), -pins(gm.graph)


def _remember(gm: fx.GraphModule, call: Call | None, in_training: Call | None) -> None:
    """Store the calls that a model was traced with in the graph module."""
    if call is not None:
        remember(gm, call)
    if in_training is not None:
        remember_training(gm, in_training)


@dataclass(slots=True)
class Traces:
    """The graphs of a model, and how they were traced."""

    graph: fx.Graph
    root: nn.Module
    """The copy of the model that was traced; it holds the constants."""
    visited: set[str]
    fixed: tuple[str, ...] = ()
    """Buffers whose values the trace has fixed."""
    by_flag: dict[str, fx.Graph] = field(default_factory=dict)
    """Graphs traced with the `training` flag of one module inverted, by the path of that module; only for flags that
    other modules read."""
    other: fx.Graph | None = None
    """The graph in the other mode; None if the trace is valid for one mode only."""
    why: str = ""
    """Why the trace is valid for one mode only; empty if it is valid for both."""
    apart: set[str] = field(default_factory=set)
    """For a trace valid for one mode only, the modules known to run something else in the other mode."""


@dataclass(slots=True)
class _Settings:
    """The settings of a trace, which change when the model has to be traced again."""

    options: TraceOptions
    generators: Sequence[Any]
    functions: Sequence[Callable[..., Any]] = ()
    leaves: set[str] = field(default_factory=set)
    fixed: set[str] | None = field(default_factory=set)
    follows_dtypes: bool = True
    """Whether the dtypes of buffers are read when the graph runs; False for code that must know them during the
    trace."""

    def state(self) -> tuple[object, ...]:
        """Return a snapshot of the settings that tracing may change."""
        return frozenset(self.leaves), None if self.fixed is None else frozenset(self.fixed), self.follows_dtypes


def _in_both_modes(
    model: nn.Module, concrete: Mapping[str, Any], call: Call | None, caches: Caches, settings: _Settings
) -> Traces:
    """Trace in the model's mode and in the other one, keeping modules whole where that makes the two graphs alike."""
    for _ in range(ROUNDS):
        caches.clean()
        ours = _traced(model, concrete, call, model.training, settings)
        before = settings.state()
        caches.clean()
        written = written_by_train(model, not model.training)
        if written:
            ours.why = (
                f"train() of {type(model).__name__} writes to {', '.join(written[:3])}, and that of a trace does not"
            )
            return ours
        try:
            other = _traced(model, concrete, call, not model.training, settings)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the other mode may be untraceable; the model's own mode is traceable
            ours.why = f"in the other mode torch.fx cannot trace it ({in_plain_words(error)})"
            return ours
        if settings.state() != before:
            continue
        if same_wiring(ours.graph, other.graph):
            ours.other = other.graph
            ours.by_flag = dict(_with_one_flag(model, concrete, call, settings, ours.graph))
            return ours
        apart = culprits(ours.graph, other.graph)
        whole = {path for path in apart if path not in settings.leaves and can_stay_whole(model, path)}
        if not whole:
            names = ", ".join(sorted(path or type(model).__name__ for path in apart)) or type(model).__name__
            ours.why = f"{names} runs different operators in training and in evaluation mode"
            ours.apart = culprits(ours.graph, other.graph, numbers=True)
            return ours
        settings.leaves |= whole
    raise AssertionError("each round keeps another module whole, or fixes another buffer")


def _with_one_flag(
    model: nn.Module, concrete: Mapping[str, Any], call: Call | None, settings: _Settings, ours: fx.Graph
) -> Iterator[tuple[str, fx.Graph]]:
    """Yield, for each module whose `training` flag other modules read, its path and the graph traced with that flag
    inverted."""

    def traced(flipped: Sequence[str]) -> fx.Graph | None:
        before = settings.state()
        try:
            graph = _traced(model, concrete, call, model.training, settings, flipped=flipped).graph
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # the comparison with the module reports the difference
            return None
        return graph if settings.state() == before and same_wiring(ours, graph) else None

    called = tuple(f"{node.target}." for node in ours.nodes if node.op == "call_module")
    paths = [path for path in read_by_others(model) if not f"{path}.".startswith(called)]
    if all(graph is not None and not culprits(ours, graph, numbers=True) for graph in map(traced, patterns(paths))):
        return
    for path in paths:
        graph = traced([path])
        if graph is not None:
            yield path, graph


def _traced(
    model: nn.Module,
    concrete: Mapping[str, Any],
    call: Call | None,
    training: bool,
    settings: _Settings,
    *,
    flipped: Collection[str] = (),
) -> Traces:
    """Trace a copy of a model in one mode, again if the values of buffers have to be fixed.

    Args:
        flipped: paths of modules whose `training` flag is inverted.

    Raises:
        UsageError: the model cannot be traced in its own mode.
        Exception: the model cannot be traced in the other mode.
    """
    while True:
        twin = Twin(_own, KINDS)(model)
        with silent():
            set_mode(twin, model, training)
        for module in {twin.get_submodule(path) for path in flipped}:
            module.training = not module.training
        for module in twin.modules():  # `check_hooks` handles these hooks; here they would warn about proxies
            module._backward_hooks, module._backward_pre_hooks = OrderedDict(), OrderedDict()
        defaults = kept_defaults(model, call, concrete)
        written = [kept for kept in map(container, defaults.values()) if kept is not None]
        leaves, fixed, follows = settings.leaves, settings.fixed, settings.follows_dtypes
        values = Values(twin, given_inputs(parameters_of(model), call))
        tracer = GrowthTracer(
            leaves,
            fixed,
            options=settings.options,
            follows_dtypes=follows,
            defaults=defaults,
            values=values,
            functions=settings.functions,
        )
        try:
            streams = streams_kept(settings.generators, devices=True)
            with silent(), WritesUndone(), gradients_kept(model), settings_kept(no_other_threads), streams:
                graph = _graph(tracer, twin, concrete, written)
            if tracer.noted_error is not None:
                raise tracer.noted_error  # `forward` caught it and may have taken another path
            if tests_for_none(model):
                guard_what_is_given(graph, twin, values)
            restore_signature(graph, model, concrete, call, defaults)
            rename_self(graph)
            return Traces(graph, twin, tracer.visited, _fixed(model, graph, settings.fixed))
        except ReadsValues as error:
            assert settings.fixed is not None
            if settings.follows_dtypes:
                settings.follows_dtypes = False
                continue
            if can_stay_whole(model, tracer.place) and tracer.place not in settings.leaves:
                settings.leaves.add(tracer.place)
            else:
                settings.fixed |= error.buffers
        except Forgotten as error:
            if can_stay_whole(model, tracer.place) and tracer.place not in settings.leaves:
                settings.leaves.add(tracer.place)
                continue
            if training is not model.training:
                raise
            raise usage(Kind.NOT_TRACEABLE, str(error), where=user_line(error), hint=error.way_out) from None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # user code may raise anything: report it in one message with its line
            if settings.follows_dtypes and next(model.buffers(), None) is not None:
                settings.follows_dtypes = False
                continue
            if settings.fixed is not None and next(model.buffers(), None) is not None:
                settings.fixed = None  # as plain torch.fx does
                continue
            if training is not model.training:
                raise
            if isinstance(error, FxgrowError):
                raise located(error) from None
            raise usage(
                Kind.NOT_TRACEABLE,
                f"torch.fx cannot trace {type(model).__name__}: {in_plain_words(error)}",
                where=user_line(error),
                hint=_way_out(call),
            ) from error


def _way_out(call: Call | None) -> str:
    """Return a hint for a model that torch.fx cannot trace."""
    first = "" if call is not None else "give example_inputs=, whose sizes decide conditions and loops; "
    return (
        f"{first}fix a flag with concrete_args={{'name': value}}, keep a module, a class or a function whole with "
        "leaf=, or trace and grow the submodules that can be traced"
    )


def _graph(tracer: GrowthTracer, twin: nn.Module, concrete: Mapping[str, Any], written: Sequence[Kept]) -> fx.Graph:
    """Trace, then restore containers that `forward` has written to; otherwise the next trace would find proxies in
    them."""
    try:
        return tracer.trace(twin, concrete_args=dict(concrete) or None)
    finally:
        for kept in written:
            kept.clean()


def _fixed(model: nn.Module, graph: fx.Graph, fixed: set[str] | None) -> tuple[str, ...]:
    """Return the buffers that `forward` has read but that the graph does not read when it runs."""
    if fixed is not None:
        return tuple(sorted(fixed))
    read = {str(n.target) for n in graph.nodes if n.op == "get_attr"}
    inside = tuple(f"{n.target}." for n in graph.nodes if n.op == "call_module")
    return tuple(name for name, _ in model.named_buffers() if name not in read and not name.startswith(inside))


def _own(tensor: Tensor) -> Tensor:
    """Return a parameter as it is, and a copy of a buffer, which `forward` may write to."""
    if isinstance(tensor, nn.Parameter):
        return tensor
    with torch.no_grad():
        return tensor.detach().clone()


def _graph_module(model: nn.Module, both: Traces) -> fx.GraphModule:
    """Build a GraphModule from the model's own modules and tensors and the constants that `forward` created."""
    for node in both.graph.nodes:
        if isinstance(
            node.type, str
        ):  # an annotation that was never evaluated; older versions of torch cannot pickle it
            node.type = None
    check_made(model, both.root, both.graph)
    check_called(model, both.graph)
    check_names(model, both.graph)
    quote_names(both.graph)
    flags = flags_of(model) if has_train_of_its_own(model) else {}
    kind = TracedModule if flags or root_is_carried(model) else fx.GraphModule
    gm = kind(_root(model, both), both.graph, type(model).__name__)
    gm.training = model.training
    _persist_what_the_model_does(gm, model)
    follow: set[str] = set()
    if both.other is not None:
        nodes = list(gm.graph.nodes)
        flags_now = flags_in(model, model.training)
        for path, graph in both.by_flag.items():
            if path in dict(gm.named_modules()) and gm.get_submodule(path) is not model.get_submodule(path):
                follow |= follow_flags(gm, nodes, graph, training=flags_now[path], owner=path)
        follow |= follow_flags(gm, nodes, both.other, training=model.training)
    else:
        guard(gm, model, training=model.training, why=both.why, apart=both.apart)
        gm.meta["fxgrow_modes"] = (MODES[model.training],)
    unused = keep_unused(gm, model)
    if unused:
        gm.meta["fxgrow_unused"] = unused
    if flags:
        gm.meta[FLAGS] = flags
    if both.fixed:
        gm.meta["fxgrow_fixed"] = both.fixed
        guard_buffers(gm, both.fixed)
    own = {name: module.training for name, module in model.named_modules(remove_duplicate=False)}
    for name, module in gm.named_modules(remove_duplicate=False):
        if name in own:
            module.training = own[name]
        elif name in follow:
            module.training = own.get(name.rpartition(".")[0], model.training)
    check_hooks(model, gm, both.visited)
    carry(model, gm)
    gm.recompile()
    return gm


def _root(model: nn.Module, both: Traces) -> nn.Module:
    """Build a root module that holds the model's own modules and tensors, and the constants that `forward` created."""
    root = nn.Module()
    for name, value in model.__dict__.items():
        if name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            value = type(value)(value)  # a copy: the model's own dict stays unchanged
        root.__dict__[name] = value
    for name in both.root.__dict__.keys() - model.__dict__.keys():
        root.__dict__[name] = both.root.__dict__[name]
    return root


def _persist_what_the_model_does(gm: fx.GraphModule, model: nn.Module) -> None:
    """Make `state_dict` hold what the model's holds: no constants, and no tensors that are plain attributes."""
    theirs = dict(model.named_modules(remove_duplicate=False))
    for path, module in gm.named_modules():
        source = theirs.get(path)
        if source is module:
            continue
        kept = set() if source is None else source._buffers.keys() - source._non_persistent_buffers_set
        module._non_persistent_buffers_set.update(module._buffers.keys() - kept)
