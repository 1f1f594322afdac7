"""Functions and modules that fxgrow inserts into graphs: the skip adapter of R2R, window attention with free sizes, and
guards that raise an error where a traced model is not valid."""

from __future__ import annotations

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import handle_torch_function, has_torch_function, has_torch_function_unary

from .errors import Kind, usage
from .optional import optional


def adapt_skip(
    x: Tensor,
    dim: int,
    keep: int,
    pairs: Sequence[tuple[int, int]],
    width: int,
    copies: Sequence[tuple[int, int]] = (),
) -> Tensor:
    """Change the number of channels of a skip path without changing the values that it carries.

    The first `keep` channels pass unchanged. New channels of `x` come in pairs (left, right, left, right, ...), and
    r(left) - r(right) is added to the result, which is zero as long as both are equal; r pads to `width` channels with
    zeros, or splits more than `width` channels into several summands. Channels of the result that `x` does not have are
    zeros, or copies of other channels.

    Args:
        x: the input of the skip path, of any rank.
        dim: dimension of the channels; may be negative.
        keep: number of leading channels of `x` that pass unchanged, at most `width`.
        pairs: blocks of new channels as (start, number of pairs). Channels after `keep` that are in no block are
            dropped.
        width: number of channels of the result.
        copies: channels of the result that are copies, as (channel, original), where the original comes first.

    Source: R2R, arXiv 2410.11038, equations (17) and (38).
    """
    if has_torch_function_unary(x):  # if torch.fx traces it again, it stays a single node
        result: Tensor = handle_torch_function(adapt_skip, (x,), x, dim, keep, pairs, width, copies)
        return result
    dim = dim % x.dim()
    old = x.narrow(dim, 0, keep)
    rest = list(x.shape)
    rest[dim] = width - keep
    y = torch.cat([old, x.new_zeros(rest)], dim) if width > keep else old
    for start, count in pairs:
        fresh = x.narrow(dim, start, 2 * count).unflatten(dim, (count, 2))
        halves = fresh.select(dim + 1, 0) - fresh.select(dim + 1, 1)
        for offset in range(0, count, width):
            part = halves.narrow(dim, offset, min(width, count - offset))
            missing = list(part.shape)
            missing[dim] = width - part.shape[dim]
            y = y + (torch.cat([part, part.new_zeros(missing)], dim) if missing[dim] else part)
    order = list(range(width))
    for channel, original in copies:
        order[channel] = order[original]
    return y.index_select(dim, torch.tensor(order, device=x.device)) if copies else y


