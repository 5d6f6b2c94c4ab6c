"""The words of the model memory: from descriptors, tables and streams to layers with their operations."""

import dataclasses
import math

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    EDGE_BITS,
    HEADER,
    HEADER_WORDS,
    KEPT_AT,
    LAYERS_MAX,
    LENGTH_WORDS,
    MODEL_MAGIC,
    PHASE_BITS,
    POSITION_WORDS,
    RAW_BYTES,
    RESIDUE_BITS,
    WATCHDOG_UNIT,
    Flag,
)
from .banks import Walk
from .parameters import RowParameters, read_parameters
from .streams import Code, Operations, read_code, read_operations

__all__ = ["LayerProgram", "Positions", "StreamProgram", "read_layers"]

AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, eq=False)
class Positions:
    """The position table, int64 (positions,) each: how far a tap lies from the pixel's block, and from which edge of
    the output on its tap lies inside the input."""

    offset: np.ndarray
    residue_y: np.ndarray
    residue_x: np.ndarray
    first_y: np.ndarray
    first_x: np.ndarray
    last_y: np.ndarray
    last_x: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class StreamProgram:
    """The rows of one stream.

    Parameters
    ----------
    base : int64 array (rows,)
        Each output channel's input base address.
    parameters : RowParameters
        Output channels, biases and scales.
    operations : Operations
        What the codewords spell; one row when the layer's rows are shared.
    """

    base: np.ndarray
    parameters: RowParameters
    operations: Operations


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LayerProgram:
    """One layer as it stands in the model memory; names as in the descriptor's table. ``blocks`` is the number of
    blocks of pixels, in which each row is passed through once."""

    number: int
    flags: Flag
    channels: int
    rows: int
    out: tuple[int, int]
    blocks: int
    in_steps: tuple[int, int]
    out_base: int
    vertical: Walk
    horizontal: Walk
    clamp: tuple[int, int]
    positions: Positions
    streams: tuple[StreamProgram, ...]

    @property
    def where(self) -> str:
        """For messages."""
        return f"layer {self.number}"


@dataclasses.dataclass
class _Tables:
    """What the layers so far have left in the accelerator's tables: the words of positions, int64 (positions,
    POSITION_WORDS), and the code; none before the first layer of a run."""

    positions: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, POSITION_WORDS), np.int64))
    code: Code | None = None


class _Words:
    """A reader of model memory words that never runs past their end."""

    def __init__(self, words: np.ndarray) -> None:
        self.words = words
        self.position = 0

    def take(self, count: int, what: str) -> np.ndarray:
        if count > len(self.words) - self.position:
            raise ImageError(f"{what}: needs {count} words at word {self.position}, but the model ends at word "
                             f"{len(self.words)}; {AGAIN}")
        self.position += count
        return self.words[self.position - count:self.position].astype(np.int64)

    def named(self, names: tuple[str, ...], what: str) -> dict[str, int]:
        return dict(zip(names, self.take(len(names), what).tolist(), strict=True))


def read_layers(words: np.ndarray, config: AcceleratorConfig) -> tuple[tuple[LayerProgram, ...], int]:
    """Decode the model memory: its layers, and the number of the first layer of the tail.

    Raises
    ------
    ImageError
        If anything in it breaks a rule of ``docs/image.md``.
    """
    header = _Words(words).named(HEADER, "model header")
    count, tail = header["layers"], header["tail"]
    used = header["total_hi"] << 16 | header["total_lo"]
    if header["magic"] != MODEL_MAGIC or not 1 <= count <= LAYERS_MAX:
        raise ImageError(f"model header: begins with 0x{header['magic']:04x} and has {count} layers; it must begin "
                         f"with 0x{MODEL_MAGIC:04x} and have 1 to {LAYERS_MAX}; {AGAIN}")
    if not HEADER_WORDS <= used <= len(words):
        raise ImageError(f"model header: {used} words in use, but the section WORD has {len(words)}; {AGAIN}")
    reader = _Words(words[:used])
    reader.take(HEADER_WORDS, "model header")
    layers, starts, tables = [], [], _Tables()
    for number in range(count):
        starts.append(reader.position)
        tables = _Tables() if number == tail else tables  # a run may begin there
        layers.append(_read_layer(number, reader, config, tables))
    if reader.position != used:
        raise ImageError(f"model: its {count} layers end at word {reader.position}, but {used} are in use; {AGAIN}")
    address, expected = header["tail_addr_hi"] << 16 | header["tail_addr_lo"], [*starts, 0]
    if tail > count or address != expected[tail]:
        raise ImageError(f"model header: the tail begins at layer {tail} of {count}, at word {address}; must be a "
                         f"layer and its descriptor's word, or {count} and 0; {AGAIN}")
    for layer in layers:
        if (Flag.BATCH in layer.flags) != (layer.number >= tail):
            raise ImageError(f"{layer.where}: the flag BATCH must be on the layers of the tail, from {tail} on, and on "
                             f"no other; {AGAIN}")
    return tuple(layers), tail


