import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shiftwright.hw.arch.errors import ImageError, ModelError
from shiftwright.sw.codec.huffman import CanonicalCode, code_bits, code_lengths

from . import textbook

FREQS = st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**9)), min_size=1, max_size=60)


def total_bits(freqs, lengths):
    return sum(int(f) * int(length) for f, length in zip(freqs, lengths, strict=True))


def kraft(lengths):
    return sum(2.0 ** -int(length) for length in lengths if length)


@given(freqs=FREQS)
@settings(max_examples=200, deadline=None)
def test_optimal_where_the_limit_does_not_bind(freqs):
    lengths = code_lengths(freqs, 60)
    assert lengths.dtype == np.uint8
    assert [length > 0 for length in lengths] == [f > 0 for f in freqs]
    if any(freqs):
        assert total_bits(freqs, lengths) == textbook.huffman_bits(freqs)


@given(freqs=st.lists(st.one_of(st.integers(1, 5), st.integers(1, 10**9)), min_size=1, max_size=60),
       slack=st.integers(0, 6))
@settings(max_examples=300, deadline=None)
def test_bits_are_those_of_the_lengths(freqs, slack):
    max_len = max(1, (len(freqs) - 1).bit_length() + slack)
    assert code_bits(np.array(freqs), max_len) == total_bits(freqs, code_lengths(freqs, max_len))


@given(freqs=st.lists(st.one_of(st.integers(0, 5), st.integers(0, 10**4)), min_size=1, max_size=7),
       slack=st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_optimal_where_the_limit_binds(freqs, slack):
    used = sum(f > 0 for f in freqs)
    max_len = max(1, (max(used, 1) - 1).bit_length() + slack)
    lengths = code_lengths(freqs, max_len)
    assert lengths.max() <= max_len and kraft(lengths) <= 1
    assert total_bits(freqs, lengths) == (textbook.brute_force_bits(freqs, max_len) if used else 0)


@pytest.mark.parametrize("max_len", [8, 9, 12, 15])
def test_fibonacci_frequencies_meet_the_limit_exactly(max_len):
    freqs = [1, 1]
    while len(freqs) < 60:
        freqs.append(freqs[-1] + freqs[-2])
    lengths = code_lengths(freqs, max_len)
    assert lengths.max() == max_len and kraft(lengths) == 1
    assert (np.diff(lengths.astype(int)) <= 0).all()


def test_a_full_alphabet_at_the_limit_is_a_fixed_length_code():
    assert (code_lengths(np.arange(1, 257) ** 3, 8) == 8).all()


def test_falling_frequencies_give_lengths_in_canonical_order():
    assert (np.diff(code_lengths([9, 5, 5, 5, 2, 2, 2, 2, 1, 1, 1], 5).astype(int)) >= 0).all()


def test_degenerate_alphabets():
    assert code_lengths([0, 7, 0], 4).tolist() == [0, 1, 0]
    assert code_lengths([0, 0], 4).tolist() == [0, 0]
    assert code_lengths([3, 9], 1).tolist() == [1, 1]


@pytest.mark.parametrize("freqs, max_len, match", [
    ([1] * 17, 4, r"17 symbols need codewords longer than 4 bits, which give only 16"),
    ([1, -1], 4, r"not negative"),
    ([[1, 2]], 4, r"flat array"),
    ([1, 2], 0, r"at least 1 bit, not 0"),
])
def test_code_lengths_rejects(freqs, max_len, match):
    with pytest.raises(ModelError, match=match):
        code_lengths(freqs, max_len)


@given(freqs=FREQS, max_len=st.integers(6, 15))
@settings(max_examples=100, deadline=None)
def test_canonical_codewords(freqs, max_len):
    lengths = np.sort(code_lengths([f + 1 for f in freqs], max_len))
    code = CanonicalCode(lengths)
    counts = [int(np.count_nonzero(lengths == n)) for n in range(1, max_len + 1)]
    assert code.counts(max_len).tolist() == counts
    expected = textbook.canonical_codewords(counts)
    assert [format(int(c), f"0{int(n)}b") for c, n in zip(code.codes, code.lengths, strict=True)] == expected
    again = CanonicalCode.from_counts(counts)
    assert again.codes.tolist() == code.codes.tolist()
    assert code.complete is (kraft(lengths) == 1)


@pytest.mark.parametrize("lengths, match", [
    ([], r"1 to 256 symbols"),
    ([8] * 257, r"1 to 256 symbols"),
    ([2, 1], r"in order of codeword length"),
    ([0, 1], r"from 1 to 15, not 0 to 1"),
    ([1, 16], r"from 1 to 15, not 1 to 16"),
    ([1, 1, 2], r"Kraft sum is above 1"),
])
def test_canonical_code_rejects(lengths, match):
    with pytest.raises(ModelError, match=match):
        CanonicalCode(np.array(lengths, dtype=np.uint8))


@pytest.mark.parametrize("counts, match", [
    ([3, 0], r"\[3, 0\] is not that of a prefix code.*image is damaged"),
    ([0, 0], r"1 to 256 codewords, not 0"),
    ([0] * 9 + [300], r"1 to 256 codewords, not 300"),
])
def test_a_damaged_code_table_is_an_image_error(counts, match):
    with pytest.raises(ImageError, match=match):
        CanonicalCode.from_counts(counts)


def test_counts_reject_a_table_that_is_too_short():
    with pytest.raises(ModelError, match=r"longest codeword has 3 bits, but the code table ends at 2"):
        CanonicalCode(np.array([1, 2, 3, 3])).counts(2)
