"""The zoo's networks for ImageNet (ILSVRC-2012): 3 x 224 x 224 images divided by 256, logits of 1,000 classes.

The names and shapes of their state are torchvision's, so that published state dicts load; MobileNet v1, which
torchvision lacks, is named like its MobileNet v2. Normalization is inside and has no state.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .resnet import IMAGENET_DEVIATION, IMAGENET_MEAN, Normalize

__all__ = ["CLASSES", "BasicBlock", "Bottleneck", "FeatureNetwork", "ResidualNetwork", "alexnet", "initialize",
           "mobilenet_v1", "mobilenet_v2", "vgg16"]

CLASSES = 1000
"""Of ILSVRC-2012, in the order of their WordNet IDs."""


class FeatureNetwork(nn.Module):
    """Normalization, features, an average over the map, a classifier.

    Parameters
    ----------
    features : torch.nn.Module
        Makes a map of the normalized image.
    size : int
        Height and width to which the map is averaged.
    classifier : torch.nn.Module
        Takes the flattened map.
    """

    def __init__(self, features: nn.Module, size: int, classifier: nn.Module) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d((size, size))
        self.classifier = classifier
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000) of images (N, 3, 224, 224) divided by 256."""
        return self.classifier(self.avgpool(self.features(self.normalize(x))).flatten(1))


def initialize(network: nn.Module) -> None:
    """Draw a network's convolutions as He et al. (arXiv:1502.01852, equation 10); VGG-16 would not train otherwise."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def alexnet() -> nn.Module:
    """AlexNet on one GPU (Krizhevsky, arXiv:1404.5997)."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
    classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(),
        nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, CLASSES))
    return FeatureNetwork(features, 6, classifier)


def vgg16() -> nn.Module:
    """VGG-16 without batch norm (Simonyan and Zisserman, arXiv:1409.1556, table 1, column D)."""
    layers: list[nn.Module] = []
    inputs = 3
    for count, outputs in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            layers += nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    classifier = nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(),
        nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, CLASSES))
    return FeatureNetwork(nn.Sequential(*layers), 7, classifier)


def _normalized(inputs: int, outputs: int, kernel: int, activation: type[nn.Module], stride: int = 1,
                groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs), activation())


def mobilenet_v1() -> nn.Module:
    """MobileNet v1 of width 1 (Howard et al., arXiv:1704.04861, table 1).

    The last depthwise convolution has stride 1, which the sizes in the table need; the table's 2 is a misprint.
    """
    widths = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
    layers = [_normalized(3, widths[0], 3, nn.ReLU, stride=2)]
    for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        stride = 2 if outputs > inputs and number else 1
        layers.append(nn.Sequential(_normalized(inputs, inputs, 3, nn.ReLU, stride, groups=inputs),
                                    _normalized(inputs, outputs, 1, nn.ReLU)))
    return FeatureNetwork(nn.Sequential(*layers), 1, nn.Linear(widths[-1], CLASSES))


class InvertedResidual(nn.Module):
    """1 x 1 expansion, depthwise 3 x 3, linear 1 x 1 projection; a shortcut where the shape stays.

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    stride : int
        Of the depthwise convolution.
    expansion : int
        Channels in between for each input channel; with 1, there is no expansion layer.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [_normalized(inputs, inner, 1, nn.ReLU6)] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand, _normalized(inner, inner, 3, nn.ReLU6, stride, groups=inner),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        return x + self.conv(x) if self.shortcut else self.conv(x)


def mobilenet_v2() -> nn.Module:
    """MobileNet v2 of width 1 (Sandler et al., arXiv:1801.04381, table 2)."""
    layers: list[nn.Module] = [_normalized(3, 32, 3, nn.ReLU6, stride=2)]
    inputs = 32
    for expansion, outputs, count, first in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                             (6, 160, 3, 2), (6, 320, 1, 1)):
        for stride in (first, *[1] * (count - 1)):
            layers.append(InvertedResidual(inputs, outputs, stride, expansion))
            inputs = outputs
    layers.append(_normalized(inputs, 1280, 1, nn.ReLU6))
    return FeatureNetwork(nn.Sequential(*layers), 1, nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, CLASSES)))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut; the 3 x 3 one has the stride, unlike in the paper."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width * self.expansion)
        self.downsample = _projection(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Of a map (N, inputs, H, W)."""
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class ResidualNetwork(nn.Module):
    """A residual network for ImageNet (He et al., arXiv:1512.03385, table 1; shortcuts of option B).

    Parameters
    ----------
    block : type
        :class:`BasicBlock` or :class:`Bottleneck`.
    counts : sequence of int
        Blocks at each of the four map sizes.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], counts: Sequence[int]) -> None:
        super().__init__()
        self.normalize = Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        inputs, stages = 64, []
        for stage, count in enumerate(counts):
            width, blocks = 64 << stage, []
            for number in range(count):
                blocks.append(block(inputs, width, 2 if stage and not number else 1))
                inputs = width * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, CLASSES)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 1000) of images (N, 3, 224, 224) divided by 256."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(self.normalize(x)))))
        return self.fc(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1))
