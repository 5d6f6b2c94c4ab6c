"""``shiftwright compress``: from a float network to power-of-two weights."""

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..cli import emit
from ..compress.recipe import RECIPE_NAMES
from ._compress import common_options, hold_out, image_of, inputs, progress_bar
from ._describe import configuration

if TYPE_CHECKING:
    from ..compress.recipe import Recipe
    from ..compress.targets import Found, Measured, Try
    from ..data import Dataset
    from ..frontend.load import Loaded
    from ..network import QuantizedNetwork


@click.command("compress", short_help="Compress a trained network to power-of-two weights.")
@click.argument("source", metavar="NETWORK")
@click.option("--recipe", "name", metavar="R", help=f"Recipe: {', '.join(RECIPE_NAMES)}. "
              "Default: what --recipe-file says, or bqnet.")
@click.option("--recipe-file", type=click.Path(dir_okay=False, path_type=Path),
              help="TOML file of the recipe's options.")
@click.option("--set", "settings", metavar="OPTION=VALUE", multiple=True,
              help="One option of the recipe; may be given again. It wins over the file.")
@common_options
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Compressed network to write (.swc).")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
              help="Where it trains; auto takes a GPU if there is one.")
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the state after each epoch in FILE; the same command goes on from there.")
@click.option("--target-size", metavar="SIZE", help="Bytes of the whole image at most, as 12000, 12KB, 11.5KiB or 20x "
              "(times smaller than the float32 parameters).")
@click.option("--target-cycles", type=click.IntRange(1), metavar="N", help="Predicted cycles at most.")
@click.option("--target-accuracy", type=click.FloatRange(0, 1), metavar="A",
              help="Accuracy at least, 0 to 1, on a tenth of the training images that is not trained on.")
@click.option("--tries", type=click.IntRange(1, 30), default=6, show_default=True, help="Short runs of a search.")
@click.option("--try-epochs", type=click.IntRange(0), metavar="N",
              help="Epochs of a short run. Default: a quarter of the recipe's.")
@click.option("--board", metavar="NAME", help="Targets are for a board's accelerator.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Targets are for the accelerator that this file describes. Default: one that holds any network.")
@click.pass_context
def command(ctx: click.Context, source: str, name: str | None, recipe_file: Path | None, settings: tuple[str, ...],
            data: str | None, output: Path, data_dir: Path | None, threads: int | None, device: str,
            checkpoint: Path | None, target_size: str | None, target_cycles: int | None, target_accuracy: float | None,
            tries: int, try_epochs: int | None, board: str | None, config: Path | None) -> None:
    """Compress NETWORK and write it as a .swc file, with its accuracy on the test split.

    NETWORK is a checkpoint of 'shiftwright train'; or NET:FILE, a zoo network and a PyTorch checkpoint of its weights;
    or an ONNX file (.onnx); or package.module:Name, a trained torch.nn.Module, or something that returns one when it
    is called without arguments. It takes images divided by 256.

    The recipe bqnet makes every weight one signed power of two (or zero) and trains with the quantized forward pass.
    Its options include levels (magnitudes of a weight), zero (whether 0 is a weight), act_bits (bits of an
    activation), guard_bits (0 truncates each product as the literal BQ-Net hardware does), epochs, and
    layers.PATH.levels for one layer. The accuracy that is printed is the integer network's, never the float
    simulation's. The same --seed gives the same network on one machine with the same number of threads.

    With a target, the recipe's option that trades accuracy for size is searched for: by bisection with short runs,
    then with full ones. Size and cycles are those of the compiled image. Accuracy is that of a tenth of the training
    images, on which is not trained, never that of the test split. Of the networks that meet the target the best one is
    written; if there is none, the nearest one is told.

    The recipe keep takes an ONNX file whose weights and activations are quantized (QONNX, or QuantizeLinear with
    DequantizeLinear) as it is: nothing is trained, and it is told whether the integers are exactly the file's.

    With --checkpoint, what was interrupted goes on with the same command, to the same result. A search keeps a file for
    each of its tries.

    \b
    Examples:
        shiftwright compress lenet5.safetensors --recipe bqnet -o lenet5.swc
        shiftwright compress lenet5.safetensors --recipe best --target-size 40x -o small.swc
        shiftwright compress lenet5.safetensors --recipe best --checkpoint lenet5.state -o lenet5.swc
        shiftwright compress lenet300.safetensors --set levels=1 --set epochs=10 -o ternary.swc
        shiftwright compress lenet5.safetensors --recipe-file examples/bqnet-literal.toml -o literal.swc
        shiftwright compress resnet20:resnet20.th --recipe bqnet -o resnet20.swc
        shiftwright compress mine.onnx --data mnist --recipe bqnet -o mine.swc
        shiftwright compress brevitas.onnx --data mnist --recipe keep -o brevitas.swc
        shiftwright compress mypackage.models:trained --data mnist -o mine.swc
    """
    from ..compress.recipe import load_recipe

    seed = int((ctx.obj or {}).get("seed", 0))
    recipe = load_recipe(name or (None if recipe_file else "bqnet"), file=recipe_file, settings=settings)
    loaded, data, (train_data, test_data) = inputs(source, data, data_dir, threads, "train", "test", several=True)
    job = _Job(loaded, recipe, seed, device, checkpoint)
    start = time.perf_counter()
    found = None
    if target_size is None and target_cycles is None and target_accuracy is None:
        network = job.run(recipe, train_data, checkpoint)
    else:
        found = _search(job, train_data, target_size, target_cycles, target_accuracy, tries, try_epochs,
                        configuration(board, config) if board or config else None)
        network = found.network
    seconds = time.perf_counter() - start

    from ...sim import golden
    from .. import train

    accuracies: dict[str, float] = {}  # of several outputs there is none
    if not loaded.outputs:
        accuracies = {"float_accuracy": train.accuracy(loaded.model, test_data),
                      "accuracy": golden.accuracy(network, test_data)}
    network = dataclasses.replace(network, metadata={
        **network.metadata, "network": loaded.metadata["network"], "test_images": len(test_data), **accuracies})
    network.save(output)
    result: dict[str, Any] = {
        "network": loaded.metadata["network"], "dataset": data, "recipe": recipe.name,
        **{name: round(value, 6) for name, value in accuracies.items()},
        "test_images": len(test_data), "parameters": network.parameters,
        "levels": {layer.name: len(layer.codebook) for layer in network.layers if layer.indices is not None},
        "seed": seed, **{name: network.metadata[name] for name in ("exact", "differences") if name in network.metadata},
        "seconds": round(seconds, 1), "file": str(output)}
    if found is not None:
        assert recipe.knob is not None and found.best.measured is not None
        result |= {recipe.knob.option: found.best.value, "target": found.target,
                   "validation_accuracy": round(found.best.measured.accuracy, 6),
                   "bytes": found.best.measured.bytes, "predicted_cycles": found.best.measured.cycles}
        if (ctx.obj or {}).get("json"):  # people have been told each of them when it was over
            result["tries"] = [tried.to_dict() for tried in found.tries]
    emit(result, title="shiftwright compress")


