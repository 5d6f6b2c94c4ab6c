"""``shiftwright compile``: a compressed network becomes an image for one accelerator."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._describe import configuration, emit_with_layers

if TYPE_CHECKING:
    from ...hw.arch.config import AcceleratorConfig
    from ..network import QuantizedNetwork


@click.command()
@click.argument("network", type=click.Path(path_type=Path), metavar="FILE.swc")
@click.option("--board", metavar="NAME", help="Compile for a board's accelerator; 'shiftwright boards' lists them.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE.toml",
              help="Compile for the accelerator that this file describes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE.swi",
              help="Where to write the image (default: the network's name with .swi).")
@click.option("--map", "maps", is_flag=True, help="Also print where everything lies in both memories.")
@click.pass_context
def command(ctx: click.Context, network: Path, board: str | None, config: Path | None, output: Path | None,
            maps: bool) -> None:
    """Compile a compressed network (.swc) to an image (.swi) for one accelerator.

    The image holds everything that the accelerator reads: descriptors, tables, Huffman-coded weights, biases and
    scales. It runs only on the configuration it was compiled for, given by --board or --config; without both, the
    default configuration (4 x 4 lanes). A network that is too large, or whose accumulators could overflow, is refused,
    and the message says what would make it fit.

    \b
    Printed for each layer:
        alphabet     kind of dictionary that gave the smallest layer
        bytes        all of it: descriptor, tables, dictionary, parameters, streams
        bits/weight  those bytes over the layer's weights
        acc bits     accumulator width that the layer needs at most, proven
        cycles       predicted clock cycles

    The ratio is the float32 size of the original parameters over the size of the whole file.

    With --map, and always with --json, two more tables. Of each tensor: shape, bits, first address and addresses (the
    same in every bank), layout, the first and the last layer that needs its addresses, and what it lies within. A
    layout is plain, polyphase SYxSX for a reader with strides SY and SX, or vector, a bank an image, for batch lanes.
    Where readers of a tensor want different layouts it stays plain, and each other stride gets a copy, made by a layer
    of its own (copy of); a part of two concatenations is copied, too. What a layer makes of
    each activation alone, an addition for example, is written in the place of what it reads (within). Of each layer:
    the words of its sections.

    \b
    Examples:
        shiftwright compile digits.swc
        shiftwright compile lenet5.swc --board ulx3s-85f -o lenet5.swi
        shiftwright compile lenet5.swc --board ulx3s-85f --map
        shiftwright compile lenet5.swc --config wide.toml -o lenet5.swi --json
    """
    from ...hw.arch.errors import CapacityError
    from ..compiler.compile import compile_detailed
    from ..network import QuantizedNetwork
    from ._maps import MAPS, model_rows, tensor_rows

    target, compressed = configuration(board, config), QuantizedNetwork.load(network)
    try:
        compilation = compile_detailed(compressed, target)
    except CapacityError as error:
        more = "".join((_on_board(board, target, error.needs), _more_lanes(compressed, target, error.needs),
                        _on_another(board, compressed, error.needs)))
        hint = "; 'shiftwright plan' tells what each board would need" if error.needs else ""
        raise CapacityError(f"{error}{more}{hint}", **error.needs) from None
    output = network.with_suffix(".swi") if output is None else output
    compilation.image.save(output)
    layers = [{
        "layer": layer.name, "op": layer.op, "alphabet": layer.alphabet, "bytes": layer.bytes,
        "bits/weight": None if layer.bits_per_weight is None else round(layer.bits_per_weight, 3),
        "acc_bits": layer.proof.bits, "cycles": layer.cycles.total,
    } for layer in compilation.layers]
    tables = None
    if maps or (ctx.obj or {}).get("json"):
        rows = {"activation_map": tensor_rows(compilation), "model_map": model_rows(compilation.image)}
        tables = {key: (heading, rows[key]) for key, heading in MAPS.items()}
    emit_with_layers({
        "image": str(output),
        "lanes": target.name,
        "fingerprint": f"0x{target.fingerprint:08x}",
        "bytes": compilation.size,
        "bytes_outside_layers": compilation.overhead,
        "ratio": round(compilation.ratio, 2),
        "bits_per_weight": round(compilation.bits_per_weight, 3) if compilation.parameters else None,
        "model_words": int(compilation.image.words.size),
        "model_words_available": target.weight_depth,
        "activation_addresses": compilation.peak,
        "activation_addresses_available": target.act_depth,
        "predicted_cycles": compilation.cycles,
    }, layers, title="Image", more=tables)


def _on_another(board: str | None, network: "QuantizedNetwork", needs: dict[str, int]) -> str:
    """The smallest of the other tuned boards that holds the network, as a clause."""
    from ...boards.registry import get, names
    from ...hw.arch.errors import ModelError
    from ..compiler.compile import compile_

    others = [get(name) for name in names() if name != board] if needs else []
    for other in sorted(others, key=lambda other: (other.config.lanes, other.config.weight_depth)):
        if other.config.weight_depth < needs.get("weight_depth", 0):  # the words are hardly fewer elsewhere
            continue
        try:
            compile_(network, other.config)
        except ModelError:
            continue
        return f"; the board {other.name} holds the network as it is"
    return ""


def _on_board(board: str | None, target: "AcceleratorConfig", needs: dict[str, int]) -> str:
    """Whether there is an accelerator with the larger parameters, and the board holds it, as a clause."""
    from ...boards.fit import fits
    from ...boards.registry import get
    from ...hw.arch.errors import ConfigError

    try:
        enlarged = target.replace(**needs)
    except ConfigError as error:
        return f"; no accelerator has that: {error}"
    device = None if board is None else get(board).device
    if device is None or not needs:
        return ""
    changes = ", ".join(f"{name} = {value}" for name, value in needs.items())
    misfit = fits(enlarged, device)
    if misfit is None:
        return f"; an accelerator with {changes} fits {board}: use a --config file with it, also to build"
    return f"; with {changes}, {misfit}"


def _more_lanes(network: "QuantizedNetwork", target: "AcceleratorConfig", needs: dict[str, int]) -> str:
    """The fewest lanes with which the maps fit as much memory in every bank, as a clause."""
    from ...hw.arch.config import LANES
    from ...hw.arch.errors import ModelError
    from ..compiler.compile import place

    if "act_depth" not in needs:
        return ""
    shapes = ((y, x) for y in LANES for x in LANES if y * x > target.lanes and max(y, x) <= 2 * min(y, x))
    for y, x in sorted(shapes, key=lambda shape: (shape[0] * shape[1], -shape[0])):
        try:
            place(network, target.replace(lanes_y=y, lanes_x=x))
        except ModelError:
            continue
        return f"; {y} x {x} lanes hold the maps with act_depth = {target.act_depth}"
    return ""
