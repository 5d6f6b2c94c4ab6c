"""Build a bitstream for a board: the accelerator behind a serial port on real pins, checked, routed and reported."""

import dataclasses
import json
import os
import re
import tempfile
from pathlib import Path

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import io

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError, ToolError
from ..hw.arch.files import write_atomically
from ..hw.generate import strip_zero_contents
from ..hw.yosys import tool_path, yosys_version
from .area import estimate
from .fit import check_fit
from .flow import Routed, Synthesis, pack, place_and_route, synthesize_rtlil
from .netlist import check_capacity
from .registry import Board, get
from .serial import AcceleratorOverSerial

__all__ = ["BuildResult", "build"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildResult:
    """A finished build.

    Parameters
    ----------
    board : Board
        What it is for.
    config : AcceleratorConfig
        What is in it.
    synthesis : Synthesis
        The checked netlist.
    routed : Routed
        Utilization and clock.
    bitstream, report : Path
        The files.
    """

    board: Board
    config: AcceleratorConfig
    synthesis: Synthesis
    routed: Routed
    bitstream: Path
    report: Path


def build(board: str | Board, directory: str | Path, *, config: AcceleratorConfig | None = None,
          mhz: float | None = None, seed: int = 1) -> BuildResult:
    """Build a bitstream.

    Parameters
    ----------
    board : str or Board
        Which board (:func:`shiftwright.boards.registry.names`).
    directory : path
        Created when it does not exist; gets ``<board>.bit`` or ``.bin``, and ``<board>.report.json``.
    config : AcceleratorConfig or None
        The accelerator; ``None`` is the board's own.
    mhz : float or None
        Clock that timing analysis is to meet; ``None`` is the board's oscillator. The clock of the board does not
        change.
    seed : int
        Of the placer.

    Returns
    -------
    BuildResult
        Also when the clock is missed (``routed.met`` is false): the bitstream is written, and the report says so.

    Raises
    ------
    CapacityError
        If the design needs more of something than the device has.
    ToolError
        If a tool is missing or fails; if the netlist has a multiplier, or a memory that is not RAM; if the design can't
        be placed or routed.
    """
    chosen = get(board) if isinstance(board, str) else board
    wanted = chosen.config if config is None else config
    target = chosen.clock_mhz if mhz is None else mhz
    if not target > 0:
        raise ConfigError(f"the clock must be greater than 0 MHz, not {target!r}")
    misfit = check_fit(wanted, chosen.device)
    with tempfile.TemporaryDirectory(prefix="shiftwright-build-") as name:
        folder = Path(name)
        text, constraints = _prepare(chosen, wanted)
        (folder / chosen.device.constraints).write_text(constraints)
        synthesis = synthesize_rtlil(text, chosen.device, folder, spram=wanted.weight_memory == "spram")
        check_capacity(synthesis.counts, chosen.device, **({"way_out": misfit.way_out} if misfit else {}))
        routed = place_and_route(chosen.device, folder, mhz=target, seed=seed)
        bits = pack(chosen.device, folder).read_bytes()
    target_folder = Path(directory)
    bitstream = target_folder / f"{chosen.name}{Path(chosen.device.bitstream).suffix}"
    report = target_folder / f"{chosen.name}.report.json"
    write_atomically(bitstream, bits, ToolError)
    summary = json.dumps(_report(chosen, wanted, synthesis, routed, bitstream), indent=2) + "\n"
    write_atomically(report, summary.encode(), ToolError)
    return BuildResult(board=chosen, config=wanted, synthesis=synthesis, routed=routed, bitstream=bitstream,
                       report=report)


def _prepare(board: Board, config: AcceleratorConfig) -> tuple[str, str]:
    """RTLIL and pin constraints of the board's top."""
    platform = board.platform()
    # Amaranth asks for a Yosys, to write a copy of the design for people, before it knows that it need not.
    os.environ.setdefault("YOSYS", tool_path("yosys"))
    os.environ.setdefault("AMARANTH_USE_YOSYS", "system")
    plan = platform.build(_BoardTop(config), "top", do_build=False, emit_src=False, debug_verilog=False)
    texts = {name: content.decode() if isinstance(content, bytes) else content for name, content in plan.files.items()}
    # The routers take the clock from --freq; a constraint in the file would win over it.
    constraints = re.sub(r"^(FREQUENCY|set_frequency) .*$", "", texts[board.device.constraints], flags=re.MULTILINE)
    return strip_zero_contents(texts["top.il"]), constraints


class _BoardTop(Elaboratable):
    """Connects the serial port to the board's pins."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self._config = config

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.accelerator = inner = AcceleratorOverSerial(self._config)
        port = platform.request("shiftwright", 0, dir="-")  # type: ignore[attr-defined]
        for name in ("sclk", "mosi", "cs"):
            m.submodules[name] = buffer = io.Buffer("i", getattr(port, name))
            m.d.comb += getattr(inner, name).eq(buffer.i)
        m.submodules.miso = buffer = io.Buffer("o", port.miso)
        m.d.comb += buffer.o.eq(inner.miso)
        return m


def _report(board: Board, config: AcceleratorConfig, synthesis: Synthesis, routed: Routed,
            bitstream: Path) -> dict[str, object]:
    counts = synthesis.counts
    return {
        "board": board.name, "device": board.device.title, "config": config.to_dict(),
        "fingerprint": f"{config.fingerprint:08x}", "bitstream": bitstream.name, "bytes": bitstream.stat().st_size,
        "netlist": dataclasses.asdict(counts), "estimate": dataclasses.asdict(estimate(config, board.device)),
        "memories": dict(synthesis.memories),
        "utilization": {site: {"used": used, "available": available}
                        for site, (used, available) in routed.utilization.items()},
        "clock": {"mhz": routed.mhz, "target_mhz": routed.target_mhz, "met": routed.met,
                  "board_mhz": board.clock_mhz, "critical_path": list(routed.critical_path)},
        "seed": routed.seed, "yosys": yosys_version(tool_path("yosys")).removeprefix("yosys "),
    }
