"""Decides whether an exception comes from the user's model or is a defect in fxgrow."""

from __future__ import annotations

import copy
import sysconfig
import traceback
from pathlib import Path

import rich
import safetensors
import torch
import typer
from torch.nn.modules import module

_PACKAGE = str(Path(__file__).resolve().parent.parent)
_EXAMPLES = str(Path(_PACKAGE) / "models_zoo")
_TRACED = "<eval_with_key>"
"""The file name in tracebacks of code that torch.fx generates."""
_OTHERS = tuple(str(Path(str(package.__file__)).resolve().parent) for package in (torch, typer, rich, safetensors))
_STANDARD = sysconfig.get_paths()["stdlib"]


def users_fault(error: Exception) -> str:
    """Describe an error of the user's code in one line, with its location; "" if it can only be a defect in fxgrow."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [k for k, frame in enumerate(frames) if _is_ours(frame.filename)]
    inside = frames[ours[-1] + 1 :] if ours else frames
    own = [frame for frame in inside if _is_theirs(frame.filename)]
    copied = any(frame.filename == copy.__file__ for frame in inside)
    if not own and not copied and not any(frame.filename == module.__file__ for frame in inside):
        return ""
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    places = [frame for frame in own if not frame.filename.startswith("<")]
    place = f" ({Path(places[-1].filename).name}:{places[-1].lineno}, in {places[-1].name})" if places else ""
    what = "the model cannot be copied" if copied else "the model fails"
    return f"{what}: {type(error).__name__}: {reason}{place}"


def _is_ours(path: str) -> bool:
    return path.startswith(_PACKAGE) and not path.startswith(_EXAMPLES)


def _is_theirs(path: str) -> bool:
    if path.startswith(_EXAMPLES) or _TRACED in path:
        return True
    if path.startswith(_STANDARD) or path.startswith("<"):
        return "-packages" in path  # site-packages or dist-packages may be inside the standard library
    return not path.startswith((_PACKAGE, *_OTHERS))
