"""Record a whole model: the ATen operators of one call on fake tensors, each with the user's source line.

The recording runs a twin of the model (`user_objects/module_twin.py`), so the model, its buffers and its containers are
not modified.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ...errors import Kind, UsageError, usage
from ...global_state import settings_kept
from ..containers import changed
from ..locks import ONE_AT_A_TIME
from ..program.call_key import meta_of
from ..user_objects.attributes import Attributes
from ..user_objects.container_state import copied
from ..user_objects.module_twin import Twin
from ..user_objects.random_streams import Drawn, streams_kept
from ..user_objects.user_state import no_other_threads, reach_of
from .contexts import Contexts
from .fake_tensors import empty_fake, fake_of, has_known_value
from .recorder import Call, DataAssigned, Recorder, run_recorded, storage_of

_TORCH = torch.__file__.rpartition("/")[0] + "/"
_FXGROW = __file__.rpartition("/capture/")[0] + "/"
_SPARSE = frozenset({torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc})
_OTHER_FILES = ("<frozen", "<string", "<eval_with_key", "<attrs")


@dataclass(frozen=True, slots=True)
class Note:
    """The user's source line that ran an operator, and the torch context managers that were active."""

    file: str
    line: int
    function: str
    contexts: Contexts


@dataclass(slots=True)
class Recording:
    """A recorded call of a model: its operators in order, its inputs and outputs, and the tensors behind the fakes."""

    calls: list[Call]
    notes: list[Note]
    inputs: tuple[Any, ...]
    """Positional and keyword arguments as they were before the call, with fake tensors instead of tensors."""
    after: tuple[Any, ...]
    """The same containers after the call, which may have modified them."""
    output: Any
    own: dict[int, Tensor]
    """Maps the `id` of a fake tensor to the real tensor of the model that it represents."""
    kept: list[tuple[Tensor, Tensor]]
    """Tensors that the model holds, each with its fake."""
    left: dict[str, Tensor]
    """The parameters and buffers after the call, by name; `forward` may have reassigned them."""
    training: bool
    remembers: bool = False
    """Whether the call changed state of the model other than tensors, such as a counter or a list."""
    drawn: Drawn = ()
    """The Python and NumPy generators that the call has drawn from, with their states."""
    asked: bool = False
    """Whether code read the value of a fake tensor, and caught the error."""
    alive: list[Any] = field(default_factory=list)


class WholeRecorder(Recorder):
    """A recorder that also keeps, for each operator, the user's source line and the active context managers."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[Note] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[Any, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run the operator and record it with its source line."""
        known = len(self.calls)
        out = super().__torch_dispatch__(func, types, args, kwargs)
        del self.notes[len(self.calls) :]  # notes of a decomposition that failed
        if len(self.calls) > known:
            self.notes += [_note()] * (len(self.calls) - len(self.notes))
            if isinstance(out, Tensor) and out.layout in _SPARSE:
                raise _sparse(out)
        return out


def record_model(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    training: bool | None,
    stand_ins: StandIns | RealCopies | None = None,
    calls: int = 1,
    gradients: bool = True,
    assigns_data: bool = False,
) -> Recording:
    """Record one call of a model, or several in a row.

    Args:
        model: any module; not changed.
        args: positional inputs: trees of tensors (only their shape, dtype and device are used) and other values.
        kwargs: keyword inputs, likewise.
        training: the mode, set by the model's own `train`; None to keep the current flags of its modules.
        stand_ins: fake tensors of earlier recordings of this model, or of another one with the same tensors.
        calls: the number of calls; if more than one, the inputs and the output are tuples with an entry per call.
        gradients: whether autograd is enabled.
        assigns_data: whether code of the model may assign to `data`.

    Raises:
        Exception: any error of the model on such inputs, including one raised because it reads a tensor's values.
    """
    with ONE_AT_A_TIME:
        known = stand_ins or StandIns()
        if known.generators is None:
            known.generators = reach_of(model).generators
        known.begin(model)
        twin = Twin(known)(model)
        if training is not None:
            setting = Recorder()
            setting.by_shape = known.fake
            run_recorded(lambda: twin.train(training), known.mode, gradients, setting)  # it may write to tensors
        fakes: dict[int, Any] = {}

        def given_leaf(leaf: Any) -> Any:
            return fake(leaf) if isinstance(leaf, Tensor) else copied(leaf)

        def fake(tensor: Tensor) -> Tensor:
            if id(tensor) not in fakes:
                fakes[id(tensor)] = tensor, known.input(tensor)
            made = fakes[id(tensor)][1]
            assert isinstance(made, Tensor)
            return made

        given: list[Any] = []
        for _ in range(calls):
            fakes.clear()
            given.append((changed(tuple(args), given_leaf), changed(dict(kwargs), given_leaf)))
        before_it = [changed(each, copied) for each in given]
        recorder = WholeRecorder()
        recorder.by_shape = known.fake
        before = Attributes(twin)
        call = nn.Module.__call__ if isinstance(twin, fx.GraphModule) else type(twin).__call__  # fx prints its errors

        def run() -> list[Any]:
            return [call(twin, *args, **kwargs) for args, kwargs in given]

        inputs_made = [fake for _, fake in fakes.values()]
        watch = DataAssigned(recorder, inputs_made) if assigns_data else nullcontext()
        with streams_kept(known.generators, devices=not known.fake) as streams, settings_kept(no_other_threads), watch:
            outs = run_recorded(run, known.mode, gradients, recorder)
            drawn = streams.drawn()
        left: dict[str, Tensor] = dict(twin.named_parameters(remove_duplicate=False))
        left |= dict(twin.named_buffers(remove_duplicate=False))
        own = {id(made): real for real, made in known.made.values()}
        alive = [twin, dict(known.made)]
        kept = list(known.made.values())
        if calls == 1:
            inputs, after, out = before_it[0], given[0], outs[0]
        else:
            inputs, after, out = tuple(before_it), tuple(given), tuple(outs)
        made = recorder.calls, recorder.notes, inputs, after, out, own, kept, left, twin.training
        return Recording(*made, before.changed, drawn, recorder.asked, alive)


