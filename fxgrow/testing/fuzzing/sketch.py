"""Describes models as data: inputs, steps in order, outputs. Only names and numbers, so that it prints as Python
code."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Input:
    """One input: its layout ("image", "tokens", "flat" or "words") and its shape, batch first."""

    layout: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its kind, the values that it reads, and its options.

    Values are numbered: the inputs first, then the results of the steps, in order.
    """

    op: str
    reads: tuple[int, ...]
    options: tuple[tuple[str, int], ...] = ()

    def option(self, name: str) -> int:
        """Return one option.

        Raises:
            KeyError: the step has no option with this name.
        """
        return dict(self.options)[name]

    def __str__(self) -> str:
        parts = [repr(self.op), *map(str, self.reads), *(f"{name}={value}" for name, value in self.options)]
        return f"step({', '.join(parts)})"


def step(op: str, *reads: int, **options: int) -> Step:
    """Make a step, with options as keyword arguments."""
    return Step(op, reads, tuple(options.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A model with its dtype, mode and memory format."""

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    dtype: str = "float64"
    training: bool = False
    channels_last: bool = False
    takes: str = "tensors"
    """How inputs are passed: one of `forms.TAKES`."""
    returns: str = "tensors"
    """How outputs are returned: one of `forms.RETURNS`."""
    seed: int = 0

    def __str__(self) -> str:
        """Return Python code that makes the sketch."""
        inputs = "".join(f"{one!r}, " for one in self.inputs)
        steps = "".join(f"\n        {one}," for one in self.steps)
        return (
            f"Sketch(\n    inputs=({inputs.rstrip()}),\n    steps=({steps}\n    ),\n    outputs={self.outputs},"
            f"\n    dtype={self.dtype!r},\n    training={self.training},\n    channels_last={self.channels_last},"
            f"\n    takes={self.takes!r},\n    returns={self.returns!r},\n    seed={self.seed},\n)"
        )


class Misfit(Exception):
    """The steps of a sketch do not fit together. Drawing leaves such steps out."""
