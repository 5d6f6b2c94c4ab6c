"""Convolution and pooling windows of ONNX, as calls of PyTorch that compute the same."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional

from .onnx_file import OnnxNode
from .operators import unsupported

__all__ = ["Window", "average_pool", "convolution", "max_pool"]

Sizes = tuple[int, ...]
Function = Callable[..., Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Where windows lie. Each field has the vertical and the horizontal number, or of a signal that along it.

    Parameters
    ----------
    kernel, stride, dilation : tuple of int
    begin, end : tuple of int
        Padding above and left, and below and right.
    size : tuple of int
        Height and width of the map, or length of the signal.
    out : tuple of int
        How many windows.
    """

    kernel: Sizes
    stride: Sizes
    dilation: Sizes
    begin: Sizes
    end: Sizes
    size: Sizes
    out: Sizes

    @classmethod
    def of(cls, node: OnnxNode, kernel: Sizes, size: Sizes) -> "Window":
        """The windows of a node's attributes.

        Raises
        ------
        UnsupportedError
            If an attribute is not one of maps of `size`, ``pads`` is negative, no window fits, or ONNX and runtimes
            differ about the attributes.
        """
        attributes, rank = node.attributes, len(size)
        if len(kernel) != rank:
            raise unsupported(node.where, f"kernel_shape={list(kernel)} does not fit the map of {_words(size)}",
                              "export the network again")
        stride, dilation = (_each(node, name, rank) for name in ("strides", "dilations"))
        pads, auto = list(attributes["pads"] or [0] * 2 * rank), attributes["auto_pad"]
        if min(pads) < 0 or len(pads) != 2 * rank:
            raise unsupported(node.where, f"pads={pads} is not supported, only {('two', 'four')[rank - 1]} numbers "
                              "that are not negative", "cut maps with strides")
        # ONNX Runtime reckons without the dilation of poolings, the text of ONNX with it.
        if auto.startswith("SAME") and set(dilation) != {1} and node.op != "Conv":
            raise unsupported(node.where, f"auto_pad={auto!r} with dilations={list(dilation)} is not supported",
                              "give pads")
        if auto != "NOTSET" and attributes.get("ceil_mode"):  # here too ONNX Runtime differs from the text of ONNX
            raise unsupported(node.where, f"auto_pad={auto!r} with ceil_mode=1 is not supported",
                              "set ceil_mode=0, or give pads")
        reach = tuple(dilation[axis] * (kernel[axis] - 1) + 1 for axis in range(rank))
        begin, end, out = [0] * rank, [0] * rank, [0] * rank
        for axis in range(rank):
            if auto.startswith("SAME"):
                out[axis] = -(-size[axis] // stride[axis])
                total = (out[axis] - 1) * stride[axis] + reach[axis] - size[axis]
                if total < 0 and node.op != "Conv":  # ONNX Runtime then cuts, or stops
                    raise unsupported(node.where, f"auto_pad={auto!r} with a kernel of {kernel[axis]} and strides of "
                                      f"{stride[axis]} is not supported", "give pads")
                total = max(total, 0)
                half = total // 2
                begin[axis], end[axis] = (half, total - half) if auto == "SAME_UPPER" else (total - half, half)
                continue
            if auto == "NOTSET":
                begin[axis], end[axis] = pads[axis], pads[axis + rank]
            room = size[axis] + begin[axis] + end[axis] - reach[axis]
            if room < 0:
                raise unsupported(node.where, f"kernel_shape={list(kernel)} is larger than the map of {_words(size)} "
                                  "with its padding", "give images of the size that it was trained with")
            up = bool(attributes.get("ceil_mode"))
            out[axis] = (-(-room // stride[axis]) if up else room // stride[axis]) + 1
            # A window that would start in the padding at the end is left out (ONNX since opset 22, and all runtimes).
            out[axis] -= up and (out[axis] - 1) * stride[axis] >= size[axis] + begin[axis]
        return cls(kernel=kernel, stride=stride, dilation=dilation, begin=tuple(begin), end=tuple(end), size=size,
                   out=tuple(out))

    @property
    def needed(self) -> Sizes:
        """How far the last window reaches below and to the right of the map; negative where it does not."""
        return tuple((self.out[axis] - 1) * self.stride[axis] + self.dilation[axis] * (self.kernel[axis] - 1) + 1
                     - self.size[axis] - self.begin[axis] for axis in range(len(self.size)))

    def counted(self, up: bool) -> Sizes:
        """How many windows PyTorch makes with the padding ``begin`` on both sides."""
        found = []
        for axis in range(len(self.size)):
            room = (self.size[axis] + 2 * self.begin[axis] - self.dilation[axis] * (self.kernel[axis] - 1) - 1)
            count = (-(-room // self.stride[axis]) if up else room // self.stride[axis]) + 1
            found.append(count - (up and (count - 1) * self.stride[axis] >= self.size[axis] + self.begin[axis]))
        return tuple(found)

    @property
    def halved(self) -> bool:
        """Whether PyTorch takes ``begin`` as a pooling's padding."""
        return all(2 * begin <= kernel for begin, kernel in zip(self.begin, self.kernel, strict=True))

    @property
    def sides(self) -> list[int]:
        """Left, right, top, bottom padding that makes exactly ``out`` windows."""
        return _sides(self.begin, [max(value, 0) for value in self.needed])


def _words(size: Sizes) -> str:
    return " x ".join(map(str, size))


def _each(node: OnnxNode, name: str, rank: int) -> Sizes:
    """An attribute with a number for each axis."""
    values = node.attributes.get(name) or [1] * rank
    if len(values) != rank:
        count = ("one number", "two numbers")[rank - 1]
        raise unsupported(node.where, f"{name}={values} is not supported, only {count} on its map",
                          "export the network again")
    return tuple(values)


def _sides(begin: Sequence[int], end: Sequence[int]) -> list[int]:
    """Padding in PyTorch's order, the last axis first."""
    return [side for pair in zip(reversed(begin), reversed(end), strict=True) for side in pair]


def convolution(window: Window, group: int) -> Function:
    """A function of images, weight and bias."""
    even = window.begin == window.end
    found = functools.partial(_convolve, stride=window.stride, dilation=window.dilation, groups=group,
                              padding=window.begin if even else (0,) * len(window.size))
    return found if even else functools.partial(_padded, _sides(window.begin, window.end), 0.0, found)


def max_pool(node: OnnxNode, window: Window) -> Function:
    """A function of images."""
    for axis in range(len(window.size)):
        reach = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        last = (window.out[axis] - 1) * window.stride[axis] - window.begin[axis]
        if window.begin[axis] >= reach or last >= window.size[axis]:
            raise unsupported(node.where, f"pads={node.attributes['pads']} makes windows of padding alone",
                              "pad by less than the kernel")
    pooling = functional.max_pool1d if len(window.size) == 1 else functional.max_pool2d
    if window.halved:
        for up in (False, True):
            if window.counted(up) == window.out:
                return functools.partial(pooling, kernel_size=window.kernel, stride=window.stride,
                                         padding=window.begin, dilation=window.dilation, ceil_mode=up)
    pool = functools.partial(pooling, kernel_size=window.kernel, stride=window.stride, dilation=window.dilation)
    return functools.partial(_padded, window.sides, float("-inf"), pool)


def average_pool(node: OnnxNode, window: Window) -> Function:
    """A function of images; windows of different sizes are refused."""
    pads, size = [*window.begin, *window.end], _words(window.size)
    beyond = any(window.begin) or max(window.needed) > 0
    if not node.attributes["count_include_pad"] and beyond:
        if any(pads):
            raise unsupported(node.where, f"count_include_pad=0 with padding {pads} of a map of {size} is not "
                              "supported", "set count_include_pad=1, or pad less")
        raise unsupported(node.where, f"ceil_mode=1 with a map of {size} makes windows of different sizes",
                          "set ceil_mode=0")
    if any(needed > end for needed, end in zip(window.needed, window.end, strict=True)):
        raise unsupported(node.where, f"ceil_mode=1 with a map of {size} makes windows of different sizes",
                          "set ceil_mode=0")
    pool = functools.partial(functional.avg_pool1d if len(window.size) == 1 else functional.avg_pool2d,
                             kernel_size=window.kernel, stride=window.stride)
    if window.halved and window.counted(False) == window.out:
        return functools.partial(pool, padding=window.begin)
    return functools.partial(_padded, window.sides, 0.0, pool)


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None = None, **options: Any) -> Tensor:
    return (functional.conv1d if images.dim() == 3 else functional.conv2d)(images, weight, bias, **options)


def _padded(sides: list[int], value: float, function: Function, images: Tensor, **tensors: Tensor) -> Tensor:
    return function(functional.pad(images, sides, value=value), **tensors)
