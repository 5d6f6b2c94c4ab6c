"""The zoo: the networks that are known by name.

All of them take images divided by 256 (so that an 8-bit pixel is an integer with exponent -8) and return logits.
"""

import collections
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..hw.arch.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "NetworkInfo", "network_info"]


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """A network of the zoo.

    Parameters
    ----------
    name : str
        Its name on the command line.
    build : callable
        Makes the ``torch.nn.Module`` with fresh weights, which depend on torch's random state.
    input_shape : (int, int, int)
        Channels, height, width of an image.
    dataset : str
        Data set it is meant for.
    epochs : int
        Epochs of training by default.
    shift : int
        Largest random shift of a training image, in pixels.
    learning_rate : float
        Peak learning rate of training.
    batch : int
        Images in a training step.
    """

    name: str
    build: "Callable[[], nn.Module]"
    input_shape: tuple[int, int, int]
    dataset: str
    epochs: int
    shift: int = 0
    learning_rate: float = 2e-3
    batch: int = 128


def _sequential(**layers: "nn.Module") -> "nn.Module":
    from torch import nn

    return nn.Sequential(collections.OrderedDict(layers))


def digits() -> "nn.Module":
    """Two 3 x 3 convolutions with batch norm, a max pooling and a classifier, for 1 x 8 x 8 images."""
    from torch import nn

    return _sequential(
        conv1=nn.Conv2d(1, 8, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(8), relu1=nn.ReLU(),
        conv2=nn.Conv2d(8, 16, 3, padding=1, bias=False), bn2=nn.BatchNorm2d(16), relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2), flatten=nn.Flatten(), fc=nn.Linear(256, 10))


def lenet300() -> "nn.Module":
    """LeNet-300-100: 784-300-100-10 with ReLU, 266,610 parameters (LeCun et al. 1998)."""
    from torch import nn

    return _sequential(
        flatten=nn.Flatten(), fc1=nn.Linear(784, 300), relu1=nn.ReLU(), fc2=nn.Linear(300, 100), relu2=nn.ReLU(),
        fc3=nn.Linear(100, 10))


def lenet5() -> "nn.Module":
    """LeNet-5 in the form of Caffe's example, 431,080 parameters; with a ReLU after each convolution as well."""
    from torch import nn

    return _sequential(
        conv1=nn.Conv2d(1, 20, 5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(20, 50, 5), relu2=nn.ReLU(), pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(), fc1=nn.Linear(800, 500), relu3=nn.ReLU(), fc2=nn.Linear(500, 10))


def resnet20() -> "nn.Module":
    """ResNet-20 for CIFAR-10 with parameter-free shortcuts (He et al., arXiv:1512.03385, section 4.2, option A).

    Its state has the names of Y. Idelbayev's published checkpoints but for their prefix ``module.``; images are
    normalized inside, with the mean and deviation that those were trained with.
    """
    from .resnet import ResNet

    return ResNet(blocks=3)


def resnet32() -> "nn.Module":
    """ResNet-32, 464,154 parameters; as :func:`resnet20` otherwise."""
    from .resnet import ResNet

    return ResNet(blocks=5)


def mobilenet_tiny() -> "nn.Module":
    """Depthwise separable convolutions for 3 x 32 x 32 images, in the manner of MobileNet (arXiv:1704.04861)."""
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> "nn.Module":
        return _sequential(
            depthwise=nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            bn1=nn.BatchNorm2d(inputs), relu1=nn.ReLU6(),
            pointwise=nn.Conv2d(inputs, outputs, 1, bias=False), bn2=nn.BatchNorm2d(outputs), relu2=nn.ReLU6())

    return _sequential(
        conv1=nn.Conv2d(3, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu1=nn.ReLU6(),
        block1=block(16, 32, 1), block2=block(32, 64, 2), block3=block(64, 64, 1), block4=block(64, 128, 2),
        block5=block(128, 128, 1), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(128, 10))


def alexnet() -> "nn.Module":
    """AlexNet on one GPU, 61,100,840 parameters (Krizhevsky, arXiv:1404.5997).

    This and the other networks for ImageNet have the state of torchvision's networks of the same names, so that
    published weights load; normalization is inside.
    """
    from .vision import alexnet

    return alexnet()


def vgg16() -> "nn.Module":
    """VGG-16, configuration D, 138,357,544 parameters (Simonyan and Zisserman, arXiv:1409.1556)."""
    from .vision import vgg16

    return vgg16()


def googlenet() -> "nn.Module":
    """GoogLeNet with batch norm, 6,624,904 parameters without auxiliary classifiers (Szegedy et al., arXiv:1409.4842).

    What a state dict holds of the auxiliary classifiers is left out.
    """
    from .googlenet import GoogLeNet

    return GoogLeNet()


def resnet18() -> "nn.Module":
    """ResNet-18, 11,689,512 parameters (He et al., arXiv:1512.03385, table 1)."""
    from .vision import BasicBlock, ResidualNetwork

    return ResidualNetwork(BasicBlock, (2, 2, 2, 2))


def resnet50() -> "nn.Module":
    """ResNet-50 with the stride on the 3 x 3 convolutions, 25,557,032 parameters."""
    from .vision import Bottleneck, ResidualNetwork

    return ResidualNetwork(Bottleneck, (3, 4, 6, 3))


def mobilenet_v1() -> "nn.Module":
    """MobileNet v1 of width 1, 4,231,976 parameters (Howard et al., arXiv:1704.04861), named as v2."""
    from .vision import mobilenet_v1

    return mobilenet_v1()


def mobilenet_v2() -> "nn.Module":
    """MobileNet v2 of width 1, 3,504,872 parameters (Sandler et al., arXiv:1801.04381)."""
    from .vision import mobilenet_v2

    return mobilenet_v2()


IMAGENET_SHAPE = (3, 224, 224)

NETWORKS: dict[str, NetworkInfo] = {info.name: info for info in (
    NetworkInfo("digits", digits, (1, 8, 8), "digits", epochs=40, shift=1, learning_rate=5e-3, batch=64),
    NetworkInfo("lenet300", lenet300, (1, 28, 28), "mnist", epochs=12, shift=1),
    NetworkInfo("lenet5", lenet5, (1, 28, 28), "mnist", epochs=8, shift=1),
    NetworkInfo("resnet20", resnet20, (3, 32, 32), "cifar10", epochs=60, shift=4),
    NetworkInfo("resnet32", resnet32, (3, 32, 32), "cifar10", epochs=60, shift=4),
    NetworkInfo("mobilenet_tiny", mobilenet_tiny, (3, 32, 32), "cifar10", epochs=30, shift=4),
    *(NetworkInfo(build.__name__, build, IMAGENET_SHAPE, "imagenet", epochs=90, shift=16, learning_rate=1e-3, batch=32)
      for build in (alexnet, vgg16, googlenet, resnet18, resnet50, mobilenet_v1, mobilenet_v2)),
)}
"""The zoo's networks by name."""


def network_info(name: str) -> NetworkInfo:
    """Look a network up; an unknown name is a :class:`ModelError`."""
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; the zoo has {', '.join(NETWORKS)}")
    return NETWORKS[name]
