"""Recipes: options, TOML files, settings, and what is refused."""

from pathlib import Path

import pytest

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sw.compress.bqnet import BQNet, LevelSet
from shiftwright.sw.compress.recipe import load_recipe, recipe_class

REPOSITORY = Path(__file__).parents[3]


def test_registry() -> None:
    assert load_recipe("bqnet") == BQNet()
    assert recipe_class("bqnet") is BQNet


@pytest.mark.parametrize("text", [
    'name = "bqnet"\nlevels = 3\nlearning_rate = 1',
    '[recipe]\nname = "bqnet"\nlevels = 3\nlearning_rate = 1.0\n[other]\nx = 1'])
def test_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    assert load_recipe(file=path) == load_recipe("bqnet", file=path) == BQNet(levels=3, learning_rate=1.0)


def test_settings_win_and_reach_into_tables(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('name = "bqnet"\nlevels = 3\n[layers.conv1]\nlevels = 4\n')
    recipe = load_recipe(file=path, settings=[
        "levels=1", "zero = false", "calibration=percentile", "layers.conv1.zero=true", "layers.block.0.conv.levels=5",
        "guard_bits=0"])
    assert recipe == BQNet(levels=1, zero=False, calibration="percentile", guard_bits=0, layers={
        "conv1": {"levels": 4, "zero": True}, "block.0.conv": {"levels": 5}})
    assert isinstance(recipe, BQNet)
    assert recipe.level_set("conv1") == LevelSet(4, True, -8, 16)
    assert recipe.level_set("fc") == LevelSet(1, False, -8, 16)


def test_the_longest_path_wins() -> None:
    recipe = BQNet(layers={"block.1.conv": {"prune": 0.5}, "block": {"prune": 0.2, "levels": 4},
                           "blocks": {"levels": 5}})
    assert recipe.level_set("block.1.conv") == LevelSet(4, True, -8, 16, 0.5)
    assert recipe.level_set("block.10.conv") == LevelSet(4, True, -8, 16, 0.2)
    assert recipe.level_set("blocks") == LevelSet(5, True, -8, 16)
    assert recipe.level_set("blocksmith") == LevelSet(2, True, -8, 16)


def test_round_trip() -> None:
    recipe = BQNet(levels=4, layers={"fc": {"levels": 1}})
    assert "guard_bits" not in recipe.to_dict()
    assert BQNet.from_dict(recipe.to_dict()) == recipe
    assert recipe.replace(guard_bits=0).guard == 0
    assert recipe.guard == 7


@pytest.mark.parametrize(("images", "epochs"), [(60_000, 6), (1_437, 40), (1_000_000, 4)])
def test_chosen_epochs(images: int, epochs: int) -> None:
    assert BQNet().epochs_for(images) == epochs
    assert BQNet(epochs=0).epochs_for(images) == 0


@pytest.mark.parametrize(("options", "message"), [
    ({"levels": 0}, "recipe bqnet: levels must be an integer from 1 to 8, not 0"),
    ({"levels": 9}, "levels must be an integer from 1 to 8, not 9"),
    ({"levels": True}, "levels must be an integer from 1 to 8, not True"),
    ({"levels": 2.0}, "levels must be an integer from 1 to 8, not 2.0"),
    ({"zero": 1}, "zero must be true or false, not 1"),
    ({"act_bits": 9}, "act_bits must be an integer from 2 to 8, not 9"),
    ({"max_shift": 16}, "max_shift must be an integer from 0 to 15, not 16"),
    ({"guard_bits": 8}, "guard_bits must be an integer from 0 to 7, not 8"),
    ({"learning_rate": "fast"}, "learning_rate must be a number from 0 to 1000.0, not 'fast'"),
    ({"epochs": -1}, "epochs must be an integer from 0"),
    ({"prune": 1}, "prune must be a number from 0 to 0.999, not 1"),
    ({"prune": -0.1}, "prune must be a number from 0 to 0.999, not -0.1"),
    ({"layers": {"fc": {"prune": "half"}}}, "layers.fc: prune must be a number from 0 to 0.999, not 'half'"),
    ({"flip": 1}, "flip must be true or false, not 1"),
    ({"distill": 1.5}, "distill must be a number from 0 to 1, not 1.5"),
    ({"calibration": "best"}, "calibration must be one of mse, minmax, percentile, not 'best'"),
    ({"k_min": 3, "k_max": 4, "levels": 3}, "k from 3 to 4 has no room for 3 levels"),
    ({"level": 3}, r"recipe bqnet has no option 'level'; did you mean 'levels'\?; it has levels, zero"),
    ({"layers": {"fc": {"levels": 0}}}, "layers.fc: levels must be an integer"),
    ({"layers": {"fc": {"epochs": 3}}}, "layers.fc has no option 'epochs'"),
    ({"layers": {"fc": 3}}, "layers.fc must be a table, not 3"),
    ({"layers": 3}, "layers must be a table, not 3"),
], ids=str)
def test_options_that_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        BQNet.from_dict(options)


@pytest.mark.parametrize(("text", "name", "message"), [
    ("levels = ", "bqnet", "r.toml: not a TOML file"),
    ('name = "other"', None, "r.toml: unknown recipe 'other'; known are bqnet"),
    ('name = "other"', "bqnet", "r.toml: is for recipe 'other', not 'bqnet'"),
    ("levels = 2", None, "the recipe's name is missing"),
    ("recipe = 3", "bqnet", "'recipe' must be a table, not 3"),
    ("[recipe]\nlevel = 2", "bqnet", r"r.toml, table recipe: recipe bqnet has no option 'level'; did you mean 'level"),
    ("[layers.fc]\nlevls = 2", "bqnet", r"r.toml: recipe bqnet: layers.fc has no option 'levls'; did you mean 'level"),
    ('name = "bqnett"', None, r"r.toml: unknown recipe 'bqnett'; did you mean 'bqnet'\?; known are"),
    ("name = 3", None, "the recipe's name is missing")])
def test_files_that_are_refused(tmp_path: Path, text: str, name: str | None, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        load_recipe(name, file=path)


@pytest.mark.parametrize(("setting", "message"), [
    ("levels", "must have the form option=value"), ("=3", "must have the form"),
    ("levels=many", "levels must be an integer"),
    ("levels.fc=3", "no option|must be")])
def test_settings_that_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_recipe("bqnet", settings=[setting])


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't read the recipe"):
        load_recipe("bqnet", file=tmp_path / "none.toml")
    with pytest.raises(ModelError, match="unknown recipe 'magic'; known are bqnet"):
        load_recipe("magic")


@pytest.mark.parametrize("path", sorted((REPOSITORY / "examples").glob("bqnet*.toml")), ids=lambda path: path.stem)
def test_the_examples_load(path: Path) -> None:
    assert isinstance(load_recipe(file=path), BQNet)
