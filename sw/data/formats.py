"""The file formats of the data sets: IDX (MNIST), CIFAR-10 binary records, and SVHN's MATLAB files.

Every reader checks the whole file and raises :class:`~shiftwright.hw.arch.errors.DataError` with the file, the offence
and the rule.
"""

import gzip
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np

from ...hw.arch.errors import DataError

__all__ = ["read_idx", "read_cifar", "read_cifar_archive", "read_svhn"]

MAX_BYTES = 1 << 28
"""Largest unpacked file: the largest real one (CIFAR-10's training set) has 154 MB."""
CIFAR_RECORD = 1 + 3 * 32 * 32
_MEND = "delete the file and fetch it again"


def _read(path: Path) -> bytes:
    try:
        with (gzip.open(path) if path.suffix == ".gz" else open(path, "rb")) as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file: {error}; {_MEND}") from None
    except OSError as error:
        raise DataError(f"{path}: can't read: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise DataError(f"{path}: unpacks to more than {MAX_BYTES} bytes, no data set does; {_MEND}")
    return bytes(content)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip-compressed (by its suffix ``.gz``).

    Parameters
    ----------
    path : Path
        The file.
    dimensions : int
        Number of dimensions it must have: 3 for images, 1 for labels.

    Returns
    -------
    uint8 array
        With the file's shape.

    Raises
    ------
    DataError
        If the file is not such an IDX file, or longer or shorter than its header says.
    """
    content = _read(path)
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(f"{path}: {len(content)} bytes are too few for an IDX header of {header}; {_MEND}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", content[:header])
    if magic != 0x0800 | dimensions:
        raise DataError(f"{path}: begins with 0x{magic:08x}; an IDX file of bytes in {dimensions} dimensions begins "
                        f"with 0x{0x0800 | dimensions:08x}; {_MEND}")
    size = 1
    for extent in shape:
        size *= extent
    if len(content) - header != size:
        raise DataError(f"{path}: its header promises {'x'.join(map(str, shape))} = {size} bytes, but "
                        f"{len(content) - header} follow; {_MEND}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_cifar(content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse CIFAR-10 binary records: a label byte and 3,072 pixel bytes (channel, row, column) an image.

    Parameters
    ----------
    content : bytes
        Whole file.
    where : str
        Name for messages.

    Returns
    -------
    images : uint8 array (N, 3, 32, 32)
    labels : int64 array (N,)
    """
    if not content or len(content) % CIFAR_RECORD:
        raise DataError(f"{where}: {len(content)} bytes are not a whole number of CIFAR-10 records of "
                        f"{CIFAR_RECORD}; {_MEND}")
    records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64)


def read_cifar_files(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Read and join CIFAR-10 binary files; shapes as in :func:`read_cifar`."""
    parts = [read_cifar(_read(path), str(path)) for path in paths]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def read_cifar_archive(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read members of ``cifar-10-binary.tar.gz`` by their file names, without unpacking it to disk."""
    parts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = member.name.rsplit("/", 1)[-1]
                if name not in names or not member.isfile():
                    continue
                if member.size > MAX_BYTES:
                    raise DataError(f"{path}: member {member.name} has {member.size} bytes, more than "
                                    f"{MAX_BYTES}; {_MEND}")
                file = archive.extractfile(member)
                if file is not None:
                    parts[name] = read_cifar(file.read(), f"{path}: {member.name}")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged tar archive: {error}; {_MEND}") from None
    except OSError as error:
        raise DataError(f"{path}: can't read: {error.strerror or error}; {_MEND}") from None
    for name in names:
        if name not in parts:
            raise DataError(f"{path}: has no member {name}; CIFAR-10's binary archive has it; {_MEND}")
    return (np.concatenate([parts[name][0] for name in names]), np.concatenate([parts[name][1] for name in names]))


def read_svhn(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an SVHN "format 2" file (MATLAB 5): ``X`` (32, 32, 3, N) uint8 and ``y`` (N, 1), where 10 is digit 0.

    Returns
    -------
    images : uint8 array (N, 3, 32, 32)
    labels : int64 array (N,)
    """
    from scipy.io import loadmat

    try:
        with open(path, "rb") as file:
            content = loadmat(file, variable_names=["X", "y"])
    # scipy's parser raises whatever a damaged byte leads it to, so nothing narrower is safe here.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:
            raise DataError(f"{path}: can't read: {error.strerror}") from None
        raise DataError(f"{path}: not a MATLAB 5 file, or damaged: {error}; {_MEND}") from None
    images, labels = content.get("X"), content.get("y")
    if not isinstance(images, np.ndarray) or not isinstance(labels, np.ndarray):
        raise DataError(f"{path}: lacks the variables X and y of SVHN's cropped digits; {_MEND}")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        raise DataError(f"{path}: X must be uint8 of shape (32, 32, 3, N), not {images.dtype} {images.shape}; {_MEND}")
    if labels.size != images.shape[3] or labels.dtype.kind not in "ui":
        raise DataError(f"{path}: y must hold {images.shape[3]} integers, one an image, not {labels.size} of "
                        f"{labels.dtype}; {_MEND}")
    digits = labels.reshape(-1).astype(np.int64)
    return np.ascontiguousarray(images.transpose(3, 2, 0, 1)), np.where(digits == 10, 0, digits)
