"""A board's top as Verilog with pin constraints, for the tools of the device's vendor."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ConfigError
from ..hw.arch.link import FIRST_BAUD
from ..hw.generate import design_memories, to_verilog, tool_versions, write_files
from .registry import Board, get
from .top import prepare

__all__ = ["generate_board"]


def generate_board(board: str | Board, directory: str | Path, *, config: AcceleratorConfig | None = None,
                   name: str | None = None) -> dict[str, object]:
    """Write ``<name>.v``, its constraints and ``<name>.json`` (the manifest) into ``directory``.

    Parameters
    ----------
    board : str or Board
    directory : path
        Created when it does not exist. Each file is written whole or not at all, the manifest last.
    config : AcceleratorConfig or None
        The accelerator; ``None`` is the board's own.
    name : str or None
        Of the files and of the top module; ``None`` is the board's, with underscores for what Verilog does not allow.

    Returns
    -------
    dict
        The manifest: ``name``, ``board``, ``device``, ``config``, ``fingerprint``, ``clock_hz``, ``first_baud``,
        ``baud``, ``memories``, ``files`` (SHA-256 of each) and ``tools``.

    Raises
    ------
    ConfigError
        If ``name`` is no Verilog identifier, or the board's platform can't be had.
    ToolError
        If Yosys is missing or fails, or ``directory`` can't be written.
    """
    chosen = get(board) if isinstance(board, str) else board
    wanted = chosen.config if config is None else config
    top = re.sub(r"\W", "_", chosen.name) if name is None else name
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", top):
        raise ConfigError(f"the name of the top module must be a Verilog identifier, not {top!r}")
    prepared = prepare(chosen, wanted, name=top)
    files = {f"{top}.v": to_verilog(prepared.rtlil), **prepared.constraints}
    manifest: dict[str, object] = {
        "name": top, "board": chosen.name, "device": chosen.part, "config": wanted.to_dict(),
        "fingerprint": f"{wanted.fingerprint:08x}", "clock_hz": chosen.clock_hz, "first_baud": FIRST_BAUD,
        "baud": chosen.baud, "memories": [dataclasses.asdict(memory) for memory in design_memories(prepared.rtlil)],
        "files": {file: hashlib.sha256(content.encode()).hexdigest() for file, content in files.items()},
        "tools": tool_versions(),
    }
    write_files(Path(directory), {**files, f"{top}.json": json.dumps(manifest, indent=2) + "\n"})
    return manifest
