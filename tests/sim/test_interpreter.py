"""The image interpreter on images made by hand from ``docs/image.md``, and on damaged ones."""

import json
import random
import struct
import zlib

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.hw.arch.image import DESCRIPTOR, Flag
from shiftwright.sim import interpreter

SEED = 20260801
CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, act_depth=64, max_code_bits=4, weight_depth=256)

ADD, SUB, SKIP, EOR = range(4)


def op(kind, *, last=True, shift=0, pre=0, post=0):
    return kind | last << 2 | shift << 3 | pre << 7 | post << 13


def pack_bits(text):
    """Words of a string of bits; blanks are ignored."""
    text = text.replace(" ", "")
    text += "0" * (-len(text) % 16)
    return [int(text[start:start + 16], 2) for start in range(0, len(text), 16)]


def layer_words(*, flags, dictionary, counts, parameters, a, b, rows_table, columns_table, **fields):
    """One layer of the model memory. ``a`` and ``b`` are strings of bits."""
    values = dict.fromkeys(DESCRIPTOR, 0)
    values |= fields
    a, b = pack_bits(a), pack_bits(b)
    values |= {"tag_flags": 0xD000 | flags, "dict_words": len(dictionary), "param_words_lo": len(parameters),
               "a_words_lo": len(a), "b_words_lo": len(b)}
    words = [values[name] & 0xFFFF for name in DESCRIPTOR]
    for table in (rows_table, columns_table):
        for offset, residue, first, last in table:
            words += [offset & 0xFFFF, residue << 12 | first, last]
    return words + counts + dictionary + [word & 0xFFFF for word in parameters] + a + b


def file_bytes(layers, source, target, *, config=CONFIG, words=None, changes=None):
    """A .swi file. ``source`` and ``target`` are (base, C, H, W, phases y, phases x, bits, signed, exponent)."""
    if words is None:
        words = [0x5357, len(layers), 0, 0, *(word for layer in layers for word in layer)]
        words[2], words[3] = len(words) & 0xFFFF, len(words) >> 16
    defaults = AcceleratorConfig().to_dict()
    conf = {name: value for name, value in config.to_dict().items() if value != defaults[name]}
    payloads = {"CONF": json.dumps(conf).encode(),
                "TENS": b"".join(struct.pack("<4H4BbB", *tensor, 0) for tensor in (source, target)),
                "WORD": struct.pack(f"<{len(words)}H", *words)}
    payloads |= changes or {}
    table = b"".join(struct.pack("<4sII", kind.encode(), len(payload), zlib.crc32(payload))
                     for kind, payload in payloads.items())
    head = struct.pack("<4sHHI", b"SWI1", 1, len(payloads), config.fingerprint)
    return head + struct.pack("<I", zlib.crc32(head + table)) + table + b"".join(payloads.values())


# Two rows over a 1 x 3 x 3 input under a 2 x 2 kernel, output 2 x 2 x 2, by hand:
#   row 0: +x[0] + (x[2] << 1)     row 1: (x[1] << 2) - x[1], one entry of two terms
# Symbols: 0 end of row "0", 1 "+ at p, advance 1" "10", 2 "skip 1, << 1" "110", 3 "skip 1, << 2, then -" "111".
# Codewords: 1 2 0 | 3 0, dealt A: 1 0 0, B: 2 3.
DICTIONARY = [op(EOR), op(ADD, post=1), op(ADD, shift=1, pre=1, post=1), op(ADD, last=False, shift=2, pre=1), op(SUB)]
CONV = {
    "flags": Flag.BIAS, "channels": 1, "kernel": 0x0202, "rows": 2, "group_rows": 2, "out_h": 2, "out_w": 2,
    "in_base": 4, "in_col_step": 1, "in_row_step": 2, "out_base": 10, "out_col_step": 2, "out_row_step": 2,
    "out_plane_x": 0, "out_plane_y": 0, "out_phases": 0x0101, "qmin": 0, "qmax": 160, "eor": 0,
    "dictionary": DICTIONARY, "counts": [1, 1, 2, 0],
    # Row 0: bias 3, times 1, >> 1. Row 1: bias -5, times 1 + 4 ("1, then >> 2, +1"), >> 3 - 2.
    "parameters": [3, 1, -5, 1 | 1 << 6, 2],
    "a": "10 0 0", "b": "110 111",
    "rows_table": [(0, 0, 0, 1), (0, 1, 0, 1)], "columns_table": [(0, 0, 0, 1), (0, 1, 0, 1)],
}
SOURCE, TARGET = (4, 1, 3, 3, 1, 1, 8, 0, 0), (10, 2, 2, 2, 1, 1, 8, 0, 0)
X = np.arange(2 * 9).reshape(2, 1, 3, 3) * 7


