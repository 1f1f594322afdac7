"""The passes of fxgrow: dataclasses of options whose `plan(model, analysis)` returns a `Plan` without writing a
tensor."""

from __future__ import annotations

if __name__ != "fxgrow.passes":
    raise ImportError("import fxgrow.passes, not passes")

from ..planning.widths import Width
from .clone_block import CloneBlock
from .factorize import Factorize
from .identity_layer import IdentityLayer
from .insert_block import InsertBlock
from .widen import Widen

Pass = Widen | InsertBlock | CloneBlock | IdentityLayer | Factorize

__all__ = ["CloneBlock", "Factorize", "IdentityLayer", "InsertBlock", "Pass", "Widen", "Width"]
