"""Imports models named as `module:factory`. A factory is code, and naming one runs it."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import FxgrowError, Kind, usage
from ..verification.compare import seeded

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
HINT = "use module:factory, e.g. torchvision.models:resnet18; the module is in this folder or an installed package"


def named(text: str, folder: str | Path | None = None) -> Any:
    """Return the object that `module:name` names. Its module is imported, so the code of the module runs.

    Args:
        text: a dotted module name, a colon, and a name in the module.
        folder: the folder that is searched for modules first; by default the working directory.

    Raises:
        UsageError: the name does not exist, or the module cannot be imported.
    """
    if not _NAME.fullmatch(text):
        raise usage(Kind.BAD_OPTION, f"{text!r} is not a factory name", hint=HINT)
    module_name, _, path = text.partition(":")
    here = str(Path(folder or Path.cwd()).resolve())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise usage(Kind.BAD_OPTION, f"there is no module called {error.name!r}", hint=HINT) from error
        raise _failed(f"the module {module_name}", error) from error
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise _failed(f"the module {module_name}", error) from error
    try:
        return reduce(getattr, path.split("."), module)
    except AttributeError as error:
        near = [n for n, v in vars(module).items() if not n.startswith("_") and isinstance(v, type | nn.Module)]
        near = [n for n in near if n.lower().startswith(path[:2].lower())][:5]
        raise usage(
            Kind.BAD_OPTION,
            f"the module {module_name} has nothing called {path!r}",
            hint=f"did you mean {', '.join(near)}?" if near else HINT,
        ) from error


def build(text: str, *, seed: int = 0, folder: str | Path | None = None) -> nn.Module:
    """Build the model of a factory, in evaluation mode, with its random weights drawn from a seed.

    Args:
        text: `module:factory`: a callable without required arguments (a module class is one), or a module object.
        seed: the seed of the global random generators while the factory runs; their state is restored afterwards.
        folder: the folder that is searched for modules first.

    Raises:
        UsageError: the factory does not exist, needs arguments, fails, or does not return a module.
    """
    made = call(text, seed=seed, folder=folder)
    if not isinstance(made, nn.Module):
        raise usage(
            Kind.BAD_OPTION,
            f"{text} returns {type(made).__name__}, not a torch.nn.Module",
            hint="name a function that returns the model, or its class",
        )
    return made.eval()


def call(text: str, *, seed: int = 0, folder: str | Path | None = None) -> Any:
    """Call a named callable without arguments, with the random generators seeded, and return its result.

    Raises:
        UsageError: the object is not callable, needs arguments, or fails.
    """
    found = named(text, folder)
    if isinstance(found, nn.Module | torch.Tensor):
        return found
    if not callable(found):
        raise usage(Kind.BAD_OPTION, f"{text} is {type(found).__name__}, which cannot be called", hint=HINT)
    needed = _required(found)
    if needed:
        raise usage(
            Kind.BAD_OPTION,
            f"{text} needs arguments: {', '.join(needed)}",
            hint="write a function without required arguments that returns the object, and name that function",
        )
    try:
        with seeded(seed):
            return found()
    except FxgrowError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code may raise anything
        raise _failed(text, error) from error


def _required(found: Any) -> list[str]:
    """Return the names of a callable's required arguments; none for builtins without a signature."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in several]


def _failed(what: str, error: BaseException) -> FxgrowError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return usage(
        Kind.BAD_OPTION, f"{what} fails: {type(error).__name__}: {reason}", hint="make it work in Python first"
    )
