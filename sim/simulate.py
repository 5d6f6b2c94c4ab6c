"""Run a compiled image on the simulated RTL and compare every layer with a reference, bit for bit."""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import DataError, ModelError
from ..sw.image import Image
from ..sw.tools import using_tools
from .runner import build, run
from .simulators import ModelSpec

__all__ = ["SimulationResult", "accelerator_model_spec", "simulate"]

CYCLE_LIMIT = 20_000_000
"""Cycles that a layer may take by default."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SimulationResult:
    """A simulation in which every value was equal.

    Parameters
    ----------
    simulator : str
        ``"verilator"`` or ``"icarus"``.
    images : int
        Images that were run.
    layers : tuple of str
        Layers whose outputs were compared, in order.
    values : int
        Output values that were compared.
    cycles : tuple of int
        Clock cycles of each image, or of each batch.
    layer_cycles : tuple of tuple of int
        Clock cycles of each layer, of each image or batch; empty unless every layer was compared.
    counters : int64 array (images or batches, layers, counters)
        What the hardware counted (:class:`~shiftwright.hw.arch.bus.Counter`), in sum over a batch; zeros when it has no
        counters, and for layers that were not compared.
    build_seconds, seconds : float
        Wall-clock time of the model's build (0 when it was cached) and of the simulation.
    """

    simulator: str
    images: int
    layers: tuple[str, ...]
    values: int
    cycles: tuple[int, ...]
    layer_cycles: tuple[tuple[int, ...], ...]
    counters: np.ndarray
    build_seconds: float
    seconds: float


def simulate(image: Image, inputs: np.ndarray, *, expected: Mapping[str, np.ndarray], simulator: str = "verilator",
             seed: int = 0, per_layer: bool = True, timeout: float = 3600.0, cycle_limit: int = CYCLE_LIMIT,
             dut: str | None = None, waves: str | None = None, batch: int = 1) -> SimulationResult:
    """Simulate the accelerator of ``image.config`` on a batch of inputs.

    Parameters
    ----------
    image : Image
        The compiled network.
    inputs : integer array (N, C, H, W)
        Quantized images (:meth:`QuantizedNetwork.quantize_input`).
    expected : mapping of str to integer array (N, C, H, W)
        Each layer's output, in the order of the image's layers: what ``golden.run(network, inputs, layers=True)``
        gives.
    simulator : str
        ``"verilator"``, or ``"icarus"`` (four-state; some hundred times slower).
    seed : int
        Seed of what the design leaves uninitialized (Verilator).
    per_layer : bool
        Stop after each layer and compare its whole output; otherwise run through and compare the last one's.
    timeout : float
        Seconds of wall-clock time for the run.
    cycle_limit : int
        Cycles that one layer may take.
    dut : str or None
        Verilog of a module ``accelerator`` to simulate in place of the RTL, for example its netlist.
    waves : str or None
        VCD file to record.
    batch : int
        Images that share a run of the fully connected tail, at most the lanes; 1 runs each image alone.

    Raises
    ------
    MismatchError
        At the first difference; the message names image, layer, channel, row, column and both values.
    DataError, ModelError
        If inputs or expected outputs don't fit the image.
    ToolError
        If a tool is missing or fails, or the run does not end in time.
    """
    inputs = np.asarray(inputs)
    shape = image.input.shape
    if inputs.ndim != 4 or inputs.shape[1:] != shape or not len(inputs):
        raise DataError(f"inputs must have shape (N, {', '.join(map(str, shape))}) with N > 0, not {inputs.shape}")
    if not 1 <= batch <= image.config.lanes:
        raise DataError(f"a batch must have 1 to {image.config.lanes} images, one a lane, not {batch}")
    names = list(expected)
    if len(names) != len(image.placements):
        raise ModelError(f"the image has {len(image.placements)} layers, the reference {len(names)} "
                         f"({', '.join(names)}); is the compressed network the one that the image was compiled from?")
    data: dict[str, object] = {
        "image": np.frombuffer(image.to_bytes(), np.uint8), "inputs": inputs.astype(np.int64), "names": names,
        "per_layer": per_layer, "limit": cycle_limit, "batch": batch,
    }
    for number, (name, placement) in enumerate(zip(names, image.placements, strict=True)):
        values = np.asarray(expected[name])
        if values.shape != (len(inputs), *placement.shape):
            raise ModelError(f"layer {name}: the reference has shape {values.shape}, the image "
                             f"{(len(inputs), *placement.shape)}; is the compressed network the one that the image was "
                             f"compiled from?")
        if per_layer or number == len(names) - 1:
            data[f"expected_{number}"] = values.astype(np.int64)
    model = build(accelerator_model_spec(image, dut=dut, waves=waves is not None), on=simulator)
    result = run(model, "shiftwright.sim.benches.accelerator", data=data, seed=seed, timeout=timeout, waves=waves)
    return SimulationResult(
        simulator=simulator, images=len(inputs), layers=tuple(names if per_layer else names[-1:]),
        values=int(result.data["compared"]), cycles=tuple(int(count) for count in result.data["cycles"]),
        layer_cycles=(tuple(tuple(int(count) for count in row) for row in result.data["layer_cycles"])
                      if per_layer else ()),
        counters=np.asarray(result.data["counters"]),
        build_seconds=model.seconds, seconds=result.seconds)


def accelerator_model_spec(image: Image, *, dut: str | None = None, waves: bool = False) -> ModelSpec:
    """The simulation model that runs ``image``: the harness over the accelerator of its configuration."""
    sources = {"harness.v": _harness_verilog(), "accelerator.v": dut or _accelerator_verilog(image.config)}
    return ModelSpec(sources=sources, top="harness", fast=True, waves=waves)


@functools.cache
def _harness_verilog() -> str:
    from ..hw.generate import verilog
    from .harness import Harness

    with using_tools():
        return verilog(Harness("accelerator"), name="harness")


@functools.lru_cache(maxsize=32)
def _accelerator_verilog(config: AcceleratorConfig) -> str:
    from ..hw.generate import accelerator, verilog

    with using_tools():
        return verilog(accelerator(config), name="accelerator")
