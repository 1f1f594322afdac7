"""Decompose calls of modules and functions into fx nodes, so that sizes which the call ties together can differ.

`nn.MultiheadAttention` ties heads x head_dim to the embedding, and torchvision's window attention ties them to its
input. Where a growth changes only one of the two, the call is replaced by plain operators on the same parameters.
`F.normalize` computes the norm and divides by it in one call; where a growth needs a multiple of the norm, it becomes
several calls. A user function is traced into if possible (`function_bodies.py`).
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from ...errors import GrowthRefused, Kind, Refusal
from ...functional import window_attention
from ..program.program import Program
from ..source_lines import location
from .attention import Call, Decomposition, arguments, taken
from .function_bodies import Closed, is_whole_function, write_out

COUNTS = ("num_heads", "embed_dim_to_check")
"""Arguments that are numbers, and become constants where `forward` computes them from widths."""
FLAGS = ("add_zero_attn", "need_weights", "average_attn_weights", "is_causal", "use_separate_proj_weight")
"""Arguments that determine which operators run."""
NORMALIZE = "normalize"
WINDOW = "window"
WINDOWS = frozenset(
    {
        "torchvision.models.swin_transformer.shifted_window_attention",
        "torchvision.models.video.swin_transformer.shifted_window_attention_3d",
    }
)


def kind_of(gm: fx.GraphModule, node: fx.Node) -> str:
    """Return the kind of call of a node; empty if it is not one of torch's or torchvision's calls that can be
    decomposed. (For user functions, see `may_open`.)"""
    if node.op == "call_module":
        module = gm.get_submodule(str(node.target))
        return "module" if type(module) is nn.MultiheadAttention and not _attached(module) else ""
    if node.op == "call_function" and node.target is F.multi_head_attention_forward:
        given = arguments(node)  # static keys are split into heads already, not projected by the call
        return "function" if given.get("static_k") is None and given.get("static_v") is None else ""
    if node.op == "call_function" and node.target is F.normalize:
        return NORMALIZE if arguments(node).get("out") is None else ""
    if node.op == "call_function":
        name = f"{getattr(node.target, '__module__', '')}.{getattr(node.target, '__name__', '')}"
        return WINDOW if name in WINDOWS else ""
    return ""


def may_open(gm: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node may be decomposed: a call of one of these kinds, or of a function that may be traced into."""
    return bool(kind_of(gm, node)) or is_whole_function(node)


def why_closed(gm: fx.GraphModule, node: fx.Node) -> tuple[str, str] | None:
    """Return why a call of attention cannot be decomposed, and a way out; None for calls that can be, and for other
    calls."""
    module = gm.get_submodule(str(node.target)) if node.op == "call_module" else None
    if isinstance(module, nn.MultiheadAttention) and _attached(module):
        text = f"it ties heads x head width to its embedding, and {_attached(module)}, which writing it out would lose"
        way_out = (
            f"make {node.target} a plain nn.MultiheadAttention without hooks, or grow an axis that keeps its sizes"
        )
        return text, way_out
    if node.target is not F.multi_head_attention_forward or kind_of(gm, node):
        return None
    text = "it ties heads x head width to its embedding, and its static_k and static_v are heads already"
    return text, "let the call project its keys and values, without static_k and static_v"


