"""The virtual board from the command line: a process of its own, loaded and run by the same commands as a board."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.workloads import SMALL, workload

pytestmark = pytest.mark.usefixtures("one_thread")


def emulate(folder: Path, *options: str) -> tuple[list[str], Path]:
    """The command line of a small virtual board, and where its terminal will be."""
    values = [f"{name} = {str(value).lower()}" for name, value in SMALL.changes.items()]
    (folder / "small.toml").write_text("\n".join(["[accelerator]", *values]))
    link = folder / "board"
    return [sys.executable, "-c", "from shiftwright.sw.cli import main; raise SystemExit(main())", "emulate", "--fast",
            "--config", str(folder / "small.toml"), "--link", str(link), *options], link


@pytest.mark.slow
def test_load_and_infer_on_a_virtual_board(shiftwright: Callable, tmp_path: Path, seed: int,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    command, link = emulate(tmp_path, "--json")
    case = workload(seed)
    case.image.save(tmp_path / "model.swi")
    pixels = np.random.default_rng(seed).integers(0, 256, size=(3, *case.image.input.shape), dtype=np.uint8)
    np.save(tmp_path / "inputs.npy", pixels)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as board:
        try:
            deadline = time.monotonic() + 300
            while not os.path.lexists(link) and board.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            loaded = shiftwright("load", tmp_path / "model.swi", "--port", link, "--json")
            assert loaded.code == 0, loaded.err
            assert json.loads(loaded.out)["verified"]
            inferred = shiftwright("infer", tmp_path / "inputs.npy", "--image", tmp_path / "model.swi", "--port", link,
                                   "--check", "--json")
            assert inferred.code == 0, inferred.err
        finally:
            board.terminate()
            out, err = board.communicate(timeout=30)
    assert board.returncode == 0, err
    report = json.loads(out)
    assert report["simulated_cycles"] > 10_000 and report["cycles_per_second"] > 0
    assert not os.path.lexists(link)


@pytest.mark.slow
def test_it_ends_by_itself_after_some_seconds(tmp_path: Path) -> None:
    command, link = emulate(tmp_path, "--seconds", "0.5")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"shiftwright load FILE.swi --port {link}" in done.stdout and "simulated cycles" in done.stdout


def test_wrong_use(shiftwright: Callable, tmp_path: Path) -> None:
    outcome = shiftwright("emulate", "--board", "icebreaker", "--config", tmp_path / "x.toml")
    assert outcome.code == 2 and "exclude each other" in outcome.err
    outcome = shiftwright("emulate", "--board", "no-such-board")
    assert outcome.code == 2 and "no-such-board" in outcome.err
