"""Searches for a size, a time or an accuracy: what is tried, what is chosen, what is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError, ModelError
from shiftwright.sw import train
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compress.measure import MEMORIES
from shiftwright.sw.compress.recipe import RECIPE_NAMES, Knob, Recipe, load_recipe, recipe_class
from shiftwright.sw.compress.targets import Found, Measured, Target, Try, find, parse_size
from shiftwright.sw.network import QuantizedNetwork
from tests.sw.compress.recipes import SEED, digits_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("text", "size"), [
    ("12000", 12000), ("12KB", 12000), ("12 kb", 12000), ("11.5KiB", 11776), ("1.5MB", 1_500_000), ("20x", 2000),
    ("2.5X", 16000), ("900b", 900)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, 10_000) == size


@pytest.mark.parametrize("text", ["", "x", "12QB", "-3", "0", "0x", "1e3", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ModelError, match="must be bytes, as 12000, 12KB or 11.5KiB, or a ratio, as 20x"):
        parse_size(text, 10_000)


@pytest.mark.parametrize(("knob", "values"), [
    (Knob("a", 0.0, 1.0), [0, 0.5, 1]), (Knob("a", 1.0, 0.01, "log"), [1, 0.1, 0.01]),
    (Knob("a", 0.0, 0.99, "rest"), [0, 0.9, 0.99]), (Knob("a", 8, 2), [8, 5, 2])])
def test_knobs(knob: Knob, values: list[float]) -> None:
    found = [knob.at(position) for position in (0, 0.5, 1)]
    assert found == pytest.approx(values)
    assert all(isinstance(value, type(knob.gentle)) for value in found)


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_the_knobs_of_recipes_are_in_range(name: str) -> None:
    knob = recipe_class(name).knob
    if knob is not None:
        for position in (0, 0.3, 1):
            load_recipe(name).replace(**{knob.option: knob.at(position)})


class Fake(Recipe):
    """A recipe of which networks are known beforehand: bytes, cycles and accuracy fall with the knob."""

    name: ClassVar[str] = "fake"
    knob: ClassVar[Knob | None] = Knob("size", 10_000.0, 100.0, "log")


def search(target: Target, *, tries: int = 6, short: bool = True, gain: float = 0.01,
           fails: Callable[[float], Exception | None] = lambda value: None) -> Found:
    def run(number: int, value: float, full: bool) -> tuple[QuantizedNetwork, Measured]:
        if (error := fails(value)) is not None:
            raise error
        accuracy = 1 - 20 / value + (gain if full else 0)
        return cast(QuantizedNetwork, (value, full)), Measured(bytes=int(value), cycles=int(3 * value),
                                                               accuracy=accuracy)

    return find(run, Fake, target, tries=tries, short=short)


def test_a_size_is_met_closely_by_a_full_run() -> None:
    found = search(Target(size=1000))
    measured = found.best.measured
    assert measured is not None and 900 <= measured.bytes <= 1000
    assert found.best.full and found.best.met and found.network == (found.best.value, True)
    assert len(found.tries) <= 6 + 1 + 3 and [tried.number for tried in found.tries] == list(
        range(1, len(found.tries) + 1))


def test_cycles_are_met() -> None:
    measured = search(Target(cycles=900)).best.measured
    assert measured is not None and 250 <= measured.bytes <= 300


def test_the_stricter_of_two_limits_counts() -> None:
    measured = search(Target(size=5000, cycles=900)).best.measured
    assert measured is not None and 250 <= measured.bytes <= 300


def test_an_accuracy_is_met_by_a_small_network() -> None:
    # Short runs reach 0.9 with 200 bytes, full ones with 182.
    measured = search(Target(accuracy=0.9)).best.measured
    assert measured is not None and measured.accuracy >= 0.9 and measured.bytes <= 215


def test_without_training_there_are_no_full_runs_besides() -> None:
    found = search(Target(accuracy=0.9), short=False)
    assert all(tried.full for tried in found.tries) and len(found.tries) <= 7


def test_a_target_that_nothing_meets_tells_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no network meets the target \(at most 50 bytes\) in \d+ tries; the nearest "
                                         r"one is size = 100.0: 100 bytes, 300 cycles, accuracy 0.8"):
        search(Target(size=50))
    with pytest.raises(ModelError, match="accuracy at least 0.9999.*the nearest one is size = 10000.0"):
        search(Target(accuracy=0.9999), gain=0)
    with pytest.raises(ModelError, match=r"the nearest one is size = \d+"):
        search(Target(size=150, accuracy=0.95))


def test_failures_lead_away_from_themselves() -> None:
    found = search(Target(size=1000), fails=lambda value: ModelError("no weights") if value < 700 else None)
    assert found.best.measured is not None and found.best.measured.bytes <= 1000
    found = search(Target(size=1000), fails=lambda value: CapacityError("no room") if value > 1500 else None)
    assert found.best.measured is not None and found.best.measured.bytes <= 1000
    assert any(tried.error == "too large: no room" and tried.measured is None for tried in found.tries)
    with pytest.raises(ModelError, match="none made a network: nothing"):
        search(Target(size=1000), fails=lambda value: ModelError("nothing"))


def test_integers_are_not_tried_twice() -> None:
    class Bits(Fake):
        knob: ClassVar[Knob | None] = Knob("bits", 8, 2)

    made: list[float] = []

    def run(number: int, value: float, full: bool) -> tuple[QuantizedNetwork, Measured]:
        made.append(value)
        return cast(QuantizedNetwork, value), Measured(bytes=int(100 * value), cycles=1, accuracy=1 - 1 / value)

    found = find(run, Bits, Target(size=500), tries=10, short=False)
    assert found.network == 5 and len(made) == len(set(made)) <= 5  # type: ignore[comparison-overlap]


def test_a_recipe_without_a_knob() -> None:
    class Plain(Fake):
        knob: ClassVar[Knob | None] = None

    with pytest.raises(ModelError, match="recipe fake has no option that a search for a target could turn"):
        find(lambda *_: pytest.fail("must not run"), Plain, Target(size=3), tries=3, short=False)


def test_other_errors_end_the_search() -> None:
    with pytest.raises(ZeroDivisionError):
        search(Target(size=1000), fails=lambda value: ZeroDivisionError())


def test_a_try_tells_its_error() -> None:
    tried = Try(number=2, value=0.5, full=False, measured=None, error="why", met=False, seconds=1.25)
    assert tried.to_dict() == {"try": 2, "value": 0.5, "full": False, "met": False, "error": "why", "seconds": 1.2}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "digits.safetensors"
    train.save_checkpoint(path, train.Checkpoint(digits_network(), "digits", "digits", 0.9, 10, SEED, 3890))
    return path


def test_the_command_writes_a_network_of_the_size(source: Path, tmp_path: Path,
                                                  shiftwright: Callable[..., Any]) -> None:
    path, state = tmp_path / "d.swc", tmp_path / "d.state"
    command = ("compress", source, "--recipe", "bqnet", "--set", "epochs=4", "--target-size", "9.5x", "--tries", 3,
               "--checkpoint", state, "-o", path, "--json")
    result = shiftwright(*command)
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    network = QuantizedNetwork.load(path)
    size = compile_detailed(network, AcceleratorConfig(**MEMORIES)).size  # type: ignore[arg-type]
    assert size == shown["bytes"] <= 4 * 3890 / 9.5
    assert network.metadata["options"]["prune"] == shown["prune"]
    assert shown["accuracy"] == pytest.approx(network.metadata["accuracy"], abs=1e-6)
    assert [tried["full"] for tried in shown["tries"]][:3] == [False] * 3
    assert f"try 1 (1 epochs): prune = {shown['tries'][0]['value']}" in result.err
    states = sorted(each.name for each in tmp_path.glob("d.state.*"))
    assert len(states) == len(shown["tries"])
    before = path.read_bytes()
    again = json.loads(shiftwright(*command).out)
    assert path.read_bytes() == before
    assert sum(tried["seconds"] for tried in again["tries"]) < sum(tried["seconds"] for tried in shown["tries"])


def test_the_command_without_training(source: Path, tmp_path: Path, shiftwright: Callable[..., Any]) -> None:
    result = shiftwright("compress", source, "--recipe", "ptq", "--set", "calibration_images=200", "--target-accuracy",
                         0.95, "--tries", 3, "-o", tmp_path / "d.swc", "--json")
    assert result.code == 0, result.err
    shown = json.loads(result.out)
    assert shown["validation_accuracy"] >= 0.95 and shown["target"] == "accuracy at least 0.9500"


@pytest.mark.parametrize(("arguments", "message"), [
    (["--target-size", "small"], "target size 'small' must be bytes, as 12000"),
    (["--target-size", "90b", "--set", "epochs=0", "--tries", "2"], "no network meets the target (at most 90 bytes)"),
    (["--target-accuracy", "98"], "98"),
    (["--recipe", "best", "--set", "target_size=900", "--target-size", "800"],
     "recipe best: target_size = 900 is a target of its own"),
])
def test_targets_that_are_refused(source: Path, tmp_path: Path, shiftwright: Callable[..., Any], arguments: list[str],
                                  message: str) -> None:
    result = shiftwright("compress", source, *arguments, "-o", tmp_path / "x.swc")
    assert result.code == 2 and message in result.err and "Traceback" not in result.err
    assert not (tmp_path / "x.swc").exists()
