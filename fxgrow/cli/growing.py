"""The commands `fxgrow widen`, `fxgrow deepen` and `fxgrow grow`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..api.deepening import plan_deepen
from ..api.growing import plan_grow
from ..api.widening import plan_widen
from ..loading import load
from ..loading.wishes import depths, widths
from . import growths as g
from . import options as o
from .saving import check_out, finish


def register(app: typer.Typer) -> None:
    """Add the commands `fxgrow widen`, `fxgrow deepen` and `fxgrow grow` to the application."""
    app.command("widen", epilog=_example("widen torchvision.models:resnet18 --node layer2.0.conv1 --out wider"))(widen)
    app.command("deepen", epilog=_example("deepen torchvision.models:resnet18 --after layer3 --out deeper"))(deepen)
    app.command(
        "grow",
        epilog=_example(
            "grow torchvision.models:resnet18 --widen 'layer*.*.conv1=1.5' --deepen layer3.1=clone -o grown"
        ),
    )(grow)


def _example(line: str) -> str:
    return f"Example: [bold]fxgrow {line}[/bold]"


def widen(
    model: o.Model,
    node: g.Node,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", rich_help_panel=o.GROWTH, help="The new width.")
    ] = None,
    by: Annotated[
        int | None, typer.Option("--by", metavar="N", rich_help_panel=o.GROWTH, help="How many channels to add.")
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option("--factor", metavar="X", rich_help_panel=o.GROWTH, help="The factor of the width; 2 by default."),
    ] = None,
    round_to: g.RoundTo = None,
    skip: o.SkipOption = o.Skip.couple,
    adapter: Annotated[
        str,
        typer.Option(
            "--adapter",
            metavar="pad|conv",
            rich_help_panel=o.GROWTH,
            help="With --skip reshape, how skip paths are adapted: pad, or conv (a 1x1 convolution).",
        ),
    ] = "pad",
    grow: o.GrowOption = o.Units.channels,
    scheme: o.Scheme = "auto",
    init: o.InitOption = o.Init.match,
    seed: o.Seed = 0,
    weights: o.Weights = None,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    check: o.Check = True,
    unsafe_pickle: o.UnsafePickle = False,
) -> None:
    """Widen layers of a model without changing its function."""
    check_out(out, overwrite, dry_run)
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    plan = plan_widen(
        about.model,
        node,
        to=to,
        by=by,
        factor=factor,
        round_to=round_to,
        skip=skip.value,
        adapter=adapter,  # type: ignore[arg-type]  # plan_widen refuses any other value
        grow=grow.value,
        scheme=scheme,
        seed=seed,
        init=init.value,
        example_inputs=about.inputs,
    )
    finish(about, plan, out, dry_run, check)


def deepen(
    model: o.Model,
    after: g.After = None,
    before: g.Before = None,
    block: Annotated[
        str | None,
        typer.Option(
            "--block",
            metavar="NAME",
            rich_help_panel=o.GROWTH,
            help="basic, bottleneck, depthwise, mlp, transformer or clone; by default one that fits the position.",
        ),
    ] = None,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", rich_help_panel=o.GROWTH, help="r2r, zero, net2net or morphism.")
    ] = "r2r",
    count: Annotated[
        int, typer.Option("--count", metavar="N", rich_help_panel=o.GROWTH, help="The number of blocks.")
    ] = 1,
    hidden: Annotated[
        int | None,
        typer.Option("--hidden", metavar="N", rich_help_panel=o.GROWTH, help="The inner width of the blocks."),
    ] = None,
    kernel: Annotated[
        int | None,
        typer.Option("--kernel", metavar="N", rich_help_panel=o.GROWTH, help="The kernel size of convolutions."),
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm", metavar="NAME", rich_help_panel=o.GROWTH, help="The norm: batch, group, layer, rms, none or auto."
        ),
    ] = "auto",
    activation: Annotated[
        str | None,
        typer.Option(
            "--activation", metavar="NAME", rich_help_panel=o.GROWTH, help="The name of a torch.nn class, or none."
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(
            "--heads", metavar="N", rich_help_panel=o.GROWTH, help="The number of heads of a transformer block."
        ),
    ] = None,
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--no-causal", rich_help_panel=o.GROWTH, help="Whether its attention is causal."),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init",
            metavar="NAME",
            rich_help_panel=o.GROWTH,
            help="How new weights are drawn: match, kaiming or xavier; copy for clones.",
        ),
    ] = "match",
    seed: o.Seed = 0,
    weights: o.Weights = None,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    check: o.Check = True,
    unsafe_pickle: o.UnsafePickle = False,
) -> None:
    """Insert blocks that do not change the function until they are trained."""
    check_out(out, overwrite, dry_run)
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    plan = plan_deepen(
        about.model,
        after,
        before=before,
        block=block,
        scheme=scheme,
        count=count,
        hidden=hidden,
        kernel=kernel,
        norm=norm,
        activation=activation,
        heads=heads,
        causal=causal,
        seed=seed,
        init=init,
        example_inputs=about.inputs,
    )
    finish(about, plan, out, dry_run, check)


def grow(
    model: o.Model,
    widen: g.WidenOption = None,
    deepen: g.DeepenOption = None,
    round_to: g.RoundTo = None,
    skip: o.SkipOption = o.Skip.couple,
    grow: o.GrowOption = o.Units.channels,
    scheme: o.Scheme = "auto",
    init: o.InitOption = o.Init.match,
    seed: o.Seed = 0,
    weights: o.Weights = None,
    grown: o.Grown = None,
    inputs: o.Inputs = None,
    out: o.Out = None,
    overwrite: o.Overwrite = False,
    dry_run: o.DryRun = False,
    check: o.Check = True,
    unsafe_pickle: o.UnsafePickle = False,
) -> None:
    """Grow a whole network in one step: wider, deeper or both."""
    check_out(out, overwrite, dry_run)
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    requested: dict[str, Any] = {"widen": widths(widen, round_to), "deepen": depths(deepen)}
    plan = plan_grow(
        about.model,
        **requested,
        skip=skip.value,
        grow=grow.value,
        scheme=scheme,
        init=init.value,
        seed=seed,
        example_inputs=about.inputs,
    )
    finish(about, plan, out, dry_run, check)
