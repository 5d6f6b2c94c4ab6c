"""Layout of the model memory: descriptors, dictionaries, code tables, parameters and weight streams.

Hardware, packer and documentation (``docs/image.md``) take every number from here. All words are 16 bits.
"""

import dataclasses
import enum

__all__ = ["DESCRIPTOR", "DESCRIPTOR_WORDS", "HEADER", "HEADER_WORDS", "LAYERS_MAX", "MODEL_MAGIC", "Flag", "MicroOp",
           "OpKind"]

MODEL_MAGIC = 0x5357
"""First word of the model memory ("SW")."""
HEADER: tuple[str, ...] = (
    "magic",        # MODEL_MAGIC
    "layers",       # number of layers, 1 to LAYERS_MAX
    "total_lo",     # words in use, this header included, low half first
    "total_hi",
    "tail",         # first layer of the tail, which runs once for a batch of images; ``layers`` when there is none
    "tail_addr_lo",  # where that layer's descriptor is, low half first; 0 when there is none
    "tail_addr_hi",
)
"""The words at the beginning of the model memory."""
HEADER_WORDS = len(HEADER)
LAYERS_MAX = 255

DESCRIPTOR_TAG = 0xD
"""Bits 15:12 of a descriptor's first word."""


class Flag(enum.IntFlag):
    """Bits 11:0 of a descriptor's first word."""

    MAX = 1 << 0
    """Signed input activations are read offset by 128 (top bit inverted), so that all are at least 0 and padding, which
    reads 0, is the least. Max pooling of a tap is three operations: subtract, :attr:`OpKind.SKIP` with rectify, add."""
    X_SIGNED = 1 << 1
    """Input activations are two's complement; otherwise unsigned."""
    RAW = 1 << 2
    """Outputs are ``acc + bias`` as 32-bit little-endian two's complement: four bytes in channels 4c to 4c + 3."""
    SHARED_ROW = 1 << 3
    """All output channels of a stream replay the stream's one row (pooling)."""
    SHARED_SCALE = 1 << 4
    """The scale words stand once, before the first row's bias, in place of in every row."""
    BIAS = 1 << 5
    """Rows have a bias."""
    WIDE_BIAS = 1 << 6
    """A bias is two words, low half first; otherwise one, sign-extended."""
    ORDER = 1 << 7
    """Each row's parameters begin with a word: its output channel. Otherwise row r of stream s is r * streams + s."""
    FLATTEN = 1 << 8
    """The output is written as a vector for batch lanes: everything in the bank of the image that is being run, pixel
    (y, x) at ``out_base + y * out_plane_y + x * out_plane_x`` (phases never wrap)."""
    BATCH = 1 << 9
    """Each lane holds another image: of each row pass only the lanes of the images of the run are drained."""
    SAME_CODE = 1 << 10
    """No code table and no dictionary follow: those of the layer before stay."""
    COMPACT = 1 << 11
    """A row's bias and its scale, of one term, are one word (:data:`COMPACT_BIAS_BITS`). Without ``BIAS``,
    ``WIDE_BIAS`` and ``SHARED_SCALE``."""


