"""Measures how diverse filters are: their effective rank, and the similarity of old and new filters."""

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
    """The diversity of the filters of one weight, old and new ones. Similarity is the absolute cosine."""

    parameter: str
    old: int
    new: int
    rank: float
    """Effective rank of all filters."""
    rank_old: float
    rank_new: float
    old_old: float
    """Mean similarity of two different old filters."""
    old_new: float
    new_new: float
    nearest_old: float
    """Mean over the old filters of the similarity to the most similar other filter, old or new; 1 means a duplicate."""
    nearest_new: float

    def __str__(self) -> str:
        return str(Diversity((self,)))


@dataclass(frozen=True, slots=True)
class Diversity:
    """The diversity of the filters of a grown model, weight by weight."""

    weights: tuple[Filters, ...]

    def of(self, parameter: str) -> Filters:
        """Return the entry of one weight."""
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
        legend = "effective ranks; mean absolute cosines of two filters, and of a filter and its nearest one"
        return f"{table(head, rows)}\n{legend}"


def diversity(model: nn.Module) -> Diversity:
    """Measure the diversity of the filters in every weight to which a growth added filters.

    Raises:
        UsageError: the model has no record of a growth.
    """
    found, grown = [], changes(model)
    for name, parameter in model.named_parameters():
        some = grown.get(name, ())
        axes = {g.axis for change in some for g in change.axes if any(x.state in PRODUCED for x in leaves(g.layout))}
        for axis in sorted(axes) if parameter.dim() > 1 else ():
            found.append(filters(parameter, new=new_positions(some, axis), axis=axis, name=name))
    return Diversity(tuple(found))


def filters(weight: Tensor, *, new: Iterable[int] = (), axis: int = 0, name: str = "") -> Filters:
    """Measure how diverse the filters of a weight are.

    Args:
        weight: a weight of any shape; each unit of `axis` is a filter.
        new: positions of the new filters; empty for a model that was not grown.
        axis: the axis of the filters: 0 for convolutions and linear layers, 1 for transposed convolutions.
        name: the name of the weight in the table.
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
    """Return the cosine similarity of every pair of rows, of shape (n, n); zero for rows of zeros."""
    unit = torch.nn.functional.normalize(rows.detach(), dim=1)
    return unit @ unit.T


def effective_rank(matrix: Tensor) -> float:
    """Return the effective rank of a matrix: the exponential of the entropy of its normalised singular values.

    It lies between 1 and the rank, which it reaches if all singular values are equal; NaN for no rows or all zeros.
    Rows are neither centred nor normalised. (Roy and Vetterli, EUSIPCO 2007.)
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
