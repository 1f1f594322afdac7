"""Reads weights as data: safetensors files, or checkpoints that torch reads with `weights_only=True`."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import Kind, usage

_INSIDE = ("state_dict", "model_state_dict", "model")
"""Keys under which the checkpoints of training scripts keep the weights."""
_WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name."""


def read_weights(path: str | Path, *, unsafe_pickle: bool = False) -> dict[str, Tensor]:
    """Read tensors by name. Nothing that could run code is unpickled, unless `unsafe_pickle` is set.

    Raises:
        UsageError: the file does not exist, is not readable, or contains more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise usage(Kind.BAD_OPTION, f"there is no file {path}", hint="name a .safetensors file or a checkpoint")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else _checkpoint(path, unsafe_pickle)
    except SafetensorError as error:
        raise _unreadable(path, str(error)) from error
    except pickle.UnpicklingError as error:
        if not _is_pickled(path):
            raise _unreadable(path, "it is not a checkpoint") from error
        raise usage(
            Kind.BAD_OPTION,
            f"{path} contains pickled objects other than tensors, and unpickling them can run any code",
            hint="save only model.state_dict(), or use --unsafe-pickle if you trust its author fully",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise _unreadable(path, (str(error).strip() or repr(error)).splitlines()[0]) from error
    return _tensors(path, found)


def _checkpoint(path: Path, unsafe_pickle: bool) -> Any:
    with warnings.catch_warnings():  # for files by other picklers; the contents are checked in any case
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=not unsafe_pickle)


def _is_pickled(path: Path) -> bool:
    """Whether a file begins like a torch checkpoint or a pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", *(bytes((0x80, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)))


def _unreadable(path: Path, reason: str) -> Exception:
    return usage(
        Kind.BAD_OPTION, f"{path} cannot be read: {reason}", hint="use a .safetensors file or a torch checkpoint"
    )


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    if isinstance(found, nn.Module):  # unpickled with `unsafe_pickle`
        found = found.state_dict()
    for key in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(k, str) for k in found):
        raise usage(
            Kind.BAD_OPTION,
            f"{path} contains {type(found).__name__}, not a state_dict",
            hint="save model.state_dict()",
        )
    other = [k for k, v in found.items() if not isinstance(v, Tensor)]
    if other:
        raise usage(
            Kind.BAD_OPTION,
            f"{path}: {other[0]!r} is {type(found[other[0]]).__name__}, not a tensor",
            hint="save only model.state_dict()",
        )
    return dict(found)


def use_weights(
    model: nn.Module, weights: Mapping[str, Tensor], source: str, tensors: Mapping[str, Tensor] | None = None
) -> None:
    """Copy tensors into a model. Of names that are tied to one another, one is enough.

    Args:
        model: the model; it is changed.
        weights: the tensors by name.
        source: the file name for error messages.
        tensors: the model's tensors by the names used in `weights`; by default its `state_dict`.

    Raises:
        UsageError: names or shapes differ. Nothing is written then.
    """
    saved = model.state_dict(keep_vars=True) if tensors is None else tensors
    own = {k: v for k, v in saved.items() if isinstance(v, Tensor)}
    given = {id(own[name]) for name in weights if name in own}
    missing = [name for name, tensor in own.items() if name not in weights and id(tensor) not in given]
    extra = [name for name in weights if name not in own]
    if missing or extra:
        wrapper = next((w for w in _WRAPPERS if extra and all(n.startswith(w) for n in extra)), "")
        said = [f"lacks {_some(missing)}"] if missing else []
        said += [f"contains {_some(extra)}, which the model does not have"] if extra else []
        hint = f"the names begin with {wrapper!r}: save the state_dict of the model inside" if wrapper else ""
        raise usage(
            Kind.BAD_OPTION,
            f"{source} {' and '.join(said)}",
            hint=hint or "use weights of the model that the factory builds",
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise usage(
                Kind.BAD_OPTION,
                f"{source}: {name} has shape {_shape(tensor)}, but the model has {_shape(own[name])}",
                hint="use weights of the model that the factory builds",
            )
    with torch.no_grad():
        for name, tensor in weights.items():
            own[name].copy_(tensor)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
