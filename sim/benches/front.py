"""cocotb bench of :class:`shiftwright.hw.front.Front`: a stream's words to the micro-operations of its rows."""

import dataclasses
from typing import Any

import cocotb

from ...hw.arch.image import Flag, OpKind
from ...hw.arch.timing import memory_latency
from .agents import Bench, Memory, layer_word
from .codes import PrefixCode, dealt_words, random_code
from .expander import Sink, operations, random_dictionary


@dataclasses.dataclass
class Work:
    """A layer of one stream: rows of symbols with their ends, over a map in blocks."""

    code: PrefixCode
    dictionary: list[list[int]]
    eor: int
    rows: list[list[int]]
    down: int
    across: int
    shared: bool

    def symbols(self) -> list[tuple[int, int, int]]:
        """Symbols in the order in which they are expanded: symbol, last_x, last."""
        return [(symbol, int(x == self.across - 1), int(x == self.across - 1 and y == self.down - 1))
                for row in self.rows for y in range(self.down) for x in range(self.across) for symbol in row]


class FrontSink(Sink):
    """Checks the counters' strobes, too."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.counts = dict.fromkeys(("issue_term", "starved", "stalled"), 0)

    def sample(self) -> None:
        ports = self.bench.ports
        strobes = {name: ports.get(name) for name in self.counts}
        for name, strobe in strobes.items():
            self.counts[name] += strobe
        issued = ports.get("op_valid")
        assert issued + strobes["starved"] + strobes["stalled"] <= 1, f"issued: {issued}, {strobes}"
        is_end = 0
        if issued:
            word, last = ports.get("op"), ports.get("op_last")
            is_end = int(word & 3 == OpKind.EOR)
            self.board.take((word, ports.get("op_last_x"), last))
            assert strobes["issue_term"] == int(not word & 2), f"operation {word:#x}: {strobes}"
            assert not is_end or (self.allowed and ports.get("eor_last") == last)
        assert ports.get("eor_issue") == is_end, f"an end of row is issued: {is_end}"


def random_work(bench: Bench, *, plain: bool = False) -> Work:
    """A layer; a plain one has an operation for each symbol and a map of one block."""
    rng, config = bench.rng, bench.config
    code = random_code(rng, config.max_code_bits, rng.choice(("pair", "flat", "random", "random", "incomplete")))
    dictionary = random_dictionary(bench, code.symbols, 1 if plain else rng.choice((1, 3)))
    eor = rng.randrange(code.symbols)
    # Ends of row only where a row ends: here by its own symbol.
    for number, entry in enumerate(dictionary):
        entry[-1] = entry[-1] | OpKind.EOR if number == eor else entry[-1] & ~3 | rng.randrange(3)
    others = [symbol for symbol in range(code.symbols) if symbol != eor]
    longest = rng.choice((0, 2, 10, config.row_depth - 1))
    rows = [[*rng.choices(others, k=rng.randint(0, longest)), eor] for _ in range(rng.randint(1, 8))]
    shared = not plain and rng.random() < 0.3
    down, across = (1, 1) if plain else (rng.randint(1, 3), rng.randint(1, 3))
    return Work(code, dictionary, eor, [rows[0]] * len(rows) if shared else rows, down, across, shared)


class FrontBench:
    """Loads and runs layers."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.sink, self.memory = bench, FrontSink(bench), Memory(bench, "mem")

    async def begin(self, work: Work, *, stalls: tuple[float, float], rows: int | None = None) -> None:
        """Clear, load the tables and start."""
        bench, rng, config = self.bench, self.bench.rng, self.bench.config
        await bench.strobe(clear=1)
        self.sink.board.found = len(self.sink.board.expected)
        await bench.strobe(load_begin=1)
        bench.ports.put(layer=layer_word(
            eor=work.eor, tag_flags=Flag.SHARED_ROW * work.shared,
            out_h=config.lanes_y * work.down - rng.randrange(config.lanes_y),
            out_w=config.lanes_x * work.across - rng.randrange(config.lanes_x)))
        for count in work.code.counts:
            await bench.strobe(load_codes=1, load=count)
        for entry in work.dictionary:
            for word in entry:
                await bench.strobe(load_dictionary=1, load=word)
        texts = work.code.codewords
        words = dealt_words([texts[symbol] for row in (work.rows[:1] if work.shared else work.rows) for symbol in row],
                            config.interleave)
        at = rng.randrange(64)
        self.memory.words = [rng.getrandbits(16) for _ in range(at)] + words + [rng.getrandbits(16) for _ in range(80)]
        self.memory.stall, self.sink.stall = stalls
        await bench.step(memory_latency(bench.config))
        self.sink.counts = dict.fromkeys(self.sink.counts, 0)
        await bench.strobe(start=1, addr=at, limit=at + len(words), rows=len(work.rows) if rows is None else rows)
        bench.ports.put(limit=at + len(words), rows=len(work.rows) if rows is None else rows)


@cocotb.test()
async def words_become_operations(dut: Any) -> None:
    """Random layers with idle and busy memory and drain; some are given up, some have no rows for this stream."""
    bench = await Bench.open(dut, "front")
    unit = FrontBench(bench)
    for number in range(25 * bench.rounds):
        work = random_work(bench)
        wanted = operations(work.dictionary, work.symbols())
        idle = number % 8 == 7
        await unit.begin(work, stalls=((0.0, 0.0), (0.6, 0.1), (0.1, 0.8))[number % 3], rows=0 if idle else None)
        unit.sink.board.expect([] if idle else wanted)
        if number % 5 == 4:
            await bench.step(bench.rng.randrange(60))
            continue
        await bench.until(lambda: unit.sink.board.complete, 30 * len(wanted) + 200, f"layer {number}")
        before = dict(unit.sink.counts)
        await bench.step(20)
        assert not bench.ports.get("bad_codeword") and not bench.ports.get("overrun"), f"layer {number}: an error"
        assert unit.sink.counts == before, f"layer {number}: counters go on from {before} to {unit.sink.counts}"
        assert before["issue_term"] == (not idle) * sum(not word & 2 for word, _, _ in wanted)


@cocotb.test()
async def an_operation_a_cycle(dut: Any) -> None:
    """Over one block, rows of any length, ends of row included: the only gap is before the first operation."""
    bench = await Bench.open(dut, "front")
    unit = FrontBench(bench)
    for _ in range(6 * bench.rounds):
        work = random_work(bench, plain=True)
        work.rows = work.rows * -(-300 // sum(map(len, work.rows)))
        wanted = operations(work.dictionary, work.symbols())
        await unit.begin(work, stalls=(0.0, 0.0))
        unit.sink.board.expect(wanted)
        taken = await bench.until(lambda: unit.sink.board.complete, 4 * len(wanted) + 200, "a plain layer")
        if bench.config.interleave == 4:
            assert unit.sink.counts["starved"] <= 45, f"starved {unit.sink.counts['starved']} cycles of {taken}"
            assert taken <= len(wanted) + 45, f"{taken} cycles for {len(wanted)} operations"
