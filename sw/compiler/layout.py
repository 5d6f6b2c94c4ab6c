"""Tensors to and from the activation banks, element by element (``docs/image.md`` "Activations")."""

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import DataError
from ...hw.arch.image import RAW_BYTES
from .placement import TensorPlacement

__all__ = ["locate", "pack_activations", "unpack_activations"]


def locate(placement: TensorPlacement, config: AcceleratorConfig, image: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Bank and bank address of every byte of a tensor.

    Parameters
    ----------
    image : int
        Number of the image in its batch: the bank of a vector; other tensors ignore it.

    Returns
    -------
    bank, address : int64 arrays (byte channels, height, width)
    """
    steps = placement.steps(config)
    c = np.arange(placement.byte_channels)[:, None, None]
    y = np.arange(placement.height)[None, :, None]
    x = np.arange(placement.width)[None, None, :]
    if placement.vector:
        address = placement.base + y * steps.row + x * steps.col + c
        return np.full_like(address, image), address
    v, u = y // placement.phases_y, x // placement.phases_x
    bank = v % config.lanes_y * config.lanes_x + u % config.lanes_x
    address = (placement.base + y % placement.phases_y * steps.plane_y + x % placement.phases_x * steps.plane_x
               + v // config.lanes_y * steps.row + u // config.lanes_x * steps.col + c)
    return np.broadcast_to(bank, address.shape), address


def pack_activations(placement: TensorPlacement, config: AcceleratorConfig, x: np.ndarray,
                     image: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What to write where, for one tensor.

    Parameters
    ----------
    x : integer array (channels, height, width)
        Activations, in the tensor's range.
    image : int
        Number of the image in its batch.

    Returns
    -------
    bank, address : int64 arrays (N,)
    byte : uint8 array (N,)
        In order of rising address within each bank.

    Raises
    ------
    DataError
        If `x` has another shape, is not of integers, or leaves the tensor's range.
    """
    x = np.asarray(x)
    if x.shape != placement.shape or x.dtype.kind not in "iu":
        raise DataError(f"activations must be integers of shape {placement.shape}, not {x.dtype} of shape {x.shape}; "
                        f"quantize them with QuantizedNetwork.quantize_input, one image at a time")
    low, high = placement.range
    if int(x.min()) < low or int(x.max()) > high:
        raise DataError(f"activations must be from {low} to {high} ({'signed' if placement.signed else 'unsigned'}, "
                        f"{placement.bits} bits), not {int(x.min())} to {int(x.max())}; quantize them with "
                        f"QuantizedNetwork.quantize_input")
    values = x.astype(np.int64)
    if placement.raw:
        values = values[:, None] >> 8 * np.arange(RAW_BYTES)[None, :, None, None]
        values = values.reshape(placement.byte_channels, *x.shape[1:])
    bank, address = (part.ravel() for part in locate(placement, config, image))
    order = np.lexsort((address, bank))
    return bank[order], address[order], (values & 0xFF).astype(np.uint8).ravel()[order]


def unpack_activations(placement: TensorPlacement, config: AcceleratorConfig, banks: np.ndarray,
                       image: int = 0) -> np.ndarray:
    """Read one tensor out of the banks.

    Parameters
    ----------
    banks : integer array (lanes_y * lanes_x, at least the tensor's end)
        Memory of every bank, an activation an element; only the tensor's bits of an element count.
    image : int
        Number of the image in its batch.

    Returns
    -------
    int32 array (channels, height, width)
    """
    banks = np.asarray(banks)
    end = placement.base + placement.steps(config).size
    if banks.ndim != 2 or banks.shape[0] != config.lanes or banks.shape[1] < end:
        raise DataError(f"bank memory must have shape ({config.lanes}, {end} or more), not {banks.shape}; give the "
                        f"banks of the configuration that the image was compiled for")
    bank, address = locate(placement, config, image)
    values = banks[bank, address].astype(np.int64)
    if placement.raw:
        parts = (values & 0xFF).reshape(placement.channels, RAW_BYTES, *placement.shape[1:])
        values = (parts << 8 * np.arange(RAW_BYTES)[None, :, None, None]).sum(axis=1)
    values &= (1 << placement.bits) - 1
    if placement.signed or placement.raw:
        values -= values >> placement.bits - 1 << placement.bits
    return values.astype(np.int32)
