"""Saves grown models as plan.json and model.safetensors, and restores them with the original constructor."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkstemp
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, fx, nn

from ..api.verifying import plans_since
from ..capture.inputs.call import Call
from ..capture.tracing.trace import trace
from ..capture.user_objects.state_dict_hooks import has_extra_state, saved_tensors
from ..errors import FxgrowError, Kind, usage
from ..plans import Plan
from .applied import grown_by
from .inputs import parse_inputs, written
from .weights import use_weights

PLAN, WEIGHTS = "plan.json", "model.safetensors"
LARGEST_PLAN = 2**28
"""The largest plan that is read, in bytes; plans of the largest networks have a few million."""
MOST_INPUTS = 64


@dataclass(frozen=True, slots=True)
class Saved:
    """The contents of a saved model's folder without tensors: the plan, and the example inputs as strings."""

    folder: Path
    plan: Plan
    inputs: tuple[str, ...]


def is_saved(path: str | Path) -> bool:
    """Whether a path is the folder of a saved grown model."""
    path = Path(path)
    return (path / PLAN).is_file() and (path / WEIGHTS).is_file()


def check_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Check that a folder can receive a saved model; writes nothing.

    Raises:
        UsageError: the path is a file, or the folder is not empty.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise usage(Kind.BAD_OPTION, f"{folder} is a file", hint="name a new folder")
    above = next((p for p in folder.absolute().parents if p.exists()), None)
    if above is not None and not above.is_dir():
        raise usage(Kind.BAD_OPTION, f"{above} is a file, so {folder} cannot be created", hint="name a new folder")
    held = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    other = [name for name in held if name not in (PLAN, WEIGHTS)]
    if other or (held and not overwrite):
        hint = "name a new folder" if other else "name a new folder, or add --overwrite"
        raise usage(Kind.BAD_OPTION, f"{folder} already contains {(other or held)[0]}", hint=hint)


def save(
    before: nn.Module, after: fx.GraphModule, folder: str | Path, *, inputs: Sequence[Any] | Call = ()
) -> tuple[Path, Path]:
    """Save a grown model: the plans that lead to it, and its tensors.

    Args:
        before: the model before growth.
        after: the grown model.
        folder: the output folder; created if it does not exist. Each file is replaced atomically.
        inputs: the inputs of the analysis; their shapes are saved, so that they need not be given again.

    Returns:
        The paths of the two files.

    Raises:
        UsageError: the model was not grown from `before`, or its plan cannot be written as data.
    """
    folder = Path(folder)
    plans = plans_since(before, after)
    if not plans:
        raise usage(
            Kind.BAD_OPTION, "this model was not grown from the other one", hint="save what fxgrow.widen returns"
        )
    text = replace(plans[0], then=plans[1:]).to_json()
    texts = written(inputs) or ()
    tensors, ties = _apart(after)
    facts = {"format": "pt", "fxgrow.inputs": json.dumps(texts), "fxgrow.ties": json.dumps(ties)}
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as path:
        save_file(tensors, path, facts)
    with replacing(folder / PLAN) as path:
        path.write_text(text, encoding="utf-8")
    return folder / PLAN, folder / WEIGHTS


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file that replaces `path` when done; a link there is replaced, not followed."""
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    mask = os.umask(0)
    os.umask(mask)
    try:
        yield Path(name)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _apart(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return every tensor once, and the other names of tied tensors; views of one storage are cloned."""
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    storages: set[int] = set()
    if has_extra_state(model):
        raise usage(
            Kind.BAD_OPTION,
            "the model has get_extra_state, but a saved grown model contains parameters and buffers only",
            hint="remove get_extra_state, or save grown.state_dict() with torch.save",
        )
    for name, tensor in saved_tensors(model).items():
        if id(tensor) in first:
            ties[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        storage = tensor.untyped_storage().data_ptr()
        plain = tensor.detach().contiguous()
        tensors[name] = plain.clone() if storage in storages else plain
        storages.add(storage)
    return tensors, ties


def read_plan(path: str | Path) -> Plan:
    """Read a plan from a file.

    Raises:
        UsageError: the file does not exist, is too large, or is not a plan.
    """
    path = Path(path)
    if not path.is_file():
        raise usage(Kind.STALE_PLAN, f"there is no plan file {path}", hint="fxgrow plan … --out plan.json writes one")
    if path.stat().st_size > LARGEST_PLAN:
        raise usage(
            Kind.STALE_PLAN, f"{path} has {path.stat().st_size:,} bytes, too many for a plan", hint="make a new plan"
        )
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise usage(Kind.STALE_PLAN, f"{path} is not a text file", hint="make a new plan") from error


def read_saved(folder: str | Path) -> Saved:
    """Read the plan and the example inputs of a saved model, without its tensors.

    Raises:
        UsageError: the folder does not contain a saved model.
    """
    folder = Path(folder)
    if not is_saved(folder):
        raise usage(
            Kind.BAD_OPTION,
            f"{folder} does not contain a saved model",
            hint=f"name a folder with {PLAN} and {WEIGHTS}, from --out",
        )
    plan = read_plan(folder / PLAN)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            facts = file.metadata() or {}
        texts = json.loads(facts.get("fxgrow.inputs", "[]"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _broken(folder, error) from error
    if not isinstance(texts, list) or len(texts) > MOST_INPUTS or not all(isinstance(t, str) for t in texts):
        raise _broken(folder, "its inputs are not a list of strings")
    return Saved(folder, plan, tuple(texts))


def _broken(folder: Path, reason: object) -> FxgrowError:
    return usage(Kind.BAD_OPTION, f"{folder / WEIGHTS} cannot be read: {reason}", hint="save the grown model again")


def restore(
    model: nn.Module,
    folder: str | Path,
    example_inputs: Sequence[Any] | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
) -> fx.GraphModule:
    """Restore a saved grown model, from a model of the class that was grown; `model` stays unchanged.

    Args:
        model: a model from the original constructor, traced or not; its values do not matter.
        folder: a folder written by `save`.
        example_inputs: the inputs to trace the model with; by default those in the folder, which only stores tensors
            and no containers.
        example_kwargs: the keyword inputs.

    Raises:
        UsageError: the folder does not contain a saved model, or its model was grown from another class.
    """
    saved = read_saved(folder)
    folder = saved.folder
    values = example_inputs
    if (
        values is None and example_kwargs is None and all(":" in text for text in saved.inputs)
    ):  # never a function: data names no code
        values = parse_inputs([text for text in saved.inputs if text[:1].isdigit()])
    grown = grown_by(saved.plan, trace(model, values, example_kwargs=example_kwargs))
    try:
        tensors = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise _broken(folder, error) from error
    use_weights(grown, tensors, str(folder / WEIGHTS), saved_tensors(grown))
    return grown
