import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shiftwright.hw.arch.errors import CapacityError, ModelError
from shiftwright.hw.arch.image import ENTRY_OPS_MAX, MAX_POST, MAX_PRE, RECTIFY_SHIFT, MicroOp, OpKind
from shiftwright.sw.codec import alphabet as module
from shiftwright.sw.codec import dictionary
from shiftwright.sw.codec.alphabet import EncodedLayer, TapRows, encode_layer, encode_layers, shared_row
from shiftwright.sw.codec.bitstream import decode_stream, encode_stream
from shiftwright.sw.codec.phrases import BUILDERS, LayerTaps
from shiftwright.sw.network import Term

from . import textbook


def signed_digits(value):
    """Canonical signed-digit terms of an integer."""
    terms, shift, sign = [], 0, value < 0
    rest = abs(value)
    while rest:
        if rest & 1:
            digit = 2 - (rest & 3)
            terms.append(Term((digit < 0) != sign, shift))
            rest -= digit
        rest >>= 1
        shift += 1
    return tuple(terms)


POW2 = ((), *((Term(neg, shift),) for shift in range(7) for neg in (False, True)))
NO_ZERO = tuple((Term(neg, shift),) for shift in range(4) for neg in (False, True))
TERNARY = ((), (Term(False, 0),), (Term(True, 0),))
TWO_TERM = ((), *(signed_digits(v) for v in (1, -1, 3, -3, 5, -5, 12, -12, 40, -40, 72, -72)))
INT8 = tuple(signed_digits(v) for v in range(-127, 129))
CODEBOOKS = {"pow2": POW2, "no_zero": NO_ZERO, "ternary": TERNARY, "two_term": TWO_TERM, "int8": INT8}


def random_layer(rng, codebook, rows, taps, density, skew=0.5):
    """Indices with this share of weights that are not zero, small ones more often than large ones."""
    zeros = [i for i, entry in enumerate(codebook) if not entry]
    values = np.array([i for i, entry in enumerate(codebook) if entry])
    weights = np.exp(-skew * 8 * rng.permutation(values.size) / values.size)
    indices = rng.choice(values, size=(rows, taps), p=weights / weights.sum()).astype(np.uint16)
    if zeros:
        indices[rng.random(indices.shape) >= density] = zeros[0]
    return indices


def check(encoded, indices, codebook, *, channels, max_code_bits=12, dict_depth=512):
    """Everything that must hold for an encoded layer, seen with the textbook's eyes."""
    rows, taps = indices.shape
    assert isinstance(encoded, EncodedLayer)
    # Capacity.
    assert 1 <= len(encoded.entries) <= 256 and len(encoded.lengths) == len(encoded.entries)
    operations = sum(len(entry) for entry in encoded.entries)
    assert operations <= dict_depth and max(map(len, encoded.entries)) <= ENTRY_OPS_MAX
    # Canonical code, no longer than allowed.
    assert encoded.lengths.dtype == np.uint8 and (np.diff(encoded.lengths.astype(int)) >= 0).all()
    counts = [int(np.count_nonzero(encoded.lengths == n)) for n in range(1, max_code_bits + 1)]
    assert sum(counts) == len(encoded.entries) and encoded.code_table.tolist() == counts
    assert encoded.entries[encoded.eor] == (MicroOp(kind=OpKind.EOR, last=True),)
    assert sum(op.kind is OpKind.EOR for entry in encoded.entries for op in entry) == 1
    # The codewords come back.
    for contexts in (1, 2, 4):
        words = encode_stream(encoded.symbols, encoded.code, contexts)
        assert np.array_equal(decode_stream(words, encoded.code, contexts, encoded.eor, rows), encoded.symbols)
    # Every entry may follow any other.
    limit = channels if channels > 1 else MAX_PRE + MAX_POST
    assert max(e[-1].post for e in encoded.entries) + max(e[0].pre for e in encoded.entries) <= limit
    # The tap pointer finds exactly the weights.
    found, cycles = textbook.walk(encoded.entries, encoded.symbols.tolist(), taps, limit)
    assert len(found) == rows
    for row, terms in enumerate(found):
        expected = {tap: list(codebook[i]) for tap, i in enumerate(indices[row].tolist()) if codebook[i]}
        assert terms == expected
    assert encoded.cycles_per_row.dtype == np.int64 and encoded.cycles_per_row.tolist() == cycles
    # Rows end where the end-of-row symbols stand, and no row ends with a skip.
    ends = np.flatnonzero(encoded.symbols == encoded.eor)
    assert encoded.row_lengths.tolist() == np.diff(ends, prepend=-1).tolist()
    skips = [all(op.kind is OpKind.SKIP for op in entry) for entry in encoded.entries]
    assert not any(skips[s] for s in encoded.symbols[ends[ends > 0] - 1])
    # Exact size.
    assert encoded.bits == 16 * (operations + max_code_bits) + int(encoded.lengths[encoded.symbols].astype(int).sum())
    assert encoded.dictionary.tolist() == [op.pack() for entry in encoded.entries for op in entry]


