"""An interpreter of graphs that is called as the model itself is: by position, by name, and with containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..inputs.call import Call, spread


class Interpreter(fx.Interpreter):
    """fx's interpreter, which knows neither `*rest` nor `**more` in front of other inputs, nor inputs by name."""

    def called(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run the graph on what its module would be called with."""
        values = spread([n for n in self.graph.nodes if n.op == "placeholder"], Call(tuple(args), kwargs))
        return self.run(*values, enable_io_processing=False)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """One value for each placeholder, a tuple or a dict for `*rest` and `**more`."""
        return next(self.args_iter) if str(target).startswith("*") else super().placeholder(target, args, kwargs)
