"""The serial port in front of the word bus, pin by pin."""

import numpy as np
from amaranth.sim import Simulator

from shiftwright.boards.serial import BusOverSerial, PortScan

HALF = 5
READ, WRITE = 1, 2


class Host:
    """Drives the pins; the memory behind the bus is a dictionary."""

    def __init__(self, ctx: object, dut: BusOverSerial, memory: dict[int, int]) -> None:
        self.ctx, self.dut, self.memory, self.answer = ctx, dut, memory, None

    async def tick(self) -> None:
        ctx, dut = self.ctx, self.dut
        ctx.set(dut.bus_r_valid, self.answer is not None)
        ctx.set(dut.bus_r_data, self.answer or 0)
        self.answer = None
        await ctx.tick()
        if ctx.get(dut.bus_w_en):
            self.memory[ctx.get(dut.bus_addr)] = ctx.get(dut.bus_w_data)
        if ctx.get(dut.bus_r_en):
            self.answer = self.memory.get(ctx.get(dut.bus_addr), 0)

    async def shift(self, value: int, bits: int) -> int:
        found = 0
        for bit in reversed(range(bits)):
            self.ctx.set(self.dut.mosi, value >> bit & 1)
            for _ in range(HALF):
                await self.tick()
            found = found << 1 | self.ctx.get(self.dut.miso)
            self.ctx.set(self.dut.sclk, 1)
            for _ in range(HALF):
                await self.tick()
            self.ctx.set(self.dut.sclk, 0)
        return found

    async def frame(self, command: int, address: int, words: list[int]) -> list[int]:
        self.ctx.set(self.dut.cs, 1)
        await self.shift(command, 8)
        await self.shift(address, 24)
        found = [await self.shift(word, 16) for word in words]
        for _ in range(HALF):
            await self.tick()
        self.ctx.set(self.dut.cs, 0)
        for _ in range(2 * HALF):
            await self.tick()
        return found


def test_written_words_are_read_back(rng: np.random.Generator) -> None:
    dut, memory = BusOverSerial(), {}
    words = [int(word) for word in rng.integers(0, 1 << 16, 6)]
    base = 0x9ABCDE
    seen = {}

    async def bench(ctx: object) -> None:
        host = Host(ctx, dut, memory)
        await host.frame(WRITE, base, words)
        seen["first"] = await host.frame(READ, base, [0] * 7)
        await host.frame(WRITE, base + 1, [0x1234])
        seen["second"] = await host.frame(READ, base + 1, [0, 0])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert memory == {base + k: word for k, word in enumerate(words)} | {base + 1: 0x1234}
    assert seen["first"][1:] == words
    assert seen["second"][1:] == [0x1234]


def test_port_scan_reaches_every_port() -> None:
    inner = BusOverSerial()
    dut = PortScan(inner)
    assert dut.extra_ff == 4 + 24 + 16 + 1 + 1 + 16 + 1 + 1
    assert dut.extra_lut4 == 14

    async def bench(ctx: object) -> None:
        for bit in [1] * 40:
            ctx.set(dut.scan_in, bit)
            await ctx.tick()
        ports = inner.sclk, inner.cs, inner.bus_r_valid, inner.bus_r_data
        assert [ctx.get(port) for port in ports] == [1, 1, 1, 0xffff]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
