"""Defines the command `fxgrow`; errors become a message on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import FxgrowError, Kind, Refusal, VerificationFailed
from ..loading.inputs import SYNTAX
from . import checking, gating, growing, looking, planning
from .blame import users_fault
from .terminal import BROKEN, MISUSED, say, show_misuse, show_refusal

HELP = """Grow trained PyTorch models without changing what they compute.

A model is named as [bold]module:factory[/bold], a callable that builds it without arguments, such as its class. \
A factory is code: naming one imports its module and runs it. \
Weights, plans and gate files are data: nothing is unpickled without --unsafe-pickle."""
EPILOG = "Exit codes: 0 success; 1 the function changed; 2 the call is invalid, or the growth is refused."


class CommandGroup(TyperGroup):
    """The group of commands; turns all errors into messages and exit codes."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its exit code."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except VerificationFailed as error:
            show_refusal(error.refusal)
            code = BROKEN
        except FxgrowError as error:
            show_refusal(_for_a_terminal(error.refusal))
            code = MISUSED
        except typer.TyperException as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context is not None else "fxgrow"
            if error.format_message():  # empty if the help was shown
                show_misuse(error.format_message(), f"{path} --help")
            code = MISUSED
        except (OSError, MemoryError) as error:
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(BROKEN)
            show_misuse(
                (str(error) or repr(error)).splitlines()[0],
                "check that the path can be read and written, and that there is enough space",
            )
            code = MISUSED
        except Exception as error:  # never "the function changed"
            _unexpected(error)
            code = MISUSED
        if not standalone_mode:
            return code
        sys.exit(code if isinstance(code, int) else 0)


def _unexpected(error: Exception) -> None:
    """Report an exception: one line for an error of the user's model, the full traceback for a defect in fxgrow."""
    fault = users_fault(error)
    if fault:
        show_misuse(fault, f"call the model in Python on these inputs first; --input sets them: {SYNTAX}")
        return
    traceback.print_exception(error)
    show_misuse(
        f"a defect in fxgrow: {type(error).__name__}", "report it with the lines above, and with the model if you can"
    )


def _for_a_terminal(refusal: Refusal) -> Refusal:
    """Replace a hint about an argument by one about an option of the command."""
    about_inputs = "example_inputs" in refusal.hint or "one value for each" in refusal.hint
    if refusal.kind is Kind.BAD_INPUTS and about_inputs:
        return replace(refusal, hint=f"use --input once for each input of the model: {SYNTAX}")
    return refusal


app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        try:
            say(f"fxgrow {version('fxgrow')}")
        except PackageNotFoundError:  # run from a source folder
            say("fxgrow, not installed")
        raise typer.Exit


@app.callback(help=HELP, epilog=EPILOG)
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Accept the options of the command itself."""


looking.register(app)
growing.register(app)
planning.register(app)
checking.register(app)
gating.register(app)


def main() -> None:
    """Run the command; the entry point of the console script."""
    app(prog_name="fxgrow")
