"""cocotb bench of :class:`shiftwright.hw.decoder.Decoder`: rows, replays, stalls, errors against a symbol list."""

import dataclasses
from typing import Any

import cocotb

from .agents import Bench, Memory, Scoreboard
from .codes import SHAPES, PrefixCode, random_code, words_of

PATIENCE = 400
"""Cycles within which a decoder with work and without errors makes progress, however its memory and consumer stall."""


@dataclasses.dataclass
class Work:
    """A layer's rows: symbols without the end of row, and the map they are replayed over."""

    code: PrefixCode
    eor: int
    rows: list[list[int]]
    out_h: int
    out_w: int
    shared: bool = False

    @property
    def stream(self) -> list[str]:
        """The layer's codewords, each row once."""
        words = self.code.codewords
        return [words[symbol] for row in (self.rows[:1] if self.shared else self.rows) for symbol in [*row, self.eor]]

    def symbols(self, blocks: int) -> list[tuple[int, int]]:
        """What the decoder gives: (symbol, whether it ends the row in the last block)."""
        found = []
        for row in self.rows:
            for block in range(blocks):
                found += [(symbol, 0) for symbol in row] + [(self.eor, int(block == blocks - 1))]
        return found


class Consumer:
    """Takes symbols at random and checks that an offer is kept until it is taken."""

    def __init__(self, bench: Bench, board: Scoreboard) -> None:
        self.bench, self.board = bench, board
        self.stall = 0.0
        self.open = True
        self._ready = False
        self._offer: tuple[int, int] | None = None
        bench.agents.append(self)

    def drive(self) -> None:
        self._ready = self.open and not self.bench.chance(self.stall)
        self.bench.ports.put(ready=int(self._ready))

    def sample(self) -> None:
        ports = self.bench.ports
        if not ports.get("valid"):
            assert self._offer is None or not self.open, f"the offer of {self._offer} was taken back"
            return
        item = ports.get("symbol"), ports.get("row_last")
        assert self._offer in (None, item), f"the offer of {self._offer} became {item}"
        self._offer = None if self._ready else item
        if self._ready:
            self.board.take(item)

    def forget(self) -> None:
        """An offer may vanish now: the decoder is cleared."""
        self._offer = None


