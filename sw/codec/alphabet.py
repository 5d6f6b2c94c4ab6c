"""From a layer's weights to its dictionary, code and codewords: the best of several alphabets."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ...hw.arch.config import SYMBOLS_MAX, AcceleratorConfig
from ...hw.arch.errors import CapacityError, ModelError
from ...hw.arch.image import MAX_POST, MAX_PRE, MAX_SHIFT_FIELD, RECTIFY_SHIFT, MicroOp, OpKind
from ..network import Term
from .dictionary import choose_phrases, spell
from .huffman import CanonicalCode, code_lengths
from .phrases import BUILDERS, EOR, LayerTaps, Phrases

__all__ = ["REPLAYED_TOLERANCE", "TOLERANCE", "EncodedLayer", "TapRows", "encode_layer", "encode_layers",
           "shared_row"]

TOLERANCE, REPLAYED_TOLERANCE = 1 / 32, 1 / 8
"""How much larger than the smallest a layer may be, to take fewer cycles; where each row is replayed."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class EncodedLayer:
    """A layer's weights as dictionary, code and codewords (``docs/image.md``, "Code table" and "Dictionary").

    Parameters
    ----------
    alphabet : str
        Kind of dictionary entries: ``plain``, ``runs<longest>``, ``vectors<taps>`` or ``shared``.
    entries : tuple of tuple of MicroOp
        The dictionary in canonical symbol order.
    lengths : uint8 array (symbols,)
        Codeword length of each symbol in bits, never falling.
    eor : int
        Symbol that ends a row.
    symbols : uint8 array (codewords,)
        The whole layer, row after row, each row closed by ``eor``.
    row_lengths : int64 array (rows,)
        Codewords of each row, ``eor`` included.
    max_code_bits : int
        Words of the code table.
    """

    alphabet: str
    entries: tuple[tuple[MicroOp, ...], ...]
    lengths: np.ndarray
    eor: int
    symbols: np.ndarray
    row_lengths: np.ndarray
    max_code_bits: int

    @property
    def code(self) -> CanonicalCode:
        """The Huffman code."""
        return CanonicalCode(self.lengths)

    @property
    def code_table(self) -> np.ndarray:
        """Words of the code table: codewords of length 1, 2, ... bits, uint16 (max_code_bits,)."""
        return self.code.counts(self.max_code_bits)

    @cached_property
    def dictionary(self) -> np.ndarray:
        """Words of the dictionary, uint16."""
        return np.array([op.pack() for entry in self.entries for op in entry], dtype=np.uint16)

    @property
    def table_bits(self) -> int:
        """Size of code table and dictionary."""
        return 16 * (self.max_code_bits + self.dictionary.size)

    @cached_property
    def codeword_bits(self) -> int:
        """Size of the codewords, without the padding of the streams' last words."""
        return int(self.lengths[self.symbols].astype(np.int64).sum())

    @property
    def bits(self) -> int:
        """Size of code table, dictionary and codewords."""
        return self.table_bits + self.codeword_bits

    @cached_property
    def cycles_per_row(self) -> np.ndarray:
        """Micro-operations of each row, end of row included, int64 (rows,)."""
        sizes = np.array([len(entry) for entry in self.entries], dtype=np.int64)
        ends = np.cumsum(sizes[self.symbols])[np.cumsum(self.row_lengths) - 1]
        return np.diff(ends, prepend=0)

    def rows(self, which: np.ndarray) -> np.ndarray:
        """Codewords of some rows, one after another in the order given, uint8."""
        lengths = self.row_lengths[which]
        starts = (np.cumsum(self.row_lengths) - self.row_lengths)[which]
        places = np.arange(int(lengths.sum())) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return np.asarray(self.symbols[places])


@dataclasses.dataclass(frozen=True, eq=False)
class TapRows:
    """A layer's weights.

    Parameters
    ----------
    indices : uint16 array (rows, taps)
        Codebook index of each weight, in tap order: position, input channel (innermost).
    codebook : tuple of tuple of Term
        An empty entry is the weight 0.
    channels : int
        Taps per position (C).
    """

    indices: np.ndarray
    codebook: tuple[tuple[Term, ...], ...]
    channels: int


