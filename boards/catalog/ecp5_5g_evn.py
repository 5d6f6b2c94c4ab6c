"""Lattice ECP5-5G Evaluation Board."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="ecp5-5g-evn", title="Lattice LFE5UM5G-85F-EVN", platform="amaranth_boards.ecp5_5g_evn:ECP55GEVNPlatform",
    config=AcceleratorConfig(act_depth=4096), clock_mhz=100.0, programmer=("-b", "ecp5_evn"),
    serial="FT2232H (USB 0403:6010), the second of its two ports", baud=3_000_000,
    notes="the UART reaches the USB bridge only after two resistors are moved and the bridge's second channel is set "
          "to UART (section 6.2 of the board's user guide); or use a bridge of your own at P2 (in) and P3 (out)")]
