"""Placement of tensors: the addresses of docs/image.md, computed there one pixel at a time."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, DataError, ImageError
from shiftwright.sw.compiler.layout import locate, pack_activations, unpack_activations
from shiftwright.sw.compiler.placement import TENSOR_BYTES, TensorPlacement
from tests.networks import tensor

LANES = [1, 2, 4, 8]


def random_config(rng: np.random.Generator) -> AcceleratorConfig:
    return AcceleratorConfig(lanes_y=int(rng.choice(LANES)), lanes_x=int(rng.choice(LANES)))


def random_placement(rng: np.random.Generator, config: AcceleratorConfig, *, raw: bool = False,
                     vector: bool = False) -> TensorPlacement:
    """Somewhere, with steps that are sometimes greater than they must be."""
    spec = tensor("any", int(rng.integers(1, 6)), int(rng.integers(1, 14)), int(rng.integers(1, 14)),
                  bits=32 if raw else int(rng.integers(2, 9)), signed=raw or bool(rng.integers(2)),
                  exponent=int(rng.integers(-8, 8)))
    phases = (1, 1) if vector else (int(rng.integers(1, 4)), int(rng.integers(1, 4)))
    place = TensorPlacement.of(spec, config, base=int(rng.integers(0, 50)), phases=phases, vector=vector)
    if vector:
        return place
    pitch = place.col_step + int(rng.integers(0, 3))
    columns = place.row_step // place.col_step + int(rng.integers(0, 2))
    return dataclasses.replace(place, col_step=pitch, row_step=columns * pitch)


def flat(**values: Any) -> TensorPlacement:
    """One channel in one row of two pixels, unless told otherwise."""
    return TensorPlacement(**{"base": 0, "channels": 1, "height": 1, "width": 2, "col_step": 1, "row_step": 1,
                              **values})


def described(place: TensorPlacement, config: AcceleratorConfig, c: int, y: int, x: int) -> tuple[int, int]:
    """Bank and address, from the formulas of the document; of a vector of image 3."""
    if place.vector:
        return 3, place.base + y * place.row_step + x * place.col_step + c
    plane_x = int(np.ceil(np.ceil(place.height / place.phases_y) / config.lanes_y)) * place.row_step
    plane_y = place.phases_x * plane_x
    v, u = y // place.phases_y, x // place.phases_x
    return (v % config.lanes_y * config.lanes_x + u % config.lanes_x,
            place.base + y % place.phases_y * plane_y + x % place.phases_x * plane_x
            + v // config.lanes_y * place.row_step + u // config.lanes_x * place.col_step + c)


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_locate_is_the_documented_formula(rng: np.random.Generator, raw: bool, vector: bool) -> None:
    for _ in range(20):
        config = random_config(rng)
        place = random_placement(rng, config, raw=raw, vector=vector)
        bank, address = locate(place, config, 3)
        assert bank.shape == address.shape == (place.byte_channels, place.height, place.width)
        for index in np.ndindex(address.shape):
            assert (bank[index], address[index]) == described(place, config, *index)
        last = place.base + place.steps(config).size - 1
        assert address.max() == last or place.phases_y * place.phases_x > 1 and address.max() <= last
        assert len(set(zip(bank.ravel(), address.ravel(), strict=True))) == address.size


@pytest.mark.parametrize("vector", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_round_trip_through_the_banks(rng: np.random.Generator, raw: bool, vector: bool) -> None:
    for _ in range(30):
        config = random_config(rng)
        place = random_placement(rng, config, raw=raw, vector=vector)
        image = int(rng.integers(config.lanes))
        low, high = place.range
        x = rng.integers(low, high + 1, size=place.shape)
        banks = rng.integers(0, 256, size=(config.lanes, place.base + place.steps(config).size + 3)).astype(np.uint8)
        bank, address, byte = pack_activations(place, config, x, image)
        banks[bank, address] = byte
        found = unpack_activations(place, config, banks, image)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, x)
        assert (np.diff(bank) >= 0).all()


def test_activations_are_sign_extended_to_a_byte() -> None:
    place = flat(bits=4, signed=True)
    bank, address, byte = pack_activations(place, AcceleratorConfig(), np.array([[[-8, 7]]]))
    assert (bank.tolist(), address.tolist(), byte.tolist()) == ([0, 1], [0, 0], [0xF8, 0x07])


def test_raw_bytes_are_little_endian_neighbours() -> None:
    place = flat(base=8, channels=2, width=1, bits=32, signed=True, col_step=8, row_step=8)
    _, address, byte = pack_activations(place, AcceleratorConfig(), np.array([[[0x01020304]], [[-2]]]))
    assert address.tolist() == list(range(8, 16))
    assert byte.tolist() == [4, 3, 2, 1, 0xFE, 0xFF, 0xFF, 0xFF]


def test_a_strided_window_is_unit_stride_in_its_plane() -> None:
    """Pixels that one tap reads for neighbouring outputs lie in neighbouring banks: the point of polyphase order."""
    config = AcceleratorConfig(lanes_y=2, lanes_x=4)
    place = TensorPlacement.of(tensor("any", 3, 12, 12), config, phases=(2, 3))
    bank, _ = locate(place, config)
    window = bank[0, 1:1 + 2 * 2:2, 2:2 + 3 * 4:3]
    assert sorted(window[:, :4].ravel().tolist()) == list(range(8))


@pytest.mark.parametrize("x", [np.zeros((1, 2, 2), int), np.zeros((1, 1, 2)), np.zeros((1, 2), int)])
def test_wrong_shape_or_type_is_refused(x: np.ndarray) -> None:
    place = flat()
    with pytest.raises(DataError, match=r"must be integers of shape \(1, 1, 2\), not .*quantize_input"):
        pack_activations(place, AcceleratorConfig(), x)


def test_value_out_of_range_is_refused() -> None:
    place = flat(bits=3)
    with pytest.raises(DataError, match=r"must be from 0 to 7 \(unsigned, 3 bits\), not 1 to 8"):
        pack_activations(place, AcceleratorConfig(), np.array([[[1, 8]]]))


def test_banks_of_another_configuration_are_refused() -> None:
    place = flat(base=10)
    with pytest.raises(DataError, match=r"must have shape \(16, 11 or more\), not \(4, 64\)"):
        unpack_activations(place, AcceleratorConfig(), np.zeros((4, 64), np.uint8))


def test_record_round_trip(rng: np.random.Generator) -> None:
    for raw, vector in itertools.product((False, True), repeat=2):
        place = random_placement(rng, random_config(rng), raw=raw, vector=vector)
        record = place.pack()
        assert len(record) == TENSOR_BYTES == 18
        assert TensorPlacement.unpack(record) == place


def test_record_layout_is_the_documented_one() -> None:
    place = TensorPlacement(base=0x0102, channels=0x0304, height=0x0506, width=0x0708, col_step=0x0B0C,
                            row_step=0x0D0E, phases_y=9, phases_x=10, bits=7, signed=True, vector=True, exponent=-2)
    assert place.pack().hex() == "02010403060508070c0b0e0d090a0703fe00"


def test_tensor_without_record_is_refused() -> None:
    with pytest.raises(CapacityError, match="exponent 200 has no image record"):
        flat(exponent=200).pack()


@pytest.mark.parametrize(("at", "value", "message"), [
    (2, 0, "channels must be at least 1"), (8, 0, "col_step must be at least 1"),
    (12, 0, "phases y must be at least 1"), (14, 9, "2 to 8 or 32 bits and flags 0 to 3, not 9 bits"),
    (15, 4, "not 8 bits and flags 4")])
def test_damaged_record_is_refused(at: int, value: int, message: str) -> None:
    record = bytearray(flat().pack())
    record[at] = value
    with pytest.raises(ImageError, match=message):
        TensorPlacement.unpack(bytes(record))