def _signed(word: int) -> int:
    return word - (word >> 15 << 16)


def _read_positions(where: str, words: np.ndarray, config: AcceleratorConfig) -> Positions:
    offset, near, far = words.reshape(-1, POSITION_WORDS).T
    edge, residue = (1 << EDGE_BITS) - 1, (1 << RESIDUE_BITS) - 1
    first = 2 * RESIDUE_BITS
    table = Positions(offset, near & residue, near >> RESIDUE_BITS & residue, near >> first & edge,
                      near >> first + EDGE_BITS & edge, far & edge, far >> EDGE_BITS & edge)
    for name, values, lanes in (("vertical", table.residue_y, config.lanes_y),
                                ("horizontal", table.residue_x, config.lanes_x)):
        if values.max() >= lanes:
            raise ImageError(f"{where} position {int(values.argmax())}: {name} residue {int(values.max())} must be "
                             f"below the number of lanes, {lanes}; {AGAIN}")
    undefined = (near >> first + 2 * EDGE_BITS) | (far >> 2 * EDGE_BITS)
    if undefined.any():
        raise ImageError(f"{where} position {int(np.flatnonzero(undefined)[0])}: has undefined bits; {AGAIN}")
    return table


def _take_positions(where: str, fields: dict[str, int], reader: _Words, config: AcceleratorConfig, tables: _Tables,
                    ) -> Positions:
    """The layer's position table: what is kept of the one that is there, then the words that follow."""
    kept, loaded = divmod(fields["positions"], 1 << KEPT_AT)
    if not 1 <= kept + loaded <= config.positions:
        raise ImageError(f"{where} descriptor: positions must be from 1 to {config.positions}, not {kept + loaded}; "
                         f"{AGAIN}")
    if kept > len(tables.positions):
        raise ImageError(f"{where} descriptor: keeps {kept} positions, but {len(tables.positions)} are there; {AGAIN}")
    words = reader.take(loaded * POSITION_WORDS, f"{where} position table").reshape(-1, POSITION_WORDS)
    table = np.concatenate((tables.positions[:kept], words))
    tables.positions = np.concatenate((table, tables.positions[len(table):]))
    return _read_positions(where, table.ravel(), config)


def _take_code(where: str, flags: Flag, fields: dict[str, int], reader: _Words, config: AcceleratorConfig,
               tables: _Tables) -> Code:
    """The layer's code table and dictionary: its own, or those that are there."""
    if Flag.SAME_CODE not in flags:
        counts = reader.take(config.max_code_bits, f"{where} code table")
        words = reader.take(fields["dict_words"], f"{where} dictionary")
        tables.code = read_code(where, config, counts, words, fields["eor"])
    elif tables.code is None:
        raise ImageError(f"{where} descriptor: SAME_CODE, but no layer before has left a code; {AGAIN}")
    elif fields["dict_words"] or fields["eor"] != tables.code.eor:
        raise ImageError(f"{where} descriptor: with SAME_CODE, dict_words must be 0 and eor that of the code, "
                         f"{tables.code.eor}, not {fields['dict_words']} and {fields['eor']}; {AGAIN}")
    return tables.code