def encode_layer(indices: np.ndarray, codebook: tuple[tuple[Term, ...], ...], *, channels: int,
                 max_code_bits: int, dict_depth: int, tolerance: float = TOLERANCE) -> EncodedLayer:
    """Encode one layer; arguments as those of :class:`TapRows` and :func:`encode_layers`."""
    return encode_layers([TapRows(indices, codebook, channels)], max_code_bits=max_code_bits, dict_depth=dict_depth,
                         tolerance=tolerance)[0]


def encode_layers(layers: Sequence[TapRows], *, max_code_bits: int, dict_depth: int,
                  tolerance: float = TOLERANCE) -> tuple[EncodedLayer, ...]:
    """Encode layers with one dictionary and code for all, in the alphabet with the fewest cycles of those that make
    them nearly as small as the smallest.

    Parameters
    ----------
    layers : sequence of TapRows
    max_code_bits : int
        Longest codeword (``AcceleratorConfig.max_code_bits``).
    dict_depth : int
        Most micro-operations of the dictionary (``AcceleratorConfig.dict_depth``).
    tolerance : float
        How much larger than the smallest they may be, to take fewer cycles.

    Raises
    ------
    CapacityError
        If no alphabet fits the dictionary and the code.
    ModelError
        If an argument is malformed.
    """
    together = _prepare(layers)
    max_entries = min(SYMBOLS_MAX, 1 << max_code_bits)
    found: list[tuple[int, Phrases, np.ndarray]] = []
    for builder in BUILDERS:
        for phrases in builder(together):
            choice = choose_phrases(phrases, max_code_bits=max_code_bits, max_entries=max_entries,
                                    max_operations=dict_depth)
            if choice:
                found.append((choice[1], phrases, choice[0]))
    if not found:
        raise CapacityError(
            f"{len(together.values)} different weights and the end of row do not fit a dictionary of {max_entries} "
            f"entries, {dict_depth} micro-operations and codewords of {max_code_bits} bits; use fewer weight levels or "
            f"raise max_code_bits or dict_depth")
    # The search leaves out the trimmed ends of rows: make all that can win, to compare them.
    limit = (1 + 2 * tolerance) * min(bits for bits, _, _ in found) + 64
    made = [_assemble(phrases, kept, max_code_bits) for bits, phrases, kept in found if bits <= limit]
    smallest = min(encoded.bits for encoded in made)
    best = min((encoded for encoded in made if encoded.bits <= (1 + tolerance) * smallest),
               key=lambda encoded: (int(encoded.cycles_per_row.sum()), encoded.bits))
    return _parted(best, [len(layer.indices) for layer in layers])


def shared_row(taps: int, truncate: int, *, maximum: bool = False, leak: int = 0, negative: bool = False,
               max_code_bits: int = AcceleratorConfig.max_code_bits) -> EncodedLayer:
    """The one row that all output channels of a pooling layer replay: the sum or the maximum of all taps.

    The maximum of a and x >= 0 is made of three operations: subtract x, rectify, add x. A leaky ReLU of a tap is the
    maximum of x and ``x << leak``.

    Parameters
    ----------
    taps : int
        Taps of the kernel, one a position.
    truncate : int
        Low bits that a product loses (``AcceleratorConfig.truncate``), so that the product is the activation.
    maximum : bool
        Maximum in place of sum.
    leak : int
        If not 0, leaky ReLU in place of sum, of one tap.
    negative : bool
        The sum is subtracted from 0.
    max_code_bits : int
        Words of the code table.
    """
    if taps < 0 or not 0 <= truncate <= truncate + leak <= MAX_SHIFT_FIELD:
        raise ModelError(f"a shared row must have no negative number of taps and a shift from 0 to {MAX_SHIFT_FIELD}, "
                         f"not {taps!r} taps and a shift of {truncate + leak!r}")
    add = MicroOp(kind=OpKind.SUB if negative else OpKind.ADD, last=True, shift=truncate + leak, post=1)
    entry = (MicroOp(kind=OpKind.SUB, last=False, shift=truncate + leak),
             MicroOp(kind=OpKind.SKIP, last=False, shift=RECTIFY_SHIFT), add) if maximum or leak else (add,)
    if leak:
        entry = (MicroOp(kind=OpKind.ADD, last=False, shift=truncate), *entry)
    entries = (entry, (MicroOp(kind=OpKind.EOR, last=True),))[0 if taps else 1:]
    eor = len(entries) - 1
    symbols = np.zeros(taps + 1, dtype=np.uint8)
    symbols[-1] = eor
    return EncodedLayer(alphabet="shared", lengths=np.ones(len(entries), dtype=np.uint8), eor=eor, symbols=symbols,
                        row_lengths=np.array([taps + 1]), max_code_bits=max_code_bits, entries=entries)


