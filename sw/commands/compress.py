"""``shiftwright compress``: from a float network to power-of-two weights."""

import dataclasses
import sys
import time
from pathlib import Path

import click

from ...hw.arch.errors import ModelError
from ..cli import emit


@click.command("compress", short_help="Compress a trained network to power-of-two weights.")
@click.argument("source", metavar="NETWORK")
@click.option("--recipe", "name", metavar="R", help="Recipe: bqnet, inq, slq, mlq, seq, lowbit, "
              "ptq or best. Default: what --recipe-file says, or bqnet.")
@click.option("--recipe-file", type=click.Path(dir_okay=False, path_type=Path),
              help="TOML file of the recipe's options.")
@click.option("--set", "settings", metavar="OPTION=VALUE", multiple=True,
              help="One option of the recipe; may be given again. It wins over the file.")
@click.option("--data", "data", metavar="SET", help="Data set for training and calibration. Default: the one that the "
              "checkpoint was trained on.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Compressed network to write (.swc).")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. Default: PyTorch's choice.")
@click.pass_context
def command(ctx: click.Context, source: str, name: str | None, recipe_file: Path | None, settings: tuple[str, ...],
            data: str | None, output: Path, data_dir: Path | None, threads: int | None) -> None:
    """Compress NETWORK and write it as a .swc file, with its accuracy on the test split.

    NETWORK is a checkpoint of 'shiftwright train'; or NET:FILE, a zoo network and a PyTorch checkpoint of its weights;
    or package.module:Name, a trained torch.nn.Module, or something that returns one when it is called without
    arguments. It takes images divided by 256.

    The recipe bqnet makes every weight one signed power of two (or zero) and trains with the quantized forward pass.
    Its options include levels (magnitudes of a weight), zero (whether 0 is a weight), act_bits (bits of an
    activation), guard_bits (0 truncates each product as the literal BQ-Net hardware does), epochs, and
    layers.PATH.levels for one layer. The accuracy that is printed is the integer network's, never the float
    simulation's. The same --seed gives the same network on one machine with the same number of threads.

    \b
    Examples:
        shiftwright compress lenet5.safetensors --recipe bqnet -o lenet5.swc
        shiftwright compress lenet300.safetensors --set levels=1 --set epochs=10 -o ternary.swc
        shiftwright compress lenet5.safetensors --recipe-file examples/bqnet-literal.toml -o literal.swc
        shiftwright compress resnet20:resnet20.th --recipe bqnet -o resnet20.swc
        shiftwright compress mypackage.models:trained --data mnist -o mine.swc
    """
    from ..compress.api import compress
    from ..compress.recipe import load_recipe
    from ..data import load
    from ..frontend.load import load_model

    options = ctx.obj or {}
    seed, quiet = int(options.get("seed", 0)), bool(options.get("json")) or not sys.stderr.isatty()
    recipe = load_recipe(name or (None if recipe_file else "bqnet"), file=recipe_file, settings=settings)
    loaded = load_model(source)
    data = data or loaded.metadata.get("dataset")
    if data is None:
        raise ModelError(f"{source}: does not say which data set it was trained on; give it with --data")
    train_data, test_data = (load(data, split=split, data_dir=data_dir) for split in ("train", "test"))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)

    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    start = time.perf_counter()
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task(f"compress {loaded.metadata['network']}", total=None, loss="")

        def show(epoch: int, epochs: int, loss: float) -> None:
            bar.update(task, completed=epoch, total=epochs, loss=f"epoch {epoch}/{epochs}, loss {loss:.4f}")

        network = compress(loaded.model, recipe, train_data, input_shape=loaded.input_shape, seed=seed, progress=show)
    seconds = time.perf_counter() - start

    from ...sim import golden
    from .. import train

    float_accuracy = train.accuracy(loaded.model, test_data)
    accuracy = golden.accuracy(network, test_data)
    network = dataclasses.replace(network, metadata={
        **network.metadata, "network": loaded.metadata["network"], "test_images": len(test_data),
        "float_accuracy": float_accuracy, "accuracy": accuracy})
    network.save(output)
    emit({"network": loaded.metadata["network"], "dataset": data, "recipe": recipe.name,
          "float_accuracy": round(float_accuracy, 6), "accuracy": round(accuracy, 6), "test_images": len(test_data),
          "parameters": network.parameters, "levels": {layer.name: len(layer.codebook) for layer in network.layers
                                                       if layer.indices is not None},
          "seed": seed, "seconds": round(seconds, 1), "file": str(output)}, title="shiftwright compress")
