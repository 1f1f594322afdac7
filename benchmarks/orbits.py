"""The tables of docs/experiment-orbits.md: the algebra of axes against the orbits of integer labels.

python -m benchmarks.orbits [--zoo] [--torchvision] [--mutants]    (from the root of the repository)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
import torchvision

from fxgrow.capture.lowering.build import lower
from fxgrow.capture.lowering.snapshot import Snapshot
from fxgrow.capture.program.program import Op
from fxgrow.dims.axis import Axis, Fixed
from fxgrow.models_zoo import ZOO
from fxgrow.rules import RULES
from fxgrow.rules.base import AxisContext
from tests.models.orbit import MODELS, program_of
from tests.oracles.agreement import Agreement, compare

_SMALL_INPUT = """alexnet vgg11_bn squeezenet1_0 resnet18 resnext50_32x4d regnet_y_400mf densenet121 mobilenet_v3_small
    mnasnet0_5 efficientnet_b0 shufflenet_v2_x0_5 convnext_tiny googlenet swin_t"""
TORCHVISION = {**dict.fromkeys(_SMALL_INPUT.split(), 64), "inception_v3": 96, "vit_b_32": 224, "maxvit_t": 224}
"""Whole models, and the side of their input."""


class Forgets:
    """A rule that does not know where any axis comes from, and says that they may grow, or that they may not."""

    def __init__(self, *, grows: bool) -> None:
        self.grows = grows

    def dims(self, op: Op, d: AxisContext) -> None:
        """Every axis of every result is new."""
        for out in op.outputs:
            axes: list[Axis] = [d.algebra.atom(n) if self.grows else Fixed(n) for n in out.shape]
            d.set(out, axes)


@contextmanager
def planted(operator: str, wrong: Forgets) -> Iterator[None]:
    """Put a wrong rule in the place of the right one for a while."""
    right = RULES[operator]
    RULES[operator] = wrong  # type: ignore[assignment]  # only its dims are asked for
    try:
        yield
    finally:
        RULES[operator] = right


def whole(name: str, side: int) -> Agreement:
    """Compare on a model of torchvision."""
    build = partial(getattr(torchvision.models, name), weights=None)
    if name in ("googlenet", "inception_v3"):
        build = partial(build, init_weights=False, aux_logits=False)
    model = torch.fx.symbolic_trace(build().eval())
    return compare(lower(Snapshot(model), (torch.zeros(2, 3, side, side),)))


def row(name: str, found: Agreement) -> str:
    """A row of the table."""
    counts = (found.units, found.refused, found.non_aligned, found.orbits, found.classes, len(found.disagreements))
    return f"| {name} | " + " | ".join(f"{n:,}" for n in counts) + " |"


def mutants() -> Iterator[str]:
    """Plant both wrong rules for each operator in turn; tell on how many models of those that use it it was noticed."""
    names = [name for name in (*MODELS, *ZOO) if name != "shufflenet_v2_x1_0"]
    programs = {name: program_of(name) for name in names}
    operators = sorted({op.name for program in programs.values() for op in program.ops if op.name in RULES})
    for operator in operators:
        users = [p for p in programs.values() if any(op.name == operator for op in p.ops)]
        found = []
        for grows in (True, False):
            with planted(operator, Forgets(grows=grows)):
                found.append(sum(bool(compare(p).disagreements) for p in users))
        yield f"| {operator.removeprefix('aten::')} | {len(users)} | {found[0]} | {found[1]} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Compare the algebra of axes with the orbits of integer labels.")
    parser.add_argument("--zoo", action="store_true", help="every model of the zoo as well")
    parser.add_argument("--torchvision", action="store_true", help="whole models of torchvision as well (minutes)")
    parser.add_argument("--mutants", action="store_true", help="plant wrong rules (a minute)")
    options = parser.parse_args(argv)
    print("| model | units | refused | of which non-aligned | orbits | classes | disagreements |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in (*MODELS, *(ZOO if options.zoo else ())):
        print(row(name, compare(program_of(name))), flush=True)
    if options.torchvision:
        for name, side in TORCHVISION.items():
            print(row(name, whole(name, side)), flush=True)
    if options.mutants:
        print("\n| operator | models | noticed if it may grow | noticed if it may not |")
        print("|---|--:|--:|--:|")
        for line in mutants():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
