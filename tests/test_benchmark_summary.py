"""The summary of the benchmarks, the tables made from it, and the committed figures."""

import importlib.util
import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

_spec = importlib.util.spec_from_file_location("benchmark_summary", REPOSITORY / "benchmarks" / "summary.py")
assert _spec is not None and _spec.loader is not None
summary = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(summary)


@pytest.fixture
def root(tmp_path):
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    for key, figures in {
        "run.lenet5.bqnet.4x4x1": {"cycles": 123456, "utilization": 0.91234, "ok": True, "note": "text"},
        "run.digits.bqnet.4x4x1": {"cycles": 2000, "layers": {"conv1": 7}},
        "codec.pow2_16": {"encode_msymbols_s": 34.0},
    }.items():
        (results / f"{key}.json").write_text(json.dumps({"command": "x", "seed": 0, "figures": figures}))
    return tmp_path


def test_flat_keys_of_numeric_leaves(root):
    assert summary.main(["--root", str(root)]) == 0
    assert json.loads((root / "benchmarks" / "summary.json").read_text()) == {
        "codec.pow2_16.encode_msymbols_s": 34.0,
        "run.digits.bqnet.4x4x1.cycles": 2000,
        "run.digits.bqnet.4x4x1.layers.conv1": 7,
        "run.lenet5.bqnet.4x4x1.cycles": 123456,
        "run.lenet5.bqnet.4x4x1.utilization": 0.91234,
    }


def test_tables_are_made_anew_and_the_rest_is_kept(root):
    (root / "README.md").write_text(
        "before\n<!-- table:run cycles, utilization -->\nold | rows\n<!-- /table -->\nbetween\n"
        "<!-- table:uart -->\n<!-- /table -->\n<!-- table:codec -->\n<!-- /table -->\nafter\n")
    assert summary.main(["--root", str(root), "--check"]) == 1
    assert summary.main(["--root", str(root)]) == 0
    assert (root / "README.md").read_text() == (
        "before\n<!-- table:run cycles, utilization -->\n"
        "| case | cycles | utilization |\n| --- | ---: | ---: |\n"
        "| digits.bqnet.4x4x1 | 2,000 |  |\n"
        "| lenet5.bqnet.4x4x1 | 123,456 | 0.9123 |\n"
        "<!-- /table -->\nbetween\n<!-- table:uart -->\n(not measured yet)\n<!-- /table -->\n"
        "<!-- table:codec -->\n| case | encode_msymbols_s |\n| --- | ---: |\n| pow2_16 | 34 |\n"
        "<!-- /table -->\nafter\n")
    assert summary.main(["--root", str(root), "--check"]) == 0


@pytest.mark.parametrize("content", ["{", "[]", '{"figures": 3}', '{"case": {}}'])
def test_a_damaged_result_is_named(root, content):
    (root / "benchmarks" / "results" / "bad.json").write_text(content)
    with pytest.raises(SystemExit, match=r"bad\.json: not a benchmark result"):
        summary.main(["--root", str(root)])


def test_the_committed_summary_and_tables_are_up_to_date():
    assert summary.main(["--check"]) == 0, "run .venv/bin/python benchmarks/summary.py and commit what it writes"
