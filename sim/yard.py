"""A design that holds one of each component side by side, so that one build serves all component benches.

Each component's ports are the yard's, prefixed with its name and ``__``. No component is connected to another, but for
the drain and its gate, whose handshake is combinational.
"""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped
from amaranth.utils import ceil_log2

from ..hw.activations import ActivationMemory
from ..hw.arch.config import AcceleratorConfig
from ..hw.bitreader import BitReader
from ..hw.blocks import BlockCounter
from ..hw.decoder import CodeTable, Decoder
from ..hw.drain import Drain, DrainGate
from ..hw.expander import Expander
from ..hw.fetch import ModelMemory
from ..hw.lanes import Lane, LaneArray
from ..hw.layer import LayerLayout
from ..hw.parameters import BIAS_WIDTH, ParameterReader, ScaleLayout
from ..hw.sequencer import Sequencer
from ..hw.tapgen import KernelTable, TapGenerator

__all__ = ["DRAIN_DELAY", "MEMORY_DEPTH", "MEMORY_PORTS", "DrainUnit", "Yard"]

DRAIN_DELAY = 13
"""Cycles from the issue of an end of row to its arrival at the shadows, as in the accelerator."""
MEMORY_DEPTH, MEMORY_PORTS = 256, 5


class DrainUnit(wiring.Component):
    """The drain and its gate, connected as in the accelerator, with a fixed delay in place of what lies between them.

    Members
    -------
    want, row_last : In(1)
        An end of row waits to be issued; the output channel's last.
    issued : Out(1)
        It is issued in this cycle.
    finished, finished_row_last : Out(1)
        A row pass has reached the shadows.
    parameters_ready : In(1)
        From the parameter reader, without the cycle of ``row_done``.
    clear, start, layer, head, shift, bias, scale, row_done, layer_done, row, w_en, w_bank, w_addr, w_data
        As in :class:`~shiftwright.hw.drain.Drain`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.drain = Drain(config)
        self.gate = DrainGate(config.lanes)
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "want": In(1), "row_last": In(1),
            "issued": Out(1), "finished": Out(1), "finished_row_last": Out(1), "parameters_ready": In(1),
            "head": In(signed(config.acc_width)), "shift": Out(1),
            "bias": In(signed(BIAS_WIDTH)), "scale": In(ScaleLayout()),
            "row_done": Out(1), "layer_done": Out(1), "row": Out(16),
            "w_en": Out(1), "w_bank": Out(config.lanes), "w_addr": Out(len(self.drain.w_addr)),
            "w_data": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.drain = drain = self.drain
        m.submodules.gate = gate = self.gate
        passed = Cat(self.issued, self.row_last)
        for n in range(DRAIN_DELAY):
            following = Signal(2, name=f"passed{n}")
            m.d.sync += following.eq(passed & self.issued.replicate(2) if n == 0 else passed)
            with m.If(self.clear):
                m.d.sync += following.eq(0)
            passed = following
        m.d.comb += [
            self.issued.eq(self.want & gate.ready), Cat(self.finished, self.finished_row_last).eq(passed),
            gate.clear.eq(self.clear), gate.pixels.eq(drain.pixels), gate.steps.eq(drain.steps),
            gate.issue.eq(self.issued), gate.row_last.eq(self.row_last),
            gate.parameters_ready.eq(self.parameters_ready & ~drain.row_done), gate.row_done.eq(drain.row_done),
            drain.finished.eq(self.finished), drain.row_last.eq(self.finished_row_last),
        ]
        for name in ("clear", "start", "layer", "head", "bias", "scale"):
            m.d.comb += getattr(drain, name).eq(getattr(self, name))
        for name in ("shift", "row_done", "layer_done", "row", "w_en", "w_bank", "w_addr", "w_data"):
            m.d.comb += getattr(self, name).eq(getattr(drain, name))
        return m


def _units(config: AcceleratorConfig) -> dict[str, wiring.Component]:
    addr = ceil_log2(config.weight_depth)
    return {
        "codetable": CodeTable(config.max_code_bits),
        "bitreader": BitReader(addr),
        "decoder": Decoder(config, addr),
        "expander": Expander(config),
        "blocks": BlockCounter(config),
        "kerneltable": KernelTable(config),
        "tapgen": TapGenerator(config),
        "activations": ActivationMemory(config),
        "lane": Lane(config),
        "lanes": LaneArray(config),
        "parameters": ParameterReader(addr),
        "drain": DrainUnit(config),
        "sequencer": Sequencer(config, addr),
        "memory": ModelMemory(MEMORY_DEPTH, MEMORY_PORTS),
    }


class Yard(wiring.Component):
    """All components of one configuration.

    Members
    -------
    <unit>
        A component's signature, as the component sees it.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.units = _units(config)
        super().__init__({name: Out(unit.signature) for name, unit in self.units.items()})

    @property
    def inputs(self) -> list[str]:
        """Names of the flattened input ports."""
        return ["__".join(map(str, path)) for path, member, _ in self.signature.flatten(self) if member.flow == In]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name, unit in self.units.items():
            m.submodules[name] = unit
            wiring.connect(m, unit, flipped(getattr(self, name)))
        return m