class StandIns:
    """A cache of fake tensors for the tensors of models. Tensors that share storage get fakes that share storage.

    The cache serves several recordings: fakes that one recording has written to are replaced before the next.
    """

    fake = True

    def __init__(self, generators: Sequence[Any] | None = None) -> None:
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.made: dict[int, tuple[Tensor, Tensor]] = {}
        """Maps the `id` of a real tensor to the tensor and its fake."""
        self.generators = generators
        """The random generators that the models can reach; None until the first recording finds them."""
        self._shared: dict[int, list[Tensor]] = {}
        self._bases: dict[int, Tensor] = {}

    def begin(self, model: nn.Module) -> None:
        """Prepare for a recording of a model: drop fakes that cannot be reused, and find its shared storages."""
        for key, (real, fake) in list(self.made.items()):
            if fake._version or has_known_value(real) or self._is_shared(real):
                del self.made[key]
            elif fake.requires_grad != real.requires_grad:
                fake.requires_grad_(real.requires_grad)
        self._shared, self._bases = {}, {}
        known: set[int] = set()
        for tensor in (*model.parameters(), *model.buffers()):
            if id(tensor) not in known and _has_storage(tensor):
                known.add(id(tensor))
                self._shared.setdefault(storage_of(tensor), []).append(tensor)

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the fake of a tensor of the model."""
        if id(tensor) not in self.made:
            made = self._view(tensor) if self._is_shared(tensor) else fake_of(tensor, self.mode)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            self.made[id(tensor)] = tensor, made
        return self.made[id(tensor)][1]

    def input(self, tensor: Tensor) -> Tensor:
        """Return a new fake tensor for an input."""
        made: Tensor = empty_fake(meta_of(tensor), self.mode)
        return made.requires_grad_(True) if tensor.requires_grad and not isinstance(tensor, FakeTensor) else made

    def _is_shared(self, tensor: Tensor) -> bool:
        return _has_storage(tensor) and len(self._shared.get(storage_of(tensor), ())) > 1

    def _view(self, tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        if storage not in self._bases:
            count = tensor.untyped_storage().nbytes() // tensor.element_size()
            self._bases[storage] = empty_fake(((count,), (1,), tensor.dtype, tensor.device), self.mode)
        with self.mode, torch.no_grad():
            return self._bases[storage].as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


class RealCopies:
    """Copies of a model's tensors, to record a run on real data that may write to them."""

    fake = False

    def __init__(self, generators: Sequence[Any] | None = None) -> None:
        self.mode: AbstractContextManager[Any] = nullcontext()
        self.generators = generators
        self.made: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, model: nn.Module) -> None:
        """Discard the copies of an earlier recording."""
        self.made = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the copy of a tensor of the model."""
        if id(tensor) not in self.made:
            made = self.input(tensor)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made.detach(), requires_grad=tensor.requires_grad)
            self.made[id(tensor)] = tensor, made
        return self.made[id(tensor)][1]

    def input(self, tensor: Tensor) -> Tensor:
        """Return a copy of an input."""
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _sparse(tensor: Tensor) -> UsageError:
    return usage(
        Kind.NOT_TRACEABLE,
        f"forward makes a sparse tensor ({tensor.layout}), whose entries cannot be followed through the model",
        hint="leave it dense, or keep that part in a module of its own and trace and grow the modules around it",
    )


def _has_storage(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided
    return plain and not tensor.is_meta


def _note() -> Note:
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_TORCH, _FXGROW, *_OTHER_FILES)):
            return Note(name, frame.f_lineno, frame.f_code.co_name, Contexts.now())
        frame = frame.f_back  # type: ignore[assignment]  # None ends the loop
    return Note("", 0, "", Contexts.now())
