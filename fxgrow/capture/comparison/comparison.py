"""Record a module and its trace, in both modes and at two sets of sizes, and find where they differ."""

from __future__ import annotations

import re
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...errors import FxgrowError, Kind
from ..containers import leaves, replaced
from ..inputs.call import Call, has_numbers, placeholders, spread
from ..inputs.inputs import example_values, where_the_model_is
from ..inputs.second_sizes import second
from ..lowering.build import lower
from ..lowering.lowering import Lowering
from ..lowering.snapshot import Snapshot
from ..recording import shapes
from ..recording.expressions import OUTPUT
from ..recording.fidelity import Difference, difference
from ..recording.module_recording import RealCopies, Recording, StandIns, record_model
from ..source_lines import CAPTURE, forward_line, located, raising_node
from ..traced_model.decisions import guards
from ..traced_model.other_modes import MODES, modes_of
from ..traced_model.traced import follow_owners, set_mode
from ..user_objects.caches import Caches
from ..user_objects.code_traits import traits_of_calls
from ..user_objects.module_twin import Twin
from ..user_objects.random_streams import Drawn, draws
from ..user_objects.user_state import Reach


@dataclass(frozen=True, slots=True)
class Examples:
    """The example inputs and the fixed arguments that `trace` was given."""

    call: Call | None
    train_call: Call | None
    concrete: Mapping[str, Any]


Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword inputs."""
Recorded = tuple[Recording | None, Exception | None]
_DRAWS = Difference("random numbers from a generator of Python or NumPy", "", "", "draws")
_STAND_INS = (
    "use isinstance(x, torch.Tensor) and conditions that need no values, and let errors pass: fxgrow and torch.fx run "
    "this code on stand-ins for tensors, which have another class and no values"
)
_GRADIENTS = "let forward run the same operators with and without gradients; only one of them could be grown"
_REMEMBERED = (
    "keep what the next call reads in a buffer, self.register_buffer(name, tensor), or put the code that changes it "
    "into a module inside the model, and name that module or its class in leaf="
)
_IN_PLACE = re.compile("in-?place", re.IGNORECASE)
"""Matches autograd's errors about in-place writes that it does not support."""


