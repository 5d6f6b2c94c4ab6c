"""cocotb bench of :class:`shiftwright.hw.expander.Expander`: symbols to micro-operations, against the dictionary."""

from typing import Any

import cocotb

from ...hw.arch.config import DICT_HEADS
from ...hw.arch.image import MAX_POST, MAX_PRE, MAX_SHIFT_FIELD, MicroOp, OpKind
from .agents import Bench, Scoreboard


class Source:
    """Offers symbols, with pauses."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.symbols: list[tuple[int, int]] = []
        self.stall = 0.0
        self._offered = False
        bench.agents.append(self)

    def drive(self) -> None:
        # Once offered, a symbol stays.
        self._offered = bool(self.symbols) and (self._offered or not self.bench.chance(self.stall))
        rng = self.bench.rng
        symbol, last = self.symbols[0] if self._offered else (rng.getrandbits(8), rng.getrandbits(1))
        self.bench.ports.put(valid=int(self._offered), symbol=symbol, row_last=last)

    def sample(self) -> None:
        if self._offered and self.bench.ports.get("ready"):
            self.symbols.pop(0)
            self._offered = False


class Sink:
    """Checks operations; allows ends of row at random, and sees that none is issued without leave."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.board = Scoreboard("operation")
        self.stall = 0.0
        self._allowed = False
        self._issued = False
        bench.agents.append(self)

    def drive(self) -> None:
        self._allowed = not self.bench.chance(self.stall)
        self.bench.ports.put(eor_ready=int(self._allowed))

    def sample(self) -> None:
        ports = self.bench.ports
        is_end = False
        if ports.get("op_valid"):
            word = ports.get("op")
            is_end = word & 3 == OpKind.EOR
            self.board.take((word, ports.get("op_row_last") if is_end else None))
        assert is_end == self._issued, "an end of row follows eor_issue by one cycle, and nothing else does"
        self._issued = bool(ports.get("eor_issue"))
        assert self._allowed or not self._issued, "an end of row was issued without leave"


def random_dictionary(bench: Bench, entries: int, longest: int) -> list[list[int]]:
    """Entries as words; the operations after each first one fill at most the RAM's second half."""
    rng, left = bench.rng, bench.config.dict_depth - DICT_HEADS
    dictionary = []
    for _ in range(entries):
        size = min(rng.randint(1, longest), 1 + left)
        left -= size - 1
        kinds = [*(rng.choice((OpKind.ADD, OpKind.SUB, OpKind.SKIP)) for _ in range(size - 1)),
                 rng.choice(list(OpKind))]
        dictionary.append([MicroOp(kind=kind, last=n == size - 1, shift=rng.randint(0, MAX_SHIFT_FIELD),
                                   pre=rng.randint(0, MAX_PRE), post=rng.randint(0, MAX_POST)).pack()
                           for n, kind in enumerate(kinds)])
    return dictionary


async def load(bench: Bench, dictionary: list[list[int]]) -> None:
    """Write the dictionary as the sequencer does."""
    await bench.strobe(clear=1)
    await bench.strobe(load_start=1)
    for entry in dictionary:
        for word in entry:
            await bench.strobe(load_valid=1, load=word)
            await bench.step(bench.rng.randrange(2))


def operations(dictionary: list[list[int]], symbols: list[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """What the symbols expand to; only ends of row carry the mark of the last block."""
    return [(word, last if word & 3 == OpKind.EOR else None) for symbol, last in symbols for word in dictionary[symbol]]


@cocotb.test()
async def symbols_become_their_operations(dut: Any) -> None:
    """Dictionaries of 1 to 256 entries, of single operations, a few or as many as there is room for."""
    bench = await Bench.open(dut, "expander")
    source, sink = Source(bench), Sink(bench)
    sizes = ((256, 1), (1, 1), (2, 40), (256, 2), (30, 10), (1, 257))
    for number, (entries, longest) in enumerate(sizes * bench.rounds):
        dictionary = random_dictionary(bench, entries, longest)
        await load(bench, dictionary)
        # Every entry, then random ones.
        symbols = [(symbol, bench.rng.getrandbits(1)) for symbol in
                   [*range(entries), *(bench.rng.randrange(entries) for _ in range(60))]]
        source.stall, sink.stall = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.4, 0.4))[number % 4]
        source.symbols, wanted = list(symbols), operations(dictionary, symbols)
        sink.board.expect(wanted)
        limit = 12 * len(wanted) + 6 * len(symbols) + 50
        taken = await bench.until(lambda: sink.board.complete, limit, f"dictionary {number}")
        if source.stall == sink.stall == 0:
            assert taken <= len(wanted) + 4, f"{taken} cycles for {len(wanted)} operations: one a cycle is promised"
        await bench.step(8)


@cocotb.test()
async def clear_forgets_everything(dut: Any) -> None:
    """A clear in the middle of an entry leaves nothing behind for the next layer."""
    bench = await Bench.open(dut, "expander")
    source, sink = Source(bench), Sink(bench)
    for _ in range(6 * bench.rounds):
        first, second = (random_dictionary(bench, 20, 8) for _ in range(2))
        await load(bench, first)
        sink.stall = bench.rng.choice((0.0, 1.0))
        symbols = [(bench.rng.randrange(20), 1) for _ in range(40)]
        source.symbols = list(symbols)
        sink.board.expect(operations(first, symbols))
        await bench.step(bench.rng.randrange(30))
        source.symbols = []
        await bench.step()
        bench.ports.put(clear=1)
        await bench.step()
        bench.ports.put(clear=0)
        sink.board.found = len(sink.board.expected)
        sink.stall = 0.0
        await bench.step(6)
        await load(bench, second)
        symbols = [(bench.rng.randrange(20), 0) for _ in range(20)]
        source.symbols = list(symbols)
        sink.board.expect(operations(second, symbols))
        await bench.until(lambda: sink.board.complete, 500, "the dictionary after clear")
