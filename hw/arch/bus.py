"""The word bus: address map, registers and status codes.

The bus address is 24 bits, a word 16. Bits 23:22 choose the region.
"""

import enum

BUS_ADDR_BITS = 24
BUS_DATA_BITS = 16
BANK_SHIFT = 16
"""Activation region: bits 21:16 bank (``y mod lanes_y * lanes_x + x mod lanes_x``), bits 15:0 bank address."""


class Region(enum.IntEnum):
    """Bits 23:22 of a bus address."""

    MODEL = 0
    """Model memory, a word an address."""
    ACTIVATIONS = 1
    """Activation banks, one activation in bits 7:0."""
    REGISTERS = 2
    """:class:`Register`."""


def bus_address(region: Region, offset: int = 0) -> int:
    """Address of a region's word."""
    return region << BUS_ADDR_BITS - 2 | offset


class Register(enum.IntEnum):
    """Registers. Reading an undefined one gives 0."""

    MAGIC = 0
    """Reads 0x5357."""
    VERSION = 1
    """Version of the register map and model memory layout."""
    FINGERPRINT_LO = 2
    FINGERPRINT_HI = 3
    CONTROL = 4
    """Write :class:`Control` bits. A start takes two numbers with it: bits 9:4 image, bits 15:10 images less one."""
    STATUS = 5
    """:class:`StatusBit`; bits 7:4 :class:`Status`."""
    ERROR_LAYER = 6
    """Layer in which the run ended."""
    ERROR_ROW = 7
    """Output channel at which the run ended."""
    CYCLES_LO = 8
    CYCLES_HI = 9
    """Clock cycles of the last run, from start to done."""


class Control(enum.IntFlag):
    """Bits 3:0 of :attr:`Register.CONTROL`.

    A batch of N images is N starts with ``START | HEAD`` (after loading each input, ``image`` = 0 to N - 1), then one
    with ``START | TAIL`` and ``images`` = N. ``START`` alone runs all layers for one image.
    """

    START = 1
    ABORT = 2
    HEAD = 4
    """End the run before the tail."""
    TAIL = 8
    """Begin the run at the tail."""


IMAGE_AT, IMAGES_AT = 4, 10
"""Bits of :attr:`Register.CONTROL` where the image's number (its lane) and the number of images less one begin."""


class Counter(enum.IntEnum):
    """What a layer's cycles were spent on: 32-bit counters, low half first, written to the model memory at the end of
    each layer, at ``weight_depth - (layer + 1) * COUNTER_WORDS``, unless the image reaches so far. Summed over streams
    but for :attr:`BUSY`."""

    BUSY = 0
    """All cycles of the layer, loading included."""
    TERMS = 1
    """Micro-operations with a term."""
    STARVED = 2
    """Cycles in which a stream that is not done had no micro-operation to issue."""
    STALLED = 3
    """Cycles in which an end of row waited for the drain."""


COUNTER_WORDS = 2 * len(Counter)


class StatusBit(enum.IntFlag):
    """Bits 2:0 of :attr:`Register.STATUS`."""

    BUSY = 1
    DONE = 2
    """A run has ended since the last start."""
    PAUSED = 4
    """Held at a layer boundary."""


STATUS_AT, STATUS_MASK = 4, 0xF
"""Bit of :attr:`Register.STATUS` where :class:`Status` begins; its bits, once moved down."""


class Status(enum.IntEnum):
    """Why a run ended (bits 7:4 of :attr:`Register.STATUS`)."""

    OK = 0
    BAD_MODEL = 1
    """The model memory does not begin with the magic word, or has no layers."""
    BAD_DESCRIPTOR = 2
    """A descriptor has a wrong tag or a field out of range."""
    BAD_CODEWORD = 3
    """The bits of a stream match no codeword."""
    STREAM_OVERRUN = 4
    """A stream, table or parameter read ran past the end of the model."""
    TAP_OVERRUN = 5
    """A term lies outside the kernel."""
    WATCHDOG = 6
    """A layer took longer than its descriptor allows."""
    ABORTED = 7
    """The host aborted the run."""


MAP_VERSION = 3