def _attached(module: nn.MultiheadAttention) -> str:
    """Return what has been added to or changed in a module, so that its call is not torch's own; "" if nothing."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(hooks):
        return "it has hooks"
    if "forward" in vars(module):
        return "its `forward` has been replaced"
    return "" if type(module) is nn.MultiheadAttention else f"it is a {type(module).__name__}"


def decompose_nodes(gm: fx.GraphModule, graph: fx.Graph, openings: Sequence[Decomposition]) -> dict[str, nn.Module]:
    """Decompose calls in a copy of a model's graph. Return the modules that must be added to the model, by name.

    Raises:
        Closed: a function cannot be traced into, or a node does not exist.
    """
    added: dict[str, nn.Module] = {}
    for opening in openings:
        node = next((n for n in graph.nodes if n.name == opening.node), None)  # an earlier decomposition may create it
        if node is None or not may_open(gm, node):
            raise Closed(f"{opening.node} is not such a call")
        with graph.inserting_before(node):
            kind = kind_of(gm, node)
            if not kind:
                write_out(graph, node)
                continue
            if kind == WINDOW:
                _open_window(graph, node, opening.scale)
                continue
            if kind == NORMALIZE:
                _open_normalize(graph, node)
                continue
            module = gm.get_submodule(str(node.target)) if node.op == "call_module" else None
            out, weights = Call(graph, node, module, opening).run(added)
        _replace(node, (out.node, None if weights is None else weights.node))
    return added


def _replace(call: fx.Node, results: tuple[fx.Node, fx.Node | None]) -> None:
    """Replace a call that returns two results by these results."""
    for user in list(call.users):
        which = taken(user)
        if which is None:
            _swap(user, call, results)
            continue
        for reader in list(user.users):
            _swap(reader, user, results[which])
        call.graph.erase_node(user)
    call.graph.erase_node(call)


def _swap(user: fx.Node, old: fx.Node, new: Any) -> None:
    """Replace a node among the arguments of another one."""
    user.args, user.kwargs = fx.map_arg((user.args, user.kwargs), lambda n: new if n is old else n)


def decomposition_of(gm: fx.GraphModule, node: fx.Node, programs: Sequence[Program]) -> Decomposition:
    """Return what must be known about a call to decompose it.

    Args:
        gm: the model.
        node: the call.
        programs: programs of the model, the one for the example inputs first (`Analysis.programs`).

    Raises:
        GrowthRefused: an argument of the call depends on the inputs and would have to become a constant.
    """
    if not kind_of(gm, node) or node.target is F.normalize:
        return Decomposition(node.name, 1.0)
    given = arguments(node)
    values = {k: programs[0].results[v.name] for k, v in given.items() if isinstance(v, fx.Node)}
    module: Any = gm.get_submodule(str(node.target)) if node.op == "call_module" else None
    for name in (*COUNTS, *FLAGS) if module is None else FLAGS:
        if name in values:
            _same_everywhere(gm, node, name, given[name], programs)
    heads = values.get("num_heads", 0)
    if "query" in given:
        masks = [values[k] for k in ("attn_mask", "key_padding_mask") if k in values]
        told = {**given, **values}
        head = module.head_dim if module is not None else told["embed_dim_to_check"] // told["num_heads"]
        flags = tuple(m.dtype is torch.bool for m in masks)
        each = "attn_mask" in values and len(values["attn_mask"].shape) == 3
        return Decomposition(node.name, head**-0.5, flags, each, heads)
    width = values["qkv_weight"].shape[0] // 3 // (heads or given["num_heads"])
    return Decomposition(node.name, width**-0.5)


def _same_everywhere(
    gm: fx.GraphModule, node: fx.Node, name: str, argument: fx.Node, programs: Sequence[Program]
) -> None:
    """Refuse a computed argument that would have to become a constant, unless it depends on widths alone."""
    value = programs[0].results[argument.name]
    others = [program.results[argument.name] for program in programs[1:]]
    varies = any(argument.name in program.varying for program in programs)
    if name in COUNTS and type(value) is int and not varies and all(other == value for other in others):
        return
    raise GrowthRefused(
        Refusal(
            Kind.INEXPRESSIBLE,
            f"{node.name} must be replaced by plain operators, and its {name} is computed from the inputs",
            where=location(gm, node.name),
            chain=(node.name,),
            hint=f"pass a number or a flag as {name}, or compute it from a width; or grow a layer outside this "
            "attention",
        )
    )


def _open_window(graph: fx.Graph, node: fx.Node, scale: float) -> None:
    """Replace torchvision's window attention by a function that takes the scale of the logits."""
    given = arguments(node)
    del given["num_heads"]
    if given.get("logit_scale") is not None:
        given["norms"] = (1.0, 1.0)
    new = graph.call_function(window_attention, (given.pop("input"),), {**given, "scale": scale})
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _open_normalize(graph: fx.Graph, node: fx.Node) -> None:
    """Replace `F.normalize` by the calls that it makes."""
    given = {"p": 2.0, "dim": 1, "eps": 1e-12, **arguments(node)}
    x, made = given["input"], {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}

    def step(name: str, op: str, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        new = graph.create_node(op, target, args, kwargs, name=f"{node.name}_{name}")
        new.meta = dict(made)
        return new

    norm = step("norm", "call_method", "norm", x, given["p"], given["dim"], keepdim=True)
    least = step("least", "call_method", "clamp_min", norm, given["eps"])
    wide = step("wide", "call_method", "expand_as", least, x)
    new = step("unit", "call_function", operator.truediv, x, wide)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    graph.erase_node(node)
