"""Loads the models of a gate file."""

from __future__ import annotations

from ..loading import Loaded, load
from .file import Gate, Subject


def loaded_for(gate: Gate, model: Subject, seed: int) -> Loaded:
    """Build a model of the gate, load its weights and trace it; `seed` is the seed of random weights."""
    return load(
        model.factory,
        weights=model.weights,
        grown=model.grown,
        inputs=model.inputs,
        seed=seed,
        folder=gate.folder,
    )
