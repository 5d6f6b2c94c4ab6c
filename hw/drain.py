"""Requantizes finished accumulators one by one and writes them back, behind the terms of the next row."""

from amaranth.hdl import Elaboratable, Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .arch.config import AcceleratorConfig
from .layer import LayerLayout
from .parameters import BIAS_WIDTH, ScaleLayout

__all__ = ["Drain", "Gate"]


class Gate(wiring.Component):
    """Lets a stream issue an end of row only when its shadows will have been read as it reaches them.

    Members
    -------
    clear : In(1)
    walk : In
        Pixels that a row pass drains, less one (of :class:`Drain`).
    quick : In(1)
        The drain is this stream's alone and takes a pixel a cycle with the present parameters (of :class:`Drain`).
    parameters_ready : In(1)
        Of :class:`.parameters.ParameterReader`, this stream's bit.
    advance, release : In(1)
        Of :class:`Drain`, this stream's bit.
    issue, issue_last : In(1)
        An end of row is issued in this cycle; that of the map's last block.
    ready : Out(1)
        An end of row may be issued (a register).
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        super().__init__({
            "clear": In(1), "walk": In(range(max(2, config.lanes))), "quick": In(1), "parameters_ready": In(1),
            "advance": In(1), "release": In(1), "issue": In(1), "issue_last": In(1), "ready": Out(1),
        })


class Drain(wiring.Component):
    """Empties the shadows of all streams after each row pass. One bit, or one element of an array, a stream.

    Members
    -------
    clear, start : In(1)
        Stop; begin a layer.
    layer : In(LayerLayout())
    image, images : In(6)
        Bank that is written with ``FLATTEN``; lanes that are drained with ``BATCH``, less one.
    finished, finished_last_x, finished_last : In(streams)
        Of the streams' :class:`.lanes.LaneArray`.
    head : In
        Array of signed(acc_width).
    drain_lane, drain_shift : Out, Out(streams)
        To the lanes: the lane's number is common to all.
    parameters_ready, bias, scale, channel : In
        Of :class:`.parameters.ParameterReader`.
    advance : Out(streams)
        Strobe, to :class:`.parameters.ParameterReader` and :class:`Gate`: the stream's parameters are copied.
    release, quick, walk : Out(streams), Out(streams), Out
        To :class:`Gate`; ``walk`` is common to all.
    layer_done : Out(1)
        Strobe: the last output channel is written.
    row : Out(16)
        Output channels done.
    w_en, w_bank, w_addr, w_data : Out
        To the activation memories; ``w_bank`` is a number.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        s = config.streams
        super().__init__({
            "clear": In(1), "start": In(1), "layer": In(LayerLayout()), "image": In(6), "images": In(6),
            "finished": In(s), "finished_last_x": In(s), "finished_last": In(s),
            "head": In(data.ArrayLayout(signed(config.acc_width), s)),
            "drain_lane": Out(range(max(2, config.lanes))), "drain_shift": Out(s),
            "parameters_ready": In(s), "bias": In(data.ArrayLayout(signed(BIAS_WIDTH), s)),
            "scale": In(data.ArrayLayout(ScaleLayout(), s)), "channel": In(data.ArrayLayout(16, s)), "advance": Out(s),
            "release": Out(s), "quick": Out(s), "walk": Out(range(max(2, config.lanes))),
            "layer_done": Out(1), "row": Out(16),
            "w_en": Out(1), "w_bank": Out(range(max(2, config.lanes))), "w_addr": Out(ceil_log2(config.act_depth)),
            "w_data": Out(config.act_bits),
        })

    def elaborate(self, platform: object) -> Elaboratable:
        return Module()
