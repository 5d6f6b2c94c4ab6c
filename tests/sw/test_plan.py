"""Plans: equal to what the compiler does where it does it, and what it would do where it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shiftwright.boards.registry import get, names
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError, OverflowProofError
from shiftwright.hw.arch.image import HEADER_WORDS
from shiftwright.sw.compiler import plan as planning
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.plan import Plan, plan, plans
from shiftwright.sw.network import QuantizedNetwork
from tests.networks import conv, linear, pool, random_network, tensor

SMALL = AcceleratorConfig(lanes_y=2, lanes_x=2, act_depth=16, weight_depth=256, row_depth=64, map_bits=3, acc_width=16)


def figures(of: Any) -> tuple[Any, ...]:
    words = of.words if isinstance(of, Plan) else of.image.words.size
    return of.cycles, of.memory.peak, words, [(layer.name, layer.cycles, layer.bytes) for layer in of.layers]


@pytest.mark.parametrize("seed", [pytest.param(0, marks=pytest.mark.regress), 1, 2])
def test_where_a_network_fits_the_plan_is_what_the_compiler_does(seed: int) -> None:
    network = random_network(seed, AcceleratorConfig(act_depth=4096))
    found = plans(network, {name: get(name).config for name in names()})
    assert tuple(found) == names()
    for name, planned in found.items():
        try:
            compiled = compile_detailed(network, get(name).config)
        except (CapacityError, OverflowProofError) as error:
            assert str(error) == str(planned) or isinstance(planned, Plan) and not planned.fits, name
            continue
        assert isinstance(planned, Plan) and planned.fits, name
        assert figures(planned) == figures(compiled), name
        assert planned.weight_bytes == planned.map_bytes == 0


@pytest.mark.parametrize(("seed", "streams"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_what_is_needed_is_the_least_that_compiles_and_the_plan_is_for_it(seed: int, streams: int) -> None:
    network = random_network(seed, AcceleratorConfig(act_depth=4096), layers=4, size=16)
    small = SMALL.replace(streams=streams)
    planned = plan(network, small)
    assert not planned.fits and planned.needs["act_depth"] == planned.memory.peak
    enough = small.replace(**planned.needs)
    compiled = compile_detailed(network, enough)
    assert figures(planned) == figures(compiled)
    for name, value in planned.needs.items():
        assert value > getattr(small, name)
        with pytest.raises((CapacityError, OverflowProofError)):
            compile_detailed(network, enough.replace(**{name: value // 2 if name == "row_depth" else value - 1}))


def test_accumulators_rows_and_coordinates_are_told_as_well(rng: np.random.Generator) -> None:
    source = tensor("input", 64, 12, 12)
    layer = conv(rng, source, "wide", channels=2, kernel=(3, 3), padding=(1, 1, 1, 1), zeros=0.0)
    network = QuantizedNetwork(input=source, layers=(layer,))
    planned = plan(network, SMALL)
    assert {"acc_width", "row_depth", "map_bits", "act_depth"} <= set(planned.needs)
    assert (planned.needs["map_bits"], planned.needs["row_depth"] >= 512) == (4, True)
    assert figures(planned) == figures(compile_detailed(network, SMALL.replace(**planned.needs)))


def test_a_model_memory_of_many_banks_has_its_latency(rng: np.random.Generator) -> None:
    source = tensor("input", 400, 1, 1)
    network = QuantizedNetwork(input=source, layers=(linear(rng, source, "fc", features=200, zeros=0.0),))
    config = AcceleratorConfig(weight_depth=4096, acc_width=32)
    planned = plan(network, config)
    assert planned.words > 16384
    assert figures(planned) == figures(compile_detailed(network, config.replace(weight_depth=planned.words)))
    assert [layer.name for layer in planned.external] == ["fc"]
    assert planned.weight_bytes == planned.external[0].bytes == 2 * (planned.words - HEADER_WORDS)


def test_layers_that_need_the_most_bytes_a_cycle_stay_on_the_chip(rng: np.random.Generator) -> None:
    source = tensor("input", 8, 8, 8)
    one = conv(rng, source, "one", channels=32, kernel=(3, 3), padding=(1, 1, 1, 1))
    two = conv(rng, one.target, "two", channels=32, kernel=(3, 3), padding=(1, 1, 1, 1))
    three = linear(rng, two.target, "three", features=4)
    network = QuantizedNetwork(input=source, layers=(one, two, three))
    config = AcceleratorConfig(acc_width=32, act_depth=4096, row_depth=8192)
    whole = plan(network, config.replace(weight_depth=65536))
    assert whole.fits and not whole.external and whole.weight_rate == 0
    words = {layer.name: layer.bytes // 2 for layer in whole.layers}
    rate = {layer.name: layer.bytes / layer.cycles.total for layer in whole.layers}
    assert rate["three"] > 2 * max(rate["one"], rate["two"]) and rate["one"] != rate["two"]

    def outside(free: int) -> Plan:
        return plan(network, config.replace(weight_depth=HEADER_WORDS + free))

    assert [layer.name for layer in outside(words["three"]).external] == ["one", "two"]
    found = outside(words["three"] - 1)  # the next ones may still find place
    assert "three" in [layer.name for layer in found.external]
    assert found.weight_rate == pytest.approx(rate["three"], rel=0.01)  # the memory's latency is another
    found = outside(words["three"] + max(words["one"], words["two"]))
    slower = min("one", "two", key=lambda name: rate[name])
    assert [layer.name for layer in found.external] == [slower]
    assert found.weight_bytes == 2 * words[slower]
    assert found.weight_rate == pytest.approx(rate[slower], rel=0.01)


def test_positions_of_a_kernel_are_told_as_well(rng: np.random.Generator) -> None:
    source = tensor("input", 2, 13, 13)
    layer = pool(rng, source, "all", op="avgpool", kernel=(13, 13))
    network = QuantizedNetwork(input=source, layers=(layer,))
    planned = plan(network, AcceleratorConfig())
    assert planned.needs == {"positions": 169}
    assert figures(planned) == figures(compile_detailed(network, AcceleratorConfig(positions=169)))
    with pytest.raises(CapacityError, match="169 positions, more than the accelerator's 168"):
        compile_detailed(network, AcceleratorConfig(positions=168))


def test_beyond_what_an_accelerator_can_have(rng: np.random.Generator) -> None:
    source = tensor("input", 1, 224, 224)
    one = conv(rng, source, "one", channels=8, kernel=(3, 3), padding=(1, 1, 1, 1))
    two = pool(rng, one.target, "two")
    network = QuantizedNetwork(input=source, layers=(one, two))
    planned = plan(network, AcceleratorConfig(lanes_y=1, lanes_x=1))
    pixels = 224 * 224
    assert planned.memory.peak == planned.needs["act_depth"] == pixels * 8 + pixels // 4 * 8
    assert planned.peak_layer == "two"
    # No map fits 2,048 bytes: the input is written and read, so is the first one's map; the last one's is written.
    assert planned.map_bytes == 2 * pixels + 2 * 8 * pixels + 8 * pixels // 4
    wide = AcceleratorConfig(lanes_y=4, lanes_x=4, act_depth=65536)
    assert figures(plan(network, wide)) == figures(compile_detailed(network, wide))
    # The banks hold the input and the last map, but not the one between.
    some = plan(network, AcceleratorConfig(lanes_y=4, lanes_x=4, act_depth=2 * pixels // 16))
    assert some.map_bytes == 2 * 8 * pixels


def test_work_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """All boards of one shape are proven and assembled once; weights are encoded once for each code."""
    calls: dict[str, list[Any]] = {"prepare": [], "assemble": [], "encode_weights": []}
    for name, made in calls.items():
        original = getattr(planning, name)
        monkeypatch.setattr(planning, name, lambda *arguments, made=made, original=original:
                            made.append(arguments) or original(*arguments))
    network = random_network(1, AcceleratorConfig(act_depth=4096))
    configs = {name: get(name).config for name in names() if get(name).config.name == "4x4x1"}
    plans(network, configs)
    assert len(configs) > 5
    assert len(calls["prepare"]) == 1
    assert len(calls["assemble"]) == 2  # a model memory of one bank, and of several
    weighted = [tuple(id(each) for each in group) for group, _ in calls["encode_weights"]
                if all(each.taps is not None for each in group)]
    assert len(set(weighted)) == len(weighted)


def test_another_arithmetic_is_no_plan() -> None:
    network = random_network(1, AcceleratorConfig(act_depth=4096))
    with pytest.raises(ModelError, match="products that lose 0 low bits"):
        plan(network, AcceleratorConfig(guard_bits=0))
    found = plans(network, {"exact": AcceleratorConfig(), "literal": AcceleratorConfig(guard_bits=0)})
    assert isinstance(found["exact"], Plan) and isinstance(found["literal"], ModelError)


@pytest.fixture
def large(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Too large for every board, and with 8-bit activations."""
    source = tensor("input", 3, 100, 100)
    one = conv(rng, source, "one", channels=64, kernel=(1, 1))
    two = conv(rng, one.target, "two", channels=4, kernel=(1, 1), raw=True)
    path = tmp_path / "large.swc"
    QuantizedNetwork(input=source, layers=(one, two)).save(path)
    return path


