"""The image interpreter names what is wrong with an image: in its layers, in its file, and after random damage."""

import random
import struct

import numpy as np
import pytest

from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.hw.arch.image import Flag
from shiftwright.sim import interpreter
from tests.images import ADD, EOR, SKIP, SUB, file_bytes, layer_words, model_words, op, position, sections, tensor
from tests.sim.test_interpreter import CONFIG, CONV, DICTIONARY, POSITIONS, SOURCE, TARGET, X, conv_bytes, pool_bytes

SEED = 20260801
PARAMETERS = CONV["parameters"][0]
SPELLED = CONV["codewords"][0]


@pytest.mark.parametrize(("changes", "message"), [
    ({"codewords": [""]}, "layer 0 stream 0: it ends after 0 codewords, in row 0 of 2"),
    ({"codewords": [[0b10 << 14]]}, "layer 0 stream 0: it ends after 1 codewords, in row 0 of 2"),
    ({"codewords": [SPELLED + " 10"]}, "stream 0: after its 5 codewords, which need 7 of 7 words, more than the zero"),
    ({"codewords": [[0b10 << 14, 0, 0b11 << 14, 0, 0, 0, 0b111 << 13, 0]]}, "which need 7 of 8 words, more than the"),
    ({"codewords": [[0b10 << 14, 0, 0b11 << 14, 1, 0, 0, 0b111 << 13]]}, "which need 7 of 7 words, more than the"),
    ({"counts": [1, 1, 1], "dictionary": DICTIONARY[:3]},
     "layer 0 stream 0: bits match no codeword after 3 codewords, in row 1 of 2"),
    ({"counts": [1, 1, 3]}, "layer 0 code table: 3 codewords of 3 bits, but only 2 are left"),
    ({"counts": [1, 1, 1]},
     "layer 0 dictionary: must have 1 to 256 complete entries, as many as its 3 codewords, but has 4 in 5 words"),
    ({"dictionary": [*DICTIONARY[:4], op(SUB, last=False)]}, "complete entries"),
    ({"dictionary": [op(EOR), op(ADD, post=1), op(ADD, pre=1, shift=9), *DICTIONARY[3:]]},
     "shift 9 is greater than the accelerator's max_shift, 7"),
    ({"dictionary": [op(EOR), op(ADD, post=1), op(SKIP, shift=2), *DICTIONARY[3:]]},
     "shift 2 is greater than the accelerator's rectification, 1"),
    ({"dictionary": [op(EOR), op(ADD, post=1), *[op(ADD, last=False)] * 64, op(ADD), *DICTIONARY[3:]]},
     "entry 2 has 65 micro-operations, more than 64"),
    ({"dictionary": [op(SKIP, last=False), *DICTIONARY]}, "symbol 0 must be the one that ends rows"),
    ({"eor": 1}, "symbol 1 must be the one that ends rows"),
    ({"eor": 7}, "symbol 7 must be the one that ends rows"),
    ({"dictionary": [op(EOR), op(ADD, pre=3, post=1), *DICTIONARY[2:]]},
     "layer 0 stream 0 row 0: a term at tap 5 lies outside the kernel's 4 taps"),
    ({"dictionary": [op(EOR), op(ADD, post=3), *DICTIONARY[2:]], "channels": 2, "positions": [position(0)] * 8},
     "row 0: the tap pointer moves 4 taps between two micro-operations, more than the 2 of a position"),
    ({"parameters": [PARAMETERS[:-1]]}, "layer 0 stream 0 parameters: 4 words are too few for 2 output channels"),
    ({"parameters": [[*PARAMETERS, 0]]}, "layer 0 stream 0 parameters: 6 words, but 2 output channels use 5"),
    ({"parameters": [[3, 1 << 8, *PARAMETERS[2:]]]}, "the scale that ends at word 2 has undefined bits, 0x0100"),
    ({"parameters": [[0, *PARAMETERS[:2], 2, *PARAMETERS[2:]]], "flags": Flag.BIAS | Flag.ORDER},
     "layer 0: its rows must give each of 2 output channels once, but 1 is not among them"),
    ({"out_base": 5}, "layer 0: its output overwrites its own input"),
    ({"in_base": 40}, "layer 0: reads bank 0, address 40, where no activation was written"),
    ({"in_base": 300}, "layer 0: reads bank address 300, beyond the bank's 64 activations"),
    ({"out_base": 64}, "layer 0: writes bank address 64, beyond"),
    ({"out_base": 11}, "output tensor: reads bank 0, address 10, where no activation was written"),
    ({"positions": []}, "positions must be from 1 to 128, not 0"),
    ({"positions": [position(0)] * 129}, "positions must be from 1 to 128, not 129"),
    ({"out_h": 256}, "out_h must be from 1 to 255, not 256"),
    ({"out_phases": 0x0110}, "horizontal phases must be from 1 to 15, not 16"),
    ({"group_rows": 0}, "group_rows must be from 1 to 65535, not 0"),
    ({"rows": 200}, "layer 0 descriptor: 800 activations don't fit the 4 banks of 64"),
    ({"qmin": 10, "qmax": 5}, "clamp 10 to 5 is not a range of 8 bits"),
    ({"qmin": -1, "qmax": 200}, "clamp -1 to 200 is not a range of 8 bits"),
    ({"flags": Flag.COMPACT | Flag.BIAS}, "layer 0 stream 0: COMPACT parameters hold each row's bias and scale, so SH"),
    ({"flags": Flag.SAME_CODE, "counts": [], "dictionary": []}, "SAME_CODE, but no layer before has left a code"),
    ({"kept": 1}, "layer 0 descriptor: keeps 1 positions, but 0 are there"),
    ({"positions": [*POSITIONS[:3], position(0, (2, 0))]},
     "layer 0 position 3: vertical residue 2 must be below the number of lanes, 2"),
    ({"positions": [*POSITIONS[:3], position(0, (0, 4))]}, "horizontal residue 4 must be below"),
    ({"positions": [[0, 0, 1 << 8], *POSITIONS[1:]]}, "layer 0 position 0: has undefined bits"),
])
def test_a_wrong_layer_is_named(changes, message):
    with pytest.raises(ImageError, match=message):
        interpreter.run(conv_bytes(**changes), X)


