"""The Verilog writer: deterministic, complete, clean, and honest about memories."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ConfigError, ToolError
from shiftwright.hw.generate import design_memories, generate, rtlil_text, verilog
from shiftwright.sw.tools import require, tool_env

SMALL = AcceleratorConfig(lanes_y=1, lanes_x=2, weight_depth=256, act_depth=16)


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOSYS", require("yosys").path)


class Store(wiring.Component):
    """A memory with contents."""

    addr: In(3)
    data: Out(8)

    def __init__(self, init: list[int]) -> None:
        self._init = init
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.words = words = memory.Memory(shape=8, depth=8, init=self._init)
        port = words.read_port()
        count = Signal(4, init=5)
        m.d.sync += count.eq(count + 1)
        m.d.comb += [port.addr.eq(self.addr), port.en.eq(count[0]), self.data.eq(port.data)]
        return m


def test_same_input_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    program = ("import sys; from shiftwright.hw.arch.config import AcceleratorConfig as C; "
               "from shiftwright.hw.generate import generate; "
               "generate(C(lanes_y=1, lanes_x=2, weight_depth=256, act_depth=16), sys.argv[1])")
    for seed in ("1", "2"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True,
                       env=tool_env() | {"PYTHONHASHSEED": seed})
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["accelerator.json", "accelerator.v", "accelerator.vlt"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_manifest_describes_the_files(tmp_path: Path) -> None:
    manifest = generate(SMALL, tmp_path, name="small")
    assert json.loads((tmp_path / "small.json").read_text()) == manifest
    assert manifest["config"] == SMALL.to_dict()
    assert manifest["fingerprint"] == f"{SMALL.fingerprint:08x}"
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    ports = {port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]}
    assert ports["bus_addr"] == ("input", 24)
    assert ports["bus_r_data"] == ("output", 16)
    assert {"width": 16, "depth": 256} in [{key: memory[key] for key in ("width", "depth")}
                                           for memory in manifest["memories"]]
    everything = "".join(path.read_text() for path in tmp_path.iterdir())
    assert str(tmp_path) not in everything
    assert str(Path(__file__).parents[2]) not in everything


@pytest.mark.parametrize("config", [
    SMALL, pytest.param(AcceleratorConfig(), marks=pytest.mark.regress),
    pytest.param(AcceleratorConfig(lanes_x=2, streams=2, guard_bits=0), marks=pytest.mark.regress)])
def test_lint_is_clean_but_for_the_waivers(tmp_path: Path, config: AcceleratorConfig) -> None:
    generate(config, tmp_path)
    done = subprocess.run([require("verilator").path, "--lint-only", "-Wall", "accelerator.vlt", "accelerator.v"],
                          cwd=tmp_path, env=tool_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr


def test_lint_catches_what_no_waiver_covers(tmp_path: Path) -> None:
    generate(SMALL, tmp_path)
    path = tmp_path / "accelerator.v"
    path.write_text(path.read_text() + "module loose(input a, output b);\n  wire c;\n  assign b = a & c;\nendmodule\n")
    command = [require("verilator").path, "--lint-only", "-Wall", "--top-module", "loose", "accelerator.vlt", path.name]
    done = subprocess.run(command, cwd=tmp_path, env=tool_env(), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "UNDRIVEN" in done.stderr


def test_registers_keep_their_initial_value() -> None:
    assert "count = 4'h5" in verilog(Store([1]))


def test_memory_contents_are_kept_unless_all_zero() -> None:
    assert "$meminit" not in rtlil_text(Store([0, 0, 0]))
    assert "$meminit" in rtlil_text(Store([0, 7]))
    assert "[1] = 8'h07" in verilog(Store([0, 7]))


def test_design_memories_are_found_with_their_module() -> None:
    (found,) = design_memories(rtlil_text(Store([]), name="store"))
    assert (found.module, found.name, found.width, found.depth) == ("store", "words", 8, 8)


@pytest.mark.parametrize("name", ["", "4x4", "a b", "top/x"])
def test_a_name_that_is_no_identifier_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="the name of the top module must be a Verilog identifier, not"):
        generate(SMALL, tmp_path, name=name)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolError, match="can't write"):
        generate(Store([]), tmp_path / "file")


def test_a_missing_yosys_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOSYS", str(tmp_path / "nowhere"))
    with pytest.raises(ToolError, match="nowhere is not on this machine; get it with: pip install"):
        generate(Store([]), tmp_path)
    assert os.listdir(tmp_path) == []
