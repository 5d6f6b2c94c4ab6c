"""cocotb bench of :class:`shiftwright.hw.tapgen.TapGenerator` against the definition of a convolution."""

from typing import Any

import cocotb

from ...hw.activations import ActivationMemory
from ...hw.arch.image import OpKind
from ...hw.tapgen import TapGenerator
from .agents import Bench
from .convolutions import Issue, Shape, load, op_word, plan, random_row, random_shape

ADDRESS = TapGenerator.LATENCY
OUTSIDE_Y, OUTSIDE_X = ADDRESS + ActivationMemory.OUTSIDE_Y_DELAY, ADDRESS + ActivationMemory.OUTSIDE_X_DELAY
CONTROL = ADDRESS + ActivationMemory.LATENCY
OVERRUN = 4


class Walker:
    """Issues operations with gaps, and checks what comes out some cycles later."""

    def __init__(self, bench: Bench, shape: Shape, *, gap: float = 0.0) -> None:
        self.bench, self.shape, self.gap = bench, shape, gap
        self.items: list[Issue] = []
        self.checked = self.masked = 0
        # What was issued so many cycles ago.
        self._ago: list[Issue | None] = [None] * (CONTROL + 1)
        self._overrun = False
        bench.agents.append(self)

    @property
    def idle(self) -> bool:
        return not self.items and not any(self._ago)

    def drive(self) -> None:
        bench, rng = self.bench, self.bench.rng
        item = self.items.pop(0) if self.items and not bench.chance(self.gap) else None
        bench.ports.put(op=op_word(item.op) if item else rng.getrandbits(17), op_valid=int(item is not None),
                        op_last_x=item.last_x if item else rng.getrandbits(1),
                        op_last=item.last if item else rng.getrandbits(1))
        self._ago = [item, *self._ago[:-1]]

    def sample(self) -> None:
        ports, shape, ago = self.bench.ports, self.shape, self._ago
        self._overrun |= self._is_term(ago[OVERRUN]) and not self._is_known(ago[OVERRUN])
        assert ports.get("overrun") == self._overrun, "overrun"
        self._check_control(ago[CONTROL])
        if not self._is_term(ago[OUTSIDE_Y]):
            outside_y = ports.get("outside_y")
            assert outside_y == (1 << shape.y.lanes) - 1, f"{ago[OUTSIDE_Y]}: lane rows {outside_y:b}"
        elif (item := ago[OUTSIDE_Y]) and self._is_known(item):
            outside_y = ports.get("outside_y")
            for i in range(min(shape.y.lanes, shape.y.out - item.y)):
                inside = shape.locate(item, i, 0)[0]
                assert (outside_y >> i & 1) != inside, f"{item}: lane row {i}, {shape}"
                self.masked += not inside
        if (item := ago[OUTSIDE_X]) and self._is_known(item):
            outside_x = ports.get("outside_x")
            for j in range(min(shape.x.lanes, shape.x.out - item.x)):
                inside = shape.locate(item, 0, j)[1]
                assert (outside_x >> j & 1) != inside, f"{item}: lane column {j}, {shape}"
                self.masked += not inside
        if (item := ago[ADDRESS]) and self._is_known(item):
            self._check_addresses(item)

    def _is_term(self, item: Issue | None) -> bool:
        return item is not None and item.tap is not None

    def _is_known(self, item: Issue | None) -> bool:
        return item is not None and item.tap is not None and item.tap < self.shape.taps

    def _check_control(self, item: Issue | None) -> None:
        names = ("term", "neg", "shift", "rectify", "eor", "last_x", "last")
        found = tuple(self.bench.ports.get(name) for name in names)
        wanted: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0)
        if item is not None and item.op.kind == OpKind.EOR:
            wanted = (0, 0, 0, 0, 1, item.last_x, item.last)
        elif item is not None and item.op.kind == OpKind.SKIP:
            wanted = (0, 0, 0, item.rectify, 0, 0, 0)
        elif item is not None:
            wanted = (1, item.op.kind == OpKind.SUB, item.op.shift, 0, 0, 0, 0)
        assert found == wanted, f"{item}: {names} are {found}"

    def _check_addresses(self, item: Issue) -> None:
        shape, ports = self.shape, self.bench.ports
        residue_y, residue_x = ports.get("residue_y"), ports.get("residue_x")
        addr, addr_y = ports.get("addr"), ports.get("addr_y")
        depth = 1 << (self.bench.config.act_depth - 1).bit_length()
        for i in range(min(shape.y.lanes, shape.y.out - item.y)):
            for j in range(min(shape.x.lanes, shape.x.out - item.x)):
                inside_y, inside_x, wanted_bank, wanted = shape.locate(item, i, j)
                if not (inside_y and inside_x):
                    continue
                bank = (residue_y + i) % shape.y.lanes, (residue_x + j) % shape.x.lanes
                assert bank == wanted_bank, f"{item}: lane {i, j} reads bank {bank}, its pixel lies in {wanted_bank}"
                found = (addr_y if residue_y > bank[0] else addr) + (shape.pitch if residue_x > bank[1] else 0)
                assert (found - wanted) % depth == 0, f"{item}: lane {i, j} reads {found}, not {wanted}, {shape}"
                self.checked += 1


