"""Sizes inside the accelerator that set its pace; the cycle model (``sw/compiler/pace.py``) reckons with them too."""

from .config import AcceleratorConfig

__all__ = ["BANK_WORDS", "PASS_SPACING", "READ_WORDS", "RELEASE_BITS", "memory_latency", "prefetch_words",
           "read_latency"]

PASS_SPACING = 4
"""Cycles between the beginnings of two passes of the drain, at least."""
RELEASE_BITS = 3
"""A stream may issue its next end of row when at most ``1 << RELEASE_BITS`` pixels are left: these are read before it
reaches the shadows."""
READ_WORDS = 16
"""Shadows that one stage of the read multiplexer chooses from."""


BANK_WORDS = 16384
"""Of a bank of the model memory: a block RAM of ECP5 is this many words of a bit, a single-port RAM of iCE40 this many
of sixteen."""


def memory_latency(config: AcceleratorConfig) -> int:
    """Cycles from a grant of the model memory to its word.

    Block RAMs of several banks lie far apart: their words get a register each before one is chosen.
    """
    return 3 if config.weight_memory == "spram" or config.weight_depth <= BANK_WORDS else 4


def prefetch_words(config: AcceleratorConfig) -> int:
    """Words that a decoder fetches ahead: a distributed RAM where there is one, registers on small devices."""
    return 16 if config.interleave == 4 else 4


def read_latency(config: AcceleratorConfig) -> int:
    """Cycles from ``drain_lane`` (or ``drain_shift``) to ``head`` of :class:`shiftwright.hw.lanes.LaneArray`."""
    if config.shadow_chain:
        return 0
    return 1 if config.lanes <= READ_WORDS else 2
