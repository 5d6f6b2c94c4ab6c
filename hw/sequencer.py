"""Sequencer: reads the model memory layer by layer, fills the tables, runs each layer, and ends on the first error."""

import enum

from amaranth.hdl import Cat, Const, Elaboratable, EnableInserter, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped
from amaranth.utils import bits_for

from .arch.bus import Status
from .arch.config import AcceleratorConfig
from .arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER,
    HEADER_WORDS,
    KEPT_AT,
    LAYERS_MAX,
    LENGTH_WORDS,
    MODEL_MAGIC,
    POSITION_WORDS,
    WATCHDOG_UNIT,
    Flag,
)
from .arch.timing import memory_latency
from .cells.use import shift_add
from .compare import above
from .counters import LayerCounters
from .fetch import FetchSignature
from .layer import LayerLayout, StreamShares

__all__ = ["Section", "Sequencer"]

LAYER_BITS = LAYERS_MAX.bit_length()
NOT_EMPTY = ("channels", "positions", "rows", "group_rows", "out_h", "out_w")
"""Words of a descriptor that must not be 0."""


class Section(enum.IntEnum):
    """What the sequencer is at. A run goes through all in order, then from DESCRIPTOR on for each further layer."""

    HEADER = 0
    JUMP = 1
    """To the tail, when the run begins there."""
    DESCRIPTOR = 2
    """And the lengths behind it."""
    POSITIONS = 3
    CODES = 4
    DICTIONARY = 5
    STREAMS = 6
    """Lengths become addresses."""
    RUN = 7


