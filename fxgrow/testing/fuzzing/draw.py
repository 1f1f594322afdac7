"""Draws sketches: inputs, then steps that fit the values so far, then layers that read the unused values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from .build import Bench
from .choose import Choose, Seeded, Told
from .common import ALONG_CHANNELS, PARTS, channel_options
from .forms import RETURNS, TAKES
from .images import MOST
from .parts import Part, channel_axis, width
from .sketch import Input, Misfit, Sketch, Step, step

BATCH = 2
STEPS = 12
"""Largest number of drawn steps, not counting layers that read the unused values."""
DTYPES = ("float64", "float64", "float32", "bfloat16")
DRAWN: tuple[str, ...] = tuple(name for name, part in PARTS.items() for _ in range(part.share))
"""Kinds of steps, each as often as its share."""
PLAIN = ("conv", "linear", "embedding", "pointwise", "cat", "binary", "chunk", "split", "slice", "glu", "minus_mean")
CORES = {
    "mlp_block": "layer_norm",
    **dict.fromkeys(("attention", "attention_by_hand", "packed_attention", "multihead_attention"), "softmax"),
    **dict.fromkeys(("swiglu", "mixer", "rnn", "lstm", "gru"), "linear"),
}
"""Simpler replacements of steps that consist of several layers."""
EACH: tuple[str, ...] = tuple(dict.fromkeys((*PLAIN, *(name for name in PARTS if name not in CORES), *PARTS)))
"""Kinds of steps, each once. The simplest come first, in the same order for all layouts."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The random bytes that a model and growths are drawn from: one block for each input, each step and each growth,
    and one for the outputs and the state. Fewer blocks and smaller bytes make simpler models."""

    inputs: tuple[bytes, ...]
    steps: tuple[bytes, ...]
    last: bytes
    growths: tuple[bytes, ...] = ()

    def sketch(self) -> Sketch:
        """Return the model as data."""
        return _sketch_of(self)


def draw_blocks(seeded: Seeded, *, steps: int = STEPS) -> Drawn:
    """Draw the blocks of one model with at most `steps` steps."""
    inputs = 1 + seeded.seldom(20) + seeded.seldom(6)
    return Drawn(
        tuple(seeded.block() for _ in range(inputs)),
        tuple(seeded.block() for _ in _until(seeded, steps)),
        seeded.block(),
    )


def draw_sketch(seeded: Seeded) -> Sketch:
    """Draw a model as data."""
    return draw_blocks(seeded).sketch()


def _until(choose: Choose, steps: int) -> Iterator[None]:
    for _ in range(steps):
        if not choose.seldom(93):
            return
        yield


def _sketch_of(drawn: Drawn) -> Sketch:
    inputs = tuple(_input(Told(block)) for block in drawn.inputs)
    bench = Bench(inputs, seed=0)
    for block in drawn.steps:
        draw_step(Told(block), bench)
    last = Told(drawn.last)
    outputs = _read_out(last, bench)
    return Sketch(
        inputs=inputs,
        steps=tuple(bench.steps),
        outputs=outputs,
        dtype=last.pick(DTYPES),
        training=last.seldom(40),
        channels_last=last.seldom(15),
        takes=last.pick(TAKES) if last.seldom(40) else "tensors",
        returns=last.pick(RETURNS) if last.seldom(30) else "tensors",
    )


def _input(choose: Choose) -> Input:
    match choose.pick(("flat", "image2", "tokens", "image2", "image1", "image3", "words")):
        case "flat":
            return Input("flat", (BATCH + 1, choose.pick((3, 4, 6))))
        case "tokens":
            return Input("tokens", (BATCH, choose.pick((3, 4)), choose.pick((3, 4, 6))))
        case "words":
            return Input("words", (BATCH, choose.pick((3, 4))))
        case kind:
            rank = int(kind.removeprefix("image"))
            side = 2 if rank == 3 else choose.pick((2, 4))
            return Input("image", (BATCH, choose.pick((2, 3, 4)), *(side,) * rank))


def draw_step(choose: Choose, bench: Bench) -> None:
    """Add a step, or two related ones; none if what was drawn does not fit."""
    if choose.seldom(5) and bench.modules:
        return _use_again(choose, bench)
    if choose.seldom(12):
        return _join_back(choose, bench)
    at = _reads(choose, bench)
    layout = bench.layouts[at]
    some = DRAWN if choose.seldom(80) else EACH
    fitting = [name for name in some if layout in PARTS[name].takes and PARTS[name].fits(bench.values[at])]
    if not fitting:
        return None
    name = choose.pick(fitting)
    if name in CORES and not choose.seldom(95):
        name = CORES[name]
    made = _options(choose, bench, name, _operands(choose, bench, name, at))
    if made is not None:
        _try(bench, made)
    return None


def _reads(choose: Choose, bench: Bench) -> int:
    """Draw a value to read: mostly the last one, else one that is not read yet, else any."""
    last = len(bench.values) - 1
    loose = bench.loose()
    if not choose.seldom(35):
        return last
    return choose.pick(loose) if loose and choose.seldom(60) else last - choose.integer(0, last)


def _operands(choose: Choose, bench: Bench, name: str, at: int) -> list[int]:
    """Draw the first operand and, if the step has more, others that fit it."""
    part = PARTS[name]
    most = 1 if name == "binary" else part.most if name == "cat" else 0
    reads = [at]
    for _ in range(most):
        mates = [k for k in range(len(bench.values)) if _mates(bench, name, part, at, k)]
        fresh = [k for k in mates if k not in reads]
        if len(reads) > 1 and not choose.seldom(40):  # stopping is the simpler choice
            break
        if fresh or name == "cat":
            reads.append(choose.pick(tuple(reversed(fresh)) or (at,)))
    return reads


def _mates(bench: Bench, name: str, part: Part, at: int, k: int) -> bool:
    if bench.layouts[k] != bench.layouts[at]:
        return False
    x, y = bench.values[at], bench.values[k]
    if part.mate is not None:
        return part.mate(x, y)
    axis = channel_axis(bench.layouts[at]) % x.dim()
    return x.dim() == y.dim() and all(
        a == b for d, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if d != axis
    )


def _options(choose: Choose, bench: Bench, name: str, reads: Sequence[int]) -> Step | None:
    xs = [bench.values[k] for k in reads]
    layout = bench.layouts[reads[0]]
    if name == "binary" and len(reads) < 2:
        return None
    if name in ALONG_CHANNELS:
        told = channel_options(name, choose, xs, layout == "image")
        return None if told is None else Step(name, tuple(reads), tuple(told.items()))
    options = PARTS[name].options(choose, xs, _widths(bench, layout))
    return Step(name, tuple(reads), tuple(options.items()))


def _widths(bench: Bench, layout: str) -> list[int]:
    """Return the distinct widths of all values of one layout."""
    found = [_channels(x, own) for x, own in zip(bench.values, bench.layouts, strict=True) if own == layout]
    return list(dict.fromkeys(n for n in found if n <= MOST))


def _channels(x: Tensor, layout: str) -> int:
    return int(x.shape[channel_axis(layout)]) if layout != "words" else 0


def _join_back(choose: Choose, bench: Bench) -> None:
    """Add a layer to the width of an earlier value, and their sum: long, nested, crossing and projected skip paths."""
    at = len(bench.values) - 1
    layout = bench.layouts[at]
    if layout == "words":
        return
    axis = channel_axis(layout)
    shape = bench.values[at].shape
    tail = shape[2:] if layout == "image" else shape[:-1]
    fitting = [
        k
        for k, x in enumerate(bench.values)
        if bench.layouts[k] == layout and (x.shape[2:] if layout == "image" else x.shape[:-1]) == tail and k != at
    ]
    if not fitting:
        return
    back = choose.pick(tuple(reversed(fitting)))
    out = int(bench.values[back].shape[axis])
    if choose.seldom(25):  # the skip path is projected to another width
        out = width(choose, ())
        (back,) = _try(bench, _layer(choose, layout, back, out)) or (back,)
    (new,) = _try(bench, _layer(choose, layout, at, out)) or (None,)
    if new is not None:
        _try(bench, step("binary", back, new, kind=0))


def _layer(choose: Choose, layout: str, at: int, out: int) -> Step:
    bias = choose.integer(0, 1)
    if layout == "image":
        return step("conv", at, out=out, kernel=choose.pick((1, 3)), groups=1, stride=1, bias=bias)
    return step("linear", at, out=out, bias=bias)


def _use_again(choose: Choose, bench: Bench) -> None:
    """Add a step that calls a module again, or uses its weight in another layer."""
    of, at = choose.integer(0, len(bench.modules) - 1), _reads(choose, bench)
    if bench.steps[of].op in ("again", "tied", "binary", "cat", "chunk", "split"):
        return
    if bench.layouts[at] != bench.layouts[bench.steps[of].reads[0]]:
        at = bench.steps[of].reads[0]
    if bench.steps[of].op in ("linear", "embedding") and choose.seldom(60):
        _try(bench, step("tied", len(bench.values) - 1, of=of, turned=choose.integer(0, 1)))
    elif not PARTS[bench.steps[of].op].gives:
        _try(bench, step("again", at, of=of))


def _try(bench: Bench, made: Step) -> tuple[int, ...]:
    try:
        return bench.add(made)
    except Misfit:
        return ()


def _read_out(choose: Choose, bench: Bench) -> tuple[int, ...]:
    """Add layers for unused values, whose units are the model's outputs; a few values are returned directly."""
    loose = bench.loose()
    outputs = []
    for at in loose[-3:]:
        layout = bench.layouts[at]
        if layout == "words":
            continue
        if choose.seldom(8) and any(True for m in bench.modules for _ in m.parameters()):
            outputs.append(at)
        elif layout == "image" and choose.seldom(40):
            outputs += _try(bench, step("conv", at, out=2, kernel=1, groups=1, stride=1, bias=1))
        else:
            if layout == "image":
                (at,) = _try(bench, step("global_mean", at)) or (at,)
            outputs += _try(bench, step("linear", at, out=2, bias=1)) or (at,)
    if not bench.modules:
        name = "embedding" if bench.layouts[0] == "words" else "pointwise"
        outputs = list(_try(bench, step(name, 0, **({"out": 2} if name == "embedding" else {"kind": 0}))))
    return tuple(outputs) or (len(bench.values) - 1,)
