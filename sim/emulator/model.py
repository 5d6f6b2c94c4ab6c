"""The program that is a board: the Verilated top and the C++ around it, built once and kept in the cache."""

import functools
from pathlib import Path

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ConfigError
from ...hw.arch.link import FIRST_BAUD
from ...sw.tools import using_tools
from ..runner import Model, build
from ..simulators import ProgramSpec

__all__ = ["FAST_CLOCK_HZ", "LEAST_CLOCK_HZ", "board_model", "program_around"]

FAST_CYCLES = 8
"""Clock cycles of a bit in fast mode."""
FAST_CLOCK_HZ = FAST_CYCLES * FIRST_BAUD
"""A clock so slow that bytes take few cycles. The board's divisor is that of its clock, the host's speed stays."""
LEAST_CYCLES = 4
"""Clock cycles of a bit that the board's receiver needs."""
LEAST_CLOCK_HZ = LEAST_CYCLES * FIRST_BAUD
"""The slowest clock, for the quickest simulation of bytes."""
_SOURCES = (".cpp", ".h")


def board_model(config: AcceleratorConfig, *, clock_hz: int, board: str = "", divisor: int | None = None) -> Model:
    """Build the program of a board, or take it from the cache.

    Parameters
    ----------
    config : AcceleratorConfig
        Of the accelerator.
    clock_hz : int
        The board's clock, as it tells the host; at least :data:`LEAST_CLOCK_HZ`.
    board : str
        Name that the board tells the host.
    divisor : int or None
        The board's first divisor, in sixteenths of a clock cycle; ``None`` is that of ``FIRST_BAUD``.

    Raises
    ------
    ConfigError
        If the clock is too slow.
    ToolError
        If a tool is missing or fails.
    """
    if clock_hz < LEAST_CLOCK_HZ:
        raise ConfigError(f"the clock of a virtual board must be at least {LEAST_CLOCK_HZ} Hz "
                          f"({LEAST_CYCLES} cycles a bit at {FIRST_BAUD} baud), not {clock_hz} Hz")
    return program_around(_verilog(config, clock_hz, board, divisor))


def program_around(text: str) -> Model:
    """Build the program around Verilog of a module ``board``: inputs ``clk``, ``rst``, ``rx``; outputs ``tx``,
    ``busy``."""
    folder = Path(__file__).parent
    program = {path.name: path.read_text() for path in sorted(folder.iterdir()) if path.suffix in _SOURCES}
    return build(ProgramSpec(sources={"board.v": text}, top="board", fast=True, program=program))


@functools.lru_cache(maxsize=32)
def _verilog(config: AcceleratorConfig, clock_hz: int, board: str, divisor: int | None) -> str:
    from ...hw.generate import verilog
    from ...hw.top import AcceleratorOverUart

    with using_tools():
        return verilog(AcceleratorOverUart(config, clock_hz=clock_hz, board=board, divisor=divisor), name="board")
