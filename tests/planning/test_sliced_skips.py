"""skip="reshape" where a volume of the residual stream is read by slices: new channels go into the last piece."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import fxgrow

SAME = 1e-12
Cut = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
CUTS: dict[str, Cut] = {
    "slices of the branch": lambda x, y, z: (y[:, :3], y[:, 3:]),
    "slices of the stream": lambda x, y, z: (z[:, :3], z[:, -5:]),
    "pieces of the branch": lambda x, y, z: torch.split(y, [3, 5], 1),
    "slices of the skip path": lambda x, y, z: (x[:, :3], x[:, 3:]),
}


class Sliced(nn.Module):
    """A residual block, of which one volume is read in two parts."""

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inward, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.left, self.right, self.whole = nn.Conv2d(3, 4, 1), nn.Conv2d(5, 4, 1), nn.Conv2d(8, 4, 1)
        self.cut = cut

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.inward(x))
        y = F.relu(self.branch(x))
        z = x + y
        one, other = self.cut(x, y, z)
        w: Tensor = (self.left(one) + self.right(other) + self.whole(z)).mean((2, 3))
        return w


IMAGE = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@cache
def traced(name: str) -> tuple[nn.Module, fx.GraphModule]:
    module = Sliced(CUTS[name]).double().eval()
    return module, fxgrow.trace(module, (IMAGE,))


@pytest.mark.parametrize("adapter", ["pad", "conv"])
@pytest.mark.parametrize("node", ["branch", "inward"])
@pytest.mark.parametrize("name", CUTS)
def test_new_channels_go_into_the_last_piece(name: str, node: str, adapter: Literal["pad", "conv"]) -> None:
    module, gm = traced(name)
    for scheme, by in (("r2r", 4), ("r2r", 5), ("net2net", 8), ("zero", 3)):
        wider = fxgrow.widen(gm, node, skip="reshape", by=by, scheme=scheme, adapter=adapter)
        assert wider.get_parameter(f"{node}.weight").shape[0] == 8 + by
        torch.testing.assert_close(wider(IMAGE), module(IMAGE), rtol=0, atol=SAME)
    assert fxgrow.verify(module, wider).held


def test_the_first_piece_stays_as_it_is() -> None:
    _, gm = traced("slices of the branch")
    wider = fxgrow.widen(gm, "branch", skip="reshape", by=4)
    assert wider.get_parameter("left.weight").shape[1] == 3
    assert wider.get_parameter("right.weight").shape[1] == 9


@pytest.mark.parametrize("skip", ["reshape", "couple"])
@pytest.mark.parametrize("then", ["auto", "net2net", "zero"])
def test_a_volume_behind_an_adapter_grows_again(then: str, skip: Literal["reshape", "couple"]) -> None:
    module, gm = traced("slices of the branch")
    for first in ("auto", "net2net"):
        grown = fxgrow.widen(gm, "branch", skip="reshape", by=4, scheme=first)
        for node in ("branch", "inward"):
            again = fxgrow.widen(grown, node, skip=skip, by=6, scheme=then)
            torch.testing.assert_close(again(IMAGE), module(IMAGE), rtol=0, atol=SAME)


def test_equal_pieces_grow_in_step_and_would_lie_between_old_channels() -> None:
    class Halved(Sliced):
        def __init__(self) -> None:
            super().__init__(lambda x, y, z: y.chunk(2, 1))
            self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    gm = fxgrow.trace(Halved().double(), (IMAGE,))
    with pytest.raises(fxgrow.GrowthRefused, match="new channels would lie between old ones") as caught:
        fxgrow.widen(gm, "branch", skip="reshape", by=4)
    assert caught.value.kind is fxgrow.Kind.NON_ALIGNED
    assert 'skip="couple"' in str(caught.value)
