"""Functions that fxgrow puts into a user's graph: the skip adapter of R2R, and attention whose sizes are free."""

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
    """Reshape a skip path between volumes of different width without changing what it carries.

    Old channels pass as they are; every later pair of halves (left, right, left, right, ...) enters as
    r(left) - r(right), where r pads with zeros, or folds where there are more fresh channels than `width`;
    channels that the skip does not have are zero, or copies of others.

    Args:
        x: the volume the skip path starts from; any rank.
        dim: the channel axis; counted from the end where it is negative.
        keep: how many leading channels of `x` pass unchanged, at most `width`.
        pairs: blocks of later channels as (start, number of pairs); a block is laid out l r l r ....
            Channels after `keep` that lie in no block do not enter.
        width: channels of the result.
        copies: channels of the result as (channel, the one before it that it is a copy of).

    Source: R2R, arXiv 2410.11038, equations (17) and (38).
    """
    if has_torch_function_unary(x):  # traced again by torch.fx, it stays one node
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
    """Attention within shifted windows, as torchvision's Swin transformers have it, with sizes that are free.

    It reads the number of heads from the position bias and the width of a head from the weights, and takes the scale
    of the logits as a number, so that channels, heads and their width can grow one without the other.

    Args:
        x: (N, H, W, C), or with another number of axes in the place of H and W, as (N, T, H, W, C) for videos.
        qkv_weight: (3 heads head_dim, C), rows of queries, keys and values.
        proj_weight: (C', heads head_dim).
        relative_position_bias: (1, heads, tokens, tokens) for the tokens of one window.
        window_size: of a window along each of these axes; `x` is padded with zeros to whole windows.
        shift_size: how far windows are shifted, cyclically; tokens that were not neighbours do not attend.
        scale: of the logits, unless `logit_scale` is given.
        logit_scale: (heads, 1, 1), the logarithm of the scale of cosine attention (Swin V2), at most log 100.
        norms: what the lengths of queries and of keys are multiplied by before they are divided by them.

    Source: Liu et al. 2021, arXiv 2103.14030; 2022, arXiv 2111.09883 and 2106.13230.
    """
    tensors = (x, qkv_weight, proj_weight, relative_position_bias)
    if has_torch_function(tensors):  # traced again by torch.fx, it stays one node
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
    """(N, *sides, C) as (N windows, tokens of a window, C)."""
    rank = len(counts)
    for k in range(rank, 0, -1):
        x = x.unflatten(k, (counts[k - 1], size[k - 1]))
    order = [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1]
    return x.permute(order).flatten(rank + 1, 2 * rank).flatten(0, rank)


def _together(x: Tensor, n: int, counts: Sequence[int], size: Sequence[int]) -> Tensor:
    """The inverse of `_windows`."""
    rank = len(counts)
    x = x.unflatten(1, tuple(size)).unflatten(0, (n, *counts))
    order = [0, *(k for pair in zip(range(1, rank + 1), range(rank + 1, 2 * rank + 1), strict=True) for k in pair)]
    x = x.permute([*order, 2 * rank + 1])
    for k in range(1, rank + 1):
        x = x.flatten(k, k + 1)
    return x


def _direction(x: Tensor, multiple: float) -> Tensor:
    """`F.normalize(x, dim=-1)`, which divides by a multiple of the length."""
    y: Tensor = x / (x.norm(2.0, -1, keepdim=True) * multiple).clamp_min(1e-12)
    return y


def _apart(like: Tensor, counts: Sequence[int], sizes: Sequence[int], shift: Sequence[int]) -> Tensor:
    """(windows, tokens, tokens): -100 where two tokens of a shifted window come from different sides of the image."""
    number = torch.zeros((1, 1), dtype=torch.long, device=like.device)
    for count, size, by in zip(counts, sizes, shift, strict=True):
        place = torch.arange(count * size, device=like.device)
        region = (place >= count * size - size).long() + (place >= count * size - by).long()
        region = region.view(count, size)
        number = (number[:, None, :, None] * 3 + region[None, :, None, :]).flatten(2).flatten(0, 1)
    differ = number.unsqueeze(1) != number.unsqueeze(2)
    return torch.zeros(differ.shape, dtype=like.dtype, device=like.device).masked_fill(differ, -100.0)


