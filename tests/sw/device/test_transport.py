"""Serial ports, over pseudo-terminals: bytes, speeds, breaks, and messages when something is wrong."""

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest
import serial

from shiftwright.hw.arch.errors import ToolError, TransportError
from shiftwright.hw.arch.link import FIRST_BAUD
from shiftwright.sw.device import Device, SerialTransport
from shiftwright.sw.device import transport as module
from tests.device_model import Terminal, Toy


def test_load_and_infer(seed: int) -> None:
    toy = Toy.random(seed)
    with Terminal(toy.board()) as terminal:
        with Device.open(terminal.port) as device:
            assert device.identify().board == "software"
            assert device.load(toy.image).baud == 1_000_000 == terminal.speed()
            for x, y in zip(toy.inputs(4), device.infer(toy.image, toy.inputs(4))):
                assert np.array_equal(y, toy.output(x))
        assert not terminal.board.torn
        # The next host finds the board at its first speed, at once.
        started = time.monotonic()
        with Device.open(terminal.port) as device:
            assert device.load(toy.image).sent == 0
            assert device.statistics.sessions == 1
        assert time.monotonic() - started < 3


def test_a_host_that_died_at_another_speed(seed: int) -> None:
    toy = Toy.random(seed)
    with Terminal(toy.board()) as terminal:
        first = Device.open(terminal.port, baud=500_000)
        first.load(toy.image)
        first.transport.close()
        with Device.open(terminal.port) as device:
            assert device.load(toy.image).sent == 0
        assert terminal.board.breaks >= 1


def test_a_port_in_use(seed: int) -> None:
    with Terminal(Toy.random(seed).board()) as terminal:
        first = SerialTransport(terminal.port)
        with pytest.raises(TransportError, match=f"^{terminal.port}: the port is in use by another program"):
            SerialTransport(terminal.port)
        first.close()
        SerialTransport(terminal.port).close()


def test_a_cable_that_is_pulled(seed: int) -> None:
    toy = Toy.random(seed, words=8000)
    with Terminal(toy.board()) as terminal:
        device = Device.open(terminal.port)
        device.identify()
        terminal.unplug()
        with pytest.raises(TransportError, match="likely the cable was pulled"), device:
            device.load(toy.image)


def test_no_such_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ports", lambda: ["/dev/ttyUSB0", "/dev/ttyUSB1"])
    with pytest.raises(TransportError, match="^/dev/none: there is no such port; found: /dev/ttyUSB0, /dev/ttyUSB1$"):
        SerialTransport("/dev/none")
    monkeypatch.setattr(module, "ports", list)
    with pytest.raises(TransportError, match="no serial port was found: is the board connected, and the cable one"):
        SerialTransport("/dev/none")


def test_not_a_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    for path in (file, tmp_path):
        with pytest.raises(TransportError, match="this is not a serial port; give one, for instance --port /dev/"):
            SerialTransport(str(path))


@pytest.mark.parametrize(("number", "message"), [
    (errno.EACCES, "no permission to open the port; join the group that owns it, mostly dialout"),
    (errno.EIO, "nothing is behind this port any more"),
    (errno.EPROTO, "can't open the port: .* strange"),
])
def test_what_the_system_may_say(monkeypatch: pytest.MonkeyPatch, number: int, message: str) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise serial.SerialException(number, f"[Errno {number}] strange")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(TransportError, match=message):
        SerialTransport("/dev/ttyUSB0")


def test_pyserial_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(ToolError, match=r"pip install .shiftwright\[device\]"):
        SerialTransport("/dev/ttyUSB0")


def test_a_board_that_takes_no_bytes(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.2)
    with Terminal(Toy.random(seed).board()) as terminal:
        terminal.frozen = True
        line = SerialTransport(terminal.port)
        with pytest.raises(TransportError, match="it has taken no byte for 0 seconds; is flow control on"):
            line.write(bytes(1 << 20))
        terminal.frozen = False


def test_time_of_reading_and_of_queued_bytes() -> None:
    master, slave = os.openpty()
    line = SerialTransport(os.ttyname(slave))
    started = line.now()
    assert line.read(0.05) == b"" and 0.04 < line.now() - started < 1
    line.write(bytes(1152))
    assert 0.05 < line.pending() <= 0.1
    os.write(master, b"abc")
    assert line.read(1) == b"abc"
    line.set_baud(7 * FIRST_BAUD)
    assert line.pending() == 0 and line.baud == 7 * FIRST_BAUD
    line.close()
    line.close()
    os.close(slave)
    os.close(master)
