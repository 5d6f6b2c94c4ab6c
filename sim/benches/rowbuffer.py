"""cocotb bench of :class:`shiftwright.hw.rowbuffer.RowBuffer`: rows in, passes over the map's blocks out."""

import dataclasses
from typing import Any

import cocotb

from ...hw.arch.image import Flag
from .agents import Bench, Scoreboard, layer_word

END = 255
"""The symbol that ends a row here."""


@dataclasses.dataclass
class Work:
    """Rows of symbols without their ends, over a map in pixels; a shared row is for ``rows`` rows."""

    rows: list[list[int]]
    out_h: int
    out_w: int
    shared: bool = False

    def written(self) -> list[int]:
        """What the decoder writes."""
        return [symbol for row in (self.rows[:1] if self.shared else self.rows) for symbol in [*row, END]]

    def read(self, lanes_y: int, lanes_x: int) -> list[tuple[int, int, int]]:
        """What is read: symbol, last_x, last."""
        found = []
        for row in self.rows:
            for y in range(0, self.out_h, lanes_y):
                for x in range(0, self.out_w, lanes_x):
                    across = x + lanes_x >= self.out_w
                    flags = int(across), int(across and y + lanes_y >= self.out_h)
                    found += [(symbol, *flags) for symbol in [*row, END]]
        return found


class Writer:
    """Offers symbols, with pauses; checks ``stop``."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.symbols: list[int] = []
        self.stall = 0.0
        self.written = 0
        self._offered = False
        bench.agents.append(self)

    def drive(self) -> None:
        self._offered = bool(self.symbols) and (self._offered or not self.bench.chance(self.stall))
        symbol = self.symbols[0] if self._offered else self.bench.rng.getrandbits(8)
        end = int(symbol == END) if self._offered else self.bench.rng.getrandbits(1)
        self.bench.ports.put(valid=int(self._offered), symbol=symbol, end=end)

    def sample(self) -> None:
        if self._offered and self.bench.ports.get("ready"):
            self.symbols.pop(0)
            self.written += 1
            self._offered = False
            stop = self.bench.ports.get("stop")
            assert stop == (not self.symbols), f"stop is {stop} with {len(self.symbols)} symbols to come"


class Reader:
    """Takes symbols at random."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.board = bench, Scoreboard("symbol")
        self.stall = 0.0
        self.listening = True
        self._next = False
        bench.agents.append(self)

    def drive(self) -> None:
        self._next = not self.bench.chance(self.stall)
        self.bench.ports.put(next=int(self._next))

    def sample(self) -> None:
        ports = self.bench.ports
        if self.listening and self._next and ports.get("read_valid"):
            self.board.take((ports.get("read_symbol"), ports.get("read_last_x"), ports.get("read_last")))