def test_command(shiftwright: Callable[..., Any], large: Path) -> None:
    done = shiftwright("plan", large, "--json")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)["boards"]
    assert set(result) == set(names())
    assert not result["icebreaker-4bit"]["runs"] and "act_bits of 4" in result["icebreaker-4bit"]["reason"]
    row, config = result["ulx3s-85f"], get("ulx3s-85f").config
    needed = 3 * 625 + 64 * 625
    assert row == {
        "runs": True, "lanes": "4x4x1", "mhz": 75.0, "fits": False,
        "activation_kib": round(row["needs"]["act_depth"] / 64, 1),
        "activation_kib_available": 64.0, "model_kib": row["model_kib"], "model_kib_available": 128.0,
        "predicted_cycles": row["predicted_cycles"], "ms": round(row["predicted_cycles"] / 75e3, 3),
        "weights_mb_s": 0.0, "weights_most_mb_s": 0.0, "external_layers": 0,
        "maps_mb_s": row["maps_mb_s"], "peak_layer": "two",
        "needs": {"act_depth": row["needs"]["act_depth"]}}
    assert row["needs"]["act_depth"] > needed
    compiled = compile_detailed(QuantizedNetwork.load(large), config.replace(act_depth=row["needs"]["act_depth"]))
    assert (row["predicted_cycles"], row["needs"]["act_depth"]) == (compiled.cycles, compiled.peak)
    assert row["maps_mb_s"] == pytest.approx(2 * 64 * 10000 / row["ms"] / 1e3, rel=0.5)


