"""Hosts against the RTL on a line that goes wrong; and LeNet-5 on the virtual iCEBreaker."""

import numpy as np
import pytest

from shiftwright.boards.registry import get
from shiftwright.hw.arch.errors import DataError, TransportError
from shiftwright.hw.arch.link import FIRST_BAUD
from shiftwright.sim import golden
from shiftwright.sim.emulator.hosts import Turns
from shiftwright.sim.emulator.model import FAST_CLOCK_HZ, board_model
from shiftwright.sim.emulator.pins import PinsTransport, SimulatedBoard
from shiftwright.sim.emulator.terminals import TERMINAL_KINDS, terminal_trial
from shiftwright.sim.emulator.trials import KINDS, Outcome, attempt, kinds_in_turn, trial
from shiftwright.sim.emulator.virtual import VirtualBoard
from shiftwright.sim.runner import Model
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.data import load
from shiftwright.sw.device.device import Device
from shiftwright.sw.train import train
from tests.workloads import OTHER, SMALL, workload

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ("flipped bits", "board reset", "two hosts")
TRIALS = 8 * len(KINDS)


@pytest.fixture(scope="module")
def model() -> Model:
    return board_model(SMALL, clock_hz=FAST_CLOCK_HZ)


def check(outcome: Outcome, seed: int) -> None:
    """A trial's end is a good one."""
    assert outcome.failures == [] and outcome.wrong == 0, f"{outcome.kind}, seed {seed}"
    assert outcome.results or outcome.errors, f"{outcome.kind}, seed {seed}: neither results nor an error"


@pytest.mark.slow
@pytest.mark.parametrize("kind", QUICK)
def test_trial(kind: str, model: Model, seed: int) -> None:
    check(trial(kind, model, workload(seed), workload(seed + 1), workload(seed, OTHER), seed=seed,
                clock_hz=FAST_CLOCK_HZ), seed)


@pytest.mark.slow
def test_trials_on_a_terminal(model: Model, seed: int) -> None:
    for kind in ("board reset", "two hosts"):
        check(terminal_trial(kind, model, workload(seed), workload(seed, OTHER), seed=seed), seed)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trial(model: Model, seed: int) -> None:
    first, again = (trial("all of these", model, workload(seed), workload(seed), workload(seed, OTHER), seed=seed,
                          clock_hz=FAST_CLOCK_HZ) for _ in range(2))
    assert (first.board_seconds, first.errors) == (again.board_seconds, again.errors)


@pytest.mark.slow
def test_a_wrong_result_is_seen(model: Model, seed: int) -> None:
    """The judge of the trials itself."""
    right = workload(seed)
    wrong = type(right)(image=right.image, inputs=right.inputs, expected=right.expected + 1)
    outcome = Outcome(kind="none")
    with SimulatedBoard(model, clock_hz=FAST_CLOCK_HZ) as board:
        assert not attempt(outcome, PinsTransport(board), wrong, seed=seed)
        assert outcome.wrong == len(right.expected) and outcome.results == 0
        assert not attempt(outcome, PinsTransport(board), right, seed=seed, dies_after=100)
        assert attempt(outcome, PinsTransport(board), right, seed=seed)
        assert not outcome.failures


def test_turns_are_the_same_each_time() -> None:
    """Hosts sit at a board that is an echo, and hear everything that it says."""
    from tests.sim.test_emulator import ECHO, program_around

    def first(line: PinsTransport) -> bytes:
        line.write(b"one")
        return line.read(1) + line.read(0.01)

    def second(line: PinsTransport) -> bytes:
        assert line.read(0.0001) == b""
        line.write(b"two")
        return b"".join(iter(lambda: line.read(0.01), b""))

    def broken(line: PinsTransport) -> None:
        line.read(0)
        raise TransportError("gone")

    found = []
    for _ in range(2):
        with SimulatedBoard(program_around(ECHO), clock_hz=FAST_CLOCK_HZ) as board:
            found.append(Turns(board).run([first, second, broken]))
    assert found[0][:2] == found[1][:2] == [b"onetwo"[:len(found[0][0])], b"onetwo"]
    assert isinstance(found[0][2], TransportError)


@pytest.mark.regress
def test_many_trials(model: Model, seed: int) -> None:
    mine = [workload(seed + number) for number in range(8)]
    foreign, loads = workload(seed, OTHER), 0
    for number, kind in enumerate(kinds_in_turn(TRIALS)):
        outcome = trial(kind, model, mine[number % 8], mine[(number + 3) % 8], foreign, seed=seed + number,
                        clock_hz=FAST_CLOCK_HZ)
        check(outcome, seed + number)
        loads += outcome.loads
    assert loads > TRIALS // 2


@pytest.mark.regress
@pytest.mark.parametrize("kind", TERMINAL_KINDS)
def test_many_trials_on_a_terminal(kind: str, model: Model, seed: int) -> None:
    for number in range(seed, seed + 3):
        check(terminal_trial(kind, model, workload(number), workload(seed, OTHER), seed=number), number)


@pytest.mark.regress
def test_lenet5_on_the_virtual_icebreaker() -> None:
    """100 images of MNIST, every output that of the golden model; the network is trained for a moment only."""
    board = get("icebreaker-4bit")
    try:
        images, test = load("mnist", split="train").take(3000), load("mnist", split="test").take(100)
    except DataError as error:
        pytest.skip(f"needs MNIST: {error}")
    module, _ = train("lenet5", images, test=test, epochs=2, seed=0)
    config = board.config
    network = compress(module, BQNet(epochs=1, act_bits=config.act_bits, raw_output=False), images, seed=0)
    compilation = compile_detailed(network, config)
    inputs = network.quantize_input(test.images / 256.0)
    expected = golden.run(compilation.network, inputs)
    assert len(np.unique(expected.reshape(len(test), -1).argmax(axis=1))) == 10
    with VirtualBoard(config, clock_hz=round(board.clock_mhz * 1e6), board=board.name, fast=True) as virtual, \
            Device.open(virtual.port) as device:
        assert device.identify().board == board.name and device.transport.baud == FIRST_BAUD
        device.load(compilation.image)
        for number, (found, wanted) in enumerate(zip(device.infer(compilation.image, inputs), expected, strict=True)):
            np.testing.assert_array_equal(found, wanted, err_msg=f"image {number}")