def window_attention(
    x: Tensor,
    *,
    qkv_weight: Tensor,
    proj_weight: Tensor,
    relative_position_bias: Tensor,
    window_size: Sequence[int],
    shift_size: Sequence[int],
    scale: float,
    attention_dropout: float = 0.0,
    dropout: float = 0.0,
    qkv_bias: Tensor | None = None,
    proj_bias: Tensor | None = None,
    logit_scale: Tensor | None = None,
    training: bool = True,
    norms: Sequence[float] = (1.0, 1.0),
) -> Tensor:
    """Compute attention within shifted windows, as torchvision's Swin transformers do, for any numbers of channels.

    The number of heads is read from the position bias and the size of a head from the weights, and the scale of the
    logits is an argument, so that channels, heads and the size of a head can grow separately.

    Args:
        x: (N, H, W, C), or with another number of spatial dimensions, e.g. (N, T, H, W, C) for videos.
        qkv_weight: (3 heads head_dim, C), rows of queries, keys and values.
        proj_weight: (C', heads head_dim), the output projection.
        relative_position_bias: (1, heads, tokens, tokens) for the tokens of one window.
        window_size: size of a window along each spatial dimension; `x` is padded with zeros to whole windows.
        shift_size: cyclic shift of the windows; tokens that were not neighbours before the shift do not attend to each
            other.
        scale: factor of the logits; not used if `logit_scale` is given.
        attention_dropout: dropout probability of the attention weights.
        dropout: dropout probability of the result.
        qkv_bias: (3 heads head_dim).
        proj_bias: (C').
        logit_scale: (heads, 1, 1), the logarithm of the scale of cosine attention (Swin V2), clamped to log 100.
        training: whether dropout is active.
        norms: factors of the norms by which queries and keys are divided in cosine attention.

    Source: Liu et al. 2021, arXiv 2103.14030; 2022, arXiv 2111.09883 and 2106.13230.
    """
    tensors = (x, qkv_weight, proj_weight, relative_position_bias)
    if has_torch_function(tensors):  # if torch.fx traces it again, it stays a single node
        named = {k: v for k, v in locals().items() if k not in ("x", "tensors")}
        result: Tensor = handle_torch_function(window_attention, tensors, x, **named)
        return result
    n, *sides, _ = x.shape
    axes = tuple(range(1, len(sides) + 1))
    lacking = [-side % size for side, size in zip(sides, window_size, strict=True)]
    x = F.pad(x, [0, 0, *(k for more in reversed(lacking) for k in (0, more))])
    counts = [x.shape[k] // size for k, size in zip(axes, window_size, strict=True)]
    shift = [0 if size >= x.shape[k] else by for k, size, by in zip(axes, window_size, shift_size, strict=True)]
    if any(shift):
        x = x.roll([-by for by in shift], axes)
    x = _windows(x, counts, window_size)
    if logit_scale is not None and qkv_bias is not None:  # keys have no bias under cosine attention
        bias = qkv_bias.chunk(3)
        qkv_bias = torch.cat([bias[0], torch.zeros_like(bias[1]), bias[2]])
    heads = relative_position_bias.shape[1]
    packed = F.linear(x, qkv_weight, qkv_bias).chunk(3, -1)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in packed)
    if logit_scale is not None:
        logits = _direction(q, norms[0]) @ _direction(k, norms[1]).transpose(-2, -1)
        logits = logits * logit_scale.clamp(max=math.log(100.0)).exp()
    else:
        logits = (q * scale) @ k.transpose(-2, -1)
    logits = logits + relative_position_bias
    if any(shift):
        apart = _apart(x, counts, window_size, shift)
        logits = (logits.unflatten(0, (n, math.prod(counts))) + apart.unsqueeze(1)).flatten(0, 1)
    weights = F.dropout(logits.softmax(-1), attention_dropout, training)
    out = F.linear((weights @ v).transpose(1, 2).flatten(2), proj_weight, proj_bias)
    out = _together(F.dropout(out, dropout, training), n, counts, window_size)
    if any(shift):
        out = out.roll(shift, axes)
    for k, side in zip(axes, sides, strict=True):
        out = out.narrow(k, 0, side)
    result = out.contiguous()
    return result


def _windows(x: Tensor, counts: Sequence[int], size: Sequence[int]) -> Tensor:
    """Reshape (N, *sides, C) to (N windows, tokens of a window, C)."""
    rank = len(counts)
    for k in range(rank, 0, -1):
        x = x.unflatten(k, (counts[k - 1], size[k - 1]))
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1]
    return x.permute(order).flatten(rank + 1, 2 * rank).flatten(0, rank)


def _together(x: Tensor, n: int, counts: Sequence[int], size: Sequence[int]) -> Tensor:
    """Reshape windows to (N, *sides, C): the inverse of `_windows`."""
    rank = len(counts)
    x = x.unflatten(1, tuple(size)).unflatten(0, (n, *counts))
    order = [0, *(k for pair in zip(range(1, rank + 1), range(rank + 1, 2 * rank + 1), strict=True) for k in pair)]
    x = x.permute([*order, 2 * rank + 1])
    for k in range(1, rank + 1):
        x = x.flatten(k, k + 1)
    return x


def _direction(x: Tensor, multiple: float) -> Tensor:
    """Compute `F.normalize(x, dim=-1)` with the norm multiplied by a factor."""
    y: Tensor = x / (x.norm(2.0, -1, keepdim=True) * multiple).clamp_min(1e-12)
    return y


