"""The device: identity, loads that send only what is missing, inference, counters; and what is said when it fails."""

import random
import struct
import threading
from typing import Any

import numpy as np
import pytest

from shiftwright.hw.arch.bus import COUNTER_WORDS, Register, Status
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import DataError, DeviceError, ImageError, TransportError
from shiftwright.hw.arch.link import FIRST_BAUD, Answer, Op
from shiftwright.sw.device import Device
from shiftwright.sw.device.frames import Request
from shiftwright.sw.device.identity import Identity
from shiftwright.sw.device.several import infer_on
from tests.device_model import Board, Line, Terminal, Toy, nothing


@pytest.fixture
def toy(seed: int) -> Toy:
    return Toy.random(seed, words=7000)


def device_on(board: Board, notices: list[str] | None = None, **options: Any) -> Device:
    wires = {name: options.pop(name) for name in ("flips", "script", "slow", "rtt") if name in options}
    return Device(Line(board, **wires), notice=None if notices is None else notices.append,
                  entropy=random.Random(1), **options)


def model_writes(board: Board) -> int:
    return sum(op == Op.WRITE_WORDS for op, _ in board.frames)


def test_identity(toy: Toy) -> None:
    config = toy.image.config
    device = device_on(toy.board(name="sixteen-letters!"))
    assert device.identify() == Identity(
        board="sixteen-letters!", fingerprint=config.fingerprint, lanes_y=2, lanes_x=2, streams=1, act_bits=8,
        counters=True, clock_hz=12_000_000, weight_depth=8192, act_depth=128)
    assert str(device.identify()).startswith("sixteen-letters!: 2x2x1, configuration 0x")
    assert device.transport.baud == 1_000_000 and device.statistics.sessions == 1


@pytest.mark.parametrize(("clock_hz", "baud"), [
    (12_000_000, 1_000_000), (25_000_000, 1_000_000), (7_372_800, 921_600), (4_000_000, 500_000),
    (8 * 115_200, 115_200), (6 * 115_200, 115_200)])
def test_the_speed_that_is_chosen(toy: Toy, clock_hz: int, baud: int) -> None:
    device = device_on(toy.board(clock_hz=clock_hz))
    device.identify()
    assert device.transport.baud == baud


def test_a_speed_that_the_user_asks_for(toy: Toy) -> None:
    device = device_on(toy.board(), baud=2_500_000)
    device.load(toy.image)
    assert device.transport.baud == 2_500_000
    with pytest.raises(DeviceError, match="line: the board's clock of 12 MHz does not divide to 4000000 baud; the "
                                          "fastest usual speed is 1000000"):
        device_on(toy.board(), baud=4_000_000).identify()
    with pytest.raises(DeviceError, match="the speed must be at least 19200 baud, not 9600: a slower byte would be a"):
        device_on(toy.board(), baud=9_600)


def test_a_speed_at_which_the_board_does_not_answer(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    board, notices = toy.board(), list[str]()
    monkeypatch.setattr(Board, "baud", property(lambda self: 700_000.0 if self.divisor == 192 else
                                                self.clock_hz * 16 / self.divisor))
    device = device_on(board, notices)
    device.load(toy.image)
    assert device.transport.baud == FIRST_BAUD
    assert notices == ["line: the board does not answer at 1000000 baud: staying at 115200"]


@pytest.mark.parametrize(("at", "value", "message"), [
    (0, 9, "line: the board has version 9 of the protocol, this program version 1; build its bitstream again"),
    (1, 8, "line: the board has version 8 of the register map, this program version 3"),
    (15, 0, "line: the board says that its clock is 0 Hz")])
def test_another_version(toy: Toy, at: int, value: int, message: str) -> None:
    board = toy.board(clock_hz=12_000_000)
    look = board.look

    def other(op: Op, address: int, count: int) -> bytes:
        data = bytearray(look(op, address, count))
        if at == 15:
            data[12:16] = bytes(4)
        data[at] = value
        return bytes(data)
    board.look = other  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match=message):
        device_on(board).identify()


