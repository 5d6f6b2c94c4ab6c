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


class Register(enum.IntEnum):
    """Registers. Reading an undefined one gives 0."""

    MAGIC = 0
    """Reads 0x5357."""
    VERSION = 1
    """Version of the register map and model memory layout."""
    FINGERPRINT_LO = 2
    FINGERPRINT_HI = 3
    CONTROL = 4
    """Write 1 to start a run, 2 to abort it."""
    STATUS = 5
    """Bit 0 busy, bit 1 done, bit 2 paused at a layer boundary, bits 7:4 :class:`Status`."""
    ERROR_LAYER = 6
    """Layer in which the run ended."""
    ERROR_ROW = 7
    """Output channel at which the run ended."""
    CYCLES_LO = 8
    CYCLES_HI = 9
    """Clock cycles of the last run, from start to done."""


class Control(enum.IntFlag):
    """Bits of :attr:`Register.CONTROL`."""

    START = 1
    ABORT = 2


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


MAP_VERSION = 1
