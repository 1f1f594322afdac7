"""VGG-like networks: a chain of convolutions whose channels are flattened together with their pixels."""

from collections.abc import Sequence

from torch import Tensor, nn


class VGG(nn.Module):
    """Classifies square images (N, in_channels, size, size): two convolutions and a pool per stage, flatten, two linear
    layers.

    ``widths`` holds the two convolution widths of each stage; every stage halves the image. ``features`` holds conv,
    norm, relu, conv, norm, relu, pool for each stage, so the convolutions have the indices 0, 3, 7, 10 and so on. After
    the flatten, a channel is a range of consecutive features, one for each pixel.
    """

    def __init__(
        self,
        *,
        widths: Sequence[tuple[int, int]] = ((8, 8), (16, 16)),
        hidden: int = 32,
        in_channels: int = 3,
        size: int = 16,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for stage in widths:
            for out in stage:
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(inplace=True)]
                width = out
            layers.append(nn.MaxPool2d(2))
        pixels = (size >> len(widths)) ** 2
        self.features = nn.Sequential(*layers)
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Linear(width * pixels, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(self.flatten(self.features(x)))
        return y
