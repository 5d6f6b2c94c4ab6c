"""The FPGA devices of the open tools: how each is synthesized, placed, routed and packed, and what it holds."""

import dataclasses
from collections.abc import Mapping

from ..hw.arch.errors import ConfigError

__all__ = ["DEVICES", "Device", "get_device"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A device, package and speed grade.

    Parameters
    ----------
    name : str
        Short name, as in benchmark figures.
    title : str
        Vendor's name.
    synth : str
        Yosys command that maps to the device, without ``-top`` and ``-json``.
    router : str
        Native name of the place-and-route program.
    router_args : tuple of str
        Device, package and speed grade, in its words.
    unconstrained : tuple of str
        Arguments that let it choose pins.
    packer : str
        Native name of the program that makes the bitstream.
    constraints, routed, bitstream : str
        File names: pins, routed design, bitstream.
    capacity : mapping of str to int
        What it holds, by the names of :class:`shiftwright.boards.netlist.Counts`: ``lut4``, ``ff``, ``ram``, ``spram``.
    luts_of : mapping of str to int
        Logic cells (one LUT4 each) that a netlist cell takes.
    registers, rams : tuple of str
        Prefixes of cell types that are flip-flops; cell types that are RAM blocks.
    carry, spram : str
        Cell type of a carry element; of a single-port RAM block, empty when there is none.
    multipliers : tuple of str
        Cell types that multiply.
    """

    name: str
    title: str
    synth: str
    router: str
    router_args: tuple[str, ...]
    unconstrained: tuple[str, ...]
    packer: str
    constraints: str
    routed: str
    bitstream: str
    capacity: Mapping[str, int]
    luts_of: Mapping[str, int]
    registers: tuple[str, ...]
    rams: tuple[str, ...]
    carry: str
    spram: str
    multipliers: tuple[str, ...]


DEVICES: dict[str, Device] = {device.name: device for device in (
    Device(
        name="ecp5-85f", title="Lattice LFE5U-85F, CABGA381, speed grade 6", synth="synth_ecp5",
        router="nextpnr-ecp5", router_args=("--85k", "--package", "CABGA381", "--speed", "6"),
        unconstrained=("--lpf-allow-unconstrained",), packer="ecppack",
        constraints="top.lpf", routed="top.config", bitstream="top.bit",
        capacity={"lut4": 83640, "ff": 83640, "ram": 208, "dsp": 156},
        # A distributed RAM holds 16 x 4 bits in four LUTs, and its write port takes the two next to them.
        luts_of={"LUT4": 1, "TRELLIS_DPR16X4": 6}, registers=("TRELLIS_FF",), rams=("DP16KD", "PDPW16KD"),
        carry="CCU2C", spram="", multipliers=("MULT18X18D", "MULT9X9D", "ALU54B", "ALU24B")),
    Device(
        # "u" is the UltraPlus, whose delays abc9 then optimizes for.
        name="up5k", title="Lattice iCE40UP5K, SG48", synth="synth_ice40 -device u -abc9",
        router="nextpnr-ice40", router_args=("--up5k", "--package", "sg48"),
        unconstrained=("--pcf-allow-unconstrained",), packer="icepack",
        constraints="top.pcf", routed="top.asc", bitstream="top.bin",
        capacity={"lut4": 5280, "ff": 5280, "ram": 30, "spram": 4, "dsp": 8},
        luts_of={"SB_LUT4": 1}, registers=("SB_DFF",),
        rams=("SB_RAM40_4K", "SB_RAM40_4KNR", "SB_RAM40_4KNW", "SB_RAM40_4KNRNW"),
        carry="SB_CARRY", spram="SB_SPRAM256KA", multipliers=("SB_MAC16",)),
)}


def get_device(name: str) -> Device:
    """The device called ``name``; an unknown one is a :class:`ConfigError`."""
    try:
        return DEVICES[name]
    except KeyError:
        raise ConfigError(f"the device must be one of {', '.join(DEVICES)}, not {name!r}") from None
