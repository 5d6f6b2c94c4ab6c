"""Digilent Arty A7: Verilog and constraints, for Vivado."""

from ...hw.arch.config import AcceleratorConfig
from ..registry import Board

BOARDS = [Board(
    name="arty-a7", title="Digilent Arty A7-35T", platform="amaranth_boards.arty_a7:ArtyA7_35Platform",
    config=AcceleratorConfig(weight_depth=32768), clock_mhz=100.0, programmer=("-b", "arty_a7_35t"),
    serial="FT2232HQ (USB 0403:6010), the second of its two ports", baud=3_000_000,
    notes="not routed by Shiftwright: see the timing report of the vendor's tool")]
