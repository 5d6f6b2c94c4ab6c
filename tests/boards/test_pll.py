"""Settings of phase-locked loops: what they promise, and the ranges of the data sheets."""

from fractions import Fraction

import numpy as np
import pytest

from shiftwright.boards import registry
from shiftwright.boards.devices import DEVICES
from shiftwright.boards.pll import PLLS, Pll, nearest
from shiftwright.hw.arch.errors import ConfigError


def _output(pll: Pll) -> tuple[Fraction, Fraction, Fraction]:
    """Detector, oscillator and output as the primitive's documents reckon them from its parameters."""
    value = {name: each[0] if isinstance(each, tuple) else each for name, each in pll.parameters.items()}
    mhz = pll.input_mhz
    if pll.kind.cell == "EHXPLLL":
        detector = mhz / int(value["CLKI_DIV"])
        oscillator = detector * int(value["CLKFB_DIV"]) * int(value["CLKOP_DIV"])
        return detector, oscillator, oscillator / int(value["CLKOS_DIV"])
    if pll.kind.cell == "rPLL":
        detector = mhz / (int(value["IDIV_SEL"]) + 1)
        output = detector * (int(value["FBDIV_SEL"]) + 1)
        return detector, output * int(value["ODIV_SEL"]), output
    detector = mhz / (int(value["DIVR"]) + 1)
    oscillator = detector * (int(value["DIVF"]) + 1)
    return detector, oscillator, oscillator / 2 ** int(value["DIVQ"])


LIMITS = {
    "EHXPLLL": ((10, 400), (400, 800), (3.125, 400)), "SB_PLL40_CORE": ((10, 133), (533, 1066), (16, 275)),
    "SB_PLL40_PAD": ((10, 133), (533, 1066), (16, 275)), "rPLL.GW1N": ((3, 400), (400, 1200), (3.125, 600)),
    "rPLL.GW2A": ((3, 500), (500, 1250), (3.90625, 625)),
}


@pytest.mark.parametrize("name", PLLS)
def test_settings_are_within_the_ranges_and_do_what_they_say(name: str, rng: np.random.Generator) -> None:
    kind = PLLS[name]
    made = 0
    for _ in range(12):
        given, wanted = round(rng.uniform(10, 100), 3), round(rng.uniform(16, 150), 2)
        try:
            pll = nearest(kind, given, wanted)
        except ConfigError:
            continue
        made += 1
        assert _output(pll) == (pll.detector_mhz, pll.oscillator_mhz, pll.output_mhz)
        for value, (low, high) in zip(_output(pll), LIMITS[name], strict=True):
            assert low <= value <= high
        assert 0.95 * wanted <= pll.output_mhz <= wanted
        for value in pll.parameters.values():
            assert not isinstance(value, tuple) or 0 <= value[0] < 1 << value[1]
    assert made > 6


@pytest.mark.parametrize("name, given, wanted, parameters", [
    ("EHXPLLL", 25, 75, {"CLKI_DIV": 1, "CLKFB_DIV": 5, "CLKOP_DIV": 6, "CLKOS_DIV": 10}),
    ("EHXPLLL", 100, 75, {"CLKI_DIV": 1, "CLKFB_DIV": 1, "CLKOP_DIV": 6, "CLKOS_DIV": 8}),
    ("SB_PLL40_PAD", 12, 24, {"DIVR": (0, 4), "DIVF": (63, 7), "DIVQ": (5, 3), "FILTER_RANGE": (1, 3)}),
    ("SB_PLL40_CORE", 12, 60, {"DIVR": (0, 4), "DIVF": (79, 7), "DIVQ": (4, 3), "FILTER_RANGE": (1, 3)}),
    ("SB_PLL40_CORE", 100, 50, {"DIVR": (0, 4), "DIVF": (7, 7), "DIVQ": (4, 3), "FILTER_RANGE": (5, 3)}),
    ("rPLL.GW1N", 27, 40.5, {"FCLKIN": "27", "IDIV_SEL": 1, "FBDIV_SEL": 2}),
])
def test_known_settings(name: str, given: float, wanted: float, parameters: dict[str, object]) -> None:
    pll = nearest(PLLS[name], given, wanted)
    assert pll.output_mhz == Fraction(wanted)
    assert parameters.items() <= pll.parameters.items()


def test_what_can_not_be_made_is_told() -> None:
    with pytest.raises(ConfigError, match="the input of EHXPLLL must be from 8 to 400 MHz, not 6;"):
        nearest(PLLS["EHXPLLL"], 6, 50)
    with pytest.raises(ConfigError, match="SB_PLL40_PAD can't make 14 MHz of 12 MHz; give another clock"):
        nearest(PLLS["SB_PLL40_PAD"], 12, 14)
    with pytest.raises(ConfigError, match="rPLL can't make 6 MHz of 11 MHz; the nearest below is 5.5 MHz"):
        nearest(PLLS["rPLL.GW1N"], 11, 6)


@pytest.mark.parametrize("name", registry.names())
def test_the_clock_of_each_board_is_made_exactly(name: str) -> None:
    board = registry.get(name)
    pll = board.pll()
    assert (board.oscillator_mhz if pll is None else pll.output_mhz) == board.clock_mhz


def test_each_device_has_one() -> None:
    assert {device.pll for device in DEVICES.values()} <= set(PLLS)
