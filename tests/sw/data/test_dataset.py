"""Data sets by name: search order, download with its checksum (from a server of our own), and damage."""

import functools
import gzip
import hashlib
import http.server
import re
import struct
import threading

import numpy as np
import pytest
from scipy.io import savemat

from shiftwright.hw.arch.errors import DataError
from shiftwright.sw.data import DATASETS, dataset, fetch, load


def idx(array):
    array = np.asarray(array, np.uint8)
    return struct.pack(f">{1 + array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


def put_mnist(folder, value, count=3, *, split="t10k", zipped=True):
    """A MNIST of ``count`` images of one grey; returns its images."""
    folder.mkdir(parents=True, exist_ok=True)
    images = np.full((count, 28, 28), value)
    for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", np.arange(count) % 10)):
        data = idx(array)
        (folder / f"{name}.gz" if zipped else folder / name).write_bytes(gzip.compress(data) if zipped else data)
    return images[:, None]


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No data folder of this machine, and no network."""
    monkeypatch.delenv(fetch.ENVIRONMENT, raising=False)
    monkeypatch.delenv("SHIFTWRIGHT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refuse(*args, **kwargs):
        raise OSError("no network in tests")

    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)


def test_digits_are_built_in():
    train, test = load("digits", split="train"), load("digits", split="test")
    assert (train.images.shape, test.images.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int64
    assert (test.images.max(), train.images.max()) == (240, 240)
    assert np.bincount(test.labels).tolist() == [36] * 10
    together = np.concatenate([train.images, test.images]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    expected = (load_digits().data * 15).astype(np.uint8)
    assert sorted(map(bytes, together)) == sorted(map(bytes, expected))
    # The split is part of every reported accuracy, so it must never change.
    assert hashlib.sha256(test.images.tobytes()).hexdigest()[:16] == "1adbd34b0c07afe3"


def test_search_order(tmp_path, monkeypatch):
    places = [tmp_path / "given", tmp_path / "environment", tmp_path / "cache" / "shiftwright"]
    put_mnist(places[2], 3)
    assert load("mnist").images[0, 0, 0, 0] == 3
    monkeypatch.setenv(fetch.ENVIRONMENT, str(places[1]))
    assert load("mnist").images[0, 0, 0, 0] == 3
    put_mnist(places[1] / "mnist", 2)
    assert load("mnist").images[0, 0, 0, 0] == 2
    put_mnist(places[0], 1)
    assert load("mnist", data_dir=places[0]).images[0, 0, 0, 0] == 1
    assert load("mnist").images[0, 0, 0, 0] == 2


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_data_sets(tmp_path, name, zipped):
    images = put_mnist(tmp_path / name, 77, split="train", zipped=zipped)
    found = load(name, split="train", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [0, 1, 2]
    assert (found.name, found.split, len(found.classes), found.shape, len(found)) == (name, "train", 10, (1, 28, 28), 3)
    assert len(found.take(2)) == 2


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_cifar10(tmp_path, rng, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    records = rng.integers(0, 10, (5, 2, 3073)).astype(np.uint8)
    for number, part in enumerate(records, start=1):
        (tmp_path / folder / f"data_batch_{number}.bin").write_bytes(part.tobytes())
    found = load("cifar10", split="train", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images.reshape(10, -1), records.reshape(10, 3073)[:, 1:])
    np.testing.assert_array_equal(found.labels, records[:, :, 0].reshape(-1))
    (tmp_path / folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data set cifar10 \(train\) is not here"):
        load("cifar10", split="train", data_dir=tmp_path)


def test_svhn(tmp_path, rng):
    pixels = rng.integers(0, 256, (32, 32, 3, 2)).astype(np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [4]])})
    found = load("svhn", data_dir=tmp_path)
    np.testing.assert_array_equal(found.images, pixels.transpose(3, 2, 0, 1))
    assert found.labels.tolist() == [0, 4]


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "imagenet")])
def test_missing_and_offline(tmp_path, monkeypatch, name):
    monkeypatch.setenv(fetch.ENVIRONMENT, str(tmp_path / "environment"))
    with pytest.raises(DataError) as caught:
        load(name, data_dir=tmp_path)
    message = str(caught.value)
    for part in (f"data set {name} (test) is not here", f"{tmp_path / name}, ", str(tmp_path / "environment" / name),
                 str(tmp_path / "cache" / "shiftwright" / name), "no network in tests", "http",
                 "--data-dir or SHIFTWRIGHT_DATA"):
        assert part in message


def test_unknown_names(tmp_path):
    with pytest.raises(DataError, match="unknown data set 'nmist'; known are digits, mnist, "):
        load("nmist")
    with pytest.raises(DataError, match="split must be 'train' or 'test', not 'validation'"):
        load("mnist", split="validation")
    with pytest.raises(DataError, match="data folder .*none does not exist"):
        load("mnist", data_dir=tmp_path / "none")


@pytest.mark.parametrize(("images", "labels", "message"), [
    (np.zeros((2, 28, 27)), [1, 2], r"mnist images have shape \(1, 28, 28\), not \(1, 28, 27\)"),
    (np.zeros((2, 28, 28)), [1, 2, 3], "2 images but 3 labels"),
    (np.zeros((0, 28, 28)), [], "no images"),
    (np.zeros((2, 28, 28)), [1, 10], "label 10 is outside 0 to 9"),
])
def test_files_that_do_not_fit_together(tmp_path, images, labels, message):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array(labels)))
    with pytest.raises(DataError, match=message):
        load("mnist", data_dir=tmp_path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of the folder ``home``; gives its address."""
    home = tmp_path / "home"
    home.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    monkeypatch.undo()
    monkeypatch.delenv(fetch.ENVIRONMENT, raising=False)
    monkeypatch.delenv("SHIFTWRIGHT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(home))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield home, f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()
        thread.join()


def test_download(tmp_path, server, monkeypatch):
    home, address = server
    images = put_mnist(home, 9)
    remotes = []
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        content = gzip.decompress((home / name).read_bytes())
        remotes.append(fetch.Remote(name, (f"{address}gone/", address), hashlib.sha256(content).hexdigest(), True))
    source = dataset._SOURCES["mnist"]
    monkeypatch.setitem(dataset._SOURCES, "mnist", dataset.dataclasses.replace(source, remotes=lambda split: remotes))
    np.testing.assert_array_equal(load("mnist").images, images)
    cached = tmp_path / "cache" / "shiftwright" / "mnist"
    assert sorted(path.name for path in cached.iterdir()) == [remote.file for remote in remotes]
    for path in home.iterdir():
        path.unlink()
    np.testing.assert_array_equal(load("mnist").images, images)


@pytest.mark.parametrize("unpacked", [False, True])
def test_download_with_a_wrong_checksum_leaves_nothing(tmp_path, server, unpacked):
    home, address = server
    (home / "f.gz").write_bytes(gzip.compress(b"content"))
    remote = fetch.Remote("f.gz", (address,), "0" * 64, unpacked)
    with pytest.raises(DataError, match=f"f.gz: download failed .*SHA-256 is .*, not {'0' * 64}"):
        fetch.download(remote, tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize(("content", "message"), [(None, "HTTP status 404"), (b"not gzip", "damaged gzip file")])
def test_download_that_fails(tmp_path, server, content, message):
    home, address = server
    if content is not None:
        (home / "f.gz").write_bytes(content)
    with pytest.raises(DataError, match=f"{address}f.gz: {message}"):
        fetch.download(fetch.Remote("f.gz", (address,), "0" * 64, True), tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_download_falls_back_to_a_mirror(tmp_path, server):
    home, address = server
    (home / "f").write_bytes(b"content")
    remote = fetch.Remote("f", ("http://127.0.0.1:1/", address), hashlib.sha256(b"content").hexdigest())
    assert fetch.download(remote, tmp_path / "to").read_bytes() == b"content"


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert fetch.cache_folder().is_absolute()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "shiftwright"


def test_checksums_are_well_formed():
    for source in dataset._SOURCES.values():
        for split in ("train", "test"):
            for remote in source.remotes(split):
                assert re.fullmatch("[0-9a-f]{64}", remote.sha256), remote.file
