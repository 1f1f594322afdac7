"""`module:factory`: a model named as text. A factory is code, and naming one runs it."""

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
HINT = "module:factory, torchvision.models:resnet18 say; modules are looked for here and among what is installed"


def named(text: str, folder: str | Path | None = None) -> Any:
    """What `module:name` names. The module is imported, so its code runs.

    Args:
        text: a dotted module, a colon, a name in it.
        folder: where modules are looked for first; by default the working directory.

    Raises:
        UsageError: no such name, or the module cannot be imported.
    """
    if not _NAME.fullmatch(text):
        raise usage(Kind.BAD_OPTION, f"{text!r} names no factory", hint=HINT)
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
    except (Exception, SystemExit) as error:  # the user's own code runs here
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
    """The model that a factory makes, in evaluation mode; its random weights come from a seed.

    Args:
        text: `module:factory`, a callable without required arguments (a class of modules is one), or a module's object.
        seed: of the global random streams while the factory runs; they are put back afterwards.
        folder: where modules are looked for first.

    Raises:
        UsageError: no such factory, it needs arguments, fails, or makes something that is no model.
    """
    made = call(text, seed=seed, folder=folder)
    if not isinstance(made, nn.Module):
        raise usage(
            Kind.BAD_OPTION,
            f"{text} makes {type(made).__name__}, no torch.nn.Module",
            hint="name a function that returns the model, or its class",
        )
    return made.eval()


def call(text: str, *, seed: int = 0, folder: str | Path | None = None) -> Any:
    """What a named callable returns when called without arguments, random streams at a seed.

    Raises:
        UsageError: it is no callable, needs arguments, or fails.
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
            hint="write a function without required arguments that returns what you mean, and name that one",
        )
    try:
        with seeded(seed):
            return found()
    except FxgrowError:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        raise _failed(text, error) from error


def _required(found: Any) -> list[str]:
    """The arguments that a callable cannot do without; none are known of a builtin."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is inspect.Parameter.empty and p.kind not in several]


def _failed(what: str, error: BaseException) -> FxgrowError:
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return usage(Kind.BAD_OPTION, f"{what} fails: {type(error).__name__}: {reason}", hint="call it from Python first")