def test_a_wrong_tag_is_named():
    words = layer_words(CONFIG, **CONV)
    words[0] = 0x1234
    with pytest.raises(ImageError, match="layer 0 descriptor: tag is 0x1, not 0xd"):
        interpreter.run(file_bytes(CONFIG, model_words([words]), SOURCE, TARGET), X)


@pytest.mark.parametrize(("changes", "config", "message"), [
    ({"flags": Flag.RAW | Flag.BIAS, "qmax": 15}, {"act_bits": 4}, "raw outputs are bytes, but activations have 4"),
    ({"qmax": 16}, {"act_bits": 4}, "clamp 0 to 16 is not a range of 4 bits"),
    ({"rows": 1, "parameters": [[0, 0]], "codewords": ["10 " * 64 + "0"], "positions": [position(0)] * 65},
     {"lanes_x": 1, "row_depth": 64}, "stream 0 row 0: has 65 codewords and is replayed, but the row buffer holds 64"),
    ({"dictionary": [*DICTIONARY[:2], *([op(ADD, last=False)] * 62 + [op(ADD)]) * 5],
      "counts": [0, 0, 7]},
     {"dict_depth": 256}, "317 micro-operations don't fit the accelerator's 256"),
])
def test_limits_of_the_configuration(changes, config, message):
    config = CONFIG.replace(**config)
    with pytest.raises(ImageError, match=message):
        interpreter.read_image(file_bytes(config, model_words([layer_words(config, **{**CONV, **changes})]),
                                          tensor(4, (1, 3, 3), steps=(2, 1), bits=4), TARGET))


def test_the_watchdog_bounds_a_layer():
    # 400 codewords of 16 operations and an end of row, in one block; a watchdog of 0 allows 4,096 cycles.
    entry = [op(ADD, last=False)] * 15 + [op(ADD)]
    changes = {"rows": 1, "parameters": [[0, 0]], "dictionary": [op(EOR), *entry], "counts": [2],
               "codewords": ["1 " * 400 + "0"]}
    with pytest.raises(ImageError, match="rows have 6401 micro-operations, but the watchdog ends the layer after 4096"):
        interpreter.run(conv_bytes(**changes), X)
    assert len(interpreter.read_image(conv_bytes(**changes, watchdog=1)).layers) == 1


ONE = model_words([layer_words(CONFIG, **CONV)])


def changed(**words):
    """:data:`ONE` with some words changed, by their numbers."""
    model = list(ONE)
    for name, word in words.items():
        model[int(name[1:])] = word
    return model


def made(words=ONE, source=SOURCE, target=TARGET, **changes):
    return file_bytes(CONFIG, words, source, target, changes=changes)


