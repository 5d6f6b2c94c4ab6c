"""The accelerator behind its word bus."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .activations import ActivationMemory
from .arch.bus import BANK_SHIFT, BUS_ADDR_BITS, BUS_DATA_BITS, MAP_VERSION, Control, Region, Register
from .arch.config import AcceleratorConfig
from .arch.image import MODEL_MAGIC, Flag
from .decoder import Decoder
from .drain import Drain, DrainGate
from .expander import Expander
from .fetch import ModelMemory
from .lanes import LaneArray
from .parameters import ParameterReader
from .sequencer import Section, Sequencer
from .tapgen import TapGenerator

__all__ = ["Accelerator"]


class Accelerator(wiring.Component):
    """One stream: decoder, expander, tap generator, activation banks, lanes, drain, and the sequencer that runs them.

    Memories may be reached over the bus only while no run is under way or while it is paused at a layer boundary;
    other writes are ignored and other reads give unspecified data. Registers can be reached always.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    bus_addr, bus_w_data, bus_w_en : In
        A word is written in each cycle with ``bus_w_en``.
    bus_r_en, bus_r_data, bus_r_valid : In(1), Out, Out(1)
        One read at a time: ``bus_r_valid`` answers some cycles after ``bus_r_en``.
    busy, done, layer_done : Out(1)
    pause : In(1)
        Waits at each layer boundary while high.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "bus_addr": In(BUS_ADDR_BITS), "bus_w_data": In(BUS_DATA_BITS), "bus_w_en": In(1), "bus_r_en": In(1),
            "bus_r_data": Out(BUS_DATA_BITS), "bus_r_valid": Out(1),
            "busy": Out(1), "done": Out(1), "layer_done": Out(1), "pause": In(1),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        config = self.config
        m.submodules.model = model = ModelMemory(config.weight_depth, 4)
        width = model.addr_width
        m.submodules.sequencer = sequencer = Sequencer(config, width)
        m.submodules.decoder = decoder = Decoder(config, width)
        m.submodules.expander = expander = Expander(config)
        m.submodules.tapgen = tapgen = TapGenerator(config)
        m.submodules.activations = activations = ActivationMemory(config)
        m.submodules.lanes = lanes = LaneArray(config)
        m.submodules.drain = drain = Drain(config)
        m.submodules.gate = gate = DrainGate(config.lanes)
        m.submodules.parameters = parameters = ParameterReader(width)
        layer = sequencer.layer
        flags = layer.tag_flags
        for n, port in enumerate((decoder.mem_a, decoder.mem_b, parameters.mem)):
            wiring.connect(m, port, getattr(model, f"port{n}"))

        m.d.comb += [
            self.busy.eq(sequencer.busy), self.done.eq(sequencer.done), self.layer_done.eq(sequencer.layer_done),
            sequencer.pause.eq(self.pause),
            sequencer.bad_codeword.eq(decoder.bad_codeword), sequencer.stream_overrun.eq(decoder.overrun),
            sequencer.tap_overrun.eq(tapgen.overrun), sequencer.finished.eq(drain.layer_done),
            # Tables.
            decoder.table_start.eq(sequencer.load_begin), decoder.eor.eq(layer.eor), decoder.count.eq(sequencer.load),
            decoder.count_valid.eq(sequencer.load_valid & (sequencer.load_section == Section.CODES)),
            expander.load_start.eq(sequencer.load_begin), expander.load.eq(sequencer.load),
            expander.load_valid.eq(sequencer.load_valid & (sequencer.load_section == Section.DICTIONARY)),
            tapgen.load_start.eq(sequencer.load_begin), tapgen.load.eq(sequencer.load),
            tapgen.load_rows.eq(sequencer.load_valid & (sequencer.load_section == Section.ROWS)),
            tapgen.load_columns.eq(sequencer.load_valid & (sequencer.load_section == Section.COLUMNS)),
            # Terms.
            decoder.addr_a.eq(sequencer.addr_a), decoder.addr_b.eq(sequencer.addr_b),
            decoder.end_a.eq(sequencer.addr_b), decoder.end_b.eq(sequencer.addr_next),
            decoder.rows.eq(layer.rows), decoder.out_h.eq(layer.out_h), decoder.out_w.eq(layer.out_w),
            decoder.shared_row.eq((flags & Flag.SHARED_ROW).any()),
            expander.symbol.eq(decoder.symbol), expander.row_last.eq(decoder.row_last),
            expander.valid.eq(decoder.valid), decoder.ready.eq(expander.ready),
            expander.eor_ready.eq(gate.ready),
            tapgen.layer.eq(layer), tapgen.op.eq(expander.op), tapgen.op_row_last.eq(expander.op_row_last),
            tapgen.op_valid.eq(expander.op_valid),
            # Activations.
            activations.x_signed.eq((flags & Flag.X_SIGNED).any()), activations.fill.eq((flags & Flag.MAX).any()),
        ]
        for name in ("addr", "addr_x", "addr_y", "addr_xy", "residue_y", "residue_x", "mask_y", "mask_x"):
            m.d.comb += getattr(activations, name).eq(getattr(tapgen, name))
        control = Cat(tapgen.term, tapgen.eor, tapgen.row_last, tapgen.neg, tapgen.shift)
        for n in range(ActivationMemory.LATENCY):
            delayed = Signal(len(control), name=f"control{n}")
            m.d.sync += delayed.eq(control)
            control = delayed
        m.d.comb += [
            Cat(lanes.term, lanes.eor, lanes.row_last, lanes.neg, lanes.shift).eq(control),
            lanes.x.as_value().eq(activations.x.as_value()), lanes.maximum.eq((flags & Flag.MAX).any()),
            lanes.restart.eq(sequencer.run), lanes.drain.eq(drain.shift),
            # Requantization.
            drain.layer.eq(layer), drain.finished.eq(lanes.finished), drain.row_last.eq(lanes.finished_row_last),
            drain.head.eq(lanes.head), drain.bias.eq(parameters.bias), drain.scale.eq(parameters.scale),
            gate.pixels.eq(drain.pixels), gate.steps.eq(drain.steps), gate.issue.eq(expander.eor_issue),
            gate.row_last.eq(expander.eor_row_last), gate.parameters_ready.eq(parameters.ready),
            gate.row_done.eq(drain.row_done),
            parameters.layer.eq(layer), parameters.start_addr.eq(sequencer.addr_parameters),
            parameters.advance.eq(drain.row_done),
        ]
        for unit in (decoder, tapgen, drain, parameters):
            m.d.comb += unit.start.eq(sequencer.run)
        for unit in (decoder, expander, drain, gate, parameters):
            m.d.comb += unit.clear.eq(sequencer.clear)
        self._bus(m, model, sequencer, tapgen, activations, drain)
        return m

    def _bus(self, m: Module, model: ModelMemory, sequencer: Sequencer, tapgen: TapGenerator,
             activations: ActivationMemory, drain: Drain) -> None:
        """Memories and registers on the bus."""
        config = self.config
        region = self.bus_addr[-2:]
        bank = self.bus_addr[BANK_SHIFT:-2]
        register = self.bus_addr[:4]
        free = Signal()
        m.d.comb += free.eq(~sequencer.busy | sequencer.paused)

        cycles = Signal(32)
        with m.If(sequencer.start):
            m.d.sync += cycles.eq(0)
        with m.Elif(sequencer.busy & ~sequencer.paused):
            m.d.sync += cycles.eq(cycles + 1)

        write = self.bus_w_en
        control = write & (region == Region.REGISTERS) & (register == Register.CONTROL)
        m.d.comb += [
            model.w_en.eq(write & (region == Region.MODEL) & free), model.w_addr.eq(self.bus_addr),
            model.w_data.eq(self.bus_w_data),
            sequencer.start.eq(control & (self.bus_w_data & Control.START).any() & ~sequencer.busy),
            sequencer.abort.eq(control & (self.bus_w_data & Control.ABORT).any()),
        ]
        host_write = Signal()
        m.d.comb += host_write.eq(write & (region == Region.ACTIVATIONS) & free)
        m.d.comb += [
            activations.w_en.eq(host_write | drain.w_en),
            activations.w_addr.eq(Mux(host_write, self.bus_addr, drain.w_addr)),
            activations.w_data.eq(Mux(host_write, self.bus_w_data, drain.w_data)),
        ]
        for n in range(config.lanes):
            m.d.comb += activations.w_bank[n].eq(Mux(host_write, bank == n, drain.w_bank[n]))
            with m.If(bank == n):
                m.d.comb += [tapgen.probe_y.eq(n // config.lanes_x), tapgen.probe_x.eq(n % config.lanes_x)]

        fingerprint = config.fingerprint
        values = {
            Register.MAGIC: MODEL_MAGIC, Register.VERSION: MAP_VERSION,
            Register.FINGERPRINT_LO: fingerprint & 0xFFFF, Register.FINGERPRINT_HI: fingerprint >> 16,
            Register.STATUS: Cat(sequencer.busy, sequencer.done, sequencer.paused, Signal(1), sequencer.status),
            Register.ERROR_LAYER: sequencer.layer_number, Register.ERROR_ROW: drain.row,
            Register.CYCLES_LO: cycles[:16], Register.CYCLES_HI: cycles[16:],
        }
        read_register = self.bus_r_en & (region == Region.REGISTERS)
        read_activation = self.bus_r_en & (region == Region.ACTIVATIONS)
        read_model = self.bus_r_en & (region == Region.MODEL)
        m.d.comb += [tapgen.probe.eq(read_activation & free), tapgen.probe_addr.eq(self.bus_addr)]
        # The bus shares the model memory's last port with the sequencer, which is idle when the bus may read.
        port = getattr(model, f"port{model.ports - 1}")
        mine = Signal()
        refused = Signal()
        arriving = Signal(4)
        m.d.comb += [
            port.req.eq(sequencer.mem.req | (read_model & free)),
            port.addr.eq(Mux(read_model & free, self.bus_addr, sequencer.mem.addr)),
            sequencer.mem.gnt.eq(port.gnt), sequencer.mem.data.eq(port.data),
            sequencer.mem.valid.eq(port.valid & ~mine),
        ]
        with m.If(read_model & free):
            m.d.sync += mine.eq(1)
        with m.Elif(port.valid):
            m.d.sync += mine.eq(0)
        m.d.sync += [
            arriving.eq(Cat(read_activation, arriving)), refused.eq(read_model & ~free),
            self.bus_r_valid.eq(read_register | (port.valid & mine) | refused | arriving[3]),
        ]
        with m.If(read_register):
            m.d.sync += self.bus_r_data.eq(0)
            with m.Switch(register):
                for number, value in values.items():
                    with m.Case(number):
                        m.d.sync += self.bus_r_data.eq(value)
        with m.If(port.valid):
            m.d.sync += self.bus_r_data.eq(port.data)
        with m.If(arriving[3]):
            m.d.sync += self.bus_r_data.eq(activations.raw)