def _apart(like: Tensor, counts: Sequence[int], sizes: Sequence[int], shift: Sequence[int]) -> Tensor:
    """Return the mask (windows, tokens, tokens) of shifted windows: -100 for two tokens that were not neighbours before
    the shift, and 0 otherwise."""
    number = torch.zeros((1, 1), dtype=torch.long, device=like.device)
    for count, size, by in zip(counts, sizes, shift, strict=True):
        place = torch.arange(count * size, device=like.device)
        region = (place >= count * size - size).long() + (place >= count * size - by).long()
        region = region.view(count, size)
        number = (number[:, None, :, None] * 3 + region[None, :, None, :]).flatten(2).flatten(0, 1)
    differ = number.unsqueeze(1) != number.unsqueeze(2)
    return torch.zeros(differ.shape, dtype=like.dtype, device=like.device).masked_fill(differ, -100.0)


class ModeValue(nn.Module):
    """A module that returns one value in training mode and another in evaluation mode.

    `fxgrow.trace` inserts it as a sibling of the module whose `forward` selects the value by `self.training`, so that
    it is in the same mode as that module.

    Example:
        >>> rate = ModeValue(0.1, 0.0)
        >>> rate(), rate.eval()()
        (0.1, 0.0)
    """

    def __init__(self, in_training: Any, in_evaluation: Any) -> None:
        super().__init__()
        self.in_training = in_training
        self.in_evaluation = in_evaluation

    def forward(self) -> Any:
        """Return the value of the current mode."""
        return self.in_training if self.training else self.in_evaluation

    def extra_repr(self) -> str:
        """Return both values, for `repr`."""
        return f"in_training={self.in_training!r}, in_evaluation={self.in_evaluation!r}"


class ModeGuard(nn.Module):
    """A module that raises an error if a traced model runs in a mode for which its graph is not valid.

    Args:
        in_training: whether the graph is valid in training mode; otherwise in evaluation mode.
        why: why it is not valid in the other mode.
        path: path of the module whose mode is checked; empty for the whole model.
    """

    _is_impure = True  # otherwise torch.fx removes a call whose result is not used

    def __init__(self, in_training: bool, why: str, path: str = "") -> None:
        super().__init__()
        self.path = path
        self.in_training = in_training
        self.why = why

    def forward(self) -> None:
        """Check the mode.

        Raises:
            UsageError: the model, or the module inside it, is in the other mode.
        """
        if self.training != self.in_training:
            modes = ("evaluation", "training")
            has, wants = modes[self.training], modes[self.in_training]
            raise usage(
                Kind.WRONG_MODE,
                f"{self.path or 'this model'} was traced in {wants} mode and is valid in that mode only, but it is in "
                f"{has} mode: {self.why}",
                hint=f"call .{('eval', 'train')[self.in_training]}(), or trace the original module in {has} mode",
            )

    def extra_repr(self) -> str:
        """Return the mode, for `repr`."""
        return "training" if self.in_training else "evaluation"


class BufferGuard(nn.Module):
    """A module that raises an error if a buffer has other values than those with which the model was traced.

    Args:
        name: name of the buffer.
        values: the values that `forward` read as numbers or conditions.
    """

    _is_impure = True  # otherwise torch.fx removes a call whose result is not used

    values: Tensor

    def __init__(self, name: str, values: Tensor) -> None:
        super().__init__()
        self.name = name
        self.values = values.detach().to("cpu", copy=True)  # neither saved nor moved to another device

    def forward(self, buffer: Tensor) -> None:
        """Check the values of the buffer.

        Raises:
            UsageError: the buffer has other values.
            RuntimeError: the same in compiled code.
        """
        what = (
            f"this model is valid only for the values that the buffer {self.name} had when it was traced, because "
            "forward reads them as numbers or conditions, but the buffer has other values now"
        )
        hint = "load the buffers into the original module, and trace that again"
        if torch.compiler.is_compiling():  # an operator, so that compiled code checks it in each call
            values = self.values.to(buffer.device, buffer.dtype)
            torch._assert_async((_without_nan(buffer.detach()) == _without_nan(values)).all(), f"{what}; {hint}")
            return
        if isinstance(buffer, FakeTensor) or buffer.is_meta:
            return
        here = buffer.detach().cpu()
        if here.shape != self.values.shape or not torch.equal(*map(_without_nan, (here, self.values.to(here.dtype)))):
            raise usage(Kind.WRONG_MODE, what, hint=hint)

    def extra_repr(self) -> str:
        """Return the name of the buffer, for `repr`."""
        return self.name


