"""The simulation runner: one bench body on both simulators, failures that are errors, and the cache of models."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from shiftwright.hw.arch.errors import MismatchError, ToolError
from shiftwright.sim.runner import bench, build
from shiftwright.sim.simulators import ModelSpec

BENCH = '''
import cocotb
import numpy as np
from shiftwright.sim.bus import BusDriver, BusMonitor, start_clock
from shiftwright.sim.runner import bench_data, bench_result


@cocotb.test()
async def words_come_back(dut):
    given = bench_data()
    bus = BusDriver(dut)
    await start_clock(dut)
    monitor = BusMonitor(dut)
    await bus.write_burst(given["base"], given["words"])
    found = await bus.read_burst(given["base"], len(given["words"]))
    expected = [(given["base"] + k, int(word)) for k, word in enumerate(given["words"])]
    assert monitor.writes == expected, "the monitor saw other writes"
    assert monitor.reads == expected, "the monitor saw other reads"
    bench_result({"found": found, "name": given["name"]})


@cocotb.test()
async def wrong(dut):
    await start_clock(dut)
    assert 2 + 2 == 5, "two and two are not five"


@cocotb.test()
async def broken(dut):
    dut.no_such_port.value = 1


@cocotb.test()
async def endless(dut):
    await start_clock(dut)
    while True:
        await cocotb.triggers.Timer(1000, unit="ns")


@cocotb.test()
async def the_seed_decides(dut):
    import random
    bench_result({"draw": random.randrange(2**40)})
'''


class BusMemory(wiring.Component):
    """Sixteen words on the word bus; a read takes three cycles."""

    bus_addr: In(24)
    bus_w_data: In(16)
    bus_w_en: In(1)
    bus_r_en: In(1)
    bus_r_data: Out(16)
    bus_r_valid: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = memory.Memory(shape=16, depth=16, init=[])
        write, read = words.write_port(), words.read_port()
        late = Signal()
        m.d.comb += [write.addr.eq(self.bus_addr), write.data.eq(self.bus_w_data), write.en.eq(self.bus_w_en),
                     read.addr.eq(self.bus_addr), read.en.eq(self.bus_r_en)]
        m.d.sync += [late.eq(self.bus_r_en), self.bus_r_valid.eq(late), self.bus_r_data.eq(read.data)]
        return m


@pytest.fixture(params=["verilator", "icarus"])
def simulator(request: pytest.FixtureRequest) -> str:
    if request.param == "icarus" and shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    return request.param


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "bench_of_runner.py").write_text(BENCH)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "bench_of_runner"


@pytest.mark.slow
def test_bench_gets_data_and_returns_data(simulator: str, module: str, rng: np.random.Generator) -> None:
    words = rng.integers(0, 1 << 16, 11).astype(np.uint16)
    result = bench(BusMemory(), module, on=simulator, only="words_come_back",
                   data={"words": words, "base": 3, "name": "eleven"})
    assert result.tests == ("words_come_back",)
    assert np.array_equal(result.data["found"], words)
    assert result.data["name"] == "eleven"


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", pytest.param("icarus", marks=pytest.mark.regress)], indirect=True)
def test_every_failure_is_an_error(simulator: str, module: str) -> None:
    with pytest.raises(MismatchError, match="two and two are not five"):
        bench(BusMemory(), module, on=simulator, only="wrong")
    with pytest.raises(ToolError, match="no_such_port"):
        bench(BusMemory(), module, on=simulator, only="broken")
    with pytest.raises(ToolError, match=r"did not end within 4 s"):
        bench(BusMemory(), module, on=simulator, only="endless", timeout=4)
    with pytest.raises(ToolError, match="no test was run|without results"):
        bench(BusMemory(), module, on=simulator, only="no_such_test")
    with pytest.raises(ToolError):
        bench(BusMemory(), "no_such_module", on=simulator)


@pytest.mark.slow
def test_seed_repeats_the_random_numbers(simulator: str, module: str) -> None:
    draws = [bench(BusMemory(), module, on=simulator, only="the_seed_decides", seed=seed).data["draw"]
             for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


ECHO = "module echo(input clk, input rst, input a, output b);\n  assign b = a;\nendmodule\n"


def test_models_are_cached_by_their_source(simulator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if simulator == "verilator":
        pytest.skip("takes a compiler's time; the cache is the same for both")
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path))
    first = build(ModelSpec(sources={"echo.v": ECHO}, top="echo"), on=simulator)
    again = build(ModelSpec(sources={"echo.v": ECHO}, top="echo"), on=simulator)
    other = build(ModelSpec(sources={"echo.v": ECHO.replace("= a", "= ~a")}, top="echo"), on=simulator)
    assert first.seconds > 0 and again.seconds == 0 and again.folder == first.folder
    assert other.folder != first.folder and other.seconds > 0
    assert not list(tmp_path.glob("models/.building-*"))


def test_verilog_that_is_wrong_is_a_clear_error(simulator: str) -> None:
    with pytest.raises(ToolError, match="failed .* while it built a simulation model"):
        build(ModelSpec(sources={"echo.v": ECHO.replace("endmodule", "")}, top="echo"), on=simulator)


def test_unknown_simulator() -> None:
    with pytest.raises(ToolError, match="the simulator must be one of verilator, icarus, not 'modelsim'"):
        build(ModelSpec(sources={"echo.v": ECHO}, top="echo"), on="modelsim")


def test_waves_are_recorded(module: str, tmp_path: Path) -> None:
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    data = {"words": np.arange(3, dtype=np.uint16), "base": 0, "name": ""}
    bench(BusMemory(), module, on="icarus", only="words_come_back", data=data, waves=tmp_path / "waves.vcd")
    assert "bus_r_valid" in (tmp_path / "waves.vcd").read_text()
