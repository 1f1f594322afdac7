"""The saved form of a grown model: plan.json and model.safetensors. It is rebuilt from the original constructor."""

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
"""Bytes of a plan that is read: those of the largest networks take a few million."""
MOST_INPUTS = 64


@dataclass(frozen=True, slots=True)
class Saved:
    """What a folder holds, before a model is there: the plan, and the inputs that the model was analysed with."""

    folder: Path
    plan: Plan
    inputs: tuple[str, ...]


def is_saved(path: str | Path) -> bool:
    """Whether a path is a folder with the saved form of a grown model."""
    path = Path(path)
    return (path / PLAN).is_file() and (path / WEIGHTS).is_file()


def check_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a folder that cannot take a saved model. Writes nothing.

    Raises:
        UsageError: it is a file, or holds something already.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise usage(Kind.BAD_OPTION, f"{folder} is a file", hint="name a new folder")
    above = next((p for p in folder.absolute().parents if p.exists()), None)
    if above is not None and not above.is_dir():
        raise usage(Kind.BAD_OPTION, f"{above} is a file, so {folder} cannot be a folder", hint="name a new folder")
    held = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    other = [name for name in held if name not in (PLAN, WEIGHTS)]
    if other or (held and not overwrite):
        hint = "name a new folder" if other else "name a new folder, or add --overwrite"
        raise usage(Kind.BAD_OPTION, f"{folder} holds {(other or held)[0]} already", hint=hint)


def save(
    before: nn.Module, after: fx.GraphModule, folder: str | Path, *, inputs: Sequence[Any] | Call = ()
) -> tuple[Path, Path]:
    """Write the plans that lead from one model to the other, and the tensors of the grown one.

    Args:
        before: the model that was grown.
        after: the grown model.
        folder: made if it is not there. Each file is written beside its place and then put there in one step.
        inputs: what the model was analysed with; their shapes are kept, so that they need not be given again.

    Returns:
        The two files.

    Raises:
        UsageError: the model was not grown from the other one, or its plan cannot be written as data.
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
    """A new file that takes the place of another when all is written; a link there is replaced, not followed."""
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
    """Every tensor once, and the other names of tied ones; views of one storage are separated."""
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    ties: dict[str, str] = {}
    storages: set[int] = set()
    if has_extra_state(model):
        raise usage(
            Kind.BAD_OPTION,
            "the model has get_extra_state, and the saved form of a grown model holds parameters and buffers only",
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
    """A plan from a file.

    Raises:
        UsageError: no such file, too large, or no plan.
    """
    path = Path(path)
    if not path.is_file():
        raise usage(Kind.STALE_PLAN, f"there is no plan {path}", hint="fxgrow plan … --out plan.json writes one")
    if path.stat().st_size > LARGEST_PLAN:
        raise usage(
            Kind.STALE_PLAN, f"{path} has {path.stat().st_size:,} bytes: no plan has", hint="make the plan anew"
        )
    try:
        return Plan.from_json(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise usage(Kind.STALE_PLAN, f"{path} is no text", hint="make the plan anew") from error


def read_saved(folder: str | Path) -> Saved:
    """The plan and the facts of a saved model, without its tensors.

    Raises:
        UsageError: the folder does not hold a saved model.
    """
    folder = Path(folder)
    if not is_saved(folder):
        raise usage(
            Kind.BAD_OPTION, f"{folder} holds no saved model", hint=f"a folder with {PLAN} and {WEIGHTS}, from --out"
        )
    plan = read_plan(folder / PLAN)
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            facts = file.metadata() or {}
        texts = json.loads(facts.get("fxgrow.inputs", "[]"))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise _broken(folder, error) from error
    if not isinstance(texts, list) or len(texts) > MOST_INPUTS or not all(isinstance(t, str) for t in texts):
        raise _broken(folder, "its inputs are no list of texts")
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
    """The grown model that a folder holds, from a model of the class that was grown; that one stays as it is.

    Args:
        model: what the original constructor makes, traced or not; its values do not matter.
        folder: written by `save`.
        example_inputs: what the model was traced with, if the folder does not say it (it keeps tensors, no containers),
            or if it is to be something else.
        example_kwargs: the same by name.

    Raises:
        UsageError: the folder holds no saved model, or one that was grown from another class.
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
