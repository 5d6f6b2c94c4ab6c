"""Reading and writing files as every part of Shiftwright does it: one message for what fails, nothing half-written."""

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from .errors import ShiftwrightError

__all__ = ["read_toml", "write_atomically"]


def read_toml(path: str | Path, what: str, error: type[ShiftwrightError]) -> dict[str, Any]:
    """The contents of a TOML file; ``error``, which calls the file ``what``, when it can't be read."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as reason:
        raise error(f"{path}: can't read the {what}: {reason.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as reason:
        raise error(f"{path}: not a TOML file: {reason}") from None


def write_atomically(path: str | Path, payload: bytes, error: type[ShiftwrightError]) -> None:
    """Write a whole file or nothing: a temporary file in the same folder, then a rename.

    Raises
    ------
    ShiftwrightError
        The class ``error``, when the file can't be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as reason:
        raise error(f"{path}: can't write: {reason.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as reason:
        raise error(f"{path}: can't write: {reason.strerror}") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
