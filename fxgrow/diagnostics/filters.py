"""How diverse filters are: effective rank, and how alike old and new ones are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor, nn

from ..plans.layout import leaves
from .pairs import PRODUCED, changes, new_positions
from .text import number, table


@dataclass(frozen=True, slots=True)
class Filters:
    """How diverse the filters of one weight are, old and new ones apart. Likeness is the absolute cosine."""

    parameter: str
    old: int
    new: int
    rank: float
    """Effective rank of all filters."""
    rank_old: float
    rank_new: float
    old_old: float
    """Mean likeness of two different old filters."""
    old_new: float
    new_new: float
    nearest_old: float
    """Mean over the old filters of the likeness to the most similar other filter, old or new; 1 is a duplicate."""
    nearest_new: float

    def __str__(self) -> str:
        return str(Diversity((self,)))


@dataclass(frozen=True, slots=True)
class Diversity:
    """How diverse the filters of a grown model are, weight by weight."""

    weights: tuple[Filters, ...]

    def of(self, parameter: str) -> Filters:
        """Those of one weight."""
        return next(f for f in self.weights if f.parameter == parameter)

    def __str__(self) -> str:
        head = (
            "filters",
            *("old", "new", "rank", "of old", "of new"),
            *("old-old", "old-new", "new-new", "near old", "near new"),
        )
        rows = [
            (
                f.parameter,
                str(f.old),
                str(f.new),
                *map(number, (f.rank, f.rank_old, f.rank_new)),
                *map(number, (f.old_old, f.old_new, f.new_new, f.nearest_old, f.nearest_new)),
            )
            for f in self.weights
        ]
        legend = "effective ranks; mean absolute cosines of two filters, and of a filter and the one most like it"
        return f"{table(head, rows)}\n{legend}"


def diversity(model: nn.Module) -> Diversity:
    """How diverse the filters are in every weight in which a growth added filters.

    Raises:
        UsageError: the model does not remember that it was grown.
    """
    found, grown = [], changes(model)
    for name, parameter in model.named_parameters():
        some = grown.get(name, ())
        axes = {g.axis for change in some for g in change.axes if any(x.state in PRODUCED for x in leaves(g.layout))}
        for axis in sorted(axes) if parameter.dim() > 1 else ():
            found.append(filters(parameter, new=new_positions(some, axis), axis=axis, name=name))
    return Diversity(tuple(found))


def filters(weight: Tensor, *, new: Iterable[int] = (), axis: int = 0, name: str = "") -> Filters:
    """How diverse the filters of a weight are.

    Args:
        weight: of any shape; each unit of `axis` is a filter.
        new: positions of the filters that are called new; none for a model that was not grown.
        axis: along which filters lie, 0 for convolutions and linear layers, 1 for transposed convolutions.
        name: what to call it in the table.
    """
    rows = weight.detach().movedim(axis, 0).reshape(weight.shape[axis], -1).double()
    fresh = sorted(set(new))
    kept = sorted(set(range(len(rows))) - set(fresh))
    alike = similarity(rows).abs()
    alike.fill_diagonal_(nan)
    return Filters(
        name,
        len(kept),
        len(fresh),
        effective_rank(rows),
        effective_rank(rows[kept]),
        effective_rank(rows[fresh]),
        *(_mean(alike, a, b) for a, b in ((kept, kept), (kept, fresh), (fresh, fresh))),
        *(_nearest(alike, some) for some in (kept, fresh)),
    )


def similarity(rows: Tensor) -> Tensor:
    """The cosine of every row with every other, (n, n); zero for rows of zeros."""
    unit = torch.nn.functional.normalize(rows.detach(), dim=1)
    return unit @ unit.T


def effective_rank(matrix: Tensor) -> float:
    """How many directions the rows of a matrix use: the exponential of the entropy of its normalised singular values.

    Between 1 and the rank, which it reaches if all singular values are equal; NaN for no rows or all zeros. Rows are
    taken as they are, neither centred nor normalised. (Roy and Vetterli, EUSIPCO 2007.)
    """
    if not matrix.numel() or not bool(matrix.any()):
        return nan
    values = torch.linalg.svdvals(matrix.detach().double())
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def _mean(alike: Tensor, rows: Sequence[int], columns: Sequence[int]) -> float:
    block = alike[list(rows)][:, list(columns)]
    return float(block.nanmean()) if block.numel() else nan


def _nearest(alike: Tensor, rows: Sequence[int]) -> float:
    if not rows or len(alike) < 2:
        return nan
    return float(alike[list(rows)].nan_to_num(nan=-1.0).amax(dim=1).mean())
