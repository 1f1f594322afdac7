"""What the nodes of a graph hold while it is traced, for the example inputs: fake tensors, sizes, lists.

Nothing is computed before code asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from .containers import changed
from .silent import silent
from .twin import Twin
from .whole import StandIns


class Unknown(Exception):
    """It cannot be said what a node holds: there is no example, or the operator needs the values of tensors."""


class Values:
    """The values of the nodes of one graph, which grows meanwhile."""

    def __init__(self, root: nn.Module, given: Mapping[str, Any]) -> None:
        """`root` is what is traced, and `given` the example inputs by the name of the argument."""
        self._root = root
        self._given = given
        self._stand_ins = StandIns(())
        self._twin: nn.Module | None = None
        self._known: dict[fx.Node, Any] = {}
        self._last: fx.Node | None = None

    def of(self, node: fx.Node) -> Any:
        """What a node holds.

        Raises:
            Unknown: nobody knows.
        """
        while node not in self._known:
            first = next(iter(node.graph.nodes))
            self._last = first if self._last is None else self._last.next
            if self._last.op == "root":  # it is no node of this graph
                raise Unknown
            self._known[self._last] = self._run(self._last)
        found = self._known[node]
        if isinstance(found, Unknown):
            raise found
        return found

    def _run(self, node: fx.Node) -> Any:
        try:
            with silent(), torch._C.DisableTorchFunction(), self._stand_ins.mode, torch.no_grad():
                return self._result(node)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Unknown as error:
            return error
        except Exception as error:  # whatever user code or an operator raises
            return Unknown(str(error))

    def _result(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            if node.target in self._given:
                return changed(self._given[str(node.target)], self._input)
            if node.args:
                return node.args[0]
            raise Unknown
        if node.op == "get_attr":
            found: Any = self._root
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return self._stand_ins(found) if isinstance(found, Tensor) else found
        args: Any = fx.map_arg(node.args, self.of)
        kwargs: Any = fx.map_arg(node.kwargs, self.of)
        if node.op == "call_method":
            thing, *rest = args
            return getattr(thing, str(node.target))(*rest, **kwargs)
        if node.op == "call_module":
            if self._twin is None:
                self._stand_ins.begin(self._root)
                self._twin = Twin(self._stand_ins)(self._root)
            return self._twin.get_submodule(str(node.target))(*args, **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _input(self, leaf: Any) -> Any:
        return self._stand_ins.input(leaf) if isinstance(leaf, Tensor) else leaf