def conv_bytes(**changes):
    return file_bytes([layer_words(**{**CONV, **changes})], SOURCE, TARGET)


def conv_expected(x):
    out = np.zeros((len(x), 2, 2, 2), int)
    for oy in range(2):
        for ox in range(2):
            tap = [x[:, 0, oy + dy, ox + dx] for dy in range(2) for dx in range(2)]
            out[:, 0, oy, ox] = (tap[0] + 2 * tap[2] + 3 + 1) >> 1
            out[:, 1, oy, ox] = ((3 * tap[1] - 5) * 5 + 4) >> 3
    return out.clip(0, 160)


def test_a_convolution_by_hand():
    # The scale's Horner form: ((t >> 2) + t + 1) >> 1 equals (5 t + 4) >> 3.
    result = interpreter.run(conv_bytes(), X)
    expected = conv_expected(X)
    assert (expected == 160).any() and (expected < 160).any()
    np.testing.assert_array_equal(result.final, expected)
    assert len(result.outputs) == 1
    np.testing.assert_array_equal(result.outputs[0], expected)


def test_terms_are_decoded():
    program = interpreter.read_image(conv_bytes())
    terms = program.layers[0].terms
    assert terms.row.tolist() == [0, 0, 1, 1]
    assert terms.tap.tolist() == [0, 2, 1, 1]
    assert terms.shift.tolist() == [0, 1, 2, 0]
    assert terms.negative.tolist() == [False, False, False, True]
    assert (terms.codewords, terms.operations) == (5, 6)
    assert program.layers[0].parameters.bias.tolist() == [3, -5]


def test_truncation_comes_before_the_sign():
    config = CONFIG.replace(guard_bits=6)
    data = file_bytes([layer_words(**CONV)], SOURCE, TARGET, config=config)
    tap = [X[:, 0, dy, dx] for dy in range(2) for dx in range(2)]
    result = interpreter.run(data, X).final
    np.testing.assert_array_equal(result[:, 0, 0, 0], ((tap[0] >> 1) + tap[2] + 3 + 1) >> 1)
    acc = 2 * tap[1] - (tap[1] >> 1)
    np.testing.assert_array_equal(result[:, 1, 0, 0], (((acc - 5) * 5 + 4) >> 3).clip(0, 160))


# Max pooling 3 x 3, stride 2, padding 1 over 2 x 4 x 4 signed (two phases each way: planes of 2 x 2, one block each),
# one shared row of nine additions: 0 end of row "0", 1 "+, advance 1" "1".
POOL = {
    "flags": Flag.MAX | Flag.X_SIGNED | Flag.SHARED_ROW | Flag.SHARED_SCALE, "channels": 1, "kernel": 0x0303, "rows": 2,
    "group_rows": 1, "group_step": 1, "out_h": 2, "out_w": 2, "in_base": 0, "in_col_step": 2, "in_row_step": 2,
    "out_base": 20, "out_col_step": 2, "out_row_step": 2, "out_phases": 0x0101, "qmin": -128, "qmax": 127, "eor": 0,
    "dictionary": [op(EOR), op(ADD, post=1)], "counts": [2, 0, 0, 0], "parameters": [0], "a": "11111", "b": "11110",
    # Plane steps: horizontal 2, vertical 4; a block before the first is one step (2) back.
    "rows_table": [(4 - 2, 1, 1, 1), (0, 0, 0, 1), (4, 0, 0, 1)],
    "columns_table": [(2 - 2, 1, 1, 1), (0, 0, 0, 1), (2, 0, 0, 1)],
}