def test_command_for_people(shiftwright: Callable[..., Any], large: Path) -> None:
    done = shiftwright("plan", large, "--board", "ulx3s-85f", "--board", "icebreaker-4bit")
    assert done.code == 0 and "icebreaker-4bit can't run it: layer one" in done.out
    assert "ulx3s" in done.out and "tang" not in done.out and "on-chip" not in done.out


def test_command_tells_where_each_layer_is(shiftwright: Callable[..., Any], tmp_path: Path, rng: np.random.Generator,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # which tests in parallel have
    source = tensor("input", 400, 1, 1)
    one = linear(rng, source, "one", features=200, zeros=0.0, raw=False)
    two = linear(rng, one.target, "two", features=10, zeros=0.0)
    path = tmp_path / "fc.swc"
    QuantizedNetwork(input=source, layers=(one, two)).save(path)
    done = shiftwright("plan", path, "--board", "ulx3s-25f", "--layers", "--json")
    (row,) = json.loads(done.out)["boards"].values()
    assert [(layer["layer"], layer["placed"]) for layer in row["layers"]] == [("one", "external"), ("two", "on-chip")]
    assert row["external_layers"] == 1 and 0 < row["weights_mb_s"] <= row["weights_most_mb_s"]
    assert row["weights_most_mb_s"] == pytest.approx(row["layers"][0]["mb_s"], abs=0.06)
    done = shiftwright("plan", path, "--board", "ulx3s-25f", "--layers")
    assert "external" in done.out and "on-chip" in done.out and max(map(len, done.out.splitlines())) > 80


@pytest.mark.parametrize(("arguments", "message"), [
    (["{large}", "--board", "icebreaker-4bit"], "icebreaker-4bit: layer one: its input"),
    (["{large}", "--board", "atlas"], "the board must be one of"), (["{large}.not"], "can't read"),
    ([], "Missing argument")])
def test_wrong_input_ends_with_2(shiftwright: Callable[..., Any], large: Path, arguments: list[str],
                                 message: str) -> None:
    done = shiftwright("plan", *(argument.format(large=large) for argument in arguments))
    assert done.code == 2 and message in done.err and "Traceback" not in done.err


def test_a_refusal_of_compile_names_the_ways_out(shiftwright: Callable[..., Any], large: Path) -> None:
    done = shiftwright("compile", large, "--board", "ulx3s-85f")
    text = " ".join(done.err.split())
    assert done.code == 2 and "layer two: activation memory" in text and "are missing at this layer, the peak" in text
    assert "an activation takes an address whatever its bits" in text and "'shiftwright plan' tells" in text
    wide = compile_detailed(QuantizedNetwork.load(large), AcceleratorConfig(act_depth=65536))
    assert f"must hold {wide.peak} activations" in text and f"but has 4096; raise act_depth to {wide.peak}" in text
