"""cocotb bench of :class:`shiftwright.hw.blocks.BlockCounter`."""

from typing import Any

import cocotb

from .agents import Bench


@cocotb.test()
async def blocks_cover_the_map_once(dut: Any) -> None:
    """Maps of one pixel, of one block, of one row or column of blocks and larger; twice over each, at full speed."""
    bench = await Bench.open(dut, "blocks")
    ports, rng, config = bench.ports, bench.rng, bench.config
    lanes_y, lanes_x = config.lanes_y, config.lanes_x
    most = (1 << config.map_bits) - 1
    sizes = [(1, 1), (lanes_y, lanes_x), (lanes_y + 1, 1), (1, lanes_x + 1), (3 * lanes_y, 2 * lanes_x), (most, 1),
             (1, most)]
    sizes += [(rng.randint(1, 5 * lanes_y), rng.randint(1, 5 * lanes_x)) for _ in range(6 * bench.rounds)]
    for height, width in sizes:
        ports.put(out_h=height, out_w=width)
        await bench.step(2)
        await bench.strobe(start=1)
        places = [(y, x) for y in range(0, height, lanes_y) for x in range(0, width, lanes_x)]
        single = len(places) == 1
        if not single:
            await bench.step()
        for y, x in places[:300] + ([] if len(places) > 300 else places):
            found = tuple(ports.get(name) for name in ("y", "x", "last_x", "last"))
            wanted = y, x, int(x + lanes_x >= width), int(x + lanes_x >= width and y + lanes_y >= height)
            assert found == wanted, f"map {height} x {width}: (y, x, last_x, last) is {found}, expected {wanted}"
            await bench.strobe(advance=1)
            if not single:
                await bench.step(1 + rng.randrange(2))
        if single:
            # A map of one block may advance in every cycle.
            ports.put(advance=1)
            for _ in range(3):
                await bench.step()
                assert (ports.get("y"), ports.get("x"), ports.get("last_x"), ports.get("last")) == (0, 0, 1, 1)
            ports.put(advance=0)
        # Then in the middle of a map, back to its first block.
        await bench.step(2)
        await bench.strobe(start=1)
        await bench.step(2)
        assert (ports.get("y"), ports.get("x"), ports.get("last")) == (0, 0, int(single)), "start does not restart"
