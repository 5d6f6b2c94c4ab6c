"""The way to standard cells: libraries, timing, macros, initial values, and a small accelerator as a whole.

The library of these tests is written here: an inverter-like delay of 0.1 ns and 1 ns a pF, areas of a few units.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from amaranth.hdl import Elaboratable, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from shiftwright.boards.asic import build_asic, compare_arrays
from shiftwright.boards.functions import truth_table
from shiftwright.boards.liberty import Library, read_liberty
from shiftwright.boards.mapping import STYLES, Style, check_initial_values, map_design
from shiftwright.boards.sram import macros_of, memory_library, wrappers
from shiftwright.boards.timing import CLOCK_SLEW, slowest_path
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ConfigError, DataError, ToolError
from shiftwright.hw.generate import accelerator, rtlil_text
from shiftwright.hw.lanes import LaneArray
from shiftwright.hw.yosys import run_yosys
from shiftwright.sw.tools import require

TABLE = 'values ("0.10, 0.20", "0.15, 0.25");'
SMALL = AcceleratorConfig(lanes_y=1, lanes_x=1, weight_depth=256, act_depth=16, positions=16, row_depth=64)


def _timing(related: str, sense: str) -> str:
    tables = "".join(f"{name} (t) {{ {TABLE} }}\n" for name in
                     ("cell_rise", "cell_fall", "rise_transition", "fall_transition"))
    return f'timing () {{ related_pin : "{related}"; timing_sense : {sense}; {tables} }}\n'


def _gate(name: str, area: float, inputs: str, function: str, sense: str) -> str:
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 0.01; }}\n" for pin in inputs)
    arcs = "".join(_timing(pin, sense) for pin in inputs)
    return (f"cell ({name}) {{ area : {area};\n{pins}pin (Y) {{ direction : output; function : \"{function}\";\n"
            f"max_capacitance : 1.0; {arcs} }} }}\n")


FLIP_FLOP = f"""cell (DFF) {{ area : 6;
ff (IQ, IQN) {{ clocked_on : "C"; next_state : "D"; }}
pin (C) {{ direction : input; clock : true; capacitance : 0.01; }}
pin (D) {{ direction : input; capacitance : 0.01
  timing () {{ timing_type : setup_rising
    related_pin : "C";
    rise_constraint (s) {{ {TABLE} }} fall_constraint (s) {{ {TABLE} }} }} }}
pin (Q) {{ direction : output; function : "IQ"; max_capacitance : 1.0;
  {_timing("C", "non_unate").replace("timing () {", "timing () { timing_type : rising_edge;")} }} }}
