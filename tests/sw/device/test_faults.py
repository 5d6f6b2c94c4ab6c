"""Hundreds of ways in which a line and a board can fail: a verified load with right results, or a clear error."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from shiftwright.hw.arch.errors import DeviceError, ShiftwrightError
from shiftwright.hw.arch.link import FIRST_BAUD, Op
from shiftwright.sw.device import Device
from tests.device_model import Line, Toy, frame

INFERENCES = 3
Script = dict[float, Callable[[Line], None]]


def reset(line: Line) -> None:
    line.board.restart(line.time / line.slow)


def power_cycle(line: Line) -> None:
    reset(line)
    line.board.model[:] = np.random.default_rng(9).integers(1 << 16, size=len(line.board.model), dtype=np.uint16)


def rival(line: Line) -> None:
    """Another host that begins a session and writes to the model memory."""
    for request in (frame(Op.HELLO, 5, 0xABCD), frame(Op.WRITE_WORDS, 6, 0xABCD, 100, 2, b"\1\2\3\4")):
        for value in request:
            line.to_board.append((line.time, value, line.board.baud))


def cable(line: Line) -> None:
    line.cut = True


def noise(line: Line) -> None:
    for _ in range(line.random.randrange(1, 200)):
        line.to_board.append((line.time, line.random.randrange(256), line.baud))


def low(line: Line) -> None:
    """A break on the line."""
    line.to_board.append((line.time, 0, FIRST_BAUD / 16))


def attempt(line: Line, toy: Toy, seed: int) -> str:
    """Load and infer; whatever is given out must be right. Returns "" or the error's message."""
    inputs = toy.inputs(INFERENCES, seed)
    try:
        with Device(line, entropy=random.Random(seed)) as device:
            result = device.load(toy.image)
            assert result.bytes == 2 * len(toy.image.words)
            held = np.array_equal(line.board.model[:len(toy.image.words)], toy.image.words)
            assert held or line.happened, "a load that was not there"
            outputs = list(device.infer(toy.image, inputs))
    except DeviceError as error:
        assert str(error).startswith("line: ")
        return str(error)
    finally:
        assert line.closed and not line.board.torn
    assert len(outputs) == INFERENCES
    for x, y in zip(inputs, outputs):
        assert np.array_equal(y, toy.output(x)), "a wrong result was accepted"
    return ""


CASES = {
    "flips 1e-4": {"flips": 1e-4},
    "flips 3e-4": {"flips": 3e-4},
    "drops": {"drops": 3e-4},
    "doubles": {"doubles": 3e-4},
    "inserts": {"inserts": 3e-4},
    "everything": {"flips": 5e-5, "drops": 1e-4, "doubles": 1e-4, "inserts": 1e-4},
    "usb": {"rtt": 0.016, "flips": 2e-5},
    "slow": {"slow": 40.0, "limit": 6000.0},
}
BAD = {
    "flips 1e-3": {"flips": 1e-3},
    "flips 3e-3": {"flips": 3e-3},
    "flips 1e-2": {"flips": 1e-2},
    "drops 1e-2": {"drops": 1e-2},
    "inserts 1e-2": {"inserts": 1e-2},
}
EVENTS = {"reset": reset, "power cycle": power_cycle, "rival": rival, "noise": noise, "low": low}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("number", range(8))
def test_a_line_that_can_be_used(name: str, number: int, seed: int) -> None:
    toy = Toy.random(seed + number)
    line = Line(toy.board(seed=number), seed=seed + number, **CASES[name])
    assert attempt(line, toy, number) == ""


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("number", range(8))
def test_a_bad_line(name: str, number: int, seed: int) -> None:
    toy = Toy.random(seed + number, words=600)
    line = Line(toy.board(seed=number), seed=seed + number, **BAD[name])
    message = attempt(line, toy, number)
    assert message == "" or any(word in message for word in ("noisy", "given up", "no longer answers"))


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("number", range(12))
def test_one_event(name: str, number: int, seed: int) -> None:
    draw = random.Random(seed + number)
    toy = Toy.random(seed + number)
    line = Line(toy.board(seed=number), seed=number, script={draw.uniform(0, 0.13): EVENTS[name]})
    message = attempt(line, toy, number)
    # Between load and inference nothing can be sent again: the model is gone, and that is said.
    assert message == "" or name in ("power cycle", "rival") and "holds another model" in message


@pytest.mark.parametrize("number", range(40))
def test_many_events(number: int, seed: int) -> None:
    draw = random.Random(seed + number)
    toy = Toy.random(seed + number)
    script: Script = {draw.uniform(0, 0.3): draw.choice(list(EVENTS.values())) for _ in range(draw.randrange(2, 8))}
    line = Line(toy.board(seed=number), seed=number, script=script, flips=draw.choice([0, 0, 1e-5, 1e-4]))
    attempt(line, toy, number)


@pytest.mark.parametrize("number", range(12))
def test_a_cable_that_is_pulled(number: int, seed: int) -> None:
    toy = Toy.random(seed + number)
    line = Line(toy.board(), script={random.Random(seed + number).uniform(0, 0.06): cable})
    assert "the cable is cut" in attempt(line, toy, number)


@pytest.mark.parametrize("number", range(12))
def test_a_host_that_died_before(number: int, seed: int) -> None:
    """A first host stops anywhere: within a frame, at another speed, during a run."""
    toy, draw = Toy.random(seed + number), random.Random(seed + number)
    board = toy.board(seed=number)
    first = Line(board, script={draw.uniform(0, 0.13): cable})
    with pytest.raises(ShiftwrightError):
        device = Device(first, entropy=random.Random(number))
        device.load(toy.image)
        list(device.infer(toy.image, toy.inputs(100)))
    second = Line(board, seed=number)
    second.time = second.tx_free = first.time + draw.uniform(0, 0.01)
    assert attempt(second, toy, number + 1) == ""


@pytest.mark.parametrize("number", range(12))
def test_rivals_that_come_again_and_again(number: int, seed: int) -> None:
    draw = random.Random(seed + number)
    toy = Toy.random(seed + number)
    line = Line(toy.board(), script={draw.uniform(0, 0.4): rival for _ in range(draw.randrange(4, 30))})
    message = attempt(line, toy, number)
    assert message == "" or "another host" in message or "holds another model" in message


def test_a_dead_board(seed: int) -> None:
    toy = Toy.random(seed)
    line = Line(toy.board(), drops=1.0)
    assert "the board does not answer; likely its bitstream is not loaded" in attempt(line, toy, 0)
    assert line.time < 15


@pytest.mark.parametrize("number", range(4))
def test_a_board_that_dies(number: int, seed: int) -> None:
    def die(line: Line) -> None:
        line.faults = (0.0, 1.0, 0.0, 0.0)

    toy = Toy.random(seed)
    line = Line(toy.board(), script={random.Random(seed + number).uniform(0.02, 0.06): die})
    assert "the board no longer answers, as it did before; likely the cable to it is broken" in attempt(line, toy, 0)
    assert line.time < 25
