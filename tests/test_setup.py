"""The set-up by make: a missing tool is named before anything else starts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
NEEDED = ("bash", "sh", "make", "awk", "g++", "perl")


def make(folder: Path, *arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run make with a PATH that holds only what the set-up needs, one program less."""
    programs = folder / "programs"
    programs.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None, name
        if name != without:
            (programs / name).symlink_to(found)
    (programs / "python3.11").symlink_to(sys.executable if without != "python3.11" else "/nonexistent")
    env = {"PATH": str(programs), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run([str(programs / "make"), *arguments], cwd=REPOSITORY, env=env, capture_output=True, text=True,
                          check=False, timeout=60)


def test_nothing_is_missing(tmp_path):
    done = make(tmp_path, "machine")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("target", ["demo", "test", "regress", "lint", "bench", "bench-rtl", "venv"])
def test_every_target_begins_with_the_missing_tool(tmp_path, target):
    # A folder for the environment that does not exist: nothing of it may be made either.
    environment = tmp_path / "environment"
    done = make(tmp_path, target, f"VENV={environment}", without="g++")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "shiftwright: g++ is needed (compiles Verilator's models) but is missing; get it with: " in done.stderr
    assert not environment.exists()


@pytest.mark.parametrize(("without", "way"), [("python3.11", "apt-get install python3.11"),
                                              ("perl", "apt-get install perl")])
def test_each_missing_tool_is_named(tmp_path, without, way):
    done = make(tmp_path, "venv", without=without)
    assert done.returncode == 2
    assert f"{without} is needed" in done.stderr and way in done.stderr


def test_make_alone_lists_the_targets(tmp_path):
    done = make(tmp_path)
    assert done.returncode == 0
    for target in ("demo", "test", "regress", "lint", "bench", "bench-codec", "bench-compression", "bench-rtl",
                   "bench-run", "venv", "clean"):
        assert f"make {target} " in done.stdout


def test_ci_is_a_program():
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False, timeout=60).returncode == 0
