"""A board's top: the accelerator with its UART on the board's pins, as RTLIL, with the pins' constraints."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from amaranth.build import ResourceError
from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io

from ..hw.arch.config import AcceleratorConfig
from ..hw.generate import strip_zero_contents
from ..hw.top import AcceleratorOverUart
from .clock import PllClock
from .registry import Board

__all__ = ["Prepared", "prepare"]

CONSTRAINTS = (".lpf", ".pcf", ".cst", ".xdc", ".qsf", ".sdc")
"""Endings of the files that name pins and clocks."""
NAME_BYTES = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A board's top, before synthesis.

    Parameters
    ----------
    rtlil : str
        The design; its top module is called like the file names' stems.
    constraints : mapping of str to str
        Contents by file name.
    """

    rtlil: str
    constraints: Mapping[str, str]


def prepare(board: Board, config: AcceleratorConfig, *, name: str = "top") -> Prepared:
    """The top of a board with an accelerator.

    Parameters
    ----------
    name : str
        Of the top module and the files.

    Raises
    ------
    ConfigError
        If the board's platform can't be had, or its clock can't be made.
    """
    top = _BoardTop(board, config)
    platform = _without_tools(board.make_platform())
    plan = platform.build(top, name, do_build=False)
    texts = {file: content.decode() if isinstance(content, bytes) else content for file, content in plan.files.items()}
    # Platforms differ in whether they let the places in the sources be left out.
    rtlil = re.sub(r"^ *attribute \\src .*\n", "", texts[f"{name}.il"], flags=re.MULTILINE)
    return Prepared(rtlil=strip_zero_contents(rtlil),
                    constraints={file: text for file, text in texts.items() if file.endswith(CONSTRAINTS)})


def _without_tools(platform: Any) -> Any:
    """The platform, asked only for the design and its constraints: the rest would call tools."""
    templates = {file: text for file, text in platform.file_templates.items() if file.endswith(CONSTRAINTS)}
    kept = {"file_templates": property(lambda self: {**templates, "{{name}}.il": "{{emit_rtlil()}}\n"}),
            "command_templates": property(lambda self: [])}
    platform.__class__ = type(type(platform).__name__, (type(platform),), kept)
    return platform


class _BoardTop(Elaboratable):
    """Connects the UART to the board's pins, and the first LED to ``busy``."""

    def __init__(self, board: Board, config: AcceleratorConfig) -> None:
        self._board, self._config, self._pll = board, config, board.pll()

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        board = self._board
        if self._pll is not None:
            m.domains.sync = ClockDomain()
            m.submodules.clock = PllClock(self._pll)
        m.submodules.accelerator = inner = AcceleratorOverUart(
            self._config, clock_hz=board.clock_hz, board=board.name[:NAME_BYTES])
        pins = platform.request("uart", board.uart.number, dir="-")
        m.submodules.rx = rx = io.Buffer("i", pins.rx)
        m.submodules.tx = tx = io.Buffer("o", pins.tx)
        m.d.comb += [inner.rx.eq(rx.i), tx.o.eq(inner.tx)]
        try:
            light = platform.request("led", 0, dir="-")
        except ResourceError:
            # There is none, or it shares a pin with the UART.
            return m
        m.submodules.led = led = io.Buffer("o", light)
        m.d.comb += led.o.eq(inner.busy)
        return m
