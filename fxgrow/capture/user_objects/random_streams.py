"""Save and restore random streams: the global ones of Python, NumPy and torch, and generators that a model reaches."""

from __future__ import annotations

import pickle
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

Drawn = tuple[tuple[int, Any], ...]
"""The numbers and states of the generators that were drawn from."""


class Streams:
    """A snapshot of the states of the random streams.

    Args:
        generators: further generators to include, such as those that a model reaches.
        devices: whether to include torch's CUDA generators; reading them synchronizes with the device.
    """

    __slots__ = ("_cuda", "_generators", "_torch")

    def __init__(self, generators: Sequence[Any] = (), *, devices: bool = False) -> None:
        self._generators = [(g, _state(g)) for g in (*_globals(), *generators)]
        self._torch = torch.default_generator.get_state()
        self._cuda = torch.cuda.get_rng_state_all() if devices and torch.cuda.is_initialized() else []

    def drawn(self) -> Drawn:
        """Return the generators that were drawn from since the snapshot, except torch's, with their current states."""
        others = ((n, g, was) for n, (g, was) in enumerate(self._generators) if not isinstance(g, torch.Generator))
        return tuple((n, now) for n, g, was in others if (now := _state(g)) != was)

    def seed(self, seed: int) -> None:
        """Seed the global streams.

        `torch.manual_seed` is not used, because it queues a call for each accelerator that is not initialized yet, and
        queued calls cannot be undone.
        """
        for stream in _globals():
            stream.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if self._cuda:
            torch.cuda.manual_seed_all(seed)

    def restore(self) -> None:
        """Restore the states of the snapshot. Streams on the CPU that have not changed are not written to."""
        for generator, before in self._generators:
            if _state(generator) != before:
                _set(generator, before)
        if not torch.equal(torch.default_generator.get_state(), self._torch):
            torch.default_generator.set_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def streams_kept(generators: Sequence[Any] = (), *, devices: bool = False) -> Iterator[Streams]:
    """Restore the random streams on exit, whatever was drawn inside the context."""
    before = Streams(generators, devices=devices)
    try:
        yield before
    finally:
        before.restore()


def draws(record: Callable[[], Drawn], generators: Sequence[Any], *, numpy: bool, times: int = 3) -> bool:
    """Return whether a recording draws from Python or NumPy streams, even if other threads draw at the same time.

    Args:
        record: makes the recording and returns its `Streams.drawn`.
        generators: the generators that the model reaches.
        numpy: whether the model may draw from NumPy, whose calls cannot be observed.
        times: the number of recordings to make.
    """
    called, before, start = False, sys.getprofile(), time.perf_counter()

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal called
        if event == "c_call" and isinstance(getattr(function, "__self__", None), random.Random):
            called |= function.__name__ in ("random", "getrandbits")  # all other methods call these

    sys.setprofile(watch)  # for this thread only
    try:
        again = [{number for number, _ in record()} for _ in range(times)]
    finally:
        sys.setprofile(before)
    waiting = Streams(generators)
    time.sleep(time.perf_counter() - start)
    seen = {n for n, (g, _) in enumerate(waiting._generators) if hasattr(g, "getstate") or not numpy}
    others = {number for number, _ in waiting.drawn()} & seen
    return called or bool(set.intersection(*again) - others)


def _globals() -> Iterator[Any]:
    """Iterate over the global generators: Python's, and NumPy's if it is imported."""
    yield random
    if "numpy" in sys.modules:
        yield sys.modules["numpy"].random


def is_generator(thing: Any) -> bool:
    """Return whether an object is a random generator of Python, NumPy (`Generator`, `RandomState`) or torch."""
    if isinstance(thing, random.Random | torch.Generator):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, (numpy.random.Generator, numpy.random.RandomState))


def _state(generator: Any) -> Any:
    """Return the state of a generator in a form that can be compared by `==`."""
    if isinstance(generator, torch.Generator):
        return generator.get_state().numpy().tobytes()
    if hasattr(generator, "getstate"):
        return generator.getstate()
    if not hasattr(generator, "get_state"):
        return pickle.dumps(generator.bit_generator.state)
    kind, keys, *rest = generator.get_state()
    return kind, keys.tobytes(), *rest


def _set(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    elif hasattr(generator, "setstate"):
        generator.setstate(state)
    elif not hasattr(generator, "set_state"):
        generator.bit_generator.state = pickle.loads(state)
    else:
        kind, keys, *rest = state
        generator.set_state((kind, sys.modules["numpy"].frombuffer(keys, dtype="uint32"), *rest))
