"""``shiftwright sensitivity``: which layers bear few levels and pruning."""

import dataclasses
from pathlib import Path

import click

from ...hw.arch.errors import ModelError
from ._compress import inputs, progress_bar
from ._describe import emit_with_layers

LEAST_IMAGES = 20


class _Numbers(click.ParamType):
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[float]:
        try:
            return [self.kind(part) for part in str(value).split(",") if part.strip()]
        except ValueError:
            self.fail(f"{value!r} must be numbers with commas between them", param, ctx)


@click.command("sensitivity", short_help="What each layer bears: few levels, pruning.")
@click.argument("source", metavar="NETWORK")
@click.option("--levels", type=_Numbers(int), default="1,2,3,4", show_default=True, metavar="N,N,...",
              help="Magnitudes of a weight that each layer is quantized to.")
@click.option("--prune", type=_Numbers(float), default="0.5,0.7,0.8,0.9,0.95", show_default=True, metavar="S,S,...",
              help="Shares of a layer's weights that are taken out.")
@click.option("--images", type=click.IntRange(LEAST_IMAGES), default=1000, show_default=True, metavar="N",
              help="Training images that are measured on, chosen at random.")
@click.option("--bear", type=click.FloatRange(0), default=0.05, show_default=True, metavar="D",
              help="Divergence in nats that a suggested option may cause by itself.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.toml",
              help="Write suggested options of each layer as a recipe file for bqnet.")
@click.option("--data", "data", metavar="SET", help="Data set, or a file of one's own (.npz). Default: the "
              "one that the checkpoint was trained on.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. Default: PyTorch's choice.")
@click.pass_context
def command(ctx: click.Context, source: str, levels: list[int], prune: list[float], images: int, bear: float,
            output: Path | None, data: str | None, data_dir: Path | None, threads: int | None) -> None:
    """Quantize or prune one layer of NETWORK at a time, without training, and tell what that does.

    The layer's weights become powers of two of so many magnitudes (or 0), or the smallest share of them becomes 0. All
    other layers have 171 evenly spaced values. Each of these networks runs in integer arithmetic on training images;
    the test split is not used. NETWORK is what 'shiftwright compress' takes.

    \b
    Printed, the worst first:
        bits        of a weight, as the entropy of the layer's values tells
        drop        accuracy that is lost
        divergence  mean Kullback-Leibler divergence of the predictions, in nats; finer than the drop

    Training makes up for much of this, so the order of the layers tells more than the numbers.

    \b
    Examples:
        shiftwright sensitivity lenet5.safetensors
        shiftwright sensitivity resnet20:resnet20.th --data cifar10 --images 200 --levels 2,4 --prune 0.5,0.8
        shiftwright sensitivity lenet5.safetensors -o lenet5.toml
    """
    from ..compress.sensitivity import scan, suggest, suggestion_toml
    from ..frontend.capture import capture, image_shape

    seed = int((ctx.obj or {}).get("seed", 0))
    if not levels and not prune:
        raise ModelError("nothing to measure: give --levels or --prune a number")
    loaded, name, (dataset,) = inputs(source, data, data_dir, threads, "train")

    import numpy as np
    import torch

    from ...hw.arch.files import write_atomically
    from ...sim import golden
    from ..data import PIXEL_SCALE
    from ..network import QuantizedNetwork

    if loaded.input_shape is not None:
        dataset.check_shape(image_shape(loaded.input_shape))
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:images]
    dataset = dataclasses.replace(dataset, images=dataset.images[chosen], labels=dataset.labels[chosen])

    def outputs(network: QuantizedNetwork) -> torch.Tensor:
        integers = golden.run(network, network.quantize_input(dataset.images / PIXEL_SCALE))
        return torch.from_numpy(integers.reshape(len(integers), -1)) * 2.0**network.output.exponent

    graph = capture(loaded.model, dataset.shape)
    with progress_bar("sensitivity") as show:
        accuracy, damages = scan(graph, dataset, outputs, levels=levels, prune=prune, seed=seed,
                                 progress=lambda done, total: show(done, total, 0.0))
    result = {"network": loaded.metadata["network"], "dataset": name, "split": "train", "images": len(dataset),
              "accuracy": round(accuracy, 6), "seed": seed}
    if output is not None:
        head = (f"Suggested by 'shiftwright sensitivity' for {loaded.metadata['network']}: each option alone causes a\n"
                f"divergence of at most {bear} nats, or is the mildest that was tried.")
        write_atomically(output, suggestion_toml(suggest(damages, bear), head).encode(), ModelError)
        result["file"] = str(output)
    if (ctx.obj or {}).get("json"):
        emit_with_layers(result, [dataclasses.asdict(damage) for damage in damages], key="damages")
        return
    rows = [{"layer": damage.layer, "option": f"{damage.option} = {damage.value:g}", "weights": damage.weights,
             "bits": damage.bits, "drop": f"{damage.drop:.4f}", "divergence": f"{damage.divergence:.4f}"}
            for damage in damages]
    emit_with_layers(result, rows, title="shiftwright sensitivity", layers_title="One layer at a time")
