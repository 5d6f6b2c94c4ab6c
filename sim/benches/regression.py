"""cocotb bench: load and run one network after another on the accelerator, without a reset between them.

Given: ``names`` (of the cases), ``limit`` (cycles a layer may take) and for each case k ``image_<k>`` (bytes of a
``.swi``), ``inputs_<k>`` (N, C, H, W), ``layers_<k>`` (names) and ``expected_<k>_<l>`` (N, C, H, W) for each layer l.
Even images stop after each layer for its comparison, odd ones run through and show only their last layer.
Returns: ``compared`` (values), ``layer_cycles`` (cycles of each layer of each case's first image, one after another).
"""

from typing import Any

import cocotb
import numpy as np

from ...sw.image import Image
from ..bus import start_clock
from ..runner import bench_data, bench_result
from .accelerator import PERIOD_NS, HarnessDriver, check_identity, load_model, run_image


@cocotb.test()
async def networks_one_after_another(dut: Any) -> None:
    """Every value of every layer of every network."""
    given = bench_data()
    driver = HarnessDriver(dut)
    dut.start.value, dut.pause.value = 0, 0
    await start_clock(dut, period_ns=PERIOD_NS)
    compared, layer_cycles = 0, []
    for case, name in enumerate(given["names"]):
        image = Image.from_bytes(given[f"image_{case}"].tobytes())
        await check_identity(driver, image)
        await load_model(driver, image)
        for number, x in enumerate(given[f"inputs_{case}"]):
            expected = {layer: given[f"expected_{case}_{at}"][number]
                        for at, layer in enumerate(given[f"layers_{case}"])}
            values, cycles = await run_image(dut, driver, image, x, expected, per_layer=number % 2 == 0,
                                        limit=given["limit"], what=f"{name}, image {number}")
            compared += values
            if number == 0:
                layer_cycles.append(cycles)
    bench_result({"compared": compared, "layer_cycles": np.concatenate(layer_cycles)})
