"""A design that holds components side by side, so that one build serves all component benches.

Each component's ports are the yard's, prefixed with its name and ``__``. No component is connected to another.
"""

from collections.abc import Callable, Iterable

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped
from amaranth.utils import ceil_log2

from ..hw.activations import ActivationMemory
from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.timing import memory_latency
from ..hw.blocks import BlockCounter
from ..hw.decoder import CodeTable, Decoder
from ..hw.drain import Drain
from ..hw.expander import Expander
from ..hw.fetch import ModelMemory
from ..hw.front import Front
from ..hw.lanes import Lane, LaneArray
from ..hw.parameters import ParameterReader
from ..hw.rowbuffer import RowBuffer
from ..hw.sequencer import Sequencer
from ..hw.tapgen import TapGenerator
from ..hw.window import Window
from ..hw.wordreader import WordReader
from .stand import DrainStand

__all__ = ["MEMORY_DEPTH", "MEMORY_PORTS", "UNITS", "Yard"]

MEMORY_DEPTH, MEMORY_PORTS = 256, 5


def _addr_width(config: AcceleratorConfig) -> int:
    return ceil_log2(config.weight_depth)


UNITS: dict[str, Callable[[AcceleratorConfig], wiring.Component]] = {
    "codetable": lambda config: CodeTable(config.max_code_bits),
    "wordreader": lambda config: WordReader(config, _addr_width(config)),
    "decoder": lambda config: Decoder(config, _addr_width(config)),
    "rowbuffer": RowBuffer,
    "expander": Expander,
    "front": lambda config: Front(config, _addr_width(config)),
    "blocks": BlockCounter,
    "tapgen": TapGenerator,
    "activations": ActivationMemory,
    "window": Window,
    "lane": Lane,
    "lanes": LaneArray,
    "parameters": lambda config: ParameterReader(config, _addr_width(config)),
    "drain": Drain,
    "stand": DrainStand,
    "sequencer": lambda config: Sequencer(config, _addr_width(config)),
    "memory": lambda config: ModelMemory(MEMORY_DEPTH, MEMORY_PORTS, latency=memory_latency(config),
                                         bank_words=MEMORY_DEPTH // 4),
}
"""How each component is made."""


class Yard(wiring.Component):
    """Components of one configuration.

    Parameters
    ----------
    config : AcceleratorConfig
    names : iterable of str
        Which of :data:`UNITS`.

    Members
    -------
    <unit>
        A component's signature, as the component sees it.
    """

    def __init__(self, config: AcceleratorConfig, names: Iterable[str] = tuple(UNITS)) -> None:
        self.config = config
        self.units = {name: UNITS[name](config) for name in names}
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
