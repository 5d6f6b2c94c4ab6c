"""Bad input on the command line: one message, the documented exit code, and nothing written."""

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ToolError
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, linear, tensor

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=2048, act_depth=512)
FILES = {
    "acc.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nweight_depth = 2048\nact_depth = 512\n",
    "recipe.toml": "[recipe]\nname = 'bqnet'\nlevels = 2\n",
    "broken.toml": "[accelerator\nlanes_y = 2\n",
    "text.txt": "This is no network.\n",
    "empty.bin": "",
    "unknown.toml": "[accelerator]\nlanes_z = 2\n",
    "range.toml": "[accelerator]\nlanes_y = 99\n",
    "type.toml": "[accelerator]\nlanes_y = 'four'\n",
    "list.toml": "accelerator = [1, 2]\n",
    "other.toml": "[accelerator]\nlanes_y = 4\nlanes_x = 2\nweight_depth = 2048\nact_depth = 512\n",
    "words.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nweight_depth = 256\nact_depth = 512\n",
    "activations.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nweight_depth = 2048\nact_depth = 16\n",
    "narrow.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nacc_width = 16\n",
    "bits.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nact_bits = 4\n",
    "literal.toml": "[accelerator]\nlanes_y = 2\nlanes_x = 2\nguard_bits = 0\n",
}


class Bad(NamedTuple):
    """A command that must fail.

    Parameters
    ----------
    arguments : str
        Separated by blanks.
    message : str
        Part of what it must say.
    code : int
        Exit code.
    """

    arguments: str
    message: str
    code: int = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One sound file of each kind, and some broken ones."""
    from shiftwright.sw import train, zoo

    path = tmp_path_factory.mktemp("bad")
    rng = np.random.default_rng(4)
    source = tensor("input", 1, 8, 8, exponent=-8)
    first = conv(rng, source, "conv", channels=4, padding=(1, 1, 1, 1))
    network = QuantizedNetwork(input=source, layers=(first, linear(rng, first.target, "fc", features=10, raw=True)),
                               parameters=1)
    network.save(path / "net.swc")
    compile_(network, CONFIG).save(path / "net.swi")
    train.save_checkpoint(path / "float.safetensors", train.Checkpoint(
        module=zoo.network_info("digits").build(), network="digits", dataset="digits", float_accuracy=0.1, epochs=1,
        seed=0, parameters=1))
    for name, content in FILES.items():
        (path / name).write_text(content)
    (path / "a_folder").mkdir()
    return path


@pytest.fixture
def refused(folder: Path, shiftwright: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
            tmp_path: Path) -> Iterator[Callable[[Bad], str]]:
    """Run a command that must fail; gives what it says."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SHIFTWRIGHT_DEBUG", raising=False)

    def content() -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
                if "__pycache__" not in path.parts}

    def run(bad: Bad) -> str:
        before = content()
        done = shiftwright(*bad.arguments.split())
        assert (done.code, done.out) == (bad.code, ""), done.err
        assert bad.message in done.err
        check_message(done.err)
        assert content() == before
        return done.err

    yield run


def check_message(err: str) -> None:
    """One line; a wrong use of options may have its usage before it, as click prints it."""
    lines = err.rstrip("\n").split("\n")
    assert "Traceback" not in err and "internal error" not in err
    if lines[0].startswith("Usage: "):
        assert lines[-1].startswith("Error: ") and [line.startswith("Error: ") for line in lines].count(True) == 1
    else:
        assert len(lines) == 1 and lines[0].startswith("shiftwright: "), err


