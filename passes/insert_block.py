"""The pass InsertBlock, which inserts residual blocks that contribute zero until they are trained (R2DeeperR)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import fx, nn

from fxgrow.analysis.analysis import Analysis
from fxgrow.errors import Kind, usage
from fxgrow.insertion.block_options import BlockOptions, block_for, block_spec, check_block
from fxgrow.insertion.blocks import BLOCKS
from fxgrow.insertion.context import look_around
from fxgrow.insertion.inserting import Drafted, draft, made_by
from fxgrow.insertion.plan_inserts import (
    Names,
    Places,
    check_options,
    hidden_width,
    in_rows,
    or_suggest,
    places_of,
    plan_inserts,
)
from fxgrow.insertion.positions import Position
from fxgrow.plans import Plan

Block = str | Callable[[int], nn.Module] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertBlock:
    """Insert residual blocks whose contribution is zero (R2DeeperR, arXiv 2410.11038, equations 19 to 27).

    Options that are None are chosen from the layers nearby.

    Example:
        >>> from fxgrow.passes import InsertBlock
        >>> InsertBlock(after="layer2", block="bottleneck", count=2).count
        2

    Args:
        after: names of modules, containers or fx nodes; a block is inserted after each of them.
        before: names before which a block is inserted.
        block: "basic", "bottleneck", "depthwise", "mlp", "transformer", or a function from the number of channels to
            a module, which is added to its input.
        scheme: "r2r" (two equal halves whose outgoing kernels are opposite) or "zero" (the last layer is zero).
        count: number of consecutive blocks at each place.
        hidden: width inside the block.
        kernel: kernel size of its convolutions.
        norm: "batch", "group", "layer", "rms", "none", or "auto".
        activation: a class of torch.nn or its name, or "none".
        heads: number of heads of a transformer block.
        causal: whether its attention is causal.
        seed: seed of the new values, which also depend on parameter names.
        init: standard deviation of new weights: "match" (that of the preceding layer), "kaiming" or "xavier".
    """

    after: Names = None
    before: Names = None
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
        names = ("scheme", "init", "norm", "count", "hidden", "kernel", "heads", "causal", "seed")
        check_options(self.places, **{name: getattr(self, name) for name in names})
        if self.init == "copy":
            raise usage(Kind.BAD_OPTION, 'init="copy" needs something to copy', hint='block="clone"')
        if self.scheme not in ("r2r", "zero"):
            what = f"InsertBlock has no scheme {self.scheme!r}"
            raise usage(Kind.BAD_OPTION, what, hint='"r2r" or "zero"; IdentityLayer is net2net, Factorize morphism')
        if self.heads is not None and self.block not in (None, "transformer"):
            what = f"heads= means nothing to block={self.block!r}"
            raise usage(Kind.BAD_OPTION, what, hint="leave it out, or choose a block that has it")
        check_block(self.block, self.scheme)

    @property
    def places(self) -> Places:
        """Return each named place with its side."""
        return places_of(self.after, self.before)

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Plan the insertion. Reads the graph and the shapes of tensors; writes nothing.

        Raises:
            UsageError: a name or an option is invalid.
            GrowthRefused: a block would change the function there.
        """
        return or_suggest(lambda: self.planned(gm, analysis), self._ways(gm, analysis))

    def planned(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Return the plan as `plan` does, but without alternatives in a refusal."""
        drafts = in_rows(gm, analysis, self.places, self.count, lambda place: self._block(gm, analysis, place))
        return plan_inserts(gm, analysis, self.places, drafts, scheme=self.scheme, seed=self.seed, init=self.init)

    def _ways(self, gm: fx.GraphModule, analysis: Analysis) -> Iterator[tuple[str, Callable[[], Plan]]]:
        if self.scheme == "r2r":
            yield 'scheme="zero"', lambda: replace(self, scheme="zero").planned(gm, analysis)

    def _block(self, gm: fx.GraphModule, analysis: Analysis, position: Position) -> Drafted:
        """Draft the block for one place; it has no name yet."""
        context = look_around(gm, analysis, position.node, position.value)
        where = f"{position.side} {position.name}"
        if callable(self.block):
            return made_by(self.block, gm, analysis, position, self.scheme, context, where)
        options = BlockOptions(self.hidden, self.kernel, self.norm, self.activation, self.heads, self.causal)
        kind = self.block or block_for(position, context)
        spec = block_spec(position, context, kind, options)
        body = BLOCKS[kind](spec)
        settings = (
            ("hidden", hidden_width(body)),
            ("norm", spec.norm),
            ("activation", spec.activation.kind if spec.activation else "none"),
        )
        return draft(gm, analysis, position, body, kind, self.scheme, context, where, settings)
