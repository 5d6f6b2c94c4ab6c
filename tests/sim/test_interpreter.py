"""The image interpreter on images made by hand from ``docs/image.md``, feature by feature."""

import math
from fractions import Fraction

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.hw.arch.image import Flag
from shiftwright.sim import interpreter
from shiftwright.sim.interpreter.parameters import Scale
from tests.images import ADD, EOR, SKIP, SUB, file_bytes, layer_words, model_words, op, position, tensor

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, act_depth=64, max_code_bits=4, weight_depth=1024)
RECTIFY = op(SKIP, shift=1)
PLAIN = [0]
"""Scale words: times 1, no shift."""


def assemble(config, rows):
    """Rows of micro-operations, each an entry, as a dictionary, a code of equal lengths and the streams' codewords."""
    dictionary = sorted({operation for row in rows for operation in row} | {op(EOR)})
    width = max(1, (len(dictionary) - 1).bit_length())
    spelled = [[*row, op(EOR)] for row in rows]
    return {"dictionary": dictionary, "counts": [*[0] * (width - 1), len(dictionary)], "eor": dictionary.index(op(EOR)),
            "codewords": [" ".join(format(dictionary.index(operation), f"0{width}b")
                                   for row in spelled[stream::config.streams] for operation in row)
                          for stream in range(config.streams)]}


def plain_layer(config, spelled, /, *, scale=PLAIN, flags=0, raw=False, **fields):
    """A layer whose rows share their scale words; ``fields`` replace what follows from the spelled rows."""
    return layer_words(config, **{
        "flags": flags | (Flag.RAW if raw else 0) | Flag.SHARED_SCALE, "rows": len(spelled), "qmin": 0, "qmax": 255,
        "parameters": [scale if spelled[stream::config.streams] else [] for stream in range(config.streams)],
        **assemble(config, spelled), **fields})


def block_steps(config, channels, width):
    """Row and column steps of a tensor with one phase."""
    return math.ceil(width / config.lanes_x) * channels, channels


def written(steps):
    """Descriptor fields of an output with one phase."""
    return {"out_wrap_y": steps[0], "out_wrap_x": steps[1]}


def read(steps):
    """Descriptor fields of an input."""
    return {"in_row_step": steps[0], "in_col_step": steps[1]}


# Two rows over a 1 x 3 x 3 input under a 2 x 2 kernel, output 2 x 2 x 2, by hand:
#   row 0: +x[0] + (x[2] << 1)     row 1: (x[1] << 2) - x[1], one entry of two terms
# Symbols: 0 end of row "0", 1 "+ at p, advance 1" "10", 2 "skip 1, << 1" "110", 3 "skip 1, << 2, then -" "111".
DICTIONARY = [op(EOR), op(ADD, post=1), op(ADD, shift=1, pre=1, post=1), op(ADD, last=False, shift=2, pre=1), op(SUB)]
POSITIONS = [position(0, (0, 0)), position(0, (0, 1)), position(0, (1, 0)), position(0, (1, 1))]
# Row 0: bias 3, times 1, >> 1. Row 1: bias -5, times 1 + 4 ("1, then >> 2, +1"), >> 3 - 2.
FIRST, SECOND = [3, 1], [-5, 1 | 1 << 6, 2]
CONV = {
    "flags": Flag.BIAS, "channels": 1, "rows": 2, "out_h": 2, "out_w": 2, "in_base": 4, "in_col_step": 1,
    "in_row_step": 2, "out_base": 10, "out_wrap_x": 2, "out_wrap_y": 2, "qmin": 0, "qmax": 160, "eor": 0,
    "dictionary": DICTIONARY, "counts": [1, 1, 2], "positions": POSITIONS, "parameters": [FIRST + SECOND],
    "codewords": ["10 110 0 111 0"],
}
SOURCE, TARGET = tensor(4, (1, 3, 3), steps=(2, 1)), tensor(10, (2, 2, 2), steps=(2, 2))
X = np.arange(2 * 9).reshape(2, 1, 3, 3) * 7


