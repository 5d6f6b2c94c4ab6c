"""``shiftwright plan``: what each board would need to run a compressed network, and how long it would take."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..cli import emit
from ._describe import print_table

if TYPE_CHECKING:
    from ...boards.registry import Board
    from ..compiler.plan import Plan

KIB = 1024


@click.command()
@click.argument("network", type=click.Path(path_type=Path), metavar="FILE.swc")
@click.option("--board", "boards", multiple=True, metavar="NAME",
              help="Plan for this board; may be given again. Default: all that 'shiftwright boards' lists.")
@click.option("--layers", is_flag=True, help="Also tell of each board's layers where their weights are, on the chip or "
              "in an external memory, and what that must give.")
@click.pass_context
def command(ctx: click.Context, network: Path, boards: tuple[str, ...], layers: bool) -> None:
    """Tell what each board would need to run a compressed network (.swc), and how long an image would take.

    Nothing is written, and no memory is too small: where 'shiftwright compile' would refuse the network, the plan is
    for the same accelerator with as much as it takes, even where no accelerator can have that much.

    \b
    Printed for each board:
        maps KiB      activations of all banks: needed at the peak, and there
        model KiB     model memory: needed, and there
        fits          whether 'shiftwright compile --board' makes an image
        cycles, ms    predicted, of one image at the board's clock
        weights MB/s  of a model that does not fit, from an external memory in that time: each byte once
        at most       the same in the time of the layer that needs the most of them
        maps MB/s     of maps that the banks have no place for: each written once, and read once by each reader
        peak          the layer during which the most activations are held
        also          what else would have to be larger

    Of a model that does not fit, those layers stay on the chip that need the most bytes in their time; the others are
    marked external. MB/s are 10^6 bytes a second; those of maps are a lower bound: the array reads a map once for each
    output channel, so a map in external memory needs a buffer. A board whose arithmetic or activation bits are not the
    network's can't run it, with whatever memory; it is told below the table, with the reason.

    \b
    Examples:
        shiftwright plan lenet5.swc
        shiftwright plan resnet20.swc --board ulx3s-85f --board icebreaker
        shiftwright plan alexnet.swc --board ulx3s-85f --layers
        shiftwright plan lenet5.swc --json
    """
    from ...boards.registry import get, names
    from ...hw.arch.errors import ModelError
    from ..compiler.plan import Plan, plans
    from ..network import QuantizedNetwork

    chosen = {name: get(name) for name in boards or names()}
    found = plans(QuantizedNetwork.load(network), {name: board.config for name, board in chosen.items()})
    refused = {name: plan for name, plan in found.items() if isinstance(plan, ModelError)}
    if len(refused) == len(found):
        name, error = next(iter(refused.items()))
        raise type(error)(f"{name}: {error}")
    planned = {name: plan for name, plan in found.items() if isinstance(plan, Plan)}
    if (ctx.obj or {}).get("json"):
        emit({"network": str(network), "boards": {
            name: {"runs": True, **figures(chosen[name], planned[name]),
                   **({"layers": layer_rows(chosen[name], planned[name])} if layers else {})} if name in planned else
            {"runs": False, "fits": False, "reason": str(refused[name])} for name in found}})
        return
    print_table([_row(name, figures(chosen[name], plan), plan) for name, plan in planned.items()], network.name,
                dense=True)
    for name, plan in planned.items() if layers else ():
        print_table(layer_rows(chosen[name], plan), f"{network.name} on {name}", dense=True)
    for name, error in refused.items():
        click.echo(f"{name} can't run it: {error}")


def figures(board: "Board", plan: "Plan") -> dict[str, Any]:
    """What is planned for a board, flat."""
    config, seconds = plan.config, plan.cycles / board.clock_hz
    return {
        "lanes": config.name, "mhz": board.clock_mhz, "fits": plan.fits,
        "activation_kib": round(plan.activation_bytes(plan.memory.peak) / KIB, 1),
        "activation_kib_available": round(plan.activation_bytes(config.act_depth) / KIB, 1),
        "model_kib": round(2 * plan.words / KIB, 1), "model_kib_available": round(2 * config.weight_depth / KIB, 1),
        "predicted_cycles": plan.cycles, "ms": round(1000 * seconds, 3),
        "weights_mb_s": round(plan.weight_bytes / seconds / 1e6, 1),
        "weights_most_mb_s": round(plan.weight_rate * board.clock_hz / 1e6, 1), "external_layers": len(plan.external),
        "maps_mb_s": round(plan.map_bytes / seconds / 1e6, 1), "peak_layer": plan.peak_layer, "needs": dict(plan.needs),
    }


def layer_rows(board: "Board", plan: "Plan") -> list[dict[str, Any]]:
    """Where each layer's part of the model is, and the bandwidth that it needs there."""
    outside = {layer.name for layer in plan.external}
    return [{
        "layer": layer.name, "op": layer.op, "model_kib": round(layer.bytes / KIB, 2),
        "placed": "external" if layer.name in outside else "on-chip", "cycles": layer.cycles.total,
        "mb_s": round(layer.bytes / layer.cycles.total * board.clock_hz / 1e6, 2),
    } for layer in plan.layers]


def _row(name: str, told: dict[str, Any], plan: "Plan") -> dict[str, Any]:
    others = {key: value for key, value in plan.needs.items() if key not in ("act_depth", "weight_depth")}
    return {
        "board": name, "lanes": told["lanes"].removesuffix("x1"), "MHz": f"{told['mhz']:g}",
        **{title: f"{told[key]:,.{int(told[key] < 100)}f} of {told[f'{key}_available']:,.0f}" for title, key in (
            ("maps KiB", "activation_kib"), ("model KiB", "model_kib"))},
        "fits": "yes" if plan.fits else "no", "cycles": told["predicted_cycles"], "ms": told["ms"],
        "weights MB/s": told["weights_mb_s"] if plan.external else None,
        "at most": told["weights_most_mb_s"] if plan.external else None, "maps MB/s": told["maps_mb_s"] or None,
        "peak": told["peak_layer"], "also": ", ".join(f"{key} {value}" for key, value in others.items()) or None,
    }
