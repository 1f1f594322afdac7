"""Train a small ResNet on real handwritten digits, grow it, verify that the function is unchanged, and train on.

Run it with `make demo` or `python -m fxgrow.models_zoo.demo.digits`. It exits with an error if a claim does not hold.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, fx, nn

import fxgrow
from fxgrow.plans.layout import partners

from ..models.resnet import ResNet
from .data import Digits, digits
from .diagram import diagram
from .growth_picture import Curve, Story, draw
from .terminal import errors, followed, heading, shortened, show_line, terminal
from .torchvision_models import PIXELS, grow_all
from .training import held_out_correct, predict

PICTURE = Path("fxgrow-demo.png")
INSIDE, AT_JOIN = "layer2.conv1", "layer3.conv2"
"""A layer inside a residual block, and one whose output is added at a residual join."""
BEHIND = "layer2"
"""The layer after which a new block is inserted."""
EPOCHS, MORE_EPOCHS = 6, 10
GOOD = 95.0
"""Held-out accuracy in percent that the network must reach before it is grown."""


@dataclass(frozen=True, slots=True)
class Grown:
    """A grown model and the plans that made it."""

    name: str
    model: fx.GraphModule
    plans: tuple[fxgrow.Plan, ...]


class Failure(SystemExit):
    """Raised to stop the demo when a claim does not hold."""


def main() -> None:
    """Run all steps of the demo."""
    started = time.perf_counter()
    torch.set_num_threads(1)  # the networks are small, and one thread makes sums reproducible
    torch.manual_seed(0)
    console = terminal()
    data = digits()
    heading(console, 1, "Train a small ResNet on handwritten digits")
    model = ResNet()
    before = trained(console, model, data)
    heading(console, 2, "Trace it and look at what can grow")
    traced_model = fx.symbolic_trace(model)
    console.print(str(fxgrow.inspect(traced_model, example_inputs=(data.images[:8],))), markup=False, soft_wrap=True)
    heading(console, 3, "Widen it, deepen it")
    grown = (*widened(console, traced_model), *deepened(console, traced_model))
    heading(console, 4, "The same function")
    certified(console, traced_model, grown, data)
    heading(console, 5, "Train on, old and new weights")
    trained_on(console, traced_model, grown, before, data)
    heading(console, 6, f"The same on torchvision's ResNets (random weights, {PIXELS} × {PIXELS} pixels)")
    torchvision_nets(console)
    console.print(f"\nAll of it held; {time.perf_counter() - started:.0f} s.", style="bold")


def require(claim: bool, otherwise: str) -> None:
    """Exit with a message and status 1 if a claim does not hold."""
    if not claim:
        raise Failure(f"fxgrow demo: {otherwise}")


def trained(console: Console, model: nn.Module, data: Digits) -> tuple[float, ...]:
    """Train the network; return its held-out accuracy before and after each epoch."""
    console.print(f"{len(data.train)} images to train on, {len(data.held_out)} held out, 8 × 8 pixels each")
    accuracies = followed(console, "the net", model, data, epochs=EPOCHS, seed=0)
    right = held_out_correct(model, data)
    console.print(f"held-out accuracy [bold]{accuracies[-1]:.2f} %[/bold] ({right} of {len(data.held_out)})")
    require(accuracies[-1] >= GOOD, f"the net did not learn: {accuracies[-1]:.2f} % held-out, {GOOD:g} % expected")
    return accuracies


def widened(console: Console, traced_model: fx.GraphModule) -> tuple[Grown, ...]:
    """Widen a layer inside a block, then one at a residual join, in both skip modes."""
    show_line(console, 'print(fxgrow.plan_widen(traced_model, node="layer2.conv1"))')
    plan = fxgrow.plan_widen(traced_model, node="layer2.conv1")
    console.print(plan.explain(), markup=False, soft_wrap=True)
    show_line(console, 'wider = fxgrow.widen(traced_model, node="layer2.conv1")')
    wider = fxgrow.widen(traced_model, node="layer2.conv1")
    grown = [Grown(INSIDE, wider, (plan,))]
    modes: tuple[Literal["couple", "reshape"], ...] = ("couple", "reshape")
    for skip in modes:
        show_line(console, f'print(fxgrow.plan_widen(wider, node="{AT_JOIN}", skip="{skip}"))')
        second = fxgrow.plan_widen(wider, node=AT_JOIN, skip=skip)
        console.print(shortened(second.explain()), markup=False, soft_wrap=True)
        show_line(console, f'{skip}d = fxgrow.widen(wider, node="{AT_JOIN}", skip="{skip}")')
        result = fxgrow.widen(wider, node=AT_JOIN, skip=skip)
        grown.append(Grown(f'+ {AT_JOIN}, "{skip}"', result, (plan, second)))
        console.print(f"nodes added to the graph: {len(result.graph.nodes) - len(wider.graph.nodes)}")
    return tuple(grown)


def deepened(console: Console, traced_model: fx.GraphModule) -> tuple[Grown, ...]:
    """Insert a residual block that contributes zero at first; then widen and deepen the whole network with one plan."""
    show_line(console, f'print(fxgrow.plan_deepen(traced_model, after="{BEHIND}"))')
    deeper = fxgrow.plan_deepen(traced_model, after=BEHIND)
    console.print(shortened(deeper.explain()), markup=False, soft_wrap=True)
    show_line(console, f'deeper = fxgrow.deepen(traced_model, after="{BEHIND}")')
    show_line(console, f'both = fxgrow.grow(traced_model, widen=1.5, deepen={{"{BEHIND}": "basic"}})')
    both = fxgrow.plan_grow(traced_model, widen=1.5, deepen={BEHIND: "basic"})
    parameters = both.then[-1].after.parameters
    console.print(f"one plan: {both.title} by half, {both.then[0].title}; {parameters:,} parameters")
    return (
        Grown(f"deeper behind {BEHIND}", fxgrow.deepen(traced_model, after=BEHIND), (deeper,)),
        Grown("wider and deeper", fxgrow.apply(both, traced_model), (both, *both.then)),
    )


def certified(console: Console, before: fx.GraphModule, grown: tuple[Grown, ...], data: Digits) -> None:
    """Show that each grown model computes the same function and makes the same prediction for every held-out image."""
    held_out = data.images[data.held_out]
    answers, right = predict(before, held_out), held_out_correct(before, data)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("grown", "params", "float64", "float32", "tolerance", "held-out", "right after", "answers"):
        table.add_column(name, justify="left" if name in ("grown", "answers") else "right")
    for g in grown:
        certificate = fxgrow.verify(before, g.model)
        last = g.plans[-1].after.parameters
        same = torch.equal(predict(g.model, held_out), answers)
        score = f"{held_out_correct(g.model, data)}/{len(held_out)}"
        table.add_row(
            g.name,
            f"{last:,}",
            *errors(certificate),
            f"{right}/{len(held_out)}",
            score,
            "identical" if same else "differ",
        )
        require(certificate.held, f"{g.name}: the function changed\n{certificate}")
        require(same and held_out_correct(g.model, data) == right, f"{g.name}: it predicts something else")
    console.print(table)
    console.print(
        "relative differences, the largest over all probes, evaluation and training mode; in full:", style="dim"
    )
    show_line(console, "print(fxgrow.verify(traced_model, both))")
    console.print(str(certificate), markup=False, soft_wrap=True)


def distances(model: fx.GraphModule, plan: fxgrow.Plan) -> Tensor:
    """Return the distance between the two filters of each new pair, relative to the norm of the first."""
    edit = next(t for t in plan.tensors if t.names == (f"{INSIDE}.weight",))
    left, right, _ = partners(edit.axes[0].layout, 0)
    filters = model.get_parameter(edit.names[0]).detach().flatten(1)
    apart: Tensor = (filters[left] - filters[right]).norm(dim=1) / filters[left].norm(dim=1)
    return apart


def trained_on(
    console: Console, net: fx.GraphModule, grown: tuple[Grown, ...], before: tuple[float, ...], data: Digits
) -> None:
    """Train the grown models and the original network further, show that the halves diverge, and save the picture."""
    _, couple, reshape, deeper, both = grown
    graph = diagram(net, reshape.model, (data.images[:8],))
    paths = [distances(reshape.model, reshape.plans[0])]
    curves = []
    for label, model, after_epoch in (
        ('grown, skip="reshape"', reshape.model, lambda: paths.append(distances(reshape.model, reshape.plans[0]))),
        ('grown, skip="couple"', couple.model, lambda: None),
        ("deeper", deeper.model, lambda: None),
        ("wider and deeper", both.model, lambda: None),
        ("not grown, for reference", net, lambda: None),
    ):
        accuracies = followed(console, label, model, data, epochs=MORE_EPOCHS, seed=1, after_epoch=after_epoch)
        curves.append(Curve(label, EPOCHS, accuracies))
    first, last = paths[0], paths[-1]
    console.print(
        f"\ndistance between the halves of the {len(first)} new pairs of {INSIDE}, in lengths of a filter:\n"
        f"  right after the growth  [bold]{float(first.max())}[/bold]\n"
        f"  {MORE_EPOCHS} epochs later         [bold]{float(last.min()):.3f}[/bold] to [bold]{float(last.max()):.3f}"
    )
    require(float(first.max()) == 0, "the halves of a new pair were not equal")
    require(float(last.min()) > 0, "the halves of a new pair did not separate")
    halves = tuple(Curve("", EPOCHS, tuple(values)) for values in torch.stack(paths, dim=1).tolist())
    title = f"A trained ResNet grows: {INSIDE}, then {AT_JOIN}"
    draw(Story(title, Curve("before the growth", 0, before), tuple(curves), halves, graph), PICTURE)
    console.print(f"picture: [bold]{PICTURE.resolve()}[/bold]", soft_wrap=True)


def torchvision_nets(console: Console) -> None:
    """Grow torchvision networks and print the certificate of each growth in one line."""
    with console.status("…") as status:
        rows = grow_all(status.update)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("net", "widened", "channels", "skip", "added", "params", "float64", "float32", "tolerance", "same"):
        table.add_column(name, justify="left" if name in ("net", "widened", "skip", "same") else "right", no_wrap=True)
    previous = ""
    for r in rows:
        require(r.certificate.held, f"{r.net}, {r.what}: the function changed\n{r.certificate}")
        name = "" if r.net == previous else r.net
        table.add_row(name, r.what, r.width, r.skip, str(r.adapters), r.parameters, *errors(r.certificate), "yes")
        previous = r.net
    console.print(table)
    console.print(
        "added: skip adapters in the graph. Each growth at a join starts from the first growth.",
        style="dim",
    )


if __name__ == "__main__":
    main()
