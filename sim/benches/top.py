"""The accelerator behind its serial line: an image is loaded, verified and run through two pins."""

import zlib
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import SimTimeoutError

from ...hw.arch.bus import Control, Region, Register, Status
from ...hw.arch.errors import MismatchError
from ...hw.arch.link import FLAG, IDENTITY, PAYLOAD_MAX, Answer, Op
from ...sw.compiler.layout import pack_activations, unpack_activations
from ...sw.image import Image
from ..bus import address, bank_address, start_clock, status_of
from ..runner import bench_data
from .line import LineDriver, LineMonitor, bit_ps
from .link_model import body_of, fields, framed, request, split

SESSION = 0xBEEF
POLLS = 2000


class Board:
    """A host that sends a request and waits for its answer, at the first speed."""

    def __init__(self, dut: Any) -> None:
        given = bench_data()
        self.image = Image.from_bytes(given["image"].tobytes())
        self.inputs, self.outputs = given["inputs"], given["outputs"]
        self.line = LineDriver(dut.rx, given["divisor"])
        self.monitor = LineMonitor(dut.tx, given["divisor"])
        self._seq = 0

    def frame(self, op: Op, at: int = 0, count: int = 0, payload: bytes = b"") -> bytes:
        """The next request."""
        self._seq += 1
        return framed(request(op, self._seq, SESSION, at, count, payload))

    async def answers(self, count: int) -> list[bytes]:
        """As many answers, all of them good."""
        while True:
            found = [body_of(piece) for piece in split(self.monitor.bytes)]
            if len(found) >= count and self.monitor.bytes[-1] == FLAG:
                break
            try:
                await self.monitor.more(4000 * bit_ps(self.line.divisor))
            except SimTimeoutError:
                raise MismatchError(f"{count} answers, found {found}") from None
        self.monitor.bytes.clear()
        for body in found:
            assert body is not None, "a damaged answer"
            assert fields(body)["answer"] == Answer.OK, body.hex(" ")
        return [body for body in found if body is not None]

    async def ask(self, op: Op, at: int = 0, count: int = 0, payload: bytes = b"") -> bytes:
        """A request, and its answer's payload."""
        await self.line.send(self.frame(op, at, count, payload))
        (body,) = await self.answers(1)
        return body[10:]

    async def write_banks(self, number: int) -> None:
        """An input; the rest of the banks it lies in becomes 0."""
        config = self.image.config
        banks = np.zeros((config.lanes, config.act_depth), np.uint8)
        bank, at, byte = pack_activations(self.image.input, config, self.inputs[number])
        banks[bank, at] = byte
        for n in sorted(set(bank.tolist())):
            for begin in range(0, config.act_depth, PAYLOAD_MAX):
                part = banks[n, begin:begin + PAYLOAD_MAX].tobytes()
                await self.ask(Op.WRITE_BYTES, bank_address(n, begin), len(part), part)

    async def finish(self, number: int) -> None:
        """Wait for a run; its output must be the golden model's."""
        config = self.image.config
        for _ in range(POLLS):
            status = await self.ask(Op.READ_WORDS, address(Region.REGISTERS, Register.STATUS), 1)
            busy, done, code = status_of(int.from_bytes(status, "little"))
            if not busy:
                break
        assert (busy, done, code) == (False, True, Status.OK)
        banks = np.zeros((config.lanes, config.act_depth), np.int64)
        for n in range(config.lanes):
            for begin in range(0, config.act_depth, PAYLOAD_MAX):
                count = min(PAYLOAD_MAX, config.act_depth - begin)
                part = await self.ask(Op.READ_BYTES, bank_address(n, begin), count)
                banks[n, begin:begin + count] = np.frombuffer(part, np.uint8)
        found = unpack_activations(self.image.output, config, banks)
        if not np.array_equal(found, self.outputs[number]):
            raise MismatchError(f"image {number}: the output is not the golden model's")


@cocotb.test()
async def an_image_runs(dut: Any) -> None:
    """Identity, load, verify, two inputs; the second is started while words of the model are being read."""
    board = Board(dut)
    await start_clock(dut)
    image, config = board.image, board.image.config
    identity = await board.ask(Op.HELLO)
    at = sum(list(IDENTITY.values())[:list(IDENTITY).index("fingerprint")])
    assert int.from_bytes(identity[at:at + 4], "little") == config.fingerprint
    model = image.words.astype("<u2").tobytes()
    for begin in range(0, len(model), PAYLOAD_MAX):
        part = model[begin:begin + PAYLOAD_MAX]
        await board.ask(Op.WRITE_WORDS, address(Region.MODEL, begin // 2), len(part) // 2, part)
    checksum = await board.ask(Op.VERIFY, address(Region.MODEL, 0), len(image.words))
    assert int.from_bytes(checksum, "little") == zlib.crc32(model)

    control = address(Region.REGISTERS, Register.CONTROL)
    start = Control.START.to_bytes(2, "little")
    await board.write_banks(0)
    await board.ask(Op.WRITE_WORDS, control, 1, start)
    await board.finish(0)
    await board.write_banks(1)
    count = min(64, len(image.words))
    await board.line.send(board.frame(Op.READ_WORDS, 0, count) + board.frame(Op.WRITE_WORDS, control, 1, start))
    found = await board.answers(2)
    assert found[0][10:] == model[:2 * count], "words of the model, read while a run was asked for"
    await board.finish(1)
