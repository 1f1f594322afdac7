"""U-Net: skip connections that are concatenated, not added, across transposed convolutions."""

import torch
from torch import Tensor, nn


class UNet(nn.Module):
    """Classifies each pixel of (N, in_channels, H, W), H and W multiples of 4, at three scales down and up.

    ``widths`` holds the channels of the three scales on the way down, ``up`` those after the transposed convolutions at
    the two finer scales, coarse to fine.
    """

    def __init__(
        self,
        *,
        widths: tuple[int, int, int] = (8, 12, 16),
        up: tuple[int, int] = (12, 8),
        in_channels: int = 3,
        num_classes: int = 4,
    ) -> None:
        super().__init__()
        self.down1 = _two_convs(in_channels, widths[0])
        self.down2 = _two_convs(widths[0], widths[1])
        self.bottom = _two_convs(widths[1], widths[2])
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(widths[2], up[0], 2, stride=2)
        self.merge2 = _two_convs(up[0] + widths[1], widths[1])
        self.up1 = nn.ConvTranspose2d(widths[1], up[1], 2, stride=2)
        self.merge1 = _two_convs(up[1] + widths[0], widths[0])
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine: Tensor = self.down1(x)
        middle: Tensor = self.down2(self.pool(fine))
        coarse: Tensor = self.bottom(self.pool(middle))
        y: Tensor = self.merge2(torch.cat([self.up2(coarse), middle], dim=1))
        y = self.merge1(torch.cat([self.up1(y), fine], dim=1))
        y = self.head(y)
        return y


def _two_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two convolutions (``0`` and ``3``), each followed by its norm and activation."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
