"""Sequencer: reads the model memory layer by layer, fills the tables, runs each layer, and ends on the first error."""

import enum

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from .arch.bus import Status
from .arch.config import AcceleratorConfig
from .arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER_WORDS,
    KERNEL_ENTRY_WORDS,
    LAYERS_MAX,
    MODEL_MAGIC,
    WATCHDOG_UNIT,
)
from .fetch import FetchSignature
from .layer import LayerLayout

__all__ = ["Section", "Sequencer"]

LAYER_BITS = LAYERS_MAX.bit_length()


class Section(enum.IntEnum):
    """What the words being loaded are."""

    HEADER = 0
    DESCRIPTOR = 1
    ROWS = 2
    COLUMNS = 3
    CODES = 4
    DICTIONARY = 5


def _table_words(size: Value) -> Value:
    """Words of a kernel table of ``size`` entries, without a multiplication."""
    return sum((size << bit for bit in range(2) if KERNEL_ENTRY_WORDS >> bit & 1), start=Const(0))


class Sequencer(wiring.Component):
    """Runs all layers of the model.

    Members
    -------
    start, abort, pause : In(1)
        Begin a run; end it; wait at layer boundaries.
    busy, done, layer_done, paused : Out(1)
        Run under way; last run has ended; strobe at the end of each layer; waiting at a boundary.
    status, layer_number : Out
        Why the last run ended, and in which layer.
    layer : Out(LayerLayout)
    clear : Out(1)
        Units stop and forget.
    load, load_section, load_valid : Out
        Table words; ``load_begin`` is high for a cycle before the descriptor's first word.
    run : Out(1)
        Strobe: the layer begins at ``addr_parameters``, ``addr_a``, ``addr_b``, ``addr_next`` (section starts).
    bad_codeword, stream_overrun, tap_overrun, finished : In(1)
        From the units.
    mem : Out(FetchSignature)
    """

    def __init__(self, config: AcceleratorConfig, addr_width: int) -> None:
        self.config = config
        self.addr_width = addr_width
        super().__init__({
            "start": In(1), "abort": In(1), "pause": In(1),
            "busy": Out(1), "done": Out(1), "layer_done": Out(1), "paused": Out(1),
            "status": Out(4), "layer_number": Out(LAYER_BITS), "layer": Out(LayerLayout()), "clear": Out(1),
            "load": Out(16), "load_section": Out(Section), "load_valid": Out(1), "load_begin": Out(1), "run": Out(1),
            "addr_parameters": Out(addr_width), "addr_a": Out(addr_width), "addr_b": Out(addr_width),
            "addr_next": Out(addr_width),
            "bad_codeword": In(1), "stream_overrun": In(1), "tap_overrun": In(1), "finished": In(1),
            "mem": Out(FetchSignature(addr_width)),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config, layer = self.config, self.layer
        mem = flipped(self.mem)
        section = Signal(Section)
        # One adder for all sums of an address and a length; they are checked a cycle later.
        width = max(self.addr_width + 1, 17)
        addr = Signal(width + 1)
        length = Signal(width)
        end = Signal(width + 1)
        too_long = Signal()
        requests = Signal(17)
        under_way = Signal(range(8))
        loaded = Signal()
        layers_left = Signal(LAYER_BITS)
        total = Signal(width)
        sizes = {
            Section.HEADER: HEADER_WORDS, Section.DESCRIPTOR: DESCRIPTOR_WORDS,
            Section.ROWS: _table_words(layer.kernel[8:]), Section.COLUMNS: _table_words(layer.kernel[:8]),
            Section.CODES: config.max_code_bits, Section.DICTIONARY: layer.dict_words,
        }
        starts = [Signal(width, name=f"start{n}") for n in range(3)]
        size = Signal(17)
        streaming = Signal()
        for kind, words in sizes.items():
            with m.If(section == kind):
                m.d.comb += size.eq(words)
        m.d.comb += length.eq(Mux(streaming, starts[0], size))
        m.d.sync += end.eq(addr + length)

        # Loading: a word a cycle, whatever the section.
        request = mem.req & mem.gnt
        index = Signal(range(max(HEADER_WORDS, DESCRIPTOR_WORDS) + 1))
        m.d.comb += [
            mem.req.eq(requests != 0), mem.addr.eq(addr), loaded.eq((requests == 0) & (under_way == 0)),
            self.load_valid.eq(mem.valid), self.load.eq(mem.data), self.load_section.eq(section),
        ]
        m.d.sync += [under_way.eq(under_way + request - mem.valid), index.eq(index + mem.valid)]
        with m.If(request):
            m.d.sync += [addr.eq(addr + 1), requests.eq(requests - 1)]

        # Header and descriptor. The lengths of the last three sections wait in a queue that their addresses take
        # over, the watchdog's word in its counter. What is wrong is noted word by word.
        word = mem.data
        high_rest = word[width - 16:] != 0
        bad = Signal()
        remaining = Signal(16 + (WATCHDOG_UNIT - 1).bit_length() + 1)
        wrong = {
            "tag_flags": word[12:] != DESCRIPTOR_TAG, "channels": (word == 0) | (word > config.act_depth),
            "kernel": (word[:8] == 0) | (word[:8] > config.kernel_max)
            | (word[8:] == 0) | (word[8:] > config.kernel_max),
            "rows": word == 0, "group_rows": word == 0,
            "out_h": (word == 0) | (word[config.map_bits:] != 0), "out_w": (word == 0) | (word[config.map_bits:] != 0),
        }
        with m.If(mem.valid & (section == Section.HEADER)):
            with m.Switch(index):
                with m.Case(0):
                    m.d.sync += bad.eq(bad | (word != MODEL_MAGIC))
                with m.Case(1):
                    m.d.sync += [layers_left.eq(word), bad.eq(bad | (word == 0) | (word[LAYER_BITS:] != 0))]
                with m.Case(2):
                    m.d.sync += total[:16].eq(word)
                with m.Case(3):
                    m.d.sync += [total[16:].eq(word), bad.eq(bad | high_rest)]
        with m.If(mem.valid & (section == Section.DESCRIPTOR)):
            with m.Switch(index):
                for n, name in enumerate(DESCRIPTOR):
                    with m.Case(n):
                        m.d.sync += layer[name].eq(word)
                        if name in wrong:
                            m.d.sync += bad.eq(bad | wrong[name])
                        if name == "watchdog":
                            m.d.sync += remaining.eq(Cat(Const(WATCHDOG_UNIT - 1), word))
                        for start, section_name in zip(starts, ("param", "a", "b"), strict=True):
                            if name == f"{section_name}_words_lo":
                                m.d.sync += start[:16].eq(word)
                            if name == f"{section_name}_words_hi":
                                m.d.sync += [start[16:].eq(word), too_long.eq(too_long | high_rest)]

        # An abort is remembered until a state in which the run can end.
        aborting = Signal()
        m.d.sync += aborting.eq((aborting | self.abort) & self.busy)

        error = Signal(Status)
        m.d.comb += error.eq(Mux(aborting, Status.ABORTED, Mux(
            self.bad_codeword, Status.BAD_CODEWORD, Mux(
                self.stream_overrun, Status.STREAM_OVERRUN, Mux(
                    self.tap_overrun, Status.TAP_OVERRUN, Status.WATCHDOG)))))
        expired = Signal()
        m.d.sync += expired.eq(remaining[-1])
        m.d.comb += [
            address.eq(start)
            for address, start in zip((self.addr_parameters, self.addr_a, self.addr_b), starts, strict=True)]
        with m.FSM():
            def fail(status: object) -> None:
                m.d.sync += self.status.eq(status)
                m.next = "End"

            with m.State("Idle"):
                with m.If(self.start):
                    m.d.sync += [
                        self.busy.eq(1), self.done.eq(0), self.status.eq(Status.OK), self.layer_number.eq(0),
                        addr.eq(0), section.eq(Section.HEADER), requests.eq(HEADER_WORDS), index.eq(0), bad.eq(0),
                    ]
                    m.next = "Header"
            with m.State("Header"):
                with m.If(loaded):
                    m.d.sync += [section.eq(Section.DESCRIPTOR), index.eq(0)]
                    with m.If(bad | (total > config.weight_depth)):
                        fail(Status.BAD_MODEL)
                    with m.Else():
                        m.next = "Size"
            with m.State("Size"):
                m.next = "Section"
            with m.State("Section"):
                with m.If(aborting):
                    fail(Status.ABORTED)
                with m.Elif(end > total):
                    fail(Status.STREAM_OVERRUN)
                with m.Else():
                    m.d.comb += self.load_begin.eq(section == Section.DESCRIPTOR)
                    m.d.sync += [requests.eq(size), too_long.eq(0)]
                    m.next = "Load"
            with m.State("Load"):
                with m.If(loaded):
                    m.d.sync += section.eq(section + 1)
                    with m.If((section == Section.DESCRIPTOR) & bad):
                        fail(Status.BAD_DESCRIPTOR)
                    with m.Elif((section == Section.DESCRIPTOR) & too_long):
                        fail(Status.STREAM_OVERRUN)
                    with m.Elif(section == Section.DICTIONARY):
                        m.next = "Sum 0"
                    with m.Else():
                        m.next = "Size"
            # The lengths leave the queue and the addresses enter it.
            for n in range(len(starts)):
                with m.State(f"Sum {n}"):
                    m.d.comb += streaming.eq(1)
                    m.next = f"Stream {n}"
                with m.State(f"Stream {n}"):
                    m.d.sync += [addr.eq(end), Cat(starts).eq(Cat(*starts[1:], addr[:width]))]
                    m.next = f"Sum {n + 1}" if n + 1 < len(starts) else "Begin"
                    with m.If(end > total):
                        fail(Status.STREAM_OVERRUN)
            with m.State("Begin"):
                m.d.comb += self.run.eq(1)
                m.d.sync += self.addr_next.eq(addr)
                m.next = "Run"
            with m.State("Run"):
                m.d.sync += remaining.eq(remaining - 1)
                with m.If(aborting | self.bad_codeword | self.stream_overrun | self.tap_overrun | expired):
                    fail(error)
                with m.Elif(self.finished):
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += [layers_left.eq(layers_left - 1), section.eq(Section.DESCRIPTOR), index.eq(0)]
                    m.next = "Boundary"
            with m.State("Boundary"):
                m.d.comb += self.paused.eq(self.pause)
                with m.If(~self.pause):
                    with m.If(layers_left == 0):
                        m.next = "End"
                    with m.Else():
                        m.d.sync += self.layer_number.eq(self.layer_number + 1)
                        m.next = "Size"
                with m.If(aborting):
                    fail(Status.ABORTED)
            with m.State("End"):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [self.busy.eq(0), self.done.eq(1)]
                m.next = "Idle"
        m.d.sync += self.layer_done.eq(self.finished & self.busy)
        return m
