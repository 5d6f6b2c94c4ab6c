"""Quantized ONNX files taken over as they are: ONNX Runtime is the judge, bit for bit."""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from shiftwright.hw.arch.config import ROUNDINGS, AcceleratorConfig
from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sim.interpreter import run as interpret
from shiftwright.sim.regression import RegressionCase, regression
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.compress.api import compress
from shiftwright.sw.compress.kept import step_of
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.frontend.load import load_model
from shiftwright.sw.network import QuantizedNetwork
from tests.graphs import OnnxGraph
from tests.sw.compress.recipes import SEED, digits
from tests.sw.frontend.onnx_runtime import run

pytestmark = pytest.mark.usefixtures("one_thread")

QUANT = "qonnx.custom_op.general"
BREVITAS = Path(__file__).with_name("brevitas")
IMAGES = 24
NETWORKS = 48


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


class Quantized(OnnxGraph):
    """A network in the making whose weights and activations are quantized, on images of 8 x 8."""

    def __init__(self, seed: int = SEED, *, qonnx: bool = False) -> None:
        super().__init__(("N", 1, 8, 8))
        self.rng, self.qonnx = np.random.default_rng(seed), qonnx
        self.zeros = np.random.default_rng(seed + 1)
        self.scales: dict[str, float] = {}
        self.channels: dict[str, int] = {"x": 1}

    def rounded(self, x: str, exponent: int, bits: int = 8, signed: bool = False, *, channels: int = 0) -> str:
        """What a quantizer makes of a tensor."""
        scale = number(2.0**exponent)
        if self.qonnx:
            made = self("Quant", x, scale, number(0), number(bits), domain=QUANT, signed=int(signed), narrow=0,
                        rounding_mode="ROUND")
        else:
            kind, zero = np.int8 if signed else np.uint8, 0
            if self.zeros.random() < 0.3:  # the same values as integers of the other kind
                kind, zero = (np.uint8, 128) if signed else (np.int8, -128)
            made = self("QuantizeLinear", x, scale, np.array(zero, kind))
            if bits < 8:
                low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
                made = self("Clip", made, np.array(low + zero, kind), np.array(high + zero, kind))
            made = self("DequantizeLinear", made, scale, np.array(zero, kind))
        self.scales[made], self.channels[made] = 2.0**exponent, channels or self.channels[x]
        return made

    def conv(self, x: str, channels: int, *, kernel: int = 3, bits: int = 4, each: bool = False, group: int = 1,
             fine: int | None = None, op: str = "Conv") -> str:
        """A convolution with weights of so many bits, with a step of its own for `each` channel, and a bias in units of
        the accumulator, or `fine` as many times."""
        taken = self.channels[x] * (64 if op == "Gemm" else 1)
        shape = (channels, taken) if op == "Gemm" else (channels, taken // group, kernel, kernel)
        high = (1 << bits - 1) - 1
        levels = self.rng.integers(-high, high + 1, shape)
        levels.reshape(-1)[0] = high
        step = 2.0 ** self.rng.integers(-7, -4, (channels if each else 1, *(1 for _ in shape[1:])))
        unit = self.scales[x] * step.reshape(-1) / 2**(fine or 0)
        bias = self.rng.integers(-40, 41, channels) * (self.rng.random() if fine is None else 1.0) * unit
        if fine is None:
            bias = np.round(bias * 997) / 1024
        options = {"transB": 1} if op == "Gemm" else {"pads": [kernel // 2] * 4, "group": group}
        made = self(op, x, (levels * step).astype(np.float32), bias.astype(np.float32), **options)
        self.channels[made] = channels
        return made

    def relu(self, x: str) -> str:
        made = self("Relu", x)
        self.channels[made] = self.channels[x]
        return made

    def finish(self, path: Path, x: str) -> Path:
        """Write the network with ten classes."""
        x_flat = self("Flatten", x)
        self.scales[x_flat], self.channels[x_flat] = self.scales[x], self.channels[x]
        return self.save(path, self.conv(x_flat, 10, fine=0, op="Gemm"))


def images(seed: int = SEED) -> torch.Tensor:
    """Pixels of 8 bits."""
    return torch.tensor(np.random.default_rng(seed).integers(0, 256, (IMAGES, 1, 8, 8)) / 256).float()


def kept(path: Path, **options: object) -> QuantizedNetwork:
    loaded = load_model(str(path))
    return compress(loaded.model, load_recipe("keep").replace(**options), digits(20), input_shape=loaded.input_shape)


def scores(network: QuantizedNetwork, given: torch.Tensor) -> np.ndarray:
    """Real values of the golden model, which the compiled image's equal."""
    x = network.quantize_input(given.numpy())
    made = golden.run(network, x)
    image = compile_(network, AcceleratorConfig(weight_depth=1 << 15, act_depth=4096, rounding=network.rounding,
                                                max_shift=network.max_shift))
    np.testing.assert_array_equal(interpret(image.to_bytes(), x[:2]).final.reshape(2, -1), made[:2].reshape(2, -1))
    return made.reshape(len(x), -1) * 2.0**network.output.exponent


def random(g: Quantized, seed: int) -> str:
    """Layers, poolings, an addition, a concatenation; a function of the seed alone."""
    rng = np.random.default_rng(seed)
    x = g.rounded("x", -8 if rng.random() < 0.7 else -6, 8 if rng.random() < 0.7 else 6)
    for _ in range(rng.integers(1, 4)):
        bits, exponent = int(rng.integers(1, 9)), int(rng.integers(-6, -2))
        fine = [0, 1, None][rng.integers(3)]
        made = g.conv(x, int(rng.integers(2, 6)), kernel=int(rng.choice([1, 3, 5])), bits=int(rng.integers(2, 7)),
                      each=rng.random() < 0.5, fine=fine)
        signed = rng.random() < 0.3 and bits > 1
        y = g.rounded(made if signed else g.relu(made), exponent, bits, signed)
        kind = rng.choice(["", "add", "cat", "depthwise"])
        if kind == "depthwise":
            y = g.rounded(g.relu(g.conv(y, g.channels[y], group=g.channels[y], fine=0)), exponent)
        elif kind:
            z = g.rounded(g.relu(g.conv(x, g.channels[y], kernel=1, fine=0)), exponent)
            y = y if not signed else g.rounded(g.relu(g.conv(y, g.channels[z], fine=0)), exponent)
            made = g("Add", y, z) if kind == "add" else g("Concat", y, z, axis=1)
            channels = g.channels[y] * (1 if kind == "add" else 2)
            g.channels[made], g.scales[made] = channels, 2.0**exponent
            y = g.rounded(made, exponent + 1) if kind == "add" else made
        x = y
    pooled = rng.choice(["", "MaxPool", "AveragePool"])
    if pooled:
        made = g(str(pooled), x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]) if pooled == "MaxPool" else g(
            str(pooled), x, kernel_shape=[2, 2], strides=[1, 1], auto_pad="SAME_UPPER", count_include_pad=1)
        g.channels[made], g.scales[made] = g.channels[x], g.scales[x]
        x = made if pooled == "MaxPool" else g.rounded(made, -3, 8, True, channels=g.channels[x])
    return x


@pytest.mark.parametrize(("first", "count"), [(0, 4), pytest.param(4, NETWORKS, marks=pytest.mark.regress)])
def test_random_networks_are_exact(first: int, count: int, tmp_path: Path) -> None:
    exact = 0
    for seed in range(first, first + count):
        given, results = images(seed), []
        for qonnx in (False, True):
            g = Quantized(seed, qonnx=qonnx)
            path = g.finish(tmp_path / f"{seed}{qonnx}.onnx", random(g, seed))
            network = kept(path)
            results.append(scores(network, given))
        np.testing.assert_array_equal(*results)
        if network.metadata["exact"]:
            exact += 1
            np.testing.assert_array_equal(results[0], run(tmp_path / f"{seed}False.onnx", given)[0])
        else:
            assert all("halves" in difference for difference in network.metadata["differences"])
    assert exact >= 0.7 * count


@pytest.mark.parametrize("kind", ["qonnx", "qcdq"])
def test_brevitas_fixed_point(kind: str) -> None:
    """Files that Brevitas 0.13.4 wrote: signed input, 3-bit weights, 4-bit activations, 32-bit biases."""
    network, given = kept(BREVITAS / f"fixed.{kind}.onnx"), images()
    assert network.metadata["exact"] and network.rounding == "half_even" and network.input.signed
    expected = [run(BREVITAS / "fixed.qcdq.onnx", each)[0] for each in given.split(1)]
    np.testing.assert_array_equal(scores(network, given), np.concatenate(expected))


@pytest.mark.parametrize("kind", ["qonnx", "qcdq"])
def test_brevitas_float_scales(kind: str) -> None:
    network, given = kept(BREVITAS / f"float.{kind}.onnx"), images()
    assert not network.metadata["exact"] and network.rounding == "half_up"
    first, *rest = network.metadata["differences"]
    assert first.startswith("input: images are rounded to multiples of 0.0078125, where the file rounds them to ")
    assert rest == [f"layer {name}: scales of 8 of 8 channels are sums of powers of two near the file's"
                    for name in ("c1_Conv", "c2_Conv")]
    expected = np.concatenate([run(BREVITAS / "float.qcdq.onnx", each)[0] for each in given.split(1)])
    made = scores(network, given)
    made *= np.vdot(made, expected) / np.vdot(made, made)  # the scores' unit is no power of two
    assert np.abs(made - expected).max() < 0.01 * expected.std()


@pytest.mark.parametrize(("mode", "function"), [("FLOOR", np.floor), ("CEIL", np.ceil), ("DOWN", np.trunc),
                                                ("ROUND", np.round)])
@pytest.mark.parametrize("device", ROUNDINGS)
def test_rounding_modes(mode: str, function: Callable[[np.ndarray], np.ndarray], device: str, tmp_path: Path) -> None:
    g, scale, given = Quantized(), 2.0**-7, images()
    made = g("Relu", g.conv(g.rounded("x", -8), 3, fine=0, bits=3))
    g.save(tmp_path / "float.onnx", made)
    g.save(tmp_path / "m.onnx", g("Quant", made, number(scale), number(0), number(8), domain=QUANT, signed=0, narrow=0,
                                  rounding_mode=mode))
    network = kept(tmp_path / "m.onnx", rounding=device)
    expected = (function(run(tmp_path / "float.onnx", given)[0] / scale).clip(0, 255) * scale).reshape(IMAGES, -1)
    different = int((scores(network, given) != expected).sum())
    assert network.metadata["exact"] == (mode != "ROUND" or device == "half_even") == (different == 0)


def test_a_batch_norm_becomes_scales(tmp_path: Path) -> None:
    g, given = Quantized(), images()
    numbers = (1.3, -0.7, 0.9), (0.1, 0.2, -0.1), (0.05, 0, 0.1), (0.8, 1.1, 0.6)
    made = g("BatchNormalization", g.conv(g.rounded("x", -8), 3, fine=0, bits=6),
             *(np.array(values, np.float32) for values in numbers))
    g.save(tmp_path / "m.onnx", g.rounded(g("Relu", made), -6, channels=3))
    network = kept(tmp_path / "m.onnx")
    (layer,) = (layer.name for layer in network.layers)
    assert network.metadata["differences"] == [
        f"layer {layer}: scales of 3 of 3 channels are sums of powers of two near the file's"]
    away = np.abs(scores(network, given) - run(tmp_path / "m.onnx", given)[0].reshape(IMAGES, -1)) * 2.0**6
    assert away.max() == 1 and (away > 0).mean() < 0.25


@pytest.mark.parametrize(("values", "step"), [
    ([0.75, -1.5, 0], Fraction(3, 4)), ([0.25, 0.75, 1.5], Fraction(1, 4)), ([0, 0], Fraction(1)), ([85.0, 1], 1),
    ([1024.5, 2], None), ([0.1, 0.2, -0.7], 0.1), ([0.3, 0.5, 0.7], 0.1), ([0.1, 0.21, 0.7135], None)])
def test_steps(values: list[float], step: float | Fraction | None) -> None:
    found = step_of(np.array(values, np.float32).astype(np.float64), 170)
    if step == Fraction(3, 4):
        assert found == Fraction(1, 4) or found == step
    else:
        assert found is None if step is None else float(found or 0) == pytest.approx(float(step), rel=1e-5)


def test_other_recipes_take_the_network_too(tmp_path: Path) -> None:
    g = Quantized()
    path = g.finish(tmp_path / "m.onnx", g.rounded(g.relu(g.conv(g.rounded("x", -8), 3, fine=0)), -3))
    loaded = load_model(str(path))
    network = compress(loaded.model, load_recipe("ptq", settings=["slope=0.0"]), digits(100),
                       input_shape=loaded.input_shape)
    given = images()
    expected, made = run(path, given)[0], scores(network, given)
    assert np.corrcoef(made.ravel(), expected.ravel())[0, 1] > 0.95


def _unquantized_activation(g: Quantized) -> str:
    x = g.relu(g.conv(g.rounded("x", -8), 3, fine=0))
    g.scales[x] = 1.0
    return x


def _unquantized_weights(g: Quantized) -> str:
    x = g("Conv", g.rounded("x", -8), g.weights(3, 1, 3, 3), pads=[1, 1, 1, 1])
    return g.rounded(x, -3, channels=3)


def _different_steps(g: Quantized) -> str:
    x = g.rounded("x", -8)
    parts = [g.rounded(g.relu(g.conv(x, 2, fine=0)), exponent) for exponent in (-3, -4)]
    made = g("Concat", *parts, axis=1)
    g.scales[made], g.channels[made] = 0.125, 4
    return made


def _clamped_beside(g: Quantized) -> str:
    made = g("Clip", g.rounded(g.conv(g.rounded("x", -8), 3, fine=0), -3, 8, True), number(-0.3), number(1))
    g.scales[made], g.channels[made] = 0.125, 3
    return made


def _zero_point(last: int, first: int | None = None) -> Callable[[Quantized], str]:
    def make(g: Quantized) -> str:
        zeros = [np.array(last if zero is None else zero, np.uint8) for zero in (first, last)]
        made = g("QuantizeLinear", g.conv(g.rounded("x", -8), 3, fine=0), number(0.125), zeros[0],
                 name="bad" if first is None else "one")
        made = g("DequantizeLinear", made, number(0.125), zeros[1], name="" if first is None else "bad")
        g.scales[made], g.channels[made] = 0.125, 3
        return made

    return make


def _too_wide(g: Quantized) -> str:
    made = g("Quant", g.conv(g.rounded("x", -8), 3, fine=0), number(1), number(0), number(9), domain=QUANT, signed=1,
             narrow=0, name="bad")
    g.scales[made], g.channels[made] = 1, 3
    return made


def _two_scales(g: Quantized) -> str:
    made = g("QuantizeLinear", g.conv(g.rounded("x", -8), 3, fine=0), number(0.125), np.array(0, np.int8), name="one")
    made = g("DequantizeLinear", made, number(0.25), np.array(0, np.int8), name="bad")
    g.scales[made], g.channels[made] = 0.25, 3
    return made


def _integers_read(g: Quantized) -> str:
    made = g("QuantizeLinear", g.conv(g.rounded("x", -8), 3, fine=0), number(0.125), np.array(0, np.int8), name="one")
    made = g("MaxPool", made, kernel_shape=[1, 1], name="bad")
    made = g("DequantizeLinear", made, number(0.125), np.array(0, np.int8))
    g.scales[made], g.channels[made] = 0.125, 3
    return made


@pytest.mark.parametrize(("make", "message"), [
    (_unquantized_activation, "layer Conv2: what it makes is not quantized, but layer Gemm5 reads it; the recipe keep "
                              "takes networks whose activations are quantized, another recipe quantizes them"),
    (_unquantized_weights, "layer Conv2: the weights of channel 0 are no whole multiples of a step, at most 170 times "
                           "it; the recipe keep takes quantized weights, another recipe quantizes them"),
    (_different_steps, "concatenation Concat10: what it joins is rounded to multiples of 0.125 and 0.0625; quantize "
                       "all of it alike, by one quantizer"),
    (_clamped_beside, "Clip5 (Clip): clamps to -0.3 and 1, but multiples of 0.125 are there already; put the "
                      "quantizer after it"),
    (_zero_point(3), "bad (QuantizeLinear): its zero point is 3, where only 0 is supported, and what leaves 8 bits; "
                     "quantize activations symmetrically, or without sign after Relu"),
    (_zero_point(100), "bad (QuantizeLinear): its integers less the zero point 100, from -100 to 155, have 9 bits; "
                       "quantize activations symmetrically, or without sign after Relu"),
    (_zero_point(128, 0), "bad (DequantizeLinear): its zero point is 128, that of one (QuantizeLinear) 0; give both "
                          "the same"),
    (_too_wide, "bad (Quant): its integers, from -256 to 255, have 9 bits; give activations at most 8"),
    (_two_scales, "bad (DequantizeLinear): its scale is 0.25, that of one (QuantizeLinear) 0.125; give both the same"),
    (_integers_read, "bad (MaxPool): reads the integers of one (QuantizeLinear); export with a DequantizeLinear after "
                     "it"),
], ids=lambda value: value.__name__.strip("_") if callable(value) else "")
def test_what_is_refused(make: Callable[[Quantized], str], message: str, tmp_path: Path) -> None:
    g = Quantized()
    path = g.finish(tmp_path / "m.onnx", make(g))
    with pytest.raises(ModelError) as caught:
        kept(path)
    assert str(caught.value) == message


def test_options() -> None:
    with pytest.raises(ModelError, match="recipe keep: rounding must be one of auto, half_up, half_even, not 'up'"):
        load_recipe("keep", settings=["rounding=up"])
    assert dataclasses.asdict(load_recipe("keep", settings=["acc_bits=32"]))["acc_bits"] == 32


@pytest.mark.regress
def test_on_the_rtl() -> None:
    network = kept(BREVITAS / "fixed.qonnx.onnx")
    config = AcceleratorConfig(lanes_y=4, lanes_x=2, streams=2, weight_depth=4096, act_depth=512, rounding="half_even")
    case = RegressionCase(name="brevitas", network=network, inputs=network.quantize_input(images()[:2].numpy()))
    assert regression(config, [case], seed=SEED).images == 2
