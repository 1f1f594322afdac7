"""The models that a gate file names."""

from __future__ import annotations

from ..loading import Loaded, load
from .file import Gate, Subject


def loaded_for(gate: Gate, model: Subject, seed: int) -> Loaded:
    """A model of the gate, traced, with its weights; `seed` is of random ones."""
    return load(
        model.factory,
        weights=model.weights,
        grown=model.grown,
        inputs=model.inputs,
        seed=seed,
        folder=gate.folder,
    )