class BufferBench:
    """Starts layers."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.writer, self.reader = Writer(bench), Reader(bench)

    async def run(self, work: Work, *, stalls: tuple[float, float], limit: int | None = None) -> int:
        """A whole layer; returns its cycles. More than ``limit`` is an ``AssertionError``."""
        bench, config = self.bench, self.bench.config
        await self.begin(work, stalls=stalls)
        wanted = work.read(config.lanes_y, config.lanes_x)
        self.reader.board.what = f"{len(work.rows)} rows over {work.out_h} x {work.out_w}, shared {work.shared}: symbol"
        self.reader.board.expect(wanted)
        self.writer.symbols = work.written()
        taken = await bench.until(lambda: self.reader.board.complete, limit or 20 * len(wanted) + 100, f"{work}")
        for _ in range(5):
            await bench.step()
            assert not bench.ports.get("waiting") and not self.writer.symbols, f"{work}: something is left"
        return taken

    async def begin(self, work: Work, *, stalls: tuple[float, float]) -> None:
        """Forget what was there."""
        bench = self.bench
        self.writer.symbols = []
        self.reader.listening = False
        self.writer.stall, self.reader.stall = stalls
        bench.ports.put(layer=layer_word(tag_flags=Flag.SHARED_ROW * work.shared, out_h=work.out_h, out_w=work.out_w),
                        rows=len(work.rows))
        await bench.strobe(clear=1)
        await bench.strobe(start=1)
        self.reader.listening = True
        self.reader.board.found = len(self.reader.board.expected)
        await bench.step(2)


def random_work(bench: Bench) -> Work:
    """Rows from nothing to a full buffer, over a block or several."""
    rng, config = bench.rng, bench.config
    shared, single = rng.random() < 0.3, rng.random() < 0.4
    longest = rng.choice((0, 1, 3, 30, config.row_depth - 1))
    rows = [[rng.randrange(END) for _ in range(rng.randint(0, longest))] for _ in range(rng.randint(1, 6))]
    if longest == config.row_depth - 1:
        rows[rng.randrange(len(rows))] = [rng.randrange(END) for _ in range(longest)]
    if shared:
        rows = [rows[0]] * len(rows)
    if single:
        return Work(rows, rng.randint(1, config.lanes_y), rng.randint(1, config.lanes_x), shared)
    return Work(rows, rng.randint(1, 3 * config.lanes_y), rng.randint(1, 3 * config.lanes_x), shared)


@cocotb.test()
async def rows_are_replayed_for_every_block(dut: Any) -> None:
    """Random rows and maps, with all combinations of slow and quick sides; some layers are given up."""
    bench = await Bench.open(dut, "rowbuffer")
    unit = BufferBench(bench)
    for number in range(40 * bench.rounds):
        work = random_work(bench)
        stalls = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.8, 0.1))[number % 4]
        if number % 5 == 4:
            await unit.begin(work, stalls=stalls)
            unit.writer.symbols = work.written()
            unit.reader.board.expect(work.read(bench.config.lanes_y, bench.config.lanes_x))
            await bench.step(bench.rng.randrange(80))
        else:
            await unit.run(work, stalls=stalls)


@cocotb.test()
async def long_rows_pass_through(dut: Any) -> None:
    """Over one block rows may be longer than the buffer, and go through it at one symbol a cycle."""
    bench = await Bench.open(dut, "rowbuffer")
    unit, rng, config = BufferBench(bench), bench.rng, bench.config
    sizes = (2 * config.row_depth, 0, 1, 0, 0, 3, config.row_depth)
    rows = [[rng.randrange(END) for _ in range(size)] for size in sizes]
    symbols = sum(len(row) + 1 for row in rows)
    await unit.run(Work(rows, config.lanes_y, config.lanes_x), stalls=(0.0, 0.0), limit=symbols + 4)
    await unit.run(Work(rows, 1, 1), stalls=(0.1, 0.3))


@cocotb.test()
async def replays_leave_no_gaps(dut: Any) -> None:
    """A symbol is read in every cycle from the first to the last, over passes and rows of at least two symbols."""
    bench = await Bench.open(dut, "rowbuffer")
    unit, rng, config = BufferBench(bench), bench.rng, bench.config
    for down, across in ((1, 2), (2, 1), (3, 2)):
        rows = [[rng.randrange(END) for _ in range(size)] for size in (9, 12, 7, 3, 1, 1, 2, 5, 30)]
        work = Work(rows, down * config.lanes_y, across * config.lanes_x)
        symbols = len(work.read(config.lanes_y, config.lanes_x))
        # The last row takes longer to write than the row before it takes to read.
        await unit.run(work, stalls=(0.0, 0.0), limit=symbols + 4 + 31)
        await unit.run(Work([rows[0]] * 4, down * config.lanes_y, across * config.lanes_x, shared=True),
                       stalls=(0.0, 0.0), limit=4 * 10 * down * across + 4)


@cocotb.test()
async def the_writer_is_at_most_a_row_ahead(dut: Any) -> None:
    """While a row is replayed, the next row's end is not taken; what is full takes nothing."""
    bench = await Bench.open(dut, "rowbuffer")
    unit, config = BufferBench(bench), bench.config
    work = Work([[1] * 5, [2] * 5, [3] * 5], config.lanes_y + 1, 1)
    await unit.begin(work, stalls=(0.0, 1.0))
    unit.writer.symbols, unit.writer.written = work.written(), 0
    await bench.step(40)
    assert unit.writer.written == 11, f"{unit.writer.written} symbols were taken: a row of 6, and 5 without their end"
    long = Work([[1] * (2 * config.row_depth)], 1, 1)
    await unit.begin(long, stalls=(0.0, 1.0))
    unit.writer.symbols, unit.writer.written = long.written(), 0
    await bench.step(config.row_depth + 20)
    assert unit.writer.written == config.row_depth, f"{config.row_depth} places took {unit.writer.written} symbols"