DESCRIPTOR: tuple[str, ...] = (
    "tag_flags",       # DESCRIPTOR_TAG << 12 | Flag
    "channels",        # C: taps per kernel position
    "positions",       # KEPT_AT: positions kept from the layer before; below: those that follow
    "rows",            # output channels
    "group_rows",      # rows of one stream per group
    "group_step",      # added to a stream's input base address at each new group
    "stream_step",     # stream s begins at in_base + s * stream_step
    "out_h",           # output height
    "out_w",           # output width
    "in_base",         # bank address of the input tensor
    "in_col_step",     # bank address step to the next column of blocks of the input tensor
    "in_row_step",     # bank address step to the next row of blocks of the input tensor
    "out_base",        # bank address of the output tensor
    "out_phases",      # vertical phases << 8 | horizontal phases (the consumer's stride, 1 to 15)
    "out_plane_x",     # bank address step to the next pixel of a row, when that is in the next phase
    "out_turn_x",      # ... when it is in the first phase and the next bank: -(phases - 1) * out_plane_x
    "out_wrap_x",      # ... when it is in the first phase and the first bank: out_turn_x + step of a block column
    "out_plane_y",     # the same three to the next pixel of a column
    "out_turn_y",
    "out_wrap_y",
    "qmin",            # least output value, two's complement
    "qmax",            # greatest output value, two's complement
    "dict_words",      # words of the dictionary
    "eor",             # end-of-row symbol
    "watchdog",        # most cycles of the layer, in units of WATCHDOG_UNIT, less one
)
"""The words of a layer descriptor, in order. After it come, in this order: for each stream a length of its parameters
and one of its codewords (each two words, low half first); the positions that are not kept (three words each); without
``SAME_CODE`` the code table (``max_code_bits`` words: codewords of length 1, 2, ...) and the dictionary; for each
stream its parameters; for each stream its codewords; then the next layer's descriptor."""
DESCRIPTOR_WORDS = len(DESCRIPTOR)
LENGTH_WORDS = 4
"""Words of the lengths of one stream."""
WATCHDOG_UNIT = 4096
"""Cycles; a layer that takes longer than ``(watchdog + 1) * WATCHDOG_UNIT`` ends the run."""

KEPT_AT = 10
"""Bit of the descriptor's ``positions`` at which the number of kept ones begins: the first ones of the table, as the
layers before left them. Those that follow the descriptor come after them."""
KEPT_MAX = (1 << 16 - KEPT_AT) - 1
POSITION_WORDS = 3
"""Words of a position: offset; residues and edges at the top and left (:data:`RESIDUE_BITS`, :data:`EDGE_BITS`):
``residue_y | residue_x << 3 | first_y << 6 | first_x << 10``; edges at the bottom and right:
``last_y | last_x << 4``."""
RESIDUE_BITS, EDGE_BITS = 3, 4
COORDINATE_BITS = 12
"""Most bits of an output coordinate; an accelerator may have fewer (``map_bits``)."""
PHASE_BITS = 4
"""Width of a number of polyphase phases: strides are at most 15."""


RAW_BYTES = 4
"""Byte channels that hold one raw output."""


class OpKind(enum.IntEnum):
    """What a micro-operation does after moving the tap pointer."""

    ADD = 0
    SUB = 1
    SKIP = 2
    """No term: only moves the tap pointer. With shift :data:`RECTIFY_SHIFT`, negative accumulators become 0."""
    EOR = 3
    """Ends the row."""


RECTIFY_SHIFT = 1
ENTRY_OPS_MAX = 64
"""Micro-operations of one dictionary entry, at most."""
PRE_BITS, POST_BITS, SHIFT_BITS = 6, 3, 4
MAX_PRE, MAX_POST, MAX_SHIFT_FIELD = 63, 7, 15


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroOp:
    """One micro-operation of a dictionary entry: ``p += pre; acc +-= x[p] << shift; p += post``.

    Word: bits 1:0 kind, bit 2 last of its entry, bits 6:3 shift, bits 12:7 pre, bits 15:13 post.
    """

    kind: OpKind
    last: bool
    shift: int = 0
    pre: int = 0
    post: int = 0

    def __post_init__(self) -> None:
        for name, value, high in (("shift", self.shift, MAX_SHIFT_FIELD), ("pre", self.pre, MAX_PRE),
                                  ("post", self.post, MAX_POST)):
            if not 0 <= value <= high:
                raise ValueError(f"MicroOp.{name} must be from 0 to {high}, not {value!r}")

    def pack(self) -> int:
        """The 16-bit word."""
        return self.kind | self.last << 2 | self.shift << 3 | self.pre << 7 | self.post << 13


# Scale words (see docs/image.md): the first holds the final shift and the number of further scale terms; each word
# after it holds up to two further terms of 8 bits: bits 4:0 right shift before it, bit 5 sign. The first term is
# positive (the compiler negates the row's weights otherwise).
SCALE_SHIFT_BITS = 5
SCALE_EXTRA_AT = 6
SCALE_EXTRA_MAX = 3
COMPACT_BIAS_BITS = 12
"""Low bits of a ``COMPACT`` row's word: its bias, sign-extended. The others are the final shift."""
