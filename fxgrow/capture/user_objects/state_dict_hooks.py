"""Carry a model's hooks and methods for `state_dict` and `load_state_dict` over to the traced model.

A traced model has plain modules, or none, in place of the modules that the trace inlines. If such a module has its own
hooks or methods for `state_dict` and `load_state_dict`, it is replaced by a stand-in: an object of the user's class
with the parameters, buffers and modules of the traced model and copies of the module's attributes. Hooks are bound to
it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.module import _WrappedHook

from ...errors import Kind, usage
from .module_twin import Twin
from .stand_ins import slots

STATE_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
USER = "fxgrow_user"
"""Name of the attribute of a traced model that holds the stand-in for the model itself."""
STANDS_IN = "fxgrow_stands_in"
"""Name of the attribute that distinguishes a stand-in inside a traced model from a layer of the user."""
_METHODS = ("state_dict", "load_state_dict", "_save_to_state_dict", "_load_from_state_dict")
_EXTRA = ("get_extra_state", "set_extra_state", "_version")
_OF_TORCH = frozenset(nn.Module().__dict__)
"""Names of the attributes of every `nn.Module`."""


class Held:
    """A wrapper around a stand-in that keeps torch from registering it as a submodule."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


def user_of(gm: nn.Module) -> nn.Module | None:
    """Return the stand-in for a traced model itself, synchronized with the traced model; None if it has none."""
    held = gm.__dict__.get(USER)
    if held is None:
        return None
    made: nn.Module = held.module
    made.__dict__.update({name: gm.__dict__[name] for name in _OF_TORCH})
    return made


def saved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by every name: the default contents of `state_dict`."""
    found: dict[str, Tensor | None] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        start = f"{path}." if path else ""
        found.update((start + name, t) for name, t in part._parameters.items())
        found.update((start + n, t) for n, t in part._buffers.items() if n not in part._non_persistent_buffers_set)
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def has_extra_state(module: nn.Module) -> bool:
    """Return whether a module in the tree adds extra state to `state_dict` by `get_extra_state`."""
    parts = (user_of(part) or part for part in module.modules())
    return any(type(part).get_extra_state is not nn.Module.get_extra_state for part in parts)


def saves_itself(module: nn.Module) -> bool:
    """Return whether a module has its own hooks or methods for `state_dict` and `load_state_dict`."""
    if isinstance(module, fx.GraphModule):
        return _hooked(module) or USER in module.__dict__
    names = (*_METHODS, *_EXTRA)
    own = any(getattr(type(module), name, None) != getattr(nn.Module, name) for name in names)
    return own or _hooked(module) or any(name in module.__dict__ for name in names)


def root_is_carried(model: nn.Module) -> bool:
    """Return whether a traced model needs a stand-in for the model itself, or for a submodule with its own `train`."""
    with_train = (m for m in model.modules() if type(m).train is not nn.Module.train or "train" in m.__dict__)
    return saves_itself(model) or id(model) in _bound(model.modules()) or any(map(saves_itself, with_train))


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in STATE_HOOKS)


def _bound(modules: Iterable[nn.Module]) -> set[int]:
    """Return the `id`s of modules to which state-dict hooks are bound, their own hooks or those of other modules."""
    return {id(m) for module in modules for name in STATE_HOOKS for m in _owners(getattr(module, name).values())}


def _owners(hooks: Iterable[Any]) -> Iterator[nn.Module]:
    for hook in hooks:
        while isinstance(hook, _WrappedHook | partial):
            hook = hook.hook if isinstance(hook, _WrappedHook) else hook.func
        if isinstance(hook, MethodType) and isinstance(hook.__self__, nn.Module):
            yield hook.__self__


def carry(model: nn.Module, gm: fx.GraphModule) -> None:
    """Give a traced model the state-dict hooks and methods of the modules that the trace inlines.

    Args:
        model: the user's model; not modified.
        gm: the traced model; modified in place.

    Raises:
        UsageError: an attribute that a hook or method needs cannot be copied.
    """
    bound = _bound(model.modules())
    sources = dict(_sources(model, gm, bound))
    if not sources:
        return
    stands = {path: _stand(gm, path, source) for path, source in sources.items()}
    rebound = Rebound({id(source): stands[path] for path, source in reversed(sources.items())})
    known = _unchanged(model, gm, *stands.values())
    missing: list[str] = []
    for path, source in sources.items():
        for module in (source, model.get_submodule(path)):  # the latter differs for a nested traced model
            rebound.stands[id(module)] = stands[path]
        missing += [f"{path}.{name}" if path else name for name in _fill(stands[path], source, rebound, known)]
        hooks = {name: rebound.value(source.__dict__[name]) for name in STATE_HOOKS}
        (stands[path] if path else gm).__dict__.update(hooks)
    if "" in stands:
        gm.__dict__[USER] = Held(stands[""])
    _bind_layers(model, gm, rebound)
    if missing:
        _check_saves(model, gm, missing)


def _sources(model: nn.Module, gm: fx.GraphModule, bound: set[int]) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over (path, module) of the modules that need a stand-in: those that save themselves or have hooks bound
    to them, and their submodules."""
    found: set[str] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        inside = bool(path) and path.rpartition(".")[0] in found
        if not (inside or saves_itself(module) or id(module) in bound):
            continue
        target = _place(gm, model, path)
        if target is module:
            continue
        if type(target) is type(module) is not nn.Module and not _hooked(module) and id(module) not in bound:
            continue  # an unused torch layer
        found.add(path)
        yield path, user_of(module) or module


