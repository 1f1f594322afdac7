"""`BlockSpec`, the options of a new block, and `BlockBuilder`, which assembles its layers."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from ...errors import Kind, usage
from ...plans.insertion import ENTRY, Call, Layers, Link, Part, options
from ..context import Activation, BlockContext


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """The options of a new block, and the shape of the value at its position."""

    shape: tuple[int, ...]
    context: BlockContext
    hidden: int | None
    kernel: int
    norm: str
    activation: Activation | None
    """None for a block without a non-linearity."""
    heads: int
    causal: bool

    @property
    def spatial(self) -> int:
        """Number of spatial dimensions of a convolution on this value."""
        return len(self.shape) - 2

    @property
    def features(self) -> int:
        """Size of the last axis, the features of linear layers."""
        return self.shape[-1]

    @property
    def channels(self) -> int:
        """Size of axis 1, the channels of convolutions."""
        return self.shape[1]

    def width(self, usual: int) -> int:
        """Return the requested hidden width, or else the default, rounded up to an even number so that it has two
        halves."""
        return self.hidden if self.hidden is not None else max(2, usual + usual % 2)


class BlockBuilder:
    """Collects the modules and calls of a block; each method returns the name of its result."""

    def __init__(self, spec: BlockSpec) -> None:
        self.spec = spec
        self.parts: list[Part] = []
        self.calls: list[Call] = []

    def module(self, name: str, source: str, kind: str, **given: object) -> str:
        """Add a module of torch.nn and its call."""
        self.parts.append(Part(name, kind, options(**given)))
        self.calls.append(Call(name, "call_module", name, (Link(source),)))
        return name

    def call(self, name: str, target: str, *args: object) -> str:
        """Add a call of a function (a qualified name with a dot) or of a method."""
        self.calls.append(Call(name, "call_function" if "." in target else "call_method", target, args))
        return name

    def add(self, name: str, source: str, branch: str) -> str:
        """Add a residual connection."""
        return self.call(name, "operator.add", Link(source), Link(branch))

    def conv(
        self, name: str, source: str, inputs: int, outputs: int, kernel: int = 1, groups: int = 1, bias: bool = True
    ) -> str:
        """Add a convolution that preserves the spatial sizes."""
        if kernel % 2 == 0:
            raise usage(Kind.BAD_OPTION, f"kernel={kernel} is even and would shift the image", hint="kernel=3, say")
        more = {} if groups == 1 else {"groups": groups}
        kind = f"Conv{self.spec.spatial}d"
        size = {"kernel_size": kernel, "padding": kernel // 2, "bias": bias}
        return self.module(name, source, kind, in_channels=inputs, out_channels=outputs, **size, **more)

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """Add a linear layer over the last axis."""
        return self.module(name, source, "Linear", in_features=inputs, out_features=outputs)

    def norm(self, name: str, source: str, units: int) -> str:
        """Add the norm of the spec, over channels (axis 1) or, for "layer" and "rms", over the last axis."""
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
        """Add the activation of the spec, if it has one."""
        activation = self.spec.activation
        return source if activation is None else self.module(name, source, activation.kind, **dict(activation.options))

    def done(self) -> Layers:
        """Return the collected block."""
        return Layers(tuple(self.parts), tuple(self.calls))


__all__ = ["ENTRY", "BlockBuilder", "BlockSpec"]
