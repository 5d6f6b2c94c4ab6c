"""Files that a user gives to infer."""

import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import DataError, ToolError
from shiftwright.sw.compiler.placement import TensorPlacement
from shiftwright.sw.device import inputs
from shiftwright.sw.device.inputs import quantize
from tests.networks import tensor

CONFIG = AcceleratorConfig()
read_inputs = functools.partial(inputs.read_inputs, rounding="half_up")
GREY = TensorPlacement.of(tensor("x", 1, 4, 6, bits=8, exponent=-8), CONFIG)
COLOUR = TensorPlacement.of(tensor("x", 3, 4, 6, bits=7, signed=True, exponent=-6), CONFIG)
FLAT = TensorPlacement.of(tensor("x", 24, bits=8, exponent=-8), CONFIG)


@pytest.fixture
def pixels(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(256, size=(5, 3, 4, 6), dtype=np.uint8)


def test_rounding_and_clamp() -> None:
    values = np.array([-0.6, -2 / 128, -1.01 / 128, 0.5 / 64, 0.49 / 64, 1.0]).reshape(1, 1, 1, 6).repeat(4, axis=2)
    found = quantize(COLOUR, np.repeat(values, 3, axis=1), "half_up")
    assert found.dtype == np.int64 and found[0, 2, 3].tolist() == [-38, -1, -1, 1, 0, 63]


def test_halves_as_the_configuration_has_them(tmp_path: Path) -> None:
    halves = np.array([-1.5, -0.5, 0.5, 1.5]).reshape(1, 1, 1, 4).repeat(3, axis=1).repeat(4, axis=2) / 64
    small = dataclasses.replace(COLOUR, width=4)
    assert quantize(small, halves, "half_up")[0, 0, 0].tolist() == [-1, 0, 1, 2]
    assert quantize(small, halves, "half_even")[0, 0, 0].tolist() == [-2, 0, 0, 2]
    np.save(tmp_path / "x.npy", halves)
    assert np.array_equal(inputs.read_inputs(tmp_path / "x.npy", small, "half_even"), quantize(small, halves,
                                                                                               "half_even"))


def test_arrays(tmp_path: Path, pixels: np.ndarray) -> None:
    path = tmp_path / "x.npy"
    for values, tensor_, expected in (
        (pixels[:, :1], GREY, pixels[:, :1]), (pixels[0, :1], GREY, pixels[:1, :1]),
        (pixels[0, 0], GREY, pixels[:1, :1]), (pixels[:, :1] / 256, GREY, pixels[:, :1]), (pixels[2:4], COLOUR, None),
        (pixels[:, :1], FLAT, pixels[:, :1].reshape(5, 24, 1, 1)),
    ):
        np.save(path, values)
        found = read_inputs(path, tensor_)
        if expected is None:
            assert found.shape == (2, 3, 4, 6)
            assert np.array_equal(found, np.floor(pixels[2:4] / 4 + 0.5).clip(-64, 63))
        else:
            assert np.array_equal(found, expected)


@pytest.mark.parametrize(("values", "message"), [
    (np.zeros((1, 4, 5)), "the model takes 1 x 4 x 6, or several of these, not 1 x 4 x 5"),
    (np.zeros((2, 1, 4, 5)), "not 2 x 1 x 4 x 5"),
    (np.zeros((0, 1, 4, 6)), "there is no input in this file"),
    (np.zeros((1, 4, 6), np.int32), "the array must be of floating-point numbers, or uint8 for pixels, not int32"),
    (np.full((1, 4, 6), np.nan), "the array has values that are not finite"),
    (np.zeros(()), "not a single number"),
])
def test_arrays_that_do_not_fit(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(DataError, match=f"x.npy: .*{message}"):
        read_inputs(tmp_path / "x.npy", GREY)


def test_no_array(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    with pytest.raises(DataError, match="can't read the file: No such file"):
        read_inputs(path, GREY)
    for junk in (b"", b"junk", b"\x93NUMPY\x01\x00junk"):
        path.write_bytes(junk)
        with pytest.raises(DataError, match="x.npy: not an array: "):
            read_inputs(path, GREY)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not an array: Object arrays cannot be loaded"):
        read_inputs(path, GREY)


def test_pictures(tmp_path: Path, pixels: np.ndarray) -> None:
    picture = pytest.importorskip("PIL.Image")
    picture.fromarray(pixels[0, 0]).save(tmp_path / "grey.png")
    picture.fromarray(pixels[0, 0]).save(tmp_path / "grey.pgm")
    picture.fromarray(pixels[0].transpose(1, 2, 0)).save(tmp_path / "colour.png")
    for name in ("grey.png", "grey.pgm"):
        assert np.array_equal(read_inputs(tmp_path / name, GREY), pixels[:1, :1])
        assert np.array_equal(read_inputs(tmp_path / name, FLAT).ravel(), pixels[0, 0].ravel())
    assert np.array_equal(read_inputs(tmp_path / "colour.png", COLOUR), np.floor(pixels[:1] / 4 + 0.5).clip(-64, 63))
    assert read_inputs(tmp_path / "colour.png", GREY).shape == (1, 1, 4, 6)
    picture.fromarray(pixels[0, 0, :3]).save(tmp_path / "small.png")
    with pytest.raises(DataError, match="small.png: the model takes 1 x 4 x 6, not a picture of 3 x 6 pixels; scale"):
        read_inputs(tmp_path / "small.png", GREY)
    (tmp_path / "junk.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="neither an array"):
        read_inputs(tmp_path / "junk.png", GREY)
    with pytest.raises(DataError, match="can't read the picture: No such file"):
        read_inputs(tmp_path / "none.png", GREY)


def test_pillow_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ToolError, match="Pillow is needed to read the picture x.png; get it with: pip install .shiftw"):
        read_inputs("x.png", GREY)
