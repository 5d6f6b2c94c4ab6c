"""cocotb bench of :class:`shiftwright.hw.blocks.BlockCounter`."""

from typing import Any

import cocotb

from .agents import Bench


@cocotb.test()
async def blocks_cover_the_map(dut: Any) -> None:
    """Maps of one pixel, of one block, of one row or column of blocks and larger, some of them twice."""
    bench = await Bench.open(dut, "blocks")
    ports, rng, config = bench.ports, bench.rng, bench.config
    lanes_y, lanes_x = config.lanes_y, config.lanes_x
    most = (1 << config.map_bits) - 1
    sizes = [(1, 1), (lanes_y, lanes_x), (lanes_y + 1, 1), (1, lanes_x + 1), (3 * lanes_y, 2 * lanes_x), (most, 1),
             (1, most), (most - most % lanes_y, 1)]
    sizes += [(rng.randint(1, 5 * lanes_y), rng.randint(1, 5 * lanes_x)) for _ in range(6 * bench.rounds)]
    for height, width in sizes:
        ports.put(out_h=height, out_w=width)
        await bench.strobe(start=1)
        places = [(y + lanes_y >= height, x + lanes_x >= width)
                  for y in range(0, height, lanes_y) for x in range(0, width, lanes_x)]
        for down, across in places * (2 if len(places) < 300 else 1):
            found = ports.get("last_x"), ports.get("last")
            wanted = int(across), int(across and down)
            assert found == wanted, f"map {height} x {width}: (last_x, last) is {found}, expected {wanted}"
            await bench.strobe(advance=1)
            await bench.step(rng.choice((0, 0, 1)))
        # Then in the middle of a map, back to its first block.
        await bench.step(rng.randrange(4))
