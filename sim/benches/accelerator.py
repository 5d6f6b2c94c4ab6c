"""cocotb bench: run images on the whole accelerator and compare every layer's output, value by value.

Given: ``image`` (bytes of a ``.swi``), ``inputs`` (N, C, H, W), ``expected_<k>`` (N, C, H, W) for each layer k that is
compared, ``names`` (of the layers), ``per_layer``, ``limit`` (cycles a layer may take), ``batch`` (images that share a
run of the tail).
Returns: ``cycles`` (of each image; of each batch when ``batch`` > 1), ``layer_cycles`` (the same, by layer; zeros
unless ``per_layer``), ``counters`` (the same, by layer and :class:`~shiftwright.hw.arch.bus.Counter`; zeros when the
accelerator has none), ``compared`` (values).
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import First, RisingEdge, Timer

from ...hw.arch.bus import COUNTER_WORDS, IMAGE_AT, IMAGES_AT, Control, Counter, Region, Register
from ...hw.arch.errors import MismatchError
from ...hw.arch.image import HEADER
from ...sw.compiler.layout import locate, pack_activations, unpack_activations
from ...sw.compiler.placement import TensorPlacement
from ...sw.image import Image
from ..bus import address, bank_address, start_clock, status_of
from ..harness import BURST_WORDS
from ..runner import bench_data, bench_result

PERIOD_NS = 10
UNDEFINED = -1
PAUSED = 1 << 2
"""Of :attr:`~shiftwright.hw.arch.bus.Register.STATUS`."""
WORDS_BEYOND = 64
_NO_X = str.maketrans("XZUW-", "00000")


class HarnessDriver:
    """Bursts of bus words through the ports of :class:`shiftwright.sim.harness.Harness`."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self._edge, self._ended = RisingEdge(dut.clk), RisingEdge(dut.ended)

    async def _burst(self, write: bool, bus_address: int, count: int) -> None:
        dut = self.dut
        dut.write.value, dut.addr.value, dut.count.value, dut.start.value = int(write), bus_address, count, 1
        await self._edge
        dut.start.value = 0
        limit = Timer(64 * count * PERIOD_NS, unit="ns")
        if await First(self._ended, limit) is limit:
            raise MismatchError(f"the word bus did not answer: {'write' if write else 'read'} of {count} words at "
                                f"{bus_address:#08x}")
        await self._edge

    async def write(self, bus_address: int, words: np.ndarray) -> None:
        """Write words to consecutive addresses."""
        for at in range(0, len(words), BURST_WORDS):
            part = np.asarray(words[at:at + BURST_WORDS]).astype("<u2")
            self.dut.w_words.value = int.from_bytes(part.tobytes(), "little")
            await self._burst(True, bus_address + at, len(part))

    async def read(self, bus_address: int, count: int) -> np.ndarray:
        """Read words from consecutive addresses, int32; a word with undefined bits reads as :data:`UNDEFINED`."""
        parts = []
        for at in range(0, count, BURST_WORDS):
            size = min(BURST_WORDS, count - at)
            await self._burst(False, bus_address + at, size)
            bits = str(self.dut.r_words.value)[:16 * size]
            defined = np.frombuffer(bits.encode(), np.uint8).reshape(size, 16) <= ord("1")
            words = np.frombuffer(int(bits.translate(_NO_X), 2).to_bytes(2 * size, "little"), "<u2").astype(np.int32)
            # The text begins with the last word.
            words[~np.asarray(defined.all(axis=1))[::-1]] = UNDEFINED
            parts.append(words)
        return np.concatenate(parts)

    async def register(self, register: Register) -> int:
        """Read a register."""
        return int((await self.read(address(Region.REGISTERS, register), 1))[0])

    async def control(self, control: int) -> None:
        """Write the control register."""
        await self.write(address(Region.REGISTERS, Register.CONTROL), np.array([int(control)]))

    async def cycles(self) -> int:
        """Clock cycles of the run so far, waiting for the host left out."""
        low, high = (await self.read(address(Region.REGISTERS, Register.CYCLES_LO), 2)).tolist()
        return low | high << 16

    async def boundary(self) -> None:
        """Wait until the accelerator is held at a layer boundary: it writes a layer's counters before."""
        while not await self.register(Register.STATUS) & PAUSED:
            pass

    async def counters(self, image: Image, layer: int) -> np.ndarray:
        """A layer's counters, int64 in the order of :class:`Counter`; zeros when there are none."""
        at = image.config.weight_depth - (layer + 1) * COUNTER_WORDS
        if not image.config.counters or at < len(image.words):
            return np.zeros(len(Counter), np.int64)
        words = (await self.read(address(Region.MODEL, at), COUNTER_WORDS)).astype(np.int64)
        return np.asarray(words[::2] | words[1::2] << 16)

    async def write_tensor(self, placement: TensorPlacement, image: Image, x: np.ndarray, number: int = 0) -> None:
        """Write the input tensor (C, H, W) of image ``number`` into the banks."""
        bank, offset, byte = pack_activations(placement, image.config, x, number)
        for number in range(image.config.lanes):
            mine = bank == number
            for run in np.split(np.arange(mine.sum()), np.flatnonzero(np.diff(offset[mine]) != 1) + 1):
                if len(run):
                    await self.write(bank_address(number, int(offset[mine][run[0]])), byte[mine][run])

    async def read_tensor(self, placement: TensorPlacement, image: Image, where: str, number: int = 0) -> np.ndarray:
        """Read image ``number``'s tensor out of the banks: int32 (C, H, W)."""
        size = placement.steps(image.config).size
        banks = np.zeros((image.config.lanes, placement.base + size), dtype=np.int64)
        for bank in [number] if placement.vector else range(image.config.lanes):
            banks[bank, placement.base:] = await self.read(bank_address(bank, placement.base), size)
        # Lanes beyond the edge of the map leave gaps in the banks, which nothing writes.
        undefined = np.argwhere(banks[locate(placement, image.config, number)] == UNDEFINED)
        if len(undefined):
            channel, row, column = undefined[0]
            raise MismatchError(f"{where}, byte channel {channel}, row {row}, column {column}: "
                                f"the RTL gives undefined bits")
        return unpack_activations(placement, image.config, banks, number)