def _place(gm: nn.Module, model: nn.Module, path: str) -> nn.Module:
    """Return the module of a traced model at a path, adding empty modules where it has none."""
    for part in path.split(".") if path else ():
        model = model.get_submodule(part)
        if gm._modules.get(part) is None:
            gm.add_module(part, nn.Module().train(model.training))
        gm = gm.get_submodule(part)
    return gm


def _stand(gm: nn.Module, path: str, source: nn.Module) -> nn.Module:
    """Replace the plain module at a path by a stand-in of the source's class with the same parts, and return it."""
    target = gm.get_submodule(path)
    kind = nn.Module if isinstance(source, fx.GraphModule) else type(source)
    made: nn.Module = object.__new__(kind)
    made.__dict__.update({name: target.__dict__[name] for name in _OF_TORCH} if target is gm else target.__dict__)
    for group in ("_parameters", "_buffers", "_modules"):
        own, theirs = made.__dict__[group], source.__dict__[group]
        own.update({name: None for name, value in theirs.items() if value is None and name not in own})
        items = {**{name: own[name] for name in theirs if name in own}, **own}
        own.clear()
        own.update(items)  # in the order of the source module: a Sequential indexes by order
    if path:
        made.__dict__[STANDS_IN] = True
        parent, _, name = path.rpartition(".")
        gm.get_submodule(parent)._modules[name] = made
    return made


class Rebound(Twin):
    """Copies values and hooks with modules replaced by their stand-ins; tensors and other modules are shared."""

    def __init__(self, stands: dict[int, nn.Module]) -> None:
        super().__init__(lambda tensor: tensor)
        self.stands = stands

    def __call__(self, model: nn.Module) -> nn.Module:
        """Return the stand-in for a module, or the module itself if it has none."""
        return self.stands.get(id(model), model)

    def value(self, value: Any) -> Any:
        """Return a value with the modules in it replaced by their stand-ins."""
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, _WrappedHook):
            module = value.module() if value.with_module else None
            if value.with_module and module is None:
                return value  # the hook's module was deleted
            return _WrappedHook(self._value(value.hook), None if module is None else self(module))
        held = getattr(value, "__dict__", None)
        if type(held) is not dict or isinstance(value, nn.Module | partial | MethodType | FunctionType | type):
            return super()._value(value)
        if id(value) in self._known:
            return self._known[id(value)]
        leads = any(id(x) in self.stands for x in held.values())
        return self._object(value, held) if leads else super()._value(value)

    def _object(self, value: Any, held: Mapping[str, Any]) -> Any:
        """Return a copy of an object that holds a module, with the module replaced."""
        made = copy.copy(value)
        self._keep(value, made)
        made.__dict__.update({name: self._value(x) for name, x in held.items()})
        return made


def _unchanged(*roots: nn.Module) -> dict[int, Any]:
    """Return a memo for `deepcopy` that shares modules and tensors instead of copying them."""
    modules = [module for root in roots for module in root.modules()]
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values())]
    return {id(thing): thing for thing in (*modules, *tensors)}


def _fill(made: nn.Module, source: nn.Module, rebound: Rebound, known: Mapping[int, Any]) -> Iterator[str]:
    """Copy a module's attributes to its stand-in, and yield the names of those that cannot be deep-copied.

    These are left out, because growing copies the traced model.
    """
    if isinstance(source, fx.GraphModule):
        return
    for name, value in slots(source).items():
        object.__setattr__(made, name, rebound.value(value))
    taken = {*made._parameters, *made._buffers, *made._modules, *made.__dict__}
    for name, value in source.__dict__.items():
        if name in taken:
            continue
        carried = rebound.value(value)
        try:
            copy.deepcopy(carried, dict(known))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception:  # for example a lock or a file
            yield name
        else:
            made.__dict__[name] = carried


def _bind_layers(model: nn.Module, gm: nn.Module, rebound: Rebound) -> None:
    """Replace layers whose state-dict hooks are bound to modules that have stand-ins by copies with rebound hooks."""
    copies: dict[int, nn.Module] = {}
    own = {id(module) for module in model.modules()}
    for holder in [module for module in gm.modules() if id(module) not in own]:
        for name, layer in list(holder._modules.items()):
            if layer is None or id(layer) not in own or not _bound([layer]) & rebound.stands.keys():
                continue
            if id(layer) not in copies:
                copies[id(layer)] = _shallow(layer)
                copies[id(layer)].__dict__.update({n: rebound.value(layer.__dict__[n]) for n in STATE_HOOKS})
            holder._modules[name] = copies[id(layer)]


def _shallow(layer: nn.Module) -> nn.Module:
    """Return a shallow copy of a module, with the same tensors and submodules."""
    made: nn.Module = object.__new__(type(layer))
    made.__dict__.update({n: copy.copy(v) if n in _OF_TORCH else v for n, v in layer.__dict__.items()})
    for name, value in slots(layer).items():
        object.__setattr__(made, name, value)
    return made


def _check_saves(model: nn.Module, gm: nn.Module, missing: Sequence[str]) -> None:
    """Check that the state of a model can be saved without the missing attributes.

    Raises:
        UsageError: `state_dict` fails on the traced model but not on the original.
    """
    try:
        gm.state_dict()
        return
    except Exception as error:  # from user code
        why = str(error).strip() or repr(error)
    try:
        model.state_dict()
    except Exception:
        return
    raise usage(
        Kind.UNSUPPORTED_MODEL,
        f"state_dict of {type(model).__name__} uses an attribute that cannot be copied ({', '.join(missing[:3])}): "
        f"{why.splitlines()[0]}",
        where="the model itself",
        hint="give the object a __deepcopy__, or keep it in a global variable",
    )