"""
CELLS = f"""/* cells */
library (tiny) {{
time_unit : "1ns"; capacitive_load_unit (1, pf); nom_voltage : 1.2; nom_temperature : 25;
default_max_transition : 10;
lu_table_template (t) {{ variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
  index_1 ("0.05, 0.10"); index_2 ("0.0, 0.1"); }}
lu_table_template (s) {{ variable_1 : constrained_pin_transition; variable_2 : related_pin_transition;
  index_1 ("0.05, 0.10"); index_2 ("0.05, 0.15"); }}
{_gate("INV", 1, "A", "!A", "negative_unate")}{_gate("BUF", 1.5, "A", "A", "positive_unate")}
{_gate("NAND2", 2, "AB", "!(A&B)", "negative_unate")}{_gate("XOR2", 4, "AB", "(A^B)", "non_unate")}{FLIP_FLOP}}}
""".replace("values", 'index_1 ("0.05, 0.10"); index_2 ("0.0, 0.1"); values')


def _ram(name: str, depth_bits: int, width: int, ports: str, area: float) -> str:
    pins = "".join(
        f"pin ({port}_CLK) {{ direction : input; clock : true; capacitance : 0.01; }}\n"
        f"bus ({port}_ADDR) {{ bus_type : a; direction : input; capacitance : 0.02;\n"
        f"  timing () {{ timing_type : setup_rising; related_pin : \"{port}_CLK\";\n"
        f"    rise_constraint (scalar) {{ values (\"0.5\"); }} fall_constraint (scalar) {{ values (\"0.5\"); }} }} }}\n"
        f"bus ({port}_DOUT) {{ bus_type : d; direction : output; memory_read () {{ address : {port}_ADDR; }}\n"
        f"  timing () {{ timing_type : rising_edge; related_pin : \"{port}_CLK\";\n"
        f"    cell_rise (scalar) {{ values (\"2.0\"); }} cell_fall (scalar) {{ values (\"2.0\"); }} }} }}\n"
        for port in ports)
    return (f'library ({name}) {{ time_unit : "1ns"; capacitive_load_unit (1, pf);\ncell ({name}) {{ area : {area};\n'
            f"memory () {{ type : ram; address_width : {depth_bits}; word_width : {width}; }}\n{pins} }} }}\n")


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOSYS", require("yosys").path)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    (tmp_path / "cells.lib").write_text(CELLS)
    return tmp_path / "cells.lib"


@pytest.fixture
def library(cells: Path) -> Library:
    return read_liberty(cells)


class Toggle(wiring.Component):
    """Two flip-flops with logic between them."""

    a: In(1)
    q: Out(1)

    def __init__(self, *, init: int = 0, reset_less: bool = False) -> None:
        self._given = Signal(init=init, reset_less=reset_less)
        super().__init__()

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.d.sync += [self._given.eq(self.a), self.q.eq(self._given ^ self.q)]
        return m


class Words(wiring.Component):
    """A memory that is read and written at different addresses, or at one, never at once."""

    addr: In(5)
    other: In(5)
    data: In(12)
    en: In(1)
    q: Out(12)

    def __init__(self, *, shared: bool, init: tuple[int, ...] = ()) -> None:
        self._shared, self._init = shared, init
        super().__init__()

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.words = words = memory.Memory(shape=12, depth=32, init=self._init)
        write, read = words.write_port(), words.read_port()
        m.d.comb += [write.addr.eq(self.addr), write.data.eq(self.data), write.en.eq(self.en), self.q.eq(read.data),
                     read.addr.eq(self.addr if self._shared else self.other), read.en.eq(~self.en)]
        return m


def test_a_library_is_read(library: Library) -> None:
    assert (library.name, library.conditions, len(library.cells)) == ("tiny", "1.2 V, 25 C", 5)
    flip_flop = library.cells["DFF"]
    assert flip_flop.sequential and flip_flop.area == 6 and flip_flop.pins["D"].capacitance == 0.01
    assert [arc.kind for arc in flip_flop.pins["D"].arcs] == ["setup_rising"]
    delay = library.cells["NAND2"].pins["Y"].arcs[0].delay["rise"]
    assert [round(delay.at(slew, load), 6) for slew, load in ((0.05, 0), (0.1, 0.1), (0.075, 0.05), (0.05, 0.2))] == [
        0.1, 0.25, 0.175, 0.3]
    nand = library.smallest(lambda a, b: not (a and b), 2)
    assert nand is not None and nand.name == "NAND2"
    assert library.smallest(lambda a, b: a or b, 2) is None


@pytest.mark.parametrize(("text", "message"), [
    ("cell (a) { }", "it has no library"),
    ("library (a) { cell (b) { area : 1;", "the group 'cell' is not closed"),
    ("library (a) { cell b", "'cell' must be followed by ':' or '\\(', not 'b'"),
    ("library (a) { time_unit : \"1hour\"; }", "the unit '1hour' must be a number and one of ns"),
])
def test_what_is_no_library_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.lib").write_text(text)
    with pytest.raises(DataError, match=f"wrong.lib: not a Liberty file: .*{message}"):
        read_liberty(tmp_path / "wrong.lib")
    with pytest.raises(DataError, match="missing.lib: can't read the library"):
        read_liberty(tmp_path / "missing.lib")


@pytest.mark.parametrize(("function", "table"), [
    ("!(A*B)", "1110"), ("(A B)'", "1110"), ("!A+!B", "1110"), ("A'^B|0", "1001"), ("A^B&A", "0010"), ("!!A", "0011"),
])
def test_functions(function: str, table: str) -> None:
    assert truth_table(function, "AB") == tuple(bit == "1" for bit in table)


@pytest.mark.parametrize("function", ["A*", "(A", "A)", "C", ""])
def test_malformed_functions(function: str) -> None:
    with pytest.raises(ValueError, match="the function '.*' must"):
        truth_table(function, "AB")


def test_the_slowest_path_by_hand(library: Library) -> None:
    """A flip-flop drives an inverter, which drives that flip-flop and another."""
    def cell(kind: str, **nets: int) -> dict[str, object]:
        return {"type": kind, "connections": {port: [net] for port, net in nets.items()}}

    netlist = {"ports": {"clk": {"direction": "input", "bits": [2]}},
               "netnames": {"first": {"bits": [3]}, "$1": {"bits": [4]}},
               "cells": {"a": cell("DFF", C=2, D=4, Q=3), "n": cell("INV", A=3, Y=4), "b": cell("DFF", C=2, D=4, Q=5)}}
    path = slowest_path(netlist, library.cells.get)
    # Delays and slews alike are 0.1 + (slew - 0.05) + load; set-up times 0.1 + (slew of data - 0.05) + slew of clock.
    first = 0.1 + 0.01
    second = 0.1 + (first - 0.05) + 0.02
    setup = 0.1 + (second - 0.05) + CLOCK_SLEW
    assert path.setup == pytest.approx(setup, abs=1e-9)
    assert path.delay == pytest.approx(first + second + setup, abs=1e-9)
    assert path.steps == ("0.11 DFF first", "0.29 INV")
    netlist["cells"]["n"] = cell("INV", A=4, Y=4)  # type: ignore[index]
    with pytest.raises(ToolError, match="a loop of logic through n"):
        slowest_path(netlist, library.cells.get)


def test_initial_values_go_where_there_is_a_reset() -> None:
    for component in (Toggle(init=1), Toggle(reset_less=True)):
        text = rtlil_text(component)
        assert "\\init" in text and "\\init" not in check_initial_values(text)
    with pytest.raises(ToolError, match=r"must get its initial value by reset, but top\.\S+ has none"):
        check_initial_values(rtlil_text(Toggle(init=1, reset_less=True)))
    with pytest.raises(ToolError, match=r"must not have initial contents, but words has"):
        check_initial_values(rtlil_text(Words(shared=True, init=(1, 2))))


@pytest.mark.regress
def test_the_accelerator_needs_no_initial_value() -> None:
    assert "\\init" not in check_initial_values(rtlil_text(accelerator(AcceleratorConfig(streams=2))))


def test_a_flip_flop_with_reset_costs_logic(cells: Path, library: Library, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cells.lib").write_text(CELLS)
    mapped = map_design(rtlil_text(Toggle()), tmp_path / "run", library, STYLES[0], delay_ns=5)
    assert mapped.types["DFF"] == 2 and mapped.types["XOR2"] == 1
    assert mapped.types["NAND2"] >= 2  # each register's reset
    assert mapped.abc_ns > 0.1
    assert "module accelerator" in mapped.verilog


@pytest.mark.parametrize("style", STYLES, ids=lambda style: style.name)
def test_the_cells_do_what_the_design_does(cells: Path, library: Library, tmp_path: Path, style: Style) -> None:
    """Proven by induction for a lane, with the functions that the library says its cells have."""
    mapped = map_design(rtlil_text(LaneArray(SMALL), name="top"), tmp_path, library, style, delay_ns=5)
    assert set(mapped.types) <= set(library.cells)
    run_yosys("""\
