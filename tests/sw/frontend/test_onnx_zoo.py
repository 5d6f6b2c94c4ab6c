"""The zoo's networks, as both of PyTorch's exporters write them: ONNX Runtime computes what the graphs compute."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shiftwright.sw.frontend.capture import capture
from shiftwright.sw.frontend.onnx_lower import load_onnx
from shiftwright.sw.zoo import NETWORKS, network_info
from tests.graphs import execute
from tests.sw.test_vision import scramble

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {("digits", "export"), *((name, "script") for name in ("digits", "lenet300", "lenet5", "resnet20", "resnet32",
                                                               "mobilenet_tiny"))}


def exported(module: nn.Module, images: Tensor, path: Path, exporter: str) -> None:
    """Write a network with PyTorch's exporter by torch.export, or the older one by TorchScript, which folds batch
    norms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "script":
            torch.onnx.export(module, (images,), path, dynamo=False, opset_version=17, input_names=["x"],
                              dynamic_axes={"x": {0: "n"}})
        else:
            pytest.importorskip("onnxscript")
            torch.onnx.export(module, (torch.cat([images] * 2),), path, dynamo=True, verbose=False,
                              external_data=False, dynamic_shapes=({0: torch.export.Dim("n")},))


@pytest.mark.parametrize(("name", "exporter"), [
    pytest.param(name, exporter, marks=[] if (name, exporter) in QUICK else [pytest.mark.regress])
    for name in NETWORKS for exporter in ("script", "export")])
def test_as_onnx_runtime_computes(name: str, exporter: str, tmp_path: Path, seed: int) -> None:
    path, info = tmp_path / "m.onnx", network_info(name)
    torch.manual_seed(seed)
    module = scramble(info.build())
    images = torch.randint(256, (1, *info.input_shape)) / 256
    exported(module, images, path, exporter)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = runtime.InferenceSession(path, options)
    expected = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    found = execute(capture(load_onnx(path).module, info.input_shape), images.double()).flatten(1).numpy()
    path.unlink()
    deviation = float(expected.std())
    print(f"{name} by {exporter}: deviation {deviation:.3g}, error {np.abs(found - expected).max():.3g}")
    assert 0.01 < deviation < 100
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * min(1, deviation))
