"""The pytest plugin of fxgrow: the fixture `function_preserved`.

pytest imports this module in every test run on a machine where fxgrow is installed, so it stands outside the package:
`import fxgrow` takes torch with it, and that waits until a test asks for the fixture.
"""

import importlib
from typing import Any

import pytest


@pytest.fixture(scope="session")
def function_preserved() -> Any:
    """Assert that a grown model computes what it did: `function_preserved(before, after, inputs)`.

    Takes the arguments of `fxgrow.asserting.assert_function_preserved`: tolerance= (a number, or by output), outputs=,
    seed= and training=. A failure says which output, where, by how much, and the node at which the models first differ.
    """
    return importlib.import_module("fxgrow.asserting").assert_function_preserved
