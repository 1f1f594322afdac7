"""torch.fx's tracer, taught what growing needs.

Buffers are read when the graph runs, items are assigned, modules are kept whole so that they follow `training`, nodes
know their source lines, and other threads are left alone.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...functional import FACTORIES, default_dict, numpy_number
from ..inputs.forward_signature import put_defaults
from ..lowering.container_writes import IN_PLACE, WRITES
from ..recording.contexts import Contexts, Forgotten, applied
from ..source_lines import user_stack
from ..traced_model.decisions import Decisions
from .error_tracker import ErrorTracker
from .factories import WITH_SIZES, TracedFactories
from .fx_patch_guard import Patches
from .leaves import modules_of
from .numpy_functions import is_array, namespaces, of_lists, plain_number
from .proxies import Assignable, BufferProxy, ReadsValues, Sizes, buffers_behind
from .trace_options import TraceOptions
from .transformer_forwards import OPEN
from .values import Unknown, Values

PLAIN_DICTS = (dict, fx.immutable_collections.immutable_dict)
PLAIN_LISTS = (list, fx.immutable_collections.immutable_list)
"""Dicts and lists that torch.fx writes out as `{…}` and `[…]`; others are made by a call of their class."""


class GrowthTracer(ErrorTracker):
    """Traces a copy of a model (`twin.py`), which it may leave changed."""

    def __init__(
        self,
        leaves: Collection[str] = (),
        fixed: Collection[str] | None = (),
        *,
        options: TraceOptions | None = None,
        follows_dtypes: bool = True,
        defaults: Mapping[str, Any] | None = None,
        values: Values | None = None,
        functions: Collection[Callable[..., Any]] = (),
    ) -> None:
        """Start a trace.

        Args:
            leaves: paths of modules that are kept whole, beside torch's own.
            fixed: names of buffers whose values the trace fixes; None for all.
            options: how to write down what torch.fx simplifies; by default exactly, which suits code that is written
                from a graph: torch.fx makes a tracer of this class, without arguments, when it reads a pickled trace.
            follows_dtypes: whether the dtypes of buffers are read when the graph runs.
            defaults: values of arguments that the graph does not take, by name.
            values: what nodes hold for the example inputs.
            functions: calls of these become nodes, beside those of torch's.
        """
        self._of_lists = of_lists()
        super().__init__(autowrap_functions=(*WITH_SIZES, *self._of_lists, *functions))
        self._autowrap_search += [torch, *namespaces(), *modules_of(functions)]
        self.decisions = Decisions(self)
        self.defaults = defaults or {}
        self.values = values
        self.follows_dtypes = follows_dtypes
        self.options = options or TraceOptions(keep_in_place=True, trace_factories=True)
        self._copies: dict[str, fx.Node] = {}
        """By the name of a constant, the copy that each call makes of it."""
        self.leaves = frozenset(leaves)
        self.fixed = None if fixed is None else frozenset(fixed)
        self.entries: dict[tuple[fx.Node, str], Any] = {}
        """What was written into dicts among the inputs, by the node of the dict and the key."""
        self.visited: set[str] = set()
        """Paths of the modules that were traced into."""

    def trace(self, root: Any, concrete_args: dict[str, Any] | None = None) -> fx.Graph:
        """Trace; what `forward` leaves switched off is switched on again, and what fx patches is put back."""
        self._contexts, self._patches = Contexts.now(), Patches()
        self._thread = threading.get_ident()
        self._buffers: dict[int, str] = {}
        self._shapes: dict[str, torch.Size] = {}
        if isinstance(root, nn.Module):
            for name, buffer in root.named_buffers(remove_duplicate=False):
                self._buffers.setdefault(id(buffer), name)
                self._shapes[name] = buffer.shape
        self._proxies: dict[str, BufferProxy] = {}
        try:
            factories = TracedFactories(self, self.values) if self.options.trace_factories else nullcontext()
            with torch.set_grad_enabled(torch.is_grad_enabled()), factories:
                graph = super().trace(root, concrete_args)
            for node in graph.nodes:
                if node.target in WITH_SIZES or node.target is numpy_number:
                    node.meta.pop("is_wrapped", None)  # for which fx would write `wrap("torch.zeros")`, and fail
            return graph
        except Exception as error:  # fx may take an interruption for a fault of its own
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            try:
                self._patches.put_back()
            finally:  # again, for an interruption of the first time
                self._patches.put_back()

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """A node, with the lines of the user's code that make it. (What fx records of its own takes far longer.)"""
        node = super().create_node(*args, **kwargs)
        if (node.op == "call_method" and node.target in WRITES) or node.target in IN_PLACE:
            self.entries.clear()  # whichever dict it is, it may have other entries now
        if not node.stack_trace and node.op not in ("placeholder", "output"):
            node.stack_trace = user_stack(sys._getframe(1))
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *others: Any, **options: Any) -> fx.Proxy:
        """A node, and what stands for its result."""
        name = self._of_lists.get(target) if kind == "call_function" else None
        if name is not None:
            target, args = numpy_number, (name, *args)
        made: fx.Proxy = super().create_proxy(kind, target, args, kwargs, *others, **options)
        if target is numpy_number:
            self._check_number(made)
        return made

    def _check_number(self, made: fx.Proxy) -> None:
        """Refuse a function of NumPy's that makes an array of sizes: what is done with that is not noted."""
        try:
            found = self.values.of(made.node) if self.values is not None else None
        except Unknown:
            return
        if is_array(found):
            raise TypeError("a size becomes an array of NumPy's, of which no trace is kept")

    @property
    def place(self) -> str:
        """The path of the module that is being traced."""
        last = next(reversed(self.module_stack), None)
        return self.module_stack[last][0] if last is not None else ""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """A proxy for a node."""
        sizes = node.op == "call_method" and node.target == "size" and len(node.args) + len(node.kwargs) == 1
        return Sizes(node, self) if sizes else Assignable(node, self)

    def create_arg(self, a: Any) -> Any:
        """The arguments of a node that is being made: the moment to look at what torch's context managers have set, and
        fx has patched. The last node, the output, is made when all of it is."""
        self._patches.note()
        a = plain_number(a)
        entered = Contexts.now().entered(self._contexts)
        if entered:
            raise Forgotten(entered, applied(sys._getframe(1)))
        if (isinstance(a, dict) and type(a) not in PLAIN_DICTS) or (isinstance(a, list) and type(a) not in PLAIN_LISTS):
            return self._made(a)  # fx would make a plain dict of it
        if is_dataclass(a) and not isinstance(a, type) and not all(f.init for f in fields(a)):
            return self._made(a)  # fx would pass all fields
        made = super().create_arg(a)
        return self._constant(made) if isinstance(a, Tensor) else made

    def _constant(self, made: Any) -> Any:
        """A constant, or the copy of it that each call makes."""
        if not (isinstance(made, fx.Node) and str(made.target).startswith("_tensor_constant")):
            return made
        self.options.has_constants = True
        if not self.options.copy_constants:
            return made
        if made.target not in self._copies:
            self._copies[str(made.target)] = self.create_node("call_method", "clone", (made,), {})
        return self._copies[str(made.target)]

    def _made(self, a: Any) -> fx.Node:
        """A call that makes a dict or list of some class (a ModelOutput, say) or a dataclass, as user code does."""
        if is_dataclass(a):
            named = {f.name: self.create_arg(getattr(a, f.name)) for f in fields(a) if f.init}
            return self.create_node("call_function", type(a), (), named)
        if isinstance(a, list):
            return self.create_node("call_function", type(a), (super().create_arg(list(a)),), {})
        items = super().create_arg(dict(a))
        if isinstance(a, defaultdict):
            factory = next((name for name, made in FACTORIES.items() if made is a.default_factory), None)
            if type(a) is defaultdict and factory is not None:
                return self.create_node("call_function", default_dict, (factory, items), {})
        return self.create_node("call_function", type(a), (items,), {})

    def create_args_for_root(self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None) -> Any:
        """Placeholders for the arguments; and buffers that `forward` assigns anew are written to before it returns."""
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        args = put_defaults(self.graph, args, self.defaults)

        @functools.wraps(function)
        def run(*given: Any) -> Any:
            out = function(*given)
            self._store_buffers()
            return out

        return run, args

    def _store_buffers(self) -> None:
        for path, module in self.root.named_modules():
            for name, value in module._buffers.items():
                if isinstance(value, fx.Proxy):
                    full = f"{path}.{name}" if path else name
                    known = self._proxies.get(full)
                    buffer = known if known is not None else self.create_proxy("get_attr", full, (), {})
                    if value is not buffer:
                        if self._has_another_shape(full, value):
                            self.create_proxy("call_method", "resize_as_", (buffer, value), {})
                        self.create_proxy("call_method", "copy_", (buffer, value), {})

    def _has_another_shape(self, name: str, value: fx.Proxy) -> bool:
        """Whether what `forward` has assigned to a buffer is of another shape than the buffer, as far as is known."""
        try:
            new = self.values.of(value.node) if self.values is not None else None
        except Unknown:
            return False
        return isinstance(new, Tensor) and name in self._shapes and new.shape != self._shapes[name]

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        """What stands for an attribute of a module. Threads that run other models get the attribute itself."""
        if threading.get_ident() != self._thread:
            return attr_val
        name = self._buffers.get(id(attr_val))
        if name is None or not isinstance(attr_val, Tensor) or self.fixed is None or name in self.fixed:
            return super().getattr(attr, attr_val, parameter_proxy_cache)
        if name not in self._proxies:
            node = self.create_node("get_attr", name, (), {})
            node.meta["fxgrow_buffer"] = True
            self._proxies[name] = BufferProxy(node, self, attr_val)
        return self._proxies[name]

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """One node, or whatever the module runs. Threads that run other models just run them."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        try:
            self.path_of_module(m)
        except NameError:  # made in `forward`: a slice of a Sequential, `nn.ReLU()(x)`
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def to_bool(self, obj: fx.Proxy) -> bool:
        """A condition, which is known only if it depends on buffers alone."""
        self._check_buffers(obj)
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """A loop over a value, whose length is known only if it depends on buffers alone."""
        self._check_buffers(obj)
        return super().iter(obj)

    def _check_buffers(self, obj: fx.Proxy) -> None:
        buffers = buffers_behind(obj.node)
        if buffers:
            error = ReadsValues(buffers)
            self.note_error(error)
            raise error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """torch's own modules but for whole transformers, modules without parameters that look at `training`, and those
        that were asked for."""
        leaf = module_qualified_name in self.leaves or self._is_leaf(m, module_qualified_name)
        if not leaf:
            self.visited.add(module_qualified_name)
        return leaf

    def _is_leaf(self, m: nn.Module, path: str) -> bool:
        if type(m) in OPEN:
            return False
        if super().is_leaf_module(m, path):
            return True
        if next(m.parameters(), None) is not None or next(m.children(), None) is not None:
            return False
        code = getattr(inspect.unwrap(type(m).forward), "__code__", None)
        return code is not None and "training" in code.co_names
