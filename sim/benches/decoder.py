"""cocotb bench of :class:`shiftwright.hw.decoder.Decoder`: codewords, stalls, stops, errors."""

from collections.abc import Sequence
from typing import Any

import cocotb

from ...hw.arch.timing import memory_latency
from .agents import Bench, Memory, Scoreboard
from .codes import SHAPES, PrefixCode, dealt_words, random_code

PATIENCE = 400
"""Cycles within which a decoder with work and without errors makes progress, however its memory and consumer stall."""
ROUGH_BITS = 10.0
"""Bits a codeword, on average, at which memory that never stalls keeps any decoder going."""


class Consumer:
    """Takes symbols at random, stops the decoder at the last, and checks that an offer is kept until it is taken."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.board = bench, Scoreboard("symbol")
        self.stall = 0.0
        self.last = True
        self._ready = False
        self._offer: tuple[int, int] | None = None
        bench.agents.append(self)

    def drive(self) -> None:
        self._ready = not self.bench.chance(self.stall)
        ending = self.last and self.board.found == len(self.board.expected) - 1
        self.bench.ports.put(ready=int(self._ready), stop=int(ending))

    def sample(self) -> None:
        ports = self.bench.ports
        if not ports.get("valid"):
            return
        item = ports.get("symbol"), ports.get("end")
        assert self._offer in (None, item), f"the offer of {self._offer} became {item}"
        self._offer = None if self._ready else item
        if self._ready:
            self.board.take(item)

    def forget(self) -> None:
        """The decoder is cleared: what it has not given it never will."""
        self._offer = None
        self.board.found = len(self.board.expected)


class DecoderBench:
    """Loads tables and streams, and starts the decoder."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ports, self.rng = bench, bench.ports, bench.rng
        self.consumer = Consumer(bench)
        self.memory = Memory(bench, "mem")

    async def begin(self, code: PrefixCode, codewords: Sequence[str], *, eor: int = 0,
                    stalls: tuple[float, float] = (0.0, 0.0)) -> None:
        """Clear, load the code and start; behind the stream lies something else."""
        ports, rng = self.ports, self.rng
        await self.bench.strobe(clear=1)
        self.consumer.forget()
        ports.put(eor=eor)
        await self.bench.strobe(load_begin=1)
        for count in code.counts:
            await self.bench.strobe(load_codes=1, load=count)
            await self.bench.step(rng.randrange(2))
        await self.bench.step(memory_latency(self.bench.config))
        at = rng.randrange(64)
        words = dealt_words(codewords, self.bench.config.interleave)
        self.memory.words = [rng.getrandbits(16) for _ in range(at)] + words + [rng.getrandbits(16) for _ in range(80)]
        self.memory.stall, self.consumer.stall = stalls
        await self.bench.strobe(start=1, addr=at)
        ports.put(limit=at + len(words))

    async def finish(self, what: str) -> int:
        """Run until all expected symbols have come; returns the cycles."""
        begin, board = self.bench.cycle, self.consumer.board
        while not board.complete:
            before = board.found
            await self.bench.until(lambda before=before: board.found > before, PATIENCE,  # type: ignore[misc]
                                   f"{what}: symbol {before} of {len(board.expected)}")
        return self.bench.cycle - begin


@cocotb.test()
async def codewords_become_symbols(dut: Any) -> None:
    """All shapes of codes, idle and stalling memory and consumer, one stream after another; some are given up."""
    bench = await Bench.open(dut, "decoder")
    unit, rng = DecoderBench(bench), bench.rng
    for number, shape in enumerate(SHAPES * 4 * bench.rounds):
        code = random_code(rng, bench.config.max_code_bits, shape)
        eor = rng.randrange(code.symbols)
        symbols = [rng.randrange(code.symbols) for _ in range(rng.choice((1, 2, 3, 5, 20, 200)))]
        await unit.begin(code, [code.codewords[symbol] for symbol in symbols], eor=eor,
                         stalls=((0.0, 0.0), (0.6, 0.1), (0.1, 0.6))[number % 3])
        unit.consumer.board.expect([(symbol, int(symbol == eor)) for symbol in symbols])
        if number % 5 == 4:
            await bench.step(rng.randrange(40))
            continue
        await unit.finish(f"stream {number} ({shape})")
        for _ in range(12):
            await bench.step()
            assert not bench.ports.get("running") and not bench.ports.get("bad_codeword"), f"stream {number} goes on"
            assert not bench.ports.get("overrun"), f"stream {number}: an overrun is reported"