def _prepare(layers: Sequence[TapRows]) -> LayerTaps:
    """Check the arguments; number the different weights that occur. Rows are filled with zeros, which cost nothing at
    their ends."""
    values: dict[tuple[Term, ...], int] = {}
    parts = [_numbered(layer, values) for layer in layers]
    width = max(part.shape[1] for part in parts)
    taps = parts[0] if len(parts) == 1 else np.concatenate(
        [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts])
    return LayerTaps(taps=taps, values=tuple(values), reach=min(
        layer.channels if layer.channels > 1 else MAX_PRE + MAX_POST for layer in layers))


def _numbered(layer: TapRows, values: dict[tuple[Term, ...], int]) -> np.ndarray:
    """Numbers of a layer's weights, those of zeros 0; weights that are not there yet are added."""
    indices, codebook, channels = np.asarray(layer.indices), layer.codebook, layer.channels
    if indices.dtype != np.uint16 or indices.ndim != 2 or not indices.size:
        raise ModelError(f"weight indices must be uint16 of shape (rows, taps), not {indices.dtype} of shape "
                         f"{indices.shape}")
    if int(indices.max()) >= len(codebook):
        raise ModelError(f"weight index {int(indices.max())} is outside its codebook of {len(codebook)} entries")
    if channels < 1 or indices.shape[1] % channels:
        raise ModelError(f"{indices.shape[1]} taps are not whole positions of {channels} channels")
    for entry in codebook:
        for term in entry:
            if not 0 <= term.shift <= MAX_SHIFT_FIELD:
                raise ModelError(f"a weight's term must have a shift from 0 to {MAX_SHIFT_FIELD}, not {term.shift}")
    occurs = np.bincount(indices.reshape(-1), minlength=len(codebook)) > 0
    number = np.zeros(len(codebook), dtype=np.uint16)
    for index in np.flatnonzero(occurs):
        entry = tuple(codebook[index])
        if entry:
            number[index] = values.setdefault(entry, len(values) + 1)
    return np.asarray(number[indices])


def _parted(encoded: EncodedLayer, rows: Sequence[int]) -> tuple[EncodedLayer, ...]:
    """The parts of layers that were encoded together."""
    if len(rows) == 1:
        return (encoded,)
    lengths = np.split(encoded.row_lengths, np.cumsum(rows)[:-1])
    symbols = np.split(encoded.symbols, np.cumsum([part.sum() for part in lengths])[:-1])
    return tuple(dataclasses.replace(encoded, symbols=part, row_lengths=length)
                 for part, length in zip(symbols, lengths, strict=True))


def _assemble(phrases: Phrases, kept: np.ndarray, max_code_bits: int) -> EncodedLayer:
    """Make the dictionary, code and codewords of one alphabet."""
    stream = spell(phrases, kept)
    counts = np.bincount(stream, minlength=phrases.size.size)
    used = np.flatnonzero(counts)
    lengths = code_lengths(counts[used], max_code_bits)
    order = np.argsort(lengths, kind="stable")
    rank = np.zeros(counts.size, dtype=np.uint8)
    rank[used[order]] = np.arange(used.size)
    symbols = rank[stream]
    code = CanonicalCode(lengths[order])
    return EncodedLayer(
        alphabet=phrases.name,
        entries=tuple(phrases.ops(int(phrase)) for phrase in used[order]),
        lengths=code.lengths,
        eor=int(rank[EOR]),
        symbols=symbols,
        row_lengths=np.diff(np.flatnonzero(stream == EOR), prepend=-1),
        max_code_bits=max_code_bits,
    )
