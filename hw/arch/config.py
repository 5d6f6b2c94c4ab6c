"""The one configuration object that hardware and software share."""

import dataclasses
import json
import zlib
from pathlib import Path

from .errors import ConfigError
from .files import read_toml
from .image import COORDINATE_BITS

__all__ = ["ROUNDINGS", "AcceleratorConfig"]

LANES = (1, 2, 4, 8)
MAX_STREAMS = 8
ROUNDINGS = ("half_up", "half_even")
"""Where a value halfway between two integers goes: up, or to the even one."""
SYMBOLS_MAX = 256
"""Dictionary entries of a layer."""


def _require(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"AcceleratorConfig.{name} must be an integer from {low} to {high}, not {value!r}")


def _require_one_of(name: str, value: object, values: tuple[int, ...]) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value not in values:
        known = f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
        raise ConfigError(f"AcceleratorConfig.{name} must be {known}, not {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Parameters of one accelerator.

    Two accelerators with equal configurations run the same images; the image carries :attr:`fingerprint`.

    Parameters
    ----------
    lanes_y, lanes_x : int
        Height and width of the output-pixel block that is computed in parallel: 1, 2, 4 or 8 each.
    streams : int
        Weight streams, 1 to 8, each with a decoder, ``lanes_y * lanes_x`` lanes and a copy of the activations of its
        own.
    interleave : int
        Contexts that a stream's codewords are dealt to in turn: the pipeline stages of the decoder's loop, 1, 2 or 4.
    row_depth : int
        Symbols in a stream's row buffer, a power of two from 64 to 65536. A row that is replayed must fit.
    act_bits : int
        Width of an activation in memory, 2 to 8 bits. Tensors may use fewer.
    acc_width : int
        Accumulator width in bits, 16 to 32.
    max_shift : int
        Largest left shift of a term, 0 to 15. A product is ``x << shift`` with ``0 <= shift <= max_shift``.
    guard_bits : int or None
        Fractional bits of a product that are kept; ``None`` keeps all (``max_shift``, exact). The product is
        ``(x << shift) >> (max_shift - guard_bits)``, truncated towards minus infinity, before the sign is applied.
        0 is BQ-Net's literal arithmetic.
    rounding : str
        How requantization rounds a value halfway between two integers: ``"half_up"``, or ``"half_even"`` to the even
        one, as quantized ONNX networks do.
    max_code_bits : int
        Longest Huffman codeword, 4 to 15 bits.
    weight_depth : int
        16-bit words of model memory (descriptors, tables and weight streams).
    act_depth : int
        Activations in each of the ``lanes_y * lanes_x`` banks.
    dict_depth : int
        Micro-operations of a layer's dictionary, 256 to 1024.
    positions : int
        Most kernel positions of a layer, 16 to 512.
    map_bits : int
        Bits of an output coordinate, 2 to 12: output maps are at most ``2**map_bits - 1`` high and wide.
    counters : bool
        Whether the accelerator counts what each layer's cycles were spent on.
    shadow_chain : bool
        Finished accumulators leave through a chain of shadow registers, which is smaller on iCE40; otherwise through a
        multiplexer.
    weight_memory : str
        ``"block"`` for block RAM, ``"spram"`` for iCE40 UltraPlus single-port RAM.

    Raises
    ------
    ConfigError
        If a value breaks its rule.
    """

    lanes_y: int = 4
    lanes_x: int = 4
    streams: int = 1
    interleave: int = 4
    row_depth: int = 2048
    act_bits: int = 8
    acc_width: int = 24
    max_shift: int = 7
    guard_bits: int | None = None
    rounding: str = "half_up"
    max_code_bits: int = 12
    weight_depth: int = 65536
    act_depth: int = 2048
    dict_depth: int = 512
    positions: int = 128
    map_bits: int = 8
    counters: bool = True
    shadow_chain: bool = False
    weight_memory: str = "block"

    def __post_init__(self) -> None:
        _require_one_of("lanes_y", self.lanes_y, LANES)
        _require_one_of("lanes_x", self.lanes_x, LANES)
        _require("streams", self.streams, 1, MAX_STREAMS)
        _require_one_of("interleave", self.interleave, (1, 2, 4))
        _require_one_of("row_depth", self.row_depth, tuple(1 << n for n in range(6, 17)))
        _require("act_bits", self.act_bits, 2, 8)
        _require("acc_width", self.acc_width, 16, 32)
        _require("max_shift", self.max_shift, 0, 15)
        if self.guard_bits is not None:
            _require("guard_bits", self.guard_bits, 0, self.max_shift)
        if self.rounding not in ROUNDINGS:
            raise ConfigError(f"AcceleratorConfig.rounding must be {' or '.join(map(repr, ROUNDINGS))}, not "
                              f"{self.rounding!r}")
        _require("max_code_bits", self.max_code_bits, 4, 15)
        _require("weight_depth", self.weight_depth, 256, 1 << 22)
        _require("act_depth", self.act_depth, 16, 1 << 16)
        _require("dict_depth", self.dict_depth, SYMBOLS_MAX, 4 * SYMBOLS_MAX)
        _require("positions", self.positions, 16, 512)
        _require("map_bits", self.map_bits, 2, COORDINATE_BITS)
        for name in ("counters", "shadow_chain"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"AcceleratorConfig.{name} must be true or false, not {getattr(self, name)!r}")
        if self.weight_memory not in ("block", "spram"):
            raise ConfigError(
                f"AcceleratorConfig.weight_memory must be 'block' or 'spram', not {self.weight_memory!r}")

    @property
    def lanes(self) -> int:
        """Lanes of one stream, which is also the number of activation banks (of each stream's copy)."""
        return self.lanes_y * self.lanes_x

    @property
    def truncate(self) -> int:
        """Low bits that a product loses: ``max_shift - guard_bits``, 0 when the arithmetic is exact."""
        return 0 if self.guard_bits is None else self.max_shift - self.guard_bits

    @property
    def name(self) -> str:
        """Short form, ``<lanes_y>x<lanes_x>x<streams>``."""
        return f"{self.lanes_y}x{self.lanes_x}x{self.streams}"

    @property
    def fingerprint(self) -> int:
        """CRC-32 of the canonical JSON of all parameters, as an unsigned 32-bit integer."""
        return zlib.crc32(json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":")).encode())

    @property
    def changes(self) -> dict[str, int | str | None]:
        """The parameters that are not at their default, by name."""
        return {field.name: value for field in dataclasses.fields(self)
                if (value := getattr(self, field.name)) != field.default}

    def replace(self, **changes: object) -> "AcceleratorConfig":
        """A copy with some parameters changed, validated anew."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, int | str | None]:
        """All parameters by name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, object], *, source: str = "configuration") -> "AcceleratorConfig":
        """Build from a mapping; an unknown name is a :class:`ConfigError`."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ConfigError(f"{source}: unknown parameter {name!r}; known are {', '.join(sorted(known))}")
        try:
            return cls(**values)  # type: ignore[arg-type]
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None

    @classmethod
    def from_toml(cls, path: str | Path) -> "AcceleratorConfig":
        """Read the table ``[accelerator]`` of a TOML file (or its top level when there is no such table)."""
        values = read_toml(path, "configuration", ConfigError)
        table = values.get("accelerator", values)
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: 'accelerator' must be a table, [accelerator], not {table!r}")
        return cls.from_dict(table, source=str(path))
