"""Readers of the data set file formats, on small files in the same formats and on damaged ones."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from shiftwright.hw.arch.errors import DataError
from shiftwright.sw.data import formats


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 | array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 28, 28)).astype(np.uint8)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx(tmp_path, images, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(idx(images)) if suffix else idx(images))
    np.testing.assert_array_equal(formats.read_idx(path, 3), images)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda data: data[:9], "9 bytes are too few for an IDX header of 16"),
    (lambda data: b"\0\0\x0d\x03" + data[4:],
     "begins with 0x00000d03; an IDX file of bytes in 3 dimensions begins with 0x00000803"),
    (lambda data: data[:-1], "promises 5x28x28 = 3920 bytes, but 3919 follow"),
    (lambda data: data + b"x", "promises 5x28x28 = 3920 bytes, but 3921 follow"),
    (lambda data: b"\0\0\x08\x03" + b"\xff" * 12 + data[16:], "but 3920 follow"),
])
def test_damaged_idx(tmp_path, images, damage, message):
    path = tmp_path / "images"
    path.write_bytes(damage(idx(images)))
    with pytest.raises(DataError, match=f"{path}: .*{message}"):
        formats.read_idx(path, 3)


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: b"no gzip" + data,
                                    lambda data: data[:40] + b"\xff" * 8 + data[48:]])
def test_damaged_gzip(tmp_path, images, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(idx(images))))
    with pytest.raises(DataError, match="images.gz: damaged gzip file"):
        formats.read_idx(path, 3)


def test_gzip_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 1000)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(5000)))
    with pytest.raises(DataError, match="unpacks to more than 1000 bytes"):
        formats.read_idx(path, 3)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="none: can't read: No such file"):
        formats.read_idx(tmp_path / "none", 3)


def cifar(rng, count):
    labels, pixels = rng.integers(0, 10, count), rng.integers(0, 256, (count, 3, 32, 32))
    data = np.concatenate([labels[:, None], pixels.reshape(count, -1)], axis=1).astype(np.uint8).tobytes()
    return data, pixels, labels


def test_cifar(rng):
    data, pixels, labels = cifar(rng, 4)
    found = formats.read_cifar(data, "here")
    np.testing.assert_array_equal(found[0], pixels)
    np.testing.assert_array_equal(found[1], labels)


@pytest.mark.parametrize("size", [0, 3072, 3074])
def test_damaged_cifar(size):
    with pytest.raises(DataError, match=f"here: {size} bytes are not a whole number of CIFAR-10 records of 3073"):
        formats.read_cifar(bytes(size), "here")


def archive(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_cifar_archive(tmp_path, rng):
    parts = {f"data_batch_{number}.bin": cifar(rng, number) for number in (2, 1)}
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(archive({f"cifar-10-batches-bin/{name}": part[0] for name, part in parts.items()}))
    images, labels = formats.read_cifar_archive(path, ["data_batch_1.bin", "data_batch_2.bin"])
    np.testing.assert_array_equal(images, np.concatenate([parts[f"data_batch_{n}.bin"][1] for n in (1, 2)]))
    np.testing.assert_array_equal(labels, np.concatenate([parts[f"data_batch_{n}.bin"][2] for n in (1, 2)]))
    with pytest.raises(DataError, match="has no member test_batch.bin"):
        formats.read_cifar_archive(path, ["test_batch.bin"])


@pytest.mark.parametrize("damage", [lambda data: b"x" * 600, lambda data: data[:len(data) // 2], lambda data: b""])
def test_damaged_cifar_archive(tmp_path, rng, damage):
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(damage(archive({"data_batch_1.bin": cifar(rng, 9)[0]})))
    with pytest.raises(DataError, match="cifar.tar.gz: (damaged tar archive|has no member|can't read)"):
        formats.read_cifar_archive(path, ["data_batch_1.bin"])


@pytest.fixture
def svhn(rng):
    return {"X": rng.integers(0, 256, (32, 32, 3, 6)).astype(np.uint8),
            "y": np.array([[1, 9, 10, 2, 10, 5]], np.uint8).T}


@pytest.mark.parametrize("compressed", [False, True])
def test_svhn(tmp_path, svhn, compressed):
    path = tmp_path / "test_32x32.mat"
    savemat(path, svhn, do_compression=compressed)
    images, labels = formats.read_svhn(path)
    assert labels.tolist() == [1, 9, 0, 2, 0, 5]
    np.testing.assert_array_equal(images[3, 2], svhn["X"][:, :, 2, 3])


@pytest.mark.parametrize(("change", "message"), [
    ({"X": None}, "lacks the variables X and y"),
    ({"X": np.zeros((32, 32, 1, 6), np.uint8)},
     r"X must be uint8 of shape \(32, 32, 3, N\), not uint8 \(32, 32, 1, 6\)"),
    ({"X": np.zeros((32, 32, 3, 6))}, "not float64"),
    ({"y": np.zeros((5, 1), np.uint8)}, "y must hold 6 integers, one an image, not 5 of uint8"),
])
def test_wrong_svhn(tmp_path, svhn, change, message):
    path = tmp_path / "test_32x32.mat"
    savemat(path, {name: value for name, value in {**svhn, **change}.items() if value is not None})
    with pytest.raises(DataError, match=message):
        formats.read_svhn(path)


@pytest.mark.parametrize("cut", [0, 3, 100, 130, 1000])
def test_damaged_svhn(tmp_path, svhn, cut):
    path = tmp_path / "test_32x32.mat"
    savemat(path, svhn, do_compression=True)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="test_32x32.mat: (not a MATLAB 5 file, or damaged|lacks the variables)"):
        formats.read_svhn(path)
