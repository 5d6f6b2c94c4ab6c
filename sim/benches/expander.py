"""cocotb bench of :class:`shiftwright.hw.expander.Expander`: symbols to micro-operations, against the dictionary."""

from typing import Any

import cocotb

from ...hw.arch.image import (
    ENTRY_OPS_MAX,
    MAX_POST,
    MAX_PRE,
    MAX_SHIFT_FIELD,
    RECTIFY_SHIFT,
    MicroOp,
    OpKind,
)
from .agents import Bench, Scoreboard

SHIFT_AT, RECTIFY_AT = 3, 16
Symbol = tuple[int, int, int]
"""Symbol, last_x, last."""


class Source:
    """Offers symbols, with pauses."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.symbols: list[Symbol] = []
        self.stall = 0.0
        self._offered = False
        bench.agents.append(self)

    def drive(self) -> None:
        # Once offered, a symbol stays.
        self._offered = bool(self.symbols) and (self._offered or not self.bench.chance(self.stall))
        rng = self.bench.rng
        symbol, last_x, last = self.symbols[0] if self._offered else (
            rng.getrandbits(8), rng.getrandbits(1), rng.getrandbits(1))
        self.bench.ports.put(valid=int(self._offered), symbol=symbol, last_x=last_x, last=last)

    def sample(self) -> None:
        if self._offered and self.bench.ports.get("next"):
            self.symbols.pop(0)
            self._offered = False


class Sink:
    """Takes operations, to be checked, and allows ends of row at random."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.board = Scoreboard("operation")
        self.stall = 0.0
        self.allowed = False
        bench.agents.append(self)

    def drive(self) -> None:
        self.allowed = not self.bench.chance(self.stall)
        self.bench.ports.put(eor_ready=int(self.allowed))

    def sample(self) -> None:
        """Sees that no end of row is issued without leave."""
        ports = self.bench.ports
        stalled = ports.get("stalled")
        assert not (stalled and self.allowed), "stalled, although an end of row may be issued"
        if ports.get("op_valid"):
            word = ports.get("op")
            self.board.take((word, ports.get("op_last_x"), ports.get("op_last")))
            assert self.allowed or word & 3 != OpKind.EOR, "an end of row was issued without leave"
            assert not stalled, "stalled, although an operation is issued"


def random_dictionary(bench: Bench, entries: int, longest: int) -> list[list[int]]:
    """Entries as words, at most as many as there is room for."""
    rng, left = bench.rng, bench.config.dict_depth
    dictionary = []
    for n in range(entries):
        # Each entry to come needs a word.
        size = max(1, min(rng.randint(1, longest), left - (entries - n - 1)))
        left -= size
        kinds = [*(rng.choice((OpKind.ADD, OpKind.SUB, OpKind.SKIP)) for _ in range(size - 1)),
                 rng.choice(list(OpKind))]
        dictionary.append([MicroOp(kind=kind, last=n == size - 1, pre=rng.randint(0, MAX_PRE),
                                   shift=rng.choice((RECTIFY_SHIFT, rng.randint(0, MAX_SHIFT_FIELD))),
                                   post=rng.randint(0, MAX_POST)).pack() for n, kind in enumerate(kinds)])
    return dictionary


async def load(bench: Bench, dictionary: list[list[int]]) -> None:
    """Write the dictionary as the sequencer does."""
    await bench.strobe(clear=1)
    await bench.strobe(load_begin=1)
    for entry in dictionary:
        for word in entry:
            await bench.strobe(load_dictionary=1, load=word)
            await bench.step(bench.rng.randrange(2))


def operations(dictionary: list[list[int]], symbols: list[Symbol]) -> list[tuple[int, int, int]]:
    """What the symbols expand to: operation, last_x, last."""
    def found(word: int) -> int:
        rectify = word & 3 == OpKind.SKIP and word >> SHIFT_AT & 15 == RECTIFY_SHIFT
        return word | rectify << RECTIFY_AT

    return [(found(word), last_x, last) for symbol, last_x, last in symbols for word in dictionary[symbol]]


def random_symbols(bench: Bench, entries: int, count: int) -> list[Symbol]:
    """Every entry, then random ones."""
    rng = bench.rng
    numbers = [*range(entries), *(rng.randrange(entries) for _ in range(count))]
    return [(number, rng.getrandbits(1), rng.getrandbits(1)) for number in numbers]


@cocotb.test()
async def symbols_become_their_operations(dut: Any) -> None:
    """Dictionaries of 1 to 256 entries, of single operations, a few or as many as there may be."""
    bench = await Bench.open(dut, "expander")
    source, sink = Source(bench), Sink(bench)
    sizes = ((256, 1), (1, 1), (2, 40), (256, 2), (30, 10), (3, ENTRY_OPS_MAX), (4, ENTRY_OPS_MAX))
    for number, (entries, longest) in enumerate(sizes * bench.rounds):
        dictionary = random_dictionary(bench, entries, longest)
        await load(bench, dictionary)
        symbols = random_symbols(bench, entries, 60)
        source.stall, sink.stall = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.7), (0.4, 0.4))[number % 4]
        source.symbols, wanted = list(symbols), operations(dictionary, symbols)
        sink.board.expect(wanted)
        limit = 12 * len(wanted) + 6 * len(symbols) + 50
        taken = await bench.until(lambda: sink.board.complete, limit, f"dictionary {number}")
        if source.stall == sink.stall == 0:
            assert taken <= len(wanted) + 5, f"{taken} cycles for {len(wanted)} operations: one a cycle is promised"
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
        symbols = random_symbols(bench, 20, 20)
        source.symbols = list(symbols)
        sink.board.expect(operations(first, symbols))
        await bench.step(bench.rng.randrange(30))
        source.symbols = []
        await bench.step()
        await bench.strobe(clear=1)
        sink.board.found = len(sink.board.expected)
        sink.stall = 0.0
        await bench.step(6)
        await load(bench, second)
        symbols = random_symbols(bench, 20, 0)
        source.symbols = list(symbols)
        sink.board.expect(operations(second, symbols))
        await bench.until(lambda: sink.board.complete, 500, "the dictionary after clear")
