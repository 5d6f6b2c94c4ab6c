"""The one configuration object that hardware and software share."""

import dataclasses
import json
import zlib
from pathlib import Path

from .errors import ConfigError
from .files import read_toml
from .image import COORDINATE_BITS

__all__ = ["AcceleratorConfig"]

MAX_LANES = 8
INTERLEAVE = 2
"""Sub-streams that each weight stream is dealt into, codeword by codeword (the decoder is 2-slow)."""
DICT_HEADS = 256
"""First micro-operations of dictionary entries: one a symbol, at term RAM address = symbol."""


def _require(name: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"AcceleratorConfig.{name} must be an integer from {low} to {high}, not {value!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AcceleratorConfig:
    """Parameters of one accelerator.

    Two accelerators with equal configurations run the same images; the image carries :attr:`fingerprint`.

    Parameters
    ----------
    lanes_y, lanes_x : int
        Height and width of the output-pixel block that is computed in parallel, 1 to 8 each.
    streams : int
        Weight streams, each with a decoder and lanes of its own. Only 1 is implemented.
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
    max_code_bits : int
        Longest Huffman codeword, 4 to 15 bits.
    weight_depth : int
        16-bit words of model memory (descriptors, tables and weight streams).
    act_depth : int
        Activations in each of the ``lanes_y * lanes_x`` banks.
    dict_depth : int
        Micro-operations in the term RAM: 256 heads, the rest continuations.
    kernel_max : int
        Largest kernel height or width.
    map_bits : int
        Bits of an output coordinate, 2 to 12: output maps are at most ``2**map_bits - 1`` high and wide.
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
    act_bits: int = 8
    acc_width: int = 24
    max_shift: int = 7
    guard_bits: int | None = None
    max_code_bits: int = 12
    weight_depth: int = 65536
    act_depth: int = 2048
    dict_depth: int = 512
    kernel_max: int = 32
    map_bits: int = 8
    weight_memory: str = "block"

    def __post_init__(self) -> None:
        _require("lanes_y", self.lanes_y, 1, MAX_LANES)
        _require("lanes_x", self.lanes_x, 1, MAX_LANES)
        _require("streams", self.streams, 1, 1)
        _require("act_bits", self.act_bits, 2, 8)
        _require("acc_width", self.acc_width, 16, 32)
        _require("max_shift", self.max_shift, 0, 15)
        if self.guard_bits is not None:
            _require("guard_bits", self.guard_bits, 0, self.max_shift)
        _require("max_code_bits", self.max_code_bits, 4, 15)
        _require("weight_depth", self.weight_depth, 256, 1 << 22)
        _require("act_depth", self.act_depth, 16, 1 << 16)
        _require("dict_depth", self.dict_depth, DICT_HEADS, 2 * DICT_HEADS)
        _require("kernel_max", self.kernel_max, 1, 64)
        _require("map_bits", self.map_bits, 2, COORDINATE_BITS)
        if self.weight_memory not in ("block", "spram"):
            raise ConfigError(
                f"AcceleratorConfig.weight_memory must be 'block' or 'spram', not {self.weight_memory!r}")

    @property
    def lanes(self) -> int:
        """Lanes of one stream, which is also the number of activation banks."""
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
