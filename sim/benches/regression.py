"""cocotb bench: load and run one network after another on the accelerator, without a reset between them.

Given: ``names`` (of the cases), ``limit`` (cycles a layer may take) and for each case k ``image_<k>`` (bytes of a
``.swi``), ``inputs_<k>`` (N, C, H, W), ``layers_<k>`` (names) and ``expected_<k>_<l>`` (N, C, H, W) for each layer l.
Even images stop after each layer for its comparison, odd ones run through and show only their last layer; after them
come as many as there are lanes (or images) as one batch, layer by layer.
Returns: ``compared`` (values), ``layer_cycles`` (cycles of each layer of each case's first image, one after another).
"""

from typing import Any

import cocotb
import numpy as np

from ...sw.image import Image
from ..bus import start_clock
from ..runner import bench_data, bench_result
from .accelerator import PERIOD_NS, Expectation, HarnessDriver, check_identity, load_model, run_images


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
        inputs = given[f"inputs_{case}"]
        outputs = {layer: given[f"expected_{case}_{at}"] for at, layer in enumerate(given[f"layers_{case}"])}
        singles = [(f"image {n}", slice(n, n + 1), n % 2 == 0) for n in range(len(inputs))]
        batch = slice(0, min(len(inputs), image.config.lanes))
        for number, (what, part, per_layer) in enumerate([*singles, ("batch", batch, True)]):
            found = await run_images(dut, driver, image, inputs[part], Expectation(
                outputs={layer: values[part] for layer, values in outputs.items()}, per_layer=per_layer,
                limit=given["limit"], what=f"{name}, {what}"))
            compared += found.compared
            if number == 0:
                layer_cycles.append(found.cycles)
    bench_result({"compared": compared, "layer_cycles": np.concatenate(layer_cycles)})