def conv_bytes(config=CONFIG, **changes):
    return file_bytes(config, model_words([layer_words(config, **{**CONV, **changes})]), SOURCE, TARGET)


def conv_expected(x):
    out = np.zeros((len(x), 2, 2, 2), int)
    for oy in range(2):
        for ox in range(2):
            tap = [x[:, 0, oy + dy, ox + dx] for dy in range(2) for dx in range(2)]
            out[:, 0, oy, ox] = (tap[0] + 2 * tap[2] + 3 + 1) >> 1
            out[:, 1, oy, ox] = ((3 * tap[1] - 5) * 5 + 4) >> 3
    return out.clip(0, 160)


@pytest.mark.parametrize("interleave", [1, 2, 4])
@pytest.mark.parametrize(("streams", "changes"), [
    (1, {}),
    (1, {"flags": Flag.BIAS | Flag.WIDE_BIAS, "parameters": [[FIRST[0], 0, *FIRST[1:], SECOND[0], -1, *SECOND[1:]]]}),
    (1, {"dictionary": [op(EOR, pre=1, post=1), *DICTIONARY[1:]]}),  # the tap pointer begins at 0 in every row
    (1, {"flags": Flag.BIAS | Flag.ORDER, "parameters": [[1, *SECOND, 0, *FIRST]], "codewords": ["111 0 10 110 0"]}),
    (2, {"parameters": [FIRST, SECOND], "codewords": ["10 110 0", "111 0"]}),
    (2, {"flags": Flag.BIAS | Flag.ORDER, "parameters": [[1, *SECOND], [0, *FIRST]],
         "codewords": ["111 0", "10 110 0"]}),
    (3, {"parameters": [FIRST, SECOND, []], "codewords": ["10 110 0", "111 0", ""]}),
])
def test_a_convolution_by_hand(interleave, streams, changes):
    # The scale's Horner form: ((t >> 2) + t + 1) >> 1 equals (5 t + 4) >> 3.
    result = interpreter.run(conv_bytes(CONFIG.replace(interleave=interleave, streams=streams), **changes), X)
    expected = conv_expected(X)
    assert (expected == 160).any() and (expected < 160).any()
    np.testing.assert_array_equal(result.final, expected)
    assert len(result.outputs) == 1
    np.testing.assert_array_equal(result.outputs[0], expected)


def test_operations_are_decoded():
    program = interpreter.read_image(conv_bytes())
    (stream,) = program.layers[0].streams
    operations = stream.operations
    assert operations.row.tolist() == [0, 0, 1, 1]
    assert operations.tap.tolist() == [0, 2, 1, 1]
    assert operations.shift.tolist() == [0, 1, 2, 0]
    assert operations.kind.tolist() == [ADD, ADD, ADD, SUB]
    assert operations.codewords.tolist() == [3, 2]
    assert operations.operations.tolist() == [3, 3]
    assert stream.parameters.bias.tolist() == [3, -5]


def test_statistics_count_what_is_issued():
    one, two, three = interpreter.statistics(interpreter.read_image(conv_bytes(
        CONFIG.replace(streams=3, lanes_x=1), out_w=1, out_h=3, parameters=[FIRST, SECOND, []],
        codewords=["10 110 0", "111 0", ""], positions=[position(0)] * 4)))[0]
    # Two blocks of 2 x 1 pixels over a map of 3 x 1.
    kinds = interpreter.StreamStatistics
    assert one == kinds(rows=1, codewords=3, operations=6, terms=4, products=6, passes=2)
    assert two == kinds(rows=1, codewords=2, operations=6, terms=4, products=6, passes=2)
    assert three == kinds(rows=0, codewords=0, operations=0, terms=0, products=0, passes=0)


