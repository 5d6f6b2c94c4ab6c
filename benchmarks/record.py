"""How a benchmark leaves its result: with the command, the seed, the versions and the time, and written whole."""

import datetime
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shiftwright.hw.arch.errors import DataError
from shiftwright.hw.arch.files import write_atomically

RESULTS = Path(__file__).resolve().parent / "results"


def provenance(seed: int, packages: Iterable[str] = (), tools: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What lets a person make a result again: members ``command``, ``seed``, ``versions`` and ``date``."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "seed": seed,
        "versions": {"python": platform.python_version(),
                     **{package: importlib.metadata.version(package) for package in packages}, **(tools or {})},
        "machine": platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write(key: str, result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write the result of case ``key`` and return its path."""
    path = folder / f"{key}.json"
    write_atomically(path, (json.dumps(result, indent=2) + "\n").encode(), DataError)
    return path