class ModeValue(nn.Module):
    """A number or a flag that has one value in training mode and another in evaluation mode.

    `fxgrow.trace` puts it beside the module whose `forward` chose the value by `self.training`, so it follows the mode
    of that module.

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
        """The value of the present mode."""
        return self.in_training if self.training else self.in_evaluation

    def extra_repr(self) -> str:
        """Both values."""
        return f"in_training={self.in_training!r}, in_evaluation={self.in_evaluation!r}"


class ModeGuard(nn.Module):
    """Raises an error in the mode that a traced model does not stand for.

    Args:
        in_training: whether the model stands for training mode; otherwise for evaluation mode.
        why: why it does not stand for the other mode.
        path: of the module whose mode it watches; empty for the whole model.
    """

    _is_impure = True  # torch.fx would remove a call whose result nobody uses

    def __init__(self, in_training: bool, why: str, path: str = "") -> None:
        super().__init__()
        self.path = path
        self.in_training = in_training
        self.why = why

    def forward(self) -> None:
        """Do nothing, or raise.

        Raises:
            UsageError: the model, or the module inside it, is in the other mode.
        """
        if self.training != self.in_training:
            modes = ("evaluation", "training")
            has, wants = modes[self.training], modes[self.in_training]
            raise usage(
                Kind.WRONG_MODE,
                f"{self.path or 'this model'} stands for {wants} mode, in which it was traced, and it is in {has} "
                f"mode: {self.why}",
                hint=f"call .{('eval', 'train')[self.in_training]}(), or trace the original module in {has} mode",
            )

    def extra_repr(self) -> str:
        """The mode."""
        return "training" if self.in_training else "evaluation"


class BufferGuard(nn.Module):
    """Raises an error where a buffer holds other values than those that a traced model stands for.

    Args:
        name: of the buffer.
        values: that `forward` has read as numbers or conditions.
    """

    _is_impure = True  # torch.fx would remove a call whose result nobody uses

    values: Tensor

    def __init__(self, name: str, values: Tensor) -> None:
        super().__init__()
        self.name = name
        self.values = values.detach().to("cpu", copy=True)  # neither saved nor moved to another device

    def forward(self, buffer: Tensor) -> None:
        """Do nothing, or raise.

        Raises:
            UsageError: the buffer holds other values.
            RuntimeError: it does, in compiled code.
        """
        what = (
            f"this model stands for the values that the buffer {self.name} had when it was traced, because forward "
            "reads them as numbers or conditions, and the buffer holds others now"
        )
        hint = "load the buffers into the original module, and trace that again"
        if torch.compiler.is_compiling():  # as an operator, so that compiled code asks in each call
            values = self.values.to(buffer.device, buffer.dtype)
            torch._assert_async((_without_nan(buffer.detach()) == _without_nan(values)).all(), f"{what}; {hint}")
            return
        if isinstance(buffer, FakeTensor) or buffer.is_meta:
            return
        here = buffer.detach().cpu()
        if here.shape != self.values.shape or not torch.equal(*map(_without_nan, (here, self.values.to(here.dtype)))):
            raise usage(Kind.WRONG_MODE, what, hint=hint)

    def extra_repr(self) -> str:
        """The buffer."""
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
    "axes": bool,
}
"""What code may ask of a value, by name."""


@fx.has_side_effect  # torch.fx would remove a call whose result nobody uses
def decided(value: Any, asked: str, answer: Any, place: str) -> None:
    """Do nothing, or raise an error where the inputs give another answer than those with which a model was traced.

    `fxgrow.trace` puts it where `forward` asked for something that depends on the inputs: a condition on a size, the
    length of a list, a whole number. A growth that does not keep the function for inputs with some number of axes puts
    it behind these inputs ("axes").

    Args:
        value: what was asked.
        asked: what for, a key of `QUESTIONS`.
        answer: that the example inputs gave.
        place: the line of code that asked; of "axes", what must not be.

    Raises:
        UsageError: the answer is another one.
    """
    if has_torch_function_unary(value):  # traced again by torch.fx, it stays one node
        handle_torch_function(decided, (value,), value, asked, answer, place)
        return
    here = QUESTIONS[asked](value)
    if here != answer:
        shown = repr(here) if asked != "none" else "None" if here else f"a {type(value).__name__}"
        told = "" if asked == "axes" else f", and for these inputs it is {shown}"
        raise usage(
            Kind.OTHER_DECISION,
            decision(asked, answer, place) + told,
            hint="trace the original module with inputs like these, and grow that trace",
        )


def decision(asked: str, answer: Any, place: str) -> str:
    """What was decided when a model was traced, as the beginning of a sentence."""
    names = {"condition": "the condition", "length": "the length", "keys": "the keys", "none": "an entry that is read"}
    what = names.get(asked, "a number or a name")
    if asked == "axes":
        return f"this model has been widened, and the growth does not keep the function for inputs for which {place}"
    if asked == "none" and not answer:
        return f"this model stands for inputs that have something at {place}, as the example inputs had"
    shown = None if asked == "none" else answer
    return f"this model stands for inputs for which {what} in {place} is {shown!r}, as it was for the example inputs"


def numpy_number(name: str, *args: Any, **kwargs: Any) -> Any:
    """A function of NumPy's, called on numbers: a plain number, or an array where it returns one.

    `fxgrow.trace` writes it down where `forward` computes with sizes as in `np.sqrt(q.shape[-1])`: torch takes plain
    numbers.

    Args:
        name: of the function, in the namespace of NumPy.
        args: numbers, or lists of them.
        kwargs: the same by name.

    Example:
        >>> numpy_number("prod", [2, 3])
        6
    """
    numpy = optional("numpy", extra="numpy", what="a model that computes with np." + name)
    result = getattr(numpy, name)(*args, **kwargs)
    return result.item() if isinstance(result, numpy.generic) else result


FACTORIES: dict[str, Callable[[], Any]] = {kind.__name__: kind for kind in (list, dict, set, tuple, int, float, str)}
"""What a `defaultdict` in a graph may fill missing keys with."""


def default_dict(factory: str, items: Mapping[Any, Any]) -> defaultdict[Any, Any]:
    """A `collections.defaultdict`; fx cannot write down its factory, a class, among the arguments of a node.

    Args:
        factory: the name of a class in `FACTORIES`.
        items: what it holds.
    """
    return defaultdict(FACTORIES[factory], items)
