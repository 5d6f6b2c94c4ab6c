"""The virtual board's two faces and its line, around an echo in place of a board."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ConfigError, DeviceError, TransportError
from shiftwright.sim.emulator.faults import FOREVER, Faults, Trouble
from shiftwright.sim.emulator.model import FAST_CLOCK_HZ, board_model, program_around
from shiftwright.sim.emulator.pins import PinsTransport, SimulatedBoard
from shiftwright.sim.emulator.virtual import VirtualBoard
from shiftwright.sim.runner import Model
from shiftwright.sw.device.transport import SerialTransport

CYCLES = 8
ECHO = f"""
// Sends each byte again that it receives, with {CYCLES} cycles a bit; because of a free counter it is never the same.
module board(input clk, input rst, input rx, output tx, output busy);
  reg [1:0] line; reg [7:0] wait_r, wait_t; reg [3:0] bit_r, bit_t; reg [9:0] in, out; reg receiving, sending;
  reg [7:0] bytes [0:4095]; reg [11:0] first, last; reg [6:0] idle;
  assign tx = sending ? out[0] : 1'b1;
  assign busy = 0;
  always @(posedge clk) begin
    line <= {{line[0], rx}};
    idle <= idle + 1;
    if (!receiving) begin
      if (!line[1]) begin receiving <= 1; wait_r <= {CYCLES // 2 - 1}; bit_r <= 0; end
    end else if (wait_r == 0) begin
      wait_r <= {CYCLES - 1}; in <= {{line[1], in[9:1]}}; bit_r <= bit_r + 1;
      if (bit_r == 0 && line[1]) receiving <= 0;
      if (bit_r == 9) begin receiving <= 0; if (line[1]) begin bytes[last] <= in[9:2]; last <= last + 1; end end
    end else wait_r <= wait_r - 1;
    if (!sending) begin
      if (first != last) begin
        out <= {{1'b1, bytes[first], 1'b0}}; first <= first + 1; sending <= 1; wait_t <= {CYCLES - 1}; bit_t <= 0;
      end
    end else if (wait_t == 0) begin
      wait_t <= {CYCLES - 1}; out <= {{1'b1, out[9:1]}}; bit_t <= bit_t + 1;
      if (bit_t == 9) sending <= 0;
    end else wait_t <= wait_t - 1;
    if (rst) begin line <= 3; receiving <= 0; sending <= 0; first <= 0; last <= 0; end
  end
endmodule
"""
BAUD = FAST_CLOCK_HZ // CYCLES


@pytest.fixture(scope="module")
def echo() -> Model:
    return program_around(ECHO)


@pytest.fixture
def board(echo: Model) -> Iterator[SimulatedBoard]:
    with SimulatedBoard(echo, clock_hz=FAST_CLOCK_HZ, seed=3) as board:
        yield board


def exchange(transport: PinsTransport | SerialTransport, data: bytes, patience: float = 0.05) -> bytes:
    """What comes back for `data`."""
    transport.write(data)
    found = b""
    while len(found) < 2 * len(data) and (part := transport.read(transport.pending() + patience)):
        found += part
    return found


def test_time_passes_with_bytes(board: SimulatedBoard, rng: np.random.Generator) -> None:
    line = PinsTransport(board)
    data = rng.bytes(300)
    line.write(data)
    assert line.pending() == pytest.approx(3000 / BAUD, rel=0.01)
    assert line.now() == 0
    assert exchange(line, b"") == b""
    first = line.read(1)
    assert first == data[:16]
    # The first byte goes there and back, up to the middle of its stop bit; the others follow a cycle apart.
    assert 169 < line.now() * BAUD < 173
    assert first + exchange(line, b"") + b"".join(iter(lambda: line.read(0.01), b"")) == data


def test_bytes_are_told_when_they_come(echo: Model) -> None:
    """However long a bit is: the board is at rest before the pause is over by which the end of the bytes is seen."""
    hz = 400 * BAUD
    with SimulatedBoard(echo, clock_hz=hz) as board:
        line = PinsTransport(board, baud=hz // CYCLES)
        line.write(b"abc")
        line.baud = BAUD
        board.speed(BAUD)  # long bits from here on
        found = line.read(10)
        assert found and line.now() < 100 / BAUD


def test_all_bytes_at_odd_speeds(board: SimulatedBoard) -> None:
    """A host that is some percent off is understood, one that is far off is not."""
    line = PinsTransport(board)
    data = bytes(range(256))
    for error, understood in ((0.97, True), (0.985, True), (1.02, True), (1.03, True), (0.8, False), (1.3, False)):
        line.set_baud(round(BAUD * error))
        found = exchange(line, data[:40] if error > 1 else data)
        assert (found == (data[:40] if error > 1 else data)) is understood, error


def test_time_without_events_is_not_simulated(board: SimulatedBoard) -> None:
    line = PinsTransport(board)
    started = time.monotonic()
    assert line.read(10_000) == b""
    assert time.monotonic() - started < 2
    assert line.now() == 10_000
    assert board.report().simulated < 10_000 < board.last.cycles
    assert exchange(line, b"still there") == b"still there"
    before = line.now()
    assert line.read(1e-12) == b"" and line.now() > before  # some time passes always, or a host might wait for ever


@pytest.mark.parametrize("direction", ["to_board", "to_host"])
@pytest.mark.parametrize(("faults", "least", "most"), [
    (Faults(flip=0.01), 900, 1010), (Faults(drop=0.05), 900, 990), (Faults(duplicate=0.05), 1010, 1100),
    (Faults(insert=0.05), 1010, 1100)])
def test_faults(board: SimulatedBoard, rng: np.random.Generator, direction: str, faults: Faults, least: int,
                most: int) -> None:
    line, data = PinsTransport(board), rng.bytes(1000)
    board.faults(**{direction: faults}, seed=1)
    first = exchange(line, data)
    assert first != data and least <= len(first) <= most
    board.faults(**{direction: faults}, seed=2)
    assert exchange(line, data) != first
    board.faults(**{direction: faults}, seed=1)
    assert exchange(line, data) == first
    board.faults()
    assert exchange(line, data) == data


def test_troubles(board: SimulatedBoard) -> None:
    line, data = PinsTransport(board), bytes(range(1, 201))
    for kind, seconds in ((Trouble.LOW, 50 / BAUD), (Trouble.CUT, 50 / BAUD), (Trouble.RESET, 0)):
        board.trouble(kind, after=100, seconds=seconds)
        found = exchange(line, data)
        assert found[:90] == data[:90] and found[-20:] == data[-20:] and 100 < len(found) < 200, kind
    board.trouble(Trouble.RESET, after=250)
    board.trouble(Trouble.CUT, seconds=FOREVER)
    assert exchange(line, data) == b""
    board.calm()
    assert exchange(line, data) == data


def test_a_host_that_dies(board: SimulatedBoard) -> None:
    line = PinsTransport(board)
    line.write(bytes(100))
    line.read(0)
    board.run(20 / BAUD)
    board.forget()
    assert len(exchange(line, b"")) <= 3
    line.close()
    with pytest.raises(TransportError, match="closed"):
        line.write(b"x")


def test_a_board_that_dies(board: SimulatedBoard) -> None:
    line = PinsTransport(board)
    os.kill(board._process.pid, signal.SIGKILL)
    with pytest.raises(TransportError, match=r"the simulated board has ended \(exit code -9\)"):
        line.read(1)
    with pytest.raises(TransportError, match="has ended"):
        line.write(b"x")


def test_nonsense_ends_it_with_a_word(board: SimulatedBoard) -> None:
    with pytest.raises(TransportError, match="unknown command"):
        board._command(b"!")


def virtual(echo: Model, **options: object) -> VirtualBoard:
    return VirtualBoard(AcceleratorConfig(), fast=True, model=echo, **options)  # type: ignore[arg-type]


def test_pseudo_terminal(echo: Model, rng: np.random.Generator, tmp_path: Path) -> None:
    data = rng.bytes(2000)
    with virtual(echo, link=tmp_path / "board") as board:
        assert os.readlink(tmp_path / "board") == board.port
        for baud, understood in ((BAUD, True), (BAUD // 2, False), (round(BAUD * 1.01), True)):
            line = SerialTransport(str(tmp_path / "board"), baud)
            assert (exchange(line, data, patience=1) == data) is understood, baud
            line.close()
            time.sleep(0.05)
    assert not os.path.lexists(tmp_path / "board")
    assert board.usage is not None and board.usage.simulated > 3 * 2000 * 10 * CYCLES


def test_faults_of_a_virtual_board(echo: Model, rng: np.random.Generator) -> None:
    data = rng.bytes(1000)
    with virtual(echo, faults=Faults(drop=0.05)) as board:
        line = SerialTransport(board.port, BAUD)
        assert 850 < len(exchange(line, data, patience=1)) < 970
        line.close()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_virtual_board_sleeps(echo: Model) -> None:
    with virtual(echo) as board:
        assert board._process is not None
        line = SerialTransport(board.port, BAUD)
        assert exchange(line, b"awake", patience=1) == b"awake"
        for _ in range(2):
            before = processor_seconds(board._process.pid)
            time.sleep(0.5)
            assert processor_seconds(board._process.pid) - before < 0.1
            line.close()  # and nobody has it open


def test_a_virtual_board_ends_with_its_owner(echo: Model) -> None:
    board = virtual(echo).__enter__()
    process = board._process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    assert process.wait(5) == 0
    assert board.wait(1)
    process.stdin = None
    board.close()


def test_a_link_replaces_only_a_link(echo: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DeviceError, match=r"is no symbolic link"), virtual(echo, link=tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(DeviceError, match="can't make the link"), virtual(echo, link=tmp_path / "none" / "link"):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with virtual(echo, link=tmp_path / "link"):
        assert stat.S_ISCHR((tmp_path / "link").stat().st_mode)


def test_wrong_arguments(echo: Model) -> None:
    done = subprocess.run([echo.folder / "model", "teletype"], capture_output=True, text=True, check=False, timeout=10)
    assert done.returncode == 2 and done.stderr.startswith("usage:")
    with pytest.raises(ConfigError, match="the clock of a virtual board must be at least 460800 Hz"):
        board_model(AcceleratorConfig(), clock_hz=400_000)
