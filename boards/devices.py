"""The FPGA devices of the open tools: how each is synthesized, placed, routed and packed, and what it holds."""

import dataclasses
import re
from collections.abc import Mapping

from ..hw.arch.errors import ConfigError

__all__ = ["DEVICES", "Device", "ecp5", "get_device", "gowin", "ice40"]


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
        Native name of the program that makes the bitstream.
    packer_args : tuple of str
        Its arguments.
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
    pll : str
        Its phase-locked loop (:data:`.pll.PLLS`).
    clock_mhz : float
        A clock that accelerators meet with room to spare, for a board that nobody has tuned.
    config : mapping
        What an accelerator has other than the default, for such a board; the nearest that fits is taken.
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
    packer_args: tuple[str, ...]
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
    pll: str
    clock_mhz: float
    config: Mapping[str, object]


_ECP5 = {"12k": (12000, 32, 28), "25k": (24288, 56, 28), "45k": (43848, 108, 72), "85k": (83640, 208, 156)}
"""LUTs, RAM blocks and multipliers. The smallest is the next one's die, of which the open tools use all; what counts is
the data sheet's."""


def ecp5(name: str, part: str, *, package: str = "CABGA381", speed: str = "6") -> Device:
    """An ECP5 device: ``part`` is such as ``"LFE5U-85F"`` or ``"LFE5UM5G-45F"``."""
    kind, _, size = part.removeprefix("LFE5").lower().partition("-")
    luts, ram, dsp = _ECP5[size.replace("f", "k")]
    prefix = {"u": "", "um": "um-", "um5g": "um5g-"}[kind]
    return Device(
        # Told what delay is enough, in ps, abc9 saves LUTs on paths that are quicker.
        name=name, family="ecp5", title=f"Lattice {part}, {package}, speed grade {speed}",
        synth="scratchpad -set abc9.D 4000\nsynth_ecp5", router="nextpnr-ecp5",
        router_args=(f"--{prefix}{size.replace('f', 'k')}", "--package", package, "--speed", speed),
        pins_args=("--lpf", "top.lpf"), routed_args=("--textcfg", "top.config"),
        unconstrained=("--lpf-allow-unconstrained",), free_pins=(), packer="ecppack",
        packer_args=("--compress", "--input", "top.config", "--bit", "top.bit"),
        constraints="top.lpf", routed="top.config", bitstream="top.bit",
        capacity={"lut4": luts, "ff": luts, "ram": ram, "dsp": dsp},
        # A distributed RAM holds 16 x 4 bits in four LUTs, and its write port takes the two next to them.
        luts_of={"LUT4": 1, "TRELLIS_DPR16X4": 6}, registers=("TRELLIS_FF",), rams=("DP16KD", "PDPW16KD"),
        carry="CCU2C", carry_luts=2, spram="", multipliers=("MULT18X18D", "MULT9X9D", "ALU54B", "ALU24B"),
        pll="EHXPLLL", clock_mhz=50.0, config={})


_ICE40_CONFIG = {"lanes_y": 2, "lanes_x": 2, "interleave": 2, "row_depth": 512, "act_depth": 512, "acc_width": 20,
                 "max_code_bits": 10, "map_bits": 6, "counters": False, "shadow_chain": True}


def ice40(name: str, part: str, *, package: str) -> Device:
    """An iCE40 device: ``part`` is ``"UP5K"`` or ``"HX8K"``."""
    ultra = part == "UP5K"
    return Device(
        # "u" is the UltraPlus, "hx" the fast part, whose delays abc9 then optimizes for.
        name=name, family="ice40", title=f"Lattice iCE40{part}, {package.upper()}",
        # The flip-flops of a tile of eight share their enable: one that has its own takes a tile.
        synth=f"synth_ice40 -device {'u' if ultra else 'hx'} -abc9 -dffe_min_ce_use 3", router="nextpnr-ice40",
        router_args=(f"--{part.lower()}", "--package", package.lower()),
        pins_args=("--pcf", "top.pcf"), routed_args=("--asc", "top.asc"),
        unconstrained=("--pcf-allow-unconstrained",), free_pins=(), packer="icepack",
        packer_args=("top.asc", "top.bin"), constraints="top.pcf", routed="top.asc", bitstream="top.bin",
        capacity={"lut4": 5280, "ff": 5280, "ram": 30, "spram": 4, "dsp": 8} if ultra else
        {"lut4": 7680, "ff": 7680, "ram": 32},
        luts_of={"SB_LUT4": 1}, registers=("SB_DFF",),
        rams=("SB_RAM40_4K", "SB_RAM40_4KNR", "SB_RAM40_4KNW", "SB_RAM40_4KNRNW"),
        carry="SB_CARRY", carry_luts=0, spram="SB_SPRAM256KA" if ultra else "", multipliers=("SB_MAC16",),
        pll="SB_PLL40_PAD" if ultra else "SB_PLL40_CORE", clock_mhz=12.0 if ultra else 24.0,
        config={**_ICE40_CONFIG, **({"weight_memory": "spram"} if ultra else {"weight_depth": 4096})})