@cocotb.test()
async def one_codeword_a_cycle(dut: Any) -> None:
    """Without stalls, whatever the lengths; with four words of FIFO only, up to a mean length."""
    bench = await Bench.open(dut, "decoder")
    unit, rng, contexts = DecoderBench(bench), bench.rng, bench.config.interleave
    for shape in SHAPES:
        code = random_code(rng, bench.config.max_code_bits, shape)
        symbols = rng.choices(range(code.symbols), k=500)
        codewords = [code.codewords[symbol] for symbol in symbols]
        mean = sum(map(len, codewords)) / len(codewords)
        await unit.begin(code, codewords, eor=symbols[0])
        unit.consumer.board.expect([(symbol, int(symbol == symbols[0])) for symbol in symbols])
        taken = await unit.finish(shape)
        if contexts == 4 or mean < ROUGH_BITS:
            # Four words run out when long codewords come together.
            most = len(symbols) * (1 if contexts == 4 else 1.06) + contexts * (contexts + 1) + 8
            most += 2 * memory_latency(bench.config)
            assert taken <= most, f"{taken} cycles for {len(symbols)} of {mean:.1f} bits"


@cocotb.test()
async def unused_codes_are_errors(dut: Any) -> None:
    """What precedes the bad bits comes out, nothing after them, and the error is held until ``clear``."""
    bench = await Bench.open(dut, "decoder")
    unit, ports, rng = DecoderBench(bench), bench.ports, bench.rng
    unit.consumer.last = False
    for number in range(8 * bench.rounds):
        code = random_code(rng, bench.config.max_code_bits, "incomplete")
        assert code.gap is not None
        symbols = [rng.randrange(code.symbols) for _ in range(rng.choice((0, 1, 2, rng.randrange(40))))]
        texts = code.codewords
        await unit.begin(code, [*(texts[symbol] for symbol in symbols), code.gap,
                                *(rng.choice(texts) for _ in range(20))], stalls=(0.3, 0.3))
        unit.consumer.board.expect([(symbol, int(symbol == 0)) for symbol in symbols])
        await bench.until(lambda: bool(ports.get("bad_codeword")), PATIENCE * (len(symbols) + 4), f"error {number}")
        assert unit.consumer.board.complete, f"case {number}: symbols before the error are missing"
        await bench.step(20)
        assert ports.get("bad_codeword") and not ports.get("overrun") and not ports.get("running")
        await bench.strobe(clear=1)
        assert not ports.get("bad_codeword"), "clear takes the error back"


@cocotb.test()
async def reading_past_the_words_in_use_is_an_error(dut: Any) -> None:
    """A decoder that nobody stops ends in ``overrun``, or finds bits that are no codeword."""
    bench = await Bench.open(dut, "decoder")
    unit, rng = DecoderBench(bench), bench.rng
    bench.agents.remove(unit.consumer)
    bench.ports.put(ready=1)
    for number in range(6 * bench.rounds):
        code = random_code(rng, bench.config.max_code_bits, ("pair", "staircase", "random")[number % 3])
        await unit.begin(code, [rng.choice(code.codewords) for _ in range(rng.randrange(60))], stalls=(0.3, 0.0))
        bench.ports.put(ready=1)
        await bench.until(lambda: bool(bench.ports.get("overrun")), 4000, f"overrun {number}")
        assert not bench.ports.get("running")
        await bench.strobe(clear=1)
        assert not bench.ports.get("overrun"), "clear takes the error back"
