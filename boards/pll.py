"""Settings of the devices' phase-locked loops for a clock, within the ranges of the data sheets.

All of them divide the input for the phase detector, multiply that by the divider of the feedback, and divide the
oscillator for the output. On Gowin devices the output is what is fed back, and on the others another division of the
oscillator, or that itself.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from ..hw.arch.errors import ConfigError

__all__ = ["PLLS", "Pll", "PllKind", "nearest"]

FARTHEST = Fraction(1, 20)
"""An output that is slower than what is wanted by more than this share is refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PllKind:
    """A device's phase-locked loop.

    Parameters
    ----------
    cell : str
        The vendor's primitive.
    input_mhz, detector_mhz, oscillator_mhz, output_mhz : (float, float)
        Lowest and highest frequency of the input, the phase detector, the oscillator and the output.
    input_dividers, multipliers, output_dividers : sequence of int
        What the input is divided by; what the detector's frequency is multiplied by, to be that of the oscillator or of
        the output; and what the oscillator is divided by. Rising.
    output_fed_back : bool
        Whether the multiple is the output's frequency, not the oscillator's.
    parameters : callable
        From input divider, multiplier, output divider and input in MHz to the primitive's parameters.
    """

    cell: str
    input_mhz: tuple[float, float]
    detector_mhz: tuple[float, float]
    oscillator_mhz: tuple[float, float]
    output_mhz: tuple[float, float]
    input_dividers: Sequence[int]
    multipliers: Sequence[int]
    output_dividers: Sequence[int]
    output_fed_back: bool
    parameters: Callable[[int, int, int, Fraction], Mapping[str, int | str | tuple[int, int]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pll:
    """A phase-locked loop that is set.

    Parameters
    ----------
    kind : PllKind
    input_mhz, detector_mhz, oscillator_mhz, output_mhz : Fraction
    parameters : mapping of str to int, str or (int, int)
        The primitive's parameters; a pair is a number and its width in bits.
    """

    kind: PllKind
    input_mhz: Fraction
    detector_mhz: Fraction
    oscillator_mhz: Fraction
    output_mhz: Fraction
    parameters: Mapping[str, int | str | tuple[int, int]]


_FEEDBACK = range(2, 9)
"""What the oscillator of an ECP5 may be divided by for the feedback, which takes an output of its own."""


def _ehxplll(divider: int, multiplier: int, output: int, mhz: Fraction) -> dict[str, Any]:
    fed_back = max(each for each in _FEEDBACK if multiplier % each == 0)
    return {"CLKI_DIV": divider, "CLKFB_DIV": multiplier // fed_back, "FEEDBK_PATH": "CLKOP",
            "CLKOP_ENABLE": "ENABLED", "CLKOP_DIV": fed_back, "CLKOP_CPHASE": fed_back - 1, "CLKOP_FPHASE": 0,
            "CLKOS_ENABLE": "ENABLED", "CLKOS_DIV": output, "CLKOS_CPHASE": output - 1, "CLKOS_FPHASE": 0}


def _sb_pll40(divider: int, multiplier: int, output: int, mhz: Fraction) -> dict[str, Any]:
    # The loop's filter goes by the detector's frequency.
    bands = (17, 26, 44, 66, 101)
    return {"FEEDBACK_PATH": "SIMPLE", "DIVR": (divider - 1, 4), "DIVF": (multiplier - 1, 7),
            "DIVQ": (output.bit_length() - 1, 3), "FILTER_RANGE": (1 + sum(mhz / divider >= band for band in bands), 3)}


def _rpll(device: str) -> Callable[[int, int, int, Fraction], dict[str, Any]]:
    def parameters(divider: int, multiplier: int, output: int, mhz: Fraction) -> dict[str, Any]:
        return {"FCLKIN": f"{float(mhz):g}", "IDIV_SEL": divider - 1, "FBDIV_SEL": multiplier - 1, "ODIV_SEL": output,
                "CLKFB_SEL": "internal", "DEVICE": device}
    return parameters


_ICE40 = PllKind(
    cell="SB_PLL40_CORE", input_mhz=(10, 133), detector_mhz=(10, 133), oscillator_mhz=(533, 1066),
    output_mhz=(16, 275), input_dividers=range(1, 17), multipliers=range(1, 129),
    output_dividers=tuple(1 << n for n in range(1, 7)), output_fed_back=False, parameters=_sb_pll40)
_GW1N = PllKind(
    cell="rPLL", input_mhz=(3, 400), detector_mhz=(3, 400), oscillator_mhz=(400, 1200), output_mhz=(3.125, 600),
    input_dividers=range(1, 65), multipliers=range(1, 65), output_dividers=(2, 4, 8, *range(16, 129, 16)),
    output_fed_back=True, parameters=_rpll("GW1NR-9C"))
PLLS: dict[str, PllKind] = {
    "EHXPLLL": PllKind(
        cell="EHXPLLL", input_mhz=(8, 400), detector_mhz=(10, 400), oscillator_mhz=(400, 800),
        output_mhz=(3.125, 400), input_dividers=range(1, 129),
        multipliers=tuple(n for n in range(1, 129) if any(n % each == 0 for each in _FEEDBACK)),
        output_dividers=range(1, 129), output_fed_back=False, parameters=_ehxplll),
    "SB_PLL40_CORE": _ICE40,
    # The one whose input is a pin of its own.
    "SB_PLL40_PAD": dataclasses.replace(_ICE40, cell="SB_PLL40_PAD"),
    "rPLL.GW1N": _GW1N,
    "rPLL.GW2A": dataclasses.replace(
        _GW1N, input_mhz=(3, 500), detector_mhz=(3, 500), oscillator_mhz=(500, 1250), output_mhz=(3.90625, 625),
        parameters=_rpll("GW2A-18")),
}
"""Kinds by the names that :attr:`.devices.Device.pll` has. Ranges: Lattice FPGA-DS-02012 (ECP5), FPGA-DS-02029 and
FPGA-DS-02008 (iCE40), Gowin DS117 and DS102, of the slowest speed grade that a board here has."""


def nearest(kind: PllKind, input_mhz: float, wanted_mhz: float) -> Pll:
    """The setting whose output is nearest to what is wanted, and not above it.

    Of equal ones, that with the fastest phase detector and then the fastest oscillator is taken: least jitter.

    Raises
    ------
    ConfigError
        If the input is out of range, or no output is within a twentieth of what is wanted.
    """
    given, wanted = Fraction(input_mhz).limit_denominator(10**6), Fraction(wanted_mhz).limit_denominator(10**6)
    if not _within(given, kind.input_mhz):
        low, high = kind.input_mhz
        raise ConfigError(f"the input of {kind.cell} must be from {low:g} to {high:g} MHz, not {input_mhz:g}; "
                          f"clock the accelerator by the oscillator itself")
    best = max(_settings(kind, given, wanted), default=None)
    if best is None or wanted - best[0] > wanted * FARTHEST:
        near = "" if best is None else f"; the nearest below is {float(best[0]):g} MHz"
        raise ConfigError(f"{kind.cell} can't make {wanted_mhz:g} MHz of {input_mhz:g} MHz{near}; give another clock")
    output, detector, oscillator, divider, multiplier, divisor = best
    return Pll(kind=kind, input_mhz=given, detector_mhz=detector, oscillator_mhz=oscillator, output_mhz=output,
               parameters=kind.parameters(divider, multiplier, divisor, given))


def _settings(kind: PllKind, given: Fraction,
              wanted: Fraction) -> Iterable[tuple[Fraction, Fraction, Fraction, int, int, int]]:
    """Output, detector, oscillator, and the dividers, of what is in range and not above what is wanted."""
    dividers = kind.output_dividers
    for divider in kind.input_dividers:
        detector = given / divider
        if not _within(detector, kind.detector_mhz):
            continue
        for multiplier in kind.multipliers:
            multiple = detector * multiplier
            if kind.output_fed_back:
                found = [(multiple * each, multiple, each) for each in dividers] if multiple <= wanted else []
            else:
                found = [(multiple, multiple / each, each)
                         for each in dividers[bisect.bisect_left(dividers, multiple / wanted):][:1]]
            for oscillator, output, each in found:
                if _within(oscillator, kind.oscillator_mhz) and _within(output, kind.output_mhz):
                    yield output, detector, oscillator, divider, multiplier, each


def _within(value: Fraction, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]