def test_an_image_for_another_configuration(toy: Toy) -> None:
    other = Toy.random(1, config=AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=8192, act_depth=256))
    board = toy.board()
    before = board.model.copy()
    device = device_on(board)
    with pytest.raises(ImageError, match=r"line: the image was compiled for another accelerator: 2x2x1, 8192 words of "
                                         r"model memory, 256 activations a bank, configuration 0x\w{8}; the board is "
                                         r"software: .* shiftwright compile FILE.swc --board software, or --config"):
        device.load(other.image)
    assert np.array_equal(board.model, before) and model_writes(board) == 0
    for use in (lambda: device.run(other.image, other.inputs(1)[0]), lambda: device.holds(other.image)):
        with pytest.raises(ImageError, match="another accelerator"):
            use()


def test_only_what_changed_is_sent(toy: Toy) -> None:
    board = toy.board()
    device = device_on(board)
    seen: list[tuple[int, int]] = []
    result = device.load(toy.image, progress=lambda *amounts: seen.append(amounts))
    assert (result.bytes, result.sent, result.skipped) == (14_000, 14_000, 0)
    assert seen[0] == (0, 14_000) and seen[-1] == (14_000, 14_000) and seen == sorted(seen)
    again = device.load(toy.image)
    assert (again.sent, again.skipped, again.sessions) == (0, 14_000, 0)
    board.model[2500] ^= 1
    assert (device.load(toy.image).sent, board.model[2500]) == (4096, toy.image.words[2500])
    board.model[[2500, 6999]] ^= 1
    assert device.load(toy.image).sent == 4096 + 14_000 - 3 * 4096
    # Neither the first nor the last part is right: it is another model, and nothing more is asked.
    board.model[[0, 6999]] ^= 1
    assert device.load(toy.image).sent == 14_000
    assert device.load(toy.image, force=True).sent == 14_000
    assert device.holds(toy.image) and np.array_equal(board.model[:7000], toy.image.words)


@pytest.mark.parametrize("part", [0.5, 0.7, 0.9])
def test_an_interrupted_load_goes_on(toy: Toy, part: float) -> None:
    board = toy.board()
    clean = device_on(toy.board()).load(toy.image).seconds

    def cut(line: Line) -> None:
        line.cut = True

    with pytest.raises(TransportError, match="cut"):
        device_on(board, script={clean * part: cut}).load(toy.image)
    result = device_on(board).load(toy.image)
    assert 0 < result.sent <= 14_000 * (1.2 - part) + 4096 and result.sent + result.skipped == 14_000


def test_a_reset_within_a_load_is_told_and_borne(toy: Toy) -> None:
    notices: list[str] = []
    device = device_on(toy.board(), notices, script={0.08: lambda line: line.board.restart(line.time)})
    result = device.load(toy.image)
    # At the first speed the board sees none of the host's frames: it is silent.
    assert result.sessions == 2 and device.transport.baud == 1_000_000
    assert notices == ["line: no answer to WRITE_WORDS, which was sent 7 times; beginning again"]


def test_memory_that_does_not_keep_what_is_written(toy: Toy) -> None:
    board = toy.board()
    write = board.write

    def weak(address: int, word: int, time: float) -> None:
        write(address, word & ~(address == 5000), time)
    board.write = weak  # type: ignore[method-assign]
    toy.image.words[5000] |= 1
    with pytest.raises(TransportError, match="line: the model memory does not keep what is written: CRC-32 wrong"):
        device_on(board).load(toy.image)


@pytest.mark.parametrize("overlap", [False, True])
def test_inference(seed: int, overlap: bool) -> None:
    toy = Toy.random(seed, overlap=overlap)
    board = toy.board()
    device = device_on(board)
    device.load(toy.image)
    inputs = toy.inputs(9)
    for x, y in zip(inputs, device.infer(toy.image, inputs), strict=True):
        assert y.dtype == np.int32 and np.array_equal(y, toy.output(x))
    assert np.array_equal(device.run(toy.image, inputs[3]), toy.output(inputs[3]))
    assert board.runs == 10 and not board.torn and device.cycles() == 20_000
    assert list(device.infer(toy.image, [])) == []


