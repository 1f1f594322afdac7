"""Builds a module from a sketch: each step's layers are made for the values that it reads, which are computed on the
way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common import PARTS
from .forms import given, net_of, wired
from .parts import Do
from .running import Inputs
from .sketch import Input, Misfit, Sketch, Step
from .vectors import WORDS

LARGEST_VALUE = 4096
"""Largest number of elements of a value; steps that would make larger ones are rejected."""


class Bench:
    """A model under construction: its values so far, their layouts, and the modules that made them."""

    def __init__(self, inputs: Sequence[Input], seed: int) -> None:
        self.seed = seed
        random = torch.Generator().manual_seed(seed)
        self.values: list[Tensor] = [example(one, random) for one in inputs]
        self.layouts = [one.layout for one in inputs]
        self.modules: list[nn.Module] = []
        self.steps: list[Step] = []
        self.read: set[int] = set()

    def add(self, step: Step) -> tuple[int, ...]:
        """Add one step and return the numbers of the values that it makes.

        Raises:
            Misfit: the step is not possible with these values. Nothing has changed then.
        """
        try:
            xs = [self.values[k] for k in step.reads]
            with torch.random.fork_rng(devices=()), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's warnings, e.g. of a norm that reads two widths
                torch.default_generator.manual_seed(self.seed * 1000 + len(self.steps))
                module, layout = self._made(step, xs)
                with torch.no_grad():
                    result = module(*xs)
        except (RuntimeError, ValueError, IndexError, KeyError, AssertionError, TypeError, AttributeError) as error:
            raise Misfit(f"{step}: {error}") from error
        found = [result] if isinstance(result, Tensor) else list(result)
        if any(not y.numel() or y.numel() > LARGEST_VALUE for y in found):
            raise Misfit(f"{step}: too large, or empty")
        self.steps.append(step)
        self.modules.append(module)
        self.read.update(step.reads)
        first = len(self.values)
        self.values += found
        self.layouts += [layout] * len(found)
        return tuple(range(first, len(self.values)))

    def _made(self, step: Step, xs: Sequence[Tensor]) -> tuple[nn.Module, str]:
        layout = self.layouts[step.reads[0]]
        if step.op == "again":
            return self.modules[step.option("of")], layout
        if step.op == "tied":
            return tied(self.modules[step.option("of")], bool(step.option("turned"))), layout
        part = PARTS[step.op]
        if layout not in part.takes or not part.fits(xs[0]):
            raise Misfit(f"{step}: not for {layout} of shape {tuple(xs[0].shape)}")
        module = part.make(xs, dict(step.options))
        if step.op in ("unflatten", "to_image") and part.make(xs, dict(step.options))(*xs).dim() < 3:
            raise Misfit(f"{step}: no image")
        return settled(module.double()).train(), part.gives or layout

    def loose(self) -> list[int]:
        """Return the values that no step reads."""
        return [k for k in range(len(self.values)) if k not in self.read]


def example(one: Input, random: torch.Generator) -> Tensor:
    """Draw an example of an input."""
    if one.layout == "words":
        return torch.randint(0, WORDS, one.shape, generator=random)
    return torch.randn(one.shape, generator=random, dtype=torch.float64)


def tied(module: nn.Module, turned: bool) -> nn.Module:
    """Return a layer that uses the weight of another one, or its transpose."""
    weight = module.weight
    if not isinstance(weight, nn.Parameter) or weight.dim() != 2:
        raise Misfit("no matrix to tie to")
    return Do(lambda m, x: F.linear(x, m.weight.t() if turned else m.weight), weight=weight)


def settled(module: nn.Module) -> nn.Module:
    """Set norms to values as after some training: nontrivial scales, shifts and running statistics."""
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() == 1:
                tensor.add_(torch.randn_like(tensor) * 0.3)
    return module


@dataclass(frozen=True, slots=True)
class Built:
    """A model and its inputs."""

    model: nn.Module
    inputs: Inputs
    """A tuple of tensors, or a `Call` if they are passed in another way."""


def build(sketch: Sketch, *, double: bool = False) -> Built:
    """Build the model of a sketch, with inputs of its dtype and memory format.

    Args:
        sketch: the sketch.
        double: whether to use float64 instead of the sketch's dtype.

    Raises:
        Misfit: the steps do not fit together.
    """
    bench = Bench(sketch.inputs, sketch.seed)
    for step in sketch.steps:
        bench.add(step)
    if not sketch.outputs or not bench.modules or any(not 0 <= k < len(bench.values) for k in sketch.outputs):
        raise Misfit("nothing to return")
    dtype = torch.float64 if double else getattr(torch, sketch.dtype)
    wires = wired(bench.steps, bench.modules)
    model = net_of(sketch, wires).to(dtype).train(sketch.training)
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in bench.values[: len(sketch.inputs)]]
    if sketch.channels_last:
        for parameter in model.parameters():
            parameter.data = _last(parameter.data)
        inputs = [_last(x) for x in inputs]
    return Built(model, given(sketch.takes, inputs))


def _last(x: Tensor) -> Tensor:
    form = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return x.contiguous(memory_format=form) if form is not None else x
