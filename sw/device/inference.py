"""Running a loaded model: inputs into the banks, a start, outputs out of them."""

from collections.abc import Iterable, Iterator

import numpy as np

from ...hw.arch.bus import (
    BANK_SHIFT,
    STATUS_AT,
    STATUS_MASK,
    Control,
    Region,
    Register,
    Status,
    StatusBit,
    bus_address,
)
from ...hw.arch.errors import DeviceError, ShiftwrightError
from ...hw.arch.link import PAYLOAD_MAX, Op
from ..compiler.cycles import predict, run_cycles
from ..compiler.layout import locate, pack_activations, unpack_activations
from ..image import Image
from .events import SessionLost
from .frames import Request, Response
from .memory import MODEL, crc_of, read_words, verify, writes
from .session import REGISTERS, Session

__all__ = ["InferencePlan", "check_model", "infer"]

ACTIVATIONS = bus_address(Region.ACTIVATIONS)
GAP = 24
"""Bytes that nobody uses are sent along when a request of their own would cost more."""
START = Request(op=Op.WRITE_WORDS, address=REGISTERS | Register.CONTROL, count=1,
                payload=int(Control.START).to_bytes(2, "little"))


class InferencePlan:
    """What has to be written and read for one inference of an image."""

    def __init__(self, image: Image) -> None:
        self.image = image
        bank, address = (part.ravel() for part in locate(image.output, image.config))
        order = np.lexsort((address, bank))
        self._outputs = [(number, first, count) for number, first, count, _ in _runs(bank[order], address[order])]
        spans = [(tensor.base, tensor.base + tensor.steps(image.config).size) for tensor in (image.input, image.output)]
        self.overlap = spans[0][0] < spans[1][1] and spans[1][0] < spans[0][1]
        try:
            self.cycles = run_cycles(predict(image))
        except ShiftwrightError:
            self.cycles = 0  # a model that the board refuses as well, and says why

    def inputs(self, x: np.ndarray, payload: int) -> Iterator[Request]:
        """The requests that write an input (C, H, W); what it may be is told at :func:`pack_activations`."""
        bank, address, byte = pack_activations(self.image.input, self.image.config, x)
        for number, first, count, part in _runs(bank, address):
            data = np.zeros(count, np.uint8)
            data[address[part] - first] = byte[part]
            yield from writes(_bank_address(number, first), data.tobytes(), Op.WRITE_BYTES, payload)

    def outputs(self) -> Iterator[Request]:
        """The requests that read the output."""
        for number, first, count in self._outputs:
            for at in range(0, count, PAYLOAD_MAX):
                yield Request(op=Op.READ_BYTES, address=_bank_address(number, first + at),
                              count=min(PAYLOAD_MAX, count - at))

    def unpack(self, parts: list[bytes]) -> np.ndarray:
        """The output (C, H, W), int32, from the answers to :meth:`outputs`."""
        config, tensor = self.image.config, self.image.output
        banks = np.zeros((config.lanes, tensor.base + tensor.steps(config).size), np.int64)
        for request, part in zip(self.outputs(), parts, strict=True):
            number, first = (request.address - ACTIVATIONS) >> BANK_SHIFT, request.address & (1 << BANK_SHIFT) - 1
            banks[number, first:first + len(part)] = np.frombuffer(part, np.uint8)
        return unpack_activations(tensor, config, banks)


def _bank_address(bank: int, address: int) -> int:
    return ACTIVATIONS | bank << BANK_SHIFT | address


def _runs(bank: np.ndarray, address: np.ndarray) -> Iterator[tuple[int, int, int, slice]]:
    """Bank, first address, count and elements of each run of addresses, small gaps included."""
    ends = np.flatnonzero((np.diff(bank) != 0) | (np.diff(address) > GAP)) + 1
    for first, end in zip([0, *ends.tolist()], [*ends.tolist(), len(bank)], strict=True):
        yield (int(bank[first]), int(address[first]), int(address[end - 1] - address[first]) + 1, slice(first, end))


def check_model(session: Session, image: Image) -> None:
    """Raise :class:`DeviceError` unless the board's model memory holds the image."""
    assert session.identity is not None
    if verify(session.channel, MODEL, len(image.words), session.identity.clock_hz) != crc_of(image.words):
        raise DeviceError(f"{session.transport.name}: the board holds another model than this image, or none; load it "
                          f"with: shiftwright load FILE.swi --port {session.transport.name}")


def infer(session: Session, image: Image, inputs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Run the loaded model on one input after another.

    The next input is sent while the last answer is still coming, unless it would overwrite the output; so one input
    more than outputs were given is taken from `inputs`.

    Parameters
    ----------
    session : Session
        Open, to a board of the image's configuration.
    inputs : iterable of integer array (C, H, W)

    Yields
    ------
    int32 array (C, H, W)
        The output; raw accumulators where the image's last layer is raw.

    Raises
    ------
    DeviceError
        If the board does not hold the image, or a run ends with an error.
    TransportError
        If the board is lost for good.
    """
    plan = InferencePlan(image)
    checked = written = False
    source = iter(inputs)
    x = next(source, None)
    while x is not None:
        following = next(source, None)
        while True:
            try:
                if not checked:
                    check_model(session, image)
                    checked = True
                for request in () if written else plan.inputs(x, session.channel.payload):
                    session.channel.post(request)
                early = [] if following is None or plan.overlap else \
                    list(plan.inputs(following, session.channel.payload))
                parts = _run(session, plan, early)
                break
            except SessionLost as lost:
                # Whatever was under way may have been lost with the board's memory.
                checked = written = False
                session.recover(lost)
        session.progressed()
        written = bool(early)
        yield plan.unpack(parts)
        x = following


def _run(session: Session, plan: InferencePlan, early: list[Request]) -> list[bytes]:
    """Start a run whose input is written; the answers that hold its output."""
    assert session.identity is not None
    channel, now = session.channel, session.transport.now
    channel.post(START)
    started = now()
    expected = max(plan.cycles / session.identity.clock_hz, session.run_seconds)
    requests = list(plan.outputs())
    parts: list[bytes] = []
    for number, request in enumerate(requests):
        last = number + 1 == len(requests)
        response = channel.call(request, seconds=0.0 if parts else expected, answer_bytes=request.count,
                                early=early if last else ())
        if not parts:
            _check_status(session, response)
            session.run_seconds = max(session.run_seconds, now() - started)
        parts.append(response.payload)
    return parts


def _check_status(session: Session, response: Response) -> None:
    status = response.status >> STATUS_AT & STATUS_MASK
    if response.status & StatusBit.BUSY or not response.status & StatusBit.DONE:
        raise SessionLost("the board did not run the model")
    if status == Status.OK:
        return
    layer, row, low, high = (int(word) for word in read_words(session.channel, REGISTERS | Register.ERROR_LAYER, 4))
    name = Status(status).name if status in set(Status) else f"{status}, which is unknown"
    raise DeviceError(f"{session.transport.name}: the run ended with status {name} in layer {layer}, output channel "
                      f"{row}, after {low | high << 16} cycles; load the model again; if that does not help, run "
                      f"'shiftwright simulate' with the same image and compare")