def compare(found: np.ndarray, expected: np.ndarray, *, what: str, layer: str) -> None:
    """Raise :class:`MismatchError` at the first difference of two tensors (C, H, W)."""
    different = np.argwhere(found != expected)
    if len(different):
        channel, row, column = (int(index) for index in different[0])
        raise MismatchError(
            f"{what}, layer {layer}, channel {channel}, row {row}, column {column}: the RTL gives "
            f"{found[channel, row, column]}, the reference {expected[channel, row, column]} "
            f"({len(different)} of {found.size} values of this layer differ)")


async def layer_end(dut: Any, driver: HarnessDriver, limit: int, where: str) -> bool:
    """Wait for the end of a layer or of the run; True at the end of the run."""
    done, layer, late = RisingEdge(dut.done), RisingEdge(dut.layer_done), Timer(limit * PERIOD_NS, unit="ns")
    event = await First(done, layer, late)
    if event is late:
        raise MismatchError(f"{where}: neither layer nor run ended within {limit} cycles")
    await RisingEdge(dut.clk)
    return event is done or bool(int(dut.done.value))


async def check_status(driver: HarnessDriver, where: str) -> None:
    busy, done, status = status_of(await driver.register(Register.STATUS))
    if busy or not done or status:
        at = await driver.register(Register.ERROR_LAYER), await driver.register(Register.ERROR_ROW)
        raise MismatchError(f"{where}: the run ended with status {status.name}, busy {busy:d}, done {done:d}, "
                            f"in layer {at[0]}, row {at[1]}")


async def load_model(driver: HarnessDriver, image: Image) -> None:
    """Write an image's words into the model memory, and read the first of them back.

    Some random words follow the image: the bit readers fetch ahead, and what they find there must not matter.
    """
    beyond = min(WORDS_BEYOND, image.config.weight_depth - len(image.words))
    junk = [random.getrandbits(16) for _ in range(beyond)]
    await driver.write(address(Region.MODEL, 0), np.concatenate((image.words, np.array(junk, np.uint16))))
    loaded = await driver.read(address(Region.MODEL, 0), min(len(image.words), 4 * BURST_WORDS))
    if not np.array_equal(loaded, image.words[:len(loaded)]):
        raise MismatchError(f"model memory word {int(np.flatnonzero(loaded != image.words[:len(loaded)])[0])} does not "
                            f"read back as written")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Expectation:
    """What a run is compared with.

    Parameters
    ----------
    outputs : mapping of str to integer array (N, C, H, W)
        Outputs of N images by the layers' names, in order; an empty array is not compared.
    per_layer : bool
        Stop after each layer and compare it; otherwise compare the last one.
    limit : int
        Cycles that a layer may take.
    what : str
        Begins the messages.
    """

    outputs: Mapping[str, np.ndarray]
    per_layer: bool
    limit: int
    what: str


class Measured:
    """What was seen of a run: values compared, and by layer clock cycles and counters.

    ``cycles`` has those of the whole run in the last layer's place unless the run stopped after each layer.
    """

    def __init__(self, layers: int) -> None:
        self.compared = 0
        self.cycles = np.zeros(layers, np.int64)
        self.counters = np.zeros((layers, len(Counter)), np.int64)