def test_statistics_of_shared_rows_and_batches():
    ((pooling,),) = interpreter.statistics(interpreter.read_image(pool_bytes()))
    # Two channels replay nine taps of three operations, two of them terms, and an end of row.
    kinds = interpreter.StreamStatistics
    assert pooling == kinds(rows=2, codewords=28, operations=56, terms=36, products=144, passes=2)
    tail = file_bytes(TAIL_CONFIG, model_words([HEAD, VECTOR, tail_layer()], tail=2), TAIL_SOURCE, TAIL_TARGET)
    (dense_,) = interpreter.statistics(interpreter.read_image(tail))[2]
    assert dense_ == kinds(rows=3, codewords=7, operations=7, terms=4, products=4, passes=3)


@pytest.mark.parametrize("streams", [1, 2, 3])
@pytest.mark.parametrize("interleave", [1, 2, 4])
def test_long_rows_of_random_codewords(rng, interleave, streams):
    """Codewords of 1 to 15 bits, so that contexts cross words at all offsets; more positions than channels."""
    config = AcceleratorConfig(lanes_y=1, lanes_x=1, act_depth=256, max_code_bits=15, interleave=interleave,
                               streams=streams, acc_width=32)
    lengths = [*range(1, 16), 15]
    codes, code = [], 0
    for number, length in enumerate(lengths):
        code <<= length - (lengths[number - 1] if number else 0)
        codes.append(format(code, f"0{length}b"))
        code += 1
    kinds = [SKIP, SKIP, EOR, *rng.choice([ADD, ADD, SUB], 13)]
    entries = [op(EOR) if kind == EOR else
               op(kind, shift=0 if kind == SKIP else int(rng.integers(8)), pre=int(rng.integers(3)),
                  post=int(rng.integers(3))) for kind in kinds]
    rows, weights = 7, np.zeros((7, 200), int)
    spelled = [[] for _ in range(streams)]
    for row in range(rows):
        at = 0
        while True:
            symbol = int(rng.choice(16, p=np.array([8, 4, 0, *[3] * 13]) / 51))
            entry = entries[symbol]
            if at + (entry >> 7 & 63) + (entry >> 13) >= 200:
                break
            at += entry >> 7 & 63
            if entry & 3 <= SUB:
                weights[row, at] += (-1) ** (entry & 3) * (1 << (entry >> 3 & 15))
            at += entry >> 13
            spelled[row % streams].append(codes[symbol])
        spelled[row % streams].append(codes[2])
    words = layer_words(
        config, flags=Flag.RAW | Flag.SHARED_SCALE, channels=50, rows=rows, out_h=1, out_w=1, out_base=220, eor=2,
        dictionary=entries, counts=[1] * 14 + [2], positions=[position(50 * number) for number in range(4)],
        parameters=[[0]] * streams, codewords=[" ".join(words) for words in spelled], in_base=10)
    x = rng.integers(0, 256, (5, 200, 1, 1))
    data = file_bytes(config, model_words([words]), tensor(10, x.shape[1:], steps=(200, 200)),
                      tensor(220, (rows, 1, 1), steps=(28, 28), bits=32, signed=True))
    np.testing.assert_array_equal(interpreter.run(data, x).final[..., 0, 0], x[..., 0, 0] @ weights.T)


def test_truncation_comes_before_the_sign():
    data = conv_bytes(CONFIG.replace(guard_bits=6))
    tap = [X[:, 0, dy, dx] for dy in range(2) for dx in range(2)]
    result = interpreter.run(data, X).final
    np.testing.assert_array_equal(result[:, 0, 0, 0], ((tap[0] >> 1) + tap[2] + 3 + 1) >> 1)
    acc = 2 * tap[1] - (tap[1] >> 1)
    np.testing.assert_array_equal(result[:, 1, 0, 0], (((acc - 5) * 5 + 4) >> 3).clip(0, 160))


