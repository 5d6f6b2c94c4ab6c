"""Where data set files are searched, and the checksummed download."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from ...hw.arch.errors import DataError
from ..tools import cache_path

__all__ = ["Remote", "search_path", "find", "download"]

ENVIRONMENT = "SHIFTWRIGHT_DATA"
TIMEOUT = 30.0
"""Seconds without a byte after which a download is given up."""


@dataclasses.dataclass(frozen=True)
class Remote:
    """One downloadable file.

    Parameters
    ----------
    file : str
        Its name, in the data set's folder and at the end of each address.
    bases : tuple of str
        Addresses of folders that have it, tried in order: the data set's own home first, then mirrors.
    sha256 : str
        SHA-256 of the file, in hexadecimal.
    unpacked : bool
        The sum is that of the content of the gzip file, which does not depend on how a mirror compressed it.
    """

    file: str
    bases: tuple[str, ...]
    sha256: str
    unpacked: bool = False


def cache_folder() -> Path:
    """The cache folder of Shiftwright, see :func:`shiftwright.sw.tools.cache_path`."""
    return cache_path()


def search_path(name: str, data_dir: str | Path | None) -> list[Path]:
    """Folders that are searched for a data set, in order; each place itself, then its sub-folder ``name``."""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(f"data folder {data_dir} does not exist; give the folder that holds {name} or its files")
    places = [Path(place) for place in (data_dir, os.environ.get(ENVIRONMENT)) if place]
    return [folder for place in [*places, cache_folder()] for folder in (place, place / name)]


def find(folders: list[Path], layouts: list[list[tuple[str, ...]]]) -> tuple[int, list[Path]] | None:
    """The first complete layout in the first folder that has one.

    Parameters
    ----------
    folders : list of Path
        From :func:`search_path`.
    layouts : list of list of tuple of str
        Ways to hold the data set; each a list of files, each file a tuple of names that it may have.

    Returns
    -------
    (int, list of Path) or None
        Number of the layout and its files, in order.
    """
    for folder in folders:
        for number, layout in enumerate(layouts):
            found = [next((folder / name for name in names if (folder / name).is_file()), None) for names in layout]
            paths = [path for path in found if path is not None]
            if len(paths) == len(layout):
                return number, paths
    return None


def _digest(path: str, unpacked: bool) -> str:
    digest = hashlib.sha256()
    with (gzip.open(path) if unpacked else open(path, "rb")) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(remote: Remote, folder: Path) -> Path:
    """Fetch one file into ``folder``: to a temporary file, renamed only when its SHA-256 is right.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        If no address delivers it, a checksum is wrong, or it can't be written.
    """
    target = folder / remote.file
    failures = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{remote.file}.")
        os.close(handle)
    except OSError as error:
        raise DataError(f"{folder}: can't write the download of {remote.file}: {error.strerror or error}") from None
    try:
        for base in remote.bases:
            url = f"{base}{remote.file}"
            try:
                with urllib.request.urlopen(url, timeout=TIMEOUT) as response, open(temporary, "wb") as file:
                    while block := response.read(1 << 20):
                        file.write(block)
                found = _digest(temporary, remote.unpacked)
            except urllib.error.HTTPError as error:
                failures.append(f"{url}: HTTP status {error.code}")
                error.close()
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                failures.append(f"{url}: damaged gzip file: {error}")
            except (http.client.HTTPException, ValueError) as error:
                failures.append(f"{url}: {error or type(error).__name__}")
            except OSError as error:
                failures.append(f"{url}: {getattr(error, 'reason', None) or error.strerror or error}")
            else:
                if found == remote.sha256:
                    os.chmod(temporary, 0o644)
                    os.replace(temporary, target)
                    return target
                failures.append(f"{url}: SHA-256 is {found}, not {remote.sha256}")
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    raise DataError(f"{remote.file}: download failed ({'; '.join(failures)})")
