"""``shiftwright demo``: the whole main job on the embedded default."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..cli import emit


@click.command("demo", short_help="The whole main job on the embedded default, with a report.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), default=Path("out/demo"),
              show_default=True, help="Folder for the checkpoint, the compressed network, the image and the Verilog.")
@click.option("--board", default="ulx3s-85f", show_default=True, metavar="NAME",
              help="Board whose accelerator is generated.")
@click.option("--images", type=click.IntRange(1, 360), default=16, show_default=True, help="Test images to simulate.")
@click.option("--simulator", type=click.Choice(["verilator", "icarus"]), default="verilator", show_default=True)
@click.pass_context
def command(ctx: click.Context, output: Path, board: str, images: int, simulator: str) -> None:
    """Train, compress, compile, generate and simulate a small network on real digits, and compare every bit.

    The network is the zoo's `digits`, the data scikit-learn's 1,797 handwritten digits, so nothing is downloaded. Every
    file of the way is kept in the output folder: digits.safetensors, digits.swc, digits.swi, accelerator.v and its
    manifest.

    \b
    Examples:
        shiftwright demo
        shiftwright demo --board icebreaker --images 100 -o out/small
    """
    from ...boards.registry import get
    from ...hw.generate import generate
    from ...sim import golden, simulators
    from ...sim.simulate import simulate
    from .. import train, zoo
    from ..compiler.compile import compile_detailed
    from ..compress.api import compress
    from ..data import PIXEL_SCALE, load
    from ..tools import require

    options = ctx.obj or {}
    seed, quiet = int(options.get("seed", 0)), bool(options.get("json"))
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, says: str) -> Iterator[None]:
        if not quiet:
            click.echo(f"{says} ...", err=True)
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 1)

    config = get(board).config
    # What is missing must show before minutes of work, and leave nothing half-done.
    require("yosys")
    simulators.simulator(simulator).version()
    train_data, test_data = load("digits", split="train"), load("digits", split="test")
    with step("train", "1/5 train the digits network in float"):
        module, float_accuracy = train.train("digits", train_data, test=test_data, seed=seed)
        train.save_checkpoint(output / "digits.safetensors", train.Checkpoint(
            module=module, network="digits", dataset="digits", float_accuracy=float_accuracy,
            epochs=zoo.network_info("digits").epochs, seed=seed, parameters=train.count_parameters(module)))
    with step("compress", "2/5 compress every weight to a signed power of two"):
        network = compress(module, "bqnet", train_data, seed=seed)
        accuracy = golden.accuracy(network, test_data)
        network.save(output / "digits.swc")
    with step("compile", "3/5 compile and Huffman-code the image"):
        compilation = compile_detailed(network, config)
        compilation.image.save(output / "digits.swi")
    with step("generate", f"4/5 generate the accelerator of {board} ({config.name} lanes and streams)"):
        generate(config, output)
    with step("simulate", f"5/5 simulate {images} images on {simulator} "
                          f"(the first time builds the model: up to a minute)"):
        inputs = network.quantize_input(test_data.images[:images] / PIXEL_SCALE)
        expected = golden.run(compilation.network, inputs, layers=True)
        run = simulate(compilation.image, inputs, expected=expected, simulator=simulator, seed=seed)

    cycles = sum(run.cycles) / len(run.cycles)
    result: dict[str, Any] = {
        "network": f"digits: {network.parameters:,} parameters, {len(network.layers)} layers",
        "board": f"{board}: {config.lanes_y}x{config.lanes_x} lanes",
        "float_accuracy": f"{float_accuracy:.2%}",
        "integer_accuracy": f"{accuracy:.2%}",
        "bits_per_weight": f"{compilation.bits_per_weight:.2f}",
        "image_bytes": compilation.size,
        "compression_ratio": f"{compilation.ratio:.1f}x",
        "predicted_cycles": compilation.cycles,
        "simulated_cycles": round(cycles),
        "comparison": f"bit-exact: {run.images} of {images} images, {len(run.layers)} of {len(expected)} layers "
                      f"({run.values:,} values)",
        "files": str(output),
        "seconds": seconds,
    }
    if quiet:
        result |= {"float_accuracy": float_accuracy, "integer_accuracy": accuracy, "images": run.images,
                   "bits_per_weight": compilation.bits_per_weight, "compression_ratio": compilation.ratio}
    emit(result, title="shiftwright demo")
