"""Operators whose results come from torch's kernels for the meta device: they are those of the real operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import fxgrow  # noqa: F401  # its rules say which operators stay whole
from fxgrow.capture.containers import leaves
from fxgrow.capture.program.call_key import meta_of
from fxgrow.capture.recording.fake_tensors import empty_fake
from fxgrow.capture.recording.meta_kernels import FRESH, KNOWN, run
from fxgrow.capture.recording.recorder import record, storage_of

X = torch.randn(2, 4, 6, 6)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "a part": lambda x: x[:1, :, ::2],
    "float64": Tensor.double,
    "bfloat16": Tensor.bfloat16,
    "whole numbers": Tensor.int,
    "empty": lambda x: x[:0],
}
CALLS: dict[str, Callable[[Tensor], Any]] = {
    "add": lambda x: x + x[0],
    "add a number": lambda x: x + 1.5,
    "add another dtype": lambda x: x + x.double(),
    "sub": lambda x: x - x[:, :1],
    "mul": lambda x: x * x.flip(1),
    "div": lambda x: x / 3,
    "relu": F.relu,
    "relu_": lambda x: F.relu_(x.clone()),
    "gelu": F.gelu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp_min": lambda x: x.clamp_min(0.5),
    "softmax": lambda x: x.softmax(1),
    "softmax in another dtype": lambda x: torch.softmax(x, -1, dtype=torch.float64),
    "masked_fill": lambda x: x.masked_fill(x > 0, 1.0),
    "linear": lambda x: F.linear(x, x.new_ones(5, x.shape[-1]), x.new_ones(5)),
    "linear without bias": lambda x: F.linear(x[0, 0], x.new_ones(5, x.shape[-1])),
    "linear that does not fit": lambda x: F.linear(x, x.new_ones(5, 7)),
    "matmul": lambda x: x @ x.transpose(-1, -2),
    "matmul of a matrix": lambda x: x @ x.new_ones(x.shape[-1], 3),
    "matmul of a vector": lambda x: x @ x.new_ones(x.shape[-1]),
    "matmul that does not fit": lambda x: x @ x.new_ones(7, 3),
    "bmm": lambda x: torch.bmm(x[:, 0], x[:, 1].transpose(1, 2)),
    "addmm": lambda x: torch.addmm(x.new_ones(x.shape[3]), x[:, 0, 0], x.new_ones(x.shape[3], x.shape[3])),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:], x.new_ones(x.shape[-1:])),
    "layer_norm that does not fit": lambda x: F.layer_norm(x, (7,)),
    "linalg_vector_norm": lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum(-1, keepdim=True),
    "flatten": lambda x: x.flatten(1),
    "flatten nothing": lambda x: x.flatten(1, 1),
    "unflatten": lambda x: x.unflatten(1, (2, -1)),
    "view": lambda x: x.view(x.shape[0], 2, 2, *x.shape[2:]),
    "view that does not fit": lambda x: x.view(5, 5),
    "reshape": lambda x: x.reshape(x.shape[0], -1) if len(x) else x.reshape(0, 4),
    "transpose": lambda x: x.transpose(1, -1),
    "t": lambda x: x[0, 0].t(),
    "permute": lambda x: x.permute(0, 2, 3, 1),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "slice": lambda x: x[:, 1:-1],
    "select": lambda x: x[:, 1],
    "select outside": lambda x: x.select(1, 9),
    "narrow": lambda x: x.narrow(1, 1, 2),
    "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: (x[:, :1].squeeze(1), x[:, :1].squeeze()),
    "chunk": lambda x: x.chunk(3, 1),
    "split": lambda x: (x.split(3, 1), x.split([1, 3], 1)),
    "unbind": lambda x: x.unbind(1),
    "cat": lambda x: torch.cat([x, x[:, :1], x.double()], 1),
    "cat that does not fit": lambda x: torch.cat([x, x[:, :, :1]], 1),
    "stack": lambda x: torch.stack([x, x], 1),
    "pad": lambda x: (F.pad(x, (1, 2, 0, 1)), F.pad(x.float(), (1, 1, 1, 1), mode="circular")),
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, [1, 1], 2.0),
    "contiguous": lambda x: (x.contiguous(), x.contiguous(memory_format=torch.channels_last)),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1),
    "conv1d": lambda x: F.conv1d(x[:, :, 0], x.new_ones(3, x.shape[1], 2)),
    "conv2d": lambda x: F.conv2d(x, x.new_ones(3, x.shape[1], 3, 3), x.new_ones(3), padding=1),
    "conv2d that does not fit": lambda x: F.conv2d(x, x.new_ones(3, 7, 3, 3)),
    "conv3d": lambda x: F.conv3d(x.unsqueeze(2), x.new_ones(3, x.shape[1], 1, 2, 2), stride=2),
}


@contextmanager
def torch_default(dtype: torch.dtype) -> Iterator[None]:
    """With another default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def outcome(call: Callable[[Tensor], Any], x: Tensor) -> list[Any]:
    """Of each result the shape, strides, dtype, and whether it is the input itself or shares its memory."""
    made = call(x)
    tensors = [made] if isinstance(made, Tensor) else [t for t in leaves(made) if isinstance(t, Tensor)]
    return [(t.shape, t.stride(), t.storage_offset(), t.dtype, t is x, storage_of(t) == storage_of(x)) for t in tensors]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_the_operator(name: str, layout: str) -> None:
    x, mode = LAYOUTS[layout](X), FakeTensorMode()
    fake = empty_fake(meta_of(x), mode)
    try:
        real = outcome(CALLS[name], x)
    except (RuntimeError, IndexError) as error:
        if "not implemented for" not in str(error):  # a kernel of one device has no such dtype
            with pytest.raises((RuntimeError, IndexError)):
                record(lambda: outcome(CALLS[name], fake), mode, grad=False)
        return
    for _ in ("computed", "remembered"):
        recorded, calls = record(lambda: outcome(CALLS[name], fake), mode, grad=False)
        assert calls
        assert recorded == real


