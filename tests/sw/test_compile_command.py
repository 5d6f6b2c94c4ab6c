"""``shiftwright compile`` and ``shiftwright info``."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.image import Image
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, random_network, tensor

CONFIG = AcceleratorConfig(act_depth=4096)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    path = tmp_path / "net.swc"
    random_network(3, CONFIG, raw=True).save(path)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "acc.toml"
    path.write_text("[accelerator]\nact_depth = 4096\n")
    return path


def test_compile_writes_the_image_and_tells_its_size(shiftwright: Callable[..., Any], network: Path,
                                                     config: Path) -> None:
    done = shiftwright("compile", network, "--config", config, "--json")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    expected = compile_detailed(random_network(3, CONFIG, raw=True), CONFIG)
    image = Image.load(network.with_suffix(".swi"))
    assert image.to_bytes() == expected.image.to_bytes()
    assert result["bytes"] == network.with_suffix(".swi").stat().st_size == expected.size
    assert result["predicted_cycles"] == expected.cycles
    assert result["bytes_outside_layers"] + sum(layer["bytes"] for layer in result["layers"]) == result["bytes"]
    assert [layer["layer"] for layer in result["layers"]] == [layer.name for layer in expected.layers]


def test_compile_prints_a_table_for_people(shiftwright: Callable[..., Any], network: Path, config: Path,
                                           tmp_path: Path) -> None:
    done = shiftwright("compile", network, "--config", config, "-o", tmp_path / "other.swi")
    assert done.code == 0
    assert "alphabet" in done.out and "bits/weight" in done.out and "ratio" in done.out
    assert Image.load(tmp_path / "other.swi").config == CONFIG


@pytest.mark.parametrize(("arguments", "message"), [
    (["{network}", "--board", "x", "--config", "{config}"], "exclude each other"),
    (["{missing}", "--config", "{config}"], "can't read"), (["{config}"], "not a compressed network"),
    (["{network}", "--config", "{missing}"], "can't read the configuration"),
    (["{network}", "--config", "{network}"], "not a TOML file"), ([], "Missing argument"),
    (["{network}"], "activation memory"),
])
def test_wrong_input_ends_with_2_and_one_message(shiftwright: Callable[..., Any], network: Path, config: Path,
                                                 arguments: list[str], message: str, tmp_path: Path) -> None:
    if message == "activation memory":
        config_small = dataclasses.replace(CONFIG, act_depth=16)
        config.write_text(f"act_depth = {config_small.act_depth}\n")
        arguments = [*arguments, "--config", str(config)]
    names = {"network": network, "config": config, "missing": tmp_path / "missing"}
    done = shiftwright("compile", *(argument.format(**names) for argument in arguments))
    assert done.code == 2
    assert message in done.err and "Traceback" not in done.err
    assert not network.with_suffix(".swi").exists()


@pytest.mark.parametrize(("needed", "message"), [
    (8192, "; an accelerator with act_depth = 8192 fits ulx3s-85f: use a --config file with it, also to build"),
    (65536, "; with act_depth = 65536, the accelerator does not fit Lattice LFE5U-85F"),
    (100000, "; no accelerator has that: AcceleratorConfig.act_depth must be an integer from 16 to 65536"),
])
def test_what_is_too_small_is_held_against_the_board(shiftwright: Callable[..., Any], network: Path, needed: int,
                                                     message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise CapacityError("it is too small", act_depth=needed)

    monkeypatch.setattr("shiftwright.sw.compiler.compile.compile_detailed", refuse)
    done = shiftwright("compile", network, "--board", "ulx3s-85f")
    assert done.code == 2 and f"it is too small{message}" in done.err
    assert done.err.count("too small") == 1


def test_a_board_that_holds_the_network_is_named(shiftwright: Callable[..., Any], tmp_path: Path,
                                                 rng: np.random.Generator) -> None:
    source = tensor("input", 16, 24, 24)
    layer = conv(rng, source, "conv", channels=16, kernel=(1, 1))
    QuantizedNetwork(input=source, layers=(layer,)).save(tmp_path / "wide.swc")
    done = shiftwright("compile", tmp_path / "wide.swc", "--board", "icebreaker")
    assert done.code == 2 and "activation memory (act_depth) must hold" in done.err
    name = re.search(r"; the board (\S+) holds the network as it is", " ".join(done.err.split()))
    assert name, done.err
    assert shiftwright("compile", tmp_path / "wide.swc", "--board", name[1]).code == 0


def test_info_of_an_image(shiftwright: Callable[..., Any], network: Path, config: Path) -> None:
    compiled = json.loads(shiftwright("compile", network, "--config", config, "--json").out)
    done = shiftwright("info", network.with_suffix(".swi"), "--json")
    assert done.code == 0
    result = json.loads(done.out)
    assert result["kind"] == "image"
    assert result["configuration"] == {"act_depth": 4096}
    assert result["bytes"] == compiled["bytes"]
    assert result["predicted_cycles"] == compiled["predicted_cycles"]
    assert [layer["bytes"] for layer in result["layers"]] == [layer["bytes"] for layer in compiled["layers"]]
    assert "RAW" in result["layers"][-1]["flags"]


def test_memory_maps(shiftwright: Callable[..., Any], network: Path, config: Path) -> None:
    compiled = json.loads(shiftwright("compile", network, "--config", config, "--json").out)
    told = json.loads(shiftwright("info", network.with_suffix(".swi"), "--json").out)
    assert compiled["model_map"] == told["model_map"]
    assert told["model_map"][-1]["codewords"][1] == compiled["model_words"] - 1
    by_layer = {row["output_of"]: row for row in told["activation_map"]}
    tensors = {row["tensor"]: row for row in compiled["activation_map"]}
    outputs = compile_detailed(random_network(3, CONFIG, raw=True), CONFIG).network.layers
    assert list(by_layer) == ["input", *(str(number) for number in range(len(outputs)))]
    for number, layer in enumerate(outputs):
        for key in ("shape", "base", "size", "layout"):
            assert by_layer[str(number)][key] == tensors[layer.target.name][key], (layer.name, key)
    assert tensors["input"]["first"] == "start" and tensors[outputs[-1].target.name]["last"] == "end"
    for arguments in (["info", network.with_suffix(".swi")], ["compile", network, "--config", config, "--map"]):
        text = shiftwright(*arguments).out
        assert "Activation memory, addresses in every bank" in text and "Model memory, words" in text
    assert "Model memory" not in shiftwright("compile", network, "--config", config).out


def test_more_lanes_that_hold_the_maps_are_named(shiftwright: Callable[..., Any], tmp_path: Path,
                                                 rng: np.random.Generator) -> None:
    source = tensor("input", 16, 24, 24)
    network = QuantizedNetwork(input=source, layers=(conv(rng, source, "conv", channels=16, kernel=(1, 1)),))
    network.save(tmp_path / "wide.swc")
    (tmp_path / "narrow.toml").write_text("lanes_y = 1\nlanes_x = 1\nact_depth = 5000\n")
    done = shiftwright("compile", tmp_path / "wide.swc", "--config", tmp_path / "narrow.toml")
    text = " ".join(done.err.split())
    assert done.code == 2 and "; 2 x 2 lanes hold the maps with act_depth = 5000" in text
    compile_detailed(network, AcceleratorConfig(lanes_y=2, lanes_x=2, act_depth=5000))
    with pytest.raises(CapacityError):
        compile_detailed(network, AcceleratorConfig(lanes_y=2, lanes_x=1, act_depth=5000))


def test_info_of_a_network(shiftwright: Callable[..., Any], network: Path) -> None:
    result = json.loads(shiftwright("info", network, "--json").out)
    assert result["kind"] == "compressed network"
    assert [layer["layer"] for layer in result["layers"]][-1] == "fc"
    assert "layers" in result and shiftwright("info", network).code == 0


def test_info_of_a_checkpoint(shiftwright: Callable[..., Any], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "float.safetensors"
    save_file({"fc.weight": np.zeros((3, 5), np.float32)}, path, metadata={"shiftwright": json.dumps(
        {"format": "shiftwright.float", "network": "digits", "float_accuracy": 0.98})})
    result = json.loads(shiftwright("info", path, "--json").out)
    assert (result["kind"], result["network"], result["float_accuracy"]) == ("float checkpoint", "digits", 0.98)
    assert result["layers"] == [{"tensor": "fc.weight", "type": "F32", "shape": "3x5"}]


def test_info_of_a_configuration(shiftwright: Callable[..., Any], config: Path) -> None:
    result = json.loads(shiftwright("info", config, "--json").out)
    assert result["kind"] == "accelerator configuration"
    assert result["act_depth"] == 4096
    assert result["fingerprint"] == f"0x{CONFIG.fingerprint:08x}"


@pytest.mark.parametrize(("name", "data", "message"), [
    ("a.swi", b"SWI1", "truncated"), ("a.swi", b"zzzz", "not an image"), ("a.png", b"\x89PNG", "neither an image"),
    ("a.toml", b"lanes_y = 99", "lanes_y must be"), (None, b"", "can't read")])
def test_info_refuses_other_files(shiftwright: Callable[..., Any], tmp_path: Path, name: str | None, data: bytes,
                                  message: str) -> None:
    path = tmp_path / (name or "missing.swi")
    if name:
        path.write_bytes(data)
    done = shiftwright("info", path)
    assert done.code == 2
    assert message in done.err and "Traceback" not in done.err
