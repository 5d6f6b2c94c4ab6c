"""What of ONNX the front end takes: one table, which is the check, the error messages and the documentation.

A node becomes calls of PyTorch, see :mod:`.onnx_lower`; what those become is in :data:`.operators.OPERATORS`. Every
attribute of an operator's schemas, from opset 13 on, stands in its row. What no row names is refused by name.
"""

import dataclasses

from .operators import SLOPES, Attribute

__all__ = ["BY_OP", "HOST", "OPERATORS", "OPSET", "QUANT_DOMAINS", "REWRITES", "OnnxOperator", "markdown"]

OPSET = 13
"""The oldest set of operators that is read."""
QUANT_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
"""Domains in which QONNX's operators are found."""


@dataclasses.dataclass(frozen=True)
class OnnxOperator:
    """A supported ONNX operator.

    Parameters
    ----------
    ops : tuple of str
        Operator types that share the row.
    kind : str
        Which method of :mod:`.onnx_lower` takes it.
    becomes : str
        What it becomes, in words.
    attributes : tuple of Attribute
        All attributes.
    inputs : tuple of (str, str)
        Rules of inputs besides the first, for the documentation.
    outputs : int
        How many outputs may be used.
    """

    ops: tuple[str, ...]
    kind: str
    becomes: str
    attributes: tuple[Attribute, ...] = ()
    inputs: tuple[tuple[str, str], ...] = ()
    outputs: int = 1


_PADDING = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
_AUTO_PAD = Attribute("auto_pad", ", ".join(_PADDING), lambda value: value in _PADDING, "give pads")
_WINDOW = (_AUTO_PAD, Attribute("kernel_shape", "one- or two-dimensional",
                                lambda value: value is None or len(value) in (1, 2), "use a kernel of height 1"),
           Attribute("pads"), Attribute("strides"))
_CONSTANT = "constant"
_INTEGERS = (2, 3)
"""UINT8 and INT8."""
_FLOATS = (1, 10, 11, 16)
"""FLOAT, FLOAT16, DOUBLE and BFLOAT16."""


def _only(name: str, value: object, rewrite: str) -> Attribute:
    return Attribute(name, repr(value), lambda given: given == value, rewrite)


OPERATORS: tuple[OnnxOperator, ...] = (
    OnnxOperator(("Conv",), "conv", "nn.Conv2d, nn.Conv1d", (*_WINDOW, Attribute("dilations"), Attribute("group")),
                 (("W", "constant, one- or two-dimensional kernel"), ("B", _CONSTANT))),
    OnnxOperator(("Gemm",), "gemm", "nn.Linear", (
        Attribute("alpha"), Attribute("beta"), _only("transA", 0, "put the images in rows"), Attribute("transB")),
        (("B", _CONSTANT), ("C", "constant, one number or one an output"))),
    OnnxOperator(("MatMul",), "matmul", "nn.Linear, with a constant Add after it as its bias", (),
                 (("B", "constant matrix"),)),
    OnnxOperator(("BatchNormalization",), "batch_norm", "nn.BatchNorm2d, nn.BatchNorm1d in evaluation", (
        Attribute("epsilon"), Attribute("momentum"), _only("training_mode", 0, "export in evaluation mode")),
        (("scale, B, mean, var", _CONSTANT),)),
    OnnxOperator(("Relu",), "relu", "nn.ReLU"),
    OnnxOperator(("LeakyRelu",), "leaky", "nn.LeakyReLU", (
        Attribute("alpha", "1/2, 1/4, 1/8 ... 1/128", lambda value: value in SLOPES, "use a power of two, as 0.125"),)),
    OnnxOperator(("Clip",), "clip", "torch.clamp", (), (("min, max", "constant numbers"),)),
    OnnxOperator(("QuantizeLinear", "DequantizeLinear"), "quantize", "the one after the other: the format of what the "
                 "layer before makes, for the recipe keep; of constants: a constant",
                 (Attribute("axis"), Attribute("saturate"), Attribute("precision"),
                  Attribute("block_size", "0", lambda value: not value, "give the tensor one scale"),
                  Attribute("output_dtype", "INT8, UINT8 or a floating-point type",
                            lambda value: value in (None, 0, *_INTEGERS, *_FLOATS), "give activations at most 8 bits")),
                 (("scale", "one constant number"),
                  ("zero_point", "constant, INT8 or UINT8: 0, or what leaves 8 bits: 128 of UINT8, -128 of INT8"))),
    OnnxOperator(("MaxPool",), "maxpool", "nn.MaxPool2d, nn.MaxPool1d", (
        *_WINDOW, Attribute("dilations", "any; 1 with SAME_UPPER or SAME_LOWER"),
        Attribute("ceil_mode", "any; 0 with auto_pad"),
        _only("storage_order", 0, "leave it out"))),
    OnnxOperator(("AveragePool",), "avgpool", "nn.AvgPool2d, nn.AvgPool1d", (
        *_WINDOW,
        Attribute("dilations", "1", lambda value: value is None or set(value) == {1}, "use a convolution"),
        Attribute("ceil_mode", "0, or 1 without auto_pad where no window reaches beyond the map and its pads"),
        Attribute("count_include_pad", "1, or any where no window reaches beyond the map"))),
    OnnxOperator(("GlobalAveragePool",), "global_average",
                 "x.mean((2, 3), keepdim=True), x.mean(2, keepdim=True)"),
    OnnxOperator(("GlobalMaxPool",), "global_max", "nn.MaxPool2d or nn.MaxPool1d whose kernel covers the map"),
    OnnxOperator(("ReduceMean",), "reduce_mean", "x.mean((2, 3)), x.mean(2)", (
        Attribute("axes", "height and width, or the length"), Attribute("keepdims"), Attribute("noop_with_empty_axes")),
        (("axes", "constant: height and width, or the length"),)),
    OnnxOperator(("Add", "Sub"), "add", "x + y; y times -1 for Sub; with a constant a channel: as batch norm", (),
                 (("A, B", "same shape, or constant: one number or one a channel"),)),
    OnnxOperator(("Mul", "Div"), "multiply", "x * constant, x / constant", (),
                 (("A, B", "one is constant: one number or one a channel; of Div: B"),)),
    OnnxOperator(("Sum",), "sum", "x + y + ...", (), (("all", "same shape, or constant as for Add"),)),
    OnnxOperator(("Concat",), "concat", "torch.cat", (Attribute("axis", "the channels"),),
                 (("all", "computed from the network's input"),)),
    OnnxOperator(("Pad",), "pad", "F.pad", (_only("mode", "constant", "pad with zeros"),),
                 (("pads, axes", "constant; of height and width (or length), or of channels; not negative"),
                  ("constant_value", "0; -inf before MaxPool"))),
    OnnxOperator(("Slice",), "slice", "x[:, :, ::2, ::2], x[:, :, ::2]", (),
                 (("starts, ends, axes, steps", "constant: whole maps with a step"),)),
    OnnxOperator(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"), "view",
                 "nn.Flatten, or nothing where shapes come back, or a height of 1 comes or goes; another order of what "
                 "is flattened becomes one of the weights in the Gemm or MatMul after it",
                 (Attribute("axis"), Attribute("allowzero"), Attribute("perm")),
                 (("shape, axes", "constant, or computed from shapes; the batch dimension stays"),)),
    OnnxOperator(("Shape", "Size"), "shape", "a constant", (Attribute("start"), Attribute("end"))),
    OnnxOperator(("Identity",), "identity", "nothing"),
    OnnxOperator(("Dropout",), "dropout", "nothing", (Attribute("seed"),),
                 (("ratio", "any"), ("training_mode", "constant False"))),
    OnnxOperator(("Cast",), "identity", "nothing", (
        Attribute("to", "a floating-point type", lambda value: value in _FLOATS, "keep activations floating point"),
        Attribute("saturate"), Attribute("round_mode"))),
)
"""Every supported operator."""