def test_numbers_of_other_kinds_are_not_taken_for_each_other() -> None:
    mode = FakeTensorMode()
    fake = empty_fake(meta_of(X.int()), mode)
    for number, dtype in ((1, torch.int32), (1.0, torch.float32), (True, torch.int32)) * 2:
        made, _ = record(lambda: fake + number, mode, grad=False)  # noqa: B023  # called at once
        assert made.dtype is dtype
    for default in (torch.float32, torch.float64):
        with torch_default(default):
            made, _ = record(lambda: fake / 2, mode, grad=False)
        assert made.dtype is default


def test_every_known_operator_is_called() -> None:
    called: set[Any] = set()
    for call in CALLS.values():
        mode = FakeTensorMode()
        fake = empty_fake(meta_of(X), mode)
        try:
            _, calls = record(lambda: call(fake), mode, grad=False)  # noqa: B023  # called at once
        except (RuntimeError, IndexError):
            continue
        called.update(func for func, *_ in calls)
    assert called >= KNOWN | FRESH


def test_what_is_not_alike_is_left_to_the_mode() -> None:
    mode, add = FakeTensorMode(), torch.ops.aten.add.Tensor
    fake = empty_fake(meta_of(X), mode)
    known = mode.fake_tensor_converter.from_real_tensor(mode, torch.tensor(2.0), make_constant=True)
    with mode, torch.no_grad():
        assert run(add, (known, known), {}).item() == 4.0, "a value that is known stays known"
        elsewhere = torch.empty(1, device="meta")
        with pytest.raises(RuntimeError, match="device"):
            run(add, (fake, elsewhere), {})
    leaf = fake.requires_grad_()
    with mode:
        assert run(add, (leaf, leaf), {}).requires_grad, "autograd sees it"