def _without_nan(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.5, posinf=math.inf, neginf=-math.inf) if values.is_floating_point() else values


QUESTIONS: dict[str, Callable[[Any], Any]] = {
    "condition": bool,
    "length": len,
    "keys": tuple,
    "int": int,
    "float": float,
    "complex": complex,
    "index": operator.index,
    "key": lambda value: value,
    "none": lambda value: value is None,
}
"""What `forward` may ask of a value that depends on the inputs, by name: a condition, a length, a number."""


@fx.has_side_effect  # otherwise torch.fx removes a call whose result is not used
def decided(value: Any, asked: str, answer: Any, place: str) -> None:
    """Check that the inputs lead to the same decision as the example inputs with which a model was traced.

    `fxgrow.trace` inserts it where `forward` evaluates something that depends on the inputs: a condition on a size, the
    length of a list, a whole number.

    Args:
        value: the value that is evaluated.
        asked: how it is evaluated, a key of `QUESTIONS`.
        answer: the result for the example inputs.
        place: the line of code that evaluates it.

    Raises:
        UsageError: the result is different.
    """
    if has_torch_function_unary(value):  # if torch.fx traces it again, it stays a single node
        handle_torch_function(decided, (value,), value, asked, answer, place)
        return
    here = QUESTIONS[asked](value)
    if here != answer:
        shown = repr(here) if asked != "none" else "None" if here else f"a {type(value).__name__}"
        raise usage(
            Kind.OTHER_DECISION,
            f"{decision(asked, answer, place)}, but for these inputs it is {shown}",
            hint="trace the original module with inputs like these, and grow that trace",
        )


def decision(asked: str, answer: Any, place: str) -> str:
    """Describe what was decided when a model was traced, as the beginning of a sentence."""
    names = {"condition": "the condition", "length": "the length", "keys": "the keys", "none": "an entry that is read"}
    what = names.get(asked, "a number or a name")
    if asked == "none" and not answer:
        return f"this model is valid only for inputs with a value at {place}, as in the example inputs"
    shown = None if asked == "none" else answer
    return f"this model is valid only for inputs for which {what} in {place} is {shown!r}, as for the example inputs"


def numpy_number(name: str, *args: Any, **kwargs: Any) -> Any:
    """Call a NumPy function on numbers, and convert a NumPy scalar that it returns to a Python number.

    `fxgrow.trace` inserts it where `forward` computes with sizes as in `np.sqrt(q.shape[-1])`.

    Args:
        name: name of the function in the namespace of NumPy.
        args: numbers, or lists of numbers.
        kwargs: keyword arguments of the function.

    Example:
        >>> numpy_number("prod", [2, 3])
        6
    """
    numpy = optional("numpy", extra="numpy", what="a model that computes with np." + name)
    result = getattr(numpy, name)(*args, **kwargs)
    return result.item() if isinstance(result, numpy.generic) else result


FACTORIES: dict[str, Callable[[], Any]] = {kind.__name__: kind for kind in (list, dict, set, tuple, int, float, str)}
"""The default factories that a `defaultdict` in a graph may have, by name."""


def default_dict(factory: str, items: Mapping[Any, Any]) -> defaultdict[Any, Any]:
    """Return a `collections.defaultdict`; torch.fx does not accept its factory, a class, as an argument of a node.

    Args:
        factory: a key of `FACTORIES`.
        items: the items of the dictionary.
    """
    return defaultdict(FACTORIES[factory], items)
