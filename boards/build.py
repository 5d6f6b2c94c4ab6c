"""Build a bitstream for a board: the accelerator behind a UART on the board's pins, checked, routed and reported."""

import dataclasses
import json
import re
import tempfile
from pathlib import Path

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError, ToolError
from ..hw.arch.files import write_atomically
from ..hw.arch.link import FIRST_BAUD
from ..hw.yosys import tool_path, yosys_version
from .area import estimate
from .devices import Device
from .fit import check_fit
from .flow import Routed, Synthesis, pack, place_and_route, synthesize_rtlil
from .netlist import check_capacity
from .registry import Board, get
from .top import prepare

__all__ = ["BuildResult", "bitstream_device", "build"]


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
    program : str
        The command that puts the bitstream on the board; empty when openFPGALoader does not know the board.
    """

    board: Board
    config: AcceleratorConfig
    synthesis: Synthesis
    routed: Routed
    bitstream: Path
    report: Path
    program: str


def build(board: str | Board, directory: str | Path, *, config: AcceleratorConfig | None = None,
          mhz: float | None = None, seed: int = 1) -> BuildResult:
    """Build a bitstream.

    Parameters
    ----------
    board : str or Board
        Which board (:func:`shiftwright.boards.registry.get`).
    directory : path
        Created when it does not exist; gets ``<board>.bit``, ``.bin`` or ``.fs``, and ``<board>.report.json``.
    config : AcceleratorConfig or None
        The accelerator; ``None`` is the board's own.
    mhz : float or None
        Clock of the accelerator, or the nearest below that the board's phase-locked loop makes; ``None`` is the board's
        own.
    seed : int
        Of the placer.

    Returns
    -------
    BuildResult
        Also when the clock is missed (``routed.met`` is false): the bitstream is written, and the report says so.

    Raises
    ------
    ConfigError
        If there is no bitstream for the board's device, or the clock can't be made.
    CapacityError
        If the design needs more of something than the device has.
    ToolError
        If a tool is missing or fails; if the netlist has a multiplier, or a memory that is not RAM; if the design can't
        be placed or routed.
    """
    chosen = get(board) if isinstance(board, str) else board
    device = bitstream_device(chosen)
    wanted = chosen.config if config is None else config
    chosen = chosen if mhz is None else chosen.at(mhz)
    misfit = check_fit(wanted, device)
    with tempfile.TemporaryDirectory(prefix="shiftwright-build-") as name:
        folder = Path(name)
        prepared = prepare(chosen, wanted)
        # The routers take the clock from --freq; a constraint in the file would win over it.
        constraints = re.sub(r"^(FREQUENCY|set_frequency) .*$", "", prepared.constraints[device.constraints],
                             flags=re.MULTILINE)
        (folder / device.constraints).write_text(constraints)
        synthesis = synthesize_rtlil(prepared.rtlil, device, folder, spram=wanted.weight_memory == "spram")
        check_capacity(synthesis.counts, device, **({"way_out": misfit.way_out} if misfit else {}))
        routed = place_and_route(device, folder, mhz=chosen.clock_mhz, seed=seed)
        bits = pack(device, folder).read_bytes()
    target_folder = Path(directory)
    bitstream = target_folder / f"{chosen.name}{Path(device.bitstream).suffix}"
    report = target_folder / f"{chosen.name}.report.json"
    program = chosen.program(str(bitstream))
    write_atomically(bitstream, bits, ToolError)
    summary = json.dumps(_report(chosen, wanted, synthesis, routed, bitstream), indent=2) + "\n"
    write_atomically(report, summary.encode(), ToolError)
    return BuildResult(board=chosen, config=wanted, synthesis=synthesis, routed=routed, bitstream=bitstream,
                       report=report, program=program)


def bitstream_device(board: Board) -> Device:
    """The device of a board that a bitstream can be built for; no such is a :class:`ConfigError`."""
    if board.device is None:
        raise ConfigError(f"there are no open tools for {board.title} ({board.part}) here, so no bitstream; "
                          f"'shiftwright generate --board {board.name}' writes Verilog and constraints for other tools")
    return board.device


def _report(board: Board, config: AcceleratorConfig, synthesis: Synthesis, routed: Routed,
            bitstream: Path) -> dict[str, object]:
    counts = synthesis.counts
    return {
        "board": board.name, "device": synthesis.device.title, "config": config.to_dict(),
        "fingerprint": f"{config.fingerprint:08x}", "bitstream": bitstream.name, "bytes": bitstream.stat().st_size,
        "program": board.program(bitstream.name), "first_baud": FIRST_BAUD, "baud": board.baud,
        "netlist": dataclasses.asdict(counts), "estimate": dataclasses.asdict(estimate(config, synthesis.device)),
        "memories": dict(synthesis.memories),
        "utilization": {site: {"used": used, "available": available}
                        for site, (used, available) in routed.utilization.items()},
        "clock": {"mhz": routed.mhz, "target_mhz": routed.target_mhz, "met": routed.met,
                  "oscillator_mhz": board.oscillator_mhz, "critical_path": list(routed.critical_path)},
        "seed": routed.seed, "yosys": yosys_version(tool_path("yosys")).removeprefix("yosys "),
    }
