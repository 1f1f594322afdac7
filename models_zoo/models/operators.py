"""Custom operators, which fxgrow has no rule for: models of refusals call them where the example is such an operator.

They are registered with ``torch.library``, so that a rule for an operator of torch never changes what is refused.
"""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("fxgrow_zoo::subtract_sum", mutates_args=())
def subtract_sum(x: Tensor, dim: int) -> Tensor:
    """Subtract the sum over an axis from every unit of it.

    It is odd, maps zero to zero and keeps the shape, as a function of each unit by itself may, but mixes the units.
    """
    return x - x.sum(dim, keepdim=True)


@subtract_sum.register_fake
def _meta(x: Tensor, dim: int) -> Tensor:
    return torch.empty_like(x)


def _setup(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
    _, ctx.dim = inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return grad - grad.sum(ctx.dim, keepdim=True), None


subtract_sum.register_autograd(_backward, setup_context=_setup)
