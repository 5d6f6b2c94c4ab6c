"""The zoo's networks, as both of PyTorch's exporters write them: ONNX Runtime computes what the graphs compute."""

from pathlib import Path

import numpy as np
import pytest
import torch

from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.onnx_lower import load_onnx
from shiftwright.sw.zoo import NETWORKS, network_info
from tests.graphs import execute
from tests.sw.frontend.onnx_runtime import exported, run
from tests.sw.test_vision import scramble

pytest.importorskip("onnx")
pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ("digits", "lenet300", "lenet5", "resnet20", "resnet32", "mobilenet_tiny")
"""With the older exporter; the other one takes seconds."""


@pytest.mark.parametrize(("name", "exporter"), [
    pytest.param(name, exporter, marks=[] if name in QUICK and exporter == "script" else [pytest.mark.regress])
    for name in NETWORKS for exporter in ("script", "export")])
def test_as_onnx_runtime_computes(name: str, exporter: str, tmp_path: Path, seed: int) -> None:
    path, info = tmp_path / "m.onnx", network_info(name)
    torch.manual_seed(seed)
    module = scramble(info.build())
    images = torch.randint(256, (1, *info.input_shape)) / 256
    exported(module, path, exporter, info.input_shape)
    (expected,) = run(path, images)
    found = execute(capture(load_onnx(path).module, info.input_shape), images.double()).flatten(1).numpy()
    path.unlink()
    deviation = float(expected.std())
    print(f"{name} by {exporter}: deviation {deviation:.3g}, error {np.abs(found - expected).max():.3g}")
    assert 0.01 < deviation < 100
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * min(1, deviation))