@cocotb.test()
async def every_lane_finds_its_pixel(dut: Any) -> None:
    """Random convolutions: kernels, strides, dilations, paddings, groups, residuals, any number of channels; operations
    without a pause and with; some layers given up."""
    bench = await Bench.open(dut, "tapgen")
    checked = masked = 0
    for number in range(16 * bench.rounds):
        channels = (1, 1, 2, bench.rng.randint(3, 9), bench.rng.randint(8, 80))[number % 5]
        shape = random_shape(bench.rng, bench.config, channels)
        await load(bench, shape)
        walker = Walker(bench, shape, gap=(0.0, 0.3)[number % 2])
        items = plan(bench.rng, shape, 250)
        # Every fourth layer is left in the middle of a row.
        walker.items = items[:len(items) * 2 // 3] if number % 4 == 3 else items
        await bench.until(lambda walker=walker: walker.idle, 2 * len(items) + 200, f"layer {number}")  # type: ignore[misc]
        bench.agents.remove(walker)
        bench.ports.put(op_valid=0)
        checked, masked = checked + walker.checked, masked + walker.masked
    assert checked > 200 * bench.rounds, f"only {checked} addresses were looked at"
    assert masked > 20 * bench.rounds, f"only {masked} lanes were outside"


@cocotb.test()
async def maps_of_one_block_end_rows_every_cycle(dut: Any) -> None:
    """Rows without a term, and of one term, each an operation after the other, over group boundaries."""
    bench = await Bench.open(dut, "tapgen")
    for number in range(6 * bench.rounds):
        while (shape := random_shape(bench.rng, bench.config, bench.rng.choice((1, 3)))).x.out > shape.x.lanes \
                or shape.y.out > shape.y.lanes:
            pass
        await load(bench, shape)
        walker = Walker(bench, shape)
        for row in range(shape.rows):
            taps = bench.rng.choice(([], [bench.rng.randrange(shape.channels)]))
            walker.items += [Issue(op, tap, row, True, True, 0, 0) for op, tap in random_row(bench.rng, shape, taps)]
        await bench.until(lambda walker=walker: walker.idle, 1000, f"case {number}")  # type: ignore[misc]
        bench.agents.remove(walker)
        bench.ports.put(op_valid=0)


@cocotb.test()
async def terms_outside_the_positions_are_reported(dut: Any) -> None:
    """A term behind the last tap raises ``overrun`` until it is cleared; everything else does not."""
    bench = await Bench.open(dut, "tapgen")
    for number in range(6 * bench.rounds):
        shape = random_shape(bench.rng, bench.config, (1, 5)[number % 2])
        await load(bench, shape)
        taps = shape.taps
        # Also where a position of the table's depth would have come around.
        around = 2 * bench.config.positions * shape.channels
        beyond = bench.rng.choice(([taps], [2 * taps + 1], [around], [around + bench.rng.randrange(taps)]))
        for chosen in ([*range(0, taps, 3), taps - 1], beyond, [0]):
            walker = Walker(bench, shape)
            walker.items = [Issue(op, tap, 0, True, True, 0, 0) for op, tap in random_row(bench.rng, shape, chosen)]
            await bench.until(lambda walker=walker: walker.idle, 8000, f"case {number}")  # type: ignore[misc]
            bench.agents.remove(walker)
            bench.ports.put(op_valid=0)
            assert bench.ports.get("overrun") == (chosen is beyond)
            await bench.strobe(clear=1)
            await load(bench, shape)


@cocotb.test()
async def a_probe_addresses_one_bank(dut: Any) -> None:
    """While no layer runs, the host reads bank by bank; lane (0, 0) is not masked until the next table is loaded."""
    bench = await Bench.open(dut, "tapgen")
    # So that masks are known.
    await load(bench, random_shape(bench.rng, bench.config, 1))
    await bench.step(CONTROL)
    config, ports = bench.config, bench.ports
    for _ in range(10):
        addr, y, x = (bench.rng.randrange(limit) for limit in (config.act_depth, config.lanes_y, config.lanes_x))
        await bench.strobe(probe=1, probe_addr=addr, probe_y=y, probe_x=x)
        await bench.step(ADDRESS - TapGenerator.PROBE_LEAD - 1)
        assert tuple(ports.get(name) for name in ("addr", "residue_y", "residue_x")) == (addr, y, x)
        await bench.step(OUTSIDE_X - ADDRESS)
        assert (ports.get("outside_y") | ports.get("outside_x")) & 1 == 0
        assert ports.get("probing")
    await bench.strobe(load_begin=1)
    await bench.step(1)
    assert ports.get("outside_y") == (1 << config.lanes_y) - 1
    assert not ports.get("probing")
