"""DCGAN-like generator: features become channels times pixels, the reverse of a flatten."""

from torch import Tensor, nn


class Generator(nn.Module):
    """Generates images (N, out_channels, 16, 16) from noise (N, noise).

    The features of ``fc`` are split into ``widths[0]`` channels of 4x4 pixels: by a view with a
    constant width, or, with ``unflatten``, by a module that has the width as an attribute.
    """

    def __init__(
        self,
        *,
        noise: int = 12,
        widths: tuple[int, int] = (16, 8),
        out_channels: int = 3,
        unflatten: bool = False,
    ) -> None:
        super().__init__()
        self.width = widths[0]
        self.fc = nn.Linear(noise, widths[0] * 16, bias=False)
        self.unflatten = nn.Unflatten(1, (widths[0], 4, 4)) if unflatten else None
        self.bn0 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        self.deconv1 = nn.ConvTranspose2d(widths[0], widths[1], 4, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[1])
        self.deconv2 = nn.ConvTranspose2d(widths[1], out_channels, 4, stride=2, padding=1)
        self.tanh = nn.Tanh()

    def forward(self, z: Tensor) -> Tensor:
        y: Tensor = self.fc(z)
        y = y.view(-1, self.width, 4, 4) if self.unflatten is None else self.unflatten(y)
        y = self.relu(self.bn0(y))
        y = self.relu(self.bn1(self.deconv1(y)))
        y = self.tanh(self.deconv2(y))
        return y
