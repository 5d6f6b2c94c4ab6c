"""Build a design once, run cocotb benches on it, and turn every failure into an exception.

A bench is a Python module of ``@cocotb.test()`` coroutines. It runs inside the simulator's process, so what it is given
and what it returns go through files: :func:`bench_data` in the bench reads what :func:`run` was given as ``data``, and
:func:`bench_result` hands arrays and numbers back.

Models are cached under the hash of their Verilog, their options and the simulator's version. Builds by several
processes at once are safe: one builds, the others wait for its lock.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..hw.arch.errors import MismatchError, ToolError
from ..sw.tools import cache_dir, tool_env
from .simulators import ModelSpec, Simulator, simulator

__all__ = ["BenchResult", "Model", "bench", "bench_data", "bench_result", "build", "run"]

MODELS_KEPT = 64
"""Models that the cache keeps; building another one removes the least recently used."""
BUILD_REVISION = 2
"""Raised with each change of how a model is built from the same sources."""
MISMATCHES = ("MismatchError", "AssertionError")
"""Exceptions by which a bench says that the design is wrong, rather than the bench."""
_EXCHANGE = "SHIFTWRIGHT_BENCH"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A built simulation model.

    Parameters
    ----------
    simulator : Simulator
        What it runs on.
    spec : ModelSpec
        What it was built from.
    folder : Path
        Where it lies in the cache.
    seconds : float
        Time that the build took; 0 when it came from the cache.
    """

    simulator: Simulator
    spec: ModelSpec
    folder: Path
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchResult:
    """A bench run in which every test passed.

    Parameters
    ----------
    tests : tuple of str
        Names of the tests that ran, at least one.
    data : dict
        What the bench returned by :func:`bench_result`.
    seconds : float
        Wall-clock time of the run, without the build.
    log : str
        Output of the simulator.
    model : Model
        What it ran on.
    """

    tests: tuple[str, ...]
    data: dict[str, Any]
    seconds: float
    log: str
    model: Model


def build(spec: ModelSpec, *, on: str = "verilator") -> Model:
    """Build a model, or take it from the cache.

    Parameters
    ----------
    spec : ModelSpec
        Verilog sources, top module and options.
    on : str
        ``"verilator"`` or ``"icarus"``.

    Raises
    ------
    ToolError
        If the simulator is missing or refuses the Verilog.
    """
    engine = simulator(on)
    identity = json.dumps([engine.name, BUILD_REVISION, engine.version(), sys.prefix, dataclasses.asdict(spec)],
                          sort_keys=True)
    key = hashlib.sha256(identity.encode()).hexdigest()[:24]
    root = cache_dir("models")
    folder = root / f"{engine.name}-{key}"
    with _lock(root / f"{folder.name}.lock"):
        if (folder / "model").is_file():
            os.utime(folder)
            return Model(simulator=engine, spec=spec, folder=folder, seconds=0.0)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=root, prefix=".building-") as partial:
            engine.build(spec, Path(partial))
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(partial, folder)
        _prune(root, keep=folder)
        return Model(simulator=engine, spec=spec, folder=folder, seconds=time.monotonic() - started)


def run(model: Model, module: str, *, data: Mapping[str, Any] | None = None, seed: int = 0, only: str | None = None,
        timeout: float = 600.0, waves: str | Path | None = None) -> BenchResult:
    """Run the cocotb tests of ``module`` on ``model``.

    Parameters
    ----------
    model : Model
        From :func:`build`.
    module : str
        Import path of the bench, such as ``"shiftwright.sim.benches.accelerator"``.
    data : mapping or None
        Given to the bench: NumPy arrays, and whatever JSON can hold.
    seed : int
        Seed of cocotb's random numbers, and of what the design does not reset (Verilator).
    only : str or None
        Regular expression; only tests whose full name matches are run.
    timeout : float
        Seconds of wall-clock time after which the run is ended.
    waves : path or None
        VCD file to record; the model must have been built with ``waves=True``.

    Raises
    ------
    MismatchError
        If a test failed by an ``AssertionError`` or a ``MismatchError``: the design is not what the bench expects.
    ToolError
        If the run ended in any other way than with passed tests: another exception, a crash, no test, the time-out.
    """
    with tempfile.TemporaryDirectory(prefix="shiftwright-bench-") as name:
        folder = Path(name)
        _put(folder, "data", data or {})
        command = model.simulator.command(model.folder, waves=Path(waves).absolute() if waves else None, seed=seed)
        started = time.monotonic()
        log_path = folder / "log"
        with open(log_path, "wb") as log_file:
            try:
                done = subprocess.run(command, cwd=folder, env=_environment(model, module, folder, seed, only),
                                      stdin=subprocess.DEVNULL, stdout=log_file, stderr=subprocess.STDOUT,
                                      timeout=timeout, check=False)
            except subprocess.TimeoutExpired:
                raise ToolError(f"{module} on {model.simulator.name} did not end within {timeout:g} s; allow more time "
                                f"or simulate less. Its last output:\n{_tail(log_path)}") from None
        seconds = time.monotonic() - started
        tests = _check_results(folder / "results.xml", f"{module} on {model.simulator.name} (seed {seed})", log_path)
        if done.returncode:
            raise ToolError(f"{module} on {model.simulator.name}: the simulator ended with exit code "
                            f"{done.returncode}:\n{_tail(log_path)}")
        return BenchResult(tests=tests, data=_get(folder, "result"), seconds=seconds, model=model,
                           log=log_path.read_text(errors="replace"))


