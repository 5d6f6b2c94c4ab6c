"""Data sets of one's own, from NumPy files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import DataError
from shiftwright.sw.data import load
from shiftwright.sw.data.dataset import locate


def arrays(count: int = 6, shape: tuple[int, ...] = (2, 4, 5)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"{name}_{split}": values for split in ("train", "test") for name, values in (
        ("x", rng.integers(0, 256, (count, *shape), dtype=np.uint8)), ("y", np.arange(count, dtype=np.uint8) % 3))}


@pytest.mark.parametrize(("shape", "images"), [((2, 4, 5), (2, 4, 5)), ((3, 7), (3, 1, 7)), ((16,), (16, 1, 1))])
def test_splits_and_forms(shape: tuple[int, ...], images: tuple[int, ...], tmp_path: Path) -> None:
    path, given = tmp_path / "mine.npz", arrays(shape=shape)
    np.savez_compressed(path, **given)
    for split in ("train", "test"):
        found = load(str(path), split=split)  # type: ignore[arg-type]
        assert found.shape == images and found.labels.dtype == np.int64 and found.classes == ("0", "1", "2")
        assert np.array_equal(found.images.reshape(6, -1), given[f"x_{split}"].reshape(6, -1))
        assert np.array_equal(found.labels, given[f"y_{split}"])
    assert len(load(str(path), limit=2)) == 2 and locate(str(path)) == str(path)
    np.savez(path, **given, classes=np.array(["cat", "dog", "owl", "none"]))
    assert load(str(path)).classes == ("cat", "dog", "owl", "none")


@pytest.mark.parametrize(("changes", "message"), [
    ({"x_test": None}, "has no array x_test, only x_train, y_train, y_test; save it with np.savez"),
    ({"x_test": np.zeros((6, 2, 4, 5), np.float32)}, "x_test must be bytes .uint8., not float32; networks are given"),
    ({"x_test": np.zeros((6, 1, 2, 4, 5), np.uint8)}, r"x_test must have a shape \(N, C, H, W\), .* not \(6, 1, 2, 4"),
    ({"x_test": np.zeros((0, 2, 4, 5), np.uint8)}, r"x_test must have a shape .*, not \(0, 2, 4, 5\)"),
    ({"y_test": np.zeros(5, np.int64)}, r"y_test must be 6 integers, one an image, not int64 of shape \(5,\)"),
    ({"y_test": np.eye(6, dtype=np.int64)}, r"y_test must be 6 integers, .* not int64 of shape \(6, 6\)"),
    ({"y_test": np.zeros(6)}, "y_test must be 6 integers, one an image, not float64"),
    ({"y_test": np.arange(6) - 1}, "y_test has the label -1; labels count from 0"),
    ({"classes": np.array(["one", "two"])}, "y_test has labels up to 2, but there are 2 classes"),
    ({"x_test": np.array([{}] * 6, object)}, "not a file of np.savez, or damaged: .*; save its arrays again, without"),
])
def test_bad_arrays(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **{name: values for name, values in (arrays() | changes).items() if values is not None})
    with pytest.raises(DataError, match=message):
        load(str(path))


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    with pytest.raises(DataError, match=r"mine.npz: can't read the data set: No such file"):
        load(str(path))
    np.savez(path, **arrays())
    whole, pixels = path.read_bytes(), arrays()["x_test"].tobytes()
    assert whole.count(pixels) == 1
    for damaged in (b"", b"nothing", whole[:len(whole) // 2], whole.replace(pixels, bytes(len(pixels)))):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"mine.npz: not a file of np.savez, or damaged"):
            load(str(path))


@pytest.mark.parametrize(("shape", "way"), [
    ((4, 5, 1), r"of shape \(4, 5, 1\), but .* \(1, 4, 5\); channels come first: save x.transpose\(0, 3, 1, 2\)"),
    ((4, 5), r"of shape \(4, 1, 5\), but .* \(1, 4, 5\); images of one channel need an axis .*: save x\[:, None\]"),
    ((1, 5, 4), r"shape \(1, 5, 4\), but the network takes \(1, 4, 5\); give the data set that it was trained on"),
])
def test_arrays_of_another_shape(shape: tuple[int, ...], way: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays(shape=shape))
    with pytest.raises(DataError, match=way):
        load(str(tmp_path / "mine.npz")).check_shape((1, 4, 5))


MODULE = """
import torch
from torch import nn

def net():
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    model.load_state_dict(torch.load("mine.pt"))
    return model
"""


def test_a_network_and_data_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None,
                                         shiftwright: Callable[..., Any]) -> None:
    """Vectors of 16 features, from a module to an image, by commands."""
    rng, data = np.random.default_rng(1), {}
    for split, count in (("train", 400), ("test", 200)):
        data[f"x_{split}"] = rng.integers(0, 256, (count, 16), dtype=np.uint8)
        data[f"y_{split}"] = data[f"x_{split}"][:, :3].argmax(1)
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", **data)
    Path("mine_of_test_arrays.py").write_text(MODULE)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:3, :3] = torch.eye(3)
        model[2].weight.zero_()
        model[2].weight[:, :3] = 4 * torch.eye(3)
        for layer in (model[0], model[2]):
            layer.bias.zero_()
    torch.save(model.state_dict(), "mine.pt")
    ran = shiftwright("compress", "mine_of_test_arrays:net", "--data", "mine.npz", "--set", "epochs=1", "-o", "m.swc")
    assert ran.code == 0, ran.err
    assert shiftwright("compile", "m.swc", "-o", "m.swi").code == 0
    for file in ("m.swc", "m.swi"):
        found = json.loads(shiftwright("--json", "evaluate", file, "--data", "mine.npz").out)
        assert found["accuracy"] > 0.9
    ran = shiftwright("evaluate", "m.swc", "--data", "other.npz")
    assert ran.code == 2 and "other.npz: can't read the data set" in ran.err
    ran = shiftwright("evaluate", "m.swc", "--data", "digits")
    assert ran.code == 2 and "Traceback" not in ran.err
