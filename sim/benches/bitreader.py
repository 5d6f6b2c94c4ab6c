"""cocotb bench of :class:`shiftwright.hw.bitreader.BitReader` against a position in a text of bits."""

from typing import Any

import cocotb

from ...hw.fetch import ModelMemory
from .agents import Bench, Memory

WINDOW_BITS = 17
"""Bits of the window that are there at any offset."""


@cocotb.test()
async def the_window_follows_the_position(dut: Any) -> None:
    """Random takes, saves and returns, with idle and busy memory; starts in the middle of everything."""
    bench = await Bench.open(dut, "bitreader")
    ports, rng = bench.ports, bench.rng
    memory = Memory(bench, "mem", [rng.getrandbits(16) for _ in range(bench.config.weight_depth)])
    bits = "".join(format(word, "016b") for word in memory.words)
    for number in range(4 * bench.rounds):
        memory.stall = (0.0, 0.5, 0.9)[number % 3]
        longest = rng.choice((1, 4, 15))
        start = rng.randrange(bench.config.weight_depth - 256)
        position = saved = 16 * start
        end = 16 * (start + 250)
        has_saved = saved_ready = must_be_ready = False
        await bench.strobe(start=1, start_addr=start)
        # The hold of the prefetch shows that nothing is fetched without leave.
        before = len(memory.requests)
        await bench.step(4)
        assert len(memory.requests) == before, "a word was requested while prefetching is not enabled"
        ports.put(enable=1)
        waited = 0
        for _ in range(rng.randrange(50, 400)):
            ready = bool(ports.get("ready"))
            assert ready or not must_be_ready, "not ready at once after the return to a position that was ready"
            waited = 0 if ready else waited + 1
            assert waited < 200, "the window is not filled"
            take = save = restore = length = 0
            if ready:
                window = ports.get("window") >> 32 - WINDOW_BITS - ports.get("offset") & (1 << WINDOW_BITS) - 1
                wanted = bits[position:position + WINDOW_BITS]
                assert format(window, f"0{WINDOW_BITS}b") == wanted, f"bits at {position} are not {wanted}"
                assert ports.get("offset") == position % 16
                length = rng.randint(1, longest)
                take = int(position + length < end and bench.chance(0.8))
            if has_saved and bench.chance(0.1):
                restore = 1
            elif bench.chance(0.1):
                save = 1
            if save:
                saved, saved_ready, has_saved = position, ready, True
            must_be_ready = bool(restore) and saved_ready
            position = saved if restore else position + length * take
            ports.put(take=take, length=length, save=save, restore=restore)
            await bench.step()
        ports.put(take=0, save=0, restore=0, enable=0)
        assert memory.requests[before:before + 1] == [start], "the first word is fetched first"


@cocotb.test()
async def an_idle_memory_is_used_fully(dut: Any) -> None:
    """A word comes at least every ``LATENCY + 2`` cycles: a request at a time, the next one right after the answer."""
    bench = await Bench.open(dut, "bitreader")
    memory = Memory(bench, "mem", [bench.rng.getrandbits(16) for _ in range(200)])
    await bench.strobe(start=1, start_addr=0)
    bench.ports.put(enable=1)
    await bench.until(lambda: bool(bench.ports.get("ready")), 20, "the first words")
    begin, words = bench.cycle, 100
    for _ in range(2 * words):
        await bench.until(lambda: bool(bench.ports.get("ready")), ModelMemory.LATENCY + 2, "the next word")
        await bench.strobe(take=1, length=8)
    assert bench.cycle - begin <= (ModelMemory.LATENCY + 2) * words
    assert memory.requests == list(range(len(memory.requests))), "each word is requested once, in order"
