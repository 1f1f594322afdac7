"""Writes the results of the gate as JSON, and as JUnit XML for the test pages of CI services."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from xml.etree import ElementTree

from .row import BROKEN, HELD, Row

VERSION = 1
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that are not allowed in XML 1.0."""


def as_json(rows: Sequence[Row]) -> str:
    """Format the rows as JSON; errors that are not finite become null."""
    data = {
        "format": "fxgrow gate",
        "version": VERSION,
        "held": all(row.status == HELD for row in rows),
        "rows": [_finite(asdict(row)) for row in rows],
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_junit(rows: Sequence[Row]) -> str:
    """Format the rows as JUnit test cases: broken rows are failures, rows that could not be checked are errors."""
    counts = {"failures": sum(r.status == BROKEN for r in rows)}
    counts["errors"] = sum(r.status not in (HELD, BROKEN) for r in rows)
    seconds = f"{sum(r.seconds for r in rows):.3f}"
    facts = {"name": "fxgrow gate", "tests": str(len(rows)), "time": seconds, **{k: str(v) for k, v in counts.items()}}
    suite = ElementTree.Element("testsuite", facts)
    for row in rows:
        names = {"classname": _legal(row.model), "name": _legal(row.growth), "time": f"{row.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if row.status == HELD:
            ElementTree.SubElement(case, "system-out").text = _legal(row.summary)
            continue
        kind = "failure" if row.status == BROKEN else "error"
        ElementTree.SubElement(case, kind, type=row.status, message=_legal(row.summary)).text = _legal(row.message)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _legal(text: str) -> str:
    return _FORBIDDEN.sub("�", text)
