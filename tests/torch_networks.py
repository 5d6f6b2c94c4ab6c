"""Random PyTorch networks: all operators that the front end takes, in any order, with branches."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["RandomNetwork", "random_module"]

MOST_CHANNELS = 10
MOST_TAPS = 49
"""Positions that the configurations of the tests have room for, residuals besides."""


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: Tensor) -> Tensor:
        return self.function(*x)


class RandomNetwork(nn.Module):
    """Modules, each of which reads the outputs of some before; 0 is the input."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.ops = nn.ModuleList()
        self.reads: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for op, reads in zip(self.ops, self.reads, strict=True):
            values.append(op(*(values[source] for source in reads)))
        return values[-1]


class _Builder:
    """Adds modules to a network, and knows the shapes that they make."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng, self.network = rng, RandomNetwork(shape).eval()
        self.values = [torch.zeros(2, *shape)]
        self.positive = [True]

    def pick(self, *options: int) -> int:
        return int(self.rng.choice(options))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values[-1].shape[1:])

    def add(self, module: nn.Module, *reads: int) -> None:
        """The module reads these outputs, or the last one."""
        reads = reads or (len(self.values) - 1,)
        with torch.no_grad():
            self.values.append(module.eval()(*(self.values[source] for source in reads)))
        self.network.ops.append(module)
        self.network.reads.append(reads)

    def conv(self, stride: int | None = None, channels: int | None = None) -> None:
        inputs, height, width = self.shape
        kernel = [min(self.pick(1, 2, 3, 3, 3, 4, 5, 7), size) for size in (height, width)]
        if kernel[0] * kernel[1] > MOST_TAPS:
            kernel = [3, 3]
        dilation = [self.pick(1, 1, 1, 2, 3) if 3 * (size - 1) < length else 1
                    for size, length in zip(kernel, (height, width), strict=True)]
        strides = [stride or self.pick(1, 1, 1, 2, 3) for _ in range(2)]
        padding: object = [self.pick(0, size // 2, size // 2, size - 1) for size in kernel]
        if strides == [1, 1] and self.chance(0.15):
            padding = "same"
        elif self.chance(0.15):
            self.add(nn.ZeroPad2d(tuple(self.pick(0, 1, 2) for _ in range(4))))
        groups = self.pick(*(n for n in range(1, inputs + 1) if inputs % n == 0)) if self.chance(0.4) else 1
        outputs = channels or groups * self.pick(1, 2, 3)
        if outputs % groups or outputs > MOST_CHANNELS:
            groups, outputs = 1, min(outputs, MOST_CHANNELS)
        self.add(nn.Conv2d(inputs, outputs, tuple(kernel), tuple(strides), padding,  # type: ignore[arg-type]
                           tuple(dilation), groups, bias=self.chance(0.6)))
        if self.chance(0.4):
            self.add(nn.BatchNorm2d(outputs, affine=self.chance(0.8)))
        self.activation()

    def activation(self) -> None:
        low, high = -self.rng.random(), self.rng.random() + 0.1
        options: list[nn.Module] = [nn.ReLU(inplace=self.chance(0.3)), nn.ReLU(), nn.ReLU6(), nn.Hardtanh(low, high),
                                    Call(lambda x: x.clamp(min=0.0)), Call(lambda x: functional.relu(x)), nn.Identity(),
                                    nn.LeakyReLU(2.0**-self.pick(1, 2, 3, 4))]
        self.add(options[int(self.rng.integers(len(options)))])

    def pool(self) -> None:
        _, height, width = self.shape
        kernel = [min(self.pick(1, 2, 2, 3), size) for size in (height, width)]
        padding = tuple(self.pick(0, 0, size // 2) for size in kernel)
        stride = tuple(self.pick(1, 2, 2, 3) for _ in range(2))
        if self.chance(0.6):
            dilation = tuple(self.pick(1, 1, 2) if 2 * (size - 1) < length else 1
                             for size, length in zip(kernel, (height, width), strict=True))
            self.add(nn.MaxPool2d(tuple(kernel), stride, padding, dilation, ceil_mode=self.chance(0.4)))
        else:
            self.add(nn.AvgPool2d(tuple(kernel), stride, padding, ceil_mode=self.chance(0.2),
                                  count_include_pad=self.chance(0.8),
                                  divisor_override=self.pick(1, 3, 5) if self.chance(0.2) else None))

    def join(self) -> None:
        """A residual, a concatenation, or a convolution beside a shortcut without parameters."""
        here = len(self.values) - 1
        alike = [n for n, value in enumerate(self.values) if value.shape == self.values[-1].shape and n != here]
        beside = [n for n, value in enumerate(self.values) if value.dim() == 4
                  and value.shape[2:] == self.values[-1].shape[2:] and value.shape[1] + self.shape[0] <= MOST_CHANNELS]
        if alike and self.chance(0.6):
            self.add(Call(torch.add), here, self.pick(*alike))
            self.activation()
        elif beside and self.chance(0.6):
            self.add(Call(lambda x, y: torch.cat([x, y], 1)), here, self.pick(*beside))
        else:
            self.shortcut()

    def shortcut(self) -> None:
        source, inputs = len(self.values) - 1, self.shape[0]
        stride, outputs = self.pick(1, 2), min(MOST_CHANNELS, inputs + self.pick(0, 0, 1, 2))
        before, after = (outputs - inputs) // 2, outputs - inputs - (outputs - inputs) // 2
        self.add(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
        self.add(nn.BatchNorm2d(outputs))
        main = len(self.values) - 1
        if stride == 2:
            self.add(Call(lambda x: x[:, :, ::2, ::2]), source)
            source = len(self.values) - 1
        if outputs != inputs:
            self.add(Call(lambda x: functional.pad(x, (0, 0, 0, 0, before, after))), source)
            source = len(self.values) - 1
        self.add(Call(torch.add), main, source)
        self.activation()

    def small(self) -> None:
        """What is folded, or nothing at all."""
        factor = float(self.rng.choice([0.25, -0.5, 0.7, 1.3]))
        options: list[nn.Module] = [nn.Dropout(0.3), Call(lambda x: x.contiguous()), Call(lambda x: x * factor),
                                    Call(lambda x: x + factor), nn.BatchNorm2d(self.shape[0])]
        self.add(options[int(self.rng.integers(len(options)))])

    def head(self) -> None:
        _, height, width = self.shape
        if self.chance(0.5):
            self.add([nn.AdaptiveAvgPool2d(1), Call(lambda x: x.mean((2, 3))),
                      Call(lambda x: x.mean((-2, -1), keepdim=True))][int(self.rng.integers(3))])
        if self.values[-1].dim() == 4:
            self.add(nn.Flatten() if self.chance(0.5) else Call(lambda x: x.view(x.size(0), -1)))
        for _ in range(self.pick(1, 1, 2)):
            features = self.pick(2, 5, 9)
            self.add(nn.Linear(self.shape[0], features, bias=self.chance(0.7)))
            if self.chance(0.3):
                self.add(nn.BatchNorm1d(features))
            if self.chance(0.5):
                self.add(nn.ReLU())


def random_module(seed: int) -> RandomNetwork:
    """The network of a seed, in evaluation mode, with random weights and statistics.

    Its input's shape is the attribute ``shape``.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = _Builder(rng, (int(rng.integers(1, 5)), int(rng.integers(5, 13)), int(rng.integers(5, 13))))
        if not build.chance(0.1):
            steps = [build.conv, build.conv, build.pool, build.join, build.small]
            build.conv()
            for _ in range(int(rng.integers(1, 6))):
                if min(build.shape[1:]) < 2:
                    break
                steps[int(rng.integers(len(steps)))]()
        if build.chance(0.7):
            build.head()
        elif not any(isinstance(op, nn.Conv2d) for op in build.network.ops):
            build.conv()
        for module in build.network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.2, 2)
                if module.affine:
                    nn.init.uniform_(module.weight, 0.3, 1.5)
                    nn.init.normal_(module.bias, std=0.3)
    return build.network.eval()
