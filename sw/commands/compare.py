"""``shiftwright compare``: several recipes on one network, side by side."""

import csv
import dataclasses
import io
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...hw.arch.errors import ModelError, ShiftwrightError
from ._compress import common_options, image_of, inputs, progress_bar
from ._describe import configuration, emit_with_layers

if TYPE_CHECKING:
    from ..compress.recipe import Recipe

COLUMNS = ("name", "accuracy", "bytes", "ratio", "cycles", "seconds", "error")


@click.command("compare", short_help="Run several recipes on one network, and plot them.")
@click.argument("source", metavar="NETWORK")
@click.option("--recipes", metavar="A,B,...", help="Recipes with their default options.")
@click.option("--recipe-file", "files", type=click.Path(dir_okay=False, path_type=Path), multiple=True,
              help="TOML file of a recipe's options; may be given again.")
@click.option("--set", "settings", metavar="OPTION=VALUE", multiple=True,
              help="One option of all recipes, or RECIPE:OPTION=VALUE of those of one name; may be given again.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, metavar="DIR",
              help="Folder for the networks, compare.json, compare.csv and compare.svg.")
@click.option("--board", metavar="NAME", help="Size and cycles on a board's accelerator.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Size and cycles on the accelerator that this file describes. Default: one that holds any network.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where it trains; auto takes a GPU if there is one.")
@common_options
@click.pass_context
def command(ctx: click.Context, source: str, recipes: str | None, files: tuple[Path, ...], settings: tuple[str, ...],
            output: Path, board: str | None, config: Path | None, device: str, data: str | None, data_dir: Path | None,
            threads: int | None) -> None:
    """Run several recipes on NETWORK, and write their networks, a table and a plot.

    NETWORK is what 'shiftwright compress' takes. The accuracy is that of the integer network on the test split, bytes
    are those of the whole image, cycles the predicted ones of one inference. A recipe that fails is a line with its
    error; the others go on. The plot shows accuracy against bytes and against cycles.

    \b
    Examples:
        shiftwright compare lenet5.safetensors --recipes bqnet,inq,slq,ptq -o out/lenet5
        shiftwright compare digits.safetensors --recipes bqnet,best --set epochs=10 --set best:keep=0.2 -o out/digits
        shiftwright compare lenet5.safetensors --recipe-file examples/best-lenet5.toml --recipes ptq -o out/l5
    """
    from ...hw.arch.files import write_atomically
    from ...sim import golden
    from .. import train
    from ..compress.api import compress

    seed = int((ctx.obj or {}).get("seed", 0))
    chosen = _recipes(recipes, files, settings)
    target = configuration(board, config) if board or config else None
    loaded, name, (train_data, test_data) = inputs(source, data, data_dir, threads, "train", "test")
    float_accuracy = train.accuracy(loaded.model, test_data)
    rows: list[dict[str, Any]] = []
    for label, recipe in chosen.items():
        start = time.perf_counter()
        row: dict[str, Any] = {"name": label, "recipe": recipe.name}
        try:
            with progress_bar(f"{label} ({len(rows) + 1} of {len(chosen)})") as show:
                network = compress(loaded.model, recipe, train_data, input_shape=loaded.input_shape, seed=seed,
                                   progress=show, device=device)
            seconds = time.perf_counter() - start
            size, cycles = image_of(network, recipe, target)
            accuracy = golden.accuracy(network, test_data)
            dataclasses.replace(network, metadata={
                **network.metadata, "network": loaded.metadata["network"], "test_images": len(test_data),
                "float_accuracy": float_accuracy, "accuracy": accuracy}).save(output / f"{label}.swc")
            row |= {"accuracy": round(accuracy, 6), "bytes": size, "ratio": round(4 * network.parameters / size, 2),
                    "cycles": cycles, "seconds": round(seconds, 1), "options": recipe.to_dict()}
        except ShiftwrightError as error:
            row["error"] = str(error)
        rows.append(row)
    result = {"network": loaded.metadata["network"], "dataset": name, "float_accuracy": round(float_accuracy, 6),
              "test_images": len(test_data), "seed": seed, "folder": str(output)}
    write_atomically(output / "compare.json", (json.dumps({**result, "recipes": rows}, indent=2, default=str) + "\n")
                     .encode(), ModelError)
    write_atomically(output / "compare.csv", _csv(rows).encode(), ModelError)
    made = [row for row in rows if "error" not in row]
    if made:
        from ..report.plot import accuracy_plot

        write_atomically(output / "compare.svg", accuracy_plot(made, float_accuracy, result["network"]), ModelError)
    json_wanted = bool((ctx.obj or {}).get("json"))
    emit_with_layers(result, rows if json_wanted else [_shown(row) for row in rows], key="recipes",
                     title="shiftwright compare", layers_title="Recipes")
    if len(made) < len(rows):
        failed = [row for row in rows if "error" in row]
        raise ModelError(f"{len(failed)} of {len(rows)} recipes failed; the first: {failed[0]['name']}: "
                         f"{failed[0]['error']}")


def _recipes(names: str | None, files: tuple[Path, ...], settings: tuple[str, ...]) -> "dict[str, Recipe]":
    """The recipes by what their networks are called: names of recipes and files, numbered where they are not unique."""
    from ..compress.recipe import load_recipe, recipe_class

    wanted: list[tuple[str, dict[str, Any]]] = [
        (name.strip(), {"name": name.strip()}) for name in (names or "").split(",") if name.strip()]
    wanted += [(file.stem, {"file": file}) for file in files]
    if not wanted:
        raise ModelError("nothing to compare: give --recipes, as in bqnet,slq,ptq, or --recipe-file")
    for setting in settings:
        owner = _owner(setting)
        if owner is not None:
            recipe_class(owner)
    found: dict[str, Recipe] = {}
    for label, how in wanted:
        name = load_recipe(**how).name
        own = [setting.partition(":")[2] if _owner(setting) else setting for setting in settings
               if _owner(setting) in (None, name)]
        labels = (label, *(f"{label}-{number}" for number in range(2, len(wanted) + 1)))
        found[next(each for each in labels if each not in found)] = load_recipe(**how, settings=own)
    return found


def _owner(setting: str) -> str | None:
    """The recipe that a setting is for, as in ``best:keep=0.2``; None for all."""
    option = setting.partition("=")[0]
    return option.partition(":")[0] if ":" in option else None


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    shown = {name: row.get(name) for name in COLUMNS}
    return {**shown, "accuracy": "" if shown["accuracy"] is None else f"{shown['accuracy']:.4f}"}