def gowin(name: str, part: str, family: str, *, pll: str, pins: tuple[str, ...], clock_mhz: float,
          capacity: Mapping[str, int], config: Mapping[str, object]) -> Device:
    """A Gowin device: ``part`` in full, ``family`` as nextpnr calls it."""
    words = re.fullmatch(r"(\w+-[A-Z]+\d+)([A-Z]+\d+P?)(C\d+/I\d+)", part)
    return Device(
        name=name, family="gowin", title=f"Gowin {', '.join(words.groups() if words else (part,))}",
        synth=f"synth_gowin -family {family.partition('-')[0].lower()}",
        router="nextpnr-himbaechel-gowin", router_args=("--device", part, "--vopt", f"family={family}"),
        pins_args=("--vopt", "cst=top.cst"), routed_args=("--write", "top.routed.json"),
        unconstrained=(), free_pins=pins, packer="gowin_pack",
        packer_args=("-d", family, "-o", "top.fs", "top.routed.json"),
        constraints="top.cst", routed="top.routed.json", bitstream="top.fs", capacity=capacity,
        # Distributed RAM of 16 x 4 bits is the LUTs of two slices. An adder's bit takes a LUT; wider multiplexers none.
        luts_of={f"LUT{n}": 1 for n in range(1, 5)} | {"RAM16SDP4": 4}, registers=("DFF",),
        rams=("SP", "SPX9", "SDPB", "SDPX9B", "DPB", "DPX9B"),
        carry="ALU", carry_luts=1, spram="", multipliers=("MULT9X9", "MULT18X18", "MULT36X36", "MULTALU18X18"),
        pll=pll, clock_mhz=clock_mhz, config=config)


DEVICES: dict[str, Device] = {device.name: device for device in (
    ecp5("ecp5-85f", "LFE5U-85F"),
    ecp5("ecp5-45f", "LFE5U-45F"),
    ecp5("ecp5-25f", "LFE5U-25F"),
    ecp5("ecp5-12f", "LFE5U-12F"),
    ecp5("ecp5-5g-85f", "LFE5UM5G-85F", speed="8"),
    ecp5("ecp5-5g-45f", "LFE5UM5G-45F", speed="8"),
    ecp5("ecp5-m-45f", "LFE5UM-45F", speed="8"),
    ice40("up5k", "UP5K", package="SG48"),
    ice40("hx8k", "HX8K", package="CT256"),
    gowin("gw2a-18", "GW2A-LV18PG256C8/I7", "GW2A-18", pll="rPLL.GW2A", clock_mhz=54.0,
          pins=("A9", "A3", "A4", "A5", "A10", "A11", "A12", "B1", "B3", "B4", "B7", "B9", "B11"),
          capacity={"lut4": 20736, "ff": 15552, "ram": 46, "dsp": 48}, config={"weight_depth": 16384}),
    gowin("gw1nr-9c", "GW1NR-LV9QN88PC6/I5", "GW1N-9C", pll="rPLL.GW1N", clock_mhz=27.0,
          pins=("52", "10", "11", "13", "14", "15", "16", "17", "18", "25", "26", "27"),
          capacity={"lut4": 8640, "ff": 6480, "ram": 26, "dsp": 20},
          config={"lanes_y": 2, "lanes_x": 2, "interleave": 2, "weight_depth": 8192}),
)}
"""The devices, by name."""


def get_device(name: str) -> Device:
    """The device called ``name``; an unknown one is a :class:`ConfigError`."""
    try:
        return DEVICES[name]
    except KeyError:
        raise ConfigError(f"the device must be one of {', '.join(DEVICES)}, not {name!r}") from None
