"""Network Morphism in depth: factor a layer into two layers whose product is the old kernel, with a P-activation
between.

The new factor comes first: its weight is the identity and further random rows, U = [1; R]. The weight of the old layer
becomes [W, 0], so that [W, 0] U = W holds entry by entry in any dtype; if a larger kernel is requested, it is also
padded with zeros on every side. The new factor is 1x1 and has no padding, so borders, strides and dilations are those
of the old layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx, nn

from ..analysis.analysis import Analysis
from ..capture.lowering.shared_storage import place_of
from ..errors import GrowthRefused, Kind, Refusal, usage
from ..plans import AxisGrowth, Chain, Leaf, ModuleEdit, Still, TensorEdit
from ..plans.plan import grown_shape
from .block_options import BlockOptions, block_spec, check_hidden
from .blocks import factor
from .context import look_around
from .inserting import Drafted, draft
from .positions import find_position, free_name

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def factors(
    gm: fx.GraphModule, analysis: Analysis, name: str, make: BlockOptions, count: int, taken: set[str]
) -> list[Drafted]:
    """Draft `count` factors in front of a layer; the first one also carries the edits of the layer.

    Raises:
        UsageError: the name or the widths are invalid.
        GrowthRefused: the layer cannot be factored.
    """
    node, module = factored(gm, name)
    width = width_of(module, make.hidden, name)
    tensors, modules = second_factor(gm, node, module, width, make.kernel)
    position = find_position(gm, analysis, node.name, "before")
    context = replace(look_around(gm, analysis, position.node, position.value), like=f"{node.target}.weight")
    spec = block_spec(position, context, "factor", replace(make, kernel=1, norm="none"))
    linear = isinstance(module, nn.Linear)
    layer, axis = ("linear", len(spec.shape) - 1) if linear else ("conv", 1)
    fills = {f"{layer}.weight": "isometry", f"{layer}.bias": "zero"}
    settings = (("hidden", width), ("activation", spec.activation.kind if spec.activation else "none"))
    groups, bias = getattr(module, "groups", 1), module.bias is not None
    drafts: list[Drafted] = []
    for k in range(count):
        body = factor(spec, linear=linear, width=width, groups=groups, bias=bias)
        made = draft(
            gm,
            analysis,
            position,
            body,
            "factor",
            "morphism",
            context,
            f"at {name}",
            settings,
            fills=fills,
            shape=spec.shape,
        )
        insert = replace(made.insert, name=free_name(gm, replace(position, name=str(node.target)), taken, "factor"))
        drafts.append(replace(made, insert=insert, tensors=() if k else tensors, modules=() if k else modules))
        spec = replace(spec, shape=(*spec.shape[:axis], width, *spec.shape[axis + 1 :]))
    return drafts


def factored(gm: fx.GraphModule, name: object) -> tuple[fx.Node, Any]:
    """Return the call and the module that a name refers to, after checking that the module can be factored.

    Raises:
        UsageError: there is no such module.
        GrowthRefused: the module is not a convolution or linear layer, is called several times, or has a tied weight.
    """
    if not isinstance(name, str):
        raise usage(Kind.BAD_OPTION, f"a place must be a name, not {type(name).__name__}", hint='after="layer1.conv1"')
    calls = [n for n in gm.graph.nodes if n.op == "call_module" and name in (n.target, n.name)]
    if not calls:
        raise usage(
            Kind.UNKNOWN_NODE,
            f"no layer is called {name!r}",
            hint='scheme="morphism" factors a layer: name a convolution or a linear layer',
        )
    module: Any = gm.get_submodule(str(calls[0].target))
    why = ""
    names = _tied(gm, getattr(module, "weight", None))
    if type(module) not in (*_CONVOLUTIONS, nn.Linear):
        why = f"{type(module).__name__} has no kernel that is a product of two here"
    elif len([n for n in gm.graph.nodes if n.op == "call_module" and n.target == calls[0].target]) > 1:
        why = "it is called several times"
    elif len(names) > 1:
        why = f"its weight is tied: {' = '.join(names)}"
    if why:
        raise GrowthRefused(
            Refusal(
                Kind.NO_FACTOR,
                f"cannot factor {name}: {why}",
                where=calls[0].name,
                hint="name a convolution or a linear layer with a weight of its own that is called once",
            )
        )
    return calls[0], module


def _tied(gm: fx.GraphModule, weight: Any) -> list[str]:
    """Return all names of a parameter, including those of parameters that share its memory."""
    if weight is None:
        return []
    place = place_of(weight)
    return [k for k, t in gm.named_parameters(remove_duplicate=False) if place_of(t) == place]


def width_of(module: Any, hidden: int | None, name: str) -> int:
    """Return the number of units between the two factors.

    Raises:
        UsageError: there are fewer units than the layer has inputs, or `groups` does not divide them.
    """
    inputs = module.weight.shape[1] * getattr(module, "groups", 1)
    width = inputs if hidden is None else hidden
    groups = getattr(module, "groups", 1)
    check_hidden(width, inputs)
    if width < inputs or width % groups:
        raise usage(
            Kind.BAD_OPTION,
            f"hidden={width} cannot carry what {name} reads: {inputs} channels in {groups} group(s)",
            hint=f"hidden={inputs} or a larger multiple of {groups}",
        )
    return int(width)


def second_factor(
    gm: fx.GraphModule, node: fx.Node, module: Any, width: int, kernel: int | None
) -> tuple[tuple[TensorEdit, ...], tuple[ModuleEdit, ...]]:
    """Return the edits of the old layer: more input channels, and possibly a larger kernel.

    Raises:
        UsageError: the kernel cannot grow to that size symmetrically.
    """
    path = str(node.target)
    weight = module.weight
    groups = getattr(module, "groups", 1)
    axes: list[AxisGrowth] = []
    changed: dict[str, object] = {}
    if width // groups > weight.shape[1]:
        axes.append(AxisGrowth(1, Leaf(weight.shape[1], width // groups, "zero")))
        changed["in_features" if isinstance(module, nn.Linear) else "in_channels"] = width
    if kernel is not None and not isinstance(module, nn.Linear):
        old = module.kernel_size
        if any(kernel < k or (kernel - k) % 2 for k in old):
            raise usage(
                Kind.BAD_OPTION,
                f"kernel={kernel} does not enclose the window {old} of {path} evenly on both sides",
                hint=f"kernel={max(old) + 2}, say",
            )
        more = [(kernel - k) // 2 for k in old]
        axes += [AxisGrowth(2 + i, _frame(k, m)) for i, (k, m) in enumerate(zip(old, more, strict=True)) if m]
        if any(more):
            changed.update(_padded(module, kernel, more))
    edits = tuple((k, getattr(module, k), v) for k, v in changed.items())
    if not axes:
        return (), ()
    names = tuple(_tied(gm, weight))
    shape = tuple(weight.shape)
    tensor = TensorEdit(names, shape, grown_shape(shape, tuple(axes)), tuple(axes), "weights")
    return (tensor,), (ModuleEdit(path, edits),)


def _frame(size: int, more: int) -> Chain:
    return Chain((Leaf(0, more, "zero"), Still(size), Leaf(0, more, "zero")))


def _padded(module: Any, kernel: int, more: list[int]) -> dict[str, object]:
    """Return the size attributes of a convolution whose kernel is enlarged equally on both sides."""
    size = (kernel,) * len(more)
    if module.padding == "same":
        both = [d * (kernel - 1) for d in module.dilation]
        sides = tuple(n for total in reversed(both) for n in (total // 2, total - total // 2))
        return {"kernel_size": size, "_reversed_padding_repeated_twice": list(sides)}
    old = (0,) * len(more) if module.padding == "valid" else module.padding
    padding = tuple(p + d * m for p, d, m in zip(old, module.dilation, more, strict=True))
    sides = tuple(n for p in reversed(padding) for n in (p, p))
    return {"kernel_size": size, "padding": padding, "_reversed_padding_repeated_twice": sides}