def _read_layer(number: int, reader: _Words, config: AcceleratorConfig, tables: _Tables) -> LayerProgram:
    where = f"layer {number}"
    d = reader.named(DESCRIPTOR, f"{where} descriptor")
    flags = _check_descriptor(f"{where} descriptor", d, config)
    lengths = reader.take(config.streams * LENGTH_WORDS, f"{where} stream lengths").reshape(-1, 2, 2)
    sizes = lengths[:, :, 0] | lengths[:, :, 1] << 16
    positions = _take_positions(where, d, reader, config, tables)
    code = _take_code(where, flags, d, reader, config, tables)
    names = [f"{where} stream {stream}" for stream in range(config.streams)]
    parameters = [reader.take(int(size), f"{name} parameters") for name, size in zip(names, sizes[:, 0], strict=True)]
    codewords = [reader.take(int(size), name) for name, size in zip(names, sizes[:, 1], strict=True)]
    shared = Flag.SHARED_ROW in flags
    blocks = math.ceil(d["out_h"] / config.lanes_y) * math.ceil(d["out_w"] / config.lanes_x)
    streams = []
    for stream, name in enumerate(names):
        channels = range(stream, d["rows"], config.streams)
        rows = min(1, len(channels)) if shared else len(channels)
        repeats = len(channels) if shared else 1
        operations = read_operations(
            name, config, code, codewords[stream], rows=rows, channels=d["channels"], positions=len(positions.offset),
            most=(d["watchdog"] + 1) * WATCHDOG_UNIT // max(1, blocks * repeats))
        longest = int(operations.codewords.max(initial=0))
        if (shared or blocks > 1) and longest > config.row_depth:
            raise ImageError(f"{name} row {int(operations.codewords.argmax())}: has {longest} codewords and is "
                             f"replayed, but the row buffer holds {config.row_depth}; {AGAIN}")
        base = d["in_base"] + stream * d["stream_step"] + np.arange(len(channels)) // d["group_rows"] * d["group_step"]
        streams.append(StreamProgram(base, read_parameters(name, parameters[stream], flags, channels), operations))
    _check_order(where, streams, d["rows"])
    return LayerProgram(
        number=number, flags=flags, channels=d["channels"], rows=d["rows"], out=(d["out_h"], d["out_w"]),
        in_steps=(d["in_row_step"], d["in_col_step"]), out_base=d["out_base"],
        blocks=blocks, vertical=_read_walk(d, flags, "y", d["out_phases"] >> 8),
        horizontal=_read_walk(d, flags, "x", d["out_phases"] & 0xFF),
        clamp=(_signed(d["qmin"]), _signed(d["qmax"])), positions=positions, streams=tuple(streams))


def _read_walk(d: dict[str, int], flags: Flag, axis: str, phases: int) -> Walk:
    plane, turn, wrap = (d[f"out_{step}_{axis}"] for step in ("plane", "turn", "wrap"))
    return Walk(1, plane, plane, plane) if Flag.FLATTEN in flags else Walk(phases, plane, turn, wrap)


def _check_descriptor(where: str, d: dict[str, int], config: AcceleratorConfig) -> Flag:
    if d["tag_flags"] >> 12 != DESCRIPTOR_TAG:
        raise ImageError(f"{where}: tag is 0x{d['tag_flags'] >> 12:x}, not 0x{DESCRIPTOR_TAG:x}; {AGAIN}")
    bits = d["tag_flags"] & 0xFFF
    flags = Flag(bits)
    coordinate, phase = (1 << config.map_bits) - 1, (1 << PHASE_BITS) - 1
    for name, value, high in (
            ("channels", d["channels"], 0xFFFF),
            ("rows", d["rows"], 0xFFFF), ("group_rows", d["group_rows"], 0xFFFF), ("out_h", d["out_h"], coordinate),
            ("out_w", d["out_w"], coordinate), ("vertical phases", d["out_phases"] >> 8, phase),
            ("horizontal phases", d["out_phases"] & 0xFF, phase)):
        if not 1 <= value <= high:
            raise ImageError(f"{where}: {name} must be from 1 to {high}, not {value}; {AGAIN}")
    low, high = _signed(d["qmin"]), _signed(d["qmax"])
    top = 1 << config.act_bits
    least, most = (-top // 2, top // 2 - 1) if low < 0 else (0, top - 1)
    if Flag.RAW not in flags and not least <= low <= high <= most:
        raise ImageError(f"{where}: clamp {low} to {high} is not a range of {config.act_bits} bits; {AGAIN}")
    if Flag.RAW in flags and config.act_bits < 8:
        raise ImageError(f"{where}: raw outputs are bytes, but activations have {config.act_bits} bits; {AGAIN}")
    if Flag.BATCH in flags and (Flag.FLATTEN in flags or (d["out_h"], d["out_w"]) != (config.lanes_y, config.lanes_x)):
        raise ImageError(f"{where}: a BATCH layer is {config.lanes_y} x {config.lanes_x} lanes of output and not "
                         f"FLATTEN, not {d['out_h']} x {d['out_w']} with flags 0x{bits:03x}; {AGAIN}")
    if Flag.FLATTEN in flags and d["out_phases"] != 0x0101:
        raise ImageError(f"{where}: a FLATTEN layer has one phase, not 0x{d['out_phases']:04x}; {AGAIN}")
    # Every output has an activation of its own, so this bounds all arrays.
    outputs = d["rows"] * d["out_h"] * d["out_w"] * (RAW_BYTES if Flag.RAW in flags else 1)
    banks = 1 if Flag.FLATTEN in flags else config.lanes
    if outputs > banks * config.act_depth:
        raise ImageError(f"{where}: {outputs} activations don't fit the {banks} banks of {config.act_depth}; {AGAIN}")
    return flags


def _check_order(where: str, streams: list[StreamProgram], rows: int) -> None:
    """Every output channel must be computed once."""
    channels = np.concatenate([stream.parameters.channel for stream in streams])
    if not np.array_equal(np.sort(channels), np.arange(rows)):
        left = np.setdiff1d(np.arange(rows), channels)
        raise ImageError(f"{where}: its rows must give each of {rows} output channels once, but {int(left[0])} is not "
                         f"among them; {AGAIN}")
