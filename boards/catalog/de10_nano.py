"""Terasic DE10-Nano: Verilog and constraints, for Quartus."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="de10-nano", title="Terasic DE10-Nano", platform="amaranth_boards.de10_nano:DE10NanoPlatform",
    config=AcceleratorConfig(act_depth=4096), clock_mhz=50.0, programmer=("-b", "de10nano"),
    serial="a bridge of your own (3.3 V) at the Arduino header: IO0 (in) and IO1 (out)", baud=1_000_000,
    notes="the board's USB UART belongs to the processor's side. Not routed by Shiftwright: see the timing report of "
          "the vendor's tool")]
