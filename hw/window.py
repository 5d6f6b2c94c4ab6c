"""The way from a micro-operation to the activations of all lanes: tap generator and activation memory of one stream."""

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.utils import exact_log2

from .activations import ActivationMemory
from .arch.config import AcceleratorConfig
from .arch.image import Flag
from .tapgen import TapGenerator

__all__ = ["Window"]

_INPUTS = ("clear", "start", "layer", "stream_base", "load", "load_begin", "load_positions", "op", "op_valid",
           "op_last_x", "op_last", "probe", "probe_addr")
_OUTPUTS = ("shift", "neg", "term", "rectify", "eor", "last_x", "last", "overrun")
_WRITE = ("w_en", "w_bank", "w_addr", "w_data")


class Window(wiring.Component):
    """Reads each tap of a stream for all of its lanes.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    clear, start, layer, stream_base, load, load_begin, load_positions, op, op_valid, op_last_x, op_last, overrun
        See :class:`.tapgen.TapGenerator`.
    x : Out
        An activation a lane, row-major, ``act_bits + 1`` bits each, two's complement; 0 where the tap lies outside, and
        in all lanes unless ``term``. :attr:`LATENCY` cycles after the operation.
    shift, neg, term, rectify, eor, last_x, last : Out
        The operation, in step with ``x``; see :class:`.tapgen.TapGenerator`.
    w_en, w_bank, w_addr, w_data : In
        Write one activation; ``w_bank`` is the bank's number, row-major. A tap that is being read in the same cycle may
        get anything.
    probe, probe_addr, probe_bank, raw : In, Out
        While no layer runs: ``raw`` is what a bank holds, :attr:`PROBE_LATENCY` cycles after ``probe``.
    """

    LATENCY = TapGenerator.LATENCY + ActivationMemory.LATENCY
    """Cycles from an operation to its activations."""
    PROBE_LATENCY = LATENCY - TapGenerator.PROBE_LEAD

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._taps, self._banks = TapGenerator(config), ActivationMemory(config)
        taps, banks = self._taps.signature.members, self._banks.signature.members
        super().__init__({
            **{name: taps[name] for name in (*_INPUTS, *_OUTPUTS)},
            **{name: banks[name] for name in ("x", *_WRITE)},
            "probe_bank": banks["w_bank"], "raw": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.taps = taps = self._taps
        m.submodules.banks = banks = self._banks
        log_x, log_y = exact_log2(self.config.lanes_x), exact_log2(self.config.lanes_y)
        flags = self.layer.tag_flags
        signed, maximum = (flags & Flag.X_SIGNED).any(), (flags & Flag.MAX).any()
        m.d.comb += [getattr(taps, name).eq(getattr(self, name)) for name in _INPUTS]
        m.d.comb += [getattr(self, name).eq(getattr(taps, name)) for name in _OUTPUTS]
        m.d.comb += [getattr(banks, name).eq(getattr(self, name)) for name in _WRITE]
        m.d.comb += [getattr(banks, name).eq(getattr(taps, name)) for name in
                     ("addr", "addr_y", "residue_y", "residue_x", "outside_y", "outside_x")]
        m.d.comb += [
            banks.col_step.eq(self.layer.in_col_step), self.x.as_value().eq(banks.x.as_value()),
            taps.probe_x.eq(self.probe_bank[:log_x]), taps.probe_y.eq(self.probe_bank[log_x:log_x + log_y]),
            self.raw.eq(banks.x[0]),
        ]
        m.d.sync += [banks.extend.eq(signed & ~maximum), banks.invert.eq(signed & maximum & ~taps.probing)]
        return m
