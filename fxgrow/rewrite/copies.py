"""Makes independent copies of models: shared memory stays shared, and hooks on parameters are kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..capture.lowering.shared_storage import in_storages_of, overlapping, place_of
from ..errors import FxgrowError, Kind, usage

HOOKS = frozenset(
    {f"_forward_{kind}" for kind in ("hooks", "pre_hooks", "hooks_with_kwargs", "pre_hooks_with_kwargs")}
    | {"_forward_hooks_always_called", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"}
    | {"_state_dict_pre_hooks"}
)
"""Attributes in which torch keeps a module's hooks."""


def copied(gm: fx.GraphModule, tensors: Mapping[str, Tensor], replaced: Mapping[int, Any]) -> fx.GraphModule:
    """Return an independent copy of a model in which some tensors are replaced.

    Args:
        gm: the model.
        tensors: its parameters and buffers, under every name.
        replaced: replacements of some tensors, by the identity of the original.

    Raises:
        UsageError: the model contains something that cannot be copied.
    """
    memo: dict[int, Any] = dict(replaced)
    for group in overlapping(tensors.values()):
        rest = [tensor for tensor in group if id(tensor) not in memo]
        if len(rest) > 1:
            storage = rest[0].untyped_storage().clone()
            memo.update((id(tensor), _over(tensor, storage)) for tensor in rest)
    try:
        made = copy.deepcopy(gm, memo)
        for name in HOOKS & gm.__dict__.keys():  # copying a GraphModule drops them
            setattr(made, name, copy.deepcopy(gm.__dict__[name], memo))
    except torch.OutOfMemoryError:
        raise
    except (TypeError, RuntimeError) as error:  # for example a lock, a file, or a non-leaf tensor
        raise usage(
            Kind.UNSUPPORTED_MODEL,
            f"the model cannot be copied: {(str(error).strip() or repr(error)).splitlines()[0]}",
            hint="remove such objects from the module, or define __deepcopy__; inplace=True makes no copy",
        ) from error
    for tensor in {id(t): t for t in tensors.values()}.values():
        if id(tensor) not in replaced and hooked(tensor):
            _hook(memo[id(tensor)], tensor)
    return made


def alike(new: Tensor, old: Tensor) -> Tensor:
    """Return a tensor with the memory of `new`, a parameter if `old` is one."""
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new.detach(), requires_grad=old.requires_grad)
    return new.detach()


def tangled(tensors: Mapping[str, Tensor], growing: Mapping[str, Tensor]) -> FxgrowError | None:
    """Return the error if replacing the growing tensors would silently lose something; None if they can be replaced.

    Args:
        tensors: parameters and buffers of the model, under every name.
        growing: the tensors that grow.
    """
    for name, tensor in growing.items():
        if hooked(tensor):
            return usage(
                Kind.UNSUPPORTED_MODEL,
                f"{name} is to grow, but has a hook registered for its current size",
                hint="remove the hook, grow, and register it again on the grown parameter",
            )
    places = {place_of(tensor): name for name, tensor in growing.items()}
    names = {id(tensor): name for name, tensor in reversed(list(tensors.items()))}
    for group in overlapping(in_storages_of(growing.values(), tensors.values())):
        grown = [tensor for tensor in group if place_of(tensor) in places]
        other = next((tensor for tensor in group if grown and place_of(tensor) != place_of(grown[0])), None)
        if other is not None:
            mine, its = names[id(grown[0])], names[id(other)]
            return usage(
                Kind.UNSUPPORTED_MODEL,
                f"{mine} is to grow, but shares memory with {its}, which is a different view of it",
                hint=f"tie them by identity, or give {its} its own memory: p.data = p.data.clone()",
            )
    return None


def hooked(tensor: Tensor) -> bool:
    """Whether a tensor has gradient hooks."""
    return bool(getattr(tensor, "_backward_hooks", None) or getattr(tensor, "_post_accumulate_grad_hooks", None))


def _hook(new: Tensor, old: Tensor) -> None:
    """Register the hooks of one tensor on another."""
    learns = new.requires_grad
    new.requires_grad_(True)  # torch refuses hooks otherwise
    for hook in (getattr(old, "_backward_hooks", None) or {}).values():
        new.register_hook(hook)
    for hook in (getattr(old, "_post_accumulate_grad_hooks", None) or {}).values():
        new.register_post_accumulate_grad_hook(hook)
    new.requires_grad_(learns)


def _over(tensor: Tensor, storage: torch.UntypedStorage) -> Tensor:
    """Return the corresponding view of a copied storage."""
    with torch.no_grad():
        data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        data.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return alike(data, tensor)
