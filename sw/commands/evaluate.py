"""``shiftwright evaluate``: accuracy of the integer network, size and predicted cycles."""

from pathlib import Path
from typing import Any

import click

from ...hw.arch.errors import ModelError
from ..cli import emit
from ._describe import configuration


@click.command("evaluate", short_help="Accuracy of the integer golden model, size and cycles.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.swc|FILE.swi")
@click.option("--data", "data", metavar="SET", required=True,
              help="Data set: digits, mnist, fashion-mnist, cifar10, svhn, imagenet, or a file (.npz).")
@click.option("--split", type=click.Choice(["test", "train"]), default="test", show_default=True,
              help="Which part of the data set.")
@click.option("--images", type=click.IntRange(1), metavar="N", help="Only the first N images. Default: all.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.option("--board", metavar="NAME", help="Size and cycles of a .swc on a board's accelerator.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Size and cycles of a .swc on the accelerator that this file describes.")
def command(file: Path, data: str, split: str, images: int | None, data_dir: Path | None, board: str | None,
            config: Path | None) -> None:
    """Measure the accuracy of a compressed network (.swc) or of an image (.swi), in integer arithmetic.

    A .swc runs on the golden model, which defines the arithmetic; with --board or --config it is compiled as well, and
    the size of the whole image file, the ratio to the float32 parameters and the predicted cycles are printed. A .swi
    runs on the image interpreter, which decodes the image's words and reads activations through their bank addresses;
    its accuracy equals that of the .swc it was compiled from.

    \b
    Examples:
        shiftwright evaluate digits.swc --data digits
        shiftwright evaluate lenet5.swc --data mnist --board ulx3s-85f
        shiftwright evaluate lenet5.swi --data mnist --images 1000 --json
    """
    from ..data import Dataset, load

    # The files are told apart by their first bytes, so that a wrong name does no harm.
    is_image = _starts_with(file, b"SWI1")
    if is_image and (board is not None or config is not None):
        raise click.UsageError("--board and --config are for a .swc; an image is compiled for its accelerator already")
    dataset: Dataset = load(data, split="train" if split == "train" else "test", data_dir=data_dir, limit=images)
    result: dict[str, Any] = {"file": str(file), "dataset": data, "split": split, "images": len(dataset)}
    if is_image:
        result |= _evaluate_image(file, dataset)
    else:
        result |= _evaluate_network(file, dataset, board, config)
    emit(result, title="shiftwright evaluate")


def _starts_with(file: Path, magic: bytes) -> bool:
    try:
        with open(file, "rb") as content:
            return content.read(len(magic)) == magic
    except OSError as error:
        raise ModelError(f"{file}: can't read: {error.strerror or error}") from None


def _evaluate_network(file: Path, dataset: Any, board: str | None, config: Path | None) -> dict[str, Any]:
    from ...sim import golden
    from ..compiler.compile import compile_detailed
    from ..network import QuantizedNetwork

    network = QuantizedNetwork.load(file)
    if outputs := network.metadata.get("outputs"):
        raise ModelError(f"{file}: the network has the outputs {', '.join(output['name'] for output in outputs)}, but "
                         f"labels are of one; compare it with 'shiftwright simulate', or run golden.run in Python")
    target = configuration(board, config) if board is not None or config is not None else None
    compilation = None if target is None else compile_detailed(network, target)
    result: dict[str, Any] = {"model": "golden", "accuracy": round(golden.accuracy(network, dataset), 6)}
    if "float_accuracy" in network.metadata:
        result["float_accuracy"] = network.metadata["float_accuracy"]
    if compilation is not None and target is not None:
        result |= {"lanes": target.name, "image_bytes": compilation.size}
        if compilation.parameters:
            result |= {"ratio": round(compilation.ratio, 2), "bits_per_weight": round(compilation.bits_per_weight, 3)}
        result["predicted_cycles"] = compilation.cycles
    return result


def _evaluate_image(file: Path, dataset: Any) -> dict[str, Any]:
    from ...sim import interpreter
    from ..compiler.cycles import predict, run_cycles
    from ..image import Image

    program = interpreter.read_image(file)
    cycles = run_cycles(predict(Image.load(file)))
    return {"model": "image interpreter", "accuracy": round(interpreter.accuracy(program, dataset), 6),
            "lanes": program.config.name, "image_bytes": file.stat().st_size, "predicted_cycles": cycles}
