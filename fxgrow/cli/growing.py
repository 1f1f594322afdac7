"""`fxgrow widen`, `fxgrow deepen`, `fxgrow grow`: a plan, a certificate, and the saved form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..api import plan_widen
from ..deepening import plan_deepen
from ..errors import Kind, VerificationFailed, usage
from ..growing import plan_grow
from ..loading import Loaded, grown_by, load, save
from ..loading.saved import check_folder
from ..loading.wishes import depths, widths
from ..plan import Plan
from ..verify import verify
from . import options as o
from .terminal import note, say, show_certificate, show_growth, show_plan

Several = list[str] | None


def register(app: typer.Typer) -> None:
    """Add the commands."""
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


Node = Annotated[
    list[str],
    typer.Option(
        "--node",
        "-n",
        metavar="NAME",
        rich_help_panel=o.GROWTH,
        help="A module path, an fx node or a parameter, from fxgrow inspect.",
    ),
]
After = Annotated[
    Several,
    typer.Option(
        "--after",
        metavar="NAME",
        rich_help_panel=o.GROWTH,
        help="A module, a container or an fx node to put a block behind.",
    ),
]
Before = Annotated[
    Several, typer.Option("--before", metavar="NAME", rich_help_panel=o.GROWTH, help="The same, in front of it.")
]
WidenOption = Annotated[
    Several,
    typer.Option(
        "--widen",
        "-w",
        rich_help_panel=o.GROWTH,
        metavar="[NAME=]SIZE",
        help="A factor for every layer, or name=size, names with * and ?; sizes are 1.5, to:512, by:8 or keep.",
    ),
]
DeepenOption = Annotated[
    Several,
    typer.Option(
        "--deepen",
        "-d",
        rich_help_panel=o.GROWTH,
        metavar="PLACE[=BLOCK]",
        help="Where blocks go, and which: layer3.1=clone.",
    ),
]
RoundTo = Annotated[
    int | None,
    typer.Option("--round-to", metavar="N", rich_help_panel=o.GROWTH, min=1, help="Round widths up to a multiple."),
]


def widen(
    model: o.Model,
    node: Node,
    to: Annotated[
        int | None, typer.Option("--to", metavar="N", rich_help_panel=o.GROWTH, help="The new width.")
    ] = None,
    by: Annotated[
        int | None, typer.Option("--by", metavar="N", rich_help_panel=o.GROWTH, help="How many channels more.")
    ] = None,
    factor: Annotated[
        float | None,
        typer.Option("--factor", metavar="X", rich_help_panel=o.GROWTH, help="How many times wider; 2 by default."),
    ] = None,
    round_to: RoundTo = None,
    skip: o.SkipOption = o.Skip.couple,
    adapter: Annotated[
        str,
        typer.Option(
            "--adapter", metavar="pad|conv", rich_help_panel=o.GROWTH, help="With --skip reshape: pad, or conv."
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
    """Widen layers of a model; the function stays."""
    _check_out(out, overwrite, dry_run)
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    plan = plan_widen(
        about.model,
        node,
        to=to,
        by=by,
        factor=factor,
        round_to=round_to,
        skip=skip.value,
        adapter=adapter,  # type: ignore[arg-type]  # any other is refused there, with the list
        grow=grow.value,
        scheme=scheme,
        seed=seed,
        init=init.value,
        example_inputs=about.inputs,
    )
    _finish(about, plan, out, dry_run, check)


def deepen(
    model: o.Model,
    after: After = None,
    before: Before = None,
    block: Annotated[
        str | None,
        typer.Option(
            "--block",
            metavar="NAME",
            rich_help_panel=o.GROWTH,
            help="basic, bottleneck, depthwise, mlp, transformer or clone; by default what fits.",
        ),
    ] = None,
    scheme: Annotated[
        str, typer.Option("--scheme", metavar="NAME", rich_help_panel=o.GROWTH, help="r2r, zero, net2net or morphism.")
    ] = "r2r",
    count: Annotated[int, typer.Option("--count", metavar="N", rich_help_panel=o.GROWTH, help="How many blocks.")] = 1,
    hidden: Annotated[
        int | None, typer.Option("--hidden", metavar="N", rich_help_panel=o.GROWTH, help="The width inside.")
    ] = None,
    kernel: Annotated[
        int | None, typer.Option("--kernel", metavar="N", rich_help_panel=o.GROWTH, help="The window of convolutions.")
    ] = None,
    norm: Annotated[
        str,
        typer.Option(
            "--norm", metavar="NAME", rich_help_panel=o.GROWTH, help="batch, group, layer, rms, none or auto."
        ),
    ] = "auto",
    activation: Annotated[
        str | None,
        typer.Option("--activation", metavar="NAME", rich_help_panel=o.GROWTH, help="A class of torch.nn, or none."),
    ] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", metavar="N", rich_help_panel=o.GROWTH, help="Of a transformer block.")
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            "--init", metavar="NAME", rich_help_panel=o.GROWTH, help="match, kaiming, xavier; copy for clones."
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
    """Insert blocks that change nothing until they are trained."""
    _check_out(out, overwrite, dry_run)
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
        seed=seed,
        init=init,
        example_inputs=about.inputs,
    )
    _finish(about, plan, out, dry_run, check)


def grow(
    model: o.Model,
    widen: WidenOption = None,
    deepen: DeepenOption = None,
    round_to: RoundTo = None,
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
    """Grow a whole network, wider, deeper or both, by one plan."""
    _check_out(out, overwrite, dry_run)
    about = load(model, weights=weights, grown=grown, inputs=inputs, unsafe_pickle=unsafe_pickle, seed=seed)
    wishes: dict[str, Any] = {"widen": widths(widen, round_to), "deepen": depths(deepen)}
    plan = plan_grow(
        about.model,
        **wishes,
        skip=skip.value,
        grow=grow.value,
        scheme=scheme,
        init=init.value,
        seed=seed,
        example_inputs=about.inputs,
    )
    _finish(about, plan, out, dry_run, check)


def _check_out(out: Path | None, overwrite: bool, dry_run: bool) -> None:
    if out is None and not dry_run:
        raise usage(Kind.BAD_OPTION, "nowhere to save the grown model", hint="--out DIR, or --dry-run to see the plan")
    if out is not None and not dry_run:
        check_folder(out, overwrite=overwrite)


def _finish(about: Loaded, plan: Plan, out: Path | None, dry_run: bool, check: bool) -> None:
    """Show the plan, or apply it, compare the models, and save the result."""
    note(f"{about.name}, {about.origin}")
    if dry_run or out is None:
        show_plan(plan)
        return
    show_growth(plan)
    write(about, plan, out, check=check, checked=True)


def write(about: Loaded, plan: Plan, out: Path, *, check: bool, checked: bool) -> None:
    """Apply a plan to a copy, compare the models, and save the result."""
    larger = grown_by(plan, about.model, checked=checked)
    if check:
        certificate = verify(about.model, larger, example_inputs=about.analysed)
        show_certificate(certificate)
        if not certificate.held and not certificate.noise:
            raise VerificationFailed(certificate.refusal())
    plan_file, weights_file = save(about.original, larger, out, inputs=about.analysed)
    say(f"wrote {plan_file} and {weights_file} ({weights_file.stat().st_size:,} bytes)", style="bold")
    note(
        f"fxgrow verify {about.name} {out}    compares them again; fxgrow.loading.restore(model, {str(out)!r}) reads it"
    )
