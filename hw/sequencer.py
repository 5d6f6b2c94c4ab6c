"""Sequencer: reads the model memory layer by layer, fills the tables, runs each layer, and ends on the first error."""

import enum

from amaranth.hdl import Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from .arch.bus import Status
from .arch.config import AcceleratorConfig
from .arch.image import (
    DESCRIPTOR_TAG,
    DESCRIPTOR_WORDS,
    HEADER_WORDS,
    KERNEL_ENTRY_WORDS,
    MODEL_MAGIC,
    WATCHDOG_UNIT,
)
from .fetch import FetchSignature
from .layer import LayerLayout

__all__ = ["Section", "Sequencer"]


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
            "status": Out(4), "layer_number": Out(16), "layer": Out(LayerLayout()), "clear": Out(1),
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
        # Sums of an address and a length, checked a cycle later.
        addr = Signal(self.addr_width + 2)
        end = Signal(max(self.addr_width + 2, 18))
        too_long = Signal()
        requests = Signal(17)
        responses = Signal(17)
        header = Signal(16 * HEADER_WORDS)
        layers_left = Signal(16)
        total = header[32:32 + self.addr_width + 1]
        sizes = {
            Section.HEADER: HEADER_WORDS, Section.DESCRIPTOR: DESCRIPTOR_WORDS,
            Section.ROWS: _table_words(layer.kernel[8:]), Section.COLUMNS: _table_words(layer.kernel[:8]),
            Section.CODES: config.max_code_bits, Section.DICTIONARY: layer.dict_words,
        }

        # Loading: a word a cycle, whatever the section.
        m.d.comb += [
            mem.req.eq(requests != 0), mem.addr.eq(addr),
            self.load_valid.eq(mem.valid & (responses != 0)), self.load.eq(mem.data), self.load_section.eq(section),
        ]
        with m.If(mem.req & mem.gnt):
            m.d.sync += [addr.eq(addr + 1), requests.eq(requests - 1)]
        with m.If(self.load_valid):
            m.d.sync += responses.eq(responses - 1)
            with m.If(section == Section.HEADER):
                m.d.sync += header.eq(Cat(header[16:], mem.data))
            with m.If(section == Section.DESCRIPTOR):
                m.d.sync += layer.as_value().eq(Cat(layer.as_value()[16:], mem.data))

        size = Signal(17)
        for kind, words in sizes.items():
            with m.If(section == kind):
                m.d.comb += size.eq(words)

        bad_descriptor = Signal()
        m.d.comb += bad_descriptor.eq(
            (layer.tag_flags[12:] != DESCRIPTOR_TAG) | (layer.channels == 0) | (layer.rows == 0)
            | (layer.group_rows == 0) | (layer.out_h == 0) | (layer.out_w == 0)
            | (layer.out_h[config.map_bits:] != 0) | (layer.out_w[config.map_bits:] != 0)
            | (layer.channels > config.act_depth)
            | (layer.kernel[:8] == 0) | (layer.kernel[8:] == 0)
            | (layer.kernel[:8] > config.kernel_max) | (layer.kernel[8:] > config.kernel_max))

        # An abort is remembered until a state in which the run can end.
        aborting = Signal()
        m.d.sync += aborting.eq((aborting | self.abort) & self.busy)

        elapsed = Signal(16 + (WATCHDOG_UNIT - 1).bit_length() + 1)
        error = Signal(Status)
        m.d.comb += error.eq(Mux(aborting, Status.ABORTED, Mux(
            self.bad_codeword, Status.BAD_CODEWORD, Mux(
                self.stream_overrun, Status.STREAM_OVERRUN, Mux(
                    self.tap_overrun, Status.TAP_OVERRUN, Status.WATCHDOG)))))
        expired = Signal()
        m.d.sync += expired.eq(elapsed[(WATCHDOG_UNIT - 1).bit_length():] > layer.watchdog)

        streams = (
            (self.addr_parameters, Cat(layer.param_words_lo, layer.param_words_hi)),
            (self.addr_a, Cat(layer.a_words_lo, layer.a_words_hi)),
            (self.addr_b, Cat(layer.b_words_lo, layer.b_words_hi)),
        )
        with m.FSM():
            def fail(status: object) -> None:
                m.d.sync += self.status.eq(status)
                m.next = "End"

            with m.State("Idle"):
                with m.If(self.start):
                    m.d.sync += [
                        self.busy.eq(1), self.done.eq(0), self.status.eq(Status.OK), self.layer_number.eq(0),
                        addr.eq(0), section.eq(Section.HEADER), requests.eq(HEADER_WORDS), responses.eq(HEADER_WORDS),
                    ]
                    m.next = "Header"
            with m.State("Header"):
                with m.If(responses == 0):
                    m.d.sync += [layers_left.eq(header[16:32]), section.eq(Section.DESCRIPTOR)]
                    with m.If((header[:16] != MODEL_MAGIC) | (header[16:32] == 0)
                              | (header[32 + self.addr_width + 1:] != 0)):
                        fail(Status.BAD_MODEL)
                    with m.Else():
                        m.next = "Size"
            with m.State("Size"):
                m.d.sync += end.eq(addr + size)
                m.next = "Section"
            with m.State("Section"):
                with m.If(aborting):
                    fail(Status.ABORTED)
                with m.Elif(end > total):
                    fail(Status.STREAM_OVERRUN)
                with m.Else():
                    m.d.comb += self.load_begin.eq(section == Section.DESCRIPTOR)
                    m.d.sync += [requests.eq(size), responses.eq(size), elapsed.eq(0)]
                    m.next = "Load"
            with m.State("Load"):
                with m.If(responses == 0):
                    m.d.sync += section.eq(section + 1)
                    with m.If((section == Section.DESCRIPTOR) & bad_descriptor):
                        fail(Status.BAD_DESCRIPTOR)
                    with m.Elif(section == Section.DICTIONARY):
                        m.next = "Stream 0"
                    with m.Else():
                        m.next = "Size"
            for n, (begin, words) in enumerate(streams):
                with m.State(f"Stream {n}"):
                    m.d.sync += [
                        begin.eq(addr), addr.eq(addr + words[:self.addr_width + 1]),
                        too_long.eq(words[self.addr_width + 1:] != 0),
                    ]
                    m.next = f"Stream {n + 1}"
                    if n:
                        with m.If(too_long | (addr > total)):
                            fail(Status.STREAM_OVERRUN)
            with m.State(f"Stream {len(streams)}"):
                m.d.sync += self.addr_next.eq(addr)
                with m.If(too_long | (addr > total)):
                    fail(Status.STREAM_OVERRUN)
                with m.Else():
                    m.d.comb += self.run.eq(1)
                    m.next = "Run"
            with m.State("Run"):
                m.d.sync += elapsed.eq(elapsed + 1)
                with m.If(aborting | self.bad_codeword | self.stream_overrun | self.tap_overrun | expired):
                    fail(error)
                with m.Elif(self.finished):
                    m.d.comb += self.clear.eq(1)
                    m.d.sync += [layers_left.eq(layers_left - 1), section.eq(Section.DESCRIPTOR)]
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
