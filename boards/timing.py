"""The slowest path of a mapped netlist, by the delay tables of its library.

Delays, slews and loads are taken from the tables, for both edges, with the worse slew of each net. Wires are free of
resistance and capacitance, the clock is ideal, inputs arrive with the clock edge. What has no tables (a memory that is
a black box) takes no time and wants none.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from ..hw.arch.errors import ToolError
from .liberty import Arc, Cell, Pin

__all__ = ["CLOCK_SLEW", "TimingPath", "slowest_path"]

CLOCK_SLEW = 0.05
"""Transition time of the clock and of inputs, in ns."""
EDGES = ("rise", "fall")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimingPath:
    """The path that bounds the clock.

    Parameters
    ----------
    delay : float
        From a clock edge to the next one that it allows, in ns: clock to output, logic, set-up time.
    setup : float
        The part of it that is the set-up time of the last element.
    steps : tuple of str
        Element by element: arrival in ns, cell type, net that it drives.
    """

    delay: float
    setup: float
    steps: tuple[str, ...]

    @property
    def mhz(self) -> float:
        """The clock that the path allows, in MHz."""
        return 1000 / self.delay


@dataclasses.dataclass
class _Arrival:
    time: float
    slew: float
    cell: str
    before: tuple[int, str] | None


def slowest_path(netlist: Mapping[str, Any], cell_of: Callable[[str], Cell | None]) -> TimingPath:
    """The slowest path of a flat netlist from register to register, or from or to a port.

    Parameters
    ----------
    netlist : mapping
        A module of a Yosys JSON netlist.
    cell_of : callable
        The library's cell of a cell type; ``None`` for what has no timing.

    Raises
    ------
    ToolError
        If logic has a loop, or there is no path.
    """
    return _Analysis(netlist, cell_of).path()


class _Analysis:
    def __init__(self, netlist: Mapping[str, Any], cell_of: Callable[[str], Cell | None]) -> None:
        self._netlist = netlist
        self._load: dict[int, float] = defaultdict(float)
        self._at: dict[int, dict[str, _Arrival]] = {}
        self._cells = {name: (cell, entry["connections"]) for name, entry in netlist["cells"].items()
                       if (cell := cell_of(entry["type"])) is not None}
        for cell, nets in self._cells.values():
            for port, bits in nets.items():
                pin = cell.pins.get(port)
                if pin is not None and not pin.output:
                    for bit in bits:
                        self._load[bit] += pin.capacitance

    def path(self) -> TimingPath:
        """Propagate arrivals, then take the endpoint with the latest."""
        self._propagate()
        best: tuple[float, float, int, str] | None = None
        for cell, nets in self._cells.values():
            for name, pin in cell.pins.items():
                for arc in pin.arcs:
                    if arc.kind.startswith("setup"):
                        best = self._later(best, nets.get(name, ()), arc)
        for port in self._netlist["ports"].values():
            if port["direction"] == "output":
                best = self._later(best, port["bits"], None)
        if best is None:
            raise ToolError("the design has no path to a register or an output: there is no clock to estimate")
        delay, setup, net, edge = best
        return TimingPath(delay=delay, setup=setup, steps=self._steps(net, edge))

    def _later(self, best: tuple[float, float, int, str] | None, bits: list[int],
               arc: Arc | None) -> tuple[float, float, int, str] | None:
        for bit in bits:
            for edge, arrival in self._at.get(bit, {}).items():
                if not arrival.cell:
                    continue  # from a port straight to a register
                setup = arc.delay[edge].at(CLOCK_SLEW, arrival.slew) if arc and edge in arc.delay else 0.0
                if best is None or arrival.time + setup > best[0]:
                    best = arrival.time + setup, setup, bit, edge
        return best

    def _propagate(self) -> None:
        """Visit each cell when all of its inputs that matter have arrived."""
        waiting: dict[str, int] = {}
        readers: dict[int, list[str]] = defaultdict(list)
        driven = {bit for cell, nets in self._cells.values() for port, bits in nets.items()
                  if (pin := cell.pins.get(port)) is not None and pin.output for bit in bits}
        ready = []
        for name, (cell, nets) in self._cells.items():
            inputs = {bit for pin in cell.pins.values() if pin.output for arc in pin.arcs if _through(arc)
                      for port in arc.related for bit in nets.get(port, ()) if bit in driven}
            waiting[name] = len(inputs)
            for bit in inputs:
                readers[bit].append(name)
            if not inputs:
                ready.append(name)
        for port in self._netlist["ports"].values():
            if port["direction"] == "input":
                for bit in port["bits"]:
                    self._at[bit] = {edge: _Arrival(0.0, CLOCK_SLEW, "", None) for edge in EDGES}
        done = 0
        while ready:
            name = ready.pop()
            done += 1
            cell, nets = self._cells[name]
            for port, pin in cell.pins.items():
                if pin.output:
                    for bit in nets.get(port, ()):
                        self._arrive(name, pin, nets, bit)
                        for reader in readers[bit]:
                            waiting[reader] -= 1
                            if not waiting[reader]:
                                ready.append(reader)
        if done < len(self._cells):
            looped = next(name for name, count in waiting.items() if count > 0)
            raise ToolError(f"the netlist has a loop of logic through {looped}; the design must not have one")

    def _arrive(self, name: str, pin: Pin, nets: Mapping[str, list[int]], net: int) -> None:
        found = self._at.setdefault(net, {})
        for arc in pin.arcs:
            if arc.kind in ("rising_edge", "falling_edge"):
                sources: list[tuple[tuple[int, str] | None, str, float, float]] = [
                    (None, edge, 0.0, CLOCK_SLEW) for edge in EDGES]
            elif _through(arc):
                sources = [((bit, edge), out, arrival.time, arrival.slew)
                           for port in arc.related for bit in nets.get(port, ())
                           for edge, arrival in self._at.get(bit, {}).items() for out in _outputs(arc.sense, edge)]
            else:
                continue
            for before, edge, time, slew in sources:
                if edge not in arc.delay:
                    continue
                after = time + arc.delay[edge].at(slew, self._load[net])
                wave = arc.slew[edge].at(slew, self._load[net]) if edge in arc.slew else slew
                old = found.get(edge)
                if old is None or after > old.time:
                    found[edge] = _Arrival(after, max(wave, old.slew if old else 0.0), name, before)
                else:
                    old.slew = max(old.slew, wave)

    def _steps(self, net: int, edge: str) -> tuple[str, ...]:
        names: dict[int, str] = {}
        for name, entry in self._netlist["netnames"].items():
            for k, bit in enumerate(entry["bits"]):
                # A name that a person gave wins over one that a tool made.
                if bit not in names or (names[bit].startswith("$") and not name.startswith("$")):
                    names[bit] = f"{name}[{k}]" if len(entry["bits"]) > 1 else name
        steps = []
        at: tuple[int, str] | None = (net, edge)
        while at is not None and (arrival := self._at[at[0]][at[1]]).cell:
            kind = self._netlist["cells"][arrival.cell]["type"]
            name = names.get(at[0], "")
            steps.append(f"{arrival.time:.2f} {kind} {'' if name.startswith('$') else name}".rstrip())
            at = arrival.before
        if at is not None:
            steps.append(f"0.00 input {names.get(at[0], '')}")
        return tuple(reversed(steps))


def _through(arc: Arc) -> bool:
    """Whether an arc leads through logic, not from a clock."""
    return arc.kind.startswith("combinational")


def _outputs(sense: str, edge: str) -> tuple[str, ...]:
    other = "fall" if edge == "rise" else "rise"
    return {"positive_unate": (edge,), "negative_unate": (other,)}.get(sense, (edge, other))
