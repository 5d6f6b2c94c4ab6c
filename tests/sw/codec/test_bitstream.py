import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.sw.codec.bitstream import decode, decode_stream, encode, encode_stream
from shiftwright.sw.codec.huffman import CanonicalCode, code_lengths

from . import textbook

SEED = 20260


def make_code(rng, kind):
    """A code, and a probability for each symbol."""
    if kind == "skewed":
        weights = 0.7 ** np.arange(16)
        max_len = 12
    elif kind == "wide":
        weights = rng.random(256) ** 6 + 1e-6
        max_len = 15
    elif kind == "ternary":
        weights, max_len = np.array([0.6, 0.2, 0.15, 0.05]), 4
    elif kind.startswith("fixed"):
        return CanonicalCode(np.full(1 << int(kind[5:]), int(kind[5:]))), None
    elif kind == "even":  # lengths 2, 4, 6: never out of step by an odd number of bits, never back in step by one
        return CanonicalCode(np.array([2, 2, 2, 4, 4, 4, 6, 6, 6, 6])), None
    elif kind == "sluggish":  # with only the long codewords in use, a decoder one bit off stays one bit off
        return CanonicalCode(np.array([1] + [4] * 8)), np.array([0.0] + [1 / 8] * 8)
    elif kind == "deep":
        return CanonicalCode(np.array([*range(1, 15), 15, 15])), None
    elif kind == "single":
        return CanonicalCode(np.array([1])), None
    else:
        raise AssertionError(kind)
    order = np.argsort(-weights, kind="stable")
    weights = weights[order] / weights.sum()
    freqs = np.maximum((weights * 1e6).astype(np.int64), 1)
    return CanonicalCode(code_lengths(freqs, max_len)), weights


