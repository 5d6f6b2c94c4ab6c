"""The zoo's residual networks for CIFAR-10."""

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Normalize", "ResNet"]

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue pixels divided by 255."""
PIXEL_RANGE = 255 / 256
"""Networks are fed pixels divided by 256."""


class Normalize(nn.Module):
    """``(x - mean) / deviation`` for each channel, of pixels divided by 256. It has nothing to train or to store."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * PIXEL_RANGE, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize images (N, C, H, W)."""
        return (x - self.mean) / self.deviation


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which drops pixels and adds zero channels where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = x[:, :, ::self.stride, ::self.stride]
        if self.added:
            x = functional.pad(x, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return torch.relu(y + x)


class ResNet(nn.Module):
    """A residual network of ``6 * blocks + 2`` layers.

    Parameters
    ----------
    blocks : int
        Blocks at each of the three map sizes.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), *(Block(32, 32, 1) for _ in range(blocks - 1)))
        self.layer3 = nn.Sequential(Block(32, 64, 2), *(Block(64, 64, 1) for _ in range(blocks - 1)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 10) of images (N, 3, 32, 32) divided by 256."""
        x = torch.relu(self.bn1(self.conv1(self.normalize(x))))
        return self.linear(self.pool(self.layer3(self.layer2(self.layer1(x)))).flatten(1))
