"""The tables of docs/symmetry.md: a ResNet that learns handwritten digits is widened early and trained on.

python -m benchmarks.symmetry [--seeds 3] [--before 1] [--epochs 40]    (from the root of the repository)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import median

import torch
import torch.nn.functional as F
from torch import fx, nn

import fxgrow
from fxgrow.diagnostics import Course, Filters, Recorder, diversity, filters
from fxgrow.models_zoo.demo.data import Digits, digits
from fxgrow.models_zoo.demo.training import BATCH, held_out_correct
from fxgrow.models_zoo.models.resnet import ResNet

SITE = "layer2.conv1"
"""32 filters of 16x3x3 that become 48 (the paper's factor of 1.5): eight pairs."""
WIDE = 48
MOMENTS = (1, 10, 100)
"""Steps at which the halves are reported, beside the last."""
RATE = 1e-3
Parameters = Iterable[nn.Parameter]
Optimizer = Callable[[Parameters], torch.optim.Optimizer]

OPTIMIZERS: Mapping[str, Optimizer] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.02),
    "SGD, momentum 0.9": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "SGD, momentum 0.9, decay 5e-3": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=5e-3),
    "Adam": lambda p: torch.optim.Adam(p, lr=RATE),
    "Adam, L2 1e-2": lambda p: torch.optim.Adam(p, lr=RATE, weight_decay=1e-2),
    "AdamW, decay 1e-2": lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=1e-2),
}
SCHEMES = ("r2r", "net2net", "morphism")
"""For the second table, all with Adam."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training after a growth."""

    course: Course
    """Of the filters' halves."""
    filters: Filters
    right: float
    """Held-out accuracy at the end, in percent."""

    def apart(self, step: int) -> float:
        """The median distance of a pair's halves, in lengths of a half."""
        return median(self.course.separations[step].relative)


def train(
    model: nn.Module,
    data: Digits,
    make: Optimizer,
    *,
    epochs: int,
    seed: int,
    after_step: Callable[[], object] = lambda: None,
) -> None:
    """Train; the model is in evaluation mode afterwards."""
    random, optimizer = torch.Generator().manual_seed(seed), make(model.parameters())
    model.train()
    for _ in range(epochs):
        for batch in data.train[torch.randperm(len(data.train), generator=random)].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(data.images[batch]), data.labels[batch]).backward()
            optimizer.step()
            after_step()
    model.eval()


def run(young: fx.GraphModule, data: Digits, optimizer: str, *, scheme: str, epochs: int, seed: int) -> Run:
    """Widen a net and train it on."""
    gm = fxgrow.widen(young, SITE, to=WIDE, scheme=scheme, seed=seed)
    recorder = Recorder(gm)
    recorder.record()
    train(gm, data, OPTIMIZERS[optimizer], epochs=epochs, seed=seed + 1, after_step=recorder.record)
    course = recorder.course
    right = 100 * held_out_correct(gm, data) / len(data.held_out)
    return Run(Course(course.steps, course.of(f"{SITE}.weight")), diversity(gm).of(f"{SITE}.weight"), right)


def alone(hidden: int, data: Digits, *, epochs: int, seed: int) -> tuple[Filters, float]:
    """A net of one width all along, trained for as many epochs with Adam."""
    torch.manual_seed(seed)
    model = ResNet(hidden=(16, hidden, 32, 64))
    train(model, data, OPTIMIZERS["Adam"], epochs=epochs, seed=seed)
    right = 100 * held_out_correct(model, data) / len(data.held_out)
    return filters(model.get_parameter(f"{SITE}.weight"), name="alone"), right


def spread(values: Iterable[float], form: str) -> str:
    """Least and most over the seeds, once where they read the same."""
    some = list(values)
    least, most = f"{min(some):{form}}", f"{max(some):{form}}"
    return "–" if isnan(some[0]) else least if least == most else f"{least} to {most}"


def show_halves(runs: Mapping[str, Sequence[Run]]) -> None:
    """The first table."""
    moments = " | ".join(f"step {k}" for k in MOMENTS)
    print(f"| optimizer | {moments} | last | closest pair, last | length of a half, last | accuracy, % |")
    print(f"|---|{'---|' * (len(MOMENTS) + 4)}")
    for name, some in runs.items():
        cells = [spread((r.apart(k) for r in some), ".4f" if k == 1 else ".3f") for k in (*MOMENTS, -1)]
        first, last = ([r.course.separations[k] for r in some] for k in (0, -1))
        lengths = (sum(b.lengths) / sum(a.lengths) for a, b in zip(first, last, strict=True))
        cells += [spread((min(s.relative) for s in last), ".3f"), spread(lengths, ".2f")]
        print(f"| {name} | {' | '.join(cells)} | {spread((r.right for r in some), '.1f')} |")


def show_filters(rows: Mapping[str, Sequence[tuple[Filters, float]]]) -> None:
    """The second table."""
    print(
        "| filters | rank, all | of old | of new | old–new | new–new | nearest to old | nearest to new | accuracy, % |"
    )
    print(f"|---|{'---|' * 8}")
    for name, some in rows.items():
        cells = [spread((getattr(f, k) for f, _ in some), ".1f") for k in ("rank", "rank_old", "rank_new")]
        alike = ("old_new", "new_new", "nearest_old", "nearest_new")
        cells += [spread((getattr(f, k) for f, _ in some), ".2f") for k in alike]
        print(f"| {name} | {' | '.join(cells)} | {spread((right for _, right in some), '.1f')} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--before", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, epochs = digits(), options.epochs
    halves, rows = dict[str, list[Run]](), dict[str, list[tuple[Filters, float]]]()
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        model = ResNet()
        train(model, data, OPTIMIZERS["Adam"], epochs=options.before, seed=seed)
        young = fx.symbolic_trace(model)
        for optimizer in OPTIMIZERS:
            halves.setdefault(optimizer, []).append(run(young, data, optimizer, scheme="r2r", epochs=epochs, seed=seed))
        for scheme in SCHEMES:
            first = diversity(fxgrow.widen(young, SITE, to=WIDE, scheme=scheme, seed=seed)).of(f"{SITE}.weight")
            rows.setdefault(f"{scheme}, at the growth", []).append((first, float("nan")))
            made = run(young, data, "Adam", scheme=scheme, epochs=epochs, seed=seed)
            rows.setdefault(f"{scheme}, last", []).append((made.filters, made.right))
        for hidden in (WIDE, 32):
            found = alone(hidden, data, epochs=options.before + epochs, seed=seed)
            rows.setdefault(f"{hidden} from the start", []).append(found)
    print(f"{SITE}: {options.seeds} seeds (least to most), growth after {options.before} and {epochs} epochs more\n")
    show_halves(halves)
    print()
    show_filters(rows)


if __name__ == "__main__":
    main()
