"""The accelerator behind its word bus."""

from amaranth.hdl import Cat, Elaboratable, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arch.bus import (
    BANK_SHIFT,
    BUS_ADDR_BITS,
    BUS_DATA_BITS,
    IMAGE_AT,
    IMAGES_AT,
    MAP_VERSION,
    Control,
    Region,
    Register,
)
from .arch.config import AcceleratorConfig
from .arch.image import MODEL_MAGIC
from .arch.timing import memory_latency
from .drain import Drain, Gate
from .fetch import ModelMemory
from .front import Front
from .lanes import LaneArray
from .parameters import ParameterReader
from .sequencer import Section, Sequencer
from .window import Window

__all__ = ["Accelerator"]

IMAGE_BITS = IMAGES_AT - IMAGE_AT


class Accelerator(wiring.Component):
    """Streams of decoder, window and lanes; the drain that they share; and the sequencer that runs them.

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
        streams = config.streams
        m.submodules.model = model = ModelMemory(config.weight_depth, streams + 2, latency=memory_latency(config))
        width = model.addr_width
        m.submodules.sequencer = sequencer = Sequencer(config, width)
        m.submodules.drain = drain = Drain(config)
        m.submodules.parameters = parameters = ParameterReader(config, width)
        layer = sequencer.layer
        wiring.connect(m, parameters.mem, getattr(model, f"port{streams}"))

        fronts, windows, lanes = [], [], []
        for s in range(streams):
            m.submodules[f"front{s}"] = front = Front(config, width)
            m.submodules[f"window{s}"] = window = Window(config)
            m.submodules[f"lanes{s}"] = array = LaneArray(config)
            m.submodules[f"gate{s}"] = gate = Gate(config)
            wiring.connect(m, front.mem, getattr(model, f"port{s}"))
            fronts.append(front)
            windows.append(window)
            lanes.append(array)
            m.d.comb += [
                front.clear.eq(sequencer.clear), front.layer.eq(layer), front.load.eq(sequencer.load),
                front.load_begin.eq(sequencer.load_begin),
                front.load_codes.eq(sequencer.load_valid & (sequencer.load_section == Section.CODES)),
                front.load_dictionary.eq(sequencer.load_valid & (sequencer.load_section == Section.DICTIONARY)),
                front.start.eq(sequencer.run), front.addr.eq(getattr(sequencer, f"addr_codes_{s}")),
                front.rows.eq(getattr(sequencer, f"stream_rows_{s}")), front.limit.eq(sequencer.limit),
                front.eor_ready.eq(gate.ready),
                window.clear.eq(sequencer.clear), window.layer.eq(layer), window.load.eq(sequencer.load),
                window.load_begin.eq(sequencer.tables_begin),
                window.load_positions.eq(sequencer.load_valid & (sequencer.load_section == Section.POSITIONS)),
                window.start.eq(sequencer.run), window.stream_base.eq(getattr(sequencer, f"stream_base_{s}")),
                array.x.as_value().eq(window.x.as_value()), array.restart.eq(sequencer.run),
                array.drain_lane.eq(drain.drain_lane), array.drain_shift.eq(drain.drain_shift[s]),
                gate.clear.eq(sequencer.clear), gate.walk.eq(drain.walk), gate.quick.eq(drain.quick[s]),
                gate.parameters_ready.eq(parameters.ready[s]), gate.advance.eq(drain.advance[s]),
                gate.release.eq(drain.release[s]), gate.issue.eq(front.eor_issue), gate.issue_last.eq(front.eor_last),
                drain.finished[s].eq(array.finished), drain.finished_last_x[s].eq(array.finished_last_x),
                drain.finished_last[s].eq(array.finished_last), drain.head[s].eq(array.head),
                drain.bias[s].eq(parameters.bias[s]), drain.scale[s].eq(parameters.scale[s]),
                drain.channel[s].eq(parameters.channel[s]),
                parameters.addr[s].eq(getattr(sequencer, f"addr_parameters_{s}")),
                sequencer.term[s].eq(front.issue_term), sequencer.starved[s].eq(front.starved),
                sequencer.stalled[s].eq(front.stalled),
            ]
            for name in ("op", "op_valid", "op_last_x", "op_last"):
                m.d.comb += getattr(window, name).eq(getattr(front, name))
            for name in ("shift", "neg", "rectify", "eor", "last_x", "last"):
                m.d.comb += getattr(array, name).eq(getattr(window, name))
        m.d.comb += [
            self.busy.eq(sequencer.busy), self.done.eq(sequencer.done), self.layer_done.eq(sequencer.layer_done),
            sequencer.pause.eq(self.pause), sequencer.finished.eq(drain.layer_done),
            sequencer.bad_codeword.eq(Cat(front.bad_codeword for front in fronts).any()),
            sequencer.stream_overrun.eq(Cat(front.overrun for front in fronts).any()),
            sequencer.tap_overrun.eq(Cat(window.overrun for window in windows).any()),
            drain.clear.eq(sequencer.clear), drain.start.eq(sequencer.run), drain.layer.eq(layer),
            drain.parameters_ready.eq(parameters.ready),
            parameters.clear.eq(sequencer.clear), parameters.start.eq(sequencer.run), parameters.layer.eq(layer),
            parameters.advance.eq(drain.advance),
        ]
        self._bus(m, model, sequencer, windows, drain)
        return m

    def _bus(self, m: Module, model: ModelMemory, sequencer: Sequencer, windows: list[Window], drain: Drain) -> None:
        """Memories and registers on the bus."""
        config = self.config
        region = self.bus_addr[-2:]
        bank = self.bus_addr[BANK_SHIFT:-2]
        register = self.bus_addr[:4]
        free = Signal()
        m.d.sync += free.eq(~sequencer.busy | sequencer.paused)

        cycles = Signal(32)
        with m.If(sequencer.start):
            m.d.sync += cycles.eq(0)
        with m.Elif(sequencer.busy & ~sequencer.paused):
            m.d.sync += cycles.eq(cycles + 1)

        write = self.bus_w_en
        control = Signal()
        m.d.comb += [
            control.eq(write & (region == Region.REGISTERS) & (register == Register.CONTROL)),
            sequencer.start.eq(control & (self.bus_w_data & Control.START).any() & ~sequencer.busy),
            sequencer.abort.eq(control & (self.bus_w_data & Control.ABORT).any()),
            sequencer.head.eq((self.bus_w_data & Control.HEAD).any()),
            sequencer.tail.eq((self.bus_w_data & Control.TAIL).any()),
        ]
        with m.If(sequencer.start):
            m.d.sync += [drain.image.eq(self.bus_w_data[IMAGE_AT:IMAGES_AT]),
                         drain.images.eq(self.bus_w_data[IMAGES_AT:IMAGES_AT + IMAGE_BITS])]
        host = Signal()
        m.d.comb += [
            host.eq(write & (region == Region.MODEL) & free),
            model.w_en.eq(host | sequencer.w_en),
            model.w_addr.eq(Mux(sequencer.w_en, sequencer.w_addr, self.bus_addr)),
            model.w_data.eq(Mux(sequencer.w_en, sequencer.w_data, self.bus_w_data)),
        ]

        # The drain does not write while the host may: a register for both keeps the choice off their paths.
        w_en, w_bank, w_addr, w_data = (Signal.like(getattr(drain, name), name=name)
                                        for name in ("w_en", "w_bank", "w_addr", "w_data"))
        host_write = Signal()
        m.d.comb += host_write.eq(write & (region == Region.ACTIVATIONS) & free)
        m.d.sync += [
            w_en.eq(host_write | drain.w_en), w_bank.eq(Mux(free, bank, drain.w_bank)),
            w_addr.eq(Mux(free, self.bus_addr, drain.w_addr)), w_data.eq(Mux(free, self.bus_w_data, drain.w_data)),
        ]
        for window in windows:
            m.d.comb += [window.w_en.eq(w_en), window.w_bank.eq(w_bank), window.w_addr.eq(w_addr),
                         window.w_data.eq(w_data)]

        fingerprint = config.fingerprint
        values = {
            Register.MAGIC: MODEL_MAGIC, Register.VERSION: MAP_VERSION,
            Register.FINGERPRINT_LO: fingerprint & 0xFFFF, Register.FINGERPRINT_HI: fingerprint >> 16,
            Register.STATUS: Cat(sequencer.busy, sequencer.done, sequencer.paused, Signal(1), sequencer.status),
            Register.ERROR_LAYER: sequencer.layer_number, Register.ERROR_ROW: drain.row,
            Register.CYCLES_LO: cycles[:16], Register.CYCLES_HI: cycles[16:],
        }
        probed = windows[0]
        arriving = Signal(Window.PROBE_LATENCY)
        read_register, read_activation, read_model = Signal(), Signal(), Signal()
        m.d.comb += [
            read_register.eq(self.bus_r_en & (region == Region.REGISTERS)),
            read_activation.eq(self.bus_r_en & (region == Region.ACTIVATIONS)),
            read_model.eq(self.bus_r_en & (region == Region.MODEL)),
            probed.probe.eq(read_activation & free), probed.probe_addr.eq(self.bus_addr), probed.probe_bank.eq(bank),
        ]
        # The bus shares the model memory's last port with the sequencer, which is idle when the bus may read.
        port = getattr(model, f"port{model.ports - 1}")
        mine = Signal()
        refused = Signal()
        m.d.comb += [
            port.req.eq(sequencer.mem.req | (read_model & free)),
            port.addr.eq(Mux(free, self.bus_addr, sequencer.mem.addr)),
            sequencer.mem.gnt.eq(port.gnt), sequencer.mem.data.eq(port.data),
            sequencer.mem.valid.eq(port.valid & ~mine),
        ]
        with m.If(read_model & free):
            m.d.sync += mine.eq(1)
        with m.Elif(port.valid):
            m.d.sync += mine.eq(0)
        m.d.sync += [
            arriving.eq(Cat(read_activation, arriving)), refused.eq(read_model & ~free),
            self.bus_r_valid.eq(read_register | (port.valid & mine) | refused | arriving[-1]),
        ]
        with m.If(read_register):
            m.d.sync += self.bus_r_data.eq(0)
            with m.Switch(register):
                for number, value in values.items():
                    with m.Case(number):
                        m.d.sync += self.bus_r_data.eq(value)
        with m.If(port.valid & mine):
            m.d.sync += self.bus_r_data.eq(port.data)
        with m.If(arriving[-1]):
            m.d.sync += self.bus_r_data.eq(probed.raw)