def pool_bytes(**changes):
    return file_bytes([layer_words(**{**POOL, **changes})], (0, 2, 4, 4, 2, 2, 8, 1, 0), (20, 2, 2, 2, 1, 1, 8, 1, 0))


def test_strided_max_pooling_with_padding():
    rng = np.random.default_rng(SEED)
    x = rng.integers(-128, 0, (3, 2, 4, 4))
    padded = np.full((3, 2, 5, 5), -999)
    padded[:, :, 1:, 1:] = x
    expected = np.array([[padded[:, :, y:y + 3, x_:x_ + 3].max(axis=(2, 3)) for x_ in (0, 2)] for y in (0, 2)])
    np.testing.assert_array_equal(interpreter.run(pool_bytes(), x).final, expected.transpose(2, 3, 0, 1))


def test_raw_output_and_accumulator_wrap():
    # One tap, "<< 7" 1,100 times, over an accumulator of 24 bits: 255 * 128 * 1,100 wraps.
    config = AcceleratorConfig(lanes_y=1, lanes_x=1, max_code_bits=4, act_depth=16)
    words = layer_words(
        flags=Flag.RAW | Flag.BIAS | Flag.WIDE_BIAS | Flag.SHARED_SCALE, channels=1, kernel=0x0101, rows=1,
        group_rows=1, out_h=1, out_w=1, in_base=0, out_base=8, out_phases=0x0101, eor=0,
        dictionary=[op(EOR), op(ADD, shift=7)], counts=[2, 0, 0, 0], parameters=[0, -7, -1],
        a="1" * 550 + "0", b="1" * 550, rows_table=[(0, 0, 0, 0)], columns_table=[(0, 0, 0, 0)])
    data = file_bytes([words], (0, 1, 1, 1, 1, 1, 8, 0, 0), (8, 1, 1, 1, 1, 1, 32, 1, 0), config=config)
    result = interpreter.run(data, np.array([255, 3]).reshape(2, 1, 1, 1))
    assert result.final.flatten().tolist() == [255 * 128 * 1100 - 3 * 2**24 + 2**24 - 7, 3 * 128 * 1100 - 7]
    np.testing.assert_array_equal(result.outputs[0], result.final)


def test_images_are_run_in_chunks(monkeypatch):
    from shiftwright.sim.interpreter import machine

    x = np.concatenate([X, X[::-1], X])
    expected = conv_expected(x)
    monkeypatch.setattr(machine, "CHUNK_BYTES", 4 * 64 * 4)
    np.testing.assert_array_equal(interpreter.run(conv_bytes(), x).final, expected)
    assert interpreter.run(conv_bytes(), X[:0]).final.shape == (0, 2, 2, 2)