CONFIGURATIONS = [
    Bad("compile net.swc --board atlas -o new.swi", "'shiftwright boards --all', not 'atlas'"),
    Bad("evaluate net.swc --data digits --board atlas", "the board must be one of"),
    Bad("simulate net.swi --data digits --board atlas", "the board must be one of"),
    Bad("generate --board atlas -o new", "the board must be one of"),
    Bad("build --board atlas -o new", "the board must be one of"),
    Bad("demo --board atlas -o new", "the board must be one of"),
    Bad("boards atlas", "the board must be one of"),
    Bad("compile net.swc --board ulx3s-85f --config acc.toml -o new.swi", "exclude each other"),
    *(Bad(f"{command} --config {file}", message)
      for command in ("compile net.swc -o new.swi", "generate -o new", "build -o new", "evaluate net.swc --data digits",
                      "simulate net.swi --data digits")
      for file, message in (
          ("missing.toml", "missing.toml: can't read the configuration"),
          ("a_folder", "a_folder: can't read the configuration"),
          ("broken.toml", "broken.toml: not a TOML file"), ("net.swi", "net.swi: not a TOML file"),
          ("unknown.toml", "unknown.toml: unknown parameter 'lanes_z'"),
          ("recipe.toml", "recipe.toml: unknown parameter 'recipe'"),
          ("range.toml", "range.toml: AcceleratorConfig.lanes_y must be 1, 2, 4 or 8, not 99"),
          ("type.toml", "type.toml: AcceleratorConfig.lanes_y must be 1, 2, 4 or 8, not 'four'"),
          ("list.toml", "list.toml: 'accelerator' must be a table"))),
]
RECIPES = [
    *(Bad(f"compress float.safetensors -o new.swc {options}", message) for options, message in (
        ("--recipe magic", "unknown recipe 'magic'"),
        ("--set levles=2", "recipe bqnet has no option 'levles'"),
        ("--set levels=0", "levels must be"),
        ("--set levels", "must have the form option=value"),
        ("--set act_bits=99", "act_bits must be"),
        ("--recipe-file missing.toml", "missing.toml: can't read the recipe"),
        ("--recipe-file broken.toml", "broken.toml: not a TOML file"),
        ("--recipe-file acc.toml", "acc.toml"))),
]
CAPACITY = [
    Bad("compile net.swc --config words.toml -o new.swi", "model memory (weight_depth) must hold"),
    Bad("compile net.swc --config activations.toml -o new.swi", "activation memory"),
    Bad("compile net.swc --config bits.toml -o new.swi", "more than the accelerator's act_bits of 4"),
    Bad("compile net.swc --config literal.toml -o new.swi", "was compressed for products that lose 0 low bits"),
    Bad("compile net.swc --config narrow.toml -o new.swi", "the accumulator could reach"),
    Bad("evaluate net.swc --data digits --config narrow.toml", "raise acc_width (now 16) to"),
]
ANOTHER_CONFIGURATION = [
    Bad("simulate net.swi --data digits --config other.toml", "lanes_y 2 (accelerator: 4)"),
    Bad("simulate net.swi --data digits --board ulx3s-85f", "weight_depth 2048 (accelerator: 65536)"),
]
KINDS = {
    "compile {} -o new.swi": ("net.swc",),
    "compress {} -o new.swc": ("float.safetensors",),
    "evaluate {} --data digits": ("net.swc", "net.swi"),
    "simulate {} --data digits": ("net.swi",),
    "simulate net.swi --data digits --network {}": ("net.swc",),
    "info {}": ("net.swc", "net.swi", "float.safetensors", "acc.toml"),
}
WRONG_KINDS = [Bad(command.format(file), file) for command, sound in KINDS.items()
               for file in ("net.swc", "net.swi", "float.safetensors", "acc.toml", "text.txt", "empty.bin", "a_folder",
                            "missing.bin") if file not in sound]
OFFLINE = [
    Bad("train lenet5 -o new.safetensors", "data set mnist (train) is not here"),
    Bad("compress float.safetensors --data mnist -o new.swc", "data set mnist (train) is not here"),
    Bad("evaluate net.swc --data cifar10", "data set cifar10 (test) is not here"),
    Bad("simulate net.swi --data svhn", "data set svhn (test) is not here"),
    Bad("evaluate net.swc --data fashion-mnist", "name theirs with --data-dir or SHIFTWRIGHT_DATA"),
    Bad("evaluate net.swc --data mnist --data-dir nowhere", "data folder nowhere does not exist"),
    Bad("evaluate net.swc --data birds", "unknown data set 'birds'"),
    Bad("train lenet9 -o new.safetensors", "lenet9"),
]


@pytest.mark.parametrize("bad", [*CONFIGURATIONS, *RECIPES, *CAPACITY, *ANOTHER_CONFIGURATION, *WRONG_KINDS],
                         ids=lambda bad: bad.arguments)
def test_refused(refused: Callable[[Bad], str], bad: Bad) -> None:
    refused(bad)


@pytest.mark.parametrize("bad", OFFLINE, ids=lambda bad: bad.arguments)
def test_missing_data_set_offline(refused: Callable[[Bad], str], bad: Bad, monkeypatch: pytest.MonkeyPatch,
                                  tmp_path: Path) -> None:
    def offline(*arguments: Any, **options: Any) -> Any:
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.delenv("SHIFTWRIGHT_DATA", raising=False)
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    refused(bad)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_every_message_of_another_configuration_names_all_that_differs(refused: Callable[[Bad], str]) -> None:
    said = refused(Bad("simulate net.swi --data digits --board icebreaker", "compiled for another configuration"))
    from shiftwright.boards.registry import get

    mine, other = CONFIG.to_dict(), get("icebreaker").config.to_dict()
    for name in mine:
        assert (f"{name} {mine[name]} (accelerator: {other[name]})" in said) == (mine[name] != other[name])


@pytest.mark.parametrize("command", ["info {}", "evaluate {} --data digits --images 1", "simulate {} --data digits"])
@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_damaged_image(refused: Callable[[Bad], str], folder: Path, seed: int, command: str, damage: str) -> None:
    rng = np.random.default_rng(seed)
    sound = (folder / "net.swi").read_bytes()
    file = folder / "damaged.swi"
    # Everywhere in the header and the section table, and at some places of the sections.
    places = [*range(0, 60, 7), *rng.integers(60, len(sound), 12).tolist(), len(sound) - 1]
    try:
        for place in places:
            damaged = bytearray(sound[:place] if damage == "truncated" else sound)
            if damage == "bit flipped":
                damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            refused(Bad(command.format("damaged.swi"), "damaged.swi: "))
    finally:
        file.unlink()


