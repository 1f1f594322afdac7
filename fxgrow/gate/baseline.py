"""Baselines: recorded outputs of models, so that a changed model can be checked without keeping the old one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..capture.inputs.call import Call
from ..errors import FxgrowError, Kind, usage
from ..loading.saved import replacing
from ..verification.certificate import FLOAT64_BOUND
from ..verification.compare import distance, nothing_finite, run, twin
from ..verification.embedding_ranges import rows_read
from ..verification.probes import Probe, probes
from .file import Gate, Subject
from .models import loaded_for
from .row import Difference
from .sampling import mark, sample
from .tolerance import DEFAULT, check_own

FORMAT = "fxgrow gate baseline 2"
Key = tuple[int, str, str]
"""Seed, probe name and output name."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Recorded outputs in float64 and evaluation mode, by model and key, with a digest of each model's inputs."""

    path: Path
    outputs: dict[str, dict[Key, Tensor]]
    shapes: dict[str, dict[Key, tuple[int, ...]]]
    inputs: dict[str, str]
    marks: dict[str, dict[Key, str]]
    """Digests of the sampled positions of each output."""


def record(gate: Gate, path: str | Path) -> int:
    """Record the outputs of a gate's models on their probes in a file, and return the number of outputs.

    Raises:
        UsageError: a model cannot be built or run.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    marks: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for model in gate.models:
        computed, inputs[model.name] = _computed(gate, model)
        for key, output in computed.items():
            text = json.dumps([model.name, *key])
            tensors[text], shapes[text], marks[text] = sample(output), list(output.shape), mark(output)
    tables = {"shapes": shapes, "inputs": inputs, "marks": marks}
    facts = {"format": FORMAT, "torch": torch.__version__, **{k: json.dumps(v) for k, v in tables.items()}}
    with replacing(Path(path)) as new:
        save_file(tensors, new, facts)
    return len(tensors)


def _computed(gate: Gate, model: Subject) -> tuple[dict[Key, Tensor], str]:
    """Return every output of a model in float64, and a digest of its inputs."""
    found: dict[Key, Tensor] = {}
    digest = hashlib.sha256()
    for seed in gate.seeds:
        loaded = loaded_for(gate, model, seed)
        rows = rows_read(loaded.model, loaded.analysed)
        for probe in (p for p in probes(loaded.analysed, seed, rows) if not p.batch_of_one):
            for value in Call(probe.inputs, probe.kwargs).leaves:
                digest.update(_bytes(value))
            outputs = _run(model.name, loaded.model, probe, seed)
            found |= {(seed, probe.name, name): output for name, output in outputs.items()}
    for name in dict.fromkeys(name for _, _, name in found):
        if all(nothing_finite(output) for (_, _, other), output in found.items() if other == name):
            what = f"{name} of {model.name} has no finite entry, so nothing can be compared"
            raise usage(Kind.BAD_INPUTS, what, hint="look for NaN in the weights")
    return found, digest.hexdigest()[:16]


def _run(name: str, model: nn.Module, probe: Probe, seed: int) -> dict[str, Tensor]:
    try:
        outputs = run(twin(model, torch.float64, training=False), probe, seed=seed)
    except Exception as error:  # of the user's own model
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        what = f"{name} cannot run on these inputs: {reason}"
        raise usage(Kind.BAD_INPUTS, what, hint='inputs = ["2x3x64x64"]') from error
    if not outputs:
        raise usage(Kind.BAD_INPUTS, f"{name} returns no tensors", hint="return at least one tensor")
    return outputs


def _bytes(value: Any) -> bytes:
    return value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode()


def read_baseline(gate: Gate) -> Baseline:
    """Read the baseline of a gate.

    Raises:
        UsageError: there is no baseline, it cannot be read, or it has another format.
    """
    path = gate.baseline
    if path is None or not path.is_file():
        raise usage(
            Kind.BAD_OPTION, f"there is no baseline {path}", hint="fxgrow gate gate.toml --record FILE writes one"
        )
    found = Baseline(path, {}, {}, {}, {})
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != FORMAT:
                raise _bad(path, "it was not recorded by this version")
            found.inputs.update({str(k): str(v) for k, v in json.loads(facts.get("inputs", "")).items()})
            marks = json.loads(facts.get("marks", ""))
            for text, shape in json.loads(facts.get("shapes", "")).items():
                name, seed, probe, output = json.loads(text)
                key = (int(seed), str(probe), str(output))
                found.outputs.setdefault(name, {})[key] = file.get_tensor(text)
                found.shapes.setdefault(name, {})[key] = tuple(shape)
                found.marks.setdefault(name, {})[key] = str(marks.get(text, ""))
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, FxgrowError):
            raise
        raise _bad(path, str(error)) from error
    return found


def _bad(path: Path, reason: str) -> FxgrowError:
    return usage(Kind.BAD_OPTION, f"the baseline {path} cannot be read: {reason}", hint="record it again with --record")


def compare_with(baseline: Baseline, gate: Gate, model: Subject) -> Iterator[Difference]:
    """Yield the difference of each output of a model from its recorded value, in float64.

    Raises:
        UsageError: the baseline does not contain the model, or was recorded with other seeds or inputs.
    """
    recorded = baseline.outputs.get(model.name)
    if recorded is None:
        raise usage(
            Kind.BAD_OPTION,
            f"the baseline does not contain a model {model.name}",
            hint=f"its models are {', '.join(baseline.outputs)}; or record it again with --record",
        )
    computed, digest = _computed(gate, model)
    seeds = {seed for seed, _, _ in recorded}
    if seeds != set(gate.seeds) or baseline.inputs.get(model.name) != digest:
        raise usage(
            Kind.BAD_OPTION,
            f"the baseline of {model.name} was recorded with other seeds or inputs",
            hint=f"its seeds are {sorted(seeds)}; use the same seeds and inputs, or record it again with --record",
        )
    check_own(model, (output for _, _, output in (*recorded, *computed)))
    for key in dict.fromkeys((*recorded, *computed)):
        seed, probe, output = key
        given = model.tolerance.get(output, model.tolerance.get(DEFAULT, FLOAT64_BOUND))
        same = key in recorded and key in computed and baseline.shapes[model.name][key] == tuple(computed[key].shape)
        if same and baseline.marks[model.name][key] != mark(computed[key]):
            raise _bad(baseline.path, "its entries were sampled with other random numbers")
        error = distance(recorded[key], sample(computed[key])) if same else float("inf")
        yield Difference(output, seed, probe, "eval", "float64", error, given)
