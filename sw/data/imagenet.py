"""ImageNet (ILSVRC-2012) from folders of JPEG files, one folder a class."""

import re
from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...hw.arch.errors import DataError, ToolError
from . import fetch

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SHAPE", "find", "read"]

SHAPE = (3, 224, 224)
SHORT_SIDE = 256
"""Pixels of a picture's shorter side before its centre is cut out."""
FOLDERS = {"train": "train", "test": "val"}
"""Of each split; the labels of ILSVRC-2012's own test split were never published."""
LIMITS = {"train": 10_000, "test": 50_000}
"""Images that are read of each split: 150,528 bytes each, so 1.5 and 7.5 GB."""
CLASS = re.compile(r"n\d{8}")
SUFFIXES = (".jpeg", ".jpg")


def find(split: str, data_dir: str | Path | None) -> Path:
    """The first folder of the search path with classes of a split, else a :class:`DataError` that says what to do."""
    folders = fetch.search_path("imagenet", data_dir)
    for folder in folders:
        if _classes(folder / FOLDERS[split]):
            return folder
    raise DataError(
        f"data set imagenet ({split}) is not here: {FOLDERS[split]}/<WordNet ID>/*.JPEG not found in "
        f"{', '.join(map(str, folders))}, and it is not to be had without an account (ILSVRC2012 of "
        f"https://image-net.org/download.php); put train and val into one of these folders, each with a folder a "
        f"class, such as n01440764, or name theirs with --data-dir or {fetch.ENVIRONMENT}")


def read(split: str, folder: Path, limit: int | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read images as networks are tested on them: shorter side scaled to 256 pixels, 224 x 224 cut out of the centre.

    Classes are numbered by their WordNet IDs in order, those of both splits together. The images come class by class in
    turn, in the order of their file names: the first of each class, the second of each, and so on.

    Parameters
    ----------
    split : str
        ``"train"`` or ``"test"``, which is the folder ``val``.
    folder : Path
        From :func:`find`.
    limit : int, optional
        Images to read; the split's of :data:`LIMITS` by default.

    Returns
    -------
    images : uint8 array (N, 3, 224, 224)
    labels : int64 array (N,)
    classes : tuple of str
        WordNet IDs.

    Raises
    ------
    DataError
        If there is no image, or one is damaged.
    ToolError
        If Pillow is missing.
    """
    classes = sorted({path.name for name in FOLDERS.values() for path in _classes(folder / name)})
    numbers = {name: number for number, name in enumerate(classes)}
    files = list(islice(_in_turn(folder / FOLDERS[split]), LIMITS[split] if limit is None else limit))
    if not files:
        raise DataError(f"{folder / FOLDERS[split]}: no images; put *.JPEG into its folders {classes[0]} and so on")
    images = np.empty((len(files), *SHAPE), np.uint8)
    for image, path in zip(images, files, strict=True):
        image[:] = _picture(path)
    return images, np.array([numbers[path.parent.name] for path in files], np.int64), tuple(classes)


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: can't list the folder: {error.strerror or error}") from None


def _classes(folder: Path) -> list[Path]:
    return [path for path in _list(folder) if CLASS.fullmatch(path.name)]


def _in_turn(folder: Path) -> Iterator[Path]:
    classes = [[path for path in _list(place) if path.suffix.lower() in SUFFIXES] for place in _classes(folder)]
    return (path for turn in zip_longest(*classes) for path in turn if path is not None)


def _picture(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ModuleNotFoundError:
        raise ToolError("Pillow is needed to read ImageNet's pictures; get it with: pip install "
                        "'shiftwright[imagenet]'") from None
    try:
        with Image.open(path) as picture:
            return np.asarray(_cut(picture.convert("RGB"))).transpose(2, 0, 1)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a picture, or damaged: {error}; delete the file or fetch it again") from None


def _cut(picture: "Image") -> "Image":
    from PIL.Image import Resampling

    short = min(picture.size)
    width, height = (SHORT_SIDE * side // short for side in picture.size)
    left, top = round((width - SHAPE[2]) / 2), round((height - SHAPE[1]) / 2)
    return picture.resize((width, height), Resampling.BILINEAR).crop((left, top, left + SHAPE[2], top + SHAPE[1]))
