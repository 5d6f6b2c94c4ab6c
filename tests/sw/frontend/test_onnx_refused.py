"""What of ONNX is not taken is refused by the node's name, with the attribute, its value, the rule and the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftwright.hw.arch.errors import UnsupportedError
from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.onnx_lower import load_onnx
from tests.graphs import OnnxGraph

onnx = pytest.importorskip("onnx")

Make = Callable[[OnnxGraph], str]
QUANT = "qonnx.custom_op.general"


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def conv(g: OnnxGraph, x: str = "x", inputs: int = 3, **attributes: Any) -> str:
    """Makes (4, 9, 8) of (3, 9, 8)."""
    return g("Conv", x, g.weights(4, inputs, 3, 3), name="first", **({"pads": [1, 1, 1, 1]} | attributes))


def then(op: str, *inputs: Any, **attributes: Any) -> Make:
    """An operator after a convolution."""
    return lambda g: g(op, conv(g), *inputs, name="bad", **attributes)


def pool(op: str, **attributes: Any) -> Make:
    return then(op, **({"kernel_shape": [2, 2]} | attributes))


def two(op: str, *, swap: bool = False, **attributes: Any) -> Make:
    """An operator of a convolution (4, 9, 8), and its mean (4, 1, 1)."""
    def make(g: OnnxGraph) -> str:
        a = conv(g)
        b = g("GlobalAveragePool", a)
        return g(op, *((b, a) if swap else (a, b)), name="bad", **attributes)

    return make


def quant(*inputs: np.ndarray, op: str = "Quant", **attributes: Any) -> Make:
    """A convolution with weights that QONNX quantizes."""
    def make(g: OnnxGraph) -> str:
        weight = g(op, g.weights(4, 3, 3, 3), *(inputs or (number(1), number(0), number(4))), name="bad", domain=QUANT,
                   **({"signed": 1, "narrow": 0} | attributes))
        return g("Conv", "x", weight)

    return make


def weight_is_computed(g: OnnxGraph) -> str:
    return g("Conv", np.ones((1, 3, 9, 8), np.float32), "x", name="bad")


REFUSED: dict[str, Make] = {
    "leaky": then("LeakyRelu"),
    "softmax": lambda g: g("Conv", g("Softmax", "x", name="bad"), g.weights(1, 3, 1, 1)),
    "sigmoid": lambda g: g("Conv", g("Sigmoid", conv(g), name="bad"), g.weights(2, 4, 1, 1)),
    "transposed": then("ConvTranspose", np.ones((4, 2, 3, 3), np.float32), output_padding=[1, 1], strides=[2, 2]),
    "unknown": then("Sin"),
    "random": lambda g: g("Add", conv(g), g("RandomNormal", shape=[4, 1, 1], name="bad")),
    "conv_kernel": then("Conv", np.ones((1, 4, 3, 3), np.float32), kernel_shape=[3, 1]),
    "conv_pads": then("Conv", np.ones((1, 4, 3, 3), np.float32), pads=[-1, 0, 0, 0]),
    "conv_auto_pad": then("Conv", np.ones((1, 4, 3, 3), np.float32), auto_pad="SAME"),
    "pool_same_cut": pool("AveragePool", auto_pad="SAME_UPPER", strides=[3, 1], kernel_shape=[1, 4]),
    "pool_same_dilated": pool("MaxPool", auto_pad="SAME_LOWER", dilations=[1, 2]),
    "conv_too_large": then("Conv", np.ones((1, 4, 10, 3), np.float32)),
    "conv_weight": lambda g: g("Conv", conv(g), conv(g), name="bad"),
    "conv_input": weight_is_computed,
    "conv_1d": lambda g: g("Conv", g("Reshape", conv(g), integers(0, 4, -1)), g.weights(2, 4, 3), name="bad"),
    "gemm_trans_a": lambda g: g("Gemm", g("Flatten", conv(g)), g.weights(3, 2), transA=1, name="bad"),
    "gemm_c": lambda g: g("Gemm", g("Flatten", conv(g)), g.weights(288, 2), g.weights(3, 1), name="bad"),
    "gemm_b": lambda g: g("Gemm", g("Flatten", conv(g)), g("Flatten", "x"), name="bad"),
    "matmul_map": then("MatMul", np.ones((8, 2), np.float32)),
    "matmul_stack": then("MatMul", np.ones((4, 8, 2), np.float32)),
    "matmul_swapped": lambda g: g("MatMul", g.weights(2, 9), "x", name="bad"),
    "norm_training": lambda g: g("BatchNormalization", conv(g), *(np.ones(4, np.float32),) * 4, name="bad", outputs=3,
                                  training_mode=1),
    "pool_storage": pool("MaxPool", storage_order=1),
    "pool_3d": lambda g: g("MaxPool", g("Unsqueeze", conv(g), integers(2)), kernel_shape=[1, 2, 2], name="bad"),
    "pool_indices": lambda g: g("Cast", g("MaxPool", conv(g), kernel_shape=[2, 2], outputs=2, name="bad") + "b",
                                 to=1),
    "pool_padding_alone": pool("MaxPool", pads=[2, 0, 0, 0]),
    "pool_ceil_valid": pool("MaxPool", strides=[2, 2], auto_pad="VALID", ceil_mode=1),
    "average_excluding": pool("AveragePool", pads=[1, 1, 1, 1]),
    "average_ceil": pool("AveragePool", strides=[2, 2], ceil_mode=1),
    "average_ceil_counted": pool("AveragePool", strides=[2, 2], ceil_mode=1, count_include_pad=1),
    "average_dilated": pool("AveragePool", dilations=[2, 2]),
    "mean_of_channels": then("ReduceMean", integers(1)),
    "mean_of_all": then("ReduceMean"),
    "product": two("Mul"),
    "quotient": lambda g: g("Div", number(1), conv(g), name="bad"),
    "add_broadcast": two("Add"),
    "sub_broadcast": two("Sub", swap=True),
    "add_map": then("Add", np.ones((9, 8), np.float32)),
    "add_rank": then("Add", np.ones((1, 1, 1, 1, 1), np.float32)),
    "concat_rows": lambda g: (lambda a: g("Concat", a, a, axis=2, name="bad"))(conv(g)),
    "concat_constant": then("Concat", np.ones((1, 1, 9, 8), np.float32), axis=1),
    "pad_reflect": then("Pad", integers(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
    "pad_value": then("Pad", integers(0, 0, 1, 1, 0, 0, 1, 1), number(0.5)),
    "pad_both": then("Pad", integers(0, 1, 1, 1, 0, 0, 1, 1)),
    "pad_negative": then("Pad", integers(0, 0, -1, 0, 0, 0, 0, 0)),
    "pad_last": then("Pad", integers(0, 0, 1, 1, 0, 0, 1, 1)),
    "slice_rows": then("Slice", integers(1), integers(9), integers(2), integers(2)),
    "slice_channels": then("Slice", integers(0), integers(2), integers(1)),
    "slice_backwards": then("Slice", integers(-1), integers(-99), integers(2), integers(-1)),
    "gather": then("Gather", integers(0), axis=1),
    "split": lambda g: g("Split", conv(g), axis=1, outputs=2, name="bad", num_outputs=2),
    "reshape": lambda g: g("Relu", g("Reshape", conv(g), integers(0, 2, 2, 9, 8), name="bad")),
    "reshape_batch": then("Reshape", integers(1, -1)),
    "flatten_batch": then("Flatten", axis=0),
    "squeeze_batch": lambda g: g("Squeeze", g("Reshape", conv(g), integers(0, 1, 288)), integers(0), name="bad"),
    "unflatten": lambda g: g("Relu", g("Unsqueeze", g("ReduceMean", conv(g), integers(2, 3), keepdims=0),
                                       integers(2, 3), name="bad")),
    "transpose": lambda g: g("Relu", g("Transpose", conv(g), perm=[0, 2, 3, 1], name="bad")),
    "transpose_image": lambda g: g("Conv", g("Transpose", "x", perm=[0, 2, 3, 1], name="bad"), g.weights(2, 9, 1, 1)),
    "transpose_batch": then("Transpose"),
    "cast": lambda g: g("Cast", g("Cast", conv(g), to=7, name="bad"), to=1),
    "dropout": lambda g: g("Dropout", conv(g), number(0.5), np.array(True), name="bad"),
    "activation_quantized": then("QuantizeLinear", number(0.1), np.array(0, np.int8)),
    "activation_qonnx": lambda g: g("Quant", conv(g), number(1), number(1), number(4), name="bad", domain=QUANT,
                                     signed=1, narrow=0),
    "activation_bipolar": lambda g: g("BipolarQuant", conv(g), number(1), name="bad", domain=QUANT),
    "activation_down": lambda g: g("Quant", conv(g), number(1), number(0), number(4), name="bad", domain=QUANT,
                                   signed=1, narrow=0, rounding_mode="DOWN"),
    "activation_scales": lambda g: g("Quant", conv(g), np.ones((4, 1, 1), np.float32), number(0), number(4),
                                     name="bad", domain=QUANT, signed=1, narrow=0),
    "quant_rounding": quant(rounding_mode="HALF_UP"),
    "quant_signed": quant(signed=2),
    "quant_bits": quant(number(1), number(0), number(1)),
    "quant_attribute": quant(saturate=1),
    "quant_other": quant(op="Trunc"),
    "host_axis": then("Softmax", axis=-1),
    "host_last": lambda g: g("ArgMax", conv(g), axis=1, select_last_index=1, name="bad"),
    "nothing": lambda g: g("Identity", g.weights(1, 2)),
    "clamped_image": lambda g: conv(g, g("Relu", "x", name="bad")),
}
SAID: dict[str, str] = {
    "conv_pads": (
        "bad (Conv): pads=[-1, 0, 0, 0] is not supported, only four numbers that are not negative; cut maps with "
        "strides"),
    "pool_same_cut": (
        "bad (AveragePool): auto_pad='SAME_UPPER' with a kernel of 1 and strides of 3 is not supported; give pads"),
    "pool_same_dilated": "bad (MaxPool): auto_pad='SAME_LOWER' with dilations=[1, 2] is not supported; give pads",
    "pool_ceil_valid": (
        "bad (MaxPool): auto_pad='VALID' with ceil_mode=1 is not supported; set ceil_mode=0, or give pads"),
    "leaky": (
        "bad (LeakyRelu): alpha=0.009999999776482582 is not supported, only 1/2, 1/4, 1/8 ... 1/128; use a power of "
        "two, as 0.125"),
    "softmax": "bad (Softmax): operator Softmax is not supported; only the last operator may be one: leave it out",
    "sigmoid": (
        "bad (Sigmoid): operator Sigmoid is not supported; use Clip from 0 to 1 (only the last operator may be one)"),
    "transposed": (
        "bad (ConvTranspose): operator ConvTranspose is not supported; use Conv (transposed convolution, with its "
        "output_padding, is not supported)"),
    "unknown": "bad (Sin): operator Sin is not supported; see the table of ONNX operators in the documentation",
    "random": "bad (RandomNormal): operator RandomNormal is not supported; export the network in evaluation mode",
    "conv_kernel": "bad (Conv): kernel_shape=[3, 1] is not supported, only that of its weight, [3, 3]; leave it out",
    "conv_auto_pad": (
        "bad (Conv): auto_pad='SAME' is not supported, only NOTSET, VALID, SAME_UPPER, SAME_LOWER; give pads"),
    "conv_too_large": (
        "bad (Conv): kernel_shape=[10, 3] is larger than the map of 9 x 8 with its padding; give images of the "
        "size that it was trained with"),
    "conv_weight": "bad (Conv): its weight is computed from the network's input; use a constant one",
    "conv_input": (
        "bad (Conv): its first input is constant, and another one is not; exchange them: constants can only be its "
        "other inputs"),
    "conv_1d": (
        "Reshape1 (Reshape): makes (N, 4, 72) of (N, 4, 9, 8); only flattening to (N, C*H*W) is supported, and "
        "shapes that come back"),
    "gemm_trans_a": "bad (Gemm): transA=1 is not supported, only 0; put the images in rows",
    "gemm_c": "bad (Gemm): takes a C of shape (3, 1); one number, or one an output, of shape (2,), is supported",
    "gemm_b": "bad (Gemm): its B is computed from the network's input; use a constant one",
    "matmul_map": "bad (MatMul): input has shape (N, 4, 9, 8); put Flatten before it",
    "matmul_stack": "bad (MatMul): takes a constant of 3 dimensions; multiply by a matrix",
    "matmul_swapped": (
        "bad (MatMul): its first input is constant, and another one is not; exchange them: constants can only be "
        "its other inputs"),
    "norm_training": "bad (BatchNormalization): training_mode=1 is not supported, only 0; export in evaluation mode",
    "pool_storage": "bad (MaxPool): storage_order=1 is not supported, only 0; leave it out",
    "pool_3d": "bad (MaxPool): kernel_shape=[1, 2, 2] is not supported, only one- or two-dimensional; use a "
                "kernel of height 1",
    "pool_indices": "bad (MaxPool): its output 't1b' is used, where only the first is supported; leave it out",
    "pool_padding_alone": (
        "bad (MaxPool): pads=[2, 0, 0, 0] makes windows of padding alone; pad by less than the kernel"),
    "average_excluding": (
        "bad (AveragePool): count_include_pad=0 with padding [1, 1, 1, 1] of a map of 9 x 8 is not supported; set "
        "count_include_pad=1, or pad less"),
    "average_ceil": (
        "bad (AveragePool): ceil_mode=1 with a map of 9 x 8 makes windows of different sizes; set ceil_mode=0"),
    "average_ceil_counted": (
        "bad (AveragePool): ceil_mode=1 with a map of 9 x 8 makes windows of different sizes; set ceil_mode=0"),
    "average_dilated": "bad (AveragePool): dilations=[2, 2] is not supported, only 1; use a convolution",
    "mean_of_channels": (
        "bad (ReduceMean): axes=[1] of (N, 4, 9, 8) is not supported, only height and width; use axes [2, 3]"),
    "mean_of_all": (
        "bad (ReduceMean): axes=None of (N, 4, 9, 8) is not supported, only height and width; use axes [2, 3]"),
    "product": (
        "bad (Mul): both inputs are computed from the network's input; only products with constants run on the "
        "array"),
    "quotient": (
        "bad (Div): divides a constant by what is computed from the network's input; only products with constants "
        "run on the array"),
    "add_broadcast": "bad (Add): adds (N, 4, 9, 8) and (N, 4, 1, 1); both must have the same shape",
    "sub_broadcast": "bad (Sub): subtracts (N, 4, 1, 1) and (N, 4, 9, 8); both must have the same shape",
    "add_map": (
        "bad (Add): takes a constant of shape (9, 8); one number, or one a channel, of shape (4, 1, 1), is "
        "supported"),
    "add_rank": (
        "bad (Add): takes a constant of shape (1, 1, 1, 1, 1); one number, or one a channel, of shape (4, 1, 1), "
        "is supported"),
    "concat_rows": "bad (Concat): axis=2 is not supported, only 1; join channels",
    "concat_constant": (
        "bad (Concat): joins a constant to what is computed from the network's input; pad channels with zeros, or "
        "leave it out"),
    "pad_reflect": "bad (Pad): mode='reflect' is not supported, only 'constant'; pad with zeros",
    "pad_value": "bad (Pad): constant_value=0.5 is not supported, only 0, and -inf before MaxPool; pad with 0",
    "pad_both": (
        "bad (Pad): pads=[0, 1, 1, 1, 0, 0, 1, 1] is not supported, only padding of height and width, or of "
        "channels, that is not negative; pad or cut outside the network"),
    "pad_negative": (
        "bad (Pad): pads=[0, 0, -1, 0, 0, 0, 0, 0] is not supported, only padding of height and width, or of "
        "channels, that is not negative; pad or cut outside the network"),
    "pad_last": "the network: ends in padding or a slice; remove it",
    "slice_rows": (
        "bad (Slice): the slice of axis 2 from 1 to 9 with step 2 is not supported; take whole maps with a step, "
        "[:, :, ::s, ::s]"),
    "slice_channels": (
        "bad (Slice): the slice of axis 1 from 0 to 2 with step 1 is not supported; take whole maps with a step, "
        "[:, :, ::s, ::s]"),
    "slice_backwards": (
        "bad (Slice): the slice of axis 2 from -1 to -99 with step -1 is not supported; take whole maps with a "
        "step, [:, :, ::s, ::s]"),
    "gather": "bad (Gather): operator Gather is not supported; use a Conv for each part",
    "split": "bad (Split): operator Split is not supported; use a Conv for each part",
    "reshape": (
        "bad (Reshape): makes (N, 2, 2, 9, 8) of (N, 4, 9, 8); only flattening to (N, C*H*W) is supported, and "
        "shapes that come back"),
    "reshape_batch": (
        "bad (Reshape): changes (N, 4, 9, 8) to (1, 288*N); keep one row an image: export with a free batch "
        "dimension"),
    "flatten_batch": (
        "bad (Flatten): changes (N, 4, 9, 8) to (1, 288*N); keep one row an image: export with a free batch "
        "dimension"),
    "squeeze_batch": (
        "bad (Squeeze): changes (N, 1, 288) to (1, 288); keep one row an image: export with a free batch dimension"),
    "unflatten": (
        "bad (Unsqueeze): makes (N, 4, 1, 1) of (N, 4); only flattening to (N, C*H*W) is supported, and shapes "
        "that come back"),
    "transpose": (
        "bad (Transpose): changes the order of (N, 4, 9, 8); only a Gemm or MatMul can read it so, after it is "
        "flattened; keep the layout N, C, H, W (tf2onnx: --inputs-as-nchw)"),
    "transpose_image": (
        "bad (Transpose): changes the order of (N, 3, 9, 8); only a Gemm or MatMul can read it so, after it is "
        "flattened; keep the layout N, C, H, W (tf2onnx: --inputs-as-nchw)"),
    "transpose_batch": (
        "bad (Transpose): perm=[3, 2, 1, 0] is not supported, only one that begins with 0; keep the images first"),
    "cast": "bad (Cast): to=7 is not supported, only a floating-point type; keep activations floating point",
    "dropout": "bad (Dropout): training_mode=True is not supported, only False; export in evaluation mode",
    "activation_quantized": (
        "bad (QuantizeLinear): makes the network's output; export with a DequantizeLinear after it"),
    "activation_qonnx": (
        "bad (Quant): its zero point is 1.0, where only 0 is supported, and what leaves 8 bits; quantize activations "
        "symmetrically, or without sign after Relu"),
    "activation_bipolar": (
        "bad (BipolarQuant): operator BipolarQuant of what is computed from the network's input is not supported; use "
        "Quant"),
    "activation_down": (
        "bad (Quant): rounding_mode='DOWN' of what may be negative is not supported; use ROUND"),
    "activation_scales": (
        "bad (Quant): its scale is shape (4, 1, 1), but an activation has one, greater than 0; quantize activations "
        "with one scale for the whole tensor"),
    "quant_rounding": (
        "bad (Quant): rounding_mode='HALF_UP' is not supported, only one of ROUND, HALF_EVEN, CEIL, FLOOR, DOWN; "
        "export the weights themselves, as initializers"),
    "quant_signed": (
        "bad (Quant): signed=2 is not supported, only 0 or 1; export the weights themselves, as initializers"),
    "quant_bits": (
        "bad (Quant): bitwidth=1.0 is not supported, only one whole number, from 2 on if signed (BipolarQuant is for "
        "one bit); export the weights themselves, as initializers"),
    "quant_attribute": (
        "bad (Quant): saturate=1 is not supported, only the attributes of version 1; export the weights "
        "themselves, as initializers"),
    "quant_other": (
        "bad (Trunc): is an operator of 'qonnx.custom_op.general' that is not read; of these only Quant and "
        "BipolarQuant of constants are"),
    "host_axis": "bad (Softmax): axis=-1 is not supported, only 1, the classes; leave it out",
    "host_last": "bad (ArgMax): select_last_index=1 is not supported, only 0; leave it out",
    "nothing": "t0: does not depend on the network's input; export the network again",
    "clamped_image": "bad (Relu): clamps the network's input; remove it: images are not negative",
}
OPSETS = dict.fromkeys(("mean_of_channels", "unflatten", "split"), 18) | {"average_dilated": 19}


def message(path: Path, name: str) -> str:
    graph = OnnxGraph(opset=OPSETS.get(name, 17))
    graph.output_type = {"activation_quantized": onnx.TensorProto.INT8, "host_last": onnx.TensorProto.INT64}.get(
        name, graph.output_type)
    graph.save(path, REFUSED[name](graph))
    with pytest.raises(UnsupportedError) as caught:
        capture(load_onnx(path).module, (3, 9, 8))
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str, tmp_path: Path, one_thread: None) -> None:
    assert message(tmp_path / "m.onnx", name) == SAID[name]
