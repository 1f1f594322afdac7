"""Threads of tests: one that hangs fails its test. Start them as daemons, so that they cannot keep a process alive."""

from __future__ import annotations

import threading

SECONDS = 300.0
"""What a test waits for has to come within so many: the machine may be busy."""


def joined(*threads: threading.Thread) -> None:
    """Wait for threads to end.

    Raises:
        AssertionError: one of them does not.
    """
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), f"{thread.name} hangs"
