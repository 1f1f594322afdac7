"""Options of new blocks, and their defaults, which are chosen from the layers nearby."""

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
    """Return the default kind of block for a position: "basic" if channels are axis 1 of an image or sequence,
    "transformer" for tokens in a network with attention, else "mlp" over the last axis."""
    rank = len(position.value.shape)
    if takes_channels(position, context):
        return "basic"
    return "transformer" if context.heads and rank == 3 else "mlp"


def takes_channels(position: Position, context: BlockContext) -> bool:
    """Return whether layers at a position are convolutions: the channels are axis 1 and spatial dimensions follow."""
    rank = len(position.value.shape)
    if rank not in (3, 4, 5):
        return False
    return context.axis == 1 if context.axis > 0 else context.layer.startswith("conv") or rank > 3


@dataclass(frozen=True, slots=True)
class BlockOptions:
    """The user's options for a new block; None means a default that is chosen from the layers nearby."""

    hidden: int | None = None
    kernel: int | None = None
    norm: str = "auto"
    activation: str | type[nn.Module] | None = None
    heads: int | None = None
    causal: bool | None = None


def block_spec(position: Position, context: BlockContext, block: str, make: BlockOptions) -> BlockSpec:
    """Return the `BlockSpec` of a block; options that are not given are chosen from the layers nearby.

    Raises:
        UsageError: an option is invalid, or cannot be inferred from the layers nearby.
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
    """Raise an error if the width inside a block is invalid, before any module is created.

    Raises:
        UsageError: it is more than `LARGEST` times the number of units at the position.
    """
    if hidden > LARGEST * units:
        what = f"hidden={hidden:,} is more than {LARGEST} times the {units} units that pass there"
        raise usage(Kind.BAD_OPTION, what, hint=f"hidden={2 * units}, say")


LARGEST_BATCH_NORM = 5
"""The largest number of dimensions that a batch norm accepts (BatchNorm3d)."""


def _heads(features: int, usual: int) -> int:
    """Return the largest divisor of `features` up to the number of heads nearby; without attention nearby, up to 8."""
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
    """Return the activation for a name or class of torch.nn (case-insensitive), or None for "none". The default is the
    one that the network uses nearby, else ReLU.

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
    """Check that a block can be requested with a scheme.

    Raises:
        UsageError: the block is unknown, or the scheme does not insert blocks of a chosen kind.
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
