"""What a user gives to infer, as the integers that an image takes."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.errors import DataError, ToolError
from ..data import PIXEL_SCALE

if TYPE_CHECKING:
    from ..compiler.placement import TensorPlacement

__all__ = ["quantize", "read_inputs"]


def quantize(tensor: "TensorPlacement", values: np.ndarray, rounding: str) -> np.ndarray:
    """Integers of real values: ``x / 2**exponent``, rounded and clamped.

    Parameters
    ----------
    tensor : TensorPlacement
        An image's input.
    values : array (N, C, H, W)
        A tensor that is a flat vector takes images too; they are flattened in C order.
    rounding : str
        Of halves, as the image's configuration has it.

    Returns
    -------
    int64 array (N, *tensor.shape)
    """
    if math.prod(values.shape[1:]) != math.prod(tensor.shape):
        raise DataError(f"the model takes inputs of shape {_text(tensor.shape)}, not {_text(values.shape[1:])}; give "
                        f"data of that shape, or load the model that these are for")
    return tensor.quantize(values, rounding)


def read_inputs(path: str | Path, tensor: "TensorPlacement", rounding: str) -> np.ndarray:
    """Read a file of one or several inputs.

    Parameters
    ----------
    path : path
        ``.npy``: an array (C, H, W) or (N, C, H, W), of real values, or of pixels when it is uint8. Anything else: a
        picture that Pillow reads, in grey or RGB as the input has one or three channels.
    tensor : TensorPlacement
        An image's input.
    rounding : str
        Of halves, as the image's configuration has it.

    Returns
    -------
    int64 array (N, *tensor.shape)

    Raises
    ------
    DataError
        If the file is missing, damaged or of another size.
    ToolError
        If it is a picture, and Pillow is missing.
    """
    path = Path(path)
    values = _read_array(path) if path.suffix == ".npy" else _read_picture(path, tensor)
    size = math.prod(tensor.shape)
    if values.ndim < 4 and values.size == size:
        values = values[None]
    elif values.ndim < 2 or math.prod(values.shape[1:]) != size:
        raise DataError(f"{path}: the model takes {_text(tensor.shape)}, or several of these, not "
                        f"{_text(values.shape)}")
    if not len(values):
        raise DataError(f"{path}: there is no input in this file")
    return quantize(tensor, values / PIXEL_SCALE if values.dtype == np.uint8 else values, rounding)


def _read_array(path: Path) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: can't read the file: {error.strerror or error}") from None
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not an array: {error}; write it with numpy.save") from None
    if not isinstance(values, np.ndarray) or values.dtype != np.uint8 and values.dtype.kind != "f":
        raise DataError(f"{path}: the array must be of floating-point numbers, or uint8 for pixels, not "
                        f"{getattr(values, 'dtype', type(values).__name__)}; convert it with astype")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: the array has values that are not finite; replace them")
    return values


def _read_picture(path: Path, tensor: "TensorPlacement") -> np.ndarray:
    try:
        from PIL import Image as Picture
        from PIL import UnidentifiedImageError
    except ModuleNotFoundError:
        raise ToolError(f"Pillow is needed to read the picture {path}; get it with: pip install 'shiftwright[device]'; "
                        f"or give an array (.npy)") from None
    try:
        with Picture.open(path) as picture:
            width, height = picture.size
            colours = 3 if math.prod(tensor.shape) == 3 * width * height else 1
            pixels = np.asarray(picture.convert("RGB" if colours == 3 else "L"))
    except UnidentifiedImageError:
        raise DataError(f"{path}: neither an array (.npy) nor a picture that Pillow reads") from None
    except OSError as error:
        raise DataError(f"{path}: can't read the picture: {error.strerror or error}") from None
    if math.prod(tensor.shape) != pixels.size:
        raise DataError(f"{path}: the model takes {_text(tensor.shape)}, not a picture of {height} x {width} pixels; "
                        f"scale or crop it")
    return pixels[None] if colours == 1 else pixels.transpose(2, 0, 1)


def _text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