def test_halves_go_to_the_even_integer():
    data = conv_bytes(CONFIG.replace(rounding="half_even"))
    x = np.arange(40 * 9).reshape(40, 1, 3, 3) * 7 % 256
    tap = [x[:, 0, dy, dx] for dy in range(2) for dx in range(2)]
    first = tap[0] + 2 * tap[2] + 3
    second = (3 * tap[1] - 5) * 5
    assert (first % 4 == 1).any() and (second % 16 == 4).any()
    result = interpreter.run(data, x).final
    for row, sums, divisor in ((0, first, 2), (1, second, 8)):
        expected = [round(Fraction(value, divisor)) for value in sums.tolist()]
        np.testing.assert_array_equal(result[:, row, 0, 0], np.clip(expected, 0, 160))


@pytest.mark.parametrize("further", [(), ((2, False),), ((1, True), (3, False)), ((3, True), (1, True), (2, False))])
def test_halves_of_scales(further):
    factor, exponent = 1, 0
    for step, negative in further:
        exponent += step
        factor += -(1 << exponent) if negative else 1 << exponent
    total = np.arange(-700, 700)
    for shift in range(1 if further else 0, 6):
        expected = [round(Fraction(value * factor, 1 << shift + exponent)) for value in total.tolist()]
        found = Scale(further, shift).apply(total, half_even=True)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lanes", [(1, 1), (2, 2), (4, 2), (1, 8)])
def test_edges_of_a_padded_and_dilated_kernel(rng, lanes):
    """3 x 2 kernel, dilated 1 x 2, on a 2 x 5 x 7 map that no lanes divide; padding 2, 1 before and 1, 3 after."""
    config = CONFIG.replace(lanes_y=lanes[0], lanes_x=lanes[1], act_depth=1024)
    kernel, dilation, before, after = (3, 2), (1, 2), (2, 1), (1, 3)
    size = 5, 7
    out = tuple(size[n] + before[n] + after[n] - dilation[n] * (kernel[n] - 1) for n in (0, 1))
    steps = block_steps(config, 2, size[1])
    positions = []
    for k in np.ndindex(kernel):
        d = [k[n] * dilation[n] - before[n] for n in (0, 1)]
        inside = [[o for o in range(out[n]) if 0 <= o + d[n] < size[n]] for n in (0, 1)]
        positions.append(position(d[0] // lanes[0] * steps[0] + d[1] // lanes[1] * steps[1],
                                  (d[0] % lanes[0], d[1] % lanes[1]), (inside[0][0], inside[1][0]),
                                  (out[0] - 1 - inside[0][-1], out[1] - 1 - inside[1][-1])))
    weight = rng.integers(0, 3, (3, 6, 2))
    rows = [[op(ADD, shift=int(shift), post=1) for shift in row.flat] for row in weight]
    target = block_steps(config, 12, out[1])
    words = plain_layer(config, rows, raw=True, channels=2, out_h=out[0], out_w=out[1], out_base=100,
                        positions=positions, **read(steps), **written(target))
    x = rng.integers(0, 256, (2, 2, *size))
    padded = np.pad(x, ((0, 0), (0, 0), (before[0], after[0]), (before[1], after[1])))
    expected = np.zeros((2, 3, *out), int)
    for number, (ky, kx) in enumerate(np.ndindex(kernel)):
        taps = padded[:, :, ky * dilation[0]:, kx * dilation[1]:][:, :, :out[0], :out[1]]
        expected += np.einsum("nchw,oc->nohw", taps, 1 << weight[:, number])
    data = file_bytes(config, model_words([words]), tensor(0, (2, *size), steps=steps),
                      tensor(100, (3, *out), steps=target, bits=32, signed=True))
    np.testing.assert_array_equal(interpreter.run(data, x).final, expected)


