"""The golden model against the definition, written out tap by tap in Python's integers."""

import dataclasses
import itertools
import json
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sim import golden
from shiftwright.sw.network import Concat, Layer, QuantizedNetwork, Residual, TensorSpec, Term

SEED = 20260731


pytestmark = pytest.mark.usefixtures("one_thread")


def spec(name, channels, height, width, bits=8, signed=False):
    return TensorSpec(name=name, channels=channels, height=height, width=width, bits=bits, signed=signed, exponent=0)


def scale_terms(rng, most=4):
    exponents = [0, *sorted(rng.sample(range(1, 9), rng.randrange(most)))]
    return tuple(Term(rng.random() < 0.3, exponent) for exponent in exponents)


def random_layer(rng, op, max_shift=7):
    groups = rng.choice([1, 1, 2, 3]) if op == "conv" else 1
    channels = groups * rng.randint(1, 2)
    kernel = rng.randint(1, 3), rng.randint(1, 3)
    stride, dilation = (rng.randint(1, 3), rng.randint(1, 2)), (rng.randint(1, 2), rng.randint(1, 3))
    padding = tuple(rng.randint(0, kernel[axis % 2] - 1) for axis in range(4))
    out = rng.randint(1, 3), rng.randint(1, 3)
    padded = [padding[axis] + padding[axis + 2] for axis in (0, 1)]
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    size = [max(1, reach[axis] + stride[axis] * (out[axis] - 1) - padded[axis]) for axis in (0, 1)]
    out = [(size[axis] + padded[axis] - reach[axis]) // stride[axis] + 1 for axis in (0, 1)]
    signed = op == "leaky" or rng.random() < 0.5
    if op == "leaky":
        kernel, stride, dilation, padding, out = (1, 1), (1, 1), (1, 1), (0, 0, 0, 0), size
    rows = groups * rng.randint(1, 3) if op == "conv" else channels
    codebook, indices = (), None
    if op == "conv":
        codebook = tuple(tuple(Term(rng.random() < 0.5, shift) for shift in rng.sample(range(max_shift + 1), count))
                         for count in (0, 1, 1, 2, 3))
        shape = rows, channels // groups, *kernel
        indices = np.array([rng.randrange(5) for _ in range(int(np.prod(shape)))], np.uint8).reshape(shape)
    return Layer(
        name=op, op=op, source=spec("x", channels, *size, rng.randint(2, 8), signed),
        target=spec("y", rows, *out, 8, True), kernel=kernel, stride=stride, padding=padding, dilation=dilation,
        groups=groups, indices=indices, codebook=codebook, bias=np.array([rng.randint(-500, 500) for _ in range(rows)]),
        scale=tuple(scale_terms(rng) for _ in range(rows)), shift=np.array([rng.randint(9, 14) for _ in range(rows)]),
        qmin=rng.choice([-128, 0]), qmax=127, leak=rng.randint(1, 7) if op == "leaky" else 0)


def reference(layer, x, max_shift, guard_bits, rounding="half_up"):
    """Accumulators and outputs by the definition, one product at a time; None where a window has no tap inside."""
    truncate = max_shift - guard_bits
    accs, outputs = np.zeros((2, *layer.target.shape), object)
    per_group_in, per_group_out = (layer.source.channels // layer.groups, layer.target.channels // layer.groups)
    for c, oy, ox in itertools.product(*map(range, layer.target.shape)):
        products = []
        inputs = range(per_group_in) if layer.op == "conv" else [c]
        for ky, kx, ci in itertools.product(range(layer.kernel[0]), range(layer.kernel[1]), inputs):
            y = oy * layer.stride[0] + ky * layer.dilation[0] - layer.padding[0]
            x_ = ox * layer.stride[1] + kx * layer.dilation[1] - layer.padding[1]
            if not (0 <= y < layer.source.height and 0 <= x_ < layer.source.width):
                continue
            if layer.op != "conv":
                products.append(int(x[ci, y, x_]))
                continue
            value = int(x[c // per_group_out * per_group_in + ci, y, x_])
            for term in layer.codebook[layer.indices[c, ci, ky, kx]]:
                product = (value << term.shift) >> truncate
                products.append(-product if term.neg else product)
        if layer.op == "maxpool" and not products:
            return None
        acc = max(products) if layer.op == "maxpool" else sum(products)
        if layer.op == "leaky":
            acc = acc << layer.leak if acc > 0 else acc
        scale = sum((-1) ** term.neg * 2**term.shift for term in layer.scale[c])
        shift = int(layer.shift[c])
        exact = Fraction((acc + int(layer.bias[c])) * scale, 2**shift)
        rounded = round(exact) if rounding == "half_even" else math.floor(exact + Fraction(1, 2))
        accs[c, oy, ox] = acc
        outputs[c, oy, ox] = min(max(rounded, layer.qmin), layer.qmax)
    return accs, outputs


def random_input(rng, source, count=2):
    low, high = source.range
    values = [rng.choice([low, high, rng.randint(low, high)]) for _ in range(count * int(np.prod(source.shape)))]
    return np.array(values).reshape(count, *source.shape)


@pytest.mark.parametrize(("guard_bits", "rounding"), [(7, "half_up"), (4, "half_even"), (0, "half_up")])
@pytest.mark.parametrize("op", ["conv", "maxpool", "avgpool", "leaky"])
def test_against_the_definition(op, guard_bits, rounding):
    rng = random.Random(f"{SEED} {op} {guard_bits}")
    checked = 0
    for _ in range(40):
        layer = random_layer(rng, op)
        network = QuantizedNetwork(input=layer.source, layers=(layer,), guard_bits=guard_bits, rounding=rounding)
        x = random_input(rng, layer.source)
        expected = [reference(layer, image, 7, guard_bits, rounding) for image in x]
        if expected[0] is None:
            with pytest.raises(ModelError, match="wholly in the padding"):
                golden.run(network, x)
            continue
        result = golden.run(network, x)
        assert result.dtype == np.int64
        np.testing.assert_array_equal(result, [outputs for _, outputs in expected])
        raw_layer = dataclasses.replace(layer, raw=True, target=dataclasses.replace(layer.target, bits=32))
        raw = golden.run(QuantizedNetwork(input=layer.source, layers=(raw_layer,), guard_bits=guard_bits), x)
        np.testing.assert_array_equal(raw, [accs + layer.bias.reshape(-1, 1, 1) for accs, _ in expected])
        checked += 1
    assert checked > 20


def identity(source, name, *, stride=(1, 1), channels=None, raw=False, **changes):
    """A 1 x 1 depthwise layer (dense where `channels` differs) of weights 1."""
    channels = source.channels if channels is None else channels
    groups = channels if channels == source.channels else 1
    height, width = (-(-size // step) for size, step in zip(source.shape[1:], stride))
    target = spec(name, channels, height, width, 32 if raw else 8, raw or source.signed)
    low, high = target.range
    fields = {"name": name, "op": "conv", "source": source, "target": target, "kernel": (1, 1), "stride": stride,
              "groups": groups, "indices": np.zeros((channels, source.channels // groups, 1, 1), np.uint8),
              "codebook": ((Term(False, 0),),), "bias": np.zeros(channels, np.int64), "raw": raw,
              "scale": ((Term(False, 0),),) * channels, "shift": np.zeros(channels, np.int64), "qmin": low,
              "qmax": high}
    return Layer(**{**fields, **changes})


@pytest.mark.parametrize("guard_bits", [7, 3, 0])
@pytest.mark.parametrize("offset", [0, 2, -1])
def test_residuals_against_the_definition(guard_bits, offset):
    rng = random.Random(f"{SEED} {guard_bits} {offset}")
    source = spec("x", 4, 5, 6, signed=True)
    narrow = identity(source, "narrow", channels=3)
    terms = (Term(False, 6), Term(True, 4), Term(True, 1), Term(False, 7), Term(False, 7))
    joined = Residual(source=source, terms=terms, stride=(2, 3), channel_offset=offset)
    last = identity(narrow.target, "last", channels=5, stride=(2, 3), raw=True,
                    residuals=(joined, dataclasses.replace(joined, source=narrow.target, terms=terms[1:2])))
    network = QuantizedNetwork(input=source, layers=(narrow, last), guard_bits=guard_bits)
    x = random_input(rng, source)
    outputs = golden.run(network, x, layers=True)
    plain = dataclasses.replace(network, layers=(narrow, dataclasses.replace(last, residuals=())))
    expected = golden.run(plain, x)
    for values, used in ((x, terms), (outputs["narrow"], terms[1:2])):
        for n, c, y, column in itertools.product(*map(range, expected.shape)):
            if 0 <= c - offset < values.shape[1]:
                value = int(values[n, c - offset, 2 * y, 3 * column])
                expected[n, c, y, column] += sum(
                    (-1) ** term.neg * (value << term.shift >> 7 - guard_bits) for term in used)
    np.testing.assert_array_equal(outputs["last"], expected)


def concatenated():
    """input -> a; [a, input] = both; both -> b; [both, b] = all; all -> last."""
    source = spec("input", 2, 3, 2)
    a = identity(source, "a", channels=3)
    both = Concat(target=spec("both", 5, 3, 2), parts=(a.target, source))
    b = identity(both.target, "b", bias=np.arange(5))
    everything = Concat(target=spec("all", 10, 3, 2), parts=(both.target, b.target))
    last = identity(everything.target, "last", residuals=(
        Residual(source=both.target, terms=(Term(False, 0),), channel_offset=5),))
    return QuantizedNetwork(input=source, layers=(a, b, last), concats=(everything, both), metadata={"seed": 1})


def test_concatenations():
    network = concatenated()
    assert [step.target.name for step in network.steps] == ["a", "both", "b", "all", "last"]
    x = random_input(random.Random(SEED), network.input, 3) // 4
    a = np.repeat(x.sum(axis=1, keepdims=True), 3, axis=1)
    both = np.concatenate([a, x], axis=1)
    b = both + np.arange(5).reshape(1, 5, 1, 1)
    np.testing.assert_array_equal(golden.run(network, x), np.concatenate([both, b + both], axis=1).clip(0, 255))


def test_a_file_keeps_residuals_and_concatenations(tmp_path):
    network = concatenated()
    network.save(tmp_path / "net.swc")
    found = QuantizedNetwork.load(tmp_path / "net.swc")
    assert (found.input, found.concats, found.metadata) == (network.input, network.concats, network.metadata)
    for before, after in zip(network.layers, found.layers, strict=True):
        for field in dataclasses.fields(Layer):
            one, two = getattr(before, field.name), getattr(after, field.name)
            assert np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two, field.name


def test_a_file_keeps_the_rounding(tmp_path):
    path = tmp_path / "net.swc"
    dataclasses.replace(concatenated(), rounding="half_even").save(path)
    assert QuantizedNetwork.load(path).rounding == "half_even"
    with safe_open(path, framework="numpy") as file:
        structure = json.loads(file.metadata()["shiftwright"])
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    # Files were written before there was another.
    del structure["rounding"]
    save_file(arrays, path, metadata={"shiftwright": json.dumps(structure)})
    assert QuantizedNetwork.load(path).rounding == "half_up"


def wired(**changes):
    """Two identity layers of one source; `changes` go to the second one."""
    source = spec("x", 2, 4, 4)
    first = identity(source, "first")
    last = dataclasses.replace(identity(first.target, "last"), **changes)
    return QuantizedNetwork(input=source, layers=(first, last))


def residual(source=None, **changes):
    return (Residual(**{"source": spec("x", 2, 4, 4) if source is None else source, "terms": (Term(False, 0),),
                        **changes}),)


MISWIRED = {
    "unknown": (lambda: wired(source=spec("z", 2, 4, 4)), "layer last: its source 'z' is neither the network's input"),
    "changed": (lambda: wired(source=spec("first", 2, 4, 4, 7)), "layer last: its source is .*bits=7.* that tensor is"),
    "named_twice": (lambda: wired(target=spec("x", 2, 4, 4)), "layer last: another tensor is named 'x'"),
    "raw_source": (lambda: wired(source=spec("first", 2, 4, 4, 32)),
                   "has 32 bits; only the network's output may be raw"),
    "groups": (lambda: wired(groups=3), "2 channels of first can't be divided into 3 groups"),
    "later_residual": (lambda: wired(residuals=residual(spec("z", 2, 4, 4))), "layer last: its source 'z'"),
    "residual_sign": (lambda: wired(residuals=residual(spec("x", 2, 4, 4, signed=True))),
                      "layer last: residual x is signed but the source first is not; make the addition a layer"),
    "residual_size": (lambda: wired(residuals=residual(stride=(2, 1))), "stride 2 needs 7 pixels .* of 4, but has 4"),
    "residual_offset": (lambda: wired(residuals=residual(channel_offset=2)), "channel_offset 2 misses all .* 2 output"),
    "residual_terms": (lambda: wired(residuals=residual(terms=())), "residual x has no terms"),
    "residual_of_pool": (lambda: wired(op="maxpool", residuals=residual()), "joins a layer of kind maxpool"),
    "concat_channels": (lambda: Concat(target=spec("c", 3, 4, 4), parts=(spec("x", 2, 4, 4),)),
                        r"concatenation c: parts of \[2\] channels don't make 3"),
    "concat_format": (lambda: Concat(target=spec("c", 2, 4, 4), parts=(spec("x", 2, 4, 4, 7),)),
                      "concatenation c: its parts must have bits 8, but x has 7"),
    "concat_unknown": (lambda: dataclasses.replace(wired(), concats=(
        Concat(target=spec("c", 2, 4, 4), parts=(spec("z", 2, 4, 4),)),)),
        "concatenation c: its source 'z' is neither"),
}


@pytest.mark.parametrize("name", MISWIRED)
def test_miswired_networks_are_refused(name):
    make, message = MISWIRED[name]
    with pytest.raises(ModelError, match=message):
        make()


def dense(weights, *, bits=8, signed=False, guard_bits=7, acc_bits=24, raw=True, **changes):
    """A fully connected layer with the given integer weights, each a sum of positive powers of two."""
    weights = np.asarray(weights)
    values = sorted({int(weight) for weight in weights.flat})
    codebook = tuple(tuple(Term(value < 0, bit) for bit in range(16) if abs(value) >> bit & 1) for value in values)
    rows, taps = weights.shape
    fields = {
        "name": "fc", "op": "conv", "source": spec("x", taps, 1, 1, bits, signed), "kernel": (1, 1),
        "target": spec("y", rows, 1, 1, 32 if raw else 8, True), "codebook": codebook, "raw": raw,
        "indices": np.searchsorted(values, weights).astype(np.uint8).reshape(rows, taps, 1, 1),
        "bias": np.zeros(rows, np.int64), "scale": ((Term(False, 0),),) * rows, "shift": np.zeros(rows, np.int64),
        "qmin": -128, "qmax": 127,
    }
    layer = Layer(**{**fields, **changes})
    return QuantizedNetwork(input=layer.source, layers=(layer,), guard_bits=guard_bits, acc_bits=acc_bits)


def test_sums_beyond_float32_are_exact():
    # 2,001 products near 2**15 sum to an odd number above 2**24, which float32 can't hold.
    network = dense(np.full((1, 2001), 255), acc_bits=32)
    x = np.full((1, 2001, 1, 1), 255)
    x[0, 0] = 254
    assert golden.run(network, x).item() == 255 * (2000 * 255 + 254)


@pytest.mark.parametrize(("acc", "shift", "rounded"), [
    (5, 1, 3), (-5, 1, -2), (6, 2, 2), (-6, 2, -1), (7, 3, 1), (3, 3, 0), (4, 3, 1), (-4, 3, 0), (-5, 3, -1), (5, 0, 5),
])
def test_rounding_is_half_up(acc, shift, rounded):
    network = dense([[1]], signed=True, raw=False, shift=np.array([shift]))
    assert golden.run(network, np.array(acc).reshape(1, 1, 1, 1)).item() == rounded


HALVES = [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (-7, -4)]
"""Of twice a number, and the number rounded to an integer, a half to the even one."""


@pytest.mark.parametrize(("acc", "shift", "rounded"), [
    *((twice, 1, even) for twice, even in HALVES), *((8 * twice, 4, even) for twice, even in HALVES),
    *((8 * twice + 1, 4, (twice + 1) // 2) for twice, _ in HALVES),
    *((8 * twice - 1, 4, (twice - 1) // 2) for twice, _ in HALVES), (5, 0, 5), (-5, 0, -5), (-6, 3, -1),
])
def test_a_half_goes_to_the_even_integer(acc, shift, rounded):
    network = dataclasses.replace(dense([[1]], signed=True, raw=False, shift=np.array([shift])), rounding="half_even")
    assert golden.run(network, np.array(acc).reshape(1, 1, 1, 1)).item() == rounded


@pytest.mark.parametrize(("terms", "shift", "acc", "rounded"), [
    ((1, 4), 1, 1, 2), ((1, 4), 1, 3, 8), ((1, 4), 1, -1, -2), ((1, -4), 1, 1, -2), ((-1, 8), 3, 4, 4),
    # 5 x 3 / 8 is no half, nor is 5 x 7 / 8, though both lie in the quarter around one.
    ((1, 4), 3, 3, 2), ((1, 4), 3, 7, 4), ((1, 4), 3, 4, 2), ((1, 4), 3, 12, 8),
])
def test_a_half_of_a_scale_of_several_terms(terms, shift, acc, rounded):
    scale = tuple(Term(value < 0, abs(value).bit_length() - 1) for value in terms)
    network = dataclasses.replace(dense([[1]], signed=True, raw=False, scale=(scale,), shift=np.array([shift])),
                                  rounding="half_even")
    assert golden.run(network, np.array(acc).reshape(1, 1, 1, 1)).item() == rounded


def test_halves_of_a_scale_that_needs_more_than_64_bits():
    network = dataclasses.replace(dense([[1]], raw=False, scale=((Term(True, 62),),), shift=np.array([63])),
                                  rounding="half_even")
    x = np.arange(8).reshape(8, 1, 1, 1)
    assert golden.run(network, x).flatten().tolist() == [0, 0, -1, -2, -2, -2, -3, -4]


def test_input_is_rounded_alike():
    network = dense([[1, 1]])
    source = dataclasses.replace(network.input, exponent=-1)
    network = QuantizedNetwork(input=source, layers=(dataclasses.replace(network.layers[0], source=source),))
    even = dataclasses.replace(network, rounding="half_even")
    images = np.array([[0.25, 0.75], [1.25, 0.5], [200.0, 0.3]]).reshape(3, 2, 1, 1)
    assert network.quantize_input(images).reshape(3, 2).tolist() == [[1, 2], [3, 1], [255, 1]]
    assert even.quantize_input(images).reshape(3, 2).tolist() == [[0, 2], [2, 1], [255, 1]]


def test_another_rounding_is_refused():
    with pytest.raises(ModelError, match="a network's rounding must be 'half_up' or 'half_even', not 'up'"):
        dataclasses.replace(dense([[1]]), rounding="up")


def test_clamp():
    network = dense([[64], [-64]], raw=False, qmin=-100, qmax=90)
    assert golden.run(network, np.array(255).reshape(1, 1, 1, 1)).flatten().tolist() == [90, -100]


def test_scale_that_needs_more_than_64_bits():
    terms = (Term(False, 0), Term(False, 31), Term(True, 62))
    network = dense([[1]], raw=False, scale=(terms,), shift=np.array([58]))
    x = np.arange(8).reshape(8, 1, 1, 1)
    scale = 1 + 2**31 - 2**62
    expected = [max(-128, (value * scale + 2**57) // 2**58) for value in range(8)]
    assert golden.run(network, x).flatten().tolist() == expected


def test_truncation_precedes_the_sign():
    # -(x >> 7) differs from (-x) >> 7: 127 >> 7 is 0, and its negative too.
    network = dense([[-1]], guard_bits=0)
    x = np.array([127, 128, 255]).reshape(3, 1, 1, 1)
    assert golden.run(network, x).flatten().tolist() == [0, -1, -1]
    signed = dense([[-1]], guard_bits=0, signed=True)
    assert golden.run(signed, np.array(-1).reshape(1, 1, 1, 1)).item() == 1


def test_all_layers_by_name_and_in_chunks(monkeypatch):
    first = dense([[1, 2], [3, -4]], raw=False, qmin=0).layers[0]
    second = dataclasses.replace(dense([[1, 1]]).layers[0], name="last", source=first.target,
                                 target=spec("z", 1, 1, 1, 32, True))
    network = QuantizedNetwork(input=first.source, layers=(first, second))
    x = np.array([[5, 6], [7, 1], [0, 2]]).reshape(3, 2, 1, 1)
    monkeypatch.setattr(golden, "CHUNK_ELEMENTS", 4)
    outputs = golden.run(network, x, layers=True)
    assert list(outputs) == ["fc", "last"]
    assert outputs["fc"].reshape(3, 2).tolist() == [[17, 0], [9, 17], [4, 0]]
    assert outputs["last"].flatten().tolist() == [17, 26, 4]
    np.testing.assert_array_equal(golden.run(network, x), outputs["last"])


def test_an_empty_batch_gives_an_empty_output():
    assert golden.run(dense([[1, 2]]), np.zeros((0, 2, 1, 1), np.int64)).shape == (0, 1, 1, 1)


def test_overflowing_accumulator_is_refused():
    network = dense(np.full((1, 300), 128), acc_bits=16)
    with pytest.raises(ModelError, match="layer fc: accumulator reaches 9792000, outside of 16 signed bits"):
        golden.run(network, np.full((1, 300, 1, 1), 255))


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((1, 3, 1, 1), int), r"input x must have shape \(N, 2, 1, 1\), not \(1, 3, 1, 1\)"),
    (np.zeros((1, 2, 1, 1)), "input x must be integers, not float64"),
    (np.full((1, 2, 1, 1), 256), r"input x must lie between 0 and 255 \(8 bits, unsigned\), but holds 256"),
    (np.full((1, 2, 1, 1), -1), "but holds -1"),
])
def test_bad_input(x, message):
    with pytest.raises(ModelError, match=message):
        golden.run(dense([[1, 2]]), x)


def test_accuracy_takes_the_first_greatest_output():
    from shiftwright.sw.data import Dataset

    network = dense([[1, 0], [0, 1], [0, 1]], bits=8)
    source = dataclasses.replace(network.input, exponent=-8)
    network = QuantizedNetwork(input=source, layers=(dataclasses.replace(network.layers[0], source=source),))
    images = np.array([[9, 1], [1, 9], [4, 4]], np.uint8).reshape(3, 2, 1, 1)
    dataset = Dataset(images, np.array([0, 1, 2]), "test", "test", ("a", "b", "c"))
    assert golden.predict(network, images, batch=2).tolist() == [0, 1, 0]
    assert golden.accuracy(network, dataset) == pytest.approx(2 / 3)