@pytest.mark.parametrize(("data", "message"), [
    (b"", "not an image: begins with b''"),
    (b"PK\x03\x04" + bytes(100), "not an image"),
    (b"SWI1\x02", "5 bytes are fewer than a header of 16"),
    (conv_bytes()[:40], "must have a table of 3 sections"),
    (conv_bytes()[:-1], "section WORD: promises .* bytes, but .* are left"),
    (conv_bytes() + b"x", "image: 1 bytes after its last section"),
    (b"SWI1\x01" + conv_bytes()[5:], "image version 1 is not supported, only 3"),
    (conv_bytes()[:9] + b"\0" + conv_bytes()[10:], "image header: CRC-32 is wrong"),
    (conv_bytes()[:-1] + b"\x55", "section WORD: CRC-32 is wrong"),
    (made(changed(w1=0)), "has 0 layers"),
    (made(changed(w1=256)), "has 256 layers"),
    (made([0x5357, 1, 8, 0, 1, 0, 0]), "model header: 8 words in use, but the section"),
    (made([0x5357, 1, 7, 0, 1, 0, 0]), "layer 0 descriptor: needs 25 words at word 7, but the model ends at word 7"),
    (made([0x5357]), "model header: needs 7 words"),
    (made([*ONE, *[0] * 1024]), "section WORD: must be whole words"),
    (made(changed(w33=1)), "layer 0 stream 0 parameters: needs 65541 words at word"),
    (made(changed(w35=1)), "layer 0 stream 0: needs 65543 words at word"),
    (made(changed(w4=2)), "the tail begins at layer 2 of 1, at word 0; must be a layer"),
    (made(changed(w4=0, w5=8)), "the tail begins at layer 0 of 1, at word 8"),
    (made(target=tensor(10, (0, 2, 2))), "output tensor: 0 x 2 x 2 is not a shape"),
    (made(source=tensor(4, (1, 3, 3), phases=(0, 1))), "input tensor: phases 0 x 1"),
    (made(source=tensor(4, (1, 3, 3), bits=32)), "input tensor: must have 2 to 8 bits, not 32"),
    (made(source=tensor(4, (999, 3, 3))), "input tensor: 999 x 3 x 3 activations don't fit the 4 banks of 64"),
    (made(target=tensor(4, (8, 3, 3), vector=True)), "8 x 3 x 3 activations don't fit the 1 banks of 64"),
    (made(CONF=b"["), "section CONF: not JSON"),
    (made(CONF=b"[]"), "must be a JSON object, not list"),
    (made(CONF=b"{}"), "is not that of its configuration"),
    (made(CONF=b'{"lanes_y": 99}'), "lanes_y must be 1, 2, 4 or 8"),
    (made(TENS=bytes(35)), "section TENS: must have 36 bytes"),
    (made(model_words([layer_words(CONFIG, **CONV), [0]])), "layer 1 descriptor: needs 25 words"),
    (made([*ONE[:2], len(ONE) + 1, *ONE[3:], 0]), "model: its 1 layers end at word"),
])
def test_a_wrong_file_is_named(data, message):
    with pytest.raises(ImageError, match=message):
        interpreter.run(data, X)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match="none.swi: can't read the image: No such file"):
        interpreter.run(tmp_path / "none.swi", X)


@pytest.mark.parametrize("make", [conv_bytes, pool_bytes])
def test_damage_behind_a_right_checksum_never_escapes(make):
    """Bit flips and truncations of every section, with all CRCs made right again: a result or an ImageError."""
    rng = random.Random(SEED)
    original = dict(sections(make()))
    x = np.zeros((1, *struct.unpack_from("<3H", original["TENS"], 2)), int)
    outcomes = {"ran": 0, "refused": 0}
    for case in range(400):
        kind = rng.choice(["WORD"] * 8 + ["TENS", "CONF"])
        payload = bytearray(original[kind])
        for _ in range(rng.choice([1, 1, 1, 2, 8])):
            payload[rng.randrange(len(payload))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del payload[rng.randrange(len(payload)):]
        damaged = file_bytes(CONFIG, [], SOURCE, TARGET, changes={**original, kind: bytes(payload)})
        try:
            interpreter.run_batch(damaged, x)
            outcomes["ran"] += 1
        except ImageError as error:
            assert str(error)
            outcomes["refused"] += 1
        except ModelError as error:
            assert kind == "TENS" and "the image takes" in str(error), case
    assert outcomes["refused"] > 200, outcomes
    assert outcomes["ran"] > 0, outcomes
