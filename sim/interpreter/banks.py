"""The activation memory: banks, and the sites in them that tensors and taps name."""

import dataclasses

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import RAW_BYTES

__all__ = ["ADDRESS_MASK", "Banks", "Sites", "Walk", "join_raw", "place", "split_raw", "wrap"]

ADDRESS_MASK = 0xFFFF
AGAIN = "compile the network again"


@dataclasses.dataclass(frozen=True, eq=False)
class Sites:
    """Banks and bank addresses of activations, with a mask of those that count; equal shapes."""

    bank: np.ndarray
    address: np.ndarray
    inside: np.ndarray


class Banks:
    """The banks of several runs at once: bytes (bank, address, run), and which of them hold an activation.

    A byte can belong to the vector of an image that waits for the tail; nothing of another image may be written there.
    """

    def __init__(self, config: AcceleratorConfig, runs: int) -> None:
        self.depth = config.act_depth
        self.runs = runs
        self.bytes = np.zeros((config.lanes, config.act_depth, runs), np.uint8)
        self.written = np.zeros((config.lanes, config.act_depth), bool)
        self.owner = np.full((config.lanes, config.act_depth), -1)

    def check(self, where: str, sites: Sites, verb: str) -> None:
        """Refuse sites beyond the banks."""
        beyond = sites.inside & (sites.address >= self.depth)
        if beyond.any():
            raise ImageError(f"{where}: {verb} bank address {int(sites.address[beyond][0])}, beyond the bank's "
                             f"{self.depth} activations; {AGAIN}")

    def read(self, where: str, sites: Sites) -> np.ndarray:
        """Bytes, uint8 (..., run); zero outside the mask."""
        self.check(where, sites, "reads")
        address = np.where(sites.inside, sites.address, 0)
        missing = sites.inside & ~self.written[sites.bank, address]
        if missing.any():
            raise ImageError(f"{where}: reads bank {int(sites.bank[missing][0])}, address {int(address[missing][0])}, "
                             f"where no activation was written; {AGAIN}")
        values = self.bytes[sites.bank, address]
        values[~sites.inside] = 0
        return values

    def write(self, where: str, sites: Sites, values: np.ndarray, *, image: int | None = None,
              waits: bool = False) -> None:
        """Write bytes (..., run) of an image of the batch (``None``: of all, in the tail) that waits for the tail."""
        self.check(where, sites, "writes")
        at = sites.bank, sites.address
        if image is not None:
            foreign = (self.owner[at] >= 0) & (self.owner[at] != image)
            if foreign.any():
                raise ImageError(f"{where}: overwrites bank {int(sites.bank[foreign][0])}, address "
                                 f"{int(sites.address[foreign][0])}, where the vector of another image of the batch "
                                 f"waits for the tail; {AGAIN}")
        self.bytes[at] = values
        self.written[at] = True
        self.owner[at] = image if waits and image is not None else -1


@dataclasses.dataclass(frozen=True)
class Walk:
    """Address steps along one axis of a tensor, from pixel to pixel.

    Parameters
    ----------
    phases : int
        Polyphase phases.
    plane, turn, wrap : int
        Step to a pixel in the next phase; in the first phase and the next bank; in the first phase and the first bank.
    """

    phases: int
    plane: int
    turn: int
    wrap: int

    def sites(self, size: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
        """Address relative to the first pixel's, and bank along this axis, of each pixel; int64 (size,)."""
        address, bank = np.zeros(size, np.int64), np.zeros(size, np.int64)
        at = phase = lane = 0
        for pixel in range(size):
            address[pixel], bank[pixel] = at, lane
            phase += 1
            if phase < self.phases:
                at += self.plane
                continue
            phase, lane = 0, lane + 1
            at += self.turn if lane < lanes else self.wrap
            lane %= lanes
        return address, bank


def place(config: AcceleratorConfig, size: tuple[int, int], channels: int, base: int, vertical: Walk, horizontal: Walk,
          *, vector: int | None = None) -> Sites:
    """Sites (channels, pixels) of a tensor, pixels in rows; ``vector`` is the one bank of a vector."""
    rows, bank_y = vertical.sites(size[0], config.lanes_y)
    columns, bank_x = horizontal.sites(size[1], config.lanes_x)
    address = (base + rows[:, None] + columns).reshape(-1)
    bank = (bank_y[:, None] * config.lanes_x + bank_x).reshape(-1) if vector is None else np.full(address.shape, vector)
    full = address + np.arange(channels)[:, None] & ADDRESS_MASK
    return Sites(np.broadcast_to(bank, full.shape), full, np.ones(full.shape, bool))


def wrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement of so many bits."""
    return ((values + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


def split_raw(values: np.ndarray) -> np.ndarray:
    """Raw values (channels, ...) to bytes in channels 4c to 4c + 3."""
    shifts = 8 * np.arange(RAW_BYTES).reshape(RAW_BYTES, *[1] * (values.ndim - 1))
    return (values[:, None] >> shifts & 0xFF).reshape(-1, *values.shape[1:])


def join_raw(values: np.ndarray) -> np.ndarray:
    """Inverse of :func:`split_raw`, int64."""
    grouped = values.astype(np.int64).reshape(-1, RAW_BYTES, *values.shape[1:])
    shifts = 8 * np.arange(RAW_BYTES).reshape(RAW_BYTES, *[1] * (values.ndim - 1))
    return wrap((grouped << shifts).sum(axis=1), 8 * RAW_BYTES)
