"""The analysis of a model: its program and the axes of all values, computed once and used by every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..capture.containers import changed, leaves
from ..capture.inputs.call import Call, remembered
from ..capture.inputs.inputs import example_values
from ..capture.inputs.second_sizes import apart, of_one, of_other_ranks, resized, second, sizes_between
from ..capture.locks import one_at_a_time
from ..capture.lowering.build import lower
from ..capture.lowering.lowering import Lowering
from ..capture.lowering.root_hooks import hooks_of, record_again
from ..capture.lowering.snapshot import Snapshot
from ..capture.lowering.template import same_template
from ..capture.program.call_key import meta_of
from ..capture.program.program import Program
from ..capture.recording.fake_tensors import empty_fake
from ..capture.recording.range_checks import may_run, rows
from ..capture.traced_model.checks import check_forward, check_model, check_wrapper, has_other_forward
from ..capture.traced_model.decisions import guards
from ..capture.traced_model.other_modes import capture_notes, other_programs, speak_for
from ..capture.user_objects.user_code import may_change, target_of
from ..errors import FxgrowError, Kind, usage
from ..global_state import plain
from ..rules import RULES
from .solver import DimsSolver


@dataclass(frozen=True, slots=True)
class OtherMode:
    """The mode in which a model is not at present, if it runs different operators in that mode."""

    training: bool
    analysis: Analysis | None
    """The analysis of the model in that mode; None if it does not run in that mode on the example inputs."""
    problem: str = ""
    """Why it does not run."""

    @property
    def name(self) -> str:
        """The name of the mode for messages."""
        return "training mode" if self.training else "evaluation mode"


@dataclass(frozen=True, slots=True)
class OtherRank:
    """The program of a model for inputs with another number of dimensions, and these inputs."""

    program: Program
    inputs: tuple[Any, ...]


Scale = tuple[int, int, int]
"""A change of a size: (factor, divisor, number added)."""
Scales = tuple[tuple[Scale, ...], ...]
"""Rows of changes; of each row the first one that a model accepts is used."""
_LARGER: tuple[Scale, ...] = ((16, 1, 0), (4, 1, 0), (2, 1, 0))
_SMALLER: tuple[Scale, ...] = ((1, 16, 0), (1, 8, 0), (1, 4, 0), (1, 2, 0), (1, 1, -1))
_SMALLEST: tuple[Scale, ...] = ((0, 1, 1), (0, 1, 3))
FURTHER: Scales = tuple((scale,) for scale in (*_LARGER, *_SMALLER, *_SMALLEST))
"""Further input sizes beside the second ones. Pooling may return more than one position only for a much larger image,
and a table may be cut only for shorter inputs."""
EXTREMES: Scales = (_LARGER, _SMALLER, _SMALLEST)
"""A smaller selection, where a difference is unlikely."""
MULTIPLES: Scales = (((2, 1, 0), (1, 2, 0)),)
"""Sizes that distinguish the difference of two sizes from a constant: the second sizes may both be larger by one."""
MOST_OPS = 400
"""Largest number of operators of a program for further sizes, unless it has at most four times as many as the program
for the example inputs: a loop over the length of the input may have too many."""
T = TypeVar("T")
_CALLS = frozenset({"call_function", "call_module"})


class Analysis:
    """The result of analysing a traced model: its program, the axes of all values, and programs for other inputs and
    modes, which are computed on demand.

    It holds no reference to the model or to its weights, and is valid for all models for which `fits` returns True.
    """

    def __init__(
        self,
        program: Program,
        lowering: Lowering,
        call: Call,
        inputs: Sequence[Any],
        model: Snapshot,
        *,
        fresh: bool = False,
    ) -> None:
        self.program = program
        self.fingerprint = model.fingerprint
        """Identifies the graph and the modules of the model in this process."""
        self.digest = model.digest
        """Identifies the graph and the modules of the model in all processes."""
        self.size = model.size
        """Number of parameters, and bytes of parameters and buffers."""
        self.lowering = lowering
        self.call = call
        """The example inputs: positional and keyword arguments."""
        self.inputs = tuple(inputs)
        """The example inputs, one for each placeholder of the graph: a tensor, a plain value or a container."""
        self.remembered = remembered(model.gm)
        """The inputs with which the model was traced."""
        self.dims = DimsSolver(program, fresh=fresh).solve()
        self.user_code = any(node.op in _CALLS and may_change(target_of(node, model.modules)) for node in model.nodes)
        """Whether the model runs user code that may behave differently the next time."""
        self.rules = RULES.version
        """Version of the rules that were used."""
        self._volumes: DimsSolver | None = None
        self._capture = capture_notes(model.gm)
        self._others: tuple[OtherMode, ...] | None = None
        self._second: Program | None = None
        self._second_inputs: tuple[Any, ...] = ()
        self._apart: list[Program] | None = None
        """Programs for inputs of which a single axis has another size."""
        self._alone: list[Program] | None = None
        """Programs for inputs with size 1 along an axis that the second inputs do not change."""
        self._ranks: tuple[OtherRank, ...] | None = None
        self._asked = False
        self._kept: dict[type, Any] = {}
        self._further: dict[tuple[tuple[tuple[int, int], int], ...], Program | None] = {}

    @one_at_a_time
    def others(self, gm: fx.GraphModule) -> tuple[OtherMode, ...]:
        """Return the modes in which a model with this fingerprint runs other operators than this program."""
        if self._others is None:
            found = []
            for mode in other_programs(gm, self.program, self.inputs, self.lowering):
                speak_for(self.program, training=not mode.training)
                snapshot = Snapshot(gm)
                made = None
                if mode.program is not None:
                    made = Analysis(mode.program, self.lowering, self.call, self.inputs, snapshot)
                found.append(OtherMode(mode.training, made, mode.problem))
            self._others = tuple(found)
        return self._others

    @one_at_a_time
    def kept(self, kind: type[T], make: Callable[[], T]) -> T:
        """Return the object of class `kind` that is cached with this analysis; it is created with `make` if missing."""
        if kind not in self._kept:
            self._kept[kind] = make()
        found: T = self._kept[kind]
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for every plan: guessed input shapes, a trace that is valid in one mode only, comparisons not made."""
        return (*self.call.guessed, *self._capture)

    @property
    def guessed(self) -> tuple[str, ...]:
        """A sentence for each input whose shape was not given and was inferred from the first layers."""
        return self.call.guessed

    @property
    @one_at_a_time
    def volumes(self) -> DimsSolver:
        """The axes for skip="reshape", where residual joins keep their operands apart; computed on demand."""
        if self._volumes is None:
            self._volumes = DimsSolver(self.program, adapt_skips=True).solve()
        return self._volumes

    @property
    def solved(self) -> tuple[DimsSolver, ...]:
        """The axes that have been computed so far: `dims`, and perhaps `volumes`."""
        return (self.dims,) if self._volumes is None else (self.dims, self._volumes)

    @one_at_a_time
    def fits(self, model: Snapshot) -> bool:
        """Return whether this analysis is valid for a model: its graph, modules and rules are the same, and its user
        code, when it is recorded again, runs the same operators."""
        if self.fingerprint != model.fingerprint or self.rules != RULES.version or has_other_forward(model.gm):
            return False
        self.lowering.forget()
        if not self._hooks_fit(model.gm):
            return False
        for node in model.nodes:
            call = self.program.calls.get(node.name)
            if call is None or not may_change(target := target_of(node, model.modules)):
                continue
            try:
                now, _, _ = self.lowering.template(target, call.args, call.kwargs)
            except Exception:  # user code may raise any error; a new analysis will report it
                return False
            if not same_template(now, call.template):
                return False
        return True

    def _hooks_fit(self, gm: fx.GraphModule) -> bool:
        """Return whether the forward hooks of the model itself, recorded again, run the same operators."""
        known = self.program.hooks
        if known is None or not hooks_of(gm):
            return known is None and not hooks_of(gm)
        try:
            now = record_again(gm, self.lowering, known)
        except FxgrowError:  # a new analysis will report it
            return False
        return now is not None and now.same(known)

    @one_at_a_time
    def second(self, gm: fx.GraphModule) -> Program | None:
        """Return the program of the same model for inputs of other sizes, or None if the model accepts no others.

        A number that differs between the two programs depends on the input sizes; other numbers belong to the model.
        """
        if not self._asked:
            self._second, self._asked = self._at_second_sizes(gm), True
        return self._second

    def programs(self, gm: fx.GraphModule) -> tuple[Program, ...]:
        """Return the program for the example inputs, and those for other input sizes and for the other mode, if any."""
        others = (other.analysis.program for other in self.others(gm) if other.analysis is not None)
        second = self.second(gm)
        return (self.program, *(() if second is None else (second,)), *others)

    def following(self) -> list[tuple[int, int]]:
        """Return the input sizes that differ between the two programs: (size in this one, size in the second one)."""
        return sizes_between(self.inputs, self._second_inputs)

    def further(self, gm: fx.GraphModule, sizes: Mapping[tuple[int, int], int]) -> Program | None:
        """Return the program for further input sizes, or None if the model does not accept them.

        Args:
            gm: the model.
            sizes: the size for each of `following`.
        """
        if all(n == here for (here, _), n in sizes.items()):
            return self.program
        if all(n == there for (_, there), n in sizes.items()):
            return self.second(gm)
        key = tuple(sorted(sizes.items()))
        if key not in self._further:
            self._further[key] = self._lowered(Snapshot(gm), self._resized(sizes))
        return self._further[key]

    def _resized(self, sizes: Mapping[tuple[int, int], int]) -> tuple[Any, ...]:
        return resized(self._without_values(self.inputs), self._second_inputs, sizes)

    def _without_values(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return fake tensors with the shapes of the inputs, on the devices of the example inputs."""
        mode = FakeTensorMode()
        devices = iter([x.device for x in leaves(self.inputs) if isinstance(x, Tensor)])

        def fake(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            device = next(devices, x.device)
            if x.layout is not torch.strided or x.is_quantized:
                return x
            shape, stride, dtype, _ = meta_of(x)
            return empty_fake((shape, stride, dtype, device), mode)

        made: tuple[Any, ...] = changed(inputs, fake)
        return made

    @property
    def second_inputs(self) -> tuple[Any, ...]:
        """The inputs of the second program; empty if there is none, or before `second` is called."""
        return self._second_inputs

    def elsewhere(self, gm: fx.GraphModule, scales: Scales = FURTHER) -> Iterator[Program]:
        """Yield programs for inputs of other sizes, each computed on demand: the second one, those in which the sizes
        that differ in it are changed as in `scales`, those in which an input is as long as a table of the model, and
        those in which only one of several axes of equal size changes."""
        second = self.second(gm)
        if second is None:
            return
        yield second
        seen = [self.program, second]
        for row in scales:
            for times, over, more in row:
                sizes = {(here, there): max(here * times // over + more, 1) for here, there in self.following()}
                program = self.further(gm, sizes)
                if program is not None and len(program.ops) <= max(MOST_OPS, 4 * len(self.program.ops)):
                    break
            else:
                continue
            if program not in seen:
                seen.append(program)
                yield program
        if scales:
            ends = ({pair: n} for n in rows(self.program) for pair in self.following() if pair[0] != n)
            yield from filter(None, (self.further(gm, sizes) for sizes in ends))
        if self._apart is None:
            model, first = Snapshot(gm), self._without_values(self.inputs)
            found = (self._lowered(model, inputs) for inputs in apart(first, self._second_inputs))
            self._apart = [program for program in found if program is not None]
        yield from self._apart

    def alone(self, gm: fx.GraphModule) -> Iterator[Program]:
        """Yield programs for inputs with size 1 along an axis that the second inputs do not change, so that it is
        broadcast."""
        if self._alone is None:
            self.second(gm)
            model, first = Snapshot(gm), self._without_values(self.inputs)
            found = (self._lowered(model, inputs) for inputs in of_one(first, self._second_inputs))
            self._alone = [program for program in found if program is not None]
        yield from self._alone

    @one_at_a_time
    def at_other_ranks(self, gm: fx.GraphModule) -> tuple[OtherRank, ...]:
        """Return programs for inputs with more and with fewer dimensions, as far as the model accepts them."""
        if self._ranks is None:
            self._ranks = tuple(self._found_at_other_ranks(gm))
        return self._ranks

    def _found_at_other_ranks(self, gm: fx.GraphModule) -> Iterator[OtherRank]:
        model, guarded = Snapshot(gm), any(guards(gm.graph))
        for direction in of_other_ranks(self._without_values(self.inputs)):
            for row in direction:
                programs = ((self._lowered(model, inputs), inputs) for inputs in row)
                program, inputs = next(((p, given) for p, given in programs if p is not None), (None, ()))
                if program is not None:
                    yield OtherRank(program, inputs)
                elif not guarded:  # a guard may stand for one number of axes, and others are taken
                    break

    def ambiguous(self, gm: fx.GraphModule) -> bool:
        """Return whether the second inputs add the same number to several sizes, so that their differences are the same
        in both programs."""
        self.second(gm)
        added = [there - here for here, there in self.following()]
        return len(set(added)) < len(added)

    def at(self, gm: fx.GraphModule, sizes: Mapping[tuple[int, int], int]) -> Program | None:
        """Return the program of the model, or of the same model in the other mode, for other input sizes, or None if it
        does not accept them.

        Args:
            gm: the model.
            sizes: the size for each of `following`.
        """
        return self._lowered(Snapshot(gm), self._resized(sizes))

    def _lowered(self, model: Snapshot, inputs: tuple[Any, ...]) -> Program | None:
        try:
            program = lower(model, inputs, self.lowering)
        except FxgrowError:
            return None
        return program if may_run(program) else None

    def _at_second_sizes(self, gm: fx.GraphModule) -> Program | None:
        model = Snapshot(gm)

        def program(inputs: tuple[Any, ...]) -> Program | None:
            return self._lowered(model, inputs)

        places = [node for node in model.nodes if node.op == "placeholder"]
        traced = all(_shape(node.meta.get("val")) == _shape(x) for node, x in zip(places, self.inputs, strict=True))
        for known in gm.meta.get("fxgrow_second", ()) if traced else ():  # sizes that the module itself has taken
            inputs = self._without_values(tuple(known))
            if len(known) == len(places) and (found := program(inputs)) is not None:
                self._second_inputs = inputs
                return found
        chosen = second(self._without_values(self.inputs), lambda inputs: program(inputs) is not None)
        self._second_inputs = chosen or ()
        return program(chosen) if chosen is not None else None


def _shape(thing: Any) -> tuple[int, ...] | None:
    return tuple(thing.shape) if isinstance(thing, Tensor) else None


@plain
@one_at_a_time
def analyse(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any] | Call | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    lowering: Lowering | None = None,
    model: Snapshot | None = None,
    fresh: bool = False,
) -> Analysis:
    """Analyse which axes of a traced model grow together, and which cannot grow. Runs no forward pass.

    Example:
        >>> import torch, fxgrow
        >>> from fxgrow.models_zoo import ResNet
        >>> traced = fxgrow.trace(ResNet().eval(), (torch.randn(2, 1, 8, 8),))
        >>> len(fxgrow.analyse(traced).program.ops) > 10
        True

    Args:
        gm: a traced model, on any device (also the meta device); it is not changed.
        example_inputs: positional arguments of the model: tensors, of which only shapes and dtypes are used, plain
            values, and containers of them. The default are the inputs with which the model was traced, or those in the
            metadata of its graph, or else inputs inferred from the first layers (see `Analysis.guessed`).
        example_kwargs: keyword arguments of the model.
        lowering: the lowering of an earlier analysis, whose results are reused.
        model: a snapshot of the model, if the caller has one.
        fresh: whether the model is a newly inserted block, in which no unit has an old value that must stay.

    Raises:
        UsageError: `gm` is not a traced model, has a module that cannot be grown (lazy, quantised, parametrised), or
            shapes do not fit or cannot be inferred.
    """
    if not isinstance(gm, fx.GraphModule):
        if isinstance(gm, nn.Module):
            check_wrapper(gm)
        raise usage(
            Kind.NOT_TRACEABLE,
            f"{type(gm).__name__} is not traced",
            hint="traced = fxgrow.trace(model), or torch.fx.symbolic_trace(model)",
        )
    check_model(gm)
    check_forward(gm)
    lowering, model = lowering or Lowering(), model or Snapshot(gm)
    lowering.forget()
    call, inputs, program = example_values(
        gm, example_inputs, example_kwargs, lambda given: lower(model, given, lowering)
    )
    return Analysis(program, lowering, call, inputs, model, fresh=fresh)
