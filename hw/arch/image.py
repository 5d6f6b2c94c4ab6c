"""Layout of the model memory: descriptors, dictionaries, code tables, parameters and weight streams.

Hardware, packer and documentation (``docs/image.md``) take every number from here. All words are 16 bits.
"""

import dataclasses
import enum

__all__ = ["DESCRIPTOR", "DESCRIPTOR_WORDS", "Flag", "OpKind", "MicroOp", "HEADER_WORDS", "LAYERS_MAX", "MODEL_MAGIC"]

MODEL_MAGIC = 0x5357
"""First word of the model memory ("SW"). The second is the number of layers, the third and fourth the number of
words in use, low half first."""
HEADER_WORDS = 4
LAYERS_MAX = 255

DESCRIPTOR_TAG = 0xD
"""Bits 15:12 of a descriptor's first word."""


class Flag(enum.IntFlag):
    """Bits 11:0 of a descriptor's first word."""

    MAX = 1 << 0
    """Terms are combined by maximum (max pooling) in place of addition."""
    X_SIGNED = 1 << 1
    """Input activations are two's complement; otherwise unsigned."""
    RAW = 1 << 2
    """Outputs are ``acc + bias`` as 32-bit little-endian two's complement: four bytes in channels 4c to 4c + 3."""
    SHARED_ROW = 1 << 3
    """All output channels replay the stream's one row (pooling)."""
    SHARED_SCALE = 1 << 4
    """The scale words stand once, before the first row's bias, in place of in every row."""
    BIAS = 1 << 5
    """Rows have a bias."""
    WIDE_BIAS = 1 << 6
    """A bias is two words, low half first; otherwise one, sign-extended."""


DESCRIPTOR: tuple[str, ...] = (
    "tag_flags",       # DESCRIPTOR_TAG << 12 | Flag
    "channels",        # C: taps per kernel position
    "kernel",          # kernel height << 8 | kernel width
    "rows",            # output channels
    "group_rows",      # output channels per group
    "group_step",      # added to the input base address at each new group
    "out_h",           # output height
    "out_w",           # output width
    "in_base",         # bank address of the input tensor
    "in_col_step",     # bank address step to the next column of the input tensor
    "in_row_step",     # bank address step to the next row of the input tensor
    "out_base",        # bank address of the output tensor
    "out_col_step",    # bank address step to the next column of the output tensor
    "out_row_step",    # bank address step to the next row of the output tensor
    "out_plane_x",     # bank address step to the next horizontal polyphase plane of the output tensor
    "out_plane_y",     # bank address step to the next vertical polyphase plane of the output tensor
    "out_phases",      # vertical phases << 8 | horizontal phases (the consumer's stride)
    "qmin",            # least output value, two's complement
    "qmax",            # greatest output value, two's complement
    "dict_words",      # words of the dictionary
    "eor",             # end-of-row symbol
    "param_words_lo",  # words of the parameter section
    "param_words_hi",
    "a_words_lo",      # words of sub-stream A (codewords 0, 2, 4, ...)
    "a_words_hi",
    "b_words_lo",      # words of sub-stream B (codewords 1, 3, 5, ...)
    "b_words_hi",
    "watchdog",        # most cycles of the layer, in units of WATCHDOG_UNIT, less one
)
"""The words of a layer descriptor, in order. After it come, in this order: the row table (three words a kernel row),
the column table (three words a kernel column), the code table (``max_code_bits`` words: codewords of length 1, 2, ...),
the dictionary, the parameters, sub-stream A, sub-stream B; then the next layer's descriptor."""
DESCRIPTOR_WORDS = len(DESCRIPTOR)
WATCHDOG_UNIT = 4096
"""Cycles; a layer that takes longer than ``(watchdog + 1) * WATCHDOG_UNIT`` ends the run."""

# A kernel table entry: (offset, residue << 12 | first, last). See docs/image.md.
KERNEL_ENTRY_WORDS = 3
COORDINATE_BITS = 12
"""Width of an output coordinate in a kernel table; an accelerator may have fewer (``map_bits``)."""
PHASE_BITS = 4
"""Width of a number of polyphase phases: strides are at most 15."""


class OpKind(enum.IntEnum):
    """What a micro-operation does after moving the tap pointer."""

    ADD = 0
    SUB = 1
    SKIP = 2
    """No term: only moves the tap pointer."""
    EOR = 3
    """Ends the row."""


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


# Scale words (see docs/image.md): the first holds the final shift (a bit unused), the number of further scale terms and
# the first term's sign; each word after it holds up to two further terms of 8 bits: bits 4:0 right shift before
# it, bit 5 sign.
SCALE_SHIFT_BITS = 5
SCALE_EXTRA_AT = 6
SCALE_EXTRA_MAX = 3
