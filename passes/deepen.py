"""Deepen: new blocks behind or in front of places in a network, which add nothing until they are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from fxgrow.analysis.analysis import Analysis
from fxgrow.errors import FxgrowError, GrowthRefused, Kind, usage
from fxgrow.plans import Plan
from fxgrow.plans.insertion import Layers
from fxgrow.plans.limits import is_seed

from ..insertion.block_options import NORMS, BlockOptions, block_for, block_spec, check_block
from ..insertion.blocks import BLOCKS
from ..insertion.clone import copies, find_block
from ..insertion.clone_keys import Clone, clone_in_a_row, deeper_keys
from ..insertion.context import look_around
from ..insertion.factorize import factors
from ..insertion.identity_layer import draft_identity
from ..insertion.inserting import Drafted, draft, made_by
from ..insertion.positions import Position, Side, find_position, free_name
from ..insertion.segments import Segment

SCHEMES = ("r2r", "zero", "net2net", "morphism")
INITS = ("match", "kaiming", "xavier", "copy")
Block = str | Callable[[int], nn.Module] | None
LARGEST_KERNEL = 1024
"""Of a window along each axis: longer than those of any network."""
MOST_BLOCKS = 1000
"""New blocks in one plan: as deep as the deepest networks that were ever trained, and still planned within seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deepen:
    """Insert blocks that change nothing. The fields are the options; None leaves a choice to the neighbourhood.

    Args:
        places: names of modules, containers or fx nodes, each with "after" or "before".
        block: "basic", "bottleneck", "depthwise", "mlp", "transformer", "clone", or a function from channels to a
            module.
        scheme: how the block is silenced: "r2r", "zero", "net2net" or "morphism".
        count: how many of them, one behind the other.
        hidden: the width inside.
        kernel: the window of convolutions.
        norm: "batch", "group", "layer", "rms", "none", or "auto".
        activation: a class of torch.nn or its name, or "none".
        heads: of a transformer block.
        causal: whether its attention looks back only.
        seed: new values depend on it and on the name of their parameter.
        init: how new weights are drawn: "match" the preceding layer's spread, "kaiming", "xavier"; "copy" for clones.
    """

    places: tuple[tuple[str, Side], ...]
    block: Block = None
    scheme: str = "r2r"
    count: int = 1
    hidden: int | None = None
    kernel: int | None = None
    norm: str = "auto"
    activation: str | type[nn.Module] | None = None
    heads: int | None = None
    causal: bool | None = None
    seed: int = 0
    init: str = "match"

    def __post_init__(self) -> None:
        for name, allowed in (("scheme", SCHEMES), ("init", INITS), ("norm", NORMS)):
            if getattr(self, name) not in allowed:
                what = f"{name}={getattr(self, name)!r} is unknown"
                raise usage(Kind.BAD_OPTION, what, hint=f"one of: {', '.join(allowed)}")
        for name in ("count", "hidden", "kernel", "heads"):
            value = getattr(self, name)
            if (value is None and name != "count") or (type(value) is int and value > 0):
                continue
            what = f"{name}= must be a positive whole number, not {value!r:.60}"
            raise usage(Kind.BAD_OPTION, what, hint=f"{name}=2, say")
        if self.kernel is not None and self.kernel > LARGEST_KERNEL:
            what = f"kernel={self.kernel:,} is more than can be meant"
            raise usage(Kind.BAD_OPTION, what, hint=f"kernel=3, say, at most {LARGEST_KERNEL:,}")
        if self.causal is not None and not isinstance(self.causal, bool):
            raise usage(Kind.BAD_OPTION, f"causal= must be True or False, not {self.causal!r:.60}", hint="causal=True")
        check_number(self.count * len(self.places))
        if not is_seed(self.seed):
            raise usage(Kind.BAD_OPTION, f"seed must be a whole number from 0, not {self.seed!r}", hint="seed=0")
        if self.init == "copy" and self.block != "clone":
            raise usage(Kind.BAD_OPTION, 'init="copy" needs something to copy', hint='block="clone"')
        given = {"hidden": self.hidden, "kernel": self.kernel, "activation": self.activation, "heads": self.heads}
        idle = [name for name, value in given.items() if value is not None] if self.block == "clone" else []
        idle += ["heads"] if self.heads is not None and self.block not in (None, "transformer", "clone") else []
        if idle:
            what = f"{idle[0]}= means nothing to block={self.block!r}"
            raise usage(Kind.BAD_OPTION, what, hint="leave it out, or choose a block that has it")
        if not self.places:
            raise usage(Kind.BAD_OPTION, "no place is named", hint='after="layer2"')
        check_block(self.block, self.scheme)

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """What would be inserted. Reads the model's graph and the shapes of its tensors; writes nothing.

        Raises:
            UsageError: a name or an option is invalid.
            GrowthRefused: a block would change the function there.
        """
        try:
            return self._drafted(gm, analysis)
        except GrowthRefused as refused:
            ways = [text for text, options in self._ways(refused) if _planned(self, options, gm, analysis)]
            if not ways:
                raise
            raise GrowthRefused(replace(refused.refusal, hint="; or ".join(ways))) from refused.__cause__

    def _ways(self, refused: GrowthRefused) -> Iterator[tuple[str, dict[str, Any]]]:
        """What else could be inserted, to be tried, where it is the block that changes something."""
        if refused.kind not in (Kind.NOT_SILENT, Kind.NO_SLOPE, Kind.NOT_IDEMPOTENT, Kind.NO_BLOCK):
            return
        if self.scheme == "net2net":
            yield 'scheme="r2r", which adds a residual block', {"scheme": "r2r"}
            yield 'activation="none"', {"activation": "none"}
        elif self.scheme == "r2r":
            yield 'scheme="zero"', {"scheme": "zero"}
        if self.block == "clone":
            yield "leave out block=, for a new block in place of a clone", {"block": None, "init": "match"}

    def _drafted(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        taken: set[str] = set()
        drafts: list[Drafted] = []
        clones: list[Clone] = []
        for name, side in dict.fromkeys(self.places):
            if self.scheme == "morphism":
                drafts += factors(gm, analysis, name, self._make, self.count, taken)
                continue
            position = find_position(gm, analysis, name, side)
            _one_way(drafts, position)
            made, stretch = self._block(gm, analysis, position)
            for _ in range(self.count):
                drafts.append(replace(made, insert=replace(made.insert, name=free_name(gm, position, taken))))
                names = [t.name for t in made.insert.tensors]
                name = drafts[-1].insert.name
                clone = clone_in_a_row(gm, analysis, position, stretch, name, names) if stretch else None
                clones += [clone] if clone else []
        return self._plan(gm, analysis, drafts, deeper_keys(gm, analysis, clones))

    @property
    def _make(self) -> BlockOptions:
        return BlockOptions(self.hidden, self.kernel, self.norm, self.activation, self.heads, self.causal)

    def _block(self, gm: fx.GraphModule, analysis: Analysis, position: Position) -> tuple[Drafted, Segment | None]:
        """A block for one place, still without its name; and what it is a clone of."""
        context = look_around(gm, analysis, position.node, position.value)
        where = f"{position.side} {position.name}"
        if self.block == "clone":
            stretch = find_block(gm, analysis, position)
            body = copies(gm, stretch, afresh=self.init != "copy")
            made = draft(gm, analysis, position, body, "clone", self.scheme, context, where, (("of", stretch.last),))
            return made, stretch
        if callable(self.block):
            return made_by(self.block, gm, analysis, position, self.scheme, context, where), None
        kind = "identity" if self.scheme == "net2net" else self.block or block_for(position, context)
        assert isinstance(kind, str)
        if kind == "identity":
            return draft_identity(gm, analysis, position, self._make, context, where), None
        spec = block_spec(position, context, kind, self._make)
        settings = (
            ("hidden", hidden_width(BLOCKS[kind](spec))),
            ("norm", spec.norm),
            ("activation", spec.activation.kind if spec.activation else "none"),
        )
        return draft(gm, analysis, position, BLOCKS[kind](spec), kind, self.scheme, context, where, settings), None

    def _plan(
        self, gm: fx.GraphModule, analysis: Analysis, drafts: list[Drafted], keys: tuple[tuple[str, str], ...]
    ) -> Plan:
        before, after = drafts[0].costs(gm, analysis, drafts)
        inserts = tuple(d.insert for d in drafts)
        places = list(dict.fromkeys(f"{side} {name}" for name, side in self.places))
        names = ", ".join(places) if len(places) <= 4 else f"at {len(places)} places"
        return Plan(
            title=f"deepen {names}: {len(inserts)} new block{'s' if len(inserts) > 1 else ''}",
            scheme=self.scheme,
            seed=self.seed,
            init=self.init,
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
            clone_keys=keys,
        )


def _planned(recipe: Deepen, options: dict[str, Any], gm: fx.GraphModule, analysis: Analysis) -> bool:
    try:
        replace(recipe, **options)._drafted(gm, analysis)
    except FxgrowError:
        return False
    return True


def check_number(blocks: int) -> None:
    """Refuse a plan of more blocks than can be meant, before any is made.

    Raises:
        UsageError: it is.
    """
    if blocks > MOST_BLOCKS:
        raise usage(
            Kind.BAD_OPTION, f"{blocks:,} new blocks are more than can be meant", hint=f"at most {MOST_BLOCKS:,} a plan"
        )


def _one_way(drafts: list[Drafted], position: Position) -> None:
    """Blocks behind one node form a row; a row for some readers beside one for all has no order."""
    for other in drafts:
        if other.insert.node == position.node.name and other.insert.users != position.users:
            raise usage(
                Kind.BAD_OPTION,
                f"two places are behind {position.node.name}, one for all who read it and one for some",
                hint="deepen in two calls, one after the other",
            )


def hidden_width(body: Layers) -> object:
    """The width inside a block, as its first layer has it; 0 if it has no such layer."""
    for part in body.parts:
        for name, value in part.options:
            if name in ("out_channels", "out_features") and part.path in ("conv1", "linear1"):
                return value
    return 0
