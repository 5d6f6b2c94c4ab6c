"""The drain behind its gates, as a bench sees it: end-of-row requests in, writes out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, flipped

from ..hw.arch.config import AcceleratorConfig
from ..hw.drain import Drain, Gate

__all__ = ["DrainStand", "PATH"]

PATH = 12
"""Cycles from the issue of an end of row to its shadows: the fewest that an accelerator may have."""
GAP = 4
"""Cycles from an issue to the next, at least."""


class DrainStand(wiring.Component):
    """A :class:`.drain.Drain`, a :class:`.drain.Gate` for each stream, and what lies between issue and shadows.

    Members
    -------
    want, want_last_x, want_last : In(streams)
        A stream has an end of row to issue, and which; to hold until ``issued``.
    issued : Out(streams)
        It is issued in this cycle.
    arrived : Out(streams)
        It has reached the shadows.

    Others as :class:`.drain.Drain`.
    """

    OWN = ("finished", "finished_last_x", "finished_last", "release", "quick", "walk")

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        streams = config.streams
        self.drain = Drain(config)
        members = {name: member for name, member in self.drain.signature.members.items() if name not in self.OWN}
        super().__init__(members | {
            "want": In(streams), "want_last_x": In(streams), "want_last": In(streams), "issued": Out(streams),
            "arrived": Out(streams),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        drain = m.submodules.drain = self.drain
        for name in self.signature.members:
            if name in drain.signature.members:
                mine, its = getattr(flipped(self), name), getattr(drain, name)
                source, sink = (its, mine) if drain.signature.members[name].flow == Out else (mine, its)
                m.d.comb += getattr(sink, "as_value", lambda sink=sink: sink)().eq(source)
        m.d.comb += self.arrived.eq(drain.finished)
        for s in range(self.config.streams):
            gate = m.submodules[f"gate{s}"] = Gate(self.config)
            issue = self.issued[s]
            recent = Signal(GAP - 1, name=f"recent_{s}")
            line = Signal(PATH, name=f"line_{s}")
            flags = [Signal(2, name=f"flags_{s}_{n}") for n in range(PATH)]
            m.d.comb += [
                issue.eq(self.want[s] & gate.ready & ~recent.any()),
                gate.clear.eq(self.clear), gate.walk.eq(drain.walk), gate.quick.eq(drain.quick[s]),
                gate.parameters_ready.eq(self.parameters_ready[s]), gate.advance.eq(drain.advance[s]),
                gate.release.eq(drain.release[s]), gate.issue.eq(issue), gate.issue_last.eq(self.want_last[s]),
                drain.finished[s].eq(line[-1]),
            ]
            m.d.sync += [
                recent.eq(Cat(issue, recent)), line.eq(Cat(issue, line)),
                flags[0].eq(Cat(self.want_last_x[s], self.want_last[s])),
                *(to.eq(of) for to, of in zip(flags[1:-1], flags, strict=False)),
            ]
            with m.If(line[-2]):
                m.d.sync += flags[-1].eq(flags[-2])
            with m.If(self.clear):
                m.d.sync += line.eq(0)
            m.d.comb += Cat(drain.finished_last_x[s], drain.finished_last[s]).eq(flags[-1])
        return m
