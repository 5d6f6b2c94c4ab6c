"""Run the component benches: one build of the yard, one bench a component."""

import functools

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import ToolError
from ..sw.tools import using_tools
from .runner import BenchResult, build, run
from .simulators import ModelSpec

__all__ = ["COMPONENTS", "check_component", "yard_spec"]

COMPONENTS = ("memory", "codetable", "wordreader", "decoder", "rowbuffer", "expander", "front", "blocks", "tapgen",
              "activations", "window", "lanes", "parameters", "drain", "sequencer")
"""Benches in :mod:`shiftwright.sim.benches`, by module."""


def check_component(name: str, config: AcceleratorConfig, *, simulator: str = "verilator", seed: int = 0,
                    rounds: int = 1, timeout: float = 600.0, only: str | None = None,
                    units: tuple[str, ...] | None = None) -> BenchResult:
    """Run a component's bench.

    Parameters
    ----------
    name : str
        One of :data:`COMPONENTS`.
    config : AcceleratorConfig
        The yard's; small memories keep benches quick, and benches fill them.
    simulator : str
        ``"verilator"`` or ``"icarus"``.
    seed : int
        Names all random choices.
    rounds : int
        Scales the number of random cases.
    timeout : float
        Seconds of wall-clock time.
    only : str or None
        Regular expression; only tests whose name matches are run.
    units : tuple of str or None
        Build only these of :data:`.yard.UNITS`, at least those of the bench; all when None.

    Raises
    ------
    MismatchError
        If the component does not do what the bench's model does.
    ToolError
        If there is no such bench, or a tool is missing or fails.
    """
    if name not in COMPONENTS:
        raise ToolError(f"a component bench must be one of {', '.join(COMPONENTS)}, not {name!r}")
    spec, inputs = yard_spec(config, units)
    data = {"config": config.to_dict(), "seed": seed, "rounds": rounds, "inputs": list(inputs)}
    return run(build(spec, on=simulator), f"shiftwright.sim.benches.{name}", data=data, seed=seed, timeout=timeout,
               only=only)


@functools.lru_cache(maxsize=8)
def yard_spec(config: AcceleratorConfig, units: tuple[str, ...] | None = None) -> tuple[ModelSpec, tuple[str, ...]]:
    """The yard's simulation model, and the names of its inputs."""
    from ..hw.generate import verilog
    from .yard import UNITS, Yard

    yard = Yard(config, tuple(UNITS) if units is None else units)
    with using_tools():
        text = verilog(yard, name="yard", strict=True)
    return ModelSpec(sources={"yard.v": text}, top="yard"), tuple(yard.inputs)
