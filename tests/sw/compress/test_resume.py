"""A run that was interrupted goes on from its checkpoint, to the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from shiftwright.hw.arch.errors import ModelError, ToolError
from shiftwright.sw import train
from shiftwright.sw.compress import api, compress, snapshot
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.recipe import RECIPE_NAMES, Recipe, load_recipe, recipe_class
from shiftwright.sw.compress.session import Session, current, torch_device
from shiftwright.sw.compress.training import _making_tensors_on, augmented
from tests.sw.compress.recipes import SEED, digits, digits_network, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


class Stopped(Exception):
    """In place of an interruption."""


def run(recipe: Recipe, path: Path, *, checkpoint: Path | None = None, stop: int = 0, model: nn.Module | None = None,
        seed: int = SEED, images: int = 100) -> int:
    """Compress, save, and tell the epochs that it took; stop after so many."""
    seen = 0

    def show(epoch: int, epochs: int, loss: float) -> None:
        nonlocal seen
        seen += 1
        if seen == stop:
            raise Stopped

    compress(model or small_network(), recipe, digits(images), seed=seed, progress=show,
             checkpoint=checkpoint).save(path)
    return seen


@pytest.mark.parametrize(("name", "settings"), [
    *((name, []) for name in RECIPE_NAMES if recipe_class(name).trains),
    pytest.param("best", ["start=ptq", "target_size=1400", "terms=2", "span=5", "learning_rate=0.01"],
                 marks=pytest.mark.regress),
    ("best", ["start=ptq", "target_size=1400", "terms=2", "span=5", "epochs=1", "sparse_epochs=3"])])
def test_every_recipe_goes_on_to_the_same_bits(name: str, settings: list[str], tmp_path: Path) -> None:
    recipe = load_recipe(name, settings=["epochs=4", "batch=64", *settings])
    whole = run(recipe, tmp_path / "whole", model=digits_network())
    for stop in (1, 3) if name == "slq" else (3,):
        checkpoint = tmp_path / f"{stop}.state"
        with pytest.raises(Stopped):
            run(recipe, tmp_path / "none", checkpoint=checkpoint, stop=stop, model=digits_network())
        assert run(recipe, tmp_path / "rest", checkpoint=checkpoint, model=digits_network()) == whole - stop
        assert (tmp_path / "rest").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    recipe, checkpoint = BQNet(epochs=3, prune=0.5), tmp_path / "a.state"
    assert run(recipe, tmp_path / "a", checkpoint=checkpoint) == 3
    assert run(recipe, tmp_path / "b", checkpoint=checkpoint) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("change", "message"), [
    ({"recipe": BQNet(epochs=2, levels=3)}, "is the checkpoint of a run with other options; name another file"),
    ({"recipe": load_recipe("inq", settings=["epochs=2"])}, "is the checkpoint of a run with recipe bqnet, not inq"),
    ({"seed": SEED + 1}, f"is the checkpoint of a run with seed {SEED}, not {SEED + 1}"),
    ({"images": 99}, "is the checkpoint of a run with other images"),
    ({"model": "other"}, "is the checkpoint of a run with other network"),
])
def test_a_checkpoint_of_another_run(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    recipe, checkpoint = BQNet(epochs=2), tmp_path / "a.state"
    run(recipe, tmp_path / "a", checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    if "model" in change:
        model = small_network()
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)
        change = {"model": model}
    with pytest.raises(ModelError, match=message):
        run(**{"recipe": recipe, "path": tmp_path / "b", "checkpoint": checkpoint, **change})
    assert checkpoint.read_bytes() == before


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.state"
    for content, message in ((b"", "not a checkpoint of 'shiftwright compress', or damaged"),
                             (b"x" * 100, "not a checkpoint of 'shiftwright compress', or damaged")):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=message):
            run(BQNet(epochs=1), tmp_path / "b", checkpoint=path)
    network = tmp_path / "n.swc"
    run(BQNet(epochs=0), network)
    with pytest.raises(ModelError, match="is a safetensors file but no checkpoint"):
        run(BQNet(epochs=1), tmp_path / "b", checkpoint=network)
    path.unlink()
    run(BQNet(epochs=2), tmp_path / "a", checkpoint=path)
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    with pytest.raises(ModelError, match="or damaged"):
        run(BQNet(epochs=2), tmp_path / "b", checkpoint=path)


def test_the_command_tells_how_to_go_on(tmp_path: Path, shiftwright: Callable[..., Any],
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    source, state = tmp_path / "d.safetensors", tmp_path / "d.state"
    train.save_checkpoint(source, train.Checkpoint(digits_network(), "digits", "digits", 0.9, 10, SEED, 3890))
    command = ("compress", source, "--set", "epochs=2", "--device", "cpu")
    whole = shiftwright(*command, "-o", tmp_path / "whole.swc", "--json")
    real = api.compress

    def interrupted(*arguments: Any, progress: Any, **options: Any) -> Any:
        def show(*shown: Any) -> None:
            raise KeyboardInterrupt

        return real(*arguments, progress=show, **options)

    monkeypatch.setattr(api, "compress", interrupted)
    result = shiftwright(*command, "--checkpoint", state, "-o", tmp_path / "d.swc")
    assert result.code == 130
    assert f"{state} holds what is done; give the same command again to go on" in result.err
    monkeypatch.setattr(api, "compress", real)
    result = shiftwright(*command, "--checkpoint", state, "-o", tmp_path / "d.swc", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["accuracy"] == json.loads(whole.out)["accuracy"]
    assert (tmp_path / "d.swc").read_bytes() == (tmp_path / "whole.swc").read_bytes()


def test_states_of_all_kinds_come_back() -> None:
    shared = torch.arange(3.0)
    linear = nn.Linear(2, 2)

    def state() -> dict[str, Any]:
        return {"a": 1, "b": None, "c": [shared, (shared, 2.5, "x")], "d": {1: torch.tensor(True), "e": {"f", "g"}},
                "module": linear, "optimizer": torch.optim.Adam(linear.parameters()),
                "torch": torch.Generator().manual_seed(3), "numpy": np.random.default_rng(4), "array": np.arange(4)}

    there = state()
    there["torch"].manual_seed(9)
    there["numpy"].random(5)
    tree, tensors = snapshot.take(there)
    expected = there["numpy"].random(), torch.rand(1, generator=there["torch"]), linear.weight.detach().clone()
    with torch.no_grad():
        linear.weight.zero_()
    back = snapshot.restore(state(), json.loads(json.dumps(tree)), tensors)
    assert back["numpy"].random() == expected[0]
    assert torch.equal(torch.rand(1, generator=back["torch"]), expected[1])
    assert torch.equal(linear.weight, expected[2])
    assert back["c"][0] is back["c"][1][0] and torch.equal(back["c"][0], shared)
    assert back["d"][1].dtype == torch.bool and back["d"]["e"] == {"f", "g"} and back["a"] == 1 and back["b"] is None
    assert np.array_equal(back["array"], np.arange(4))


def test_a_state_that_is_not_known() -> None:
    with pytest.raises(TypeError, match=r"state\['x'\]\[1\] is a list_iterator, whose state is not"):
        snapshot.take({"x": [1, iter([2])]})


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto") == torch_device("cpu") == torch.device("cpu")
    with pytest.raises(ToolError, match="device cuda: PyTorch sees no GPU"):
        torch_device("cuda")
    with pytest.raises(ModelError, match="device must be one of auto, cpu, cuda, not 'tpu'"):
        torch_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert torch_device("auto") == torch_device("cuda") == torch.device("cuda")
    assert torch_device("cpu") == torch.device("cpu")


def test_the_session_of_a_run_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current().checkpoint is None and current().device == torch.device("cpu")
    session = Session(torch.device("cpu"))
    with session.active():
        assert current() is session
    assert current() is not session


def test_a_training_moves_to_its_device_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[tuple[str, str]] = []
    real = nn.Module.to

    def to(self: nn.Module, device: Any) -> nn.Module:
        moves.append((type(self).__name__, str(device)))
        return real(self, device)

    monkeypatch.setattr(nn.Module, "to", to)
    compress(small_network(), BQNet(epochs=1), digits(40))
    assert moves == [("FakeQuantized", "cpu"), ("Small", "cpu")] * 2


def test_new_tensors_of_a_training_are_on_its_device() -> None:
    device, host = torch.device("meta"), torch.device("cpu")  # stands for a GPU
    with _making_tensors_on(device, device):
        assert torch.zeros(2).device == device
        with _making_tensors_on(host, device):
            x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
            moved = augmented(x, BQNet(shift=2, flip=True), torch.Generator().manual_seed(2))
    assert x.device == moved.device == host
    assert torch.equal(moved, augmented(x, BQNet(shift=2, flip=True), torch.Generator().manual_seed(2)))
    with _making_tensors_on(host, host):
        assert torch.zeros(2).device == host
