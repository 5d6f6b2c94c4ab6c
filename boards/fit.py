"""Will it fit: an accelerator's estimated area against a device, and the nearest configuration that does fit."""

import dataclasses
import heapq
import json
from collections import Counter
from collections.abc import Callable

from ..hw.arch.config import AcceleratorConfig
from ..hw.arch.errors import CapacityError
from .area import Area, estimate
from .devices import Device, get_device

__all__ = ["STEPS", "Misfit", "check_fit", "fits"]

RESOURCES = {"ram": "RAM blocks", "spram": "single-port RAM blocks", "lut_equivalents": "LUT4", "ff": "flip-flops"}
"""Names of what is checked, in this order."""
MARGIN = 1.1
"""Logic over this many times the capacity does not fit, whatever the estimate's error."""
MOST_TRIED = 2000
"""Configurations that are looked at before the search is given up."""


Step = Callable[[AcceleratorConfig, Device], AcceleratorConfig | None]


def _halved(name: str, least: int) -> Step:
    def step(config: AcceleratorConfig, device: Device) -> AcceleratorConfig | None:
        # The next lower power of two.
        half = 1 << (getattr(config, name) - 1).bit_length() >> 1
        return config.replace(**{name: half}) if least <= half < getattr(config, name) else None
    return step


def _set(name: str, value: object) -> Step:
    def step(config: AcceleratorConfig, device: Device) -> AcceleratorConfig | None:
        return None if getattr(config, name) == value else config.replace(**{name: value})
    return step


def _fewer_lanes(config: AcceleratorConfig, device: Device) -> AcceleratorConfig | None:
    """Half of the longer side."""
    name = "lanes_y" if config.lanes_y >= config.lanes_x else "lanes_x"
    return _halved(name, 1)(config, device)


def _single_port(config: AcceleratorConfig, device: Device) -> AcceleratorConfig | None:
    return _set("weight_memory", "spram")(config, device) if device.spram else None


def _two_contexts(config: AcceleratorConfig, device: Device) -> AcceleratorConfig | None:
    return _halved("interleave", 2)(config, device)


STEPS: dict[str, tuple[int, Step]] = {
    "single-port RAM for the model": (1, _single_port),
    "two contexts a decoder": (1, _two_contexts),
    "no counters": (1, _set("counters", False)),
    "a shadow chain": (1, _set("shadow_chain", True)),
    "half the row buffer": (2, _halved("row_depth", 256)),
    "half the model memory": (3, _halved("weight_depth", 4096)),
    "half the activations": (3, _halved("act_depth", 256)),
    "half the streams": (4, _halved("streams", 1)),
    "half the lanes": (4, _fewer_lanes),
}
"""Steps towards a configuration that fits, each with its price: the nearest is the cheapest sum of steps."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Misfit:
    """Why a configuration does not fit a device, and what would.

    Parameters
    ----------
    device : Device
    config : AcceleratorConfig
        What does not fit.
    resource : str
        The first resource exceeded.
    needed, available : int
        How much of it.
    nearest : AcceleratorConfig or None
        The nearest configuration that fits by :data:`STEPS`, ``None`` when no few of them lead to one.
    steps : tuple of str
        Steps to it, which may repeat.
    """

    device: Device
    config: AcceleratorConfig
    resource: str
    needed: int
    available: int
    nearest: AcceleratorConfig | None
    steps: tuple[str, ...]

    def __str__(self) -> str:
        return (f"the accelerator {'does' if self.sure else 'may'} not fit {self.device.title}: it needs "
                f"{self.needed:,} {self.resource} of {self.available:,} (estimated); {self.way_out}")

    @property
    def sure(self) -> bool:
        """Whether there is no need to ask synthesis: all but logic that is over by less than :data:`MARGIN`."""
        return self.resource not in (RESOURCES["lut_equivalents"], RESOURCES["ff"]) or (
            self.needed > MARGIN * self.available)

    @property
    def way_out(self) -> str:
        """What to do, as a clause."""
        if self.nearest is None:
            return "use a larger device"
        counted = ", ".join(f"{step}{f' {times} times' if times > 1 else ''}"
                            for step, times in Counter(self.steps).items())
        changes = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.changes.items())
        return f"the nearest configuration that fits has {counted}: {changes}"

    @property
    def changes(self) -> dict[str, int | str | None]:
        """The parameters in which the nearest configuration differs."""
        if self.nearest is None:
            return {}
        before = self.config.to_dict()
        return {name: value for name, value in self.nearest.to_dict().items() if value != before[name]}


def exceeded(area: Area, device: Device) -> tuple[str, int, int] | None:
    """The first resource that an estimate exceeds, how much it needs and how much there is."""
    if area.distributed and device.family == "ice40":
        return "distributed RAM (interleave = 4)", area.distributed, 0
    for name, title in RESOURCES.items():
        needed, limit = getattr(area, name), device.capacity.get(name.replace("lut_equivalents", "lut4"), 0)
        if needed > limit:
            return title, needed, limit
    return None


def fits(config: AcceleratorConfig, device: str | Device) -> Misfit | None:
    """``None`` when a configuration fits a device by estimate, otherwise why not.

    Parameters
    ----------
    config : AcceleratorConfig
    device : str or Device
    """
    chosen = get_device(device) if isinstance(device, str) else device
    over = exceeded(estimate(config, chosen), chosen)
    if over is None:
        return None
    nearest, steps = _nearest(config, chosen)
    return Misfit(device=chosen, config=config, resource=over[0], needed=over[1], available=over[2], nearest=nearest,
                  steps=steps)


def check_fit(config: AcceleratorConfig, device: str | Device) -> Misfit | None:
    """Raise :class:`CapacityError` when an accelerator surely does not fit (:attr:`Misfit.sure`).

    Returns
    -------
    Misfit or None
        Why it may not fit, when only synthesis can tell.
    """
    misfit = fits(config, device)
    if misfit is not None and misfit.sure:
        raise CapacityError(str(misfit))
    return misfit


def _nearest(config: AcceleratorConfig, device: Device) -> tuple[AcceleratorConfig | None, tuple[str, ...]]:
    """The fitting configuration of the cheapest steps, and the steps.

    Only steps that save some of the first resource exceeded are taken: the order of steps does not matter.
    """
    queue: list[tuple[int, int, AcceleratorConfig, tuple[str, ...]]] = [(0, 0, config, ())]
    seen = {config}
    while queue and len(seen) < MOST_TRIED:
        price, _, present, steps = heapq.heappop(queue)
        over = exceeded(estimate(present, device), device)
        if over is None:
            return present, steps
        for name, (more, step) in STEPS.items():
            changed = step(present, device)
            if changed is None or changed in seen:
                continue
            after = exceeded(estimate(changed, device), device)
            if after is None or after[0] != over[0] or after[1] < over[1]:
                seen.add(changed)
                heapq.heappush(queue, (price + more, len(seen), changed, (*steps, name)))
    return None, ()
