"""The data sets by name, and :func:`load`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from ...hw.arch.errors import DataError
from . import arrays, fetch, formats, imagenet

__all__ = ["DATASETS", "PIXEL_SCALE", "Dataset", "load", "locate"]

PIXEL_SCALE = 256.0
"""Networks are trained and run on pixels divided by this."""
Split = Literal["train", "test"]
Arrays = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images.

    Parameters
    ----------
    images : uint8 array (N, C, H, W)
        Pixels; networks are fed ``images / PIXEL_SCALE``. Signals (N, C, L) become images of height 1, vectors
        (N, features) images of a single pixel.
    labels : int64 array (N,)
        Class of each image, from 0.
    name : str
        Name in :data:`DATASETS`, or the file.
    split : str
        ``"train"`` or ``"test"``.
    classes : tuple of str
        Names of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    split: str
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim == 3:
            object.__setattr__(self, "images", self.images[:, :, None])
        if self.images.ndim == 2:
            object.__setattr__(self, "images", self.images[:, :, None, None])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def check_shape(self, wanted: tuple[int, int, int], *, way: str = "give the data set that it was trained on",
                    ) -> None:
        """Raise :class:`DataError` unless images have the shape (C, H, W) that a network takes.

        ``way`` is what to do where the arrays are not just in another order.
        """
        if self.shape == wanted:
            return
        channels, height, width = wanted
        if self.shape == (height, width, channels):
            way = "channels come first: save x.transpose(0, 3, 1, 2)"
        elif channels == 1 and self.shape == (height, 1, width):
            way = "images of one channel need an axis for it, else they are signals: save x[:, None]"
        raise DataError(f"data set {self.name} has images of shape {self.shape}, but the network takes {wanted}; {way}")

    def take(self, count: int) -> "Dataset":
        """The first ``count`` images (all when there are fewer)."""
        return dataclasses.replace(self, images=self.images[:count], labels=self.labels[:count])


@dataclasses.dataclass(frozen=True)
class _Source:
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    layouts: Callable[[str], list[list[tuple[str, ...]]]]
    read: Callable[[str, int, list[Path]], Arrays]
    remotes: Callable[[str], list[fetch.Remote]]


_DIGITS = tuple("0123456789")
_PREFIX = {"train": "train", "test": "t10k"}
_CIFAR_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"

# MNIST's sums are those of the unpacked files, Fashion-MNIST's those of the .gz files at its home.
_MNIST_BASES = ("http://yann.lecun.com/exdb/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")
_MNIST = {
    "train-images-idx3-ubyte.gz": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte.gz": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte.gz": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte.gz": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION_BASES = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
_FASHION = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_CIFAR = fetch.Remote(_CIFAR_ARCHIVE, ("https://www.cs.toronto.edu/~kriz/",),
                      "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd")
_SVHN_BASES = ("http://ufldl.stanford.edu/housenumbers/",)
_SVHN = {
    "train": "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "test": "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
}


def _idx_names(split: str) -> list[str]:
    return [f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte"]


def _idx_layouts(split: str) -> list[list[tuple[str, ...]]]:
    # Some copies of MNIST are unpacked with a dot before "idx".
    return [[(name, f"{name}.gz", name.replace("-idx", ".idx")) for name in _idx_names(split)]]


def _read_idx(split: str, layout: int, paths: list[Path]) -> Arrays:
    return formats.read_idx(paths[0], 3)[:, None], formats.read_idx(paths[1], 1).astype(np.int64)


def _idx_remotes(bases: tuple[str, ...], sums: dict[str, str], unpacked: bool) -> Callable[[str], list[fetch.Remote]]:
    def remotes(split: str) -> list[fetch.Remote]:
        return [fetch.Remote(f"{name}.gz", bases, sums[f"{name}.gz"], unpacked) for name in _idx_names(split)]
    return remotes


def _cifar_layouts(split: str) -> list[list[tuple[str, ...]]]:
    files = _CIFAR_FILES[split]
    return [[(f"cifar-10-batches-bin/{name}", name) for name in files], [(_CIFAR_ARCHIVE,)]]


def _read_cifar(split: str, layout: int, paths: list[Path]) -> Arrays:
    return formats.read_cifar_archive(paths[0], _CIFAR_FILES[split]) if layout else formats.read_cifar_files(paths)


_CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SOURCES = {
    "mnist": _Source((1, 28, 28), _DIGITS, _idx_layouts, _read_idx, _idx_remotes(_MNIST_BASES, _MNIST, True)),
    "fashion-mnist": _Source((1, 28, 28), _CLOTHES, _idx_layouts, _read_idx,
                             _idx_remotes(_FASHION_BASES, _FASHION, False)),
    "cifar10": _Source((3, 32, 32), _OBJECTS, _cifar_layouts, _read_cifar, lambda split: [_CIFAR]),
    "svhn": _Source((3, 32, 32), _DIGITS, lambda split: [[(f"{split}_32x32.mat",)]],
                    lambda split, layout, paths: formats.read_svhn(paths[0]),
                    lambda split: [fetch.Remote(f"{split}_32x32.mat", _SVHN_BASES, _SVHN[split])]),
}
DATASETS: tuple[str, ...] = ("digits", *_SOURCES, "imagenet")
"""Names that :func:`load` knows."""
TEST_DIGITS_PER_CLASS = 36


def _digits(split: Split) -> Dataset:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    labels = labels.astype(np.int64)
    generator = np.random.default_rng(20261122)
    chosen = [generator.permutation(np.flatnonzero(labels == digit))[:TEST_DIGITS_PER_CLASS] for digit in range(10)]
    test = np.zeros(len(labels), bool)
    test[np.concatenate(chosen)] = True
    index = np.flatnonzero(test == (split == "test"))
    images = (pixels[index] * 15).astype(np.uint8).reshape(-1, 1, 8, 8)
    return Dataset(images, labels[index], "digits", split, _DIGITS)


def load(name: str, *, split: Split = "test", data_dir: str | Path | None = None, limit: int | None = None) -> Dataset:
    """Load a data set.

    ``digits`` is inside scikit-learn: 1,437 training and 360 test images (36 a class, a fixed choice), its pixel values
    of 0 to 16 times 15. The others are searched in ``data_dir``, in the folder that the environment variable
    ``SHIFTWRIGHT_DATA`` names, and in the cache folder (``~/.cache/shiftwright``), each time in the folder itself and
    in its sub-folder ``name``; then downloaded from the data set's home into the cache folder, with a SHA-256 check.
    A name that ends in ``.npz`` is a file of one's own, see :func:`.arrays.read`.
    ``imagenet`` is never downloaded: it is the folders ``train`` and ``val``, each with a folder of JPEG files a class,
    of which at most 10,000 training and 50,000 test images are read, see :func:`.imagenet.read`.

    Parameters
    ----------
    name : str
        One of :data:`DATASETS`, or a file.
    split : str
        ``"train"`` or ``"test"``.
    data_dir : path, optional
        Folder that is searched first.
    limit : int, optional
        The first images only; of ``imagenet`` no others are read.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If the name is unknown, ``limit`` is not positive, the files are neither here nor to be had, or one is damaged
        or does not hold what it should.
    ToolError
        If it is ``imagenet``, and Pillow is missing.
    """
    if name not in DATASETS and not name.endswith(arrays.SUFFIX):
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}, and files ({arrays.SUFFIX})")
    if split not in _PREFIX:
        raise DataError(f"data set {name}: split must be 'train' or 'test', not {split!r}")
    if limit is not None and limit < 1:
        raise DataError(f"data set {name}: limit must be at least 1, not {limit}")
    if name == "imagenet":
        return _imagenet(split, data_dir, limit)
    if name.endswith(arrays.SUFFIX):
        images, labels, classes = arrays.read(Path(name), split)
        own = Dataset(images, labels, name, split, classes)
        return own if limit is None else own.take(limit)
    dataset = _digits(split) if name == "digits" else _from_files(name, split, data_dir)
    return dataset if limit is None else dataset.take(limit)


def _imagenet(split: Split, data_dir: str | Path | None, limit: int | None) -> Dataset:
    images, labels, classes = imagenet.read(split, imagenet.find(split, data_dir), limit)
    return Dataset(images, labels, "imagenet", split, classes)


def _from_files(name: str, split: Split, data_dir: str | Path | None) -> Dataset:
    source = _SOURCES[name]
    folders = fetch.search_path(name, data_dir)
    layouts = source.layouts(split)
    found = fetch.find(folders, layouts)
    if found is None:
        try:
            for remote in source.remotes(split):
                fetch.download(remote, fetch.cache_folder() / name)
        except DataError as error:
            wanted = " or ".join(", ".join(names[0] for names in layout) for layout in layouts)
            raise DataError(
                f"data set {name} ({split}) is not here: {wanted} not found in {', '.join(map(str, folders))}, and "
                f"{error}; put the files in one of these folders, or name theirs with --data-dir or {fetch.ENVIRONMENT}"
            ) from None
        cache = fetch.cache_folder() / name
        found = fetch.find([cache], layouts)
        if found is None:
            raise DataError(f"data set {name} ({split}): the download vanished from {cache}; try again")
    images, labels = source.read(split, *found)
    _check(name, source, images, labels, found[1])
    return Dataset(images, labels, name, split, source.classes)


def locate(name: str, *, split: Split = "test", data_dir: str | Path | None = None) -> str | None:
    """Where :func:`load` would read a data set from, without reading or downloading anything.

    Returns
    -------
    str or None
        A folder, or the file itself; ``"inside scikit-learn"`` for the digits, or ``None`` when it would have to be
        downloaded.

    Raises
    ------
    DataError
        If ``data_dir`` does not exist, or ``imagenet`` is not here, which is not downloaded.
    """
    if name == "digits":
        return "inside scikit-learn"
    if name == "imagenet":
        return str(imagenet.find(split, data_dir))
    if name.endswith(arrays.SUFFIX):
        return name
    found = fetch.find(fetch.search_path(name, data_dir), _SOURCES[name].layouts(split))
    return str(found[1][0].parent) if found else None


def _check(name: str, source: _Source, images: np.ndarray, labels: np.ndarray, paths: list[Path]) -> None:
    where = ", ".join(map(str, paths))
    if images.shape[1:] != source.shape:
        raise DataError(f"{where}: {name} images have shape {source.shape}, not {images.shape[1:]}; these are other "
                        f"files")
    if len(images) != len(labels):
        raise DataError(f"{where}: {len(images)} images but {len(labels)} labels; fetch both files again")
    if not len(labels):
        raise DataError(f"{where}: no images; fetch the files again")
    if labels.min() < 0 or labels.max() >= len(source.classes):
        bad = int(labels.max() if labels.max() >= len(source.classes) else labels.min())
        raise DataError(f"{where}: label {bad} is outside 0 to {len(source.classes) - 1}; fetch the files again")
