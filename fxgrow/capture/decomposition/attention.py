"""torch's multi-head attention decomposed into plain operators, including masks, extra keys, dropout and weights."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A call to decompose: its node, the scale of its logits (1 if it is not attention), and which masks are
    boolean."""

    node: str
    scale: float
    flags: tuple[bool, ...] = ()
    each: bool = False
    """Whether the attention mask holds a matrix for each head, of each example if there is a batch."""
    heads: int = 0
    """The number of heads, if `forward` computes it; 0 if the call states it."""


WINDOW_ARGUMENTS = (
    "input", "qkv_weight", "proj_weight", "relative_position_bias", "window_size", "num_heads", "shift_size",
    "attention_dropout", "dropout", "qkv_bias", "proj_bias", "logit_scale", "training",
)  # fmt: skip
FUNCTION_ARGUMENTS = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias", "training", "key_padding_mask", "need_weights",
    "attn_mask", "use_separate_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "static_k", "static_v",
    "average_attn_weights", "is_causal",
)  # fmt: skip
MODULE_ARGUMENTS = (
    "query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal",
)  # fmt: skip
VIDEO_WINDOWS = "shifted_window_attention_3d"
NORMALIZE_ARGUMENTS = ("input", "p", "dim", "eps", "out")


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a call that can be decomposed, by name."""
    names: tuple[str, ...] = MODULE_ARGUMENTS if node.op == "call_module" else WINDOW_ARGUMENTS
    if node.target is F.multi_head_attention_forward:
        names = FUNCTION_ARGUMENTS
    elif node.target is F.normalize:
        names = NORMALIZE_ARGUMENTS
    elif node.op == "call_function" and getattr(node.target, "__name__", "") == VIDEO_WINDOWS:
        names = tuple(name for name in names if name != "logit_scale")  # only attention over images has it
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _weights_used(node: fx.Node) -> bool:
    """Whether the attention weights are used, which a fused kernel does not return."""
    needed = arguments(node).get("need_weights", True)
    return bool(needed) and any(taken(u) is None or (taken(u) == 1 and bool(u.users)) for u in node.users)


def taken(user: fx.Node) -> int | None:
    """Return which of the two results of a call a node takes; None if it takes them in another way."""
    number = user.args[1] if user.target is operator.getitem else None
    return number % 2 if isinstance(number, int) else None


class Call:
    """A call of torch's multi-head attention, as a module or as a function.

    The operators are the same with and without a batch: the axes of (batch, tokens, features) are counted from the end,
    and the transpose of batch and tokens (axes 0 and -2 of three) leaves a single example unchanged.
    """

    def __init__(self, graph: fx.Graph, node: fx.Node, module: nn.Module | None, opening: Decomposition) -> None:
        self.tracer = fx.proxy.GraphAppendingTracer(graph)
        self.node, self.module, self.opening = node, module, opening
        self.given = arguments(node)
        m: Any = module
        self.heads: int = m.num_heads if m is not None else opening.heads or self.given["num_heads"]
        self.turned = not (m is not None and m.batch_first)
        """Whether the batch, if there is one, is the second axis."""

    def get(self, name: str) -> Any:
        """Return a parameter of the module, or the one that the function is given; None if there is none."""
        if self.module is None:
            given = self.given.get(name.replace(".", "_"))
            return None if given is None else fx.Proxy(given, self.tracer)
        if operator.attrgetter(name)(self.module) is None:
            return None
        return self.tracer.create_proxy("get_attr", f"{self.node.target}.{name}", (), {})

    def operand(self, name: str) -> Any:
        """Return a tensor argument, with the batch as its first axis."""
        given = self.given.get(name)
        if given is None:
            return None
        proxy = fx.Proxy(given, self.tracer)
        return proxy.transpose(0, -2) if "mask" not in name and self.turned else proxy

    def run(self, added: dict[str, nn.Module]) -> tuple[Any, Any]:
        """Create the operators: project, attend, project back. Return the output, and the attention weights if they are
        used."""
        q, k, v = self._projected()
        k, v = self._extended(k, "bias_k"), self._extended(v, "bias_v")
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for x in (q, k, v))
        if self._option("add_zero_attn"):
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
        scale, mask, used = self.opening.scale, self._mask(q), _weights_used(self.node)
        weights: Any = None
        if used or self._drops():
            scores = q @ k.transpose(-2, -1) * scale
            if mask is not None:
                scores = scores + mask
            if self._causal():
                scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
            weights = self._dropped(scores.softmax(-1), added)
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self._causal(), scale=scale)
        out = out.transpose(-3, -2).transpose(0, -3).flatten(-2)  # time first in memory, as dropout draws it
        out = F.linear(out, self.get("out_proj.weight"), self.get("out_proj.bias"))
        out = out if self.turned else out.transpose(0, -2)
        if used and self.given.get("average_attn_weights", True):
            weights = weights.mean(-3)
        return out, weights if used else None

    def _option(self, name: str) -> Any:
        """Return an option of the module, or the one that the function is given."""
        return self.given.get(name) if self.module is None else getattr(self.module, name)

    def _extended(self, keys: Any, name: str) -> Any:
        """Append a learned entry to the keys or values, if there is one."""
        more = self.get(name)
        if more is None:
            return keys
        return torch.cat([keys, more.squeeze(0).expand(operator.add(keys.shape[:-2], (1, -1)))], -2)

    def _drops(self) -> bool:
        """Whether the call may apply dropout."""
        if self.module is not None:
            return bool(self.module.dropout)
        return bool(self.given.get("dropout_p")) and self.given.get("training", True) is not False

    def _dropped(self, weights: Any, added: dict[str, nn.Module]) -> Any:
        """Apply dropout that follows the module's mode; for a function, it keeps the flag in the trace."""
        m: Any = self.module
        if not self._drops():
            return weights
        if m is None:
            return F.dropout(weights, self.given["dropout_p"], self.given.get("training", True))
        name = f"{self.node.name}_dropout"
        added[name] = nn.Dropout(m.dropout).train(m.training)
        return self.tracer.create_proxy("call_module", name, (weights,), {})

    def _projected(self) -> tuple[Any, ...]:
        """Project the inputs to queries, keys and values."""
        packed_weight, bias = self.get("in_proj_weight"), self.get("in_proj_bias")
        same = self.given["query"] is self.given["key"] is self.given["value"]
        separate = packed_weight is None or bool(self.given.get("use_separate_proj_weight"))
        if not separate and same:
            packed = F.linear(self.operand("query"), packed_weight, bias).chunk(3, -1)
            return packed[0], packed[1], packed[2]
        weights: Any = packed_weight.chunk(3) if not separate else [self.get(f"{x}_proj_weight") for x in "qkv"]
        biases: Any = bias.chunk(3) if bias is not None else (None, None, None)
        return tuple(
            F.linear(self.operand(name), weights[n], biases[n]) for n, name in enumerate(("query", "key", "value"))
        )

    def _causal(self) -> bool:
        """Whether torch assumes that the mask is causal and does not read it."""
        hint = bool(self.given.get("is_causal")) and self.given.get("attn_mask") is not None
        return hint and self.given.get("key_padding_mask") is None and self.given.get("need_weights") is False

    def _mask(self, q: Any) -> Any:
        """Return both masks as one additive mask, minus infinity where attention is not allowed; None if there is
        none."""
        attention, padding = self.operand("attn_mask"), self.operand("key_padding_mask")
        if self._causal():
            return None
        if self.opening.each:
            attention = attention.unflatten(0, operator.add(q.shape[:-3], (self.heads,)))
        flags = iter(self.opening.flags)
        parts: list[Any] = []
        for mask, view in ((attention, _plain), (padding, _over_keys)):
            if mask is not None:
                wide = view(mask)
                shut, open_ = q.new_full((), float("-inf")), q.new_zeros(())  # of the dtype that attention runs in
                parts.append(torch.where(wide, shut, open_) if next(flags) else wide)
        more = (self.get("bias_k") is not None) + bool(self._option("add_zero_attn"))
        both = None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]
        return F.pad(both, (0, more)) if more and both is not None else both


def _plain(mask: Any) -> Any:
    """Return an attention mask as it is."""
    return mask


def _over_keys(mask: Any) -> Any:
    """Add axes for heads and queries to a padding mask."""
    return mask.unsqueeze(-2).unsqueeze(-3)
