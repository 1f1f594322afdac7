"""Caches of `functools.lru_cache`: found when they are made, and looked for among all objects only then."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxgrow
from fxgrow.capture.user_objects import caches

X = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Caching(nn.Module):
    """A module that keeps what a cached function returns, and may make that function anew in each call."""

    def __init__(self, makes: bool) -> None:
        super().__init__()
        self.a, self.b, self.makes = nn.Linear(4, 6), nn.Linear(6, 2), makes
        self.functions: list[Callable[[int], Tensor]] = [functools.lru_cache(torch.ones)]

    def forward(self, x: Tensor) -> Tensor:
        """Two layers, and ones."""
        if self.makes:
            self.functions.append(functools.lru_cache(torch.ones))
        y: Tensor = self.b(self.a(x)) * self.functions[-1](2)
        return y


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each search among all objects."""
    made: list[int] = []
    search = gc.get_referrers

    def counted(*things: object) -> list[Any]:
        made.append(1)  # not the class, of which references are counted
        return search(*things)

    monkeypatch.setattr(gc, "get_referrers", counted)
    return made


def test_objects_are_searched_once_as_long_as_no_cache_is_made(scans: list[int]) -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)).double()
    for _ in range(2):  # modules that are imported late make caches
        fxgrow.widen(fxgrow.trace(model, (X,)), "0")
    del scans[:]
    fxgrow.widen(fxgrow.trace(model, (X,)), "0")
    assert scans == []
    kept = functools.lru_cache(torch.ones)
    fxgrow.trace(model, (X,))
    assert len(scans) == 1
    del kept
    fxgrow.trace(model, (X,))
    assert len(scans) == 1


@pytest.mark.parametrize("makes", [False, True])
def test_what_a_cache_gets_while_tracing_is_forgotten(makes: bool, scans: list[int]) -> None:
    model = Caching(makes).double()
    fxgrow.trace(nn.Linear(4, 2).double(), (X,))  # all caches that are there now are known
    fxgrow.trace(model, (X,))
    assert type(model.functions[0](2)) is Tensor
    assert type(model(X)) is Tensor


def test_a_python_that_does_not_count_instances_is_searched_each_time(
    scans: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "_counts", lambda: False)
    monkeypatch.setattr(caches, "_PROCESS", caches._Process())
    with caches.caches_kept_clean():
        pass
    assert len(scans) == 2
