"""Canonical Huffman decoder: one codeword a cycle, its loop a ring of pipeline stages with a context in each.

The loop of a Huffman decoder is: look at the next bits, find the codeword's length, move on by it. A stream's codewords
are dealt to ``interleave`` contexts, each with bits of its own, so that the loop may take as many cycles:

    coarse, fine   the context's next bits: the window
    compare        the window with the limit of each length: a thermometer
    move           length; bit offset += length; over the end of a word, the next word comes in

A context is two words and a bit offset in the first. All contexts take their words from one sequence, in the order in
which they move over word ends, so that one reader serves them all. The symbol (codeword + offset of its length) is
found behind the loop. Ring and symbol stages advance together, when there is a word to take and the consumer is ready.
"""

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, flipped

from .arch.config import AcceleratorConfig
from .cells.use import select
from .fetch import FetchSignature
from .wordreader import WordReader

__all__ = ["CodeTable", "Decoder"]


class CodeTable(wiring.Component):
    """Limits and symbol offsets of a canonical code, computed from the number of codewords of each length.

    A window whose first ``l`` bits are below ``limit[l]`` begins with a codeword of at most ``l`` bits.

    Parameters
    ----------
    max_bits : int
        Longest codeword.

    Members
    -------
    load_begin, load_codes, load : In(1), In(1), In(16)
        Begin a new table; codewords of length 1, 2, ... in turn.
    limits : Out
        Concatenated from length 1, ``l + 1`` bits each; complete after the last count.
    read, length, offset : In(1), In(4), Out(8)
        With ``read``: what turns codewords of this length (less one) into symbols, modulo 256, in the next cycle.
    """

    def __init__(self, max_bits: int) -> None:
        self.max_bits = max_bits
        super().__init__({
            "load_begin": In(1), "load_codes": In(1), "load": In(16),
            "limits": Out(sum(length + 1 for length in range(1, max_bits + 1))),
            "read": In(1), "length": In(4), "offset": Out(8),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        limits = [Signal(length + 1, name=f"limit{length}") for length in range(1, self.max_bits + 1)]
        m.submodules.offsets = offsets = Memory(shape=8, depth=16, init=[])
        write = offsets.write_port()
        read = offsets.read_port()
        length = Signal(4)
        first = Signal(self.max_bits + 1)
        limit = Signal(self.max_bits + 1)
        before = Signal(8)
        m.d.comb += [
            self.limits.eq(Cat(limits)), limit.eq(first + self.load[:9]),
            # The offset is the symbol of the length's first codeword less that codeword. With one bit more, the symbol
            # grows by the count and the codeword becomes 2 x limit: the offset falls by limit, which is half of first.
            write.addr.eq(length), write.data.eq(before - (first >> 1)), write.en.eq(self.load_codes),
            read.addr.eq(self.length), self.offset.eq(read.data), read.en.eq(self.read),
        ]
        with m.If(self.load_codes):
            # The limits move down a chain; when all have come, each is at its place.
            m.d.sync += [low.eq(high) for low, high in zip(limits, [*limits[1:], limit], strict=True)]
            m.d.sync += [length.eq(length + 1), first.eq(limit << 1), before.eq(write.data)]
        with m.If(self.load_begin):
            m.d.sync += [length.eq(0), first.eq(0), before.eq(0)]
        return m


class Decoder(wiring.Component):
    """Decodes a stream's codewords until it is stopped.

    Parameters
    ----------
    config : AcceleratorConfig
    addr_width : int
        Bits of a word address.

    Members
    -------
    clear : In(1)
        Stop and forget errors.
    load_begin, load_codes, load : In
        Code table, see :class:`CodeTable`.
    eor : In(8)
        End-of-row symbol.
    start, addr, limit : In(1), In(addr_width), In(addr_width + 1)
        Begin with the word at ``addr``; see :class:`.wordreader.WordReader`.
    symbol, end, valid, ready : Out(8), Out(1), Out(1), In(1)
        A symbol is handed over in each cycle with ``valid`` and ``ready``. ``end``: it is the end-of-row symbol;
        ``ready`` may depend on it.
    stop : In(1)
        The symbol that is handed over is the last.
    running, bad_codeword, overrun : Out(1)
        Between start and stop; errors, which stop it, held until ``clear``.
    mem : Out(FetchSignature)
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        super().__init__({
            "clear": In(1), "load_begin": In(1), "load_codes": In(1), "load": In(16), "eor": In(8),
            "start": In(1), "addr": In(addr_width), "limit": In(addr_width + 1),
            "symbol": Out(8), "end": Out(1), "valid": Out(1), "ready": In(1), "stop": In(1),
            "running": Out(1), "bad_codeword": Out(1), "overrun": Out(1), "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        contexts = self.config.interleave
        m.submodules.table = table = CodeTable(self.config.max_code_bits)
        m.submodules.words = words = WordReader(self.config, self.addr_width)
        wiring.connect(m, words.mem, flipped(self.mem))
        advance = Signal()
        m.d.comb += [
            table.load_begin.eq(self.load_begin), table.load_codes.eq(self.load_codes), table.load.eq(self.load),
            table.read.eq(advance),
            words.start.eq(self.start), words.addr.eq(self.addr), words.limit.eq(self.limit),
            words.run.eq(self.running), advance.eq(words.valid & self.ready),
        ]

        def stage(name: str, registered: bool, *values: Value) -> list[Signal]:
            signals = [Signal(len(value), name=f"{name}{n}") for n, value in enumerate(values)]
            assign = [signal.eq(value) for signal, value in zip(signals, values, strict=True)]
            if registered:
                with m.If(advance):
                    m.d.sync += assign
            else:
                m.d.comb += assign
            return signals

        # The loop.
        bits = self.config.max_code_bits
        first, second, offset = context = [Signal(16), Signal(16), Signal(4)]
        below = Signal(bits)
        both = Cat(second, first)
        coarse = select(m, [both[29 - 4 * n - bits:][:bits + 3] for n in range(4)], offset[2:], name="coarse")
        *held, coarse = stage("coarse", contexts == 4, *context, coarse)
        window = select(m, [coarse[3 - n:][:bits] for n in range(4)], held[2], name="window")
        *held, window = stage("fine", contexts > 1, *held, window)
        at = 0
        for n in range(bits):
            m.d.comb += below[n].eq(window[bits - n - 1:] < table.limits[at:at + n + 2])
            at += n + 2
        *held, window, below = stage("compare", contexts == 4, *held, window, below)
        less = Signal(4)
        moved = Signal(5)
        priming, take = Signal(), Signal()
        m.d.comb += [
            less.eq(_zeros(below)),
            # The offset goes up by the length, less + 1; bit 4 is set when that stays inside the word.
            moved.eq(held[2] - ~less), words.take.eq(self.ready & take),
        ]
        with m.If(advance):
            m.d.sync += [first.eq(held[0]), second.eq(held[1]), offset.eq(moved)]
            with m.If(take):
                m.d.sync += [first.eq(held[1]), second.eq(words.word)]

        # Each context takes two words before the first codeword, the second when the ring has gone round once.
        turn = Signal(contexts + 1, init=1)
        primed = Signal(range(contexts))
        m.d.comb += take.eq(Mux(priming, turn[0] | turn[-1], ~moved[4]))
        with m.If(priming):
            m.d.sync += offset.eq(0)
            with m.If(advance):
                m.d.sync += turn.eq(turn.rotate_left(1))
                with m.If(turn[-1]):
                    m.d.sync += [primed.eq(primed + 1), priming.eq(primed != contexts - 1)]

        # The symbol: the codeword, moved to the right, plus the offset of its length.
        deep = contexts > 1
        flags = [~priming & below[-1], ~priming & ~below[-1]]
        window, less, *flags = stage("length", deep, window, less, *flags)
        passing = flags * deep
        padded = Cat(Const(0, 16), window, Const(0, 11))
        aligned = select(m, [padded[max(0, 12 + bits - 4 * n):][:11] for n in range(4)], less[2:], name="aligned")
        m.d.comb += table.length.eq(less)
        aligned, less, *flags = stage("aligned", True, aligned, less[:2], *flags)
        passing += flags
        codeword = select(m, [aligned[3 - n:][:8] for n in range(4)], less, name="codeword")
        symbol, *flags = stage("symbol", True, (codeword + table.offset)[:8], *flags)
        passing += flags
        symbol, good, wrong, end = stage("ready", deep, symbol, *flags, flags[0] & (symbol == self.eor))
        passing += [good, wrong, end] * deep
        m.d.comb += [self.symbol.eq(symbol), self.end.eq(end), self.valid.eq(words.valid & good & self.running)]

        with m.If(words.overrun & self.running):
            m.d.sync += [self.overrun.eq(1), self.running.eq(0)]
        with m.If(advance & wrong & self.running):
            m.d.sync += [self.bad_codeword.eq(1), self.running.eq(0)]
        with m.If(self.valid & self.ready & self.stop):
            m.d.sync += self.running.eq(0)
        with m.If(~self.running):
            m.d.sync += [turn.eq(1), primed.eq(0), priming.eq(1), *(signal.eq(0) for signal in passing)]
        with m.If(self.start):
            m.d.sync += self.running.eq(1)
        with m.If(self.clear):
            m.d.sync += [self.running.eq(0), self.bad_codeword.eq(0), self.overrun.eq(0)]
        return m


def _zeros(thermometer: Signal) -> Value:
    """Zeros before the first one, four bits; the last place counts as a one."""
    places = [*thermometer[:-1], *([Const(1, 1)] * (17 - len(thermometer)))]

    def count(part: list[Value]) -> list[Value]:
        if len(part) == 1:
            return []
        few = part[len(part) // 2 - 1]
        halves = count(part[:len(part) // 2]), count(part[len(part) // 2:])
        return [*(Mux(few, low, high) for low, high in zip(*halves, strict=True)), ~few]

    # The lowest bit is a parity, in fewer levels than the choice among places.
    odd = (~thermometer[:-1]).xor()
    return Cat(odd, *count(places)[1:])
