"""Multi-layer perceptrons: the simplest chain of producers and consumers."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn


class MLP(nn.Module):
    """Maps features (N, in_features) to class scores through linear layers ``fc1`` ... ``fcN`` and a last ``head``."""

    def __init__(
        self,
        *,
        in_features: int = 64,
        hidden: Sequence[int] = (32, 24),
        num_classes: int = 10,
        activation: Callable[[], nn.Module] = nn.ReLU,
        norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.hidden = tuple(f"fc{number}" for number in range(1, len(hidden) + 1))
        width = in_features
        for number, out in enumerate(hidden, start=1):
            self.add_module(f"fc{number}", nn.Linear(width, out, bias=norm is None))
            self.add_module(f"act{number}", activation() if norm is None else nn.Sequential(norm(out), activation()))
            width = out
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x
        for number in range(1, len(self.hidden) + 1):
            y = self.get_submodule(f"act{number}")(self.get_submodule(f"fc{number}")(y))
        y = self.head(y)
        return y
