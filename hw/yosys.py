"""Run Yosys, on behalf of the Verilog writer and of synthesis.

Where the program is, is not decided here: the environment variable ``YOSYS`` says so (the command line sets it, after
the search that ``shiftwright doctor`` shows); without it, a ``yosys`` on ``PATH`` or the YoWASP one of this Python is
used.
"""

import functools
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path

from .arch.errors import ToolError

__all__ = ["run_yosys", "tool_path", "yosys_version"]

TIMEOUT = 3600
"""Seconds that one run may take."""


def tool_path(name: str) -> str:
    """Path of a synthesis tool by its native name (``yosys``, ``nextpnr-ecp5``, ...).

    Raises
    ------
    ToolError
        If it is not on this machine.
    """
    variable = name.upper().replace("-", "_")
    scripts = sysconfig.get_path("scripts")
    wanted = os.environ.get(variable)
    for candidate in [wanted] if wanted else [name, f"yowasp-{name}"]:
        path = shutil.which(candidate) or shutil.which(candidate, path=scripts)
        if path:
            return path
    raise ToolError(f"{wanted or name} is not on this machine; get it with: pip install 'shiftwright[fpga]', "
                    f"or name it with the environment variable {variable}")


@functools.cache
def yosys_version(path: str) -> str:
    """``"yosys <version>"`` of the program at ``path``."""
    done = subprocess.run([path, "-V"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    match = re.search(r"Yosys (\S+)", done.stdout)
    if not match:
        raise ToolError(f"{path}: does not say that it is Yosys; set YOSYS to one that does")
    return f"yosys {match.group(1)}"


def run_yosys(script: str, directory: Path) -> str:
    """Run a Yosys script in ``directory`` and return its log.

    The script's file names must be relative: a YoWASP tool sees its working directory and what is below it.

    Raises
    ------
    ToolError
        If Yosys is missing or fails; the message holds its error lines.
    """
    path = tool_path("yosys")
    (directory / "script.ys").write_text(script)
    try:
        done = subprocess.run([path, "-q", "-l", "yosys.log", "-s", "script.ys"], cwd=directory, capture_output=True,
                              text=True, errors="replace", check=False, stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ToolError(f"{path}: took more than {TIMEOUT} s") from None
    except OSError as error:
        raise ToolError(f"{path}: can't run: {error.strerror}") from None
    log = (directory / "yosys.log").read_text(errors="replace") if (directory / "yosys.log").exists() else ""
    if done.returncode:
        # With -q, the reason is sometimes only in the log.
        lines = [line for line in (done.stdout + done.stderr + log).splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-5:]
        raise ToolError(f"yosys failed (exit code {done.returncode}): " + "\n".join(errors))
    return log
