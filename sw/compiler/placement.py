"""Where a tensor lies in the activation banks: the polyphase, banked layout of ``docs/image.md`` "Activations"."""

import dataclasses
import struct

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError, ImageError
from ..network import IntegerTensor, TensorSpec

__all__ = ["RAW_BITS", "Steps", "TensorPlacement"]

RAW_BITS = 32
"""Bits of a raw output (accumulator plus bias)."""
RAW_BYTES = 4
"""Byte channels that hold one raw output."""

_RECORD = struct.Struct("<HHHHBBBBbx")


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
        Addresses that the tensor takes in every bank.
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
    phases_y, phases_x : int
        Polyphase planes: the stride of the layer that reads the tensor.
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
    phases_y: int = 1
    phases_x: int = 1
    bits: int = 8
    signed: bool = False
    exponent: int = 0

    @classmethod
    def of(cls, spec: TensorSpec, *, base: int = 0, phases: tuple[int, int] = (1, 1)) -> "TensorPlacement":
        """Place a network's tensor at `base`, laid out for a consumer with strides `phases`."""
        return cls(base=base, channels=spec.channels, height=spec.height, width=spec.width, phases_y=phases[0],
                   phases_x=phases[1], bits=spec.bits, signed=spec.signed, exponent=spec.exponent)

    @property
    def raw(self) -> bool:
        """Whether the tensor holds raw accumulators."""
        return self.bits == RAW_BITS

    @property
    def byte_channels(self) -> int:
        """Channels in memory: four for each raw value, otherwise one for each activation."""
        return self.channels * (RAW_BYTES if self.raw else 1)

    def steps(self, config: AcceleratorConfig) -> Steps:
        """Address steps and size on the banks of `config`."""
        col = self.byte_channels
        # ceil(ceil(n / phases) / lanes) = ceil(n / (phases * lanes))
        row = -(-self.width // (self.phases_x * config.lanes_x)) * col
        plane_x = -(-self.height // (self.phases_y * config.lanes_y)) * row
        plane_y = self.phases_x * plane_x
        return Steps(col=col, row=row, plane_x=plane_x, plane_y=plane_y, size=self.phases_y * plane_y)

    def pack(self) -> bytes:
        """The 14-byte record of the file section ``TENS``."""
        try:
            return _RECORD.pack(self.base, self.channels, self.height, self.width, self.phases_y, self.phases_x,
                                self.bits, self.signed, self.exponent)
        except struct.error:
            raise CapacityError(
                f"a tensor of {self.channels} x {self.height} x {self.width} with {self.phases_y} x {self.phases_x} "
                f"phases and exponent {self.exponent} has no image record: shape and base fit 16 bits, phases 8 bits, "
                f"the exponent is from -128 to 127; split the layer or rescale the tensor") from None

    @classmethod
    def unpack(cls, record: bytes) -> "TensorPlacement":
        """Read a 14-byte record; a value out of range is an :class:`ImageError`."""
        base, channels, height, width, phases_y, phases_x, bits, signed, exponent = _RECORD.unpack(record)
        for name, value in (("channels", channels), ("height", height), ("width", width), ("phases y", phases_y),
                            ("phases x", phases_x)):
            if not value:
                raise ImageError(f"section TENS: {name} must be at least 1, not 0; compile the network again")
        if not (2 <= bits <= 8 or bits == RAW_BITS) or signed > 1:
            raise ImageError(f"section TENS: a tensor has 2 to 8 or 32 bits and signed 0 or 1, not {bits} bits and "
                             f"signed {signed}; compile the network again")
        return cls(base=base, channels=channels, height=height, width=width, phases_y=phases_y, phases_x=phases_x,
                   bits=bits, signed=bool(signed), exponent=exponent)


TENSOR_BYTES = _RECORD.size
"""Bytes of a tensor's record in the file."""
