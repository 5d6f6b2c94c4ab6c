"""``shiftwright simulate``: the RTL against the golden model, bit for bit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...hw.arch.errors import ModelError, UnsupportedError
from ._describe import configuration, emit_with_layers

if TYPE_CHECKING:
    import numpy as np

    from ...sim.simulate import SimulationResult
    from ..image import Image


@click.command("simulate", short_help="Simulate the RTL against the golden model, bit for bit.")
@click.argument("image", type=click.Path(path_type=Path), metavar="FILE.swi")
@click.option("--data", metavar="SET", required=True,
              help="Data set: digits, mnist, fashion-mnist, cifar10, svhn, imagenet, or a file (.npz).")
@click.option("--images", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="The first N test images.")
@click.option("--network", type=click.Path(path_type=Path), metavar="FILE.swc",
              help="Compressed network that the image was compiled from (default: the .swc of the same name, if any).")
@click.option("--board", metavar="NAME", help="Insist on the accelerator of this board (default: the image's own).")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Insist on the accelerator that this file describes.")
@click.option("--simulator", type=click.Choice(["verilator", "icarus"]), default="verilator", show_default=True,
              help="icarus knows undefined values, and is some hundred times slower.")
@click.option("--netlist", is_flag=True,
              help="Simulate the synthesized netlist in place of the RTL (not yet supported).")
@click.option("--output-only", is_flag=True, help="Compare the network's output only, without a stop after each layer.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, metavar="N",
              help="Images that share a run of the fully connected tail, one a lane.")
@click.option("--waves", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.vcd",
              help="Record all signals' waveforms (large).")
@click.option("--timeout", type=click.FloatRange(1), default=3600, show_default=True, metavar="SECONDS",
              help="End the simulation after this time.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that is searched first for the data set.")
@click.pass_context
def command(ctx: click.Context, image: Path, data: str, images: int, network: Path | None, board: str | None,
            config: Path | None, simulator: str, netlist: bool, output_only: bool, batch: int, waves: Path | None,
            timeout: float, data_dir: Path | None) -> None:
    """Run test images on the simulated accelerator and compare every layer's output with the golden model.

    The accelerator is generated for the configuration in the image; an image for another one than --board or --config
    name is refused. The reference is PyTorch's integer golden model on the compressed network (--network, or the .swc
    next to the image); without one it is the image interpreter, which reads the same image, so that a wrong compilation
    would go unseen: the report says which of the two it was.

    With every layer compared, a table shows its clock cycles, the compiler's prediction, and what the hardware counted:
    busy cycles, terms, cycles in which a stream starved for codewords and in which an end of row waited for the drain.

    The first use of a configuration builds its simulation model (up to a minute); models are kept in the cache folder.

    The exit code is 1 at the first difference; the message names image, layer, channel, row, column and both values.
    --seed chooses what registers and memories hold at power-up (Verilator).

    \b
    Examples:
        shiftwright simulate digits.swi --data digits --images 16
        shiftwright simulate lenet5.swi --network best.swc --data mnist --images 10 --json
        shiftwright simulate lenet300.swi --data mnist --images 32 --batch 16
        shiftwright simulate digits.swi --data digits --simulator icarus --output-only
    """
    from ...sim.simulate import simulate
    from ..data import load
    from ..image import Image

    if netlist:
        raise UnsupportedError("--netlist: the netlist can't be simulated yet; leave it out to simulate the RTL")
    loaded = Image.load(image)
    if board is not None or config is not None:
        loaded.check_config(configuration(board, config))
    if network is None and image.with_suffix(".swc").is_file():
        network = image.with_suffix(".swc")
    dataset = load(data, split="test", data_dir=data_dir, limit=images)
    inputs, expected, reference = _reference(loaded, image, network, dataset.images)
    options = ctx.obj or {}
    result = simulate(loaded, inputs, expected=expected, simulator=simulator, seed=int(options.get("seed", 0)),
                      per_layer=not output_only, timeout=timeout, waves=str(waves) if waves else None, batch=batch)
    layers = len(result.layers)
    report: dict[str, Any] = {
        "image": str(image), "lanes": loaded.config.name, "reference": reference, "simulator": result.simulator,
        "comparison": f"bit-exact: {result.images} of {len(inputs)} images, {layers} of {len(expected)} layers "
                      f"({result.values:,} values)",
        "cycles": result.cycles[0] if len(set(result.cycles)) == 1 else list(result.cycles),
        "build_seconds": round(result.build_seconds, 1), "seconds": round(result.seconds, 1),
    }
    if batch > 1:
        report["batch"] = batch
    if options.get("json"):
        report |= {"images": result.images, "layers": list(result.layers), "values": result.values,
                   "cycles": list(result.cycles), "layer_cycles": [list(row) for row in result.layer_cycles]}
    rows = _layers(loaded, result, min(batch, len(inputs))) if result.layer_cycles else []
    emit_with_layers(report, rows, title="shiftwright simulate", layers_title="Cycles of the first image"
                     if batch == 1 else "Cycles of the first batch", key="first")


def _layers(image: "Image", result: "SimulationResult", images: int) -> list[dict[str, Any]]:
    """What each layer's cycles were spent on, beside the prediction."""
    from ...hw.arch.bus import Counter
    from ..compiler.cycles import batch_runs, predict

    rows = []
    for number, (name, layer, predicted) in enumerate(zip(result.layers, image.layers, predict(image, images),
                                                          strict=True)):
        row: dict[str, Any] = {"layer": name, "cycles": result.layer_cycles[0][number],
                               "predicted": predicted.total * batch_runs(layer, images)}
        if image.config.counters:
            row |= {counter.name.lower(): int(result.counters[0, number, counter]) for counter in Counter}
        rows.append(row)
    return rows


def _reference(image: "Image", path: Path, network: Path | None,
               pixels: "np.ndarray") -> tuple["np.ndarray", "dict[str, np.ndarray]", str]:
    """Quantized inputs, every layer's expected output, and where it comes from."""
    import numpy as np

    from ..data import PIXEL_SCALE

    if network is None:
        from ...sim import interpreter

        inputs = image.input.quantize(pixels / PIXEL_SCALE, image.config.rounding)
        outputs = interpreter.run(image.to_bytes(), inputs).outputs
        return inputs, {f"layer {number}": output for number, output in enumerate(outputs)}, "image interpreter"

    from ...sim import golden
    from ..compiler.compile import compile_detailed
    from ..network import QuantizedNetwork

    model = QuantizedNetwork.load(network)
    compilation = compile_detailed(model, image.config)
    if not np.array_equal(compilation.image.words, image.words):
        raise ModelError(f"{path} was not compiled from {network} by this version of Shiftwright; compile the network "
                         f"again, or name the right one with --network")
    inputs = model.quantize_input(pixels / PIXEL_SCALE)
    return inputs, golden.run(compilation.network, inputs, layers=True), f"golden model of {network}"
