"""``shiftwright train``: float training of a zoo network."""

import time
from pathlib import Path

import click

from ..cli import emit


@click.command("train", short_help="Train a zoo network in float.")
@click.argument("network", metavar="NET")
@click.option("--data", "data", metavar="SET", help="Data set: digits, mnist, fashion-mnist, cifar10, svhn, "
              "imagenet, or a file (.npz). Default: the one that the network is meant for.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True,
              help="Checkpoint to write (safetensors).")
@click.option("--epochs", type=click.IntRange(1), help="Passes over the training images. Default: the zoo's number.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. Default: PyTorch's choice.")
@click.pass_context
def command(ctx: click.Context, network: str, data: str | None, output: Path, epochs: int | None,
            data_dir: Path | None, threads: int | None) -> None:
    """Train the zoo network NET in float, measure it on the test split, and write a checkpoint.

    The zoo: digits (a small CNN for 8 x 8 digits), lenet300 (LeNet-300-100), lenet5 (LeNet-5 in Caffe's form),
    resnet20 and resnet32 (for CIFAR-10, option A shortcuts) and mobilenet_tiny (depthwise separable, for CIFAR-10); for
    ImageNet, with the state of torchvision's: alexnet, vgg16, googlenet, resnet18, resnet50, mobilenet_v1 and
    mobilenet_v2, which are better given published weights (see compress) than trained here. A data set is searched in
    --data-dir, $SHIFTWRIGHT_DATA and the cache folder, then downloaded from its home with a SHA-256 check; digits is
    built in, imagenet is never downloaded. The same --seed gives the same weights on one machine.

    \b
    Examples:
        shiftwright train digits -o digits.safetensors
        shiftwright train lenet300 --data mnist -o lenet300.safetensors --epochs 12
        shiftwright train lenet5 --data fashion-mnist -o fashion.safetensors --seed 3
    """
    from ..data import load
    from ..train import Checkpoint, count_parameters, save_checkpoint, train
    from ..zoo import network_info

    info = network_info(network)
    name = info.dataset if data is None else data
    options = ctx.obj or {}
    seed = int(options.get("seed", 0))
    epochs = info.epochs if epochs is None else epochs
    images, test = (load(name, split=split, data_dir=data_dir) for split in ("train", "test"))
    if threads is not None:
        import torch

        torch.set_num_threads(threads)

    def show(epoch: int, count: int, loss: float) -> None:
        if not options.get("json"):
            click.echo(f"epoch {epoch}/{count}: loss {loss:.4f}", err=True)

    start = time.perf_counter()
    module, accuracy = train(network, images, test=test, epochs=epochs, seed=seed, progress=show)
    seconds = time.perf_counter() - start
    parameters = count_parameters(module)
    save_checkpoint(output, Checkpoint(module, network, name, accuracy, epochs, seed, parameters))
    emit({"network": network, "dataset": name, "float_accuracy": round(accuracy, 6), "test_images": len(test),
          "parameters": parameters, "epochs": epochs, "seed": seed, "seconds": round(seconds, 1), "file": str(output)},
         title="shiftwright train")
