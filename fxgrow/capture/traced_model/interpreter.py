"""An fx interpreter that takes inputs as the model itself does: by position, by name, and in containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from ..inputs.call import Call, spread


class Interpreter(fx.Interpreter):
    """An fx interpreter that also supports inputs by name, and `*rest` and `**more` before other inputs."""

    def called(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run the graph on the arguments that its module would be called with."""
        values = spread([n for n in self.graph.nodes if n.op == "placeholder"], Call(tuple(args), kwargs))
        return self.run(*values, enable_io_processing=False)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the value of a placeholder: for `*rest` and `**more` a tuple or a dict."""
        return next(self.args_iter) if str(target).startswith("*") else super().placeholder(target, args, kwargs)
