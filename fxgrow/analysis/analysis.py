"""The analysis of a model: its program and the axes of everything in it. Made once, read by every pass."""

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
from ..capture.lowering.snapshot import Snapshot
from ..capture.lowering.template import same_template
from ..capture.program.call_key import meta_of
from ..capture.program.program import Program
from ..capture.recording.fake_tensors import empty_fake
from ..capture.recording.range_checks import may_run, rows
from ..capture.traced_model.checks import check_model, check_wrapper
from ..capture.traced_model.decisions import guards
from ..capture.traced_model.other_modes import capture_notes, other_programs, speak_for
from ..capture.user_objects.user_code import may_change, target_of
from ..errors import FxgrowError, Kind, usage
from ..global_state import plain
from ..rules import RULES
from .solver import DimsSolver


@dataclass(frozen=True, slots=True)
class OtherMode:
    """A model in a mode in which it runs other operators than in the mode that it is in."""

    training: bool
    analysis: Analysis | None
    """None where it does not run in that mode on the example inputs."""
    problem: str = ""

    @property
    def name(self) -> str:
        """In words."""
        return "training mode" if self.training else "evaluation mode"


@dataclass(frozen=True, slots=True)
class OtherRank:
    """The program of a model for inputs with another number of axes, and these inputs."""

    program: Program
    inputs: tuple[Any, ...]


Scale = tuple[int, int, int]
"""(multiple, divisor, number added): what becomes of a size."""
Scales = tuple[tuple[Scale, ...], ...]
"""Of each row, the first that a model takes."""
_LARGER: tuple[Scale, ...] = ((16, 1, 0), (4, 1, 0), (2, 1, 0))
_SMALLER: tuple[Scale, ...] = ((1, 16, 0), (1, 8, 0), (1, 4, 0), (1, 2, 0), (1, 1, -1))
_SMALLEST: tuple[Scale, ...] = ((0, 1, 1), (0, 1, 3))
FURTHER: Scales = tuple((scale,) for scale in (*_LARGER, *_SMALLER, *_SMALLEST))
"""Sizes of inputs beside the second ones: what is pooled to one position may be more of them only for an image many
times as high, and a table may be cut to shorter inputs only."""
EXTREMES: Scales = (_LARGER, _SMALLER, _SMALLEST)
"""Those that are looked at where little speaks for a difference."""
MULTIPLES: Scales = (((2, 1, 0), (1, 2, 0)),)
"""Those that tell a difference of two sizes from a number: the second sizes may have one added to both."""
MOST_OPS = 400
"""Operators of a program beyond which it is not looked at, if it has many times those for the example: a loop over the
length of the input."""
T = TypeVar("T")
_CALLS = frozenset({"call_function", "call_module"})


