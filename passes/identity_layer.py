"""The pass IdentityLayer, which inserts layers that start as the identity (Net2DeeperNet)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import fx, nn

from fxgrow.analysis.analysis import Analysis
from fxgrow.insertion.block_options import BlockOptions
from fxgrow.insertion.context import look_around
from fxgrow.insertion.identity_layer import draft_identity
from fxgrow.insertion.inserting import Drafted
from fxgrow.insertion.plan_inserts import Names, Places, check_options, in_rows, or_suggest, places_of, plan_inserts
from fxgrow.insertion.positions import Position
from fxgrow.plans import Plan

from .insert_block import InsertBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLayer:
    """Insert layers that start as the identity, each with a batch norm that starts as the identity and the activation.

    Net2DeeperNet (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641). The activation must be idempotent,
    and must have been applied to the value before.

    Example:
        >>> from fxgrow.passes import IdentityLayer
        >>> IdentityLayer(after="layer1.relu", norm="none").norm
        'none'

    Args:
        after: names of modules, containers or fx nodes; a layer is inserted after each of them.
        before: names before which a layer is inserted.
        count: number of consecutive layers at each place.
        kernel: kernel size of a convolution.
        norm: "batch", "none", or "auto" for the norm used nearby.
        activation: a class of torch.nn or its name, or "none"; by default the one used nearby.
        seed: seed of the new values, which also depend on parameter names.
        init: how new weights that are not fixed by the identity are drawn: "match", "kaiming" or "xavier".
    """

    after: Names = None
    before: Names = None
    count: int = 1
    kernel: int | None = None
    norm: str = "auto"
    activation: str | type[nn.Module] | None = None
    seed: int = 0
    init: str = "match"

    def __post_init__(self) -> None:
        names = ("init", "norm", "count", "kernel", "seed")
        check_options(self.places, **{name: getattr(self, name) for name in names})

    @property
    def places(self) -> Places:
        """Return each named place with its side."""
        return places_of(self.after, self.before)

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Plan the insertion. Reads the graph and the shapes of tensors; writes nothing.

        Raises:
            UsageError: a name or an option is invalid.
            GrowthRefused: the activation is not idempotent, or has not been applied to the value.
        """
        return or_suggest(lambda: self.planned(gm, analysis), self._ways(gm, analysis))

    def planned(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Return the plan as `plan` does, but without alternatives in a refusal."""
        options = BlockOptions(kernel=self.kernel, norm=self.norm, activation=self.activation)

        def make(position: Position) -> Drafted:
            context = look_around(gm, analysis, position.node, position.value)
            return draft_identity(gm, analysis, position, options, context, f"{position.side} {position.name}")

        drafts = in_rows(gm, analysis, self.places, self.count, make)
        return plan_inserts(gm, analysis, self.places, drafts, scheme="net2net", seed=self.seed, init=self.init)

    def _ways(self, gm: fx.GraphModule, analysis: Analysis) -> Iterator[tuple[str, Callable[[], Plan]]]:
        block = InsertBlock(
            after=self.after,
            before=self.before,
            count=self.count,
            kernel=self.kernel,
            norm=self.norm,
            activation=self.activation,
            seed=self.seed,
            init=self.init,
        )
        yield 'scheme="r2r", which adds a residual block', lambda: block.planned(gm, analysis)
        yield 'activation="none"', lambda: replace(self, activation="none").planned(gm, analysis)
