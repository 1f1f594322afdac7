"""Defines how a drawn model takes inputs and returns outputs: as tensors, in containers, by name, with a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ...capture.inputs.call import Call
from .parts import several
from .running import Inputs
from .sketch import Misfit, Sketch, Step

TAKES = (
    "tensors",
    "list",
    "dict",
    "dataclass",
    "keyword",
    "number",
    "written",
    "appended",
    *("keywords", "rest", "absent"),
)
RETURNS = ("tensors", "list", "dict", "dataclass")
FACTOR = 1.5
"""The number that is passed."""
NAMES = ("x", "y", "z")


@dataclass
class Batch:
    """A dataclass of inputs."""

    x: Any
    rest: list[Any] = field(default_factory=list)


@dataclass
class Result:
    """A dataclass of outputs."""

    first: Any
    rest: tuple[Any, ...] = ()


def _pack(kind: str, found: Sequence[Any]) -> Any:
    match kind:
        case "list":
            return list(found)
        case "dict":
            return {f"out{k}": y for k, y in enumerate(found)}
        case "dataclass":
            return Result(found[0], tuple(found[1:]))
        case _:
            return found[0] if len(found) == 1 else tuple(found)


Wires = tuple[tuple[str, tuple[int, ...], int, nn.Module], ...]
"""For each step: the name of its module, the values that it reads, the number of values that it makes, its module."""


def wired(steps: Sequence[Step], modules: Sequence[nn.Module]) -> Wires:
    """Return the steps with the names of their modules; a module that is called again keeps its name."""
    names: dict[int, str] = {}
    for k, (step, module) in enumerate(zip(steps, modules, strict=True)):
        names.setdefault(id(module), f"{step.op}{k}")
    return tuple(
        (names[id(module)], step.reads, several(step.op, dict(step.options)), module)
        for step, module in zip(steps, modules, strict=True)
    )


class Net(nn.Module):
    """The module of a sketch."""

    def __init__(self, wires: Wires, outputs: tuple[int, ...], returns: str) -> None:
        super().__init__()
        for name, _, _, module in wires:
            self.add_module(name, module)
        self.wires = [(name, reads, count) for name, reads, count, _ in wires]
        self.outputs = outputs
        self.returns = returns

    def values(self, *inputs: Any) -> list[Any]:
        """Run all steps in order and return the outputs as a list."""
        values = list(inputs)
        for name, reads, count in self.wires:
            result = getattr(self, name)(*(values[k] for k in reads))
            values += [result[k] for k in range(count)] if count > 1 else [result]
        return [values[k] for k in self.outputs]

    def run(self, *inputs: Any) -> Any:
        """Return the outputs in the form that the sketch asks for."""
        return _pack(self.returns, self.values(*inputs))


class One(Net):
    """A net with one input."""

    def forward(self, x: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x)


class Two(Net):
    """A net with two inputs."""

    def forward(self, x: Any, y: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x, y)


class Three(Net):
    """A net with three inputs."""

    def forward(self, x: Any, y: Any, z: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x, y, z)


class OneByName(Net):
    """A net with one keyword-only input."""

    def forward(self, *, x: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x)


class TwoByName(Net):
    """A net with two inputs, of which the second is keyword-only."""

    def forward(self, x: Any, *, y: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x, y)


class ThreeByName(Net):
    """A net with three inputs, of which two are keyword-only."""

    def forward(self, x: Any, *, z: Any, y: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x, y, z)


class Counted(Net):
    """A net that takes `count` inputs in one container."""

    count: int = 1


class Listed(Counted):
    """A net that takes a list of inputs."""

    def forward(self, xs: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(*(xs[k] for k in range(self.count)))


class Named(Counted):
    """A net that takes a dict of inputs."""

    def forward(self, batch: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(*(batch[name] for name in NAMES[: self.count]))


class Written(Counted):
    """A net that writes all outputs into its input dict, and also returns the first one."""

    def forward(self, batch: Any) -> Any:
        """Return the first output for these inputs."""
        found = self.values(*(batch[name] for name in NAMES[: self.count]))
        for k, y in enumerate(found):
            batch[f"out{k}"] = y
        return _pack(self.returns, found[:1])


class Appended(Counted):
    """A net that appends all outputs to its input list, and also returns the first one."""

    def forward(self, xs: Any) -> Any:
        """Return the first output for these inputs."""
        found = self.values(*(xs[k] for k in range(self.count)))
        xs += found
        return _pack(self.returns, [xs[self.count]])


class Batched(Counted):
    """A net that takes a dataclass of inputs."""

    def forward(self, batch: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(batch.x, *(batch.rest[k] for k in range(self.count - 1)))


class Keywords(Counted):
    """A net that takes any keyword arguments, and uses some of them."""

    def forward(self, **batch: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(*(batch[name] for name in NAMES[: self.count]))


class Rest(Counted):
    """A net that takes any number of positional arguments."""

    def forward(self, x: Any, *rest: Any) -> Any:
        """Return the outputs for these inputs."""
        return self.run(x, *rest)


class Absent(Counted):
    """A net that takes a dict with an optional factor, which is None."""

    def forward(self, batch: Any) -> Any:
        """Return the outputs for these inputs."""
        found = self.values(*(batch[name] for name in NAMES[: self.count]))
        factor = batch.get("factor")
        if factor is not None:
            found = [found[0] * factor, *found[1:]]
        return _pack(self.returns, found)


class Numbered(Counted):
    """A net that takes a number, which multiplies the first output, and a list of inputs."""

    def forward(self, factor: Any, xs: Any) -> Any:
        """Return the outputs for these inputs."""
        found = self.values(*(xs[k] for k in range(self.count)))
        return _pack(self.returns, [found[0] * factor, *found[1:]])


PLAIN: tuple[type[Net], ...] = (One, Two, Three)
BY_NAME: tuple[type[Net], ...] = (OneByName, TwoByName, ThreeByName)
CONTAINERS: dict[str, type[Counted]] = {
    "list": Listed,
    "dict": Named,
    "dataclass": Batched,
    "number": Numbered,
    "written": Written,
    "appended": Appended,
    "keywords": Keywords,
    "rest": Rest,
    "absent": Absent,
}


def net_of(sketch: Sketch, wires: Wires) -> Net:
    """Return the module of a sketch.

    Raises:
        Misfit: the sketch has too many inputs.
    """
    count = len(sketch.inputs)
    if count > len(PLAIN):
        raise Misfit("too many inputs")
    if sketch.takes in CONTAINERS:
        made = CONTAINERS[sketch.takes](wires, sketch.outputs, sketch.returns)
        made.count = count
        return made
    kinds = BY_NAME if sketch.takes == "keyword" else PLAIN
    return kinds[count - 1](wires, sketch.outputs, sketch.returns)


_GIVEN: dict[str, Callable[[list[Tensor]], Call]] = {
    "list": lambda xs: Call((xs,)),
    "dict": lambda xs: Call((dict(zip(NAMES, xs, strict=False)),)),
    "dataclass": lambda xs: Call((Batch(xs[0], xs[1:]),)),
    "number": lambda xs: Call((FACTOR, xs)),
    "keywords": lambda xs: Call((), dict(zip(NAMES, xs, strict=False))),
    "absent": lambda xs: Call(({**dict(zip(NAMES, xs, strict=False)), "factor": None},)),
}
_GIVEN |= {"written": _GIVEN["dict"], "appended": _GIVEN["list"]}


def given(takes: str, xs: Sequence[Tensor]) -> Inputs:
    """Return inputs in the form in which a kind of model takes them."""
    if takes == "keyword":
        first = 1 if len(xs) > 1 else 0
        return Call(tuple(xs[:first]), dict(zip(NAMES[first:], xs[first:], strict=False)))
    return _GIVEN[takes](list(xs)) if takes in _GIVEN else tuple(xs)
