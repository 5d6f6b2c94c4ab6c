"""The array: a banked activation memory, and the layers that read and write it through bank addresses."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError, ModelError
from ...hw.arch.image import Flag
from .memory import LayerProgram, Placement, Program, read_image

if TYPE_CHECKING:
    from ...sw.data import Dataset

__all__ = ["Interpretation", "accuracy", "predict", "run"]

ADDRESS_MASK = 0xFFFF
RAW_BYTES = 4
PIXEL_SCALE = 256.0
CHUNK_BYTES = 1 << 26
"""Bound on the activation memories and on the gathered taps that are held at once."""
AGAIN = "compile the network again"
LOWEST = np.iinfo(np.int64).min


@dataclasses.dataclass(frozen=True, eq=False)
class Interpretation:
    """What an image computes.

    Parameters
    ----------
    outputs : tuple of int64 array (N, C, H, W)
        Each layer's output (raw accumulators for a raw layer).
    final : int64 array (N, C, H, W)
        The output tensor, as the host reads it back from the activation memory.
    """

    outputs: tuple[np.ndarray, ...]
    final: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class _Sites:
    """Banks and bank addresses of activations, with a mask of those that count; equal shapes."""

    bank: np.ndarray
    address: np.ndarray
    inside: np.ndarray


class _Memory:
    """The banks of several images at once: bytes (bank, address, image), and which of them hold an activation."""

    def __init__(self, config: AcceleratorConfig, images: int) -> None:
        self.depth = config.act_depth
        self.bytes = np.zeros((config.lanes, config.act_depth, images), np.uint8)
        self.written = np.zeros((config.lanes, config.act_depth), bool)

    def check(self, where: str, sites: _Sites, verb: str) -> None:
        beyond = sites.inside & (sites.address >= self.depth)
        if beyond.any():
            raise ImageError(f"{where}: {verb} bank address {int(sites.address[beyond][0])}, beyond the bank's "
                             f"{self.depth} activations; {AGAIN}")

    def read(self, where: str, sites: _Sites) -> np.ndarray:
        """Bytes, uint8 (..., image); zero outside the mask."""
        self.check(where, sites, "reads")
        address = np.where(sites.inside, sites.address, 0)
        missing = sites.inside & ~self.written[sites.bank, address]
        if missing.any():
            raise ImageError(f"{where}: reads bank {int(sites.bank[missing][0])}, address {int(address[missing][0])}, "
                             f"where no activation was written; {AGAIN}")
        values = self.bytes[sites.bank, address]
        values[~sites.inside] = 0
        return values

    def write(self, where: str, sites: _Sites, values: np.ndarray) -> None:
        self.check(where, sites, "writes")
        self.bytes[sites.bank, sites.address] = values
        self.written[sites.bank, sites.address] = True


def run(image: bytes | str | Path | Program, x: np.ndarray) -> Interpretation:
    """Run an image on integer inputs, by walking its words as the accelerator does.

    Parameters
    ----------
    image : bytes, path or Program
        The image file, its bytes, or what :func:`read_image` made of it.
    x : integer array (N, C, H, W)
        Images in the range of the image's input tensor.

    Returns
    -------
    Interpretation

    Raises
    ------
    ImageError
        If the image is malformed: in its file, tables or streams, or because a layer reads what nobody wrote,
        overwrites its own input, or leaves the activation memory.
    ModelError
        If the inputs don't fit the image's input tensor.
    """
    program = image if isinstance(image, Program) else read_image(image)
    images = _check_input(program.input, np.asarray(x))
    chunk = max(1, CHUNK_BYTES // (program.config.lanes * program.config.act_depth))
    parts = [_run_chunk(program, images[start:start + chunk]) for start in range(0, max(1, len(images)), chunk)]
    by_layer = zip(*(part.outputs for part in parts), strict=True)
    return Interpretation(tuple(np.concatenate(outputs) for outputs in by_layer),
                          np.concatenate([part.final for part in parts]))


def predict(program: Program, images: np.ndarray, *, batch: int = 1000) -> np.ndarray:
    """Classes (int64, (N,)) of uint8 images (N, C, H, W): the index of the greatest output, the first on a tie."""
    tensor = program.input
    if math.prod(images.shape[1:]) != math.prod(tensor.shape):
        raise ModelError(f"the image takes inputs of shape {tensor.shape}; data of shape {images.shape[1:]} doesn't "
                         f"fit")
    low, high = _range(tensor)
    classes = []
    for start in range(0, len(images), batch):
        pixels = images[start:start + batch].reshape(-1, *tensor.shape) / PIXEL_SCALE
        x = np.clip(np.floor(pixels / 2.0**tensor.exponent + 0.5), low, high).astype(np.int64)
        classes.append(run(program, x).final.reshape(len(x), -1).argmax(axis=1))
    return np.concatenate(classes) if classes else np.zeros(0, np.int64)


def accuracy(program: Program, dataset: "Dataset", *, batch: int = 1000) -> float:
    """Share of a data set's images that the image's network classifies rightly, 0 to 1."""
    return float(np.mean(predict(program, dataset.images, batch=batch) == dataset.labels))


def _range(tensor: Placement) -> tuple[int, int]:
    return (-(1 << tensor.bits - 1), (1 << tensor.bits - 1) - 1) if tensor.signed else (0, (1 << tensor.bits) - 1)


def _check_input(tensor: Placement, x: np.ndarray) -> np.ndarray:
    if x.ndim != 4 or x.shape[1:] != tensor.shape or x.dtype.kind not in "ui":
        raise ModelError(f"the image takes integers of shape (N, {', '.join(map(str, tensor.shape))}), not {x.dtype} "
                         f"of {x.shape}")
    low, high = _range(tensor)
    if x.size and (x.min() < low or x.max() > high):
        raise ModelError(f"the image takes values from {low} to {high}, not {int(x.min())} to {int(x.max())}")
    return x.astype(np.int64)


def _run_chunk(program: Program, images: np.ndarray) -> Interpretation:
    config = program.config
    memory = _Memory(config, len(images))
    memory.write("input tensor", _host_sites(config, program.input), images.transpose(1, 2, 3, 0).astype(np.uint8))
    outputs = [_run_layer(config, memory, layer) for layer in program.layers]
    final = memory.read("output tensor", _host_sites(config, program.output))
    tensor = program.output
    if tensor.raw:
        final = _join(final)
    values = final.astype(np.int8 if tensor.signed else np.uint8).astype(np.int64) if not tensor.raw else final
    return Interpretation(tuple(outputs), values.transpose(3, 0, 1, 2))


def _split(values: np.ndarray) -> np.ndarray:
    """Raw values (C, H, W, N) to bytes in channels 4c to 4c + 3."""
    shifts = 8 * np.arange(RAW_BYTES).reshape(1, RAW_BYTES, 1, 1, 1)
    return (values[:, None] >> shifts & 0xFF).reshape(-1, *values.shape[1:])


def _join(values: np.ndarray) -> np.ndarray:
    """Inverse of :func:`_split`, int64."""
    grouped = values.astype(np.int64).reshape(-1, RAW_BYTES, *values.shape[1:])
    shifts = 8 * np.arange(RAW_BYTES).reshape(1, RAW_BYTES, 1, 1, 1)
    return _wrap((grouped << shifts).sum(axis=1), 8 * RAW_BYTES)


def _wrap(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement of so many bits."""
    return ((values + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


def _place(config: AcceleratorConfig, size: tuple[int, int], channels: int, base: int, steps: tuple[int, int],
           planes: tuple[int, int], phases: tuple[int, int]) -> _Sites:
    """Sites (channels, H, W) of a tensor: steps, planes and phases are vertical, horizontal."""
    y, x = np.arange(size[0])[:, None], np.arange(size[1])[None, :]
    v, u = y // phases[0], x // phases[1]
    plane = base + y % phases[0] * planes[0] + x % phases[1] * planes[1]
    address = plane + v // config.lanes_y * steps[0] + u // config.lanes_x * steps[1]
    bank = v % config.lanes_y * config.lanes_x + u % config.lanes_x
    full = (address[None] + np.arange(channels)[:, None, None]) & ADDRESS_MASK
    return _Sites(np.broadcast_to(bank, full.shape), full, np.ones(full.shape, bool))


def _host_sites(config: AcceleratorConfig, tensor: Placement) -> _Sites:
    """Sites of a tensor that the host accesses, with the steps that its shape implies."""
    channels = tensor.channels * (RAW_BYTES if tensor.raw else 1)
    if channels * tensor.height * tensor.width > config.lanes * config.act_depth:
        raise ImageError(f"a tensor of {channels} x {tensor.height} x {tensor.width} activations doesn't fit the "
                         f"{config.lanes} banks of {config.act_depth}; {AGAIN}")
    blocks_y = math.ceil(math.ceil(tensor.height / tensor.phases_y) / config.lanes_y)
    blocks_x = math.ceil(math.ceil(tensor.width / tensor.phases_x) / config.lanes_x)
    row_step = blocks_x * channels
    plane_x = blocks_y * row_step
    return _place(config, (tensor.height, tensor.width), channels, tensor.base, (row_step, channels),
                  (tensor.phases_x * plane_x, plane_x), (tensor.phases_y, tensor.phases_x))


def _tap_sites(config: AcceleratorConfig, layer: LayerProgram, taps: np.ndarray, group: int) -> _Sites:
    """Sites (taps, H, W) that each output pixel reads for the given taps."""
    position, channel = np.divmod(taps[:, None, None], layer.channels)
    ky, kx = np.divmod(position, layer.kernel[1])
    vertical, horizontal = layer.vertical, layer.horizontal
    oy, ox = np.arange(layer.out[0])[None, :, None], np.arange(layer.out[1])[None, None, :]
    by, lane_y = np.divmod(oy, config.lanes_y)
    bx, lane_x = np.divmod(ox, config.lanes_x)
    across_y, bank_y = np.divmod(vertical.residue[ky] + lane_y, config.lanes_y)
    across_x, bank_x = np.divmod(horizontal.residue[kx] + lane_x, config.lanes_x)
    address = (layer.in_base + group * layer.group_step + (by + across_y) * layer.in_steps[0]
               + (bx + across_x) * layer.in_steps[1] + vertical.offset[ky] + horizontal.offset[kx] + channel)
    inside = ((vertical.first[ky] <= oy) & (oy <= vertical.last[ky])
              & (horizontal.first[kx] <= ox) & (ox <= horizontal.last[kx]))
    return _Sites(bank_y * config.lanes_x + bank_x, address & ADDRESS_MASK, inside)


def _run_layer(config: AcceleratorConfig, memory: _Memory, layer: LayerProgram) -> np.ndarray:
    """Run one layer; its output is written to the memory and returned as int64 (N, C, H, W)."""
    raw = Flag.RAW in layer.flags
    read = np.zeros_like(memory.written)
    groups = [_accumulate(config, memory, layer, group, read) for group in range(-(-layer.rows // layer.group_rows))]
    total = np.concatenate(groups) + layer.parameters.bias[:, None, None, None]
    if raw:
        result = _wrap(total, 8 * RAW_BYTES)
        stored = _split(result)
    else:
        scaled = [scale.apply(row) for scale, row in zip(layer.parameters.scales, total, strict=True)]
        stored = result = np.clip(np.stack(scaled), *layer.clamp)
    sites = _place(config, layer.out, len(stored), layer.out_base, layer.out_steps, layer.out_planes, layer.out_phases)
    memory.check(layer.where, sites, "writes")
    if read[sites.bank, sites.address].any():
        raise ImageError(f"{layer.where}: its output overwrites its own input; {AGAIN}")
    memory.write(layer.where, sites, stored.astype(np.uint8))
    return result.transpose(3, 0, 1, 2)


def _accumulate(config: AcceleratorConfig, memory: _Memory, layer: LayerProgram, group: int,
                read: np.ndarray) -> np.ndarray:
    """Accumulators of a group's output channels, int64 (rows, H, W, N); marks in ``read`` what it reads."""
    terms = layer.terms
    count = min(layer.group_rows, layer.rows - group * layer.group_rows)
    shared = Flag.SHARED_ROW in layer.flags
    low = 0 if shared else group * layer.group_rows
    rows = 1 if shared else count
    chosen = slice(*np.searchsorted(terms.row, [low, low + rows]))
    row, shift, negative = terms.row[chosen] - low, terms.shift[chosen], terms.negative[chosen]
    taps, tap = np.unique(terms.tap[chosen], return_inverse=True)
    pixels, images = layer.out, memory.bytes.shape[2]
    maximum = Flag.MAX in layer.flags
    acc = np.full((rows, *pixels, images), LOWEST if maximum else 0, np.int64)
    step = max(1, CHUNK_BYTES // (8 * pixels[0] * pixels[1] * max(1, images)))
    for start in range(0, len(taps), step):
        sites = _tap_sites(config, layer, taps[start:start + step], group)
        x = memory.read(layer.where, sites)
        read[sites.bank[sites.inside], sites.address[sites.inside]] = True
        x = x.astype(np.int8 if Flag.X_SIGNED in layer.flags else np.uint8)
        here = (tap >= start) & (tap < start + step)
        if not maximum and not config.truncate:
            # Nothing is cut off, so a shift may as well be in the weight.
            acc += _multiply(rows, row[here], tap[here] - start, negative[here], shift[here], x)
            continue
        x = x.astype(np.int64)
        for amount in np.unique(shift[here]).tolist():
            product = (x << amount) >> config.truncate
            use = here & (shift == amount)
            if maximum:
                _take_maximum(acc, product, sites.inside, row[use], tap[use] - start, negative[use])
            else:
                acc += _multiply(rows, row[use], tap[use] - start, negative[use], 0, product)
    if maximum:
        # A row without a tap inside the input leaves the least accumulator.
        acc = np.maximum(acc, -(1 << config.acc_width - 1))
    acc = _wrap(acc, config.acc_width)
    return np.broadcast_to(acc, (count, *acc.shape[1:])) if shared else acc


def _multiply(rows: int, row: np.ndarray, tap: np.ndarray, negative: np.ndarray, shift: np.ndarray | int,
              x: np.ndarray) -> np.ndarray:
    """Sum terms ``+-(x[tap] << shift)`` into their rows, int64 (rows, *x.shape[1:])."""
    weights = np.zeros((rows, len(x)))
    np.add.at(weights, (row, tap), np.where(negative, -1.0, 1.0) * 2.0**shift)
    # Exact: the watchdog allows at most 2**28 terms, each below 2**23, so every partial sum is an integer below 2**53.
    product = weights @ x.reshape(len(x), -1).astype(np.float64)
    return product.astype(np.int64).reshape(rows, *x.shape[1:])


def _take_maximum(acc: np.ndarray, product: np.ndarray, inside: np.ndarray, rows: np.ndarray, taps: np.ndarray,
                  negative: np.ndarray) -> None:
    for row, tap, minus in zip(rows.tolist(), taps.tolist(), negative.tolist(), strict=True):
        value = np.where(inside[tap][..., None], -product[tap] if minus else product[tap], LOWEST)
        np.maximum(acc[row], value, out=acc[row])
