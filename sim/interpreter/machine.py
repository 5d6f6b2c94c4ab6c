"""The array: layers that read and write the activation memory through bank addresses, for one image or a batch."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError, ModelError
from ...hw.arch.image import RAW_BYTES, Flag
from ...sw.data import PIXEL_SCALE
from .arithmetic import NOBODY, Lanes
from .banks import Banks, Sites, join_raw, place, split_raw, wrap
from .file import Placement, Program, read_image
from .program import LayerProgram

if TYPE_CHECKING:
    from ...sw.data import Dataset

__all__ = ["Interpretation", "accuracy", "predict", "run", "run_batch"]

AGAIN = "compile the network again"
CHUNK_BYTES = 1 << 24
"""Bound on the activation memories that are held at once."""


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


def run(image: bytes | str | Path | Program, x: np.ndarray) -> Interpretation:
    """Run an image on integer inputs, each by a run of its own, by walking the image's words as the accelerator does.

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
        overwrites its own input, leaves the activation memory, or overflows an accumulator.
    ModelError
        If the inputs don't fit the image's input tensor.
    """
    return _run(image, x, 1)


def run_batch(image: bytes | str | Path | Program, x: np.ndarray) -> Interpretation:
    """As :func:`run`, but as many images as there are lanes share a run of the tail (the last batch may be smaller)."""
    program = image if isinstance(image, Program) else read_image(image)
    return _run(program, x, program.config.lanes)


def predict(program: Program, images: np.ndarray, *, batch: int = 1000) -> np.ndarray:
    """Classes (int64, (N,)) of uint8 images (N, C, H, W): the index of the greatest output, the first on a tie."""
    tensor = program.input
    if math.prod(images.shape[1:]) != math.prod(tensor.shape):
        raise ModelError(f"the image takes inputs of shape {tensor.shape}; data of shape {images.shape[1:]} doesn't "
                         f"fit")
    classes = []
    for start in range(0, len(images), batch):
        pixels = images[start:start + batch].reshape(-1, *tensor.shape) / PIXEL_SCALE
        scaled = pixels / 2.0**tensor.exponent
        rounded = scaled.round() if program.config.rounding == "half_even" else np.floor(scaled + 0.5)
        x = np.clip(rounded, *tensor.range).astype(np.int64)
        classes.append(run(program, x).final.reshape(len(x), -1).argmax(axis=1))
    return np.concatenate(classes) if classes else np.zeros(0, np.int64)


def accuracy(program: Program, dataset: "Dataset", *, batch: int = 1000) -> float:
    """Share of a data set's images that the image's network classifies rightly, 0 to 1."""
    return float(np.mean(predict(program, dataset.images, batch=batch) == dataset.labels))


def _check_input(tensor: Placement, x: np.ndarray) -> np.ndarray:
    if x.ndim != 4 or x.shape[1:] != tensor.shape or x.dtype.kind not in "ui":
        raise ModelError(f"the image takes integers of shape (N, {', '.join(map(str, tensor.shape))}), not {x.dtype} "
                         f"of {x.shape}")
    low, high = tensor.range
    if x.size and (x.min() < low or x.max() > high):
        raise ModelError(f"the image takes values from {low} to {high}, not {int(x.min())} to {int(x.max())}")
    return x.astype(np.int64)


def _run(image: bytes | str | Path | Program, x: np.ndarray, batch: int) -> Interpretation:
    """Run batches of so many images; the batches are computed side by side, as many as fit the bound."""
    program = image if isinstance(image, Program) else read_image(image)
    images = _check_input(program.input, np.asarray(x))
    whole = len(images) - len(images) % batch
    step = batch * max(1, CHUNK_BYTES // (program.config.lanes * program.config.act_depth))
    parts = [images[start:min(start + step, whole)].reshape(-1, batch, *images.shape[1:])
             for start in range(0, whole, step)]
    if whole < len(images) or not parts:
        parts.append(images[None, whole:] if whole < len(images) else images[:, None])
    results = [_run_batches(program, part) for part in parts]
    by_layer = zip(*(result.outputs for result in results), strict=True)
    return Interpretation(tuple(np.concatenate(outputs) for outputs in by_layer),
                          np.concatenate([result.final for result in results]))


def _run_batches(program: Program, batches: np.ndarray) -> Interpretation:
    """Run batches, (runs, images, C, H, W), at once: the head image by image, then the tail."""
    runs, images = batches.shape[:2]
    config, tail = program.config, program.tail
    pixels = program.input.height * program.input.width
    banks = Banks(config, runs)
    heads, finals = [], []
    for image in range(images):
        x = batches[:, image].reshape(runs, program.input.channels, pixels).transpose(1, 2, 0)
        banks.write("input tensor", program.input.sites(config, image), x.astype(np.uint8), image=image,
                    waits=program.input.vector)
        heads.append([_run_layer(config, banks, layer, image, images) for layer in program.layers[:tail]])
        if not program.output.vector:
            finals.append(_read_output(program, banks, image))
    outputs = [np.stack(parts, axis=1) for parts in zip(*heads, strict=True)]
    outputs += [_run_layer(config, banks, layer, None, images) for layer in program.layers[tail:]]
    if program.output.vector:
        finals = [_read_output(program, banks, image) for image in range(images)]
    return Interpretation(tuple(output.reshape(-1, *output.shape[2:]) for output in outputs),
                          np.stack(finals, axis=1).reshape(-1, *program.output.shape))


def _read_output(program: Program, banks: Banks, image: int) -> np.ndarray:
    """The output tensor of an image of each batch, int64 (runs, C, H, W)."""
    tensor = program.output
    stored = banks.read("output tensor", tensor.sites(program.config, image))
    values = join_raw(stored) if tensor.raw else stored.view(np.int8 if tensor.signed else np.uint8).astype(np.int64)
    return values.transpose(2, 0, 1).reshape(banks.runs, *tensor.shape)


def _run_layer(config: AcceleratorConfig, banks: Banks, layer: LayerProgram, image: int | None,
               images: int) -> np.ndarray:
    """Run one layer; its output is written to the memory and returned as int64 (runs, C, H, W), or, for a layer of the
    tail (``image`` is ``None``), of all images: (runs, images, C, 1, 1)."""
    # The lanes of a batch layer are images.
    count = images if image is None else layer.out[0] * layer.out[1]
    y, x = np.divmod(np.arange(count), layer.out[1])
    lanes = Lanes(config, banks, layer, (y, x))
    acc = lanes.accumulate()
    result = np.empty_like(acc)
    half_even = config.rounding == "half_even"
    for parameters in (stream.parameters for stream in layer.streams):
        for channel, bias, scale in zip(parameters.channel, parameters.bias, parameters.scales, strict=True):
            total = acc[channel] + bias
            result[channel] = (wrap(total, 8 * RAW_BYTES) if Flag.RAW in layer.flags
                               else np.clip(scale.apply(total, half_even=half_even), *layer.clamp))
    stored = split_raw(result) if Flag.RAW in layer.flags else result
    flatten = Flag.FLATTEN in layer.flags
    sites = place(config, layer.out, len(stored), layer.out_base, layer.vertical, layer.horizontal,
                  vector=image if flatten else None)
    sites = Sites(sites.bank[:, :count], sites.address[:, :count], sites.inside[:, :count])
    banks.check(layer.where, sites, "writes")
    # What only one activation has read, that one may overwrite: it is done with it.
    reader = lanes.reader[sites.bank, sites.address]
    own = np.arange(sites.bank.size).reshape(sites.bank.shape) if Flag.RAW not in layer.flags else NOBODY
    if ((reader != NOBODY) & (reader != own)).any():
        raise ImageError(f"{layer.where}: its output overwrites its own input; {AGAIN}")
    banks.write(layer.where, sites, stored.astype(np.uint8), image=image, waits=flatten)
    if image is None:
        return result.transpose(2, 1, 0)[..., None, None]
    return result.transpose(2, 0, 1).reshape(banks.runs, layer.rows, *layer.out)
