"""The channel: how fast it is, and what it does about each thing that gets lost."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from shiftwright.hw.arch.errors import TransportError
from shiftwright.hw.arch.link import Answer, Op
from shiftwright.sw.device.channel import Channel
from shiftwright.sw.device.events import SessionLost
from shiftwright.sw.device.frames import Request, Response
from shiftwright.sw.device.loading import load_words
from shiftwright.sw.device.memory import MODEL, read_words, verify, write_words
from shiftwright.sw.device.quality import Quality
from shiftwright.sw.device.session import Session
from shiftwright.sw.device.timing import LEAST_SECONDS, RoundTrip
from tests.device_model import Board, Line, Toy

WORDS = np.arange(4096, dtype=np.uint16)


class Sieve(Line):
    """A line that loses chosen frames: ``hide(direction, number)``, counted from 0 in each direction."""

    def __init__(self, board: Board, hide: Callable[[str, int], bool], *, damage: bool = False) -> None:
        super().__init__(board)
        self.hide, self.damage = hide, damage
        self.counts = {">": -1, "<": -1}
        send = board.send

        def sieved(op: int, seq: int, answer: Answer, payload: bytes, time: float) -> float:
            before = len(board.out)
            end = send(op, seq, answer, payload, time)
            self.counts["<"] += 1
            if hide("<", self.counts["<"]):
                for _ in range(len(board.out) - before):
                    board.out.pop()
            return end
        board.send = sieved  # type: ignore[method-assign]

    def write(self, data: bytes) -> None:
        before = len(self.to_board)
        super().write(data)
        self.counts[">"] += 1
        if self.hide(">", self.counts[">"]):
            if self.damage:
                time, value, baud = self.to_board[before + 5]
                self.to_board[before + 5] = time, value ^ 1, baud
            else:
                for _ in range(len(self.to_board) - before):
                    self.to_board.pop()


def opened(line: Line, seed: int = 0) -> tuple[Channel, list[tuple[str, float, object, str]]]:
    """A channel with a session, and its trace."""
    log: list[tuple[str, float, object, str]] = []
    channel = Channel(line, lambda *entry: log.append(entry))
    channel.begin(77, 250, 1.0)
    return channel, log


def sent(log: list[tuple[str, float, object, str]]) -> list[tuple[int, str]]:
    """Sequence numbers, from 0 after HELLO, and remarks of the requests."""
    return [((frame.seq - 251) % 256, remark) for direction, _, frame, remark in log[1:]
            if direction == ">" and isinstance(frame, Request)]


def load(line: Line, words: np.ndarray) -> Channel:
    channel, _ = opened(line)
    write_words(channel, MODEL, words)
    channel.flush()
    assert np.array_equal(line.board.model[:len(words)], words)
    return channel


@pytest.fixture
def board(seed: int) -> Board:
    return Toy.random(seed).board()


def test_nothing_lost_nothing_sent_again(board: Board) -> None:
    line = Line(board)
    channel = load(line, WORDS)
    assert channel.statistics.retries == 0 and channel.statistics.frames == 17
    assert line.time < 1.05 * channel.statistics.sent * 10 / line.baud
    assert np.array_equal(read_words(channel, MODEL + 100, 700), WORDS[100:800])


@pytest.mark.parametrize(("baud", "clock_hz", "least"), [(115_200, 12_000_000, 0.95), (1_000_000, 25_000_000, 0.929)])
def test_efficiency(seed: int, baud: int, clock_hz: int, least: float) -> None:
    # Session numbers decide which bytes are escaped: with random ones 0.9277 to 0.9302 have been seen.
    toy = Toy.random(seed, words=32768, config=Toy.random(0).image.config.replace(weight_depth=32768))
    line = Line(toy.board(clock_hz=clock_hz))
    result = load_words(Session(line, baud=baud, entropy=random.Random(seed)), toy.image.words)
    assert result.efficiency >= least and result.baud == baud and result.sent == 65536
    assert result.efficiency == pytest.approx(65536 * 10 / (baud * result.seconds))


def test_efficiency_with_one_damaged_frame_in_200(seed: int) -> None:
    toy = Toy.random(seed, words=32768, config=Toy.random(0).image.config.replace(weight_depth=32768))
    draw = random.Random(seed)
    for _ in range(3):
        line = Sieve(toy.board(), lambda direction, number: draw.random() < 1 / 200, damage=True)
        result = load_words(Session(line, baud=115_200), toy.image.words)
        assert result.efficiency >= 0.90


@pytest.mark.parametrize("lost", [1, 2, 3, 8, 15, 16])
@pytest.mark.parametrize("damage", [False, True])
def test_a_lost_write_costs_few_others(board: Board, lost: int, damage: bool) -> None:
    line = Sieve(board, lambda direction, number: direction == ">" and number == lost, damage=damage)
    channel = load(line, WORDS)
    assert 1 <= channel.statistics.retries <= 4


def test_two_frames_lost_at_once_and_the_same_one_again(board: Board) -> None:
    lost = {4, 5, 6, 8, 9}
    line = Sieve(board, lambda direction, number: direction == ">" and number in lost)
    assert load(line, WORDS).statistics.retries <= 14


@pytest.mark.parametrize("lost", [{1}, {3, 4, 5}, {16}, {14, 15, 16}])
def test_answers_to_writes_that_are_lost(board: Board, lost: set[int]) -> None:
    line = Sieve(board, lambda direction, number: direction == "<" and number in lost)
    assert load(line, WORDS).statistics.retries <= 2


def test_a_read_is_done_again_and_a_write_is_not(board: Board) -> None:
    hidden = {1, 2}
    line = Sieve(board, lambda direction, number: direction == "<" and number in hidden)
    channel, log = opened(line)
    assert verify(channel, MODEL, 100, board.clock_hz) == verify(channel, MODEL, 100, board.clock_hz)
    assert sent(log) == [(0, ""), (0, "again"), (0, "again"), (1, "")]
    hidden |= {5}
    channel.post(Request(op=Op.WRITE_WORDS, address=MODEL, count=1, payload=b"ab"))
    channel.flush()
    assert [op for op, _ in board.frames].count(Op.WRITE_WORDS) == 2 and board.model[0] == 0x6261


def test_numbers_go_round(board: Board) -> None:
    channel = load(Line(board), np.resize(WORDS, 8192))
    for _ in range(30):
        write_words(channel, MODEL, np.arange(3000, dtype=np.uint16))
    channel.flush()
    assert channel.statistics.retries == 0 and channel.statistics.frames > 256


def test_early_writes_wait_for_the_beginning_of_the_answer(board: Board) -> None:
    channel, log = opened(Line(board))
    early = [Request(op=Op.WRITE_BYTES, address=1 << 22, count=40, payload=bytes(40)) for _ in range(3)]
    response = channel.call(Request(op=Op.READ_WORDS, address=0, count=200), answer_bytes=400, early=early)
    channel.flush()
    assert len(response.payload) == 400
    kinds = [(direction, frame.op) for direction, _, frame, _ in log if isinstance(frame, (Request, Response))]
    first = kinds.index((">", Op.WRITE_BYTES))
    assert kinds.index((">", Op.READ_WORDS)) < first < kinds.index(("<", Op.READ_WORDS))
    times = {direction: at for direction, at, frame, _ in log if isinstance(frame, (Request, Response))
             and frame.op == Op.READ_WORDS}
    started = log[first][1]
    # Eleven bytes of the answer must have come, not more.
    assert started - times[">"] < 45 * 10 / 115200 and times["<"] - started > 380 * 10 / 115200


@pytest.mark.parametrize("count", [1, 3])
def test_a_read_whose_answer_is_lost_behind_early_writes_is_asked_anew(board: Board, count: int) -> None:
    # The answer is damaged after its beginning: the early writes are done, and the read has another number then.
    line = Line(board)
    channel, log = opened(line)
    send, spoilt = board.send, []

    def spoil(op: int, seq: int, answer: Answer, payload: bytes, time: float) -> float:
        before = len(board.out)
        end = send(op, seq, answer, payload, time)
        if op == Op.READ_WORDS and not spoilt:
            spoilt.append(seq)
            at, value, baud = board.out[before + 200]
            board.out[before + 200] = at, value ^ 4, baud
        return end
    board.send = spoil  # type: ignore[method-assign]
    early = [Request(op=Op.WRITE_BYTES, address=1 << 22, count=4, payload=b"wxyz") for _ in range(count)]
    response = channel.call(Request(op=Op.READ_WORDS, address=0, count=200), answer_bytes=400, early=early)
    assert response.payload == board.model[:200].astype("<u2").tobytes()
    assert response.seq == (spoilt[0] + 1 + count) % 256
    channel.flush()
    assert bytes(board.banks[0, :4].astype(np.uint8)) == b"wxyz" and not board.torn


def test_another_session_is_noticed(board: Board) -> None:
    channel, _ = opened(Line(board))
    board.session = 78
    with pytest.raises(SessionLost, match="another host has begun a session"):
        read_words(channel, MODEL, 1)
    channel.begin(77, 0, 1.0)
    board.session = 0
    with pytest.raises(SessionLost, match="the board was reset"):
        read_words(channel, MODEL, 1)


def test_a_board_that_falls_silent(board: Board) -> None:
    line = Line(board)
    channel, _ = opened(line)
    line.faults = (0.0, 1.0, 0.0, 0.0)
    started = line.time
    with pytest.raises(SessionLost, match="no answer to READ_WORDS, which was sent 7 times") as lost:
        read_words(channel, MODEL, 1)
    assert lost.value.silent and line.time - started < 8


def test_a_line_that_damages_everything(board: Board) -> None:
    line = Line(board)
    channel, _ = opened(line)
    line.faults = (0.1, 0.0, 0.0, 0.0)
    with pytest.raises(SessionLost, match="of the last 10 frames were lost") as lost:
        write_words(channel, MODEL, WORDS)
    assert lost.value.poor


def test_a_request_that_the_board_refuses(board: Board) -> None:
    channel, _ = opened(Line(board))
    with pytest.raises(TransportError, match="the board refuses WRITE_WORDS of 2 at 0x000000: BAD_LENGTH; this is a"):
        channel.post(Request(op=Op.WRITE_WORDS, count=2, payload=b"abc"))
        channel.flush()


def test_a_speed_that_the_board_refuses_takes_no_number(board: Board) -> None:
    channel, log = opened(Line(board))
    assert channel.call(Request(op=Op.BAUD, count=1)).answer == Answer.BAD_LENGTH
    read_words(channel, MODEL, 1)
    assert sent(log) == [(0, ""), (0, "")]


def test_slow_boards_are_not_hurried(board: Board) -> None:
    channel = load(Line(board, slow=50, limit=1e4), WORDS)
    assert channel.statistics.retries <= 1


def test_round_trip() -> None:
    trip = RoundTrip()
    assert trip.timeout(0.5) == 1.5
    for _ in range(50):
        trip.add(0.1)
    assert trip.timeout(0.0) == pytest.approx(0.1, abs=0.001) and trip.least == 0.1
    trip.add(0.3)
    assert trip.timeout(0.0) == pytest.approx(0.125 + 4 * 0.05, abs=0.01)
    trip.back_off()
    trip.back_off()
    assert trip.timeout(0.0) == pytest.approx(4 * 0.325, abs=0.04)
    trip.plausible()
    assert trip.timeout(0.0) == pytest.approx(0.325, abs=0.01)
    fast = RoundTrip()
    fast.add(-1)
    assert fast.least == 0 and fast.timeout(0.0) == LEAST_SECONDS


def test_quality() -> None:
    quality = Quality()
    assert (quality.payload, quality.window) == (512, 64)
    for _ in range(9):
        quality.count(lost=True)
    assert not quality.poor
    quality.count(lost=True)
    assert quality.poor and quality.describe() == "10 of the last 10 frames were lost"
    assert quality.fall_back() and (quality.payload, quality.window) == (128, 8) and not quality.poor
    assert quality.fall_back() and (quality.payload, quality.window) == (32, 3)
    assert not quality.fall_back()
    for number in range(100):
        quality.count(lost=number % 2 == 0)
    assert not quality.poor
