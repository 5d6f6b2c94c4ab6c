"""The clock of a board's top: the oscillator's, or that of a phase-locked loop, with a reset until it is stable."""

from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, ResetSignal, Signal
from amaranth.lib import io

from .pll import Pll

__all__ = ["PllClock"]

SETTLE_US = 15
"""How long the reset lasts after the lock: block RAM of an iCE40 may read as zeros for some time."""


class PllClock(Elaboratable):
    """Drives the domain ``sync``, which the module around it defines, with the clock of a phase-locked loop.

    The domain's reset lasts until the loop has locked, and comes back when it loses its lock, or the board's reset is
    pressed.

    Parameters
    ----------
    pll : Pll
    """

    def __init__(self, pll: Pll) -> None:
        self._pll = pll

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        kind, parameters = self._pll.kind, self._pll.parameters
        clock, locked, reset = Signal(), Signal(), Signal(init=1)
        pin = platform.request(platform.default_clk, dir="-")
        settings = {f"p_{name}": Const(*value) if isinstance(value, tuple) else value
                    for name, value in parameters.items()}
        if kind.cell == "SB_PLL40_PAD":
            source: Any = pin.io
        else:
            m.submodules.pin = buffer = io.Buffer("i", pin)
            source = buffer.i
        m.submodules.pll = getattr(self, f"_{kind.cell.lower()}")(source, clock, locked, settings)
        m.d.comb += [ClockSignal("sync").eq(clock), ResetSignal("sync").eq(reset)]
        wanted = ~locked
        if platform.default_rst is not None:
            m.submodules.reset_pin = button = io.Buffer("i", platform.request(platform.default_rst, dir="-"))
            wanted = wanted | button.i
        # No reset of its own: two flip-flops synchronize what comes from outside, and all begin in reset.
        m.domains.settling = ClockDomain(local=True, reset_less=True)
        m.d.comb += ClockSignal("settling").eq(clock)
        cycles = int(SETTLE_US * self._pll.output_mhz)
        unstable, left = Signal(2, init=0b11), Signal(range(cycles + 1), init=cycles)
        m.d.settling += [unstable.eq(Cat(wanted, unstable[0])), reset.eq(unstable[1] | (left != 0))]
        with m.If(unstable[1]):
            m.d.settling += left.eq(cycles)
        with m.Elif(left != 0):
            m.d.settling += left.eq(left - 1)
        return m

    @staticmethod
    def _ehxplll(source: Any, clock: Signal, locked: Signal, settings: dict[str, Any]) -> Instance:
        fed_back = Signal()
        return Instance(
            "EHXPLLL", **settings, a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2", i_CLKI=source, i_CLKFB=fed_back, i_RST=Const(0), i_STDBY=Const(0),
            i_ENCLKOP=Const(0), i_ENCLKOS=Const(0), i_PHASESEL0=Const(0), i_PHASESEL1=Const(0), i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1), i_PHASELOADREG=Const(1), i_PLLWAKESYNC=Const(0), o_CLKOP=fed_back, o_CLKOS=clock,
            o_LOCK=locked)

    @staticmethod
    def _sb_pll40_core(source: Any, clock: Signal, locked: Signal, settings: dict[str, Any]) -> Instance:
        return Instance("SB_PLL40_CORE", **settings, i_REFERENCECLK=source, i_RESETB=Const(1), i_BYPASS=Const(0),
                        o_PLLOUTGLOBAL=clock, o_LOCK=locked)

    @staticmethod
    def _sb_pll40_pad(source: Any, clock: Signal, locked: Signal, settings: dict[str, Any]) -> Instance:
        return Instance("SB_PLL40_PAD", **settings, i_PACKAGEPIN=source, i_RESETB=Const(1), i_BYPASS=Const(0),
                        o_PLLOUTGLOBAL=clock, o_LOCK=locked)

    @staticmethod
    def _rpll(source: Any, clock: Signal, locked: Signal, settings: dict[str, Any]) -> Instance:
        unused = {f"i_{name}": Const(0, width) for name, width in (
            ("CLKFB", 1), ("RESET", 1), ("RESET_P", 1), ("FBDSEL", 6), ("IDSEL", 6), ("ODSEL", 6), ("PSDA", 4),
            ("DUTYDA", 4), ("FDLY", 4))}
        return Instance("rPLL", **settings, **unused, i_CLKIN=source, o_CLKOUT=clock, o_LOCK=locked)