NETWORKS = {
    "ceil_mode": ("Conv2d(1, 2, 3), nn.AvgPool2d(4, ceil_mode=True)", "1 (AvgPool2d): ceil_mode=True",
                  "set ceil_mode=False"),
    "map": ("Conv2d(1, 2, 3)", "the network gives 2 x 6 x 6 values an image", "one score a class"),
    "transposed": ("ConvTranspose2d(1, 2, 3)", "conv_transpose2d", "use nn.Conv2d"),
    "conv3d": ("Unflatten(1, (1, 1)), nn.Conv3d(1, 2, (1, 3, 3))", "unflatten", "keep images as N, C, H, W"),
    "sigmoid": ("Conv2d(1, 2, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(72, 10)", "sigmoid", "use nn.Hardtanh(0, 1)"),
    "leaky": ("Conv2d(1, 2, 3), nn.LeakyReLU()", "negative_slope=0.01", "use nn.LeakyReLU(0.125)"),
    "softmax": ("Flatten(), nn.Softmax(1), nn.Linear(64, 10)", "softmax", "return the logits"),
    "layer_norm": ("Flatten(), nn.LayerNorm(64)", "layer_norm", "use batch norm"),
    "reflected": ("Conv2d(1, 2, 3, padding=1, padding_mode='reflect')", "pad", "use zero padding"),
    "upsampled": ("Conv2d(1, 2, 3), nn.Upsample(scale_factor=2)", "upsample", "see the table of supported"),
    "wide": ("Conv2d(3, 2, 3)", "can't be traced with an input of shape (2, 1, 8, 8)", "check the input shape"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_unsupported_operator(refused: Callable[[Bad], str], folder: Path, name: str) -> None:
    text, operator, way_out = NETWORKS[name]
    module = folder / f"network_{name}.py"
    module.write_text(f"import torch.nn as nn\n\n\ndef make():\n    return nn.Sequential(nn.{text})\n")
    try:
        said = refused(Bad(f"compress network_{name}:make --data digits -o new.swc", operator))
        assert way_out in said
    finally:
        module.unlink()
        sys.modules.pop(f"network_{name}", None)


@pytest.mark.parametrize("bad", [
    Bad("compress no_such_module:make --data digits -o new.swc", "can't import the network"),
    Bad("compress json:nothing --data digits -o new.swc", "can't import the network"),
    Bad("compress json:dumps --data digits -o new.swc", "can't make the network"),
    Bad("compress json:decoder --data digits -o new.swc", "is a module, not an nn.Module"),
    Bad("compress net.onnx -o new.swc", "net.onnx: can't read the network: No such file or directory"),
], ids=lambda bad: bad.arguments)
def test_no_network(refused: Callable[[Bad], str], bad: Bad) -> None:
    refused(bad)


TOOLS = [
    ("generate -o new --config acc.toml", "YOSYS", "the environment variable YOSYS must name a program"),
    ("build -o new --board ulx3s-85f", "NEXTPNR_ECP5", "the environment variable NEXTPNR_ECP5 must name a program"),
    ("build -o new --board icebreaker", "ICEPACK", "the environment variable ICEPACK must name a program"),
    ("simulate net.swi --data digits", "VERILATOR", "the environment variable VERILATOR must name a program"),
    ("demo -o new", "VERILATOR", "the environment variable VERILATOR must name a program"),
    ("simulate net.swi --data digits", "PATH", "g++ is needed (compiles the models that Verilator writes)"),
    ("simulate net.swi --data digits --simulator icarus", "PATH", "iverilog is needed"),
    ("demo -o new", "PATH", "g++ is needed (compiles the models that Verilator writes)"),
]


@pytest.mark.parametrize(("arguments", "variable", "message"), TOOLS)
def test_missing_tool(refused: Callable[[Bad], str], arguments: str, variable: str, message: str, tmp_path: Path,
                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    said = refused(Bad(arguments, message, ToolError.exit_code))
    assert "get" in said and "with: " in said


@pytest.mark.parametrize(("arguments", "package"), [
    ("evaluate net.swc --data digits", "sklearn"), ("evaluate net.swi --data digits", "sklearn"),
    ("simulate net.swi --data digits", "cocotb_tools"),
])
def test_missing_package(refused: Callable[[Bad], str], arguments: str, package: str, tmp_path: Path,
                         monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    said = refused(Bad(arguments, f"the Python package {package!r} is missing", ToolError.exit_code))
    assert "pip install 'shiftwright[all]'" in said


@pytest.mark.parametrize("arguments", ["compile net.swc --config acc.toml -o text.txt/new.swi",
                                       "generate --config acc.toml -o text.txt"])
def test_output_below_a_file(refused: Callable[[Bad], str], arguments: str) -> None:
    refused(Bad(arguments, "text.txt"))


def test_the_installed_program_says_the_same(refused: Callable[[Bad], str], folder: Path) -> None:
    bad = Bad("compile net.swi -o new.swi", "net.swi")
    done = subprocess.run([sys.executable, "-m", "shiftwright.sw.cli", *bad.arguments.split()], cwd=folder,
                          capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (bad.code, "")
    assert done.stderr == refused(bad)
