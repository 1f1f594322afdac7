"""The pass Factorize, which replaces a layer by two whose product is the old kernel (Network Morphism in depth)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx, nn

from fxgrow.analysis.analysis import Analysis
from fxgrow.insertion.block_options import BlockOptions
from fxgrow.insertion.factorize import factors
from fxgrow.insertion.inserting import Drafted
from fxgrow.insertion.plan_inserts import Names, Places, check_options, places_of, plan_inserts
from fxgrow.plans import Plan


@dataclass(frozen=True, slots=True)
class Factorize:
    """Replace a layer by two layers whose product is its kernel, with a P-activation between them.

    Network Morphism (Wei et al. 2016, arXiv 1603.01670).

    Example:
        >>> from fxgrow.passes import Factorize
        >>> Factorize("layer1.conv1", hidden=64).hidden
        64

    Args:
        layers: module paths or fx node names of convolutions and linear layers.
        count: number of new factors in front of each layer.
        hidden: number of units between the factors; at least as many as the layer has inputs.
        kernel: new kernel size of the old layer; None keeps it.
        activation: a class of torch.nn or its name, or "none"; by default the one used nearby.
        seed: seed of the new values, which also depend on parameter names.
        init: how new rows are drawn: "match", "kaiming" or "xavier".
    """

    layers: Names
    count: int = 1
    hidden: int | None = None
    kernel: int | None = None
    activation: str | type[nn.Module] | None = None
    seed: int = 0
    init: str = "match"

    def __post_init__(self) -> None:
        names = ("init", "count", "hidden", "kernel", "seed")
        check_options(self.places, **{name: getattr(self, name) for name in names})

    @property
    def places(self) -> Places:
        """Return the named layers as places."""
        return places_of(self.layers, None)

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Plan the factors. Reads the graph and the shapes of tensors; writes nothing.

        Raises:
            UsageError: a name or an option is invalid.
            GrowthRefused: a layer cannot be factored.
        """
        options = BlockOptions(hidden=self.hidden, kernel=self.kernel, activation=self.activation)
        taken: set[str] = set()
        drafts: list[Drafted] = []
        for name, _ in dict.fromkeys(self.places):
            drafts += factors(gm, analysis, name, options, self.count, taken)
        return plan_inserts(gm, analysis, self.places, drafts, scheme="morphism", seed=self.seed, init=self.init)
