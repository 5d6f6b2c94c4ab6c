"""cocotb bench of :class:`shiftwright.hw.wordreader.WordReader` against the words of its memory."""

from typing import Any

import cocotb

from ...hw.arch.timing import memory_latency
from ...hw.wordreader import SPAN_BITS
from .agents import Bench, Memory, Scoreboard


class Taker:
    """Takes words at random and checks that one that is offered stays until it is taken."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.board = bench, Scoreboard("word")
        self.stall = 0.0
        self._taking = False
        self._offer: int | None = None
        bench.agents.append(self)

    def drive(self) -> None:
        self._taking = not self.bench.chance(self.stall)
        self.bench.ports.put(take=int(self._taking))

    def sample(self) -> None:
        ports = self.bench.ports
        if not ports.get("valid"):
            assert self._offer is None, "the offer of a word was taken back"
            return
        word = ports.get("word")
        assert self._offer in (None, word), f"the offer of {self._offer:#x} became {word:#x}"
        self._offer = None if self._taking else word
        if self._taking:
            self.board.take(word)

    def forget(self) -> None:
        """The reader stops: offers end."""
        self._offer = None
        self.board.found = len(self.board.expected)


async def begin(bench: Bench, at: int, limit: int) -> None:
    """Let words under way arrive, then start."""
    bench.ports.put(run=0)
    await bench.step(memory_latency(bench.config) + 1)
    await bench.strobe(start=1, addr=at)
    bench.ports.put(run=1, limit=limit)


@cocotb.test()
async def words_come_in_order(dut: Any) -> None:
    """Idle and busy memory, quick and slow takers, starts in the middle of everything."""
    bench = await Bench.open(dut, "wordreader")
    rng, depth = bench.rng, bench.config.weight_depth
    memory = Memory(bench, "mem", [rng.getrandbits(16) for _ in range(depth)])
    taker = Taker(bench)
    for number in range(8 * bench.rounds):
        memory.stall, taker.stall = ((0.0, 0.0), (0.5, 0.2), (0.2, 0.8), (0.9, 0.0))[number % 4]
        at = rng.randrange(depth - 100)
        await begin(bench, at, depth)
        taker.board.expect(memory.words[at:at + 100])
        wanted = rng.randrange(20, 80)
        taken = await bench.until(lambda wanted=wanted: taker.board.found >= wanted, 3000,  # type: ignore[misc]
                                  f"{wanted} words of start {number}")
        if number % 4 == 0 and bench.config.interleave == 4:
            assert taken <= wanted + memory_latency(bench.config) + 2, f"{taken} cycles for {wanted} words"
        if number % 4 == 0:
            assert taken <= 2 * (wanted + memory_latency(bench.config)), f"{taken} cycles for {wanted} words"
        assert not bench.ports.get("overrun"), "an overrun is reported"
        # Ends with words taken or not; what is under way must not come after the next start.
        bench.ports.put(run=0)
        taker.stall = 1.0
        await bench.step()
        taker.forget()


@cocotb.test()
async def fetching_past_the_words_in_use_is_noticed(dut: Any) -> None:
    """Up to 33 words past the words in use nothing is said; from 65 on always."""
    bench = await Bench.open(dut, "wordreader")
    rng = bench.rng
    memory = Memory(bench, "mem")
    for number in range(12 * bench.rounds):
        limit = bench.config.weight_depth if number == 0 else rng.randrange(20, bench.config.weight_depth)
        bench.ports.put(take=0)
        await begin(bench, rng.randrange(max(0, limit - 100), limit), limit)
        memory.requests.clear()
        bench.ports.put(take=1)
        await bench.until(lambda: bool(bench.ports.get("overrun")), 600, f"overrun {number} after {limit} words")
        # One request may follow before it shows.
        past = len(memory.requests) + memory.requests[0] - limit
        assert (1 << SPAN_BITS) < past <= 2 * (1 << SPAN_BITS) + 2, f"{past} words past {limit}"
        bench.ports.put(run=0)
        await bench.step()
        await bench.step()
        assert not bench.ports.get("overrun"), "a stopped reader reports an overrun"
