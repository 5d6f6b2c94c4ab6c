"""cocotb bench: run damaged models, and the sound one after each.

Given: ``images`` (number), ``image_<k>`` (bytes of a ``.swi``), ``input_<k>`` (C, H, W), ``expected_<k>`` (last layer);
``memory`` (cases, weight_depth), ``owners`` and ``bounds`` (cases,), ``patience`` (cycles).
Returns for each case: ``ends`` (0 by itself, 1 by the host, 2 not at all), ``status``, ``cycles``, ``unchanged`` (ended
well and with the sound model's output) and ``trouble`` (why the sound model did not run afterwards; empty).
"""

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import First, RisingEdge, Timer

from ...hw.arch.bus import Control, Region, Register, Status
from ...hw.arch.errors import MismatchError
from ...sw.image import Image
from ..bus import address, start_clock, status_of
from ..runner import bench_data, bench_result
from .accelerator import PERIOD_NS, Expectation, HarnessDriver, load_model, run_images

BY_ITSELF, BY_HOST, NOT_AT_ALL = range(3)
ABORT_LIMIT = 70_000
"""Cycles after which an abort has ended a run: a section of 65,535 words may have to be loaded first."""


async def _ends(dut: Any, cycles: int) -> bool:
    """Whether the run is over within some cycles."""
    if int(dut.done.value):
        return True
    await First(RisingEdge(dut.done), Timer(cycles * PERIOD_NS, unit="ns"))
    await RisingEdge(dut.clk)
    return bool(int(dut.done.value))


async def _reset(dut: Any) -> None:
    dut.rst.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def _run_damaged(dut: Any, driver: HarnessDriver, bound: int, patience: int) -> int:
    """Start the loaded model and see it end."""
    await driver.control(Control.START)
    if await _ends(dut, min(bound, patience)):
        return BY_ITSELF
    allowed = bound > patience
    await driver.control(Control.ABORT)
    if await _ends(dut, ABORT_LIMIT):
        return BY_HOST if allowed else NOT_AT_ALL
    await _reset(dut)
    return NOT_AT_ALL


@cocotb.test()
async def damaged_models_end(dut: Any) -> None:
    """All cases in one simulation, without a reset."""
    given = bench_data()
    images = [Image.from_bytes(given[f"image_{k}"].tobytes()) for k in range(given["images"])]
    driver = HarnessDriver(dut)
    dut.start.value, dut.pause.value = 0, 0
    await start_clock(dut, period_ns=PERIOD_NS)
    ends, statuses, cycles, unchanged, trouble = [], [], [], [], []
    for case, (memory, owner, bound) in enumerate(zip(given["memory"], given["owners"], given["bounds"], strict=True)):
        image, x = images[owner], given[f"input_{owner}"]
        last = given[f"expected_{owner}"]
        # Only the last layer's output is compared.
        outputs = {f"layer {n}": np.zeros(0) for n in range(len(image.placements) - 1)} | {"output": last[np.newaxis]}
        await driver.write(address(Region.MODEL, 0), memory)
        await driver.write_tensor(image.input, image, x)
        ends.append(await _run_damaged(dut, driver, int(bound), given["patience"]))
        busy, done, status = status_of(await driver.register(Register.STATUS))
        counted = await driver.register(Register.CYCLES_LO), await driver.register(Register.CYCLES_HI)
        cycles.append(counted[0] | counted[1] << 16)
        statuses.append(int(status))
        same = False
        if not busy and done and status == Status.OK:
            found = await driver.read_tensor(image.output, image, f"case {case}")
            same = np.array_equal(found, last)
        unchanged.append(same)
        try:
            await load_model(driver, image)
            await run_images(dut, driver, image, x[np.newaxis], Expectation(
                outputs=outputs, per_layer=False, limit=given["patience"], what=f"after case {case}"))
            trouble.append("")
        except MismatchError as error:
            trouble.append(str(error))
            await _reset(dut)
    bench_result({"ends": ends, "status": statuses, "cycles": cycles, "unchanged": unchanged, "trouble": trouble})
