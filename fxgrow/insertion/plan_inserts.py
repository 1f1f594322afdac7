"""Build a plan from drafted blocks: the functions shared by all passes that insert blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import fx

from ..analysis.analysis import Analysis
from ..errors import FxgrowError, GrowthRefused, Kind, usage
from ..planning.targets import Name, names_in
from ..plans import Plan
from ..plans.insertion import Layers
from ..plans.limits import is_seed
from .block_options import NORMS
from .inserting import Drafted
from .positions import Position, Side, find_position, free_name

SCHEMES = ("r2r", "zero", "net2net", "morphism")
INITS = ("match", "kaiming", "xavier", "copy")
LARGEST_KERNEL = 1024
"""The largest kernel size of a new convolution along one axis; no known network has a larger one."""
MOST_BLOCKS = 1000
"""The largest number of new blocks in one plan. Planning that many still takes only seconds."""
Names = Name | Iterable[Name] | None
Places = tuple[tuple[str, Side], ...]
"""Names of modules, containers or fx nodes, each with the side on which the block is inserted."""
_ALLOWED: dict[str, tuple[str, ...]] = {"scheme": SCHEMES, "init": INITS, "norm": NORMS}


def places_of(after: Names, before: Names) -> Places:
    """Return the places that `after=` and `before=` name.

    Raises:
        UsageError: no place is named.
    """
    found: list[tuple[str, Side]] = [(name, "after") for name in (() if after is None else names_in(after))]
    found += [(name, "before") for name in (() if before is None else names_in(before))]
    if not found:
        raise usage(Kind.BAD_OPTION, "no place is named", hint='after="layer2"')
    return tuple(found)


def check_options(places: Places, **options: Any) -> None:
    """Check the options of a pass that inserts blocks.

    Args:
        places: where blocks are inserted.
        options: the options of the pass, by name.

    Raises:
        UsageError: an option has an invalid value.
    """
    for name, allowed in _ALLOWED.items():
        if name in options and options[name] not in allowed:
            what = f"{name}={options[name]!r} is unknown"
            raise usage(Kind.BAD_OPTION, what, hint=f"one of: {', '.join(allowed)}")
    for name in ("count", "hidden", "kernel", "heads"):
        value = options.get(name)
        if (value is None and (name != "count" or name not in options)) or (type(value) is int and value > 0):
            continue
        what = f"{name}= must be a positive whole number, not {value!r:.60}"
        raise usage(Kind.BAD_OPTION, what, hint=f"{name}=2, say")
    kernel, causal = options.get("kernel"), options.get("causal")
    if kernel is not None and kernel > LARGEST_KERNEL:
        what = f"kernel={kernel:,} is larger than the largest window of a new block"
        raise usage(Kind.BAD_OPTION, what, hint=f"kernel=3, say, at most {LARGEST_KERNEL:,}")
    if causal is not None and not isinstance(causal, bool):
        raise usage(Kind.BAD_OPTION, f"causal= must be True or False, not {causal!r:.60}", hint="causal=True")
    check_number(options.get("count", 1) * len(places))
    if not is_seed(options.get("seed", 0)):
        what = f"seed must be a whole number from 0, not {options['seed']!r}"
        raise usage(Kind.BAD_OPTION, what, hint="seed=0")


def check_number(blocks: int) -> None:
    """Raise an error if a plan has too many blocks, before any of them is built.

    Raises:
        UsageError: there are more than `MOST_BLOCKS`.
    """
    if blocks > MOST_BLOCKS:
        what = f"{blocks:,} new blocks are more than one plan may insert"
        raise usage(Kind.BAD_OPTION, what, hint=f"at most {MOST_BLOCKS:,} a plan")


def in_rows(
    gm: fx.GraphModule, analysis: Analysis, places: Places, count: int, make: Callable[[Position], Drafted]
) -> list[Drafted]:
    """Draft `count` consecutive blocks at every place, each with an unused name.

    Args:
        gm: the traced model.
        analysis: its analysis.
        places: where blocks are inserted.
        count: number of blocks at each place.
        make: drafts the block for one position; the consecutive blocks are copies of it.
    """
    taken: set[str] = set()
    drafts: list[Drafted] = []
    for name, side in dict.fromkeys(places):
        position = find_position(gm, analysis, name, side)
        _check_order(drafts, position)
        made = make(position)
        for _ in range(count):
            drafts.append(replace(made, insert=replace(made.insert, name=free_name(gm, position, taken))))
    return drafts


def _check_order(drafts: list[Drafted], position: Position) -> None:
    """Raise an error if blocks after one node have different consumers, because their order would be undefined."""
    for other in drafts:
        if other.insert.node == position.node.name and other.insert.users != position.users:
            raise usage(
                Kind.BAD_OPTION,
                f"two places are behind {position.node.name}, one for all its consumers and one for some",
                hint="deepen in two calls, one after the other",
            )


def plan_inserts(
    gm: fx.GraphModule,
    analysis: Analysis,
    places: Sequence[tuple[str, str]],
    drafts: list[Drafted],
    *,
    scheme: str,
    seed: int,
    init: str,
    clone_keys: tuple[tuple[str, str], ...] = (),
) -> Plan:
    """Return the plan that inserts drafted blocks."""
    before, after = drafts[0].costs(gm, analysis, drafts)
    inserts = tuple(d.insert for d in drafts)
    named = list(dict.fromkeys(f"{side} {name}" for name, side in places))
    names = ", ".join(named) if len(named) <= 4 else f"at {len(named)} places"
    return Plan(
        title=f"deepen {names}: {len(inserts)} new block{'s' if len(inserts) > 1 else ''}",
        scheme=scheme,
        seed=seed,
        init=init,
        growths=(),
        tensors=tuple(t for d in drafts for t in d.tensors),
        modules=tuple(m for d in drafts for m in d.modules),
        nodes=(),
        skips=(),
        proof=tuple(f"{d.insert.name}.{line}" for d in drafts for line in d.proof),
        eval_only=tuple(f"{d.insert.name}.{node}" for d in drafts for node in d.eval_only),
        notes=analysis.notes,
        redrawn=tuple(f"{d.insert.name}.{node}" for d in drafts for node in d.redrawn),
        before=before,
        after=after,
        model=analysis.digest,
        inserts=inserts,
        clone_keys=clone_keys,
    )


def or_suggest(plan: Callable[[], Plan], ways: Iterable[tuple[str, Callable[[], Plan]]]) -> Plan:
    """Return a plan, or raise its refusal with the alternatives that can be planned as the hint.

    Args:
        plan: returns the plan.
        ways: alternatives, each as text and a function that returns its plan; tried only if the block is the reason.

    Raises:
        GrowthRefused: as `plan` does.
    """
    try:
        return plan()
    except GrowthRefused as refused:
        if refused.kind not in (Kind.NOT_SILENT, Kind.NO_SLOPE, Kind.NOT_IDEMPOTENT, Kind.NO_BLOCK):
            raise
        found = [text for text, other in ways if _can_be_planned(other)]
        if not found:
            raise
        raise GrowthRefused(replace(refused.refusal, hint="; or ".join(found))) from refused.__cause__


def _can_be_planned(plan: Callable[[], Plan]) -> bool:
    try:
        plan()
    except FxgrowError:
        return False
    return True


def hidden_width(body: Layers) -> object:
    """Return the width inside a block: the output size of its first layer, or 0 if it has no such layer."""
    for part in body.parts:
        for name, value in part.options:
            if name in ("out_channels", "out_features") and part.path in ("conv1", "linear1"):
                return value
    return 0