KINDS = ["skewed", "wide", "ternary", "fixed3", "fixed5", "fixed8", "even", "sluggish", "deep", "single"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 63, 1000, 40_000])
def test_round_trip_against_the_textbook(kind, count):
    rng = np.random.default_rng([SEED, count])
    code, weights = make_code(rng, kind)
    symbols = rng.choice(code.size, size=count, p=weights).astype(np.uint8)
    words = encode(symbols, code)
    codewords = textbook.canonical_codewords(code.counts(15))
    text = "".join(codewords[s] for s in symbols)
    assert words.dtype == np.uint16 and words.size == -(-len(text) // 16)
    assert textbook.bits_of(words) == text + "0" * (-len(text) % 16)
    assert np.array_equal(decode(words, code, count), symbols)
    everything = decode(words, code)
    assert everything.tolist() == textbook.decode(words, codewords, None)
    assert np.array_equal(everything[:count], symbols)


@pytest.mark.parametrize("count", [300_000])
@pytest.mark.parametrize("kind", ["skewed", "wide", "fixed3", "sluggish", "deep"])
def test_many_chunks(kind, count):
    rng = np.random.default_rng(SEED)
    code, weights = make_code(rng, kind)
    symbols = rng.choice(code.size, size=count, p=weights).astype(np.uint8)
    assert np.array_equal(decode(encode(symbols, code), code, count), symbols)


def test_a_code_that_never_falls_into_step():
    # Lengths 7 and 9 have no common divisor, so the chunks do not begin in step; the stream repeats one codeword, so a
    # lane that starts at a wrong bit stays there to its end.
    code = CanonicalCode(np.array([7] * 100 + [9] * 100))
    for symbol in (0, 50, 99, 100, 199):
        symbols = np.full(60_000, symbol, dtype=np.uint8)
        symbols[0] = 100  # moves all that follows
        assert np.array_equal(decode(encode(symbols, code), code, symbols.size), symbols)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_random_words_and_random_codes(data):
    """Any words, any code, complete or not: the same symbols or the same bad bit position as the textbook."""
    lengths = sorted(data.draw(st.lists(st.integers(1, 15), min_size=1, max_size=40)))
    while sum(2.0 ** -n for n in lengths) > 1:
        lengths.pop(0)
    if not lengths:
        lengths = [3]
    code = CanonicalCode(np.array(lengths))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    words = rng.integers(0, 1 << 16, data.draw(st.sampled_from([1, 2, 7, 70, 300, 900])), dtype=np.uint16)
    if data.draw(st.booleans()):
        words[:] = words[0]
    expected = textbook.decode(words, textbook.canonical_codewords(code.counts(15)), None)
    if isinstance(expected, tuple):
        with pytest.raises(ImageError, match=rf"at bit position {expected[1]} match no codeword"):
            decode(words, code)
    else:
        assert decode(words, code).tolist() == expected


def test_an_invalid_codeword_after_the_last_wanted_one_is_no_error():
    code = CanonicalCode(np.array([2, 2, 2]))  # 11 is no codeword
    words = np.array([0b00_01_10_01_11_11_11_11], dtype=np.uint16)
    assert decode(words, code, 4).tolist() == [0, 1, 2, 1]
    with pytest.raises(ImageError, match=r"at bit position 8 match no codeword"):
        decode(words, code, 5)


def test_a_stream_that_is_too_short():
    code = CanonicalCode(np.array([4] * 16))
    words = encode(np.arange(8, dtype=np.uint8), code)
    with pytest.raises(ImageError, match=r"ends at bit position 32 after 8 of 9 codewords"):
        decode(words, code, 9)
    with pytest.raises(ImageError, match=r"ends at bit position 0 after 0 of 1 codewords"):
        decode(words[:0], code, 1)


def test_empty_streams():
    code = CanonicalCode(np.array([1, 1]))
    empty = np.zeros(0, dtype=np.uint8)
    assert encode(empty, code).size == 0 and encode(empty, code).dtype == np.uint16
    assert decode(np.zeros(0, dtype=np.uint16), code).size == 0
    assert decode(np.zeros(3, dtype=np.uint16), code, 0).size == 0


def test_wrong_arguments():
    code = CanonicalCode(np.array([1, 1]))
    with pytest.raises(ModelError, match=r"symbol 2 has no codeword in a code of 2 symbols"):
        encode(np.array([0, 2], dtype=np.uint8), code)
    with pytest.raises(ModelError, match=r"flat array of uint8, not int64"):
        encode(np.array([0, 1], dtype=np.int64), code)
    with pytest.raises(ModelError, match=r"flat array of uint16, not uint8"):
        decode(np.zeros(2, dtype=np.uint8), code)
    with pytest.raises(ModelError, match=r"not be negative, not -1"):
        decode(np.zeros(2, dtype=np.uint16), code, -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contexts", [1, 2, 4])
def test_words_stand_in_the_order_of_the_decoder(kind, contexts):
    for count in (1, 2, 3, 7, 8, 20, 333):
        rng = np.random.default_rng([SEED, count, contexts])
        code, weights = make_code(rng, kind)
        symbols = rng.choice(code.size, size=count, p=weights).astype(np.uint8)
        words = encode_stream(symbols, code, contexts)
        assert words.dtype == np.uint16
        assert words.tolist() == textbook.interleave(symbols, textbook.canonical_codewords(code.counts(15)), contexts)


@pytest.mark.parametrize("kind", ["skewed", "wide", "deep", "single", "fixed8"])
@pytest.mark.parametrize("contexts", [1, 2, 4])
def test_streams_come_back(kind, contexts):
    for count in (1, 2, 5, 60, 3000):
        rng = np.random.default_rng([SEED, count, contexts])
        code, weights = make_code(rng, kind)
        for eor in {0, min(3, code.size - 1)}:  # symbol 0 is what padding reads as
            symbols = rng.choice(code.size, size=count, p=weights).astype(np.uint8)
            symbols[-1] = eor
            words = encode_stream(symbols, code, contexts)
            rows = int(np.count_nonzero(symbols == eor))
            # Words after the stream, which the decoder may take beforehand, are not used.
            for following in ([], [0] * (2 * contexts), [0xFFFF] * (2 * contexts) * (contexts > 1)):
                found = decode_stream(np.append(words, following).astype(np.uint16), code, contexts, eor, rows)
                assert found.dtype == np.uint8 and np.array_equal(found, symbols)


def test_words_without_bits_at_the_end_are_left_out():
    code = CanonicalCode(np.array([4] * 16))
    # One codeword: context 0 has one word, the others none.
    assert encode_stream(np.array([5], np.uint8), code, 4).tolist() == [0x5000]
    # Context 1 has a codeword, too; the second word of context 0 stands between them, empty.
    assert encode_stream(np.array([5, 6], np.uint8), code, 4).tolist() == [0x5000, 0, 0x6000]
    # A word of zeros that are codewords stays.
    assert encode_stream(np.zeros(2, np.uint8), code, 2).tolist() == [0, 0, 0]
    # The fourth codeword of a context ends its first word, so its third word follows all first and second ones.
    words = encode_stream(np.arange(1, 10, dtype=np.uint8).repeat(2), code, 2)
    assert words.tolist() == [0x1234, 0x5678, 0x1234, 0x5678, 0x9000, 0x9000]


@pytest.mark.parametrize("contexts", [1, 2, 4])
def test_bad_streams(contexts):
    code = CanonicalCode(np.array([2, 2, 2]))  # 11 is no codeword
    symbols = np.array([0, 1, 2, 1] * 20, np.uint8)
    words = encode_stream(symbols, code, contexts)
    with pytest.raises(ImageError, match=r"end after (19|2\d) of 1000 rows|match no codeword"):
        decode_stream(words, code, contexts, 2, 1000)
    words[2] = 0xFFFF
    with pytest.raises(ImageError, match=r"match no codeword"):
        decode_stream(words, code, contexts, 2, 20)
    assert decode_stream(words[:0], code, contexts, 2, 0).size == 0
