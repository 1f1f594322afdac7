"""The pytest plugin: a fixture whose failure says which output, where, how much, and from which node on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import fxgrow
from fxgrow.asserting import assert_function_preserved
from fxgrow.models_zoo import MLP, ResNet

pytest_plugins = ["pytester"]
PLUGIN = ("-p", "_fxgrow_pytestplugin")  # the name of its entry point too, so it is loaded once in any case
INPUTS = (torch.zeros(2, 1, 8, 8),)
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, fault=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.fault = nn.Linear(4, 8), nn.Linear(8, 3), fault
    def forward(self, x):
        y = torch.relu(self.a(x))
        z = self.b(y)
        return z + self.fault * (z > 0.2), y.sum()
"""


def test_the_fixture_passes_and_fails(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(branching_nets=NETS)
    pytester.makepyfile(
        """
        import fxgrow, torch
        from branching_nets import Net

        def test_wider(function_preserved):
            model = fxgrow.models_zoo.ResNet().eval()
            traced = fxgrow.trace(model, (torch.zeros(2, 1, 8, 8),))
            certificate = function_preserved(model, fxgrow.widen(traced, "layer2.conv1"))
            assert certificate.held

        def test_changed(function_preserved):
            function_preserved(Net(), Net(fault=0.25), torch.zeros(5, 4))

        def test_the_other_output(function_preserved):
            function_preserved(Net(), Net(fault=0.25), torch.zeros(5, 4), outputs="output[1]")

        def test_tolerated(function_preserved):
            function_preserved(Net(), Net(fault=1e-6), torch.zeros(5, 4), tolerance={"output[0]": 1e-3})
        """.replace("import fxgrow, torch", "import fxgrow, fxgrow.models_zoo, torch")
    )
    result = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the function changed",
            "*output[[]0[]] differs by * (relative) in float64 (tolerance 1.0e-10)",
            "*probe *, eval mode",
            "*at * of 5x3: * before, * after",
            "*unchanged: output[[]1[]]",
            "*the models first differ at *",
            "*where*branching_nets.py:1*",
        ]
    )


def test_torch_is_not_imported_before_a_test_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import sys\n\ndef test_light():\n    assert not {'torch', 'fxgrow'} & set(sys.modules)\n")
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        command, cwd=pytester.path, capture_output=True, text=True, env={"PYTHONPATH": str(root)}, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_largest_entry_is_named() -> None:
    model = MLP().eval()
    other = MLP().eval()
    other.load_state_dict(model.state_dict())
    last = [m for m in other.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[2] += 1.0
    width = next(p for p in model.parameters()).shape[1]
    with pytest.raises(AssertionError, match=r"at    \[\d+, 2\] of 3x\d+: ") as caught:
        assert_function_preserved(model, other, torch.zeros(3, width))
    assert "all inputs agree" in str(caught.value)


def test_models_that_cannot_be_traced_are_compared_too() -> None:
    class Branching(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale, self.layer = scale, nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale if x.sum() > 1e9 else x * 1.0 * self.scale

    assert_function_preserved(Branching(1.0), Branching(1.0), torch.zeros(2, 3))
    with pytest.raises(AssertionError, match="output differs by"):
        assert_function_preserved(Branching(1.0), Branching(2.0), torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"outputs": "logits"}, "no output 'logits'"),
        ({"tolerance": {"logits": 1e-3}}, "no output 'logits'"),
        ({"tolerance": 0}, "tolerance 0 of default"),
        ({"tolerance": float("nan")}, "tolerance nan"),
        ({"tolerance": 5}, "tolerance 5"),
        ({"tolerance": 1.0}, "tolerance 1.0"),
    ],
)
def test_bad_options_are_told(options: dict[str, object], said: str) -> None:
    model = ResNet().eval()
    with pytest.raises(fxgrow.UsageError, match=said):
        assert_function_preserved(model, model, INPUTS, **options)  # type: ignore[arg-type]  # on purpose