# Max pooling 3 x 3, stride 2, padding 1 over 2 x 4 x 4 signed (two phases each way: planes of 2 x 2, one block each),
# one shared row of subtract, rectify, add nine times. Plane steps: horizontal 2, vertical 4; a block before the first
# is one step (2) back. Activations are read offset by 128, which the bias takes back.
TAP = [op(SUB), RECTIFY, op(ADD, post=1)]
POOL = {
    "flags": Flag.MAX | Flag.X_SIGNED | Flag.SHARED_ROW | Flag.BIAS, "channels": 1, "rows": 2, "group_rows": 1,
    "group_step": 1, "out_h": 2, "out_w": 2, "in_base": 0, "in_col_step": 2, "in_row_step": 2, "out_base": 20,
    "out_wrap_x": 2, "out_wrap_y": 2, "qmin": -128, "qmax": 127, "parameters": [[0, -128, -128]],
    "positions": [position(dy + dx, (ry, rx), (fy, fx)) for dy, ry, fy in ((4 - 2, 1, 1), (0, 0, 0), (4, 0, 0))
                  for dx, rx, fx in ((2 - 2, 1, 1), (0, 0, 0), (2, 0, 0))],
}


def pool_bytes(config=CONFIG, signed=True, **changes):
    words = plain_layer(config, [TAP * 9], **{**POOL, **changes})
    return file_bytes(config, model_words([words]), tensor(0, (2, 4, 4), steps=(2, 2), phases=(2, 2), signed=signed),
                      tensor(20, (2, 2, 2), steps=(2, 2), signed=signed))


def pooled(x):
    padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=-999)
    rows = [[padded[:, :, y:y + 3, x_:x_ + 3].max(axis=(2, 3)) for x_ in (0, 2)] for y in (0, 2)]
    return np.array(rows).transpose(2, 3, 0, 1)


def test_strided_max_pooling_with_padding(rng):
    x = rng.integers(-128, 0, (3, 2, 4, 4))
    np.testing.assert_array_equal(interpreter.run(pool_bytes(), x).final, pooled(x))


def test_max_pooling_of_unsigned_activations(rng):
    x = rng.integers(0, 256, (3, 2, 4, 4))
    data = pool_bytes(signed=False, flags=POOL["flags"] & ~Flag.X_SIGNED & ~Flag.BIAS, parameters=[PLAIN], qmin=0,
                      qmax=255)
    np.testing.assert_array_equal(interpreter.run(data, x).final, pooled(x))


def test_max_pooling_of_narrow_activations(rng):
    config = CONFIG.replace(act_bits=4)
    x = rng.integers(-8, 8, (3, 2, 4, 4))
    words = plain_layer(config, [TAP * 9], **{**POOL, "parameters": [[0, -8, -8]], "qmin": -8, "qmax": 7})
    data = file_bytes(config, model_words([words]),
                      tensor(0, (2, 4, 4), steps=(2, 2), phases=(2, 2), bits=4, signed=True),
                      tensor(20, (2, 2, 2), steps=(2, 2), bits=4, signed=True))
    np.testing.assert_array_equal(interpreter.run(data, x).final, pooled(x))


def test_rectification_in_one_row_of_several():
    rows = [[op(ADD, post=1), op(SUB, shift=1), RECTIFY, op(ADD)], [op(ADD, post=1), op(ADD)]]
    words = plain_layer(CONFIG, rows, channels=2, out_h=1, out_w=1, out_base=8, positions=[position(0)])
    data = file_bytes(CONFIG, model_words([words]), tensor(0, (2, 1, 1), steps=(2, 2)),
                      tensor(8, (2, 1, 1), steps=(2, 2)))
    x = np.array([[9, 2], [9, 5]]).reshape(2, 2, 1, 1)
    assert interpreter.run(data, x).final[..., 0, 0].tolist() == [[5 + 2, 11], [0 + 5, 14]]


def raw_bytes(config, operations):
    words = layer_words(
        config, flags=Flag.RAW | Flag.BIAS | Flag.WIDE_BIAS | Flag.SHARED_SCALE, channels=1, rows=1, out_h=1, out_w=1,
        out_base=8, positions=[position(0)], parameters=[[0, -7, -1]], **assemble(config, [operations]))
    return file_bytes(config, model_words([words]), tensor(0, (1, 1, 1), steps=(1, 1)),
                      tensor(8, (1, 1, 1), steps=(4, 4), bits=32, signed=True))


