"""Super-resolution: pixels are made from channels and added to the enlarged input."""

import torch.nn.functional as F
from torch import Tensor, nn


class Upscaler(nn.Module):
    """Doubles the height and width of images (N, channels, H, W) by a learned correction to bilinear interpolation.

    Each channel after the ``shuffle`` comes from four neighbouring channels of ``expand``, so ``expand`` has four times
    ``shuffled`` channels and grows by multiples of four.
    """

    def __init__(self, *, width: int = 16, shuffled: int = 8, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(width, 4 * shuffled, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)
        self.last = nn.Conv2d(shuffled, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        correction: Tensor = self.last(self.relu(self.shuffle(self.expand(self.relu(self.conv(x))))))
        return enlarged + correction
