"""The pass CloneBlock, which inserts copies of a repeated residual block that contribute zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import fx

from fxgrow.analysis.analysis import Analysis
from fxgrow.insertion.clone import copies, find_block
from fxgrow.insertion.clone_keys import Clone, clone_in_a_row, deeper_keys
from fxgrow.insertion.context import look_around
from fxgrow.insertion.inserting import Drafted, draft
from fxgrow.insertion.plan_inserts import Names, Places, check_options, in_rows, or_suggest, places_of, plan_inserts
from fxgrow.insertion.positions import Position
from fxgrow.insertion.segments import Segment
from fxgrow.plans import Plan

from .insert_block import InsertBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneBlock:
    """Insert copies of a residual block that the graph repeats; each contributes zero until it is trained.

    Example:
        >>> from fxgrow.passes import CloneBlock
        >>> CloneBlock(after="layer3").scheme
        'r2r'

    Args:
        after: names of modules, containers or fx nodes; a copy of the block there is inserted after each of them.
        before: names before which a copy is inserted.
        scheme: "r2r" (two equal halves whose outgoing kernels are opposite) or "zero" (the last layer is zero).
        count: number of consecutive copies at each place.
        seed: seed of the new values, which also depend on parameter names.
        init: values of the copy: "match" draws them with the standard deviation of the original's, "kaiming" and
            "xavier" use the initialisations of that name, "copy" takes the values of the original.
    """

    after: Names = None
    before: Names = None
    scheme: str = "r2r"
    count: int = 1
    seed: int = 0
    init: str = "match"

    def __post_init__(self) -> None:
        check_options(self.places, scheme=self.scheme, init=self.init, count=self.count, seed=self.seed)

    @property
    def places(self) -> Places:
        """Return each named place with its side."""
        return places_of(self.after, self.before)

    def plan(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Plan the insertion. Reads the graph and the shapes of tensors; writes nothing.

        Raises:
            UsageError: a name or an option is invalid.
            GrowthRefused: the graph repeats no block there, or a copy of it would change the function.
        """
        return or_suggest(lambda: self.planned(gm, analysis), self._ways(gm, analysis))

    def planned(self, gm: fx.GraphModule, analysis: Analysis) -> Plan:
        """Return the plan as `plan` does, but without alternatives in a refusal."""
        of: dict[tuple[str, tuple[str, ...]], tuple[Position, Segment]] = {}

        def make(position: Position) -> Drafted:
            segment = find_block(gm, analysis, position)
            of[position.node.name, position.users] = position, segment
            context = look_around(gm, analysis, position.node, position.value)
            body = copies(gm, segment, afresh=self.init != "copy")
            where = f"{position.side} {position.name}"
            settings = (("of", segment.last),)
            return draft(gm, analysis, position, body, "clone", self.scheme, context, where, settings)

        drafts = in_rows(gm, analysis, self.places, self.count, make)
        clones: list[Clone] = []
        for insert in (d.insert for d in drafts):
            position, segment = of[insert.node, insert.users]
            names = [t.name for t in insert.tensors]
            clone = clone_in_a_row(gm, analysis, position, segment, insert.name, names)
            clones += [clone] if clone else []
        keys = deeper_keys(gm, analysis, clones)
        return plan_inserts(
            gm, analysis, self.places, drafts, scheme=self.scheme, seed=self.seed, init=self.init, clone_keys=keys
        )

    def _ways(self, gm: fx.GraphModule, analysis: Analysis) -> Iterator[tuple[str, Callable[[], Plan]]]:
        if self.scheme == "r2r":
            yield 'scheme="zero"', lambda: replace(self, scheme="zero").planned(gm, analysis)
        init = "match" if self.init == "copy" else self.init
        other = InsertBlock(
            after=self.after, before=self.before, scheme=self.scheme, count=self.count, seed=self.seed, init=init
        )
        yield "leave out block=, for a new block in place of a clone", lambda: other.planned(gm, analysis)
