"""Coverage: every producer of every model of the catalogue, widened and compared, or refused with its reason.

python -m fxgrow.models_zoo.coverage --write docs/coverage.md
"""

from __future__ import annotations

import argparse
import gc
import importlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.passes.survey import Site
from fxgrow.verify.certificate import FLOAT64_BOUND
from fxgrow.verify.compare import distance, run, twin
from fxgrow.verify.probes import Probe, probes

from .catalogue import ZOO

TORCHVISION: dict[str, tuple[int, ...]] = {
    "alexnet": (3, 64, 64),
    "vgg11_bn": (3, 32, 32),
    "resnet18": (3, 64, 64),
    "resnet50": (3, 64, 64),
    "resnext50_32x4d": (3, 64, 64),
    "wide_resnet50_2": (3, 64, 64),
    "densenet121": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
    "mobilenet_v3_small": (3, 64, 64),
    "efficientnet_b0": (3, 64, 64),
    "squeezenet1_0": (3, 64, 64),
    "googlenet": (3, 64, 64),
    "inception_v3": (3, 96, 96),
    "mnasnet1_0": (3, 64, 64),
    "shufflenet_v2_x1_0": (3, 64, 64),
    "regnet_y_400mf": (3, 64, 64),
    "r3d_18": (3, 8, 32, 32),
}
"""Torchvision models, and an input small enough that hundreds of widenings are compared in minutes."""
FACTOR = 1.25
"""Small growths show the same mistakes as large ones, and their odd numbers of new units show more."""


@dataclass(slots=True)
class Row:
    """What became of one model."""

    model: str
    sites: int = 0
    grown: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    eval_error: float = 0.0
    train_error: float | None = None
    seconds: float = 0.0


def torchvision_model(name: str) -> nn.Module:
    """A torchvision model with random weights."""
    models = importlib.import_module("torchvision.models")
    if name == "r3d_18":
        models = importlib.import_module("torchvision.models.video")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = getattr(models, name)(**options)
    return model


def settle(model: nn.Module, inputs: Sequence[Tensor]) -> nn.Module:
    """Give batch norms the statistics of some data and parameters some spread, as training would."""
    generator = torch.Generator().manual_seed(0)
    model.eval()  # auxiliary heads of training mode want larger inputs
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.weight is not None:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.2, 0.2, generator=generator)
                module.train()
        for _ in range(3):
            model(*inputs)
    return model.eval()


def cover(name: str, model: nn.Module, inputs: tuple[Tensor, ...], *, each: bool = True) -> Row:
    """Widen every site of a model by itself (or all together), and compare in float64, in both modes."""
    start = time.perf_counter()
    gm = fxgrow.trace(model.eval(), inputs)
    row = Row(name)
    some = [probes(inputs, 0)[0]]
    before = {mode: _outputs(gm, some, training=mode) for mode in (False, True)}
    sites = fxgrow.inspect(gm).sites
    row.sites = len(sites)
    able = []
    for site in sites:
        if site.refusal is not None:
            row.refused[site.refusal.kind.name] += 1
        else:
            able.append(site)
    batches: list[list[Site]] = [[site] for site in able] if each else [able] if able else []
    for batch in batches:
        try:
            plan = fxgrow.plan_widen(gm, [s.parameter or s.path for s in batch], factor=FACTOR)
            grown = fxgrow.apply(plan, gm)
        except fxgrow.FxgrowError as refused:
            row.refused[refused.kind.name] += len(batch)
            continue
        row.grown += len(batch)
        for mode in (False, True):
            if mode and (plan.eval_only or before[True] is None):
                continue
            error = _error(before[mode], _outputs(grown, some, training=mode))
            if mode:
                row.train_error = max(row.train_error or 0.0, error)
            else:
                row.eval_error = max(row.eval_error, error)
            if error > FLOAT64_BOUND:
                row.broken.append(f"{batch[0].path} ({'training' if mode else 'eval'}: {error:.1e})")
        gc.collect()  # graph modules are cycles, and hold large tensors
    row.seconds = time.perf_counter() - start
    return row


def _outputs(gm: fx.GraphModule, some: Sequence[Probe], *, training: bool) -> list[dict[str, Tensor]] | None:
    try:
        return [run(twin(gm, torch.float64, training=training), probe, seed=0) for probe in some]
    except ValueError:  # one value per channel in training mode
        return None


def _error(before: list[dict[str, Tensor]] | None, after: list[dict[str, Tensor]] | None) -> float:
    if before is None or after is None:
        return float("inf")
    return max(distance(x, b[k]) for a, b in zip(before, after, strict=True) for k, x in a.items())


def rows(names: Sequence[str] | None = None, *, each: bool = True) -> Iterator[Row]:
    """One row for each model, zoo first.

    Models of the zoo are grown in float64: where a norm's axis grows, its scale is rounded to the model's own dtype.
    """
    for name, entry in ZOO.items():
        if names is None or name in names:
            torch.manual_seed(0)
            inputs = tuple(x.double() if x.is_floating_point() else x for x in entry.example_inputs())
            yield cover(name, settle(entry.build().double(), inputs), inputs, each=each)
    for name, shape in TORCHVISION.items():
        name = f"torchvision.{name}"
        if names is None or name in names:
            torch.manual_seed(0)
            inputs = (torch.randn(2, *shape),)
            yield cover(name, settle(torchvision_model(name.removeprefix("torchvision.")), inputs), inputs, each=each)


def table(found: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| model | producers | widened | refused, by reason | eval error | training error |",
        "|---|--:|--:|---|--:|--:|",
    ]
    for r in found:
        reasons = ", ".join(f"{k} {n}" for k, n in sorted(r.refused.items())) or "–"
        train = "–" if r.train_error is None else f"{r.train_error:.0e}"
        error = f"{r.eval_error:.0e}" if r.grown else "–"
        lines.append(f"| {r.model} | {r.sites} | {r.grown} | {reasons} | {error} | {train} |")
    total, grown = sum(r.sites for r in found), sum(r.grown for r in found)
    lines.append(f"| **all {len(found)}** | **{total}** | **{grown}** | | | |")
    return "\n".join(lines)


HEAD = """# Coverage

Every output axis of every convolution, linear layer and embedding, widened by {factor:g} with `scheme="r2r"`,
`skip="couple"`, one at a time, and compared with the original in float64 (largest relative difference, bound 1e-10);
or refused, with the kind of reason (`fxgrow.Kind`). A training error is given where no dropout is crossed.
`make zoo` runs it again and writes this page.

"""


def main(argv: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Cover the catalogue; 1 if any growth broke the function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; all if none is named")
    parser.add_argument("--together", action="store_true", help="widen all producers of a model in one plan")
    parser.add_argument("--write", type=Path, help="also write the table to this file")
    options = parser.parse_args(argv)
    found = []
    for row in rows(options.names or None, each=not options.together):
        found.append(row)
        bad = f"  BROKEN {', '.join(row.broken)}" if row.broken else ""
        say(f"{row.model:<28} {row.grown:>3} of {row.sites:>3} widened, {row.seconds:5.1f} s{bad}")
    text = table(found)
    say(text)
    if options.write is not None:
        options.write.write_text(HEAD.format(factor=FACTOR) + text + "\n")
    return 1 if any(r.broken for r in found) else 0


if __name__ == "__main__":
    raise SystemExit(main())