class Analysis:
    """What fxgrow knows of a traced model. It holds no reference to the model and none of its numbers."""

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
        """Of the model that was analysed; it fits models with the same one."""
        self.digest = model.digest
        """The same for all processes."""
        self.size = model.size
        """The number of parameters, and the bytes of parameters and buffers."""
        self.lowering = lowering
        self.call = call
        """What the model was analysed with: positional arguments and those by name."""
        self.inputs = tuple(inputs)
        """The same, one value for each placeholder of the graph: a tensor, a plain value or a container."""
        self.remembered = remembered(model.gm)
        """What the model itself was traced with."""
        self.dims = DimsSolver(program, fresh=fresh).solve()
        self.user_code = any(node.op in _CALLS and may_change(target_of(node, model.modules)) for node in model.nodes)
        """Whether the model runs code that may do something else the next time."""
        self.rules = RULES.version
        """Of the rules that it was made with."""
        self._volumes: DimsSolver | None = None
        self._capture = capture_notes(model.gm)
        self._others: tuple[OtherMode, ...] | None = None
        self._second: Program | None = None
        self._second_inputs: tuple[Any, ...] = ()
        self._apart: list[Program] | None = None
        """Those for sizes of single axes."""
        self._alone: list[Program] | None = None
        """Those for single entries along axes that have one size only otherwise."""
        self._ranks: tuple[OtherRank, ...] | None = None
        self._asked = False
        self._kept: dict[type, Any] = {}
        self._further: dict[tuple[tuple[tuple[int, int], int], ...], Program | None] = {}

    @one_at_a_time
    def others(self, gm: fx.GraphModule) -> tuple[OtherMode, ...]:
        """The modes in which a model with this fingerprint runs other operators than in this program; mostly none."""
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
        """What a pass has found out of the model once and for all; made when first asked for."""
        if kind not in self._kept:
            self._kept[kind] = make()
        found: T = self._kept[kind]
        return found

    @property
    def notes(self) -> tuple[str, ...]:
        """What every plan says of the capture: guesses, the one mode that it stands for, comparisons not made."""
        return (*self.call.guessed, *self._capture)

    @property
    def guessed(self) -> tuple[str, ...]:
        """A sentence for each input whose shape nobody gave, so that it was inferred from the first layers."""
        return self.call.guessed

    @property
    @one_at_a_time
    def volumes(self) -> DimsSolver:
        """The axes when residual joins keep their operands apart; made when first asked for."""
        if self._volumes is None:
            self._volumes = DimsSolver(self.program, adapt_skips=True).solve()
        return self._volumes

    @property
    def solved(self) -> tuple[DimsSolver, ...]:
        """The axes of its program, as far as they have been found: `dims`, and `volumes`."""
        return (self.dims,) if self._volumes is None else (self.dims, self._volumes)

    @one_at_a_time
    def fits(self, model: Snapshot) -> bool:
        """Whether this is still what is to be known of a model: its graph, modules and rules are the same, and the
        user's own code, recorded anew, does what it did."""
        if self.fingerprint != model.fingerprint or self.rules != RULES.version:
            return False
        self.lowering.forget()
        for node in model.nodes:
            call = self.program.calls.get(node.name)
            if call is None or not may_change(target := target_of(node, model.modules)):
                continue
            try:
                now, _, _ = self.lowering.template(target, call.args, call.kwargs)
            except Exception:  # the user's code, which may raise whatever it likes; the new analysis says so
                return False
            if not same_template(now, call.template):
                return False
        return True

    @one_at_a_time
    def second(self, gm: fx.GraphModule) -> Program | None:
        """The program of the same model for inputs of other sizes, to tell numbers that follow the input from those of
        the model; None if the model takes no others. Made when first asked for."""
        if not self._asked:
            self._second, self._asked = self._at_second_sizes(gm), True
        return self._second

    def following(self) -> list[tuple[int, int]]:
        """Sizes of the inputs that the second program has otherwise: (here, there)."""
        return sizes_between(self.inputs, self._second_inputs)

    def further(self, gm: fx.GraphModule, sizes: Mapping[tuple[int, int], int]) -> Program | None:
        """The program for inputs of still other sizes, given for each of `following`; None if the model does not take
        them."""
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
        """Inputs that take no memory, on the devices of the example's."""
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
        """The inputs of the second program; none before it is asked for, or if there is none."""
        return self._second_inputs

    def elsewhere(self, gm: fx.GraphModule, scales: Scales = FURTHER) -> Iterator[Program]:
        """The programs for inputs of other sizes, each made when it is asked for: the second one, those for multiples
        of the sizes that differ in it, those as long as the model's tables, and those in which one of several axes of
        one size alone has another."""
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
        """The programs for inputs that have one entry along an axis whose size the second ones do not change: where it
        meets others, it is repeated."""
        if self._alone is None:
            self.second(gm)
            model, first = Snapshot(gm), self._without_values(self.inputs)
            found = (self._lowered(model, inputs) for inputs in of_one(first, self._second_inputs))
            self._alone = [program for program in found if program is not None]
        yield from self._alone

    @one_at_a_time
    def at_other_ranks(self, gm: fx.GraphModule) -> tuple[OtherRank, ...]:
        """The programs for inputs with more and with fewer axes, as far as the model takes them."""
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
        """Whether the second inputs add the same to several sizes, so that differences of these stay what they are."""
        self.second(gm)
        added = [there - here for here, there in self.following()]
        return len(set(added)) < len(added)

    def at(self, gm: fx.GraphModule, sizes: Mapping[tuple[int, int], int]) -> Program | None:
        """The program of the model, or of one like it in the other mode, for inputs of other sizes, given for each of
        `following`; None if it does not take them."""
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
    """Find out which axes of a traced model grow together, and what stands in the way. Runs no forward pass.

    Args:
        gm: a traced model, on any device (the meta device too); not changed.
        example_inputs: what the model takes: tensors, of which shapes and dtypes count, plain values, and containers of
            them. By default what the model was traced with, else what its graph's metadata says, else inferred from
            the first layers (`Analysis.guessed` says so).
        example_kwargs: the same by name.
        lowering: signatures lowered by an earlier analysis, to be used again.
        model: what was read of the model, if the caller has it already.
        fresh: it is a new block, in which no unit has a value yet that must stay.

    Raises:
        UsageError: not a traced model, a module that cannot be grown (lazy, quantised, parametrised), or shapes that
            do not fit or cannot be inferred.
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
    lowering, model = lowering or Lowering(), model or Snapshot(gm)
    lowering.forget()
    call, inputs, program = example_values(
        gm, example_inputs, example_kwargs, lambda given: lower(model, given, lowering)
    )
    return Analysis(program, lowering, call, inputs, model, fresh=fresh)
