"""Pairs the models to compare with their probes: for each mode, inputs that the model before growth accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from ..capture.inputs.call import Call
from ..capture.traced_model.decisions import guards
from .compare import called, twin
from .embedding_ranges import rows_read
from .measure import Measured, Pair, measure
from .probes import Probe, as_given, batches_of_one, largest, probes, whole


@dataclass(frozen=True, slots=True)
class Job:
    """Two models to compare, with the example inputs for each mode."""

    pair: Pair
    given: Mapping[str, Call]
    """The examples for each mode."""
    modes: tuple[str, ...]

    def examples(self, mode: str) -> tuple[tuple[Probe, ...], list[str]]:
        """Return the probes for a mode, and notes about them."""
        given, training = self.given[mode], mode == "training"
        rows = rows_read(self.pair.before, given.args, given.kwargs, training=training)
        some = probes(given.args, self.pair.seed, rows, given.kwargs)
        notes = [
            f"input {k}: integers from 0 to {largest(x)}, as in the example"
            for k, x in enumerate(given.leaves)
            if whole(x) and k not in rows
        ]
        full = tuple(p for p in some if not p.batch_of_one)
        single, trouble = self._single(full[0], training)
        return (*full, *single), [*trouble, *notes]

    def _single(self, first: Probe, training: bool) -> tuple[tuple[Probe, ...], list[str]]:
        """Return a probe with a batch of one if the model before accepts it, else a note; without a note in training
        mode, where a batch norm may reject a single sample."""
        reason = ""
        for probe in batches_of_one(first):
            try:
                called(twin(self.pair.before, None, training=training), probe, seed=self.pair.seed)
                if isinstance(self.pair.after, fx.GraphModule) and any(guards(self.pair.after.graph)):
                    called(twin(self.pair.after, None, training=training), probe, seed=self.pair.seed)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # its first axis may not be a batch: reported, not an error
                reason = reason or (str(error).strip() or repr(error)).splitlines()[0]
            else:
                return (probe,), []
        return (), [] if training else [f"batch of one not compared: the model cannot run on these inputs: {reason}"]

    def measured(self, mode: str) -> tuple[Measured, tuple[Probe, ...], list[str]]:
        """Compare the models in one mode; return the measurements, the probes and the notes."""
        some, notes = self.examples(mode)
        found = measure(self.pair, some, training=mode == "training")
        given = self.given[mode]
        extra = as_given(given.args, given.kwargs) if found.holes else None
        if extra is not None:  # on typical inputs the outputs should be finite
            more = measure(self.pair, (extra,), training=mode == "training")
            found.errors += more.errors
            found.notes += more.notes
            for text, where in more.weak.items():
                found.weak.setdefault(text, []).extend(where)
            found.failures += more.failures
            some = (*some, extra)
        return found, some, notes
