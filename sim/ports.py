"""Simulate the ports with byte addresses: independent bus masters on the pins, images through them."""

import functools

import numpy as np
from amaranth.hdl import Array, Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.ports import MAPPED_PORTS
from ..hw.core import Accelerator
from ..hw.ports.top import AcceleratorOverPort, make_port
from ..hw.wordbus import WORD_BUS
from ..sw.image import Image
from ..sw.tools import using_tools
from .runner import BenchResult, build, run
from .simulators import ModelSpec

__all__ = ["PortYard", "check_port"]

BENCH = "shiftwright.sim.benches.ports"


class PortYard(wiring.Component):
    """All ports in front of one accelerator, so that one build serves the benches of all.

    Parameters
    ----------
    config : AcceleratorConfig

    Members
    -------
    chosen : In
        Which of the ports, by its place in :data:`~shiftwright.hw.arch.ports.MAPPED_PORTS`, has the accelerator.
    <port>__<member>
        A port's members, hyphens as underscores.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self._ports = [make_port(config, name) for name in MAPPED_PORTS]
        self._members = [{f"{name.replace('-', '_')}__{member}": member for member in port.signature.members
                          if member not in WORD_BUS}
                         for name, port in zip(MAPPED_PORTS, self._ports, strict=True)]
        super().__init__({"chosen": In(range(len(MAPPED_PORTS)))} | {
            name: port.signature.members[member] for port, names in zip(self._ports, self._members, strict=True)
            for name, member in names.items()})

    def elaborate(self, platform: object) -> Elaboratable:
        m = Module()
        m.submodules.core = core = Accelerator(self.config)
        for number, (port, names) in enumerate(zip(self._ports, self._members, strict=True)):
            m.submodules[MAPPED_PORTS[number].replace("-", "_")] = port
            for name, member in names.items():
                outer, inner = getattr(self, name), getattr(port, member)
                m.d.comb += inner.eq(outer) if port.signature.members[member].flow == In else outer.eq(inner)
        for name, member in WORD_BUS.items():
            signals = [getattr(port, name) for port in self._ports]
            if member.flow == Out:
                m.d.comb += getattr(core, name).eq(Array(signals)[self.chosen])
            else:
                m.d.comb += [signal.eq(getattr(core, name)) for signal in signals]
        return m


def check_port(port: str, config: AcceleratorConfig, *, simulator: str = "verilator", seed: int = 0,
               accesses: int = 200, alone: bool = False, image: Image | None = None, inputs: np.ndarray | None = None,
               outputs: np.ndarray | None = None, only: str | None = None, timeout: float = 600.0) -> BenchResult:
    """Run the bench of one port.

    Parameters
    ----------
    port : str
        One of :data:`~shiftwright.hw.arch.ports.MAPPED_PORTS`.
    config : AcceleratorConfig
    simulator, seed, only, timeout
        As for :func:`~shiftwright.sim.runner.bench`.
    accesses : int
        Random accesses that are compared with a model.
    alone : bool
        Simulate the top module that ``generate`` writes, in place of the :class:`PortYard`.
    image : Image or None
        An image to load and run through the port.
    inputs, outputs : integer arrays (N, C, H, W)
        What it is run on, and what its last layer must give.

    Raises
    ------
    MismatchError
        At the first wrong answer, breach of the bus's rules, or wrong output.
    ToolError
        If a tool is missing or fails.
    """
    spec, pins, clock = _design(port if alone else None, config)
    data: dict[str, object] = {"port": port, "config": config.to_dict(), "accesses": accesses, "pins": list(pins),
                               "clock": clock["clock"], "reset": clock["reset"],
                               "reset_low": "low" in clock["reset_kind"]}
    if alone:
        data["prefix"] = ""
    else:
        data |= {"prefix": f"{port.replace('-', '_')}__", "chosen": MAPPED_PORTS.index(port)}
    if image is not None and inputs is not None and outputs is not None:
        data |= {"image": np.frombuffer(image.to_bytes(), np.uint8), "inputs": inputs.astype(np.int64),
                 "outputs": outputs.astype(np.int64)}
    return run(build(spec, on=simulator), BENCH, data=data, seed=seed, only=only, timeout=timeout)


@functools.lru_cache(maxsize=8)
def _design(port: str | None, config: AcceleratorConfig) -> tuple[ModelSpec, tuple[str, ...], dict[str, str]]:
    """Simulation model, inputs, and clock and reset of a port's top module, or of the yard."""
    from ..hw.generate import CLOCK, verilog

    component = AcceleratorOverPort(config, port) if port else PortYard(config)
    pins = tuple(name for name, member in component.signature.members.items() if member.flow == In)
    with using_tools():
        spec = ModelSpec(sources={"dut.v": verilog(component, name="dut")}, top="dut", fast=port is not None)
    return spec, pins, getattr(component, "clock", CLOCK)
