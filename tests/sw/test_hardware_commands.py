"""The commands simulate, generate, build and boards: what they print and how they fail."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = "[accelerator]\nlanes_y = 1\nlanes_x = 1\nweight_depth = 256\nact_depth = 16\n"


def test_boards(shiftwright: Callable) -> None:
    found = json.loads(shiftwright("boards", "--json").out)
    assert {"ulx3s-85f", "icebreaker", "tang-nano-9k", "arty-a7"} <= set(found)
    assert found["ulx3s-85f"]["configuration"]["lanes_y"] == 4
    shown = json.loads(shiftwright("boards", "icebreaker", "--json").out)
    assert shown["program"] == "openFPGALoader -b ice40_generic FILE"
    assert shown["fits"] and shown["most_lanes"] != "none"
    everything = json.loads(shiftwright("boards", "--all", "--json").out)["platforms"]
    assert {"icesugar", "icebreaker"} <= {each["board"] for each in everything} and len(everything) > 40
    assert "icebreaker" in shiftwright("boards").out and "icesugar" in shiftwright("boards", "--all").out
    code, _, err = shiftwright("boards", "nothing")
    assert code == 2 and "the board must be one of arty-a7, " in err and "not 'nothing'" in err


def test_generate_writes_the_top_of_a_board(shiftwright: Callable, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    code, out, _ = shiftwright("generate", "--board", "arty-a7", "--config", tmp_path / "small.toml", "-o",
                               tmp_path / "rtl", "--json")
    assert code == 0 and json.loads(out)["top"] == "arty_a7"
    assert {path.name for path in (tmp_path / "rtl").iterdir()} == {"arty_a7.v", "arty_a7.xdc", "arty_a7.json"}
    code, _, err = shiftwright("build", "--board", "arty-a7", "-o", tmp_path)
    assert code == 2 and "there are no open tools" in err


def test_generate(shiftwright: Callable, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    code, out, _ = shiftwright("generate", "--config", tmp_path / "small.toml", "-o", tmp_path / "rtl", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["lanes"] == "1x1x1"
    assert "module accelerator(" in Path(result["verilog"]).read_text()
    assert json.loads(Path(result["manifest"]).read_text())["config"]["weight_depth"] == 256


def test_generate_refuses_a_bad_name(shiftwright: Callable, tmp_path: Path) -> None:
    code, _, err = shiftwright("generate", "-o", tmp_path, "--name", "4x4")
    assert code == 2 and "must be a Verilog identifier, not '4x4'" in err


@pytest.mark.parametrize(("arguments", "code", "message"), [
    (("simulate", "missing.swi", "--data", "digits"), 2, "missing.swi: can't read the image"),
    (("simulate", "wrong.swi", "--data", "digits"), 2, "not an image (.swi)"),
    (("simulate", "wrong.swi", "--data", "digits", "--netlist"), 2, "can't be simulated yet"),
    (("simulate", "wrong.swi", "--data", "digits", "--simulator", "modelsim"), 2, "is not one of"),
    (("build", "--board", "nothing", "-o", "out"), 2, "the board must be one of"),
    (("build", "-o", "out", "--clock", "-5"), 2, "the clock must be greater than 0 MHz"),
    (("build", "-o", "out", "--config", "missing.toml"), 2, "can't read the configuration"),
    (("generate", "-o", "wrong.swi"), 2, "is a file"),
])
def test_wrong_use_is_one_message(shiftwright: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                  arguments: tuple[str, ...], code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.swi").write_text("wrong")
    found, _, err = shiftwright(*arguments)
    assert found == code
    assert message in err
    assert "Traceback" not in err


def test_a_missing_tool_is_exit_code_3(shiftwright: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOSYS", str(tmp_path / "nowhere"))
    code, _, err = shiftwright("generate", "-o", tmp_path / "rtl")
    assert code == 3 and "YOSYS" in err
    assert not (tmp_path / "rtl").exists()


@pytest.mark.slow
def test_simulate_names_its_reference(shiftwright: Callable, tmp_path: Path) -> None:
    """On Icarus, which builds in a second: a network of one fully connected layer over the embedded digits."""
    if shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog is not installed")
    import numpy as np

    from shiftwright.hw.arch.config import AcceleratorConfig
    from shiftwright.sw.compiler.compile import compile_
    from shiftwright.sw.network import Layer, QuantizedNetwork, TensorSpec, Term

    def tensor(name: str, channels: int, size: int, bits: int) -> TensorSpec:
        return TensorSpec(name=name, channels=channels, height=size, width=size, bits=bits, signed=bits > 8,
                          exponent=-8)

    def network(seed: int) -> QuantizedNetwork:
        layer = Layer(name="fc", op="conv", source=tensor("input", 1, 8, 8), target=tensor("fc.out", 10, 1, 32),
                      kernel=(8, 8), indices=np.random.default_rng(seed).integers(0, 3, (10, 1, 8, 8)).astype(np.uint8),
                      codebook=((), (Term(False, 0),), (Term(True, 2),)), bias=np.arange(10), qmin=0, qmax=0, raw=True,
                      scale=((Term(False, 0),),) * 10, shift=np.zeros(10, np.int64))
        return QuantizedNetwork(input=layer.source, layers=(layer,))

    config = AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=2048, act_depth=256)
    compile_(network(1), config).save(tmp_path / "fc.swi")
    arguments = ("simulate", tmp_path / "fc.swi", "--data", "digits", "--images", 2, "--simulator", "icarus", "--json")
    alone = json.loads(shiftwright(*arguments).out)
    assert alone["reference"] == "image interpreter"
    assert (alone["images"], alone["layers"], alone["values"]) == (2, ["layer 0"], 20)
    network(1).save(tmp_path / "fc.swc")
    golden = json.loads(shiftwright(*arguments).out)
    assert golden["reference"] == f"golden model of {tmp_path / 'fc.swc'}"
    assert golden["cycles"] == alone["cycles"]
    network(2).save(tmp_path / "fc.swc")
    code, _, err = shiftwright(*arguments)
    assert code == 2 and "was not compiled from" in err
