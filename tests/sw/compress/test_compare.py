"""The comparison: its files, its settings, and what it does when a recipe fails."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shiftwright.sim import golden
from shiftwright.sw import train
from shiftwright.sw.data import load
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.report.plot import accuracy_plot
from tests.sw.compress.recipes import SEED, digits_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "digits.safetensors"
    train.save_checkpoint(path, train.Checkpoint(digits_network(), "digits", "digits", 0.9, 10, SEED, 3890))
    return path


def test_files(source: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    (tmp_path / "three.toml").write_text('name = "bqnet"\nlevels = 3\nepochs = 0\n')
    result = shiftwright("compare", source, "--recipes", "bqnet, ptq,bqnet", "--recipe-file", tmp_path / "three.toml",
                         "--set", "bqnet:epochs=1", "--set", "calibration_images=100", "-o", tmp_path / "out", "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    assert [row["name"] for row in shown["recipes"]] == ["bqnet", "ptq", "bqnet-2", "three"]
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == shown
    assert [row["options"].get("epochs") for row in shown["recipes"]] == [1, None, 1, 1]
    assert all(row["options"]["calibration_images"] == 100 for row in shown["recipes"])
    with open(tmp_path / "out" / "compare.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["bytes"]) for row in rows] == [row["bytes"] for row in shown["recipes"]]
    network = QuantizedNetwork.load(tmp_path / "out" / "three.swc")
    accuracy = golden.accuracy(network, load("digits", split="test"))
    assert shown["recipes"][3]["accuracy"] == pytest.approx(accuracy, abs=1e-6) == network.metadata["accuracy"]
    picture = ElementTree.parse(tmp_path / "out" / "compare.svg")
    words = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {"bqnet", "ptq", "three", "bytes of the image", "cycles of an inference", "accuracy, %"} <= words


def test_a_recipe_that_fails_leaves_the_others(source: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    result = shiftwright("compare", source, "--recipes", "bqnet,slq", "--set", "epochs=0", "--set",
                         "slq:layers.nowhere.zero=false", "-o", tmp_path, "--json")
    assert result.code == 2
    assert "1 of 2 recipes failed; the first: slq: recipe slq: layers names 'nowhere'" in result.err
    rows = json.loads((tmp_path / "compare.json").read_text())["recipes"]
    assert "error" not in rows[0] and "nowhere" in rows[1]["error"]
    assert (tmp_path / "bqnet.swc").exists() and (tmp_path / "compare.svg").exists()


@pytest.mark.parametrize(("arguments", "message"), [
    ([], "nothing to compare: give --recipes, as in bqnet,slq,ptq, or --recipe-file"),
    (["--recipes", "bqnet,bestt"], "unknown recipe 'bestt'; did you mean 'best'?"),
    (["--recipes", "bqnet", "--set", "levls=2"], "recipe bqnet has no option 'levls'; did you mean 'levels'?"),
    (["--recipes", "bqnet", "--set", "bqnett:levels=2"], "unknown recipe 'bqnett'; did you mean 'bqnet'?"),
    (["--recipe-file", "none.toml"], "none.toml: can't read the recipe"),
])
def test_what_is_refused(source: Path, tmp_path: Path, shiftwright: Callable[..., Any], arguments: list[str],
                         message: str) -> None:
    result = shiftwright("compare", source, *arguments, "-o", tmp_path / "out")
    assert result.code == 2 and message in result.err and "Traceback" not in result.err
    assert not (tmp_path / "out").exists()


def test_the_same_figures_give_the_same_picture() -> None:
    rows = [{"name": "a", "accuracy": 0.9, "bytes": 100, "cycles": 2000},
            {"name": "b", "accuracy": 0.95, "bytes": 300, "cycles": 1000}]
    assert accuracy_plot(rows, 0.97, "net") == accuracy_plot(rows, 0.97, "net")
