"""A GraphModule that sets its mode, saves and loads as the original model does."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor, fx, nn

from ...functional import ModeGuard, ModeValue
from ..inputs.call import has_numbers
from ..recording.module_recording import RealCopies, StandIns
from ..recording.recorder import Recorder, run_recorded
from ..user_objects.module_twin import Twin
from ..user_objects.state_dict_hooks import STANDS_IN, STATE_HOOKS, USER, user_of
from ..user_objects.warnings import silent

FLAGS = "fxgrow_flags"
"""The key of `meta` that holds, for each mode, the paths of modules whose flag is not that of the mode, with the
flag."""


class TracedModule(fx.GraphModule):
    """The GraphModule that `fxgrow.trace` returns for a model with its own `train` method (one that keeps norms frozen,
    say), or with its own hooks or methods for `state_dict` and `load_state_dict`."""

    def train(self, mode: bool = True) -> Self:
        """Set the mode as the `train` method of the original model does."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        _train(self, mode)
        for path, flag in self.meta.get(FLAGS, {}).get(bool(mode), ()):
            for name, module in self.named_modules(remove_duplicate=False):
                if name == path:
                    module.training = flag
        follow_owners(self)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state dict that the original model would return."""
        user = user_of(self)
        return super().state_dict(*args, **kwargs) if user is None else user.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load a state dict as the original model does."""
        user = user_of(self)
        return super().load_state_dict(*args, **kwargs) if user is None else user.load_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Support `load_state_dict` of a module that contains this one."""
        whole: Any = user_of(self)
        if whole is None:
            whole = super()
        whole._load_from_state_dict(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that has the hooks and the stand-in for the user's model, which GraphModule's own copy
        lacks."""
        made: Any = super().__deepcopy__(memo)
        for name in (*STATE_HOOKS, USER):
            if name in self.__dict__:
                made.__dict__[name] = copy.deepcopy(self.__dict__[name], memo)
        user_of(made)
        return made  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickle, which would otherwise restore a plain GraphModule."""
        return _reloaded, (super().__reduce__(), type(self).__name__, self.meta.get(FLAGS, {}))


def _train(module: nn.Module, mode: bool) -> None:
    """Set the mode without calling the `train` methods of stand-ins, whose effect is stored under `FLAGS`."""
    module.training = mode
    for child in module.children():
        if STANDS_IN in child.__dict__:
            _train(child, mode)
        else:
            child.train(mode)


def follow_owners(gm: nn.Module) -> None:
    """Put the mode guards and mode values of a traced model into the modes of the modules that hold them."""
    for module in gm.modules():
        for inner in module.children():
            if isinstance(inner, ModeGuard | ModeValue):
                inner.training = module.training


def _reloaded(reduced: tuple[Any, ...], name: str, flags: dict[bool, Any]) -> TracedModule:
    """Restore a pickled `TracedModule`."""
    make, arguments = reduced
    gm = make(*arguments)
    made = TracedModule(gm, gm.graph, name)
    for held in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
        made.__dict__[held] = gm.__dict__[held]  # including those that the graph does not use
    made.__dict__.update({held: arguments[0][held] for held in (*STATE_HOOKS, USER) if held in arguments[0]})
    made.training = gm.training
    made.meta[FLAGS] = flags
    user_of(made)
    return made


def flags_of(model: nn.Module) -> dict[bool, tuple[tuple[str, bool], ...]]:
    """Return, for each mode, the modules with another flag after the model's own `train`; empty if there are none."""
    found = {}
    for mode in (False, True):
        found[mode] = tuple((name, flag) for name, flag in flags_in(model, mode).items() if flag != mode)
    return found if any(found.values()) else {}


def flags_in(model: nn.Module, mode: bool) -> dict[str, bool]:
    """Return the flag of each module in a mode. A user-defined `train` method runs on a copy with tensors of its own,
    as it may write to parameters or freeze them."""
    if not has_train_of_its_own(model):
        return dict.fromkeys((name for name, _ in model.named_modules(remove_duplicate=False)), mode)
    stand_ins, recorder = StandIns(), Recorder()  # code may write to these
    stand_ins.begin(model)
    twin = Twin(stand_ins)(model)
    run_recorded(lambda: twin.train(mode), stand_ins.mode, torch.is_grad_enabled(), recorder)
    return {name: module.training for name, module in twin.named_modules(remove_duplicate=False)}


def written_by_train(model: nn.Module, mode: bool) -> list[str]:
    """Return the names of parameters and buffers that the model's own `train` changes when it sets a mode."""
    if not has_train_of_its_own(model):
        return []
    twin = Twin(RealCopies())(model)
    with silent():
        twin.train(mode)
    after = dict(_tensors(twin))
    return [name for name, tensor in _tensors(model) if name not in after or not _alike(tensor, after[name])]


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers of a model under all their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same metadata and values. Tensors without values are compared by metadata alone."""
    if (one.shape, one.dtype, one.device, one.layout) != (other.shape, other.dtype, other.device, other.layout):
        return False
    if not has_numbers(one.detach()) or one.layout is not torch.strided:
        return True
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


def set_mode(twin: nn.Module, model: nn.Module, mode: bool) -> None:
    """Put a copy of a model into a mode without calling the model's own `train`."""
    flags = flags_in(model, mode)
    for name, module in twin.named_modules(remove_duplicate=False):
        module.training = flags.get(name, mode)


def has_train_of_its_own(model: nn.Module) -> bool:
    """Whether any module of a model overrides `train`."""
    return any(type(m).train is not nn.Module.train or "train" in vars(m) for m in model.modules())
