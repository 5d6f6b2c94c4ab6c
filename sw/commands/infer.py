"""``shiftwright infer``: run the model that a board holds."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...hw.arch.errors import MismatchError
from ._describe import emit_with_layers
from ._device import device_options, open_devices, progress_bar

if TYPE_CHECKING:
    import numpy as np

    from ..device import Device
    from ..image import Image
    from ..network import QuantizedNetwork


@click.command("infer", short_help="Run the model that a board holds.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[FILE...]")
@device_options(several=True)
@click.option("--image", type=click.Path(path_type=Path), metavar="FILE.swi",
              help="The image that the board holds. Default: the copy that 'shiftwright load' kept.")
@click.option("--data", metavar="SET",
              help="Data set: digits, mnist, fashion-mnist, cifar10, svhn, imagenet, or a file (.npz).")
@click.option("--images", type=click.IntRange(1), metavar="N", help="The first N test images. Default: all.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.option("--profile", is_flag=True, help="Show what the last run's cycles were spent on, layer by layer.")
@click.option("--check", is_flag=True, help="Compare every output with the image interpreter, bit for bit.")
@click.option("--network", type=click.Path(path_type=Path), metavar="FILE.swc",
              help="Compare with the golden model of this compressed network in place of the interpreter; where it has "
              "several outputs, tell the class of each, by name.")
@click.pass_context
def command(ctx: click.Context, files: tuple[Path, ...], port: tuple[str, ...], baud: int | None, trace: bool,
            image: Path | None, data: str | None, images: int | None, data_dir: Path | None, profile: bool,
            check: bool, network: Path | None) -> None:
    """Run the model that a board, or a virtual board, holds: on a data set's test images, or on files.

    A file is an array (.npy) of shape C x H x W, or N x C x H x W, of real values, or of pixels when it is uint8; or a
    picture (PNG, PGM, JPEG; needs Pillow) of the input's size, in grey or RGB. Pixels are scaled as the training data.

    Before the first run the model memory is verified against the image. A run that ends with an error, or a line that
    is lost for good, ends the command; a damaged answer is asked for again, and never taken.

    With --data the accuracy is printed. --check exits with 1 at the first difference, and names input and value.
    --profile shows the hardware's counters beside the compiler's prediction. `images_per_second` is what was reached
    over this line, `cycles` what the accelerator took for the last input.

    \b
    Examples:
        shiftwright infer --port /dev/ttyUSB1 --data mnist --images 100
        shiftwright infer --port /dev/ttyUSB1 --image lenet5.swi seven.png two.npy
        shiftwright infer --port /dev/ttyUSB1 --port /dev/ttyUSB3 --data mnist --check --json
        shiftwright infer --port /dev/pts/3 --data digits --images 1 --profile
    """
    import numpy as np

    from ..device.images import image_on
    from ..device.several import infer_on
    from ..image import Image
    from ..network import QuantizedNetwork

    if (data is None) == (not files):
        raise click.UsageError("give either a data set with --data, or files; one of them")
    machine = bool((ctx.find_root().obj or {}).get("json"))
    loaded = Image.load(image) if image is not None else None
    compressed = QuantizedNetwork.load(network) if network is not None else None
    with open_devices(port, baud=baud, trace=trace) as devices:
        if loaded is None:
            loaded = image_on(devices[0])
        names, inputs, labels = _inputs(loaded, files, data, images, data_dir)
        for device in devices:
            device.check(loaded)
        outputs = []
        started = time.monotonic()
        with progress_bar("infer", of_bytes=False, shown=not machine and not trace) as bar:
            for output in infer_on(devices, loaded, inputs):
                outputs.append(output)
                retries = sum(device.statistics.retries for device in devices)
                bar(len(outputs), len(inputs), f"{retries} sent again" if retries else "")
        seconds = time.monotonic() - started
        cycles = devices[0].cycles()
        rows = _profile(devices[0], loaded) if profile else []
        retries = sum(device.statistics.retries for device in devices)
    made = np.stack(outputs)
    classes = _classes(made, compressed.metadata.get("outputs", []) if compressed else [])
    several = isinstance(classes[0], dict)
    report: dict[str, Any] = {"ports": list(port) if len(port) > 1 else port[0], "images": len(outputs)}
    if labels is not None and not several:
        right = [found == label for found, label in zip(classes, labels, strict=True)]
        report["accuracy"] = round(float(np.mean(right)), 6)
    if check or compressed is not None:
        report["comparison"] = _compare(loaded, inputs, made, network, compressed)
    report |= {"cycles": cycles, "seconds": round(seconds, 3), "images_per_second": round(len(outputs) / seconds, 2),
               "sent_again": retries}
    if machine:
        report |= {"classes": classes, "outputs": made.reshape(len(made), -1).tolist()}
    elif labels is None or several:
        names = names or list(map(str, range(len(classes))))
        report["classes"] = "\n".join(f"{name}: {_shown(found)}" for name, found in zip(names, classes, strict=True))
    else:
        report["classes"] = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
    emit_with_layers(report, rows, title="shiftwright infer", layers_title="Cycles of the last run", key="layers")


def _inputs(image: "Image", files: tuple[Path, ...], data: str | None, count: int | None,
            data_dir: Path | None) -> tuple[list[str], "np.ndarray", "np.ndarray | None"]:
    """Names, integers (N, C, H, W), and labels if there are any."""
    import numpy as np

    from ..data import PIXEL_SCALE, load
    from ..device.inputs import quantize, read_inputs

    if data is not None:
        dataset = load(data, split="test", data_dir=data_dir, limit=count)
        return [], quantize(image.input, dataset.images / PIXEL_SCALE, image.config.rounding), dataset.labels
    names, parts = [], []
    for file in files:
        part = read_inputs(file, image.input, image.config.rounding)
        names += [str(file)] if len(part) == 1 else [f"{file} {number}" for number in range(len(part))]
        parts.append(part)
    return names[:count], np.concatenate(parts)[:count], None


def _classes(outputs: "np.ndarray", several: list[dict[str, Any]]) -> list[int | dict[str, int]]:
    """Of each image the place of the highest value; of a network with several outputs, that of each, by its name."""
    if not several:
        return list(outputs.reshape(len(outputs), -1).argmax(axis=1).tolist())
    places = {each["name"]: outputs[:, slice(*each["channels"])].reshape(len(outputs), -1).argmax(axis=1).tolist()
              for each in several}
    return [dict(zip(places, image, strict=True)) for image in zip(*places.values(), strict=True)]


def _shown(classes: int | dict[str, int]) -> str:
    return str(classes) if isinstance(classes, int) else ", ".join(f"{name} {found}" for name, found in classes.items())


def _compare(image: "Image", inputs: "np.ndarray", outputs: "np.ndarray", file: Path | None,
             network: "QuantizedNetwork | None") -> str:
    """Compare with the reference; a :class:`MismatchError` at the first difference."""
    import numpy as np

    if network is None:
        from ...sim import interpreter

        expected, reference = interpreter.run(image.to_bytes(), inputs).final, "image interpreter"
    else:
        from ...sim import golden

        expected, reference = golden.run(network, inputs), f"golden model of {file}"
    expected = np.reshape(expected, outputs.shape)
    different = np.argwhere(expected != outputs)
    if len(different):
        number, channel, row, column = (int(index) for index in different[0])
        raise MismatchError(f"input {number}, channel {channel}, row {row}, column {column}: the board gives "
                            f"{outputs[number, channel, row, column]}, the {reference} "
                            f"{expected[number, channel, row, column]} ({len(different)} of {outputs.size} values "
                            f"differ)")
    return f"bit-exact with the {reference}: {outputs.size} values"


def _profile(device: "Device", image: "Image") -> list[dict[str, Any]]:
    """What each layer's cycles were spent on, beside the prediction."""
    from ...hw.arch.bus import Counter
    from ..compiler.cycles import predict

    return [{"layer": f"layer {number}", "predicted": predicted.total} |
            {counter.name.lower(): int(counts[counter]) for counter in Counter}
            for number, (predicted, counts) in enumerate(zip(predict(image), device.profile(image), strict=True))]
