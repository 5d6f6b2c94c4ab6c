"""Standard-cell and memory libraries in Liberty format: areas, pins and delay tables."""

import bisect
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ..hw.arch.errors import DataError
from .functions import truth_table

__all__ = ["Arc", "Cell", "Library", "Pin", "Table", "read_liberty"]

RISE, FALL = "rise", "fall"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A delay, slew or constraint over two variables.

    Parameters
    ----------
    slews, loads : tuple of float
        Where it is given: transition time of the input (or of the clock) in ns, and load of the output in pF (or
        transition time of the data in ns). One without an axis has a single point there.
    values : tuple of tuple of float
        In ns, a row a slew.
    """

    slews: tuple[float, ...]
    loads: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, slew: float, load: float) -> float:
        """Interpolated linearly; beyond its ends, extrapolated."""
        i, u = _place(self.slews, slew)
        j, v = _place(self.loads, load)
        rows = [row[j] + v * (row[j + 1] - row[j]) if len(row) > 1 else row[0] for row in self.values[i:i + 2]]
        return rows[0] + u * (rows[1] - rows[0]) if len(rows) > 1 else rows[0]

    @property
    def greatest(self) -> float:
        """The greatest value in the table."""
        return max(max(row) for row in self.values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arc:
    """How an output follows an input, or what an input keeps to a clock.

    Parameters
    ----------
    related : tuple of str
        Input pins.
    sense : str
        ``"positive_unate"``, ``"negative_unate"`` or ``"non_unate"``.
    kind : str
        Liberty's ``timing_type``: ``"combinational"``, ``"rising_edge"``, ``"setup_rising"``, ...
    delay, slew : mapping of str to Table
        By edge, ``"rise"`` or ``"fall"``; a constraint has only ``delay``.
    """

    related: tuple[str, ...]
    sense: str
    kind: str
    delay: Mapping[str, Table]
    slew: Mapping[str, Table]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pin:
    """A pin, or a bus.

    Parameters
    ----------
    output : bool
    capacitance : float
        In pF.
    function : str
        As in the library; empty when there is none.
    arcs : tuple of Arc
    """

    output: bool
    capacitance: float
    function: str
    arcs: tuple[Arc, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell.

    Parameters
    ----------
    name : str
    area : float
        In the library's unit, by custom square micrometres.
    pins : mapping of str to Pin
    sequential : bool
        Flip-flop, latch or clock gate.
    usable : bool
        Not marked ``dont_use``.
    depth, width : int
        Words and bits a word of a memory; 0 for other cells.
    """

    name: str
    area: float
    pins: Mapping[str, Pin]
    sequential: bool
    usable: bool
    depth: int = 0
    width: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Library:
    """A library.

    Parameters
    ----------
    name : str
    cells : mapping of str to Cell
    conditions : str
        Process, voltage and temperature, for people.
    """

    name: str
    cells: Mapping[str, Cell]
    conditions: str

    def smallest(self, function: Callable[..., bool], inputs: int) -> Cell | None:
        """The smallest usable gate with one output, this function of its inputs; ``None`` when there is none."""
        wanted = tuple(bool(function(*values)) for values in itertools.product((False, True), repeat=inputs))
        found = []
        for cell in self.cells.values():
            names = [name for name, pin in cell.pins.items() if not pin.output]
            outputs = [pin.function for pin in cell.pins.values() if pin.output]
            if (cell.usable and not cell.sequential and len(names) == inputs and len(outputs) == 1 and outputs[0]
                    and truth_table(outputs[0], names) == wanted):
                found.append(cell)
        return min(found, key=lambda cell: (cell.area, cell.name), default=None)


@dataclasses.dataclass
class _Group:
    kind: str
    names: list[str]
    attributes: dict[str, str] = dataclasses.field(default_factory=dict)
    groups: list["_Group"] = dataclasses.field(default_factory=list)

    def every(self, *kinds: str) -> Iterator["_Group"]:
        return (group for group in self.groups if group.kind in kinds)

    def first(self, kind: str) -> "_Group | None":
        return next(self.every(kind), None)


_TOKEN = re.compile(r'"[^"]*"|[{}();:\n]|[^\s{}();:"]+')


def read_liberty(path: str | Path) -> Library:
    """Read a Liberty file.

    Raises
    ------
    DataError
        If it can't be read or is none.
    """
    try:
        text = Path(path).read_text(errors="replace")
    except OSError as error:
        raise DataError(f"{path}: can't read the library: {error.strerror}") from None
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL).replace("\\\n", " ").replace("\\\r\n", " ")
    top = _Group("", [])
    try:
        _parse(_TOKEN.findall(text), 0, top)
        root = top.first("library")
        if root is None:
            raise ValueError("it has no library")
        return _library(root)
    except (ValueError, IndexError, KeyError, RecursionError) as error:
        reason = "it ends too early" if isinstance(error, IndexError) else error
        raise DataError(f"{path}: not a Liberty file: {reason}; give the .lib file of a cell library") from None