class Comparison:
    """A comparison of a module with its trace. It keeps the recordings of the module."""

    def __init__(self, model: nn.Module, gm: fx.GraphModule, examples: Examples, caches: Caches, reach: Reach) -> None:
        self._traits = traits_of_calls(model)
        self._caches = caches
        self._reach = reach
        self.model, self.gm, self.examples = model, gm, examples
        self.notes: list[str] = []
        self.modes: set[bool | None] = set()
        """The modes that were compared; None for the current flags of the modules."""
        self.at = ""
        self._gradients = True
        self._stand_ins = StandIns(reach.generators)
        self._second: Inputs | None = None
        self._guarded = any(guards(gm.graph))
        self._guard: FxgrowError | None = None
        """The first error of a guard for inputs of other sizes."""
        self._known: dict[Any, Recorded] = {}
        self.names: dict[int, str] = {}
        for name, tensor in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ):
            self.names.setdefault(id(tensor), name)
        call = examples.call or self._guess()
        self.known = call is not None
        calls = {False: call or Call(), True: examples.train_call or call or Call()}
        devices = list(dict.fromkeys(t.device for t in (*model.parameters(), *model.buffers())))
        self._calls = {mode: where_the_model_is(given, devices) for mode, given in calls.items()}

    def _guess(self) -> Call | None:
        """Return a call inferred from the graph; None if that is not possible."""
        lowering, snapshot = Lowering(), Snapshot(self.gm)
        try:
            return example_values(self.gm, None, None, lambda given: lower(snapshot, given, lowering))[0]
        except FxgrowError:
            return None

    def _inputs(self, training: bool) -> Inputs:
        """Return the example inputs of a mode."""
        call = self._calls[training]
        return call.args, dict(call.kwargs)

    def differs(self, training: bool | None) -> Difference | None:
        """Return the first difference in one mode (None: with the current flags), at the example's sizes or at
        others."""
        first = self._inputs(self.model.training if training is None else training)
        found = self._at(first, training)
        self.at = ""
        if found is not None:
            return found
        others = self._others(first, training)
        if others is None:
            why = "the module takes none that were tried"
            if self._guard is not None:
                why = f"at those that were tried and that the module takes, {self._guard.refusal.what}"
            self.notes.append(f"not compared at other sizes {mode_text(training)}: {why}")
            return None
        found = self._at(others, training)
        self.at = f" (on inputs of {_sizes(others)}, though not on those of {_sizes(first)})"
        return found

    def differs_with_other_flags(self, paths: Sequence[str]) -> Difference | None:
        """Return the first difference if some modules are in the opposite mode, in each mode the trace is valid for."""
        for training in (False, True):
            if MODES[training] not in modes_of(self.gm):
                continue
            model, graph = (Twin(lambda tensor: tensor)(some) for some in (self.model, self.gm))
            set_mode(model, self.model, training)
            set_mode(graph, self.gm, training)
            there = dict(graph.named_modules(remove_duplicate=False))
            for some in (model, graph):
                for changed in {some.get_submodule(path) for path in paths if path in there}:
                    changed.training = not changed.training
                follow_owners(some)
            inputs = self._inputs(training)
            ours, _ = self._record(model, self._concrete(inputs), None)
            try:
                theirs, wrong = self._record(graph, inputs, None)
            except FxgrowError as error:
                if error.kind is Kind.WRONG_MODE:
                    continue
                raise
            if ours is None:
                continue
            if theirs is None:
                return self._raised(wrong)
            found = self._difference(ours, theirs)
            if found is not None:
                return found
        return None

    def _others(self, first: Inputs, training: bool | None) -> Inputs | None:
        """Return inputs of other sizes that the module accepts. Inputs found for one mode are used for the other one if
        it accepts them."""
        if self._second is not None and self.examples.train_call is None:
            return self._second if self._taken(self._second, training) else self._further(first, training)
        found = second(first, lambda some: self._module((some[0], some[1]), training)[0] is not None)
        if found is not None and not self._taken((found[0], found[1]), training):
            found = second(first, lambda some: self._taken((some[0], some[1]), training))
        return self._noted(found)

    def _further(self, first: Inputs, training: bool | None) -> Inputs | None:
        """Return inputs of other sizes for a mode that does not accept those found for another mode: if possible,
        inputs that both accept."""
        if self._module(first, training)[0] is None:  # it reads values, so it accepts no inputs without values
            return None

        def taken(some: tuple[Any, ...], modes: Iterable[bool | None]) -> bool:
            return all(self._taken((some[0], some[1]), mode) for mode in modes)

        both = dict.fromkeys((training, *sorted(self.modes, key=str)))
        found = second(first, lambda some: taken(some, both))
        return self._noted(found or second(first, lambda some: taken(some, [training])))

    def _noted(self, found: tuple[Any, ...] | None) -> Inputs | None:
        """Store inputs of other sizes for later analyses, and return them."""
        if found is None:
            return None
        self._second = found[0], found[1]
        self.gm.meta.setdefault("fxgrow_second", []).append(self._as_placeholders(self._second))
        return self._second

    def _taken(self, inputs: Inputs, training: bool | None) -> bool:
        """Whether the module accepts inputs, and the graph is valid for them: its guards raise no error."""
        if self._module(inputs, training)[0] is None:
            return False
        if not self._guarded:
            return True
        _, wrong = self._record(self.gm, inputs, training)
        if not isinstance(wrong, FxgrowError) or wrong.kind is not Kind.OTHER_DECISION:
            return True
        self._guard = self._guard or wrong
        return False

    def _as_placeholders(self, inputs: Inputs) -> tuple[Any, ...]:
        """Return one value for each placeholder, with tensors on the meta device."""
        values = spread(placeholders(self.gm), Call(*inputs))
        return tuple(replaced(value, Tensor, lambda t: t.to("meta")) for value in values)

    def _at(self, inputs: Inputs, training: bool | None) -> Difference | None:
        """Return the first difference on given inputs."""
        ours, error = self._module(inputs, training)
        if ours is None:
            return self._really(inputs, training, error)
        theirs, wrong = self._record(self.gm, inputs, training)
        if theirs is None:
            return self._raised(wrong)
        found = self._draws(ours, theirs, lambda: self._record(self.model, self._concrete(inputs), training)[0])
        found = found or self._difference(ours, theirs)
        if found is None and ours.remembers:
            found = self._twice(inputs, training)
        if found is None and (ours.asked or self._traits.sees_stand_ins):
            found = self._with_tensors(theirs, inputs, training)
        if found is None and self._traits.looks_at_gradients:
            found = self._without_gradients(ours, inputs, training)
        return self._told(found, inputs, training, "")

    def _with_tensors(self, graph: Recording, inputs: Inputs, training: bool | None) -> Difference | None:
        """Return the difference of a real run of the module, whose code may treat real tensors differently from fake
        ones."""
        if not all(has_numbers(leaf) for leaf in leaves(inputs) if isinstance(leaf, Tensor)):
            self.notes.append(f"not compared with a real run {mode_text(training)}: the example inputs have no values")
            return None
        real, error = self._run(self.model, self._concrete(inputs), training)
        if real is None:
            self.notes.append(f"not compared with a real run {mode_text(training)}: {_reason(error)}")
            return None
        found = self._difference(real, graph)
        return None if found is None else replace(found, module=f"{found.module} on real tensors", hint=_STAND_INS)

    def _without_gradients(self, ours: Recording, inputs: Inputs, training: bool | None) -> Difference | None:
        """Return what the module does differently without gradients: a growth is proved for only one of the two."""
        if not self._gradients:
            return None
        self._gradients = False
        try:
            other, _ = self._record(self.model, self._concrete(inputs), training)
        finally:
            self._gradients = True
        found = None if other is None else difference(ours, other, self.names, gradients=False)
        if found is None:
            return None
        module, graph = f"{found.module} with gradients", f"{found.graph or 'does not'} without them"
        return replace(found, module=module, graph=graph, hint=_GRADIENTS)

    def _draws(self, ours: Recording, theirs: Recording, again: Callable[[], Recording | None]) -> Difference | None:
        """Return the difference in numbers drawn outside torch, unless another thread has drawn them."""
        if ours.drawn == theirs.drawn:
            return None

        def drawn() -> Drawn:
            made = again()
            return () if made is None else made.drawn

        if threading.active_count() > 1 and not draws(drawn, self._reach.generators, numpy=self._reach.numpy):
            return None
        return _DRAWS

    def _really(self, inputs: Inputs, training: bool | None, error: Exception | None) -> Difference | None:
        """Compare real runs of copies on the given inputs, for a module that reads values, which fake tensors lack."""
        args, kwargs = inputs
        ours = None
        concrete = args, {**kwargs, **self.examples.concrete}
        if all(has_numbers(leaf) for leaf in leaves(inputs) if isinstance(leaf, Tensor)):
            ours, _ = self._run(self.model, concrete, training)
        if ours is None:
            self.notes.append(f"not compared {mode_text(training)} on inputs of {_sizes(inputs)}: {_reason(error)}")
            return None
        theirs, wrong = self._run(self.gm, inputs, training)
        if theirs is None:
            return self._raised(wrong)
        found = self._draws(ours, theirs, lambda: self._run(self.model, concrete, training)[0])
        found = found or self._difference(ours, theirs)
        return self._told(found, inputs, training, ", with the values of the example")

    def _told(self, found: Difference | None, inputs: Inputs, training: bool | None, how: str) -> Difference | None:
        """Return a difference; if there is none, note what was compared."""
        if found is None:
            self.modes.add(training)
            self.notes.append(f"compared with the module {mode_text(training)} on inputs of {_sizes(inputs)}{how}")
        return found

    def _twice(self, inputs: Inputs, training: bool | None) -> Difference | None:
        """Return the difference in two successive calls: a module may keep something in the first and read it in the
        second."""
        ours, _ = self._record(self.model, self._concrete(inputs), training, calls=2)
        theirs, wrong = self._record(self.gm, inputs, training, calls=2)
        again = "when it is called again"
        if ours is None:
            self.notes.append(f"not compared {mode_text(training)} {again}: it raises an error then")
            return None
        if theirs is None:
            return replace(self._raised(wrong, f" {again}"), hint=_REMEMBERED)
        found = self._difference(ours, theirs)
        hint = _REMEMBERED if found is None else found.hint or _REMEMBERED
        return found if found is None else replace(found, module=f"{found.module} {again}", hint=hint)

    def _raised(self, wrong: Exception | None, when: str = "") -> Difference:
        """Return the difference for a graph that raises an error."""
        return Difference(f"on such inputs{when}", f"raises {_reason(wrong)}", raising_node(self.gm, wrong))

    def _difference(self, ours: Recording, theirs: Recording) -> Difference | None:
        """Return the first difference, with a line of the user's code."""
        found = difference(ours, theirs, self.names)
        if found is None or found.where or not found.end:
            return found
        returns = found.end.startswith(OUTPUT) or found.end.endswith(OUTPUT)
        return replace(found, where=forward_line(self.model, returns=returns))

    def _concrete(self, inputs: Inputs) -> Inputs:
        """Return inputs together with the arguments fixed by `concrete_args`."""
        return inputs[0], {**inputs[1], **self.examples.concrete}

    def _module(self, inputs: Inputs, training: bool | None) -> tuple[Recording | None, Exception | None]:
        """Return the module's recording, which is made once for each set of sizes."""
        key = (training, repr(_sizes(inputs)))
        if key not in self._known:
            self._known[key] = self._record(self.model, self._concrete(inputs), training)
        return self._known[key]

    def _record(self, model: nn.Module, inputs: Inputs, training: bool | None, calls: int = 1) -> Recorded:
        """Record a model on fake tensors; return the recording, or the error that the model raises."""
        self._caches.clean()  # otherwise the next recording would find tensors of the last one
        try:
            known, on = self._stand_ins, self._gradients
            made = record_model(
                model,
                *inputs,
                training=training,
                stand_ins=known,
                calls=calls,
                gradients=on,
                assigns_data=self._traits.assigns_data,
            )
            return made, None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model may raise anything on inputs that it does not accept
            if isinstance(error, FxgrowError) and error.kind is Kind.OTHER_DECISION:
                return None, error
            if isinstance(error, FxgrowError) and not error.refusal.where:
                raise located(error) from None
            if is_our_own(error):
                raise
            if self._gradients and _IN_PLACE.search(str(error)):
                self._gradients = False  # it runs only without gradients: it writes to views or parameters
                self._known.clear()
                return self._record(model, inputs, training, calls)
            return None, error

    def _run(self, model: nn.Module, inputs: Inputs, training: bool | None) -> Recorded:
        """Record a real run on copies of the model's tensors; return the recording, or the error that the model
        raises."""
        assigns, copies = self._traits.assigns_data, RealCopies(self._reach.generators)
        try:
            return record_model(model, *inputs, training=training, stand_ins=copies, assigns_data=assigns), None
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a model may raise anything on inputs that it does not accept
            if is_our_own(error):
                raise
            return None, error


def is_our_own(error: Exception) -> bool:
    """Whether the recorder itself has failed, which says nothing about the model. Errors about shapes that do not fit
    do not count: the recorder raises them in place of torch's operators."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    return file.startswith(CAPTURE) and file != shapes.__file__


def mode_text(training: bool | None) -> str:
    """Describe a mode in words, for messages; None stands for the current flags of the modules."""
    if training is None:
        return "with the flags that the modules have"
    return "in training mode" if training else "in evaluation mode"


def _reason(error: Exception | None) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _sizes(inputs: Any) -> str:
    """Return the shapes of tensors and the plain numbers among inputs, as text."""
    texts = []
    for leaf in leaves(inputs):
        if isinstance(leaf, Tensor):
            texts.append("x".join(map(str, leaf.shape)) or "a scalar")
        elif isinstance(leaf, int | float):
            texts.append(str(leaf))
    return ", ".join(texts)