async def run_part(dut: Any, driver: HarnessDriver, image: Image, control: int, part: range, images: Sequence[int],
                   expected: Expectation, measured: Measured) -> None:
    """Start the loaded model, whose inputs are written, and compare the layers of ``part`` for the run's images."""
    names = list(expected.outputs)
    dut.pause.value = int(expected.per_layer)
    await driver.control(control)
    before, ended = 0, False
    for layer in part if expected.per_layer else part[-1:]:
        where = f"{expected.what}, layer {names[layer]}"
        while not ended:
            ended = await layer_end(dut, driver, expected.limit, where)
            if expected.per_layer:
                break
        if ended:
            await check_status(driver, where)
        elif expected.per_layer:
            await driver.boundary()
        now = await driver.cycles()
        measured.cycles[layer] += now - before
        before = now
        measured.counters[layer] += await driver.counters(image, layer)
        outputs = expected.outputs[names[layer]]
        for number in images if outputs.size else ():
            found = await driver.read_tensor(image.placements[layer], image, where, number)
            what = f"{expected.what}, image {number}" if len(outputs) > 1 else expected.what
            compare(found, outputs[number], what=what, layer=names[layer])
            measured.compared += found.size
        if expected.per_layer and not ended:
            dut.pause.value = 0
            await RisingEdge(dut.clk)
            dut.pause.value = 1
    if not ended:
        if not await layer_end(dut, driver, expected.limit, f"{expected.what}, after layer {names[part[-1]]}"):
            raise MismatchError(f"{expected.what}: more layers ran than the {len(part)} of the run")
        await check_status(driver, f"{expected.what}, after layer {names[part[-1]]}")


async def run_images(dut: Any, driver: HarnessDriver, image: Image, inputs: np.ndarray,
                     expected: Expectation) -> Measured:
    """Run the loaded model on inputs (N, C, H, W) and compare its layers' outputs.

    One image is one run; more are a batch: a run of the head for each, then one of the tail for all.
    """
    layers = len(expected.outputs)
    measured = Measured(layers)
    if len(inputs) == 1:
        await driver.write_tensor(image.input, image, inputs[0])
        await run_part(dut, driver, image, Control.START, range(layers), [0], expected, measured)
        return measured
    tail = int(image.words[HEADER.index("tail")])
    for number, x in enumerate(inputs):
        await driver.write_tensor(image.input, image, x, number)
        if tail:
            await run_part(dut, driver, image, Control.START | Control.HEAD | number << IMAGE_AT, range(tail), [number],
                           expected, measured)
    if tail < layers:
        await run_part(dut, driver, image, Control.START | Control.TAIL | len(inputs) - 1 << IMAGES_AT,
                       range(tail, layers), range(len(inputs)), expected, measured)
    return measured


async def check_identity(driver: HarnessDriver, image: Image) -> None:
    """Compare the device's configuration with the image's."""
    identity = [await driver.register(register) for register in (Register.FINGERPRINT_LO, Register.FINGERPRINT_HI)]
    if identity[0] | identity[1] << 16 != image.config.fingerprint:
        raise MismatchError(f"the device says configuration {identity[1]:04x}{identity[0]:04x}, the image was made for "
                            f"{image.config.fingerprint:08x}")


@cocotb.test()
async def every_layer_is_bit_exact(dut: Any) -> None:
    """Load the model once; write, run and compare image after image."""
    given = bench_data()
    image = Image.from_bytes(given["image"].tobytes())
    driver = HarnessDriver(dut)
    dut.start.value, dut.pause.value = 0, 0
    await start_clock(dut, period_ns=PERIOD_NS)
    await check_identity(driver, image)
    await load_model(driver, image)

    names, count, batch = given["names"], len(given["inputs"]), given["batch"]
    cycles, layer_cycles, counters = [], [], []
    compared = 0
    for first in range(0, count, batch):
        part = slice(first, first + batch)
        outputs = {name: given[f"expected_{layer}"][part] if f"expected_{layer}" in given else np.zeros(0)
                   for layer, name in enumerate(names)}
        found = await run_images(dut, driver, image, given["inputs"][part], Expectation(
            outputs=outputs, per_layer=given["per_layer"], limit=given["limit"],
            what=f"image {first}" if batch == 1 else f"batch from image {first}"))
        compared += found.compared
        cycles.append(found.cycles.sum())
        layer_cycles.append(found.cycles)
        counters.append(found.counters)
    bench_result({"cycles": np.array(cycles), "layer_cycles": np.array(layer_cycles), "counters": np.array(counters),
                  "compared": compared})