@pytest.mark.parametrize(("changes", "message"), [
    ({"a": ""}, "layer 0 sub-stream A: it ends after 0 codewords, in row 0 of 2"),
    ({"a": "10 0 0" + "0" * 16}, "layer 0 sub-stream A: its codewords end at bit 4, but more than the zero bits"),
    ({"a": "10 0 0 1"}, "layer 0 sub-stream A: its codewords end at bit 4, but more than the zero bits"),
    ({"counts": [1, 1, 1, 0], "dictionary": DICTIONARY[:3]},
     "layer 0 sub-stream B: bits match no codeword after 1 codewords, in row 1 of 2"),
    ({"counts": [1, 1, 3, 0]}, "layer 0 code table: 3 codewords of 3 bits, but only 2 are left"),
    ({"counts": [1, 1, 1, 0]},
     "layer 0 dictionary: must have 1 to 256 complete entries, as many as its 3 codewords, but has 4 in 5 words"),
    ({"dictionary": [*DICTIONARY[:4], op(SUB, last=False)]}, "complete entries"),
    ({"dictionary": [op(EOR), op(ADD, post=1), op(ADD, pre=1, shift=9), *DICTIONARY[3:]]},
     "shift 9 is greater than the accelerator's max_shift, 7"),
    ({"eor": 1}, "symbol 1 must be the one that ends rows"),
    ({"eor": 7}, "symbol 7 must be the one that ends rows"),
    ({"dictionary": [op(EOR), op(ADD, pre=2, post=1), *DICTIONARY[2:]]},
     "layer 0 row 0: a term at tap 4 lies outside the kernel's 4 taps"),
    ({"dictionary": [op(EOR), op(ADD, post=3), *DICTIONARY[2:]]},
     "row 0: the tap pointer moves 4 taps between two micro-operations, more than 2"),
    ({"parameters": [3, 1, -5, 1 | 1 << 6]}, "layer 0 parameters: 4 words are too few for 2 output channels"),
    ({"parameters": [*CONV["parameters"], 0]}, "layer 0 parameters: 6 words, but 2 output channels use 5"),
    ({"out_base": 5}, "layer 0: its output overwrites its own input"),
    ({"in_base": 40}, "layer 0: reads bank 0, address 40, where no activation was written"),
    ({"in_base": 300}, "layer 0: reads bank address 300, beyond the bank's 64 activations"),
    ({"out_base": 64}, "layer 0: writes bank address 64, beyond"),
    ({"out_base": 11}, "output tensor: reads bank 0, address 10, where no activation was written"),
    ({"kernel": 0x0002}, "kernel height must be from 1 to 32, not 0"),
    ({"rows": 200}, "layer 0 descriptor: 800 activations don't fit the 4 banks of 64"),
    ({"qmin": 10, "qmax": 5}, "clamp 10 to 5 is not a range of 8 bits"),
    ({"qmin": -1, "qmax": 200}, "clamp -1 to 200 is not a range of 8 bits"),
    ({"flags": 1 << 9}, "flags 0x200 have undefined bits"),
    ({"rows_table": [(0, 0, 0, 1), (0, 2, 0, 1)]}, "layer 0 row table: residue 2 must be below the number of lanes, 2"),
    ({"tag_flags": 0}, None),
])
def test_a_wrong_layer_is_named(changes, message):
    if message is None:
        words = layer_words(**CONV)
        words[0] = 0x1234
        data = file_bytes([words], SOURCE, TARGET)
        message = "layer 0 descriptor: tag is 0x1, not 0xd"
    else:
        data = conv_bytes(**changes)
    with pytest.raises(ImageError, match=message.replace("(", r"\(")):
        interpreter.run(data, X)


def test_the_watchdog_bounds_a_layer():
    # 400 codewords of 16 operations and an end of row, in one block; a watchdog of 0 allows 4,096 cycles.
    entry = [op(ADD, last=False)] * 15 + [op(ADD)]
    words = layer_words(**{**CONV, "rows": 1, "group_rows": 1, "parameters": [0, 0], "dictionary": [op(EOR), *entry],
                           "counts": [2, 0, 0, 0], "a": "1" * 200 + "0", "b": "1" * 200})
    with pytest.raises(ImageError, match="rows have 6401 micro-operations, but its watchdog ends it after 4096"):
        interpreter.run(file_bytes([words], SOURCE, TARGET, config=CONFIG), X)


