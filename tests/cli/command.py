"""The command `fxgrow`, run in this process, as its users see it: output, complaints, exit code."""

from __future__ import annotations

from dataclasses import dataclass

from typer.testing import CliRunner

from fxgrow.cli.app import app


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call left on the terminal."""

    code: int
    out: str
    err: str


def fxgrow(*arguments: object) -> Outcome:
    """Run the command; what it raises and does not catch, this raises."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False, prog_name="fxgrow")
    return Outcome(result.exit_code, result.stdout, result.stderr)


def refused(outcome: Outcome, said: str) -> bool:
    """Whether a call was refused as it should be: exit code 2, a reason, a way out, no traceback."""
    lines = outcome.err.strip().splitlines()
    return (
        outcome.code == 2
        and said in outcome.err
        and lines[0].startswith(("FXG", "error"))
        and any(line.strip().startswith("try") for line in lines)
        and "Traceback" not in outcome.err + outcome.out
    )