read_rtlil design.il
read_verilog -defer generic.v
hierarchy -top top
proc
flatten
opt_clean
rename top gold
read_verilog flat.v
rename accelerator gate
read_liberty cells.lib
select gate
flatten
select -clear
equiv_make gold gate both
hierarchy -top both
equiv_struct
equiv_simple -undef
equiv_induct -undef
equiv_status -assert
""", tmp_path)


@pytest.mark.parametrize(("shared", "kind", "number"), [(True, "one", 1), (False, "two", 2)])
def test_a_memory_takes_macros_by_ports_and_area(cells: Path, library: Library, tmp_path: Path, shared: bool, kind: str,
                                                 number: int) -> None:
    """32 x 12 bits: one port is enough for one address; two ports are only to be had 8 bits wide."""
    for name, text in (("one", _ram("one", 6, 16, "A", 500)), ("two", _ram("two", 5, 8, "AB", 400))):
        (tmp_path / f"{name}.lib").write_text(text)
    macros = macros_of([read_liberty(tmp_path / "one.lib"), read_liberty(tmp_path / "two.lib")])
    assert [(macro.cell.depth, macro.cell.width, macro.ports) for macro in macros] == [(64, 16, 1), (32, 8, 2)]
    assert "abits 6;\n  width 16;\n  cost 500;" in memory_library(macros)
    assert "input [4:0] PORT_B_ADDR" in wrappers(macros)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cells.lib").write_text(CELLS)
    mapped = map_design(rtlil_text(Words(shared=shared)), tmp_path / "run", library, STYLES[0], delay_ns=5,
                        macros=macros)
    assert mapped.memories == {"words": f"SHIFTWRIGHT_SRAM_{kind}"}
    assert mapped.types[f"SHIFTWRIGHT_SRAM_{kind}"] == number
    timed = {macro.wrapper: macro.timing() for macro in macros}
    path = slowest_path(mapped.netlist, lambda name: timed.get(name) or library.cells.get(name))
    assert path.delay >= 2.0 and path.steps[0].startswith("2.00 SHIFTWRIGHT_SRAM_")


def test_standard_cells_are_no_macros(library: Library) -> None:
    with pytest.raises(ConfigError, match=r"'tiny' must have a cell with a memory\(\) group, but has none"):
        macros_of([library])


def test_lanes_beside_multipliers(cells: Path) -> None:
    found = compare_arrays(SMALL, cells)
    assert found["lanes"] == 1 and found["multiplier_area"] == min(found["multiplier_areas"].values())
    assert found["ratio"] == pytest.approx(found["shift_area"] / found["multiplier_area"], abs=1e-3)
    assert 0.4 < found["logic_ratio"] < found["ratio"] < 1


@pytest.mark.slow
@pytest.mark.regress
def test_a_whole_accelerator(cells: Path, tmp_path: Path) -> None:
    result = build_asic(SMALL, cells, tmp_path / "out", mhz=1)
    report = json.loads((tmp_path / "out" / "accelerator.report.json").read_text())
    assert result.met and report["clock"]["met"] and report["clock"]["critical_path"]
    assert result.gate_equivalents == round(result.cell_area / 2)
    assert sum(result.blocks.values()) == pytest.approx(1, abs=1e-3)
    assert {"lanes0", "front0", "window0", "sequencer", "drain", "top"} <= set(result.blocks)
    kinds = {memory["name"]: memory["kind"] for memory in report["memories"]}
    assert kinds["model.bank0"] == "black box" and kinds["front0.decoder.words.fifo"] == "flip-flops"
    netlist = (tmp_path / "out" / "accelerator.netlist.v").read_text()
    assert "module accelerator(" in netlist and "DFF " in netlist and "initial" not in netlist
    assert str(tmp_path) not in json.dumps(report)


def test_wrong_use_is_one_message(shiftwright: Callable, cells: Path, tmp_path: Path) -> None:
    for arguments, message in (
            (("--sram-lib", cells), "--sram-lib needs --liberty"),
            (("--liberty", tmp_path / "none.lib"), "none.lib: can't read the library"),
            (("--liberty", cells, "--sram-lib", cells), "must have a cell with a memory() group"),
            (("--liberty", cells, "--clock", "0"), "the clock must be greater than 0 MHz"),
            (("--liberty", cells, "--board", "icebreaker", "--config", "a.toml"), "exclude each other")):
        code, _, err = shiftwright("build", "-o", tmp_path / "out", *arguments)
        assert code == 2 and message in err, err
    assert not (tmp_path / "out").exists()