class Sequencer(wiring.Component):
    """Runs the layers of the model.

    Parameters
    ----------
    config : AcceleratorConfig
    addr_width : int
        Bits of a model memory address.

    Members
    -------
    start : In(1)
        Begin a run; only while not busy.
    head, tail : In(1)
        With ``start``: end before the tail; begin at the tail.
    abort, pause : In(1)
        End the run; wait at layer boundaries.
    busy, done, layer_done, paused : Out(1)
        Run under way; last run has ended; strobe after the end of each layer; waiting at a boundary.
    status, layer_number : Out
        Why the last run ended, and in which layer; after a run without error, the number of layers it went up to.
    layer : Out(LayerLayout)
        Stable from ``run`` to the end of the layer, but for ``watchdog``, which counts down.
    clear : Out(1)
        Units stop and forget.
    load, load_section, load_valid : Out
        Words of the model. ``load_begin`` is high for a cycle before a descriptor's first word.
    tables_begin : Out(1)
        High for a cycle between a descriptor and what follows.
    run : Out(1)
        Strobe: the layer begins. All that follows is right from here to the end of the layer.
    addr_parameters_<s>, addr_codes_<s> : Out(addr_width)
        Where the parameters and codewords of stream s begin.
    stream_rows_<s>, stream_base_<s> : Out(16)
        Rows of stream s, which may be none; base address of its input.
    limit : Out(addr_width + 1)
        Words in use.
    bad_codeword, stream_overrun, tap_overrun, finished : In(1)
        From the units; they count from ``run`` on.
    mem : Out(FetchSignature)
    term, starved, stalled : In(streams)
        What each stream does in this cycle (:class:`.arch.bus.Counter`).
    w_en, w_addr, w_data : Out
        Writes counters to the model memory; always granted.
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        streams = config.streams
        members = {
            "start": In(1), "head": In(1), "tail": In(1), "abort": In(1), "pause": In(1),
            "busy": Out(1), "done": Out(1), "layer_done": Out(1), "paused": Out(1),
            "status": Out(4), "layer_number": Out(LAYER_BITS), "layer": Out(LayerLayout()), "clear": Out(1),
            "load": Out(16), "load_section": Out(Section), "load_valid": Out(1), "load_begin": Out(1),
            "tables_begin": Out(1), "run": Out(1), "limit": Out(addr_width + 1),
            "bad_codeword": In(1), "stream_overrun": In(1), "tap_overrun": In(1), "finished": In(1),
            "mem": Out(FetchSignature(addr_width)),
            "term": In(streams), "starved": In(streams), "stalled": In(streams),
            "w_en": Out(1), "w_addr": Out(addr_width), "w_data": Out(16),
        }
        for s in range(streams):
            members |= {f"addr_parameters_{s}": Out(addr_width), f"addr_codes_{s}": Out(addr_width),
                        f"stream_rows_{s}": Out(16), f"stream_base_{s}": Out(16)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, layer = self.config, self.layer
        mem = flipped(self.mem)
        width = max(self.addr_width, 16)
        section = Signal(Section)
        head, tail = Signal(), Signal()
        starting, jumping, stepping = Signal(), Signal(), Signal()
        last = Signal(LAYER_BITS)
        total = Signal(width + 1)
        bad = Signal()
        m.submodules.shares = shares = StreamShares(config.streams)

        # Loading: `left` words (or positions) are still to be asked for. One adder moves the address, by a word or by
        # a length; its carry comes in below the lowest bit.
        addr = Signal(width + 1)
        operand = Signal(width)
        left = Signal(bits_for(self._left_max))
        request = Signal()
        position_word = Signal(range(POSITION_WORDS))
        flight = Signal(memory_latency(config))
        loading, loaded, past = Signal(), Signal(), Signal()
        index = Signal(range(max(HEADER_WORDS, self._head_words)))
        m.d.comb += [
            mem.req.eq(loading & (left != 0)), mem.addr.eq(addr), request.eq(mem.req & mem.gnt),
            loaded.eq((left == 0) & (flight == 0)),
            self.load_valid.eq(mem.valid), self.load.eq(mem.data), self.load_section.eq(section),
            self.limit.eq(total),
        ]
        moved, room = Signal(width + 2), Signal(width + 2)
        restart = Signal()
        m.d.comb += [moved.eq(Cat(Const(1, 1), addr) + Cat(request, operand)), room.eq(total - addr)]
        m.d.sync += [
            addr.eq(Mux(restart, 0, moved[1:])), operand.eq(0), flight.eq(Cat(request, flight)),
            index.eq(index + mem.valid),
            past.eq((past | room[-1]) & (section != Section.HEADER)),
        ]
        # At the beginning of a section nothing is left.
        idle, beginning, counting = Signal(), Signal(), Signal()
        then_left = shift_add(m, left, counting.replicate(len(left)), self._size(section), beginning, name="then_left")
        m.d.sync += left.eq(Mux(idle, 0, then_left))
        with m.If(request):
            with m.If((section == Section.POSITIONS) & (position_word != POSITION_WORDS - 1)):
                m.d.sync += position_word.eq(position_word + 1)
            with m.Else():
                m.d.sync += position_word.eq(0)
                m.d.comb += counting.eq(1)

        # The words of header and descriptor. What is wrong is noted word by word. Lengths enter two queues, of
        # parameters and of codewords. Later they leave them as one queue, whose places their addresses take over. The
        # address of the tail goes the same way.
        word = mem.data
        parameters = [Signal(width, name=f"parameters{s}") for s in range(config.streams)]
        codes = [Signal(width, name=f"codes{s}") for s in range(config.streams)]
        winding, wrong, some = Signal(), Signal(), Signal()
        most = self._most_bits
        few = {(low, high): Signal(name=f"few{low}_{high}")
               for low, high in {*most.values(), *((bits, 16) for bits in (LAYER_BITS, width - 15, width - 16))}}
        summing, low, high, of_codes = Signal(), Signal(), Signal(), Signal()
        with m.If(mem.valid & (section == Section.HEADER)):
            with m.Switch(index):
                with m.Case(HEADER.index("magic")):
                    m.d.comb += wrong.eq(word != MODEL_MAGIC)
                with m.Case(HEADER.index("layers")):
                    m.d.sync += last.eq(word)
                    m.d.comb += [some.eq(1), few[LAYER_BITS, 16].eq(1)]
                with m.Case(HEADER.index("total_lo")):
                    m.d.sync += total[:16].eq(word)
                with m.Case(HEADER.index("total_hi")):
                    m.d.sync += total[16:].eq(word)
                    m.d.comb += few[width - 15, 16].eq(1)
                with m.Case(HEADER.index("tail")):
                    m.d.comb += wrong.eq(above(total, config.weight_depth))
                    with m.If(head):
                        m.d.sync += last.eq(word)
                    m.d.comb += jumping.eq(tail)
                with m.Case(HEADER.index("tail_addr_lo")):
                    m.d.comb += [low.eq(tail), of_codes.eq(1)]
                with m.Case(HEADER.index("tail_addr_hi")):
                    m.d.comb += [high.eq(tail), of_codes.eq(1)]
        with m.If(mem.valid & (section == Section.DESCRIPTOR)):
            with m.Switch(index):
                for n, name in enumerate(DESCRIPTOR):
                    with m.Case(n):
                        if name == "watchdog":
                            m.d.comb += winding.eq(1)
                        else:
                            m.d.sync += layer[name].eq(word)
                        m.d.comb += some.eq(name in NOT_EMPTY)
                        if name in most:
                            m.d.comb += few[most[name]].eq(1)
                        if name == "tag_flags":
                            m.d.comb += wrong.eq(word[12:] != DESCRIPTOR_TAG)
                with m.Default():
                    half = Signal(2)
                    m.d.comb += [half.eq(index - DESCRIPTOR_WORDS), Cat(high, of_codes).eq(half), low.eq(~high)]
        with m.If(high):
            m.d.comb += few[width - 16, 16].eq(1)
        too_large = Cat(few[low, high] & word[low:high].any() for low, high in few).any()
        m.d.sync += bad.eq((bad | wrong | (some & (word == 0)) | too_large) & ~idle)
        for queue, mine, behind in ((parameters, ~of_codes, codes[0]), (codes, of_codes, addr)):
            entering, taking = Mux(summing, behind, word), (low & mine) | summing
            if config.streams == 1:
                # The parameters' length comes first and can pass through the other queue.
                mine = Const(queue is codes, 1)
                entering, taking = entering if queue is codes else behind, low | summing
            with m.If(taking):
                m.d.sync += [place.eq(value) for place, value in zip(queue, [*queue[1:], entering], strict=True)]
            with m.If(high & mine):
                m.d.sync += queue[-1][16:].eq(word)
        for s in range(config.streams):
            m.d.comb += [
                getattr(self, f"addr_parameters_{s}").eq(parameters[s]),
                getattr(self, f"addr_codes_{s}").eq(codes[s]),
                getattr(self, f"stream_rows_{s}").eq(getattr(shares, f"rows_{s}")),
                getattr(self, f"stream_base_{s}").eq(getattr(shares, f"base_{s}")),
            ]
        # The shares are ready long before the last table is loaded.
        m.d.comb += [getattr(shares, name).eq(layer[name]) for name in ("rows", "in_base", "stream_step")]

        running = Signal()
        expired = self._watchdog(m, winding, running)
        # An abort is remembered until a state in which the run can end.
        aborting, failing = Signal(), Signal()
        m.d.sync += aborting.eq((aborting | self.abort) & self.busy)
        bad_status = Mux(section == Section.JUMP, Status.BAD_MODEL, Status.BAD_DESCRIPTOR)
        reason = Signal(Status)
        m.d.comb += reason.eq(Status.WATCHDOG)
        for cause, status in ((self.tap_overrun, Status.TAP_OVERRUN), (self.stream_overrun, Status.STREAM_OVERRUN),
                              (self.bad_codeword, Status.BAD_CODEWORD), (bad, bad_status),
                              (past, Status.STREAM_OVERRUN), (aborting, Status.ABORTED)):
            with m.If(cause):
                m.d.comb += reason.eq(status)
        flush, flushed = Signal(), Signal()
        if config.counters:
            self._counters(m, section, flush, flushed)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [idle.eq(1), restart.eq(1)]
                m.d.sync += [section.eq(Section.HEADER), Cat(parameters, codes).eq(0)]
                with m.If(self.start):
                    m.d.sync += [
                        self.busy.eq(1), self.done.eq(0), self.status.eq(Status.OK),
                        head.eq(self.head), tail.eq(self.tail),
                    ]
                    m.d.comb += starting.eq(1)
                    m.next = "Check"
            with m.State("Check"):
                m.d.sync += index.eq(0)
                m.d.comb += [
                    beginning.eq(1), failing.eq(aborting | bad | past),
                    self.load_begin.eq(section == Section.DESCRIPTOR),
                    self.tables_begin.eq(section == Section.POSITIONS), shares.start.eq(self.tables_begin),
                ]
                m.next = "Load"
                with m.If(failing):
                    m.next = "End"
                with m.Elif((section == Section.DESCRIPTOR) & (self.layer_number == last)):
                    m.next = "End"
                with m.Elif(section == Section.RUN):
                    m.d.comb += self.run.eq(1)
                    m.next = "Run"
                with m.Elif((section == Section.JUMP) | (section == Section.STREAMS)):
                    m.d.comb += restart.eq(tail & (section == Section.JUMP))
                    m.next = "Sum"
            with m.State("Load"):
                m.d.comb += loading.eq(1)
                with m.If(loaded):
                    m.d.sync += section.eq(section + 1)
                    m.next = "Check"
            # The lengths leave the queue and the addresses enter it.
            with m.State("Sum"):
                with m.If(left == 0):
                    m.d.sync += section.eq(section + 1)
                    m.next = "Check"
                with m.Else():
                    m.d.comb += [summing.eq(1), counting.eq(1)]
                    m.d.sync += operand.eq(parameters[0])
                    m.next = "Add"
            with m.State("Add"):
                m.next = "Sum"
            with m.State("Run"):
                m.d.comb += [
                    running.eq(1),
                    failing.eq(aborting | self.bad_codeword | self.stream_overrun | self.tap_overrun | expired),
                ]
                with m.If(failing):
                    m.next = "End"
                with m.Elif(self.finished):
                    m.d.comb += self.clear.eq(1)
                    m.next = "Flush" if config.counters else "Boundary"
            if config.counters:
                with m.State("Flush"):
                    m.d.comb += flush.eq(1)
                    with m.If(flushed):
                        m.next = "Boundary"
            with m.State("Boundary"):
                m.d.comb += [self.paused.eq(self.pause), failing.eq(aborting)]
                m.d.sync += section.eq(Section.DESCRIPTOR)
                with m.If(failing):
                    m.next = "End"
                with m.Elif(~self.pause):
                    m.d.comb += stepping.eq(1)
                    m.next = "Check"
            with m.State("End"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [self.busy.eq(0), self.done.eq(1)]
                m.next = "Idle"
        with m.If(failing):
            m.d.sync += self.status.eq(reason)
        with m.If(starting):
            m.d.sync += self.layer_number.eq(0)
        with m.Elif(jumping | stepping):
            m.d.sync += self.layer_number.eq(Mux(stepping, self.layer_number + 1, word))
        m.d.sync += self.layer_done.eq(self.finished & self.busy)
        return m

    @property
    def _head_words(self) -> int:
        """Words of a descriptor and the lengths behind it."""
        return DESCRIPTOR_WORDS + LENGTH_WORDS * self.config.streams

    @property
    def _left_max(self) -> int:
        return max(self._head_words, self.config.positions, self.config.dict_depth, self.config.max_code_bits)

    def _size(self, section: Value) -> Value:
        """Words of a section; of the positions, the number of those to load; of the streams, the lengths to add up."""
        layer, config = self.layer, self.config
        codes = Const(config.max_code_bits)
        own = ~(layer.tag_flags & Flag.SAME_CODE).any()
        sizes = {Section.HEADER: Const(HEADER_WORDS), Section.DESCRIPTOR: Const(self._head_words),
                 Section.POSITIONS: layer.positions[:KEPT_AT], Section.CODES: codes & own.replicate(len(codes)),
                 Section.DICTIONARY: layer.dict_words}
        size: Value = Const(0)
        for kind in list(Section)[:-1]:
            words = sizes.get(kind, Const(2 * config.streams))[:bits_for(self._left_max)]
            size = size | ((section == kind).replicate(len(words)) & words)
        return size

    @property
    def _most_bits(self) -> dict[str, tuple[int, int]]:
        """First and last bit, less one, that must be 0 in the words of a descriptor, where there are such."""
        config = self.config
        return {"channels": (bits_for(config.act_depth), 16), "positions": (bits_for(config.positions), KEPT_AT),
                "out_h": (config.map_bits, 16), "out_w": (config.map_bits, 16),
                "dict_words": (bits_for(config.dict_depth), 16)}

    def _watchdog(self, m: Module, winding: Value, running: Value) -> Value:
        """High when a layer takes too many cycles.

        Every ``WATCHDOG_UNIT`` cycles the descriptor's word turns once through a subtractor of one bit.
        """
        units = self.layer.watchdog
        ticks = Signal(range(WATCHDOG_UNIT))
        turning, turned, borrow, expired = Signal(), Signal(), Signal(), Signal()
        m.d.comb += turning.eq(ticks[4:] == 0)
        with m.If(running):
            m.d.sync += [
                ticks.eq(ticks + 1), turned.eq(turning), borrow.eq(~turning | (borrow & ~units[0])),
                expired.eq(turned & ~turning & borrow),
            ]
        with m.Else():
            # As if the word had turned once already.
            m.d.sync += [ticks.eq(len(units)), turned.eq(0), borrow.eq(0), expired.eq(0)]
        with m.If(winding | (running & turning)):
            m.d.sync += units.eq(Mux(winding, self.mem.data, Cat(units[1:], units[0] ^ borrow)))
        return expired

    def _counters(self, m: Module, section: Value, flush: Value, flushed: Value) -> None:
        counters = LayerCounters(self.config, self.addr_width)
        # Time spent paused counts for no layer.
        m.submodules.counters = EnableInserter(~self.paused)(counters)
        m.d.comb += [
            counters.clear.eq(section < Section.DESCRIPTOR), counters.layer_number.eq(self.layer_number),
            counters.limit.eq(self.limit), counters.flush.eq(flush), flushed.eq(counters.flushed),
        ]
        m.d.comb += [getattr(counters, name).eq(getattr(self, name)) for name in ("term", "starved", "stalled")]
        m.d.comb += [getattr(self, name).eq(getattr(counters, name)) for name in ("w_en", "w_addr", "w_data")]
