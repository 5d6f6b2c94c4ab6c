"""A design that holds components side by side, so that one build serves all component benches.

Each component's ports are the yard's, prefixed with its name and ``__``. No component is connected to another.
"""

from collections.abc import Callable, Iterable

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped
from amaranth.utils import ceil_log2

from ..hw.arch.config import AcceleratorConfig

__all__ = ["MEMORY_DEPTH", "MEMORY_PORTS", "UNITS", "Yard"]

MEMORY_DEPTH, MEMORY_PORTS = 256, 5


def _codetable(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.decoder import CodeTable

    return CodeTable(config.max_code_bits)


def _wordreader(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.wordreader import WordReader

    return WordReader(config, ceil_log2(config.weight_depth))


def _decoder(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.decoder import Decoder

    return Decoder(config, ceil_log2(config.weight_depth))


def _rowbuffer(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.rowbuffer import RowBuffer

    return RowBuffer(config)


def _expander(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.expander import Expander

    return Expander(config)


def _front(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.front import Front

    return Front(config, ceil_log2(config.weight_depth))


def _blocks(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.blocks import BlockCounter

    return BlockCounter(config)


def _tapgen(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.tapgen import TapGenerator

    return TapGenerator(config)


def _activations(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.activations import ActivationMemory

    return ActivationMemory(config)


def _window(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.window import Window

    return Window(config)


def _lane(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.lanes import Lane

    return Lane(config)


def _lanes(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.lanes import LaneArray

    return LaneArray(config)


def _parameters(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.parameters import ParameterReader

    return ParameterReader(config, ceil_log2(config.weight_depth))


def _drain(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.drain import Drain

    return Drain(config)


def _stand(config: AcceleratorConfig) -> wiring.Component:
    from .stand import DrainStand

    return DrainStand(config)


def _sequencer(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.sequencer import Sequencer

    return Sequencer(config, ceil_log2(config.weight_depth))


def _memory(config: AcceleratorConfig) -> wiring.Component:
    from ..hw.fetch import ModelMemory

    return ModelMemory(MEMORY_DEPTH, MEMORY_PORTS, bank_words=MEMORY_DEPTH // 4)


UNITS: dict[str, Callable[[AcceleratorConfig], wiring.Component]] = {
    "codetable": _codetable, "wordreader": _wordreader, "decoder": _decoder, "rowbuffer": _rowbuffer,
    "expander": _expander, "front": _front, "blocks": _blocks, "tapgen": _tapgen, "activations": _activations,
    "window": _window, "lane": _lane, "lanes": _lanes, "parameters": _parameters, "drain": _drain, "stand": _stand,
    "sequencer": _sequencer, "memory": _memory,
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
