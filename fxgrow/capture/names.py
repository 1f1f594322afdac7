"""Names of modules that torch.fx writes wrongly into the code of a graph: Python's keywords, and quotes."""

from __future__ import annotations

import keyword
from dataclasses import dataclass

from torch import fx


@dataclass(frozen=True, slots=True)
class QuotedNames:
    """Puts `getattr(self, "in")` where torch.fx writes `self.in`."""

    targets: tuple[str, ...]

    def __call__(self, body: list[str]) -> list[str]:
        """The lines of the code, mended."""
        for target in self.targets:
            wrong, right = _as_torch_writes(target), _as_it_should_be(target)
            body = [line.replace(wrong, right) for line in body]
        return body


def quote_names(graph: fx.Graph) -> None:
    """Let a graph's code hold names of modules and tensors that are no Python names."""
    targets = {str(n.target) for n in graph.nodes if n.op in ("call_module", "get_attr")}
    odd = sorted((t for t in targets if any(map(_is_odd, t.split(".")))), key=len, reverse=True)
    if odd:
        graph.on_generate_code(lambda current: QuotedNames(tuple(odd)))


def _is_odd(name: str) -> bool:
    return keyword.iskeyword(name) or any(c in name for c in '"\\\n')


def _as_torch_writes(target: str) -> str:
    text = "self"
    for name in target.split("."):
        text = f"{text}.{name}" if name.isidentifier() else f'getattr({text}, "{name}")'
    return text


def _as_it_should_be(target: str) -> str:
    text = "self"
    for name in target.split("."):
        text = f"{text}.{name}" if name.isidentifier() and not keyword.iskeyword(name) else f"getattr({text}, {name!r})"
    return text
