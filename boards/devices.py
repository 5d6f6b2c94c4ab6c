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
    family : str
        ``"ecp5"``, ``"ice40"`` or ``"gowin"``: devices whose netlists are made of the same cells.
    title : str
        Vendor's name.
    synth : str
        Yosys command that maps to the device, without ``-top`` and ``-json``.
    router : str
        Native name of the place-and-route program.
    router_args : tuple of str
        Device, package and speed grade, in its words.
    pins_args, routed_args : tuple of str
        Its arguments for the file of pins and that of the routed design.
    unconstrained : tuple of str
        Arguments that let it choose pins.
    free_pins : tuple of str
        Pins to choose from, a clock's first, for a router that does not choose.
    packer : str
        Native name of the program that makes the bitstream; empty when Shiftwright makes none for this device.
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
    carry_luts : int
        Logic cells that a carry element takes; 0 when it shares one with the LUT that has its operands.
    multipliers : tuple of str
        Cell types that multiply.
    """

    name: str
    family: str
    title: str
    synth: str
    router: str
    router_args: tuple[str, ...]
    pins_args: tuple[str, ...]
    routed_args: tuple[str, ...]
    unconstrained: tuple[str, ...]
    free_pins: tuple[str, ...]
    packer: str
    constraints: str
    routed: str
    bitstream: str
    capacity: Mapping[str, int]
    luts_of: Mapping[str, int]
    registers: tuple[str, ...]
    rams: tuple[str, ...]
    carry: str
    carry_luts: int
    spram: str
    multipliers: tuple[str, ...]


def _ecp5(name: str, title: str, size: str, luts: int, ram: int, dsp: int) -> Device:
    return Device(
        # Told what delay is enough, in ps, abc9 saves LUTs on paths that are quicker.
        name=name, family="ecp5", title=title, synth="scratchpad -set abc9.D 3500\nsynth_ecp5",
        router="nextpnr-ecp5", router_args=(f"--{size}", "--package", "CABGA381", "--speed", "6"),
        pins_args=("--lpf", "top.lpf"), routed_args=("--textcfg", "top.config"),
        unconstrained=("--lpf-allow-unconstrained",), free_pins=(), packer="ecppack",
        constraints="top.lpf", routed="top.config", bitstream="top.bit",
        capacity={"lut4": luts, "ff": luts, "ram": ram, "dsp": dsp},
        # A distributed RAM holds 16 x 4 bits in four LUTs, and its write port takes the two next to them.
        luts_of={"LUT4": 1, "TRELLIS_DPR16X4": 6}, registers=("TRELLIS_FF",), rams=("DP16KD", "PDPW16KD"),
        carry="CCU2C", carry_luts=2, spram="", multipliers=("MULT18X18D", "MULT9X9D", "ALU54B", "ALU24B"))


def _ice40(name: str, title: str, arguments: tuple[str, ...], synth: str, capacity: Mapping[str, int]) -> Device:
    return Device(
        name=name, family="ice40", title=title, synth=synth, router="nextpnr-ice40", router_args=arguments,
        pins_args=("--pcf", "top.pcf"), routed_args=("--asc", "top.asc"),
        unconstrained=("--pcf-allow-unconstrained",), free_pins=(), packer="icepack",
        constraints="top.pcf", routed="top.asc", bitstream="top.bin", capacity=capacity,
        luts_of={"SB_LUT4": 1}, registers=("SB_DFF",),
        rams=("SB_RAM40_4K", "SB_RAM40_4KNR", "SB_RAM40_4KNW", "SB_RAM40_4KNRNW"),
        carry="SB_CARRY", carry_luts=0, spram="SB_SPRAM256KA" if "spram" in capacity else "", multipliers=("SB_MAC16",))


def _gowin(name: str, title: str, part: str, family: str, pins: tuple[str, ...],
           capacity: Mapping[str, int]) -> Device:
    return Device(
        name=name, family="gowin", title=title, synth=f"synth_gowin -family {family.partition('-')[0].lower()}",
        router="nextpnr-himbaechel-gowin", router_args=("--device", part, "--vopt", f"family={family}"),
        pins_args=("--vopt", "cst=top.cst"), routed_args=("--write", "top.routed.json"),
        unconstrained=(), free_pins=pins, packer="",
        constraints="top.cst", routed="top.routed.json", bitstream="top.fs", capacity=capacity,
        # Distributed RAM of 16 x 4 bits is the LUTs of two slices. An adder's bit takes a LUT; wider multiplexers none.
        luts_of={f"LUT{n}": 1 for n in range(1, 5)} | {"RAM16SDP4": 4}, registers=("DFF",),
        rams=("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B"),
        carry="ALU", carry_luts=1, spram="", multipliers=("MULT9X9", "MULT18X18", "MULT36X36", "MULTALU18X18"))


DEVICES: dict[str, Device] = {device.name: device for device in (
    _ecp5("ecp5-85f", "Lattice LFE5U-85F, CABGA381, speed grade 6", "85k", 83640, 208, 156),
    _ecp5("ecp5-25f", "Lattice LFE5U-25F, CABGA381, speed grade 6", "25k", 24288, 56, 28),
    # "u" is the UltraPlus, "hx" the fast part, whose delays abc9 then optimizes for.
    _ice40("up5k", "Lattice iCE40UP5K, SG48", ("--up5k", "--package", "sg48"), "synth_ice40 -device u -abc9",
           {"lut4": 5280, "ff": 5280, "ram": 30, "spram": 4, "dsp": 8}),
    _ice40("hx8k", "Lattice iCE40HX8K, CT256", ("--hx8k", "--package", "ct256"), "synth_ice40 -device hx -abc9",
           {"lut4": 7680, "ff": 7680, "ram": 32}),
    _gowin("gw2a-18", "Gowin GW2A-LV18, PBGA256, C8/I7", "GW2A-LV18PG256C8/I7", "GW2A-18",
           ("A9", "A3", "A4", "A5", "A10", "A11", "A12", "B1", "B3", "B4", "B7", "B9", "B11"),
           {"lut4": 20736, "ff": 15552, "ram": 46, "dsp": 48}),
)}
"""The devices, by name."""


def get_device(name: str) -> Device:
    """The device called ``name``; an unknown one is a :class:`ConfigError`."""
    try:
        return DEVICES[name]
    except KeyError:
        raise ConfigError(f"the device must be one of {', '.join(DEVICES)}, not {name!r}") from None