def test_raw_outputs_and_accumulator_width():
    # 255 * 128 * 257 is the last multiple that an accumulator of 24 bits holds; it may leave its width in between.
    config = AcceleratorConfig(lanes_y=1, lanes_x=1, max_code_bits=4, act_depth=16)
    x = np.array([255, 3]).reshape(2, 1, 1, 1)
    data = raw_bytes(config, [op(ADD, shift=7)] * 600 + [op(SUB, shift=7)] * 343)
    result = interpreter.run(data, x)
    assert result.final.flatten().tolist() == [255 * 128 * 257 - 7, 3 * 128 * 257 - 7]
    np.testing.assert_array_equal(result.outputs[0], result.final)
    assert 255 * 128 * 257 < 2**23 < 255 * 128 * 258
    with pytest.raises(ImageError, match="layer 0 output channel 0: the accumulator reaches 8421120, beyond its 24"):
        interpreter.run(raw_bytes(config, [op(ADD, shift=7)] * 258), x)
    with pytest.raises(ImageError, match="before a rectification: the accumulator reaches -8421120, beyond its 24"):
        interpreter.run(raw_bytes(config, [op(SUB, shift=7)] * 258 + [RECTIFY]), x)


def test_polyphase_output_is_read_with_its_stride(rng):
    """A copy of 5 x 7 pixels in 2 x 2 phases, then a 2 x 2 kernel with stride 2. Planes of 2 x 2 blocks: row step 2."""
    copy = plain_layer(CONFIG, [[op(ADD)]], channels=1, out_h=5, out_w=7, out_base=20, positions=[position(0)],
                       **read((4, 1)), out_phases=0x0202, out_plane_x=4, out_turn_x=-4, out_wrap_x=-3, out_plane_y=8,
                       out_turn_y=-8, out_wrap_y=-6)
    strided = plain_layer(CONFIG, [[op(ADD, shift=shift, post=1) for shift in range(4)]], raw=True, channels=1, out_h=2,
                          out_w=3, in_base=20, out_base=40, positions=[position(8 * ky + 4 * kx) for ky in (0, 1)
                                                                       for kx in (0, 1)],
                          **read((2, 1)), **written((8, 4)))
    data = file_bytes(CONFIG, model_words([copy, strided]), tensor(0, (1, 5, 7), steps=(4, 1)),
                      tensor(40, (1, 2, 3), steps=(8, 4), bits=32, signed=True))
    x = rng.integers(0, 256, (4, 1, 5, 7))
    result = interpreter.run(data, x)
    np.testing.assert_array_equal(result.outputs[0], x)
    expected = sum(x[:, :, ky:ky + 3:2, kx:kx + 5:2] << 2 * ky + kx for ky in (0, 1) for kx in (0, 1))
    np.testing.assert_array_equal(result.final, expected)