def test_the_next_input_is_sent_while_the_answer_comes(toy: Toy) -> None:
    def seconds(overlap: bool) -> float:
        toy = Toy.random(0, overlap=overlap)
        device = device_on(toy.board(), baud=FIRST_BAUD)
        device.load(toy.image)
        started = device.transport.now()
        list(device.infer(toy.image, toy.inputs(20)))
        return (device.transport.now() - started) / 20

    # An answer of 44 bytes takes 3.8 ms; about half of them can be used.
    assert seconds(overlap=True) - seconds(overlap=False) > 0.0015


def test_inputs_that_do_not_fit(toy: Toy) -> None:
    device = device_on(toy.board())
    device.load(toy.image)
    with pytest.raises(DataError, match="activations must be integers of shape"):
        device.run(toy.image, np.zeros((1, 5, 6), np.int64))
    with pytest.raises(DataError, match="activations must be from -128 to 127"):
        device.run(toy.image, np.full((3, 5, 6), 200))


def test_a_board_with_another_model(toy: Toy) -> None:
    device = device_on(toy.board())
    with pytest.raises(DeviceError, match="line: the board holds another model than this image, or none; load it with: "
                                          "shiftwright load FILE.swi --port line"):
        device.run(toy.image, toy.inputs(1)[0])
    assert not device.holds(toy.image)
    with pytest.raises(DeviceError, match="line: the board holds no model; load one with"):
        device.model()
    device.load(toy.image)
    assert device.model() == (7000, __import__("zlib").crc32(toy.image.words.tobytes()))


@pytest.mark.parametrize("status", [Status.BAD_CODEWORD, Status.WATCHDOG, 9])
def test_a_run_that_ends_with_an_error(toy: Toy, status: int) -> None:
    board = toy.board()
    device = device_on(board)
    device.load(toy.image)
    board.compute = lambda board: (70_000, status)
    board.registers |= {Register.ERROR_LAYER: 3, Register.ERROR_ROW: 17}
    name = Status(status).name if status < 8 else "9, which is unknown"
    with pytest.raises(DeviceError, match=f"line: the run ended with status {name} in layer 3, output channel 17, "
                                          f"after 70000 cycles; load the model again"):
        device.run(toy.image, toy.inputs(1)[0])


def test_a_run_that_was_not(toy: Toy) -> None:
    board = toy.board()
    device = device_on(board)
    device.load(toy.image)
    board.write, write = (lambda address, word, time: None if address >> 22 == 2 else write(address, word, time)), \
        board.write  # type: ignore[method-assign]
    with pytest.raises(TransportError, match="line: the board did not run the model, for the 4th time"):
        device.run(toy.image, toy.inputs(1)[0])


def test_a_model_that_is_replaced_between_inferences(toy: Toy) -> None:
    """A power cycle is noticed by the session's end; the model is then verified before anything is believed."""
    board = toy.board()
    device = device_on(board)
    device.load(toy.image)
    outputs = device.infer(toy.image, toy.inputs(5))
    assert np.array_equal(next(outputs), toy.output(toy.inputs(5)[0]))
    board.restart(device.transport.now())
    board.model[77] ^= 1
    with pytest.raises(DeviceError, match="holds another model"):
        next(outputs)


