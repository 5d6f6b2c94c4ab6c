"""The cells' own forms for FPGA families are what the generic ones are, proven by Yosys."""

from pathlib import Path

import pytest

from shiftwright.hw.arch.errors import ToolError
from shiftwright.hw.cells.use import cells_verilog
from shiftwright.hw.yosys import run_yosys
from shiftwright.sw.tools import using_tools

CASES = [
    pytest.param("SHIFTWRIGHT_SHIFT_ADD", {"WIDTH": width}, id=f"shift_add of {width} bits") for width in (1, 2, 7, 24)
] + [
    pytest.param("SHIFTWRIGHT_GATED_ADD", {"WIDTH": width}, id=f"gated_add of {width} bits") for width in (1, 2, 7, 26)
] + [
    pytest.param("SHIFTWRIGHT_SELECT", {"WIDTH": 3, "WORDS": 1 << bits, "BITS": bits}, id=f"select of {1 << bits}")
    for bits in (2, 3, 4)
]


def _prove(folder: Path, name: str, parameters: dict[str, int], family: str) -> None:
    """Prove that both forms of a cell are equal; a :class:`ToolError` when they are not."""
    (folder / "generic.v").write_text(cells_verilog())
    (folder / "family.v").write_text(family)
    settings = " ".join(f"-set {key} {value}" for key, value in parameters.items())
    script = [
        "read_verilog generic.v", f"chparam {settings} {name}", f"hierarchy -top {name}", "proc", "flatten",
        f"rename {name} gold", "design -stash gold",
        "read_verilog family.v +/ecp5/ccu2c_sim.vh +/ecp5/common_sim.vh", f"chparam {settings} {name}",
        f"hierarchy -top {name}", "proc", "flatten", f"rename {name} gate",
        "design -stash gate", "design -copy-from gold -as gold gold", "design -copy-from gate -as gate gate",
        "miter -equiv -flatten -make_outputs gold gate miter", "sat -verify -prove trigger 0 -show-inputs miter",
    ]
    with using_tools():
        run_yosys("\n".join(script) + "\n", folder)


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_ecp5_cell_is_the_generic_one(name: str, parameters: dict[str, int], tmp_path: Path) -> None:
    _prove(tmp_path, name, parameters, cells_verilog("ecp5"))


def test_the_proof_finds_a_wrong_cell(tmp_path: Path) -> None:
    wrong = cells_verilog("ecp5").replace("16'h569a", "16'h569b")
    assert wrong != cells_verilog("ecp5")
    with pytest.raises(ToolError, match="yosys failed"):
        _prove(tmp_path, "SHIFTWRIGHT_SHIFT_ADD", {"WIDTH": 3}, wrong)
