"""Error messages for failed traces, without the names of internal classes and protocols."""

from __future__ import annotations

import re

from ...errors import FxgrowError

_NO_ARRAY = re.compile(r"__(cuda_)?array_(interface|struct)__|__array__|buffer protocol|expected np\.ndarray")
_STAND_INS = re.compile(r"\b(Assignable|BufferProxy|Sizes|Property|ReadsValues)\b(\.__\w+__)?")
_NAMED = re.compile(r"Proxy\(\w+\)")
_LENGTH = re.compile(r"'len' is not supported in symbolic tracing.*")
_ITERATED = re.compile(r"Proxy object cannot be iterated\..*")


def in_plain_words(error: Exception) -> str:
    """Return the first line of an error's message, reworded where it names internals of torch.fx or fxgrow."""
    if isinstance(error, FxgrowError):
        return error.refusal.what
    text = (str(error).strip() or repr(error)).splitlines()[0]
    if _NO_ARRAY.search(text):
        return "a traced value cannot be read as an array of numbers: it is known only when the model runs"
    if _NAMED.search(text):
        return f"a name is made of a traced value, which is known only when the model runs: {_NAMED.sub('…', text)}"
    text = _ITERATED.sub("a traced value cannot be iterated: its length is known only when the model runs", text)
    text = _LENGTH.sub("the length of a traced value is known only when the model runs", text)
    text = re.sub(
        r"unsupported format string passed to \w+\.__format__", "a traced value cannot be put into a text", text
    )
    return _STAND_INS.sub("a traced value", text)