SHAPES = {  # channels, (kernel height, kernel width)
    "c1_5x5": (1, (5, 5)), "c1_1x1": (1, (1, 1)), "c1_3x3": (1, (3, 3)), "c1_7x2": (1, (7, 2)), "c2_3x3": (2, (3, 3)),
    "c3_3x3": (3, (3, 3)), "c3_1x1": (3, (1, 1)), "c50_5x5": (50, (5, 5)), "c300_1x1": (300, (1, 1)),
    "c64_2x2": (64, (2, 2)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("book", CODEBOOKS)
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_terms_come_back(rng, shape, book, density):
    channels, kernel = SHAPES[shape]
    codebook = CODEBOOKS[book]
    indices = random_layer(rng, codebook, 30, channels * kernel[0] * kernel[1], density)
    limits = {"channels": channels, "max_code_bits": 12, "dict_depth": 512}
    encoded = encode_layer(indices, codebook, **limits)
    check(encoded, indices, codebook, **limits)


def every_candidate(indices, codebook, *, channels, max_code_bits, dict_depth):
    layer = module._prepare([TapRows(indices, codebook, channels)])
    for builder in BUILDERS:
        for phrases in builder(layer):
            choice = dictionary.choose_phrases(phrases, max_code_bits=max_code_bits, max_entries=256,
                                               max_operations=dict_depth)
            if choice:
                yield phrases, choice, module._assemble(phrases, choice[0], max_code_bits)


@pytest.mark.parametrize("book, channels, kernel_width, density", [
    ("pow2", 50, 1, 0.1), ("pow2", 1, 5, 0.5), ("ternary", 40, 2, 0.9), ("two_term", 40, 1, 0.5),
    ("int8", 64, 1, 0.7), ("no_zero", 3, 3, 1.0), ("two_term", 2, 3, 0.6),
])
def test_every_candidate_is_right_and_the_best_wins(rng, book, channels, kernel_width, density):
    codebook = CODEBOOKS[book]
    indices = random_layer(rng, codebook, 40, channels * kernel_width * 3, density)
    limits = {"channels": channels, "max_code_bits": 11, "dict_depth": 400}
    sizes = {}
    for phrases, (_, bits), encoded in every_candidate(indices, codebook, **limits):
        check(encoded, indices, codebook, **limits)
        sizes[phrases.name] = encoded.bits, int(encoded.cycles_per_row.sum())
        assert encoded.alphabet == phrases.name
        if not phrases.name.startswith("vectors"):  # whose ends of rows are trimmed afterwards
            assert encoded.bits == bits + 16 * 11
    chosen = encode_layer(indices, codebook, **limits)
    smallest = min(bits for bits, _ in sizes.values())
    quick = min(cycles for bits, cycles in sizes.values() if bits <= smallest * (1 + module.TOLERANCE))
    assert (chosen.bits, quick) == sizes[chosen.alphabet] and chosen.bits <= smallest * (1 + module.TOLERANCE)


def test_layers_encoded_together_share_dictionary_and_code(rng):
    shapes = (6, 40 * 9), (9, 12 * 9), (1, 25)
    books = POW2, TERNARY, POW2[::-1]
    layers = [TapRows(random_layer(rng, book, *shape, 0.3), book, channels)
              for shape, book, channels in zip(shapes, books, (40, 12, 25), strict=True)]
    limits = {"max_code_bits": 11, "dict_depth": 400}
    together = encode_layers(layers, **limits)
    for layer, encoded in zip(layers, together, strict=True):
        assert encoded.entries is together[0].entries and encoded.lengths is together[0].lengths
        assert encoded.table_bits + encoded.codeword_bits == encoded.bits
        check(encoded, layer.indices, layer.codebook, channels=layer.channels, **limits)
    apart = [encode_layer(layer.indices, layer.codebook, channels=layer.channels, **limits) for layer in layers]
    assert sum(each.codeword_bits for each in together) + together[0].table_bits < sum(each.bits for each in apart)


def test_alphabets_suit_their_layers(rng):
    limits = {"channels": 400, "max_code_bits": 12, "dict_depth": 512}
    sparse = encode_layer(random_layer(rng, POW2, 200, 400, 0.08, 0.4), POW2, **limits)
    assert sparse.alphabet.startswith("runs")
    few = encode_layer(random_layer(rng, TERNARY, 200, 400, 0.9, 0.1), TERNARY, **limits)
    assert few.alphabet.startswith("vectors")
    dense = encode_layer(random_layer(rng, POW2, 4, 400, 1.0, 0.0), POW2, **limits)
    assert dense.alphabet == "plain"


def test_a_sparse_layer_comes_close_to_its_entropy(rng):
    density = 0.1
    indices = random_layer(rng, POW2, 300, 1000, density, 0.3)
    counts = np.bincount(indices.reshape(-1)) / indices.size
    entropy = -sum(p * np.log2(p) for p in counts if p)
    encoded = encode_layer(indices, POW2, channels=1000, max_code_bits=12, dict_depth=512)
    assert encoded.bits / indices.size < 1.05 * entropy


def test_rows_of_zeros_cost_one_codeword_each():
    indices = np.zeros((5, 18), dtype=np.uint16)
    encoded = encode_layer(indices, POW2, channels=2, max_code_bits=12, dict_depth=512)
    check(encoded, indices, POW2, channels=2)
    assert encoded.symbols.tolist() == [0] * 5 and encoded.lengths.tolist() == [1]
    assert encoded.cycles_per_row.tolist() == [1] * 5


def test_trailing_zeros_cost_nothing(rng):
    indices = random_layer(rng, POW2, 20, 30, 1.0)
    wide = np.zeros((20, 900), dtype=np.uint16)
    wide[:, :30] = indices
    limits = {"max_code_bits": 12, "dict_depth": 512}
    short = encode_layer(indices, POW2, channels=30, **limits)
    assert encode_layer(wide, POW2, channels=900, **limits).bits == short.bits


def test_equal_codebook_entries_are_one_symbol(rng):
    codebook = ((), (Term(False, 1),), (), (Term(False, 1),))
    indices = rng.integers(0, 4, (8, 27)).astype(np.uint16)
    limits = {"channels": 3, "max_code_bits": 12, "dict_depth": 512}
    check(encode_layer(indices, codebook, **limits), indices, codebook, **limits)
    merged = encode_layer(indices & 1, codebook, **limits)
    assert encode_layer(indices, codebook, **limits).bits == merged.bits


@pytest.mark.parametrize("dict_depth", [256, 257, 300, 512])
@pytest.mark.parametrize("max_code_bits", [8, 15])
def test_a_full_byte_codebook_fits_the_smallest_dictionary(rng, dict_depth, max_code_bits):
    indices = rng.integers(0, 256, (40, 100)).astype(np.uint16)
    limits = {"channels": 4, "max_code_bits": max_code_bits, "dict_depth": dict_depth}
    check(encode_layer(indices, INT8, **limits), indices, INT8, **limits)


def test_longest_zero_runs_and_single_weights():
    for gap in (62, 63, 64, 65, 127, 500, 899):
        indices = np.zeros((3, 900), dtype=np.uint16)
        indices[0, gap] = 1
        indices[2, [0, 899]] = 2
        limits = {"channels": 900, "max_code_bits": 12, "dict_depth": 512}
        check(encode_layer(indices, POW2, **limits), indices, POW2, **limits)


@given(data=st.data())
def test_random_small_layers(data):
    channels = data.draw(st.sampled_from([1, 2, 3, 4, 7, 20]))
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    shifts = st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=4)
    codebook = tuple(tuple(Term(*t) for t in entry) for entry in data.draw(st.lists(shifts, min_size=1, max_size=12)))
    rows, taps = data.draw(st.integers(1, 6)), channels * kernel[0] * kernel[1]
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    indices = generator.integers(0, len(codebook), (rows, taps)).astype(np.uint16)
    if data.draw(st.booleans()):
        indices[generator.random(indices.shape) < 0.8] = 0
    limits = {"channels": channels, "max_code_bits": data.draw(st.integers(8, 15)),
              "dict_depth": data.draw(st.sampled_from([256, 260, 1024]))}
    check(encode_layer(indices, codebook, **limits), indices, codebook, **limits)


def test_the_same_layer_gives_the_same_bytes(rng):
    indices = random_layer(rng, TWO_TERM, 30, 200, 0.4)
    limits = {"channels": 8, "max_code_bits": 12, "dict_depth": 512}
    first, second = (encode_layer(indices, TWO_TERM, **limits) for _ in range(2))
    assert first.dictionary.tolist() == second.dictionary.tolist()
    assert first.symbols.tolist() == second.symbols.tolist()


def test_a_large_layer_takes_under_two_seconds(rng):
    indices = random_layer(rng, POW2, 500, 800, 0.7)
    begin = time.process_time()
    encode_layer(indices, POW2, channels=800, max_code_bits=12, dict_depth=512)
    assert time.process_time() - begin < 2


def test_a_new_alphabet_is_one_more_builder(rng, monkeypatch):
    seen = []

    def spy(layer):
        seen.append(layer)
        return iter(())

    monkeypatch.setattr(module, "BUILDERS", [*BUILDERS, spy])
    indices = random_layer(rng, TERNARY, 4, 12, 0.5)
    encode_layer(indices, TERNARY, channels=3, max_code_bits=12, dict_depth=512)
    assert len(seen) == 1 and isinstance(seen[0], LayerTaps) and seen[0].reach == 3


@pytest.mark.parametrize("taps, truncate", [(1, 0), (4, 7), (49, 3)])
def test_shared_row(taps, truncate):
    encoded = shared_row(taps, truncate)
    codebook = ((Term(False, truncate),),)
    check(encoded, np.zeros((1, taps), dtype=np.uint16), codebook, channels=1)
    assert encoded.cycles_per_row.tolist() == [taps + 1]
    assert shared_row(taps, truncate, max_code_bits=9).bits == encoded.bits - 48


def test_shared_row_of_a_negative_sum():
    encoded = shared_row(4, 7, negative=True)
    check(encoded, np.zeros((1, 4), dtype=np.uint16), ((Term(True, 7),),), channels=1)


def test_shared_row_of_a_maximum():
    for taps, truncate in ((1, 0), (9, 3), (4, 15)):
        encoded = shared_row(taps, truncate, maximum=True)
        term = {"shift": truncate, "last": False}
        assert encoded.entries[0] == (
            MicroOp(kind=OpKind.SUB, **term), MicroOp(kind=OpKind.SKIP, shift=RECTIFY_SHIFT, last=False),
            MicroOp(kind=OpKind.ADD, post=1, **{**term, "last": True}))
        assert encoded.symbols.tolist() == [0] * taps + [1] and encoded.cycles_per_row.tolist() == [3 * taps + 1]


def test_shared_row_without_taps_is_an_end_of_row():
    encoded = shared_row(0, 0)
    assert encoded.symbols.tolist() == [0] and encoded.entries == ((MicroOp(kind=OpKind.EOR, last=True),),)


def test_rows_in_any_order(rng):
    indices = random_layer(rng, POW2, 9, 40, 0.4)
    encoded = encode_layer(indices, POW2, channels=40, max_code_bits=12, dict_depth=512)
    ends = np.cumsum(encoded.row_lengths)
    rows = [encoded.symbols[end - size:end].tolist() for end, size in zip(ends, encoded.row_lengths, strict=True)]
    for which in ([], [4], [8, 0, 3], list(range(9))):
        assert encoded.rows(np.array(which, int)).tolist() == [symbol for row in which for symbol in rows[row]]


def test_a_weight_of_more_terms_than_an_entry_holds():
    codebook = ((), tuple(Term(n % 3 == 0, n % 8) for n in range(ENTRY_OPS_MAX + 9)))
    indices = np.array([[0, 1, 1], [1, 0, 1]], np.uint16)
    limits = {"channels": 3, "max_code_bits": 12, "dict_depth": 512}
    check(encode_layer(indices, codebook, **limits), indices, codebook, **limits)


def index(*values):
    return np.array([values], dtype=np.uint16)


LIMITS = {"channels": 2, "max_code_bits": 12, "dict_depth": 512}


@pytest.mark.parametrize("indices, codebook, changes, error, match", [
    (np.arange(20, dtype=np.uint16)[None], tuple((Term(n, s),) for s in range(10) for n in (False, True)),
     {"max_code_bits": 4}, CapacityError,
     r"20 different weights and the end of row do not fit a dictionary of 16 entries, 512 micro-operations and codew"),
    (index(0, 1), ((),), {}, ModelError, r"weight index 1 is outside its codebook of 1 entries"),
    (index(0, 0, 0), ((),), {}, ModelError, r"3 taps are not whole positions of 2 channels"),
    (index(0, 0), ((),), {"channels": 0}, ModelError, r"2 taps are not whole positions of 0"),
    (index(0, 0), ((Term(False, 16),),), {}, ModelError, r"shift from 0 to 15, not 16"),
    (np.zeros(4, dtype=np.uint16), ((),), {}, ModelError, r"uint16 of shape \(rows, taps\), not uint16 of shape \(4,"),
    (np.zeros((1, 2), dtype=np.int64), ((),), {}, ModelError, r"not int64 of shape \(1, 2\)"),
    (np.zeros((0, 2), dtype=np.uint16), ((),), {}, ModelError, r"not uint16 of shape \(0, 2\)"),
])
def test_bad_layers(indices, codebook, changes, error, match):
    with pytest.raises(error, match=match):
        encode_layer(indices, codebook, **{**LIMITS, **changes})


@pytest.mark.parametrize("taps, truncate", [(-1, 0), (4, 16), (4, -1)])
def test_bad_shared_rows(taps, truncate):
    with pytest.raises(ModelError, match=rf"not {taps} taps and a shift of {truncate}"):
        shared_row(taps, truncate)
