"""Data sets of one's own: NumPy's ``.npz`` files, with the names that Keras gives to arrays."""

import zipfile
from pathlib import Path

import numpy as np

from ...hw.arch.errors import DataError

__all__ = ["SUFFIX", "read"]

SUFFIX = ".npz"
FORMS = {4: "(N, C, H, W)", 3: "(N, C, L)", 2: "(N, features)"}


def read(path: Path, split: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Read a split of a file that holds ``x_train``, ``y_train``, ``x_test`` and ``y_test``, or one pair of these.

    Parameters
    ----------
    path : Path
        Made by :func:`numpy.savez` or :func:`numpy.savez_compressed`. Pickled arrays are refused.
    split : str
        ``"train"`` or ``"test"``.

    Returns
    -------
    images : uint8 array (N, C, H, W), (N, C, L) or (N, features)
    labels : int64 array (N,)
    classes : tuple of str
        ``classes`` of the file, or the labels' numbers.

    Raises
    ------
    DataError
        If the file is missing or damaged, or an array is, or has another type or shape.
    """
    names = f"x_{split}", f"y_{split}"
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise DataError(f"{path}: has no array {' and no '.join(missing)}, only {', '.join(file.files)}; save "
                                f"it with np.savez(file, x_train=..., y_train=..., x_test=..., y_test=...)")
            images, labels = (file[name] for name in names)
            classes = tuple(map(str, file["classes"].ravel())) if "classes" in file else ()
    except OSError as error:
        raise DataError(f"{path}: can't read the data set: {error.strerror or error}; give a file that np.savez made"
                        ) from None
    except (ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a file of np.savez, or damaged: {reason}; save its arrays again, without objects"
                        ) from None
    _check(path, names, images, labels)
    classes = classes or tuple(map(str, range(int(labels.max()) + 1)))
    if labels.max() >= len(classes):
        raise DataError(f"{path}: {names[1]} has labels up to {labels.max()}, but there are {len(classes)} classes; "
                        f"labels count from 0")
    return images, labels.astype(np.int64), classes


def _check(path: Path, names: tuple[str, str], images: np.ndarray, labels: np.ndarray) -> None:
    x, y = names
    if images.dtype != np.uint8:
        raise DataError(f"{path}: {x} must be bytes (uint8), not {images.dtype}; networks are given them divided by "
                        f"256: scale the values to 0 to 255, and train the network on these / 256")
    if images.ndim not in FORMS or not images.size:
        raise DataError(f"{path}: {x} must have a shape {', '.join(FORMS.values())}, not {images.shape}")
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or len(labels) != len(images):
        raise DataError(f"{path}: {y} must be {len(images)} integers, one an image, not {labels.dtype} of shape "
                        f"{labels.shape}")
    if labels.min() < 0:
        raise DataError(f"{path}: {y} has the label {labels.min()}; labels count from 0")