BY_OP: dict[str, OnnxOperator] = {op: operator for operator in OPERATORS for op in operator.ops}

HOST: dict[str, tuple[Attribute, ...]] = {
    "Softmax": (Attribute("axis", "the channels"),),
    "LogSoftmax": (Attribute("axis", "the channels"),),
    "ArgMax": (Attribute("axis", "the channels"), Attribute("keepdims"),
               _only("select_last_index", 0, "leave it out")),
    "Sigmoid": (),
}
"""Operators that the network may end in: the class is the same without them, so they are left to the host."""

_NORM = "use BatchNormalization, which folds into the layer before it"
_PRODUCT = "only products with constants run on the array"
_QUANTIZED = "remove it: a recipe chooses the bits and scales of activations itself"
REWRITES: dict[str, str] = {
    "ConvTranspose": "use Conv (transposed convolution, with its output_padding, is not supported)",
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization", "LpNormalization",
                     "MeanVarianceNormalization", "LRN"), _NORM),
    **dict.fromkeys(("PRelu", "Elu", "Selu", "Celu", "Gelu", "HardSwish", "Mish", "Swish", "Softplus",
                     "Softsign", "ThresholdedRelu"), "use Relu"),
    "HardSigmoid": "use Clip from 0 to 1; leave it out at the end: scores keep their order",
    "Tanh": "use Clip from -1 to 1",
    **dict.fromkeys(HOST, "only the last operator may be one: leave it out"),
    "Sigmoid": "use Clip from 0 to 1 (only the last operator may be one)",
    **dict.fromkeys(("DynamicQuantizeLinear", "FakeQuantize"), _QUANTIZED),
    **dict.fromkeys(("QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"), "export the float "
                    "network, or its weights with DequantizeLinear"),
    **dict.fromkeys(("Einsum", "Attention"), _PRODUCT),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Loop", "Scan", "If"), "only networks without recurrence and branches of "
                    "control run on the array"),
    **dict.fromkeys(("Split", "Gather"), "use a Conv for each part"),
    "Neg": "use Mul with -1", "ReduceSum": "use ReduceMean and Mul", "LpPool": "use AveragePool",
    "Max": "use Relu or Clip", "Min": "use Clip",
    **dict.fromkeys(("Resize", "Upsample"), "keep the size of maps, or make them smaller with strides"),
    "Exp": "export the network without what follows its scores",
}
"""What to do about operators that are known and refused."""


def markdown() -> str:
    """The table as Markdown, for the documentation."""
    lines = ["| ONNX | becomes | attributes | inputs |", "|---|---|---|---|"]
    for operator in OPERATORS:
        rules = "; ".join(f"`{attribute.name}`: {attribute.rule}" for attribute in operator.attributes)
        inputs = "; ".join(f"`{name}`: {rule}" for name, rule in operator.inputs)
        lines.append(f"| {', '.join(operator.ops)} | {operator.becomes} | {rules or 'none'} | {inputs or 'any'} |")
    host = "; ".join(f"`{attribute.name}`: {attribute.rule}" for attribute in HOST["ArgMax"])
    lines.append(f"| {', '.join(HOST)}, at the end | left to the host: the class is the same | {host} | any |")
    return "\n".join(lines) + "\n"