ONE = [layer_words(**CONV)]


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not an image: begins with b''"),
    (b"PK\x03\x04" + bytes(100), "not an image"),
    (b"SWI1\x01", "5 bytes are fewer than a header of 16"),
    (conv_bytes()[:40], "must have a table of 3 sections"),
    (conv_bytes()[:-1], "section WORD: promises .* bytes, but .* are left"),
    (conv_bytes() + b"x", "image: 1 bytes after its last section"),
    (b"SWI1\x02" + conv_bytes()[5:], "image version 2 is not supported, only 1"),
    (conv_bytes()[:9] + b"\0" + conv_bytes()[10:], "image header: CRC-32 is wrong"),
    (conv_bytes()[:-1] + b"\x55", "section WORD: CRC-32 is wrong"),
    (file_bytes([], SOURCE, TARGET, words=[0x5357, 0, 4, 0]), "has 0 layers"),
    (file_bytes([], SOURCE, TARGET, words=[0x5357, 1, 5, 0]), "model header: 5 words in use, but the section"),
    (file_bytes([], SOURCE, TARGET, words=[0x5357, 1, 4, 0]),
     "layer 0 descriptor: needs 28 words at word 4, but the model ends at word 4"),
    (file_bytes([], SOURCE, TARGET, words=[0x5357]), "model header: needs 4 words"),
    (file_bytes(ONE, SOURCE, TARGET, words=[0x5357, 1, *[0] * 300]), "section WORD: must be whole words"),
    (file_bytes(ONE, SOURCE, (10, 0, 2, 2, 1, 1, 8, 0, 0)), "output tensor: 0 x 2 x 2 is not a shape"),
    (file_bytes(ONE, (4, 1, 3, 3, 0, 1, 8, 0, 0), TARGET), "input tensor: phases 0 x 1"),
    (file_bytes(ONE, (4, 1, 3, 3, 1, 1, 32, 0, 0), TARGET), "input tensor: must have 2 to 8 bits, not 32"),
    (file_bytes(ONE, (4, 999, 3, 3, 1, 1, 8, 0, 0), TARGET), "doesn't fit the 4 banks of 64"),
    (file_bytes(ONE, SOURCE, TARGET, changes={"CONF": b"["}), "section CONF: not JSON"),
    (file_bytes(ONE, SOURCE, TARGET, changes={"CONF": b"[]"}), "must be a JSON object, not list"),
    (file_bytes(ONE, SOURCE, TARGET, changes={"CONF": b"{}"}), "is not that of its configuration"),
    (file_bytes(ONE, SOURCE, TARGET, changes={"CONF": b'{"lanes_y": 99}'}), "lanes_y must be an integer"),
    (file_bytes(ONE, SOURCE, TARGET, changes={"TENS": bytes(27)}), "section TENS: must have 28 bytes"),
    (file_bytes([*ONE, [0]], SOURCE, TARGET), "layer 1 descriptor: needs 28 words"),
])
def test_a_wrong_file_is_named(data, message):
    x = np.zeros((1, 999, 3, 3), int) if "banks" in message else X
    with pytest.raises(ImageError, match=message):
        interpreter.run(data, x)


def test_words_after_the_last_layer_are_refused():
    words = [0x5357, 1, 0, 0, *layer_words(**CONV), 0]
    words[2] = len(words)
    with pytest.raises(ImageError, match="model: its 1 layers end at word"):
        interpreter.run(file_bytes([], SOURCE, TARGET, words=words), X)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="none.swi: can't read the image: No such file"):
        interpreter.run(tmp_path / "none.swi", X)


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((1, 1, 3, 2), int), r"takes integers of shape \(N, 1, 3, 3\)"),
    (np.zeros((1, 1, 3, 3)), "not float64"),
    (np.full((1, 1, 3, 3), 256), "takes values from 0 to 255, not 256 to 256"),
])
def test_wrong_inputs(x, message):
    with pytest.raises(ModelError, match=message):
        interpreter.run(conv_bytes(), x)


def _split(data):
    """Sections of an image file as (kind, payload)."""
    count = struct.unpack_from("<H", data, 6)[0]
    position = 16 + 12 * count
    for number in range(count):
        kind, size, _ = struct.unpack_from("<4sII", data, 16 + 12 * number)
        yield kind.decode(), data[position:position + size]
        position += size


@pytest.mark.parametrize("make", [conv_bytes, pool_bytes])
def test_damage_behind_a_right_checksum_never_escapes(make):
    """Bit flips and truncations of every section, with all CRCs made right again: a result or an ImageError."""
    rng = random.Random(SEED)
    data = make()
    sections = dict(_split(data))
    shape = struct.unpack_from("<3H", sections["TENS"], 2)
    x = np.zeros((1, *shape), int)
    outcomes = {"ran": 0, "refused": 0}
    for case in range(400):
        kind = rng.choice(["WORD"] * 8 + ["TENS", "CONF"])
        payload = bytearray(sections[kind])
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del payload[rng.randrange(len(payload)):]
        damaged = file_bytes([], SOURCE, TARGET, changes={**sections, kind: bytes(payload)}, words=[])
        try:
            interpreter.run(damaged, x)
            outcomes["ran"] += 1
        except ImageError as error:
            assert str(error)
            outcomes["refused"] += 1
        except ModelError as error:
            assert kind == "TENS" and "the image takes" in str(error), case
    assert outcomes["refused"] > 200, outcomes
    assert outcomes["ran"] > 0, outcomes
