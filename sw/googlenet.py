"""The zoo's GoogLeNet for ImageNet, with the names and shapes of torchvision's state."""

import torch
from torch import Tensor, nn

from .resnet import Normalize
from .vision import CLASSES, initialize

__all__ = ["GoogLeNet"]

AUXILIARY = ("aux1.", "aux2.")
"""Classifiers on inner maps, which only training used."""
INCEPTIONS: dict[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64), "4b": (160, 112, 224, 24, 64, 64), "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64), "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128),
}
"""Outputs of GoogLeNet's modules; a max pooling stands before 4a and 5a."""


class NormalizedConvolution(nn.Module):
    """A convolution that keeps the size at stride 1, batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        return torch.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    """Four branches that are joined: 1 x 1, 3 x 3, 3 x 3 in place of the paper's 5 x 5, and max pooling.

    Parameters
    ----------
    inputs : int
        Channels.
    one, reduce, three, reduce_wide, wide, pooled : int
        Outputs of the convolutions, in the order of the paper's table 1.
    """

    def __init__(self, inputs: int, one: int, reduce: int, three: int, reduce_wide: int, wide: int,
                 pooled: int) -> None:
        super().__init__()
        convolution = NormalizedConvolution
        self.branch1 = convolution(inputs, one, 1)
        self.branch2 = nn.Sequential(convolution(inputs, reduce, 1), convolution(reduce, three, 3))
        self.branch3 = nn.Sequential(convolution(inputs, reduce_wide, 1), convolution(reduce_wide, wide, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, padding=1, ceil_mode=True), convolution(inputs, pooled, 1))
        self.outputs = one + three + wide + pooled

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet with batch norm, without its auxiliary classifiers (Szegedy et al., arXiv:1409.4842, table 1).

    A state dict may hold the auxiliary classifiers; they are left out. Images are normalized to -1 to 1, as those that
    the published weights were trained with.
    """

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.conv1 = NormalizedConvolution(3, 64, 7, stride=2)
        self.maxpool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = NormalizedConvolution(64, 64, 1)
        self.conv3 = NormalizedConvolution(64, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(2, 2, ceil_mode=True)
        inputs = 192
        for name, widths in INCEPTIONS.items():
            module = Inception(inputs, *widths)
            self.add_module(f"inception{name}", module)
            inputs = module.outputs
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(inputs, CLASSES)
        self.register_load_state_dict_pre_hook(_drop_auxiliary)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000) of images (N, 3, 224, 224) divided by 256."""
        x = self.maxpool1(self.conv1(self.normalize(x)))
        x = self.maxpool2(self.conv3(self.conv2(x)))
        for name in INCEPTIONS:
            if name in ("4a", "5a"):
                x = (self.maxpool3 if name == "4a" else self.maxpool4)(x)
            x = self.get_submodule(f"inception{name}")(x)
        return self.fc(self.dropout(self.avgpool(x).flatten(1)))


def _drop_auxiliary(module: nn.Module, state: dict[str, Tensor], prefix: str, *others: object) -> None:
    for name in [name for name in state if name.removeprefix(prefix).startswith(AUXILIARY)]:
        del state[name]