def test_counters(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    board = toy.board()
    device = device_on(board)
    monkeypatch.setitem(vars(toy.image), "layers", (None,) * 3)
    board.model[8192 - 3 * COUNTER_WORDS:] = struct.unpack("<24H", struct.pack(
        "<12I", *range(300_000, 300_004), *range(200_000, 200_004), *range(100_000, 100_004)))
    firsts = (100_000, 200_000, 300_000)
    assert device.profile(toy.image).tolist() == [list(range(first, first + 4)) for first in firsts]
    monkeypatch.setitem(vars(toy.image), "words", np.zeros(8192 - 2 * COUNTER_WORDS, np.uint16))
    assert device.profile(toy.image)[2].tolist() == [0, 0, 0, 0] and device.profile(toy.image)[1, 0] == 200_000
    bare = Toy.random(0, config=AcceleratorConfig(lanes_y=2, lanes_x=2, counters=False))
    with pytest.raises(DataError, match="line: this accelerator has no counters; build one with counters = true"):
        device_on(bare.board()).profile(bare.image)


def test_reset_and_close(toy: Toy) -> None:
    board = toy.board()
    with device_on(board) as device:
        device.load(toy.image)
        device.reset()
        assert board.session == 0 and board.baud == pytest.approx(FIRST_BAUD, rel=0.01)
        assert device.holds(toy.image) and device.statistics.sessions == 2 and device.transport.baud == 1_000_000
    assert board.session == 0 and board.baud == pytest.approx(FIRST_BAUD, rel=0.01)


def test_lines_that_hold_no_board(toy: Toy) -> None:
    loop = Line(toy.board())
    write = loop.write
    loop.write = lambda data: (write(data), loop.board.out.extend(  # type: ignore[method-assign]
        (loop.tx_free, value, loop.baud) for value in data))[0]
    loop.board.byte = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(TransportError, match="line: what is sent comes back as it is: the line ends in a loop"):
        Device(loop).identify()
    chatter = Line(toy.board(), script={0.01 * number: lambda line: line.board.out.append((line.time, 65, line.baud))
                                        for number in range(5000)})
    chatter.board.byte = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(TransportError, match=r"line: \d+ bytes came, but no answer to the first request; likely this "
                                             r"is another port or device"):
        Device(chatter).identify()
    assert chatter.time < 30


def test_two_hosts_at_once_with_one_board(toy: Toy) -> None:
    """The second host's requests are answered to the second, and never taken by the first."""
    line = Line(toy.board())
    device = Device(line, entropy=random.Random(1))
    device.load(toy.image)
    request = Request(op=Op.READ_WORDS, seq=9, session=9, address=0, count=1)
    board = line.board
    board.request(request.op, request.seq, request.session, 0, 1, b"", line.time)
    assert device.model()[0] == 7000 and device.statistics.sessions == 1
    assert Answer.WRONG_SESSION in Answer


@pytest.mark.parametrize("boards", [1, 2, 3])
def test_several_boards(seed: int, boards: int) -> None:
    toy = Toy.random(seed, words=300)
    lines = [Line(toy.board(seed=number)) for number in range(boards)]
    devices = [Device(line) for line in lines]
    for device in devices:
        device.load(toy.image)
    inputs = toy.inputs(40)
    before = threading.active_count()
    for x, y in zip(inputs, infer_on(devices, toy.image, inputs), strict=True):
        assert np.array_equal(y, toy.output(x))
    assert sum(line.board.runs for line in lines) == 40 and threading.active_count() == before
    # Whoever stops asking leaves no thread behind.
    outputs = infer_on(devices, toy.image, toy.inputs(1000))
    next(outputs)
    outputs.close()
    assert threading.active_count() == before


def test_one_of_several_boards_fails(seed: int) -> None:
    toy = Toy.random(seed, words=300)
    devices = [Device(Line(toy.board(seed=number))) for number in range(2)]
    devices[0].load(toy.image)
    devices[1].transport.name = "other"
    with pytest.raises(DeviceError, match="^other: the board holds another model"):
        list(infer_on(devices, toy.image, toy.inputs(500)))
    with pytest.raises(DeviceError, match="at least one board, not 0"):
        list(infer_on([], toy.image, []))


def test_a_trace_tells_every_frame(toy: Toy) -> None:
    from shiftwright.sw.device.trace import line_trace

    lines: list[str] = []
    device = device_on(toy.board(), trace=line_trace(lines.append, "A "))
    device.load(toy.image)
    statistics = device.statistics
    assert len(lines) == statistics.frames + statistics.answers
    assert lines[0].startswith("A        0.001 > HELLO seq ") and " < HELLO seq " in lines[1]
    assert any("> WRITE_WORDS seq " in line and "payload 512: " in line for line in lines)


def test_the_software_board_can_be_wrong(toy: Toy) -> None:
    """The tests above would notice a board that computes something else."""
    board = toy.board()
    device = device_on(board)
    device.load(toy.image)
    board.compute = nothing
    x = toy.inputs(1)[0]
    assert not np.array_equal(device.run(toy.image, x), toy.output(x))
    assert Terminal is not None
