"""Streams of random numbers: Python's, NumPy's and torch's own, and those of generators that a model reaches."""

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
"""The generators that have been drawn from, by number, and their states."""


class Streams:
    """The streams as they are now.

    Args:
        generators: others that count, those that a model reaches.
        devices: whether torch's streams of accelerators count; asking for them waits for the accelerator.
    """

    __slots__ = ("_cuda", "_generators", "_torch")

    def __init__(self, generators: Sequence[Any] = (), *, devices: bool = False) -> None:
        self._generators = [(g, _state(g)) for g in (*_globals(), *generators)]
        self._torch = torch.default_generator.get_state()
        self._cuda = torch.cuda.get_rng_state_all() if devices and torch.cuda.is_initialized() else []

    def drawn(self) -> Drawn:
        """What has been drawn from since, but for generators of torch, with the states now."""
        others = ((n, g, was) for n, (g, was) in enumerate(self._generators) if not isinstance(g, torch.Generator))
        return tuple((n, now) for n, g, was in others if (now := _state(g)) != was)

    def seed(self, seed: int) -> None:
        """Let the global streams begin at a seed.

        `torch.manual_seed` would also queue a call for every accelerator that has not been started, and those stay.
        """
        for stream in _globals():
            stream.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if self._cuda:
            torch.cuda.manual_seed_all(seed)

    def restore(self) -> None:
        """Let them go on from here. A stream that nobody has drawn from is not touched."""
        for generator, before in self._generators:
            if _state(generator) != before:
                _set(generator, before)
        if not torch.equal(torch.default_generator.get_state(), self._torch):
            torch.default_generator.set_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)


@contextmanager
def streams_kept(generators: Sequence[Any] = (), *, devices: bool = False) -> Iterator[Streams]:
    """Whatever is drawn inside, the streams go on afterwards as if nothing had been."""
    before = Streams(generators, devices=devices)
    try:
        yield before
    finally:
        before.restore()


def draws(record: Callable[[], Drawn], generators: Sequence[Any], *, numpy: bool, times: int = 3) -> bool:
    """Whether a recording draws from streams of Python or NumPy, where other threads may do so at the same time.

    Args:
        record: makes the recording, and returns what `Streams.drawn` says of it.
        generators: those that the model reaches.
        numpy: whether the model may draw from NumPy: calls into it cannot be seen.
        times: how often it is made.
    """
    called, before, start = False, sys.getprofile(), time.perf_counter()

    def watch(frame: FrameType, event: str, function: Any) -> None:
        nonlocal called
        if event == "c_call" and isinstance(getattr(function, "__self__", None), random.Random):
            called |= function.__name__ in ("random", "getrandbits")  # all others call these

    sys.setprofile(watch)  # of this thread alone
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
    """Python's generator, and NumPy's where it is imported."""
    yield random
    if "numpy" in sys.modules:
        yield sys.modules["numpy"].random


def is_generator(thing: Any) -> bool:
    """Whether something is a `random.Random`, a `numpy.random.Generator` or `RandomState`, or a `torch.Generator`."""
    if isinstance(thing, random.Random | torch.Generator):
        return True
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, (numpy.random.Generator, numpy.random.RandomState))


def _state(generator: Any) -> Any:
    """The state of a generator, which compares as a whole."""
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
