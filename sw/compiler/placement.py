"""Where a tensor lies in the activation banks: the polyphase, banked layout of ``docs/image.md`` "Activations"."""

import dataclasses
import struct

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ImageError
from ...hw.arch.image import RAW_BYTES
from ..network import IntegerTensor, TensorSpec

__all__ = ["RAW_BITS", "Steps", "TensorPlacement"]

RAW_BITS = 32
"""Bits of a raw output (accumulator plus bias)."""

_RECORD = struct.Struct("<HHHHHHBBBBbx")
_SIGNED, _VECTOR = 1, 2
"""Bits of the record's flags."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps:
    """Bank address steps of a placed tensor on one configuration.

    Parameters
    ----------
    col, row : int
        To the next block column and block row of a plane.
    plane_x, plane_y : int
        To the next horizontal and vertical polyphase plane.
    size : int
        Addresses from the tensor's first to its last, in every bank.
    """

    col: int
    row: int
    plane_x: int
    plane_y: int
    size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorPlacement(IntegerTensor):
    """A tensor with a place in the activation banks.

    Parameters
    ----------
    base : int
        First bank address (the same in all banks).
    channels, height, width : int
        Shape of the tensor. A raw tensor's ``channels`` counts values, each of four byte channels.
    col_step, row_step : int
        Address steps to the next block column and block row of a plane, at least as in a tight layout (:meth:`of`);
        of a vector, to the next pixel and the next row of pixels.
    phases_y, phases_x : int
        Polyphase planes: the stride of the layer that reads the tensor.
    vector : bool
        Whole in the bank of its image, for batch lanes.
    bits : int
        2 to 8, or 32 for raw accumulators.
    signed : bool
        Two's complement; otherwise unsigned.
    exponent : int
        Real value = integer * 2**exponent.
    """

    base: int
    channels: int
    height: int
    width: int
    col_step: int
    row_step: int
    phases_y: int = 1
    phases_x: int = 1
    vector: bool = False
    bits: int = 8
    signed: bool = False
    exponent: int = 0

    @classmethod
    def of(cls, spec: TensorSpec, config: AcceleratorConfig, *, base: int = 0, phases: tuple[int, int] = (1, 1),
           vector: bool = False) -> "TensorPlacement":
        """Place a network's tensor at `base`, as tightly as it goes, laid out for a consumer with strides `phases`."""
        col = spec.channels * (RAW_BYTES if spec.bits == RAW_BITS else 1)
        # ceil(ceil(n / phases) / lanes) = ceil(n / (phases * lanes))
        columns = spec.width if vector else -(-spec.width // (phases[1] * config.lanes_x))
        return cls(base=base, channels=spec.channels, height=spec.height, width=spec.width, col_step=col,
                   row_step=columns * col, phases_y=phases[0], phases_x=phases[1], vector=vector, bits=spec.bits,
                   signed=spec.signed, exponent=spec.exponent)

    @property
    def raw(self) -> bool:
        """Whether the tensor holds raw accumulators."""
        return self.bits == RAW_BITS

    @property
    def byte_channels(self) -> int:
        """Channels in memory: four for each raw value, otherwise one for each activation."""
        return self.channels * (RAW_BYTES if self.raw else 1)

    def blocks(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Block rows and columns of a plane."""
        return (-(-self.height // (self.phases_y * config.lanes_y)), -(-self.width // (self.phases_x * config.lanes_x)))

    def steps(self, config: AcceleratorConfig) -> Steps:
        """Address steps and size on the banks of `config`."""
        rows, columns = (self.height, self.width) if self.vector else self.blocks(config)
        plane_x = rows * self.row_step
        plane_y = self.phases_x * plane_x
        # The channels and columns that pad the last pixel and row belong to nobody.
        used = (self.phases_y - 1) * plane_y + (self.phases_x - 1) * plane_x + (rows - 1) * self.row_step \
            + (columns - 1) * self.col_step + self.byte_channels
        return Steps(col=self.col_step, row=self.row_step, plane_x=plane_x, plane_y=plane_y, size=used)

    def pack(self) -> bytes:
        """The 18-byte record of the file section ``TENS``."""
        flags = _SIGNED * self.signed | _VECTOR * self.vector
        try:
            return _RECORD.pack(self.base, self.channels, self.height, self.width, self.col_step, self.row_step,
                                self.phases_y, self.phases_x, self.bits, flags, self.exponent)
        except struct.error:
            raise CapacityError(
                f"a tensor of {self.channels} x {self.height} x {self.width} with {self.phases_y} x {self.phases_x} "
                f"phases and exponent {self.exponent} has no image record: shape, base and steps fit 16 bits, phases "
                f"8 bits, the exponent is from -128 to 127; split the layer or rescale the tensor") from None

    @classmethod
    def unpack(cls, record: bytes) -> "TensorPlacement":
        """Read an 18-byte record; a value out of range is an :class:`ImageError`."""
        (base, channels, height, width, col_step, row_step, phases_y, phases_x, bits, flags,
         exponent) = _RECORD.unpack(record)
        for name, value in (("channels", channels), ("height", height), ("width", width), ("col_step", col_step),
                            ("row_step", row_step), ("phases y", phases_y), ("phases x", phases_x)):
            if not value:
                raise ImageError(f"section TENS: {name} must be at least 1, not 0; compile the network again")
        if not (2 <= bits <= 8 or bits == RAW_BITS) or flags & ~(_SIGNED | _VECTOR):
            raise ImageError(f"section TENS: a tensor has 2 to 8 or 32 bits and flags 0 to 3, not {bits} bits and "
                             f"flags {flags}; compile the network again")
        return cls(base=base, channels=channels, height=height, width=width, col_step=col_step, row_step=row_step,
                   phases_y=phases_y, phases_x=phases_x, vector=bool(flags & _VECTOR), bits=bits,
                   signed=bool(flags & _SIGNED), exponent=exponent)


TENSOR_BYTES = _RECORD.size
"""Bytes of a tensor's record in the file."""