def _parse(tokens: list[str], at: int, into: _Group) -> int:
    """Statements up to the group's closing brace, or to the end of the text; returns where they end."""
    while at < len(tokens):
        name, at = tokens[at], at + 1
        if name == "}":
            return at
        if name in ";\n":
            continue
        if tokens[at] == ":":
            # Some libraries leave out the semicolon at the end of a line.
            end = next(k for k in range(at + 2, len(tokens)) if tokens[k] in ";\n}")
            into.attributes[name] = " ".join(tokens[at + 1:end]).strip('"')
            at = end
        elif tokens[at] == "(":
            end = tokens.index(")", at)
            value = [token for token in tokens[at + 1:end] if token != "\n"]
            at = end + 1
            while at < len(tokens) and tokens[at] == "\n":
                at += 1
            if at < len(tokens) and tokens[at] == "{":
                group = _Group(name, [part for part in "".join(value).replace('"', "").split(",") if part])
                into.groups.append(group)
                at = _parse(tokens, at + 1, group)
            else:
                into.attributes[name] = " ".join(value)
        else:
            raise ValueError(f"{name!r} must be followed by ':' or '(', not {tokens[at]!r}")
    if into.kind:
        raise ValueError(f"the group {into.kind!r} is not closed")
    return at


def _library(root: _Group) -> Library:
    time = _unit(root.attributes.get("time_unit", "1ns"), {"ns": 1.0, "ps": 1e-3, "us": 1e3})
    capacitance = root.attributes.get("capacitive_load_unit", "1,pf").replace('"', "").replace(",", " ")
    load = _unit(capacitance.replace(" ", "").lower(), {"pf": 1.0, "ff": 1e-3})
    # Which of a table's variables is the load; constraints have the clock's slew there.
    swapped = {group.names[0]: group.attributes.get("variable_1", "").startswith(("total_output", "constrained"))
               for group in root.every("lu_table_template") if group.names}
    cells = [_cell(group, time, load, swapped) for group in root.every("cell")]
    corner = [f"{root.attributes[name]} {unit}" for name, unit in (("nom_voltage", "V"), ("nom_temperature", "C"))
              if name in root.attributes]
    return Library(name=root.names[0] if root.names else "", cells={cell.name: cell for cell in cells},
                   conditions=", ".join(corner))


def _cell(group: _Group, time: float, load: float, swapped: Mapping[str, bool]) -> Cell:
    memory = group.first("memory")
    pins: dict[str, Pin] = {}
    for pin in group.every("pin", "bus", "bundle"):
        # A bus has its timing in itself or in the pins in it.
        parts = [pin, *pin.every("pin")]
        arcs = tuple(_arc(timing, time, load, swapped) for part in parts for timing in part.every("timing"))
        capacitance = max(float(part.attributes.get("capacitance", 0)) for part in parts) * load
        for name in pin.names:
            pins[name] = Pin(output=pin.attributes.get("direction") == "output", capacitance=capacitance, arcs=arcs,
                             function=pin.attributes.get("function", ""))
    return Cell(
        name=group.names[0], area=float(group.attributes.get("area", 0)), pins=pins,
        sequential=any(True for _ in group.every("ff", "latch", "ff_bank", "latch_bank", "statetable")),
        usable=group.attributes.get("dont_use", "false") != "true",
        depth=1 << int(memory.attributes["address_width"]) if memory else 0,
        width=int(memory.attributes["word_width"]) if memory else 0)


def _arc(timing: _Group, time: float, load: float, swapped: Mapping[str, bool]) -> Arc:
    def tables(*names: str) -> dict[str, Table]:
        return {edge: _table(found, time, load, swapped.get("".join(found.names[:1]), False))
                for edge in (RISE, FALL) for name in names if (found := timing.first(name.format(edge))) is not None}

    return Arc(
        related=tuple(timing.attributes.get("related_pin", "").split()), delay=tables("cell_{}", "{}_constraint"),
        sense=timing.attributes.get("timing_sense", "non_unate"), slew=tables("{}_transition"),
        kind=timing.attributes.get("timing_type", "combinational"))


def _table(group: _Group, time: float, load: float, swap: bool) -> Table:
    rows = [[float(value) * time for value in re.split(r"[,\s]+", row.strip()) if value]
            for row in re.findall(r'"([^"]*)"', group.attributes["values"])]
    axes = [[float(value) for value in re.findall(r"[-+.\deE]+", group.attributes.get(name, "0"))]
            for name in ("index_1", "index_2")]
    if swap:
        rows = [list(row) for row in zip(*rows, strict=True)] if len(axes[1]) > 1 or len(rows) > 1 else \
            [rows[0]]
        axes.reverse()
    constraint = group.kind.endswith("constraint")
    if [len(axes[0]), len(axes[1])] != [len(rows), len(rows[0])]:
        # One variable: it is the axis that the values lie along.
        axes = [axes[0] if len(rows) == len(axes[0]) else [0.0], axes[1] if len(rows[0]) == len(axes[1]) else axes[0]]
    if [len(axes[0]), len(axes[1])] != [len(rows), len(rows[0])]:
        raise ValueError(f"a table {group.kind} has {len(rows)} x {len(rows[0])} values but other axes")
    return Table(slews=tuple(value * time for value in axes[0]),
                 loads=tuple(value * (time if constraint else load) for value in axes[1]),
                 values=tuple(tuple(row) for row in rows))


def _place(axis: tuple[float, ...], value: float) -> tuple[int, float]:
    """Index of the interval that is used for a value, and where in it the value lies (0 at its begin, 1 at its end)."""
    if len(axis) < 2:
        return 0, 0.0
    i = min(max(bisect.bisect_right(axis, value) - 1, 0), len(axis) - 2)
    return i, (value - axis[i]) / (axis[i + 1] - axis[i])


def _unit(text: str, scales: Mapping[str, float]) -> float:
    match = re.fullmatch(r"([\d.]+)([a-z]+)", text.strip())
    if not match or match[2] not in scales:
        raise ValueError(f"the unit {text!r} must be a number and one of {', '.join(scales)}")
    return float(match[1]) * scales[match[2]]