def bench(component: Any, module: str, *, on: str = "verilator", data: Mapping[str, Any] | None = None, seed: int = 0,
          only: str | None = None, timeout: float = 600.0, internals: bool = False, fast: bool = False,
          waves: str | Path | None = None) -> BenchResult:
    """Write an Amaranth component as Verilog, build it and run a bench on it: :func:`build`, then :func:`run`.

    The top module is called ``dut``; its ports are the component's, flattened with ``__``, and ``clk`` and ``rst``.
    """
    from ..hw.generate import verilog
    from ..sw.tools import using_tools

    with using_tools():
        text = verilog(component, name="dut")
    spec = ModelSpec(sources={"dut.v": text}, top="dut", fast=fast, internals=internals, waves=waves is not None)
    return run(build(spec, on=on), module, data=data, seed=seed, only=only, timeout=timeout, waves=waves)


def bench_data() -> dict[str, Any]:
    """Inside a bench: the ``data`` that :func:`run` was given."""
    return _get(Path(os.environ[_EXCHANGE]), "data")


def bench_result(values: Mapping[str, Any]) -> None:
    """Inside a bench: hand ``values`` (NumPy arrays, JSON values) to the caller of :func:`run`."""
    _put(Path(os.environ[_EXCHANGE]), "result", values)


def _environment(model: Model, module: str, folder: Path, seed: int, only: str | None) -> dict[str, str]:
    import find_libpython
    from cocotb_tools import config

    library = find_libpython.find_libpython()
    if library is None:
        raise ToolError("cocotb needs Python's shared library (libpython3.so), which this Python lacks; "
                        "install it (apt-get install libpython3-dev) or use a Python built with --enable-shared")
    env = tool_env()
    # A bench must not inherit the settings of another simulation, nor pytest's.
    for name in [name for name in env if name.startswith(("COCOTB_", "GPI_", "PYGPI_", "PYTEST_"))]:
        del env[name]
    env.update({
        "PATH": env["PATH"] + os.pathsep + str(config.libs_dir),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYGPI_PYTHON_BIN": sys.executable,
        "GPI_USERS": f"{library};{config.pygpi_entry_point()}",
        "COCOTB_TOPLEVEL": model.spec.top,
        "TOPLEVEL_LANG": "verilog",
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RANDOM_SEED": str(seed),
        "COCOTB_RESULTS_FILE": str(folder / "results.xml"),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_ANSI_OUTPUT": "0",
        _EXCHANGE: str(folder),
        **model.simulator.environment(),
    })
    if only is not None:
        env["COCOTB_TEST_FILTER"] = only
    return env


def _check_results(path: Path, title: str, log_path: Path) -> tuple[str, ...]:
    """Names of the tests in cocotb's result file, when all of them passed."""
    try:
        cases = list(xml.etree.ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, xml.etree.ElementTree.ParseError):
        raise ToolError(f"{title}: the simulation ended without results:\n{_tail(log_path)}") from None
    for case in cases:
        for kind in ("failure", "error"):
            failure = case.find(kind)
            if failure is None:
                continue
            message = failure.get("message") or failure.get("error_msg") or (failure.text or "").strip()
            exception = failure.get("type") or failure.get("error_type") or kind
            if exception.rpartition(".")[2] in MISMATCHES:
                raise MismatchError(f"{title}, {case.get('name')}: {message or _tail(log_path)}")
            raise ToolError(f"{title}, {case.get('name')}: {exception}: {message}\n{_tail(log_path)}")
    tests = tuple(str(case.get("name")) for case in cases if case.find("skipped") is None)
    if not tests:
        raise ToolError(f"{title}: no test was run:\n{_tail(log_path)}")
    return tests


def _tail(path: Path, lines: int = 30) -> str:
    return "\n".join(path.read_text(errors="replace").strip().splitlines()[-lines:])


def _put(folder: Path, name: str, values: Mapping[str, Any]) -> None:
    arrays: dict[str, Any] = {key: value for key, value in values.items() if isinstance(value, np.ndarray)}
    np.savez(folder / f"{name}.npz", **arrays)
    (folder / f"{name}.json").write_text(json.dumps({k: v for k, v in values.items() if k not in arrays}))


def _get(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / f"{name}.json").is_file():
        return {}
    values: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
        values.update({key: arrays[key] for key in arrays.files})
    return values


def _prune(root: Path, *, keep: Path) -> None:
    models = sorted((path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")),
                    key=lambda path: path.stat().st_mtime, reverse=True)
    for old in models[MODELS_KEPT:]:
        if old != keep:
            shutil.rmtree(old, ignore_errors=True)  # but not its lock: somebody may be waiting for it


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
