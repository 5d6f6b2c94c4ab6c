"""cocotb bench of :class:`shiftwright.hw.lanes.Lane` and :class:`shiftwright.hw.lanes.LaneArray`."""

from typing import Any

import cocotb

from ...hw.arch.config import AcceleratorConfig
from .agents import Bench, signed

FINISH = 2
"""Cycles from an end of row to ``finished``."""


def product(config: AcceleratorConfig, x: int, shift: int) -> int:
    """A term's value before its sign (``AcceleratorConfig.guard_bits``)."""
    return (x << shift) >> config.truncate


class Model:
    """All accumulators and what they leave."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.acc = [0] * config.lanes

    def term(self, xs: list[int], shift: int, neg: int, maximum: bool) -> None:
        for n, x in enumerate(xs):
            if maximum:
                self.acc[n] = max(self.acc[n], x)
            else:
                value = product(self.config, x, shift)
                self.acc[n] = signed(self.acc[n] + (-value if neg else value), self.config.acc_width)

    def end(self, pad: int) -> list[int]:
        """The finished row; accumulators restart from the padding."""
        finished, self.acc = self.acc, [pad] * self.config.lanes
        return finished


class Rows:
    """Drives random terms and ends of row, and checks each row's drain."""

    def __init__(self, bench: Bench, maximum: bool) -> None:
        self.bench, self.config, self.maximum = bench, bench.config, maximum
        self.model = Model(self.config)
        self.pad = -(1 << self.config.act_bits) if maximum else 0
        self.model.acc = [self.pad] * self.config.lanes
        self.rows = 0
        self._shadows: list[int] = []
        self._finishing: list[tuple[list[int], int] | None] = [None] * FINISH
        self._sample_finish: tuple[list[int], int] | None = None
        self._draining = 0
        self._quiet = 0
        bench.agents.append(self)

    def put_x(self, xs: list[int]) -> None:
        bits = self.config.act_bits + 1
        self.bench.ports.put(x=sum((x & (1 << bits) - 1) << n * bits for n, x in enumerate(xs)))

    def drive(self) -> None:
        config, rng, ports = self.config, self.bench.rng, self.bench.ports
        low, high = -(1 << config.act_bits - 1), (1 << config.act_bits) - 1
        self._sample_finish = None
        # A row may only end when the shadows are drained.
        free = not self._shadows and not any(self._finishing) and not self._quiet
        self._quiet = max(0, self._quiet - 1)
        term, eor = rng.random() < 0.7, 0
        if free and rng.random() < 0.2:
            term, eor = False, 1
        # Maxima are of unshifted, positive terms; the shift is ignored.
        shift, last = rng.randint(0, config.max_shift), rng.getrandbits(1)
        neg = 0 if self.maximum else rng.getrandbits(1)
        xs = [self.pad] * config.lanes
        if term:
            xs = [rng.choice((low, high, rng.randint(low, high))) for _ in range(config.lanes)]
        self.put_x(xs)
        ports.put(shift=shift, neg=neg, term=int(term), eor=eor, row_last=last, maximum=int(self.maximum))
        if term:
            self.model.term(xs, shift, neg, self.maximum)
        if eor:
            self._sample_finish = self.model.end(self.pad), last
            self._quiet = FINISH + 1
        self._draining = int(bool(self._shadows) and rng.random() < 0.7)
        ports.put(drain=self._draining)

    def sample(self) -> None:
        ports = self.bench.ports
        arrived = self._finishing.pop(0)
        self._finishing.append(self._sample_finish)
        assert ports.get("finished") == (arrived is not None), "finished"
        if arrived is not None:
            assert ports.get("finished_row_last") == arrived[1], "finished_row_last"
            self._shadows = list(arrived[0])
            self.rows += 1
        if self._shadows:
            found = signed(ports.get("head"), self.config.acc_width)
            assert found == self._shadows[0], f"row {self.rows}: the head is {found}, expected {self._shadows}"
        if self._draining:
            self._shadows.pop(0)


async def _restart(bench: Bench, maximum: bool) -> None:
    bits = bench.config.act_bits + 1
    pad = 1 << bits - 1 if maximum else 0
    bench.ports.put(x=sum(pad << n * bits for n in range(bench.config.lanes)), term=0, eor=0, drain=0,
                    maximum=int(maximum))
    await bench.step(4)
    await bench.strobe(restart=1)
    await bench.step(2)


@cocotb.test()
async def rows_accumulate_and_drain(dut: Any) -> None:
    """Sums and maxima of extreme and random activations; the next row's terms run while one drains."""
    bench = await Bench.open(dut, "lanes")
    for number in range(4 * bench.rounds):
        maximum = bool(number % 2)
        await _restart(bench, maximum)
        rows = Rows(bench, maximum)
        await bench.step(250)
        assert rows.rows >= 3
        bench.agents.remove(rows)


@cocotb.test()
async def a_lane_alone(dut: Any) -> None:
    """Every shift, both signs, extremes: product, accumulation, the shadow's load, hold and chain."""
    bench = await Bench.open(dut, "lane")
    ports, rng, config = bench.ports, bench.rng, bench.config
    for _ in range(2 * bench.rounds):
        ports.put(x=0, neg=0, maximum=0, add=0, drain=0, neg_add=0, shift=0)
        await bench.step(2)
        await bench.strobe(eor=1)
        acc = 0
        for shift in range(config.max_shift + 1):
            for neg in (0, 1):
                x = rng.choice((-(1 << config.act_bits - 1), (1 << config.act_bits) - 1, rng.randint(-3, 3)))
                ports.put(x=x, shift=shift, neg=neg)
                await bench.step()
                ports.put(x=rng.randint(-3, 3), add=1, neg_add=neg)
                await bench.step()
                ports.put(add=0)
                acc += (-1) ** neg * product(config, x, shift)
        ports.put(x=0, neg=0, neg_add=0)
        await bench.step()
        await bench.strobe(eor=1)
        wanted = signed(acc, config.acc_width)
        assert signed(ports.get("shadow"), config.acc_width) == wanted
        ports.put(shadow_in=rng.getrandbits(config.acc_width))
        await bench.step(3)
        assert signed(ports.get("shadow"), config.acc_width) == wanted, "the shadow holds without drain"
        await bench.strobe(drain=1, shadow_in=-7)
        assert signed(ports.get("shadow"), config.acc_width) == -7, "the shadow takes its neighbour's"