@dataclasses.dataclass(frozen=True)
class _Job:
    """What all runs of one command share."""

    loaded: "Loaded"
    recipe: "Recipe"
    seed: int
    device: str
    checkpoint: Path | None

    def run(self, recipe: "Recipe", data: "Dataset", checkpoint: Path | None) -> "QuantizedNetwork":
        """Compress; an interruption tells how to go on."""
        from ..compress.api import compress

        try:
            with progress_bar(f"compress {self.loaded.metadata['network']}") as show:
                return compress(self.loaded.model, recipe, data, input_shape=self.loaded.input_shape, seed=self.seed,
                                progress=show, device=self.device, checkpoint=checkpoint)
        except KeyboardInterrupt:
            if checkpoint is not None and checkpoint.exists():
                click.echo(f"shiftwright: {checkpoint} holds what is done; give the same command again to go on",
                           err=True)
            raise


def _search(job: _Job, data: "Dataset", size: str | None, cycles: int | None, accuracy: float | None, tries: int,
            try_epochs: int | None, config: Any) -> "Found":
    """Find the network that meets the target."""
    from ...hw.arch.errors import ModelError
    from ...sim import golden
    from ..compress.options import QuantizedRecipe
    from ..compress.targets import Measured, Target, find, parse_size
    from ..train import count_parameters

    recipe, knob = job.recipe, type(job.recipe).knob
    if job.loaded.outputs:
        raise ModelError(f"the network has the outputs {', '.join(job.loaded.outputs)}, but a search needs an "
                         f"accuracy, which is that of one; leave the target out")
    for name in ("target_size", "target_bits", "target_cycles"):
        if (own := getattr(recipe, name, None)) is not None:
            raise ModelError(f"recipe {recipe.name}: {name} = {own} is a target of its own, and no search changes it; "
                             f"leave it out, or leave out --target-size, --target-cycles and --target-accuracy")
    target = Target(size=None if size is None else parse_size(size, count_parameters(job.loaded.model)),
                    cycles=cycles, accuracy=accuracy)
    part, validation = hold_out(data, job.seed)
    epochs = recipe.epochs_for(len(part)) if isinstance(recipe, QuantizedRecipe) and recipe.trains else 0
    short = min(epochs, max(1, round(epochs / 4)) if try_epochs is None else try_epochs)

    def run(number: int, value: float, full: bool) -> "tuple[QuantizedNetwork, Measured]":
        assert knob is not None
        changed = recipe.replace(**{knob.option: value}, **({} if full else {"epochs": short}))
        file = job.checkpoint and job.checkpoint.with_name(f"{job.checkpoint.name}.{number}")
        network = job.run(changed, part, file)
        bytes_, cycles = image_of(network, recipe, config)
        return network, Measured(bytes=bytes_, cycles=cycles, accuracy=golden.accuracy(network, validation))

    def report(tried: "Try") -> None:
        assert knob is not None
        kind = "full" if tried.full or short == epochs else f"{short} epochs"
        click.echo(f"try {tried.number} ({kind}): {knob.option} = {tried.value}: {tried.measured or tried.error}"
                   f"{', meets the target' if tried.met else ''}", err=True)

    return find(run, type(recipe), target, tries=tries, short=short < epochs, report=report)
