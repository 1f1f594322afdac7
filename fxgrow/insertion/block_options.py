"""Defaults and options: what kind of block a place gets, and how it is made up."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from ..errors import Kind, usage
from ..planning.widths import LARGEST
from .blocks import BLOCKS, CONVOLUTIONS, BlockSpec
from .context import Activation, BlockContext
from .positions import Position

NORMS = ("auto", "batch", "group", "layer", "rms", "none")
KERNEL = 3
NONE = "none"


def block_for(position: Position, context: BlockContext) -> str:
    """The kind of block that suits a place: a convolution where channels are axis 1 of an image, attention where there
    is attention among tokens, else a multi-layer perceptron over the last axis."""
    rank = len(position.value.shape)
    if takes_channels(position, context):
        return "basic"
    return "transformer" if context.heads and rank == 3 else "mlp"


def takes_channels(position: Position, context: BlockContext) -> bool:
    """Whether layers at this place are convolutions: the units lie along axis 1 and there is a window behind them."""
    rank = len(position.value.shape)
    if rank not in (3, 4, 5):
        return False
    return context.axis == 1 if context.axis > 0 else context.layer.startswith("conv") or rank > 3


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """How a user wants blocks to be made; None leaves it to the neighbourhood."""

    hidden: int | None = None
    kernel: int | None = None
    norm: str = "auto"
    activation: str | type[nn.Module] | None = None
    heads: int | None = None
    causal: bool | None = None


def block_spec(position: Position, context: BlockContext, block: str, make: BlockOptions) -> BlockSpec:
    """The options of a block, those not given taken from the neighbourhood.

    Raises:
        UsageError: they are invalid, or the neighbourhood does not tell.
    """
    shape = position.value.shape
    if block in CONVOLUTIONS and len(shape) not in (3, 4, 5):
        raise usage(
            Kind.BAD_OPTION,
            f"block={block!r} takes (batch, channels, window …), but {position.node.name} has {len(shape)} axes",
            hint='block="mlp"',
        )
    if block == "transformer" and make.causal is None and context.masked:
        raise usage(
            Kind.BAD_OPTION,
            "attention in this network is masked, and a new transformer block would not know the mask",
            hint='causal=True or causal=False if that says it all, or block="clone", which shares the mask',
        )
    if make.hidden is not None:
        check_hidden(make.hidden, max(shape[1], shape[-1]))
    return BlockSpec(
        shape=shape,
        context=context,
        hidden=make.hidden,
        kernel=KERNEL if make.kernel is None else make.kernel,
        norm=_norm(block, make.norm, context, len(shape)),
        activation=activation_named(make.activation, context),
        heads=make.heads if make.heads is not None else _heads(shape[-1], context.heads),
        causal=context.causal if make.causal is None else make.causal,
    )


def check_hidden(hidden: int, units: int) -> None:
    """Refuse a invalid width inside a block, before anything is made of it.

    Raises:
        UsageError: it is more than `LARGEST` times what passes there.
    """
    if hidden > LARGEST * units:
        what = f"hidden={hidden:,} is more than {LARGEST} times the {units} units that pass there"
        raise usage(Kind.BAD_OPTION, what, hint=f"hidden={2 * units}, say")


LARGEST_BATCH_NORM = 5
"""Axes of what BatchNorm3d takes."""


def _heads(features: int, usual: int) -> int:
    """As many as nearby, or the most below that that divide the features; without attention nearby up to eight."""
    return next(h for h in (range(usual, 0, -1) if usual else (8, 4, 2, 1)) if features % h == 0)


def _norm(block: str, norm: str, context: BlockContext, rank: int) -> str:
    if norm == "batch" and rank > LARGEST_BATCH_NORM:
        raise usage(Kind.BAD_OPTION, f"torch has no batch norm for {rank} axes", hint='norm="layer", or norm="none"')
    if norm != "auto":
        return norm
    near = context.norm
    if block in CONVOLUTIONS:
        return near if near in ("batch", "group") else NONE
    if block == "transformer":
        return near if near in ("layer", "rms") else "layer"
    if near in ("batch", "group"):
        return near if rank == 2 else NONE
    return near


def activation_named(name: str | type[nn.Module] | None, context: BlockContext) -> Activation | None:
    """A class of torch.nn by its name in any case, "none", or by default what the network uses nearby, else ReLU.

    Raises:
        UsageError: there is no activation of that name.
    """
    if name is None:
        return context.activation or Activation("ReLU")
    if isinstance(name, str) and name.lower() == NONE:
        return None
    wanted = name.lower() if isinstance(name, str) else getattr(name, "__name__", repr(name)).lower()
    known = {k.lower(): k for k in nn.modules.activation.__all__ if k not in ("MultiheadAttention", "Threshold", "GLU")}
    if wanted not in known or (isinstance(name, type) and getattr(nn, known[wanted]) is not name):
        raise usage(
            Kind.BAD_OPTION,
            f"torch.nn has no activation called {name!r}",
            hint='activation="relu", "gelu" …, or "none"; for one of your own pass a module factory as block=',
        )
    if context.activation is not None and context.activation.kind == known[wanted]:
        return context.activation
    return Activation(known[wanted])


def check_block(block: object, scheme: str) -> None:
    """Whether a block can be asked for under a scheme.

    Raises:
        UsageError: it cannot.
    """
    if scheme in ("net2net", "morphism"):
        if block is not None:
            made = "one identity layer" if scheme == "net2net" else "a factor of the layer that is named"
            raise usage(Kind.BAD_OPTION, f"scheme={scheme!r} inserts {made}, not a block", hint="leave block= out")
        return
    if block is None or block == "clone" or (callable(block) and not isinstance(block, nn.Module)):
        return
    if not isinstance(block, str) or block not in BLOCKS:
        hint = f"one of: {', '.join(BLOCKS)}, clone, or a function that takes the number of channels"
        raise usage(Kind.BAD_OPTION, f"unknown block {block!r}", hint=hint)
