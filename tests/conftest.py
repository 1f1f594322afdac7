"""What every test shares: Hypothesis profiles, one torch thread a worker, and the `gpu` marker."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# No deadline: the first example of a test pays for torch's lazy set-up. Hypothesis changes its own defaults where CI is
# set, so every profile says whether it is random.
settings.register_profile("dev", max_examples=30, deadline=None, derandomize=False)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores already
    torch.set_num_threads(1)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a `gpu` test where there is no CUDA device, and say so."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch.cuda.is_available() is False here")


@pytest.fixture(autouse=True, scope="module")
def no_model_of_another_file() -> Iterator[None]:
    """Graphs refer to their modules and back, and Python counts objects, not bytes, before it frees them."""
    yield
    gc.collect()
