"""Run many networks on one accelerator in one simulation, and compare every layer with the golden model."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ModelError
from ..sw.compiler.compile import compile_detailed
from ..sw.image import Image
from ..sw.network import QuantizedNetwork
from .runner import build, run
from .simulate import accelerator_model_spec

__all__ = ["RegressionCase", "RegressionResult", "regression"]

CYCLE_LIMIT = 5_000_000
"""Cycles that a layer may take."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RegressionCase:
    """A network and what it is run on.

    Parameters
    ----------
    name : str
        Begins the message of a mismatch; name the seed in it.
    network : QuantizedNetwork
        Its layers' names differ.
    inputs : integer array (N, C, H, W)
        Quantized images. Even ones are compared layer by layer, odd ones by their last layer only.
    """

    name: str
    network: QuantizedNetwork
    inputs: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionResult:
    """A regression in which every value was equal.

    Parameters
    ----------
    networks, images, layers, values : int
        What was run; layers are counted once a network, values once a comparison.
    layer_cycles : tuple of tuple of int
        Clock cycles of each layer of each network, on its first image.
    build_seconds, seconds : float
        Wall-clock time of the model's build (0 when it was cached) and of the simulation.
    """

    networks: int
    images: int
    layers: int
    values: int
    layer_cycles: tuple[tuple[int, ...], ...]
    build_seconds: float
    seconds: float


def regression(config: AcceleratorConfig, cases: Sequence[RegressionCase], *, simulator: str = "verilator",
               seed: int = 0, timeout: float = 3600.0) -> RegressionResult:
    """Compile the networks for ``config`` and run them one after another, without a reset between them.

    Parameters
    ----------
    config : AcceleratorConfig
        Of the accelerator; it is built once.
    cases : sequence of RegressionCase
        At least one.
    simulator : str
        ``"verilator"`` or ``"icarus"``.
    seed : int
        Seed of what the design leaves uninitialized (Verilator).
    timeout : float
        Seconds of wall-clock time for the simulation.

    Raises
    ------
    MismatchError
        At the first difference; the message names case, image, layer, channel, row, column and both values.
    ModelError
        If there is no case, or a network can't be compiled for ``config``.
    ToolError
        If a tool is missing or fails.
    """
    from . import golden

    if not cases:
        raise ModelError("a regression needs at least one network")
    data: dict[str, object] = {"names": [case.name for case in cases], "limit": CYCLE_LIMIT}
    images: list[Image] = []
    layers: list[int] = []
    for number, case in enumerate(cases):
        compilation = compile_detailed(case.network, config)
        images.append(compilation.image)
        expected = golden.run(compilation.network, case.inputs, layers=True)
        layers.append(len(expected))
        data[f"image_{number}"] = np.frombuffer(images[-1].to_bytes(), np.uint8)
        data[f"inputs_{number}"] = case.inputs.astype(np.int64)
        data[f"layers_{number}"] = list(expected)
        data.update({f"expected_{number}_{at}": values.astype(np.int64) for at, values in enumerate(expected.values())})
    model = build(accelerator_model_spec(images[0]), on=simulator)
    result = run(model, "shiftwright.sim.benches.regression", data=data, seed=seed, timeout=timeout)
    ends = np.cumsum(layers)[:-1]
    return RegressionResult(
        networks=len(cases), images=sum(len(case.inputs) for case in cases),
        layers=sum(layers), values=int(result.data["compared"]),
        layer_cycles=tuple(tuple(part.tolist()) for part in np.split(result.data["layer_cycles"], ends)),
        build_seconds=model.seconds, seconds=result.seconds)
