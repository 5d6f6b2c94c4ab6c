"""The board's side of the link, by its pins, on both simulators."""

import re
import shutil
from pathlib import Path

import pytest

from shiftwright.hw.arch.link import IDENTITY
from shiftwright.hw.link import Link
from shiftwright.sim.runner import BenchResult, bench

needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="Icarus Verilog (iverilog) is not installed")
BENCH = "shiftwright.sim.benches.link"


def check(simulator: str, seed: int, *, first: int, rounds: int, only: str | None = None) -> BenchResult:
    identity = bytes(range(0x60, 0x60 + sum(IDENTITY.values())))
    data = {"seed": seed, "rounds": rounds, "first": first, "identity": identity.hex()}
    return bench(Link(first, identity), BENCH, on=simulator, data=data, seed=seed, only=only)


def test_link(seed: int) -> None:
    assert len(check("verilator", seed, first=64, rounds=1).tests) >= 14


@needs_icarus
@pytest.mark.regress
def test_link_on_icarus(seed: int) -> None:
    assert len(check("icarus", seed, first=64, rounds=1, only="order|two_hosts|put_together").tests) == 3


@needs_icarus
def test_the_documents_session(seed: int) -> None:
    text = (Path(__file__).parents[2] / "docs" / "link.md").read_text()
    (shown,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    said = [line.replace(" ", "") for line in re.sub(r"\n  ", "", shown).splitlines() if line[0] in "<>"]
    session = [[sent.removeprefix(">"), answer.removeprefix("<")]
               for sent, answer in zip(said[::2], said[1::2], strict=True)]
    assert len(session) >= 5
    # The answer to HELLO brings the identity: behind flag, header, and no byte of it is stuffed.
    identity = bytes.fromhex(session[0][1])[11:-5]
    data = {"seed": seed, "rounds": 1, "first": 64, "identity": identity.hex(), "session": session}
    assert bench(Link(64, identity), BENCH, on="icarus", data=data, seed=seed, only="a_given_session").tests


@pytest.mark.regress
@pytest.mark.parametrize(("simulator", "first", "rounds", "only"), [
    ("verilator", 109, 4, None),
    # That of a board with a clock of 12 MHz.
    ("verilator", 1667, 1, "order|two_hosts|put_together"),
    pytest.param("icarus", 83, 1, None, marks=needs_icarus)])
def test_link_at_other_speeds(simulator: str, first: int, rounds: int, only: str | None, seed: int) -> None:
    assert check(simulator, seed + first, first=first, rounds=rounds, only=only).tests
