"""What of PyTorch the front end takes: one table, which is the check, the error messages and the documentation.

Every argument in an operator's schema is either an operand, an attribute that is handled exactly whatever its value,
or an attribute with a rule. What no row names is refused by name.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ...hw.arch.errors import UnsupportedError

__all__ = ["HOST", "OPERATORS", "REWRITES", "Attribute", "Operator", "markdown", "unsupported"]

SLOPES = tuple(2.0**-leak for leak in range(1, 8))
"""Slopes of a leaky ReLU."""


def _any(value: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True)
class Attribute:
    """An attribute of an operator and what of it is supported.

    Parameters
    ----------
    name : str
        As in the operator's schema.
    rule : str
        The supported values, in words.
    accepts : callable
        Whether a value is supported.
    rewrite : str
        What to do about one that is not.
    """

    name: str
    rule: str = "any"
    accepts: Callable[[Any], bool] = _any
    rewrite: str = ""


@dataclasses.dataclass(frozen=True)
class Operator:
    """A supported operator.

    Parameters
    ----------
    targets : tuple of str
        ATen overloads, as torch.export names them.
    kind : str
        What it becomes: ``conv``, ``linear``, ``batch_norm``, ``scale``, ``add``, ``cat``, ``clamp``, ``maxpool``,
        ``avgpool``, ``adaptive``, ``mean``, ``pad``, ``slice``, ``reshape``, ``quantize``, ``drop`` or ``identity``;
        ``host``, what is left to the host.
    spelled : str
        How a network says it.
    becomes : str
        What the array runs, in words.
    operands : tuple of str
        Tensor arguments; the first in the schema is an activation.
    attributes : tuple of Attribute
        All other arguments.
    joins : bool
        Another operand may be an activation too; otherwise it must be constant.
    commutes : bool
        A constant first operand changes places with the second.
    """

    targets: tuple[str, ...]
    kind: str
    spelled: str
    becomes: str
    operands: tuple[str, ...]
    attributes: tuple[Attribute, ...] = ()
    joins: bool = False
    commutes: bool = False


_ALPHA = Attribute("alpha", "1", lambda value: value == 1, "multiply first")
_UNTRAINED = Attribute("train", "False", lambda value: not value,
                       "pass training=self.training, so that it is off in evaluation")
_CONV = ("input", "weight", "bias")

OPERATORS: tuple[Operator, ...] = (
    Operator(("aten.conv2d.default", "aten.conv2d.padding"), "conv", "nn.Conv2d, F.conv2d", "a layer", _CONV,
             (Attribute("stride"), Attribute("padding", "any, also 'same' and 'valid'"), Attribute("dilation"),
              Attribute("groups"))),
    Operator(("aten.conv1d.default", "aten.conv1d.padding"), "conv", "nn.Conv1d, F.conv1d", "a layer of height 1",
             _CONV, (Attribute("stride"), Attribute("padding", "any, also 'same' and 'valid'"), Attribute("dilation"),
              Attribute("groups"))),
    Operator(("aten.linear.default",), "linear", "nn.Linear, F.linear",
             "a layer whose kernel covers the map that was flattened", _CONV),
    Operator(("aten.batch_norm.default",), "batch_norm", "nn.BatchNorm1d, nn.BatchNorm2d",
             "folded into the convolution or linear layer right before it, else a layer",
             ("input", "weight", "bias", "running_mean", "running_var"),
             (Attribute("training", "False", lambda value: not value,
                        "keep running statistics (track_running_stats=True) and call eval()"),
              Attribute("momentum"), Attribute("eps"), Attribute("cudnn_enabled"))),
    Operator(("aten.add.Tensor", "aten.add_.Tensor"), "add", "x + y, torch.add",
             "a residual of the convolution that makes x or y, else a layer; with a constant a channel: as batch norm",
             ("self", "other"), (_ALPHA,), joins=True, commutes=True),
    Operator(("aten.mul.Tensor", "aten.mul_.Tensor"), "scale", "x * constant", "as batch norm; one constant a channel",
             ("self", "other"), commutes=True),
    Operator(("aten.sub.Tensor", "aten.sub_.Tensor"), "scale", "x - constant", "as batch norm; one constant a channel",
             ("self", "other"), (_ALPHA,)),
    Operator(("aten.div.Tensor", "aten.div_.Tensor"), "scale", "x / constant", "as batch norm; one constant a channel",
             ("self", "other")),
    Operator(("aten.cat.default", "aten.concat.default"), "cat", "torch.cat, torch.concat",
             "nothing: its parts are computed in their places, with one scale", ("tensors",),
             (Attribute("dim", "1", lambda value: value == 1, "join channels"),)),
    Operator(("aten.slice.Tensor",), "slice", "x[:, :, ::2, ::2], x[:, :, ::2]",
             "the stride of the residual that reads it",
             ("self",), (Attribute("dim", "height or width"), Attribute("start", "0"), Attribute("end", "the size"),
                         Attribute("step"))),
    Operator(("aten.relu.default", "aten.relu_.default", "aten.relu6.default", "aten.relu6_.default"), "clamp",
             "nn.ReLU, F.relu, F.relu6", "the clamp of the layer before it", ("self",)),
    Operator(("aten.hardtanh.default", "aten.hardtanh_.default"), "clamp", "nn.Hardtanh, nn.ReLU6",
             "the clamp of the layer before it", ("self",), (Attribute("min_val"), Attribute("max_val"))),
    Operator(("aten.clamp.default", "aten.clamp_.default", "aten.clamp_min.default", "aten.clamp_min_.default",
              "aten.clamp_max.default", "aten.clamp_max_.default"), "clamp", "torch.clamp",
             "the clamp of the layer before it", ("self",), (Attribute("min"), Attribute("max"))),
    Operator(("shiftwright.quantize.default",), "quantize", "a quantizer of an ONNX file",
             "the output of the layer before it, rounded: exactly so by the recipe keep, by others in their own way",
             ("images",), (Attribute("scale"), Attribute("low"), Attribute("high"), Attribute("rounding"))),
    Operator(("aten.leaky_relu.default", "aten.leaky_relu_.default"), "leaky", "nn.LeakyReLU, F.leaky_relu",
             "a layer; nothing where there is nothing negative", ("self",),
             (Attribute("negative_slope", "1/2, 1/4, 1/8 ... 1/128", lambda value: value in SLOPES,
                        "use nn.LeakyReLU(0.125), or another power of two"),)),
    Operator(("aten.max_pool2d.default",), "maxpool", "nn.MaxPool2d, F.max_pool2d", "a layer", ("self",),
             (Attribute("kernel_size"), Attribute("stride"), Attribute("padding"), Attribute("dilation"),
              Attribute("ceil_mode", "any (True becomes padding below and right)"))),
    Operator(("aten.max_pool1d.default",), "maxpool", "nn.MaxPool1d, F.max_pool1d", "a layer", ("self",),
             (Attribute("kernel_size"), Attribute("stride"), Attribute("padding"), Attribute("dilation"),
              Attribute("ceil_mode", "any (True becomes padding at the end)"))),
    Operator(("aten.avg_pool2d.default",), "avgpool", "nn.AvgPool2d, F.avg_pool2d", "a layer", ("self",),
             (Attribute("kernel_size"), Attribute("stride"), Attribute("padding"),
              Attribute("ceil_mode", "False, or True where it does not change the size or divisor_override is set"),
              Attribute("count_include_pad", "True, or any where there is no padding or divisor_override is set"),
              Attribute("divisor_override"))),
    Operator(("aten.avg_pool1d.default",), "avgpool", "nn.AvgPool1d, F.avg_pool1d", "a layer", ("self",),
             (Attribute("kernel_size"), Attribute("stride"), Attribute("padding"),
              Attribute("ceil_mode", "False, or True where it does not change the size"),
              Attribute("count_include_pad", "True, or any where there is no padding"))),
    Operator(("aten.adaptive_avg_pool2d.default",), "adaptive", "nn.AdaptiveAvgPool2d, F.adaptive_avg_pool2d",
             "average pooling", ("self",),
             (Attribute("output_size", "a divisor of the map's height and width"),)),
    Operator(("aten.adaptive_avg_pool1d.default",), "adaptive", "nn.AdaptiveAvgPool1d, F.adaptive_avg_pool1d",
             "average pooling", ("self",), (Attribute("output_size", "a divisor of the length"),)),
    Operator(("aten.mean.dim",), "mean", "x.mean((2, 3)), x.mean(2)", "average pooling over the whole map", ("self",),
             (Attribute("dim", "the two spatial ones, (2, 3) or (-2, -1); of (N, C, L) the last one"),
              Attribute("keepdim"),
              Attribute("dtype", "None", lambda value: value is None, "leave dtype out"))),
    Operator(("aten.pad.default", "aten.constant_pad_nd.default"), "pad", "nn.ZeroPad2d, nn.ZeroPad1d, F.pad",
             "padding of the convolution or pooling right after it; of channels: the place of the residual that reads "
             "it",
             ("self",),
             (Attribute("pad", "of height and width (or length), or of channels; not negative"),
              Attribute("mode", "'constant'", lambda value: value == "constant",
                        "use zero padding (padding_mode='zeros')"),
              Attribute("value", "0; -inf before max pooling", lambda value: value in (None, 0, 0.0, -math.inf),
                        "pad with 0"))),
    Operator(("aten.flatten.using_ints", "aten.view.default", "aten.reshape.default", "aten.squeeze.default",
              "aten.squeeze.dim", "aten.squeeze.dims", "aten.unsqueeze.default"), "reshape",
             "nn.Flatten, x.flatten(1), x.view(n, -1)",
             "nothing: it decides the tap order of the linear layer after it", ("self",),
             (Attribute("start_dim", "1"), Attribute("end_dim", "-1"), Attribute("size", "(N, C*H*W)"),
              Attribute("shape", "(N, C*H*W)"),
              Attribute("dim", "dimensions of a 1 x 1 map; the height of (N, C, 1, L)"))),
    Operator(("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default",
              "aten.feature_dropout_.default"), "drop", "nn.Dropout, nn.Dropout1d, nn.Dropout2d", "nothing",
             ("input", "self"), (Attribute("p"), _UNTRAINED)),
    Operator(("aten.contiguous.default", "aten.clone.default", "aten.detach.default", "aten.alias.default"),
             "identity", "x.contiguous(), x.clone(), x.detach()", "nothing", ("self",),
             (Attribute("memory_format"),)),
)
"""Every supported operator."""

_CLASSES = Attribute("dim", "1, the classes", lambda value: value is not None,
                     "name the dimension of the classes, 1, or return the logits")
_LEFT = "left to the host, at the end: the class with the highest score is the same"
HOST: tuple[Operator, ...] = (
    Operator(("aten.softmax.int",), "host", "nn.Softmax, F.softmax", _LEFT, ("self",), (_CLASSES, Attribute("dtype"))),
    Operator(("aten.log_softmax.int",), "host", "nn.LogSoftmax, F.log_softmax", _LEFT, ("self",),
             (_CLASSES, Attribute("dtype"))),
    Operator(("aten.argmax.default",), "host", "x.argmax(1), torch.argmax", _LEFT, ("self",),
             (_CLASSES, Attribute("keepdim"))),
    Operator(("aten.sigmoid.default",), "host", "nn.Sigmoid, torch.sigmoid", _LEFT, ("self",)),
)
"""Operators that the network may end in."""

BY_TARGET: dict[str, Operator] = {target: operator for operator in (*OPERATORS, *HOST)
                                  for target in operator.targets}

REWRITES: dict[str, str] = {
    "conv3d": "only one- and two-dimensional convolutions run on the array",
    "conv_transpose1d": "use nn.Conv1d (transposed convolution, with its output_padding, is not supported)",
    "conv_transpose2d": "use nn.Conv2d (transposed convolution, with its output_padding, is not supported)",
    **dict.fromkeys(("max_pool1d_with_indices", "max_pool2d_with_indices"), "set return_indices=False"),
    "adaptive_max_pool1d": "use nn.MaxPool1d with a kernel that covers the length",
    "adaptive_max_pool2d": "use nn.MaxPool2d with a kernel that covers the map",
    "layer_norm": "use batch norm, which folds into the layer before it",
    "group_norm": "use batch norm, which folds into the layer before it",
    "instance_norm": "use batch norm, which folds into the layer before it",
    **dict.fromkeys(("prelu", "elu", "gelu", "silu", "hardswish"), "use nn.ReLU"),
    "hardsigmoid": "use nn.Hardtanh(0, 1)",
    "sigmoid": "use nn.Hardtanh(0, 1) (only what the network returns may be one)",
    "tanh": "use nn.Hardtanh",
    **dict.fromkeys(("softmax", "log_softmax", "argmax"), "return the logits: the class is the same (only what the "
                    "network returns may be one, over its dimension 1)"),
    "rsub": "write it as -1 * x + constant", "neg": "write it as -1 * x", "stack": "use torch.cat",
    "chunk": "use a convolution for each part", "split": "use a convolution for each part",
    **dict.fromkeys(("permute", "transpose"), "keep the layout N, C, H, W, or N, C, L"),
    "unflatten": "keep images as N, C, H, W from the input on",
}
"""What to do about operators that are known and refused, by ATen name."""


def unsupported(where: str, what: str, rewrite: str) -> UnsupportedError:
    """The error for something that the array can't run: where it is, what it is, and the way out."""
    return UnsupportedError(f"{where}: {what}; {rewrite}")


def markdown() -> str:
    """The table as Markdown, for the documentation."""
    lines = ["| PyTorch | becomes | attributes |", "|---|---|---|"]
    for operator in (*OPERATORS, *HOST):
        rules = "; ".join(f"`{attribute.name}`: {attribute.rule}" for attribute in operator.attributes) or "none"
        lines.append(f"| {operator.spelled} | {operator.becomes} | {rules} |")
    return "\n".join(lines) + "\n"
