"""Names of modules for which torch.fx generates wrong code: Python keywords, names with quotes, and fx's own names."""

from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from functools import cache

from torch import fx, nn

from ...errors import Kind, usage


@dataclass(frozen=True, slots=True)
class QuotedNames:
    """A transform of generated code that writes `getattr(self, "in")` where torch.fx writes `self.in`."""

    targets: tuple[str, ...]

    def __call__(self, body: list[str]) -> list[str]:
        """Return the lines of code with the names corrected."""
        for target in self.targets:
            wrong = re.compile(rf"(?<!\w){re.escape(_as_torch_writes(target))}(?!\w)")  # not `self.in_proj`
            right = _as_it_should_be(target)
            body = [wrong.sub(right.replace("\\", r"\\"), line) for line in body]
        return body


def quote_names(graph: fx.Graph) -> None:
    """Make the code of a graph correct for modules and tensors whose names are not valid in Python code."""
    targets = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
    odd = sorted((t for t in targets if any(map(_is_odd, t.split(".")))), key=len, reverse=True)
    if odd:
        graph.on_generate_code(lambda current: QuotedNames(tuple(odd)))


def _is_odd(name: str) -> bool:
    """Whether torch.fx generates wrong code for a name."""
    return keyword.iskeyword(name) or any(c in name for c in '"\\\n')


def _as_torch_writes(target: str) -> str:
    """Return the expression that torch.fx writes for a target."""
    text = "self"
    for name in target.split("."):
        text = f"{text}.{name}" if name.isidentifier() else f'getattr({text}, "{name}")'
    return text


def _as_it_should_be(target: str) -> str:
    """Return a correct expression for a target."""
    text = "self"
    for name in target.split("."):
        text = f"{text}.{name}" if name.isidentifier() and not keyword.iskeyword(name) else f"getattr({text}, {name!r})"
    return text


@cache
def _of_graph_modules() -> frozenset[str]:
    """Return the attribute names that every GraphModule has and a plain nn.Module does not."""
    made: nn.Module = fx.GraphModule(nn.Module(), fx.Graph())
    return frozenset(dir(made)) - frozenset(dir(nn.Module()))


def check_names(model: nn.Module, graph: fx.Graph) -> None:
    """Refuse a model if one of its modules or tensors has the name of an attribute of every GraphModule.

    Raises:
        UsageError: there is one; the message names it.
    """
    used = [str(n.target).partition(".")[0] for n in graph.nodes if n.op in ("call_module", "get_attr")]
    for name in dict.fromkeys((*model._modules, *model._parameters, *model._buffers, *used)):
        if name in _of_graph_modules():
            raise usage(
                Kind.UNSUPPORTED_MODEL,
                f"{type(model).__name__} has something called {name!r}, which torch.fx keeps its own {name} under",
                where=f"self.{name}",
                hint="give it another name in the model",
            )


def rename_self(graph: fx.Graph) -> None:
    """Rename graph values called `self`, which a module of that name produces: the generated code would overwrite its
    `self`."""
    for node in graph.nodes:
        if node.name == "self" and node.op != "placeholder":
            node._rename("self_1")