@pytest.mark.parametrize("multiple", [1, 2])
def test_depthwise_rows_of_two_streams(rng, multiple):
    """Row r of stream s reads channel 2 (r div multiple) + s."""
    config = CONFIG.replace(streams=2, act_depth=128)
    rows, steps = 6 * multiple, block_steps(config, 6, 3)
    target = block_steps(config, rows, 3)
    words = plain_layer(config, [[op(ADD, shift=row % 4)] for row in range(rows)], channels=1, out_h=3, out_w=3,
                        stream_step=1, group_rows=multiple, group_step=2, out_base=30, positions=[position(0)],
                        **read(steps), **written(target), scale=[3])
    data = file_bytes(config, model_words([words]), tensor(0, (6, 3, 3), steps=steps),
                      tensor(30, (rows, 3, 3), steps=target))
    x = rng.integers(0, 256, (2, 6, 3, 3))
    source = [2 * (row // 2 // multiple) + row % 2 for row in range(rows)]
    expected = ((x[:, source] << np.arange(rows).reshape(-1, 1, 1) % 4) + 4) >> 3
    np.testing.assert_array_equal(interpreter.run(data, x).final, expected.clip(0, 255))


def test_concatenation_and_residual(rng):
    """Channels 0 and 1 of a whole of pitch 3 from one layer, channel 2 from another, which also adds channel 1."""
    steps = block_steps(CONFIG, 3, 3)
    map_ = {"out_h": 3, "out_w": 3, **written(steps), **read(steps)}
    two = plain_layer(CONFIG, [[op(ADD)], [op(ADD, pre=1, shift=1)]], channels=2, in_base=0, out_base=20,
                      positions=[position(0)], **map_)
    # Position 1 lies in the other tensor: 20 - 0, less the channel offset of -1.
    one = plain_layer(CONFIG, [[op(ADD, pre=1, post=1), op(SUB, pre=0)]], channels=2, in_base=0, out_base=22,
                      positions=[position(0), position(20 + 1)], qmin=-128, qmax=127, **map_)
    data = file_bytes(CONFIG, model_words([two, one]), tensor(0, (2, 3, 3), steps=steps),
                      tensor(20, (3, 3, 3), steps=steps, signed=True))
    x = rng.integers(0, 64, (2, 2, 3, 3))
    result = interpreter.run(data, x).final
    np.testing.assert_array_equal(result, np.stack([x[:, 0], 2 * x[:, 1], x[:, 1] - 2 * x[:, 1]], axis=1))


TAIL_CONFIG = CONFIG.replace(lanes_y=1)
HEAD = plain_layer(TAIL_CONFIG, [[op(ADD, shift=1)]], channels=1, out_h=2, out_w=3, out_base=8, **read((2, 1)),
                   **written((2, 1)), positions=[position(0)])
VECTOR = plain_layer(TAIL_CONFIG, [[op(ADD)], [op(SUB)]], channels=1, flags=Flag.FLATTEN, out_h=2, out_w=3, in_base=8,
                     out_base=20, out_plane_y=6, out_plane_x=2, positions=[position(0)], **read((2, 1)), qmin=-128,
                     qmax=127)
DENSE = [[op(ADD, post=1), op(SUB, pre=10, shift=1)], [op(ADD, pre=2, shift=3)], [op(SUB, pre=11)]]


def tail_layer(**changes):
    return plain_layer(TAIL_CONFIG, DENSE, raw=True, **{"flags": Flag.BATCH | Flag.X_SIGNED, "channels": 12, "out_h": 1,
                                                        "out_w": 2, "in_base": 20, "out_base": 40,
                                                        "positions": [position(0)], **changes})


TAIL_SOURCE = tensor(0, (1, 2, 3), steps=(2, 1))
TAIL_TARGET = tensor(40, (3, 1, 1), steps=(12, 12), bits=32, signed=True, vector=True)


def dense(vector):
    """What :data:`DENSE` makes of (N, 12)."""
    return np.stack([vector[:, 0] - 2 * vector[:, 11], 8 * vector[:, 2], -vector[:, 11]], axis=1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_shares_the_tail(rng, count):
    data = file_bytes(TAIL_CONFIG, model_words([HEAD, VECTOR, tail_layer()], tail=2), TAIL_SOURCE, TAIL_TARGET)
    x = rng.integers(0, 60, (count, 1, 2, 3))
    pixels = 2 * x.reshape(count, 6)
    vector = np.stack([pixels, -pixels], axis=2).reshape(count, 12)
    for result in (interpreter.run(data, x), interpreter.run_batch(data, x)):
        np.testing.assert_array_equal(result.outputs[0], 2 * x)
        np.testing.assert_array_equal(result.outputs[1].transpose(0, 2, 3, 1).reshape(count, 12), vector)
        np.testing.assert_array_equal(result.final[..., 0, 0], dense(vector))
        np.testing.assert_array_equal(result.outputs[2], result.final)


def test_a_network_that_is_all_tail_reads_vectors(rng):
    data = file_bytes(TAIL_CONFIG, model_words([tail_layer()], tail=0),
                      tensor(20, (3, 2, 2), steps=(6, 3), signed=True, vector=True), TAIL_TARGET)
    x = rng.integers(-128, 128, (3, 3, 2, 2))
    expected = dense(x.transpose(0, 2, 3, 1).reshape(3, 12))
    for result in (interpreter.run(data, x), interpreter.run_batch(data, x)):
        np.testing.assert_array_equal(result.final[..., 0, 0], expected)


@pytest.mark.parametrize(("layers", "tail", "message"), [
    ([HEAD, VECTOR, tail_layer()], 1, "layer 1: the flag BATCH must be on the layers of the tail, from 1 on"),
    ([HEAD, VECTOR, tail_layer()], None, "layer 2: the flag BATCH must be on the layers of the tail, from 3 on"),
    ([HEAD, VECTOR, tail_layer(out_w=1)], 2, "a BATCH layer is 1 x 2 lanes of output and not FLATTEN, not 1 x 1"),
    ([HEAD, tail_layer(flags=Flag.BATCH | Flag.FLATTEN)], 1, "a BATCH layer is 1 x 2 lanes of output and not FLATTEN"),
    ([HEAD, tail_layer(flags=Flag.FLATTEN, out_phases=0x0201)], None, "a FLATTEN layer has one phase, not 0x0201"),
    ([HEAD], None, "output tensor: must not be a vector, with 1 layers and a tail from 1 on"),
    ([tail_layer()], 0, "input tensor: must be a vector, with 1 layers and a tail from 0 on"),
])
def test_a_wrong_tail_is_named(layers, tail, message):
    with pytest.raises(ImageError, match=message):
        interpreter.read_image(file_bytes(TAIL_CONFIG, model_words(layers, tail=tail), TAIL_SOURCE, TAIL_TARGET))


def test_a_head_that_overwrites_a_waiting_vector_is_named():
    flatten = plain_layer(TAIL_CONFIG, [[op(ADD)], [op(SUB)]], channels=1, flags=Flag.FLATTEN, out_h=2, out_w=3,
                          in_base=24, out_base=0, out_plane_y=6, out_plane_x=2, positions=[position(0)],
                          **read((2, 1)), qmin=-128, qmax=127)
    head = plain_layer(TAIL_CONFIG, [[op(ADD)]], channels=1, out_h=2, out_w=3, out_base=24, **read((2, 1)),
                       **written((2, 1)), positions=[position(0)])
    words = model_words([head, flatten, tail_layer(in_base=0)], tail=2)
    data = file_bytes(TAIL_CONFIG, words, TAIL_SOURCE, TAIL_TARGET)
    x = np.zeros((2, 1, 2, 3), int)
    interpreter.run(data, x)
    with pytest.raises(ImageError, match="input tensor: overwrites bank 0, address 0, where the vector of another"):
        interpreter.run_batch(data, x)


def test_images_are_run_in_chunks(monkeypatch):
    from shiftwright.sim.interpreter import machine

    x = np.concatenate([X, X[::-1], X])
    expected = conv_expected(x)
    monkeypatch.setattr(machine, "CHUNK_BYTES", 4 * 64 * 4)
    np.testing.assert_array_equal(interpreter.run(conv_bytes(), x).final, expected)
    assert interpreter.run(conv_bytes(), X[:0]).final.shape == (0, 2, 2, 2)


def test_taps_are_gathered_in_chunks(monkeypatch):
    from shiftwright.sim.interpreter import arithmetic

    monkeypatch.setattr(arithmetic, "CHUNK_BYTES", 1)
    np.testing.assert_array_equal(interpreter.run(conv_bytes(), X).final, conv_expected(X))


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((1, 1, 3, 2), int), r"takes integers of shape \(N, 1, 3, 3\)"),
    (np.zeros((1, 1, 3, 3)), "not float64"),
    (np.full((1, 1, 3, 3), 256), "takes values from 0 to 255, not 256 to 256"),
])
def test_wrong_inputs(x, message):
    with pytest.raises(ModelError, match=message):
        interpreter.run(conv_bytes(), x)
