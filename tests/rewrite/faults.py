"""Faults injected into running code: from a tensor operation, or from a line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class OutOfMemory(TorchDispatchMode):
    """Every operation runs but one, which raises: before its work (an allocation), or after it (a write)."""

    def __init__(self, at: int, error: type[BaseException], *, late: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.at, self.error, self.late, self.count = at, error, late, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count, and raise; but not where C++ asks for a device: it allocates nothing, and torch ends the process."""
        if func is torch.ops.prim.device.default:
            return func(*args, **(kwargs or {}))
        self.count += 1
        if self.count == self.at and not self.late:
            raise self.error(f"injected at {func}")
        try:
            return func(*args, **(kwargs or {}))
        finally:  # also where it refuses its operands, as it does when sizes are tried
            if self.count == self.at:
                raise self.error(f"injected after {func}")


@dataclass
class Lines:
    """Follows the lines that run, and raises at some of them."""

    where: Callable[[str], bool]
    at: tuple[int, ...] = ()
    seen: list[tuple[str, int]] = field(default_factory=list)

    def call(self, frame: FrameType, event: str, arg: object) -> Any:
        """For every function that is called."""
        return self.line if self.where(frame.f_code.co_filename) else None

    def line(self, frame: FrameType, event: str, arg: object) -> Any:
        """For every line that runs."""
        if event == "line":
            self.seen.append((frame.f_code.co_filename, frame.f_lineno))
            if len(self.seen) in self.at:
                raise KeyboardInterrupt("injected")
        return self.line


@contextmanager
def followed(lines: Lines) -> Iterator[None]:
    """Follow lines, and stop; a debugger or a coverage tool goes on afterwards."""
    known = sys.gettrace()
    sys.settrace(lines.call)
    try:
        yield
    finally:
        sys.settrace(known)


def first_and_last(seen: list[tuple[str, int]]) -> list[int]:
    """When each line ran for the first and for the last time.

    A `with` is told of again between its body and its exit, where Python never raises by itself: it looks for signals
    at calls and jumps only.
    """
    first, last = dict[tuple[str, int], int](), dict[tuple[str, int], int]()
    for number, place in enumerate(seen, 1):
        first.setdefault(place, number)
        if not linecache.getline(*place).lstrip().startswith("with "):
            last[place] = number
    return sorted({*first.values(), *last.values()})
