"""What a call that fails must do: say so in one complete message, and change nothing of the model."""

from __future__ import annotations

from fxgrow import FxgrowError, Kind
from fxgrow.testing.bits import digest, snapshot

__all__ = ["digest", "expect", "snapshot"]


def expect(error: FxgrowError, kind: Kind, says: tuple[str, ...]) -> None:
    """One complete message: its kind, every part that is asked for, and a way out."""
    text = str(error)
    assert error.kind is kind
    assert text.startswith(kind.value + "  ")
    for part in says:
        assert part in text
    assert error.refusal.hint
    assert text.splitlines()[-1] == f"  try     {error.refusal.hint}"
    assert len(text.splitlines()) <= 4
