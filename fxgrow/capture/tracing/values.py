"""Values of the nodes of a graph while it is traced, for the example inputs: fake tensors, sizes, lists.

A value is computed only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from ..containers import changed
from ..program.call_key import meta_of
from ..recording.fake_tensors import empty_fake
from ..recording.recorder import Recorder, run_recorded
from ..traced_model.decisions import knows_gradients
from ..user_objects.module_twin import Twin


class Unknown(Exception):
    """Raised if the value of a node is unknown: there is no example, or the operator needs the values of tensors."""


class Values:
    """The values of the nodes of one graph, which grows while it is traced."""

    def __init__(self, root: nn.Module, given: Mapping[str, Any]) -> None:
        """Start with no values computed.

        Args:
            root: the traced module.
            given: the example inputs by argument name.
        """
        self._root = root
        self._tensors: dict[str, Tensor] = dict(root.named_parameters(remove_duplicate=False))
        self._tensors |= root.named_buffers(remove_duplicate=False)
        """By name; collected now because `forward` may replace tensors of the module by proxies."""
        self._given = given
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._fakes: dict[int, tuple[Tensor, Tensor]] = {}
        """A tensor of the model and its fake tensor, by the id of the former."""
        self._twin: nn.Module | None = None
        self._known: dict[fx.Node, Any] = {}
        self._last: fx.Node | None = None
        self.busy = False
        """Whether a value is being computed."""

    def of(self, node: fx.Node) -> Any:
        """Return the value of a node.

        Raises:
            Unknown: the value cannot be determined.
        """
        while node not in self._known:
            first = next(iter(node.graph.nodes))
            self._last = first if self._last is None else self._last.next
            if self._last.op == "root":  # the end of the graph: the node is in another one
                raise Unknown
            self._known[self._last] = self._run(self._last)
        found = self._known[node]
        if isinstance(found, Unknown):
            raise found
        return found

    def given(self, node: fx.Node) -> Any:
        """Return the example value of an input; None if it is unknown."""
        return self._given.get(str(node.target))

    def catch_up(self, graph: fx.Graph) -> None:
        """Run all nodes of the graph so far, as they may write to lists, dicts and objects among the inputs."""
        with suppress(Unknown):
            self.of(next(iter(reversed(graph.nodes))))

    def _run(self, node: fx.Node) -> Any:
        """Compute the value of a node; return `Unknown` if that fails."""
        self.busy = True
        try:
            with _disable_current_modes():
                return run_recorded(lambda: self._result(node), self._mode, False, Recorder())
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Unknown as error:
            return error
        except Exception as error:  # user code and operators may raise anything
            return Unknown(str(error))
        finally:
            self.busy = False

    def _result(self, node: fx.Node) -> Any:
        """Run one node on the values of its arguments."""
        if node.op == "placeholder":
            if node.target in self._given:
                return changed(self._given[str(node.target)], self._input)
            if node.args:
                return node.args[0]
            raise Unknown
        if node.op == "get_attr":
            found: Any = self._tensors.get(str(node.target))
            if found is None:  # a constant
                found = vars(self._root).get(str(node.target))
            if found is None:
                raise Unknown
            return self._fake(found) if isinstance(found, Tensor) else found
        if knows_gradients(node):
            raise Unknown
        args: Any = fx.map_arg(node.args, self.of)
        kwargs: Any = fx.map_arg(node.kwargs, self.of)
        if node.op == "call_method":
            thing, *rest = args
            return getattr(thing, str(node.target))(*rest, **kwargs)
        if node.op == "call_module":
            if self._twin is None:
                self._twin = Twin(self._fake)(self._root)
            return self._twin.get_submodule(str(node.target))(*args, **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def _input(self, leaf: Any) -> Any:
        """Return the fake tensor for a tensor among the inputs; any other value unchanged."""
        return empty_fake(meta_of(leaf), self._mode) if isinstance(leaf, Tensor) else leaf

    def _fake(self, tensor: Tensor) -> Tensor:
        """Return the fake tensor for a tensor of the model, always the same one."""
        if id(tensor) not in self._fakes:
            made: Tensor = empty_fake(meta_of(tensor), self._mode)
            made = nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
            self._fakes[id(tensor)] = tensor, made
        return self._fakes[id(tensor)][1]