class DecoderBench:
    """Loads tables and streams, and starts layers."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ports, self.rng = bench, bench.ports, bench.rng
        self.board = Scoreboard("symbol")
        self.a, self.b = (Memory(bench, name) for name in ("mem_a", "mem_b"))
        self.consumer = Consumer(bench, self.board)

    def blocks(self, work: Work) -> int:
        config = self.bench.config
        return -(-work.out_h // config.lanes_y) * -(-work.out_w // config.lanes_x)

    async def begin(self, work: Work, *, stalls: tuple[float, float], cut: int = 0, rows: int | None = None) -> None:
        """Clear, load the code and start; ``cut`` words of each stream are missing."""
        ports, rng = self.ports, self.rng
        self.consumer.forget()
        await self.bench.strobe(clear=1)
        ports.put(eor=work.eor)
        await self.bench.strobe(table_start=1)
        for count in work.code.counts:
            await self.bench.strobe(count_valid=1, count=count)
            await self.bench.step(rng.randrange(2))
        streams = [words_of(work.stream[n::2]) for n in range(2)]
        at = rng.randrange(64)
        starts, ends = [], []
        for memory, stream in zip((self.a, self.b), streams, strict=True):
            # Behind the stream lies something else.
            memory.words = [rng.getrandbits(16) for _ in range(at)] + stream + [rng.getrandbits(16) for _ in range(64)]
            starts.append(at)
            at += max(0, len(stream) - cut)
            ends.append(at)
            memory.stall = stalls[0]
        self.consumer.stall = stalls[1]
        ports.put(rows=len(work.rows) if rows is None else rows, out_h=work.out_h, out_w=work.out_w,
                  shared_row=int(work.shared), addr_a=starts[0], addr_b=starts[1], end_a=ends[0], end_b=ends[1])
        await self.bench.strobe(start=1)

    async def finish(self, what: str) -> int:
        """Run until all expected symbols have come; returns the cycles."""
        begin = self.bench.cycle
        while not self.board.complete:
            before = self.board.found
            await self.bench.until(lambda before=before: self.board.found > before, PATIENCE,  # type: ignore[misc]
                                   f"{what}: symbol {before} of {len(self.board.expected)}")
        taken = self.bench.cycle - begin
        await self.bench.step(12)
        assert not self.ports.get("bad_codeword") and not self.ports.get("overrun"), f"{what}: an error is reported"
        return taken

    def random_work(self, shape: str) -> Work:
        rng, config = self.rng, self.bench.config
        code = random_code(rng, config.max_code_bits, shape)
        eor = rng.choice((0, code.symbols - 1, rng.randrange(code.symbols)))
        others = [symbol for symbol in range(code.symbols) if symbol != eor]
        longest = rng.choice((0, 1, 3, 30)) if others else 0
        rows = [[rng.choice(others) for _ in range(rng.randint(0, longest))] for _ in range(rng.randint(1, 8))]
        shared = rng.random() < 0.25
        if shared:
            rows = [rows[0]] * len(rows)
        return Work(code, eor, rows, rng.randint(1, 3 * config.lanes_y), rng.randint(1, 3 * config.lanes_x), shared)


@cocotb.test()
async def rows_are_replayed_for_every_block(dut: Any) -> None:
    """All shapes of codes, idle and stalling memory and consumer, one layer after another; some are given up."""
    bench = await Bench.open(dut, "decoder")
    unit = DecoderBench(bench)
    for number, shape in enumerate(SHAPES * 3 * bench.rounds):
        work = unit.random_work(shape)
        await unit.begin(work, stalls=((0.0, 0.0), (0.6, 0.1), (0.1, 0.6))[number % 3])
        unit.board.expect(work.symbols(unit.blocks(work)))
        if number % 5 == 4:
            # A layer given up in its middle must not disturb the next one.
            await bench.step(bench.rng.randrange(40))
            unit.board.found = len(unit.board.expected)
            unit.consumer.open = False
            await bench.strobe(clear=1)
            await bench.step(2)
            assert not bench.ports.get("valid"), "symbols after clear"
            unit.consumer.open = True
            continue
        await unit.finish(f"layer {number} ({shape})")
        assert bench.ports.get("row") == len(work.rows), f"layer {number}: rows done"


@cocotb.test()
async def empty_rows_over_few_blocks(dut: Any) -> None:
    """Rows of nothing but their end, over maps of one to four blocks each way: block counting at its fastest."""
    bench = await Bench.open(dut, "decoder")
    unit = DecoderBench(bench)
    config = bench.config
    for down, across in ((1, 1), (1, 2), (2, 1), (1, 3), (2, 2), (4, 1)):
        for shape in ("single", "pair"):
            code = random_code(bench.rng, config.max_code_bits, shape)
            work = Work(code, code.symbols - 1, [[] for _ in range(9)], down * config.lanes_y, across * config.lanes_x)
            await unit.begin(work, stalls=(0.0, 0.0))
            unit.board.expect(work.symbols(down * across))
            await unit.finish(f"{down} x {across} blocks")


@cocotb.test()
async def one_codeword_a_cycle(dut: Any) -> None:
    """Without stalls, codewords of up to four bits come one a cycle, and a return costs at most five."""
    bench = await Bench.open(dut, "decoder")
    unit = DecoderBench(bench)
    code = PrefixCode((1, 1, 1, 2, *[0] * (bench.config.max_code_bits - 4)))
    work = Work(code, 4, [[bench.rng.randrange(4) for _ in range(400)]], 1, 2 * bench.config.lanes_x)
    await unit.begin(work, stalls=(0.0, 0.0))
    unit.board.expect(work.symbols(2))
    taken = await unit.finish("a long row")
    assert taken <= 2 * 401 + 5 + 20, f"{taken} cycles for 802 codewords and one return"


@cocotb.test()
async def unused_codes_are_errors(dut: Any) -> None:
    """What precedes the bad bits comes out, nothing after them, and the error is held until ``clear``."""
    bench = await Bench.open(dut, "decoder")
    unit = DecoderBench(bench)
    ports, rng = bench.ports, bench.rng
    for number in range(8 * bench.rounds):
        code = random_code(rng, bench.config.max_code_bits, "incomplete")
        assert code.gap is not None
        before = [rng.randrange(code.symbols - 1) for _ in range(rng.choice((0, 1, 2, rng.randrange(40))))]
        work = Work(code, code.symbols - 1, [before], 1, 1)
        bad = [*work.stream[:-1], code.gap, *(code.codewords[rng.randrange(code.symbols)] for _ in range(20))]
        broken = _Broken(work, bad)
        await unit.begin(broken, stalls=(0.3, 0.3))
        unit.board.expect([(symbol, 0) for symbol in before])
        await bench.until(lambda: bool(ports.get("bad_codeword")), PATIENCE * (len(before) + 4),
                          f"the error of case {number}")
        await bench.until(lambda: unit.board.complete, PATIENCE, "the symbols before the error")
        await bench.step(20)
        assert ports.get("bad_codeword") and not ports.get("overrun")
        await bench.strobe(clear=1)
        await bench.step()
        assert not ports.get("bad_codeword"), "clear takes the error back"


class _Broken(Work):
    """Work whose stream is not what its rows say."""

    def __init__(self, work: Work, stream: list[str]) -> None:
        super().__init__(work.code, work.eor, work.rows, work.out_h, work.out_w, work.shared)
        self._stream = stream

    @property
    def stream(self) -> list[str]:
        return self._stream


@cocotb.test()
async def reading_past_the_end_is_an_error(dut: Any) -> None:
    """Streams of too few rows, or cut short, end in ``overrun`` a few words later, whatever lies behind them."""
    bench = await Bench.open(dut, "decoder")
    unit = DecoderBench(bench)
    for number in range(6 * bench.rounds):
        code = random_code(bench.rng, bench.config.max_code_bits, ("pair", "staircase", "random")[number % 3])
        work = Work(code, code.symbols - 1, [[0] * bench.rng.randrange(60) for _ in range(3)], 1, 1)
        await unit.begin(work, stalls=(0.3, 0.0), cut=number % 2 * 2, rows=60000)
        # What the words behind the stream decode to is not specified; only that it ends.
        bench.agents.remove(unit.consumer)
        bench.ports.put(ready=1)
        await bench.until(lambda: bool(bench.ports.get("overrun")), 4000, f"the overrun of case {number}")
        await bench.strobe(clear=1)
        await bench.step()
        assert not bench.ports.get("overrun"), "clear takes the error back"
        bench.agents.append(unit.consumer)
