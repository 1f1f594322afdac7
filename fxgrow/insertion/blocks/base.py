"""What a new block is asked to be, and a pen to write it with."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from ...errors import Kind, usage
from ...plans.insertion import ENTRY, Call, Layers, Link, Part, options
from ..context import Activation, BlockContext


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """A block for a place: the shape of the value there, and what was chosen for it."""

    shape: tuple[int, ...]
    context: BlockContext
    hidden: int | None
    kernel: int
    norm: str
    activation: Activation | None
    """None for no non-linearity at all."""
    heads: int
    causal: bool

    @property
    def spatial(self) -> int:
        """Window axes of a convolution here."""
        return len(self.shape) - 2

    @property
    def features(self) -> int:
        """Units of the last axis, for linear layers."""
        return self.shape[-1]

    @property
    def channels(self) -> int:
        """Units of axis 1, for convolutions."""
        return self.shape[1]

    def width(self, usual: int) -> int:
        """The hidden width: as asked for, else the usual one, made even so that it has halves."""
        return self.hidden if self.hidden is not None else max(2, usual + usual % 2)


class BlockBuilder:
    """Collects parts and calls; every method returns the name of its result."""

    def __init__(self, spec: BlockSpec) -> None:
        self.spec = spec
        self.parts: list[Part] = []
        self.calls: list[Call] = []

    def module(self, name: str, source: str, kind: str, **given: object) -> str:
        """A module of torch.nn and its call."""
        self.parts.append(Part(name, kind, options(**given)))
        self.calls.append(Call(name, "call_module", name, (Link(source),)))
        return name

    def call(self, name: str, target: str, *args: object) -> str:
        """A function (with a dot in its name) or a method."""
        self.calls.append(Call(name, "call_function" if "." in target else "call_method", target, args))
        return name

    def add(self, name: str, source: str, branch: str) -> str:
        """A residual join."""
        return self.call(name, "operator.add", Link(source), Link(branch))

    def conv(
        self, name: str, source: str, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = True
    ) -> str:
        """A convolution that keeps the size of its windows' axes."""
        if kernel % 2 == 0:
            raise usage(Kind.BAD_OPTION, f"kernel={kernel} is even and would shift the image", hint="kernel=3, say")
        more = {} if groups == 1 else {"groups": groups}
        kind = f"Conv{self.spec.spatial}d"
        size = {"kernel_size": kernel, "padding": kernel // 2, "bias": bias}
        return self.module(name, source, kind, in_channels=inputs, out_channels=outputs, **size, **more)

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """A linear layer over the last axis."""
        return self.module(name, source, "Linear", in_features=inputs, out_features=outputs)

    def norm(self, name: str, source: str, units: int) -> str:
        """The norm that was wished for, over channels (axis 1) or, for "layer" and "rms", the last axis."""
        match self.spec.norm:
            case "batch":
                return self.module(name, source, f"BatchNorm{max(self.spec.spatial, 1)}d", num_features=units)
            case "group":
                groups = gcd(self.spec.context.groups, units)
                return self.module(name, source, "GroupNorm", num_groups=groups, num_channels=units)
            case "layer":
                return self.module(name, source, "LayerNorm", normalized_shape=units)
            case "rms":
                return self.module(name, source, "RMSNorm", normalized_shape=units)
        return source

    def activate(self, name: str, source: str) -> str:
        """The non-linearity."""
        activation = self.spec.activation
        return source if activation is None else self.module(name, source, activation.kind, **dict(activation.options))

    def done(self) -> Layers:
        """The block."""
        return Layers(tuple(self.parts), tuple(self.calls))


__all__ = ["ENTRY", "BlockBuilder", "BlockSpec"]
