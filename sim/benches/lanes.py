"""cocotb bench of :class:`shiftwright.hw.lanes.LaneArray`."""

import dataclasses
from typing import Any

import cocotb

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.timing import read_latency
from ...hw.lanes import LaneArray
from .agents import Bench, signed


def product(config: AcceleratorConfig, x: int, shift: int) -> int:
    """A term's value before its sign (``AcceleratorConfig.guard_bits``)."""
    return (x << shift) >> config.truncate


class Model:
    """All accumulators and what they leave."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.acc = [0] * config.lanes

    def term(self, xs: list[int], shift: int, neg: int) -> None:
        values = [product(self.config, x, shift) for x in xs]
        self.acc = [signed(acc - value if neg else acc + value, self.config.acc_width)
                    for acc, value in zip(self.acc, values, strict=True)]

    def rectify(self) -> None:
        self.acc = [max(0, acc) for acc in self.acc]

    def end(self) -> list[int]:
        """The finished row; accumulators restart."""
        finished, self.acc = self.acc, [0] * self.config.lanes
        return finished


@dataclasses.dataclass
class Pass:
    """A row pass: what it left, its flags, and the cycle in which it reaches the shadows."""

    values: list[int]
    flags: tuple[int, int]
    due: int


class Rows:
    """Drives random operations, drains each row pass (in any order, or as the ring turns) and checks what is read."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.config = bench, bench.config
        self.model = Model(self.config)
        self.rows = self.read = 0
        self.latency = read_latency(self.config)
        self._coming: Pass | None = None
        self._shadows: list[int] = []
        self._flags: tuple[int, int] | None = None
        self._left = self._turned = 0
        self._due: dict[int, int] = {}
        self._ended: Pass | None = None
        bench.agents.append(self)

    def drive(self) -> None:
        config, rng, ports = self.config, self.bench.rng, self.bench.ports
        low, high = -(1 << config.act_bits - 1), (1 << config.act_bits) - 1
        bits = config.act_bits + 1
        kind = rng.choices(("term", "rectify", "none", "eor"), (0.7, 0.1, 0.1, 0.2 if self._may_end() else 0))[0]
        shift, last_x, last = rng.randint(0, config.max_shift), rng.getrandbits(1), rng.getrandbits(1)
        neg, xs = 0, [0] * config.lanes
        if kind == "term":
            neg = rng.getrandbits(1)
            xs = [rng.choice((0, low, high, rng.randint(low, high))) for _ in range(config.lanes)]
            self.model.term(xs, shift, neg)
        elif kind == "rectify":
            self.model.rectify()
        elif kind == "eor":
            self._ended = Pass(self.model.end(), (last_x, last), self.bench.cycle + LaneArray.LATENCY)
            self._coming = self._ended
        ports.put(x=sum((x & (1 << bits) - 1) << n * bits for n, x in enumerate(xs)), shift=shift, neg=neg,
                  rectify=int(kind == "rectify"), eor=int(kind == "eor"), last_x=last_x, last=last)
        self._read()

    def _may_end(self) -> bool:
        return self._coming is None and not self._left

    def _read(self) -> None:
        """Ask for a shadow."""
        rng = self.bench.rng
        lane, turn = rng.randrange(self.config.lanes), 0
        if self._left and self._shadows and rng.random() < 0.8:
            self._left -= 1
            if self.config.shadow_chain:
                turn = int(rng.random() < 0.8)
                lane = self._turned % self.config.lanes
                self._turned += turn
            self._due[self.bench.cycle + self.latency] = self._shadows[lane]
        self.bench.ports.put(drain_lane=lane, drain_shift=turn)

    def sample(self) -> None:
        ports, now = self.bench.ports, self.bench.cycle
        arrives = self._coming is not None and self._coming.due == now
        assert ports.get("finished") == arrives, "finished"
        if now in self._due:
            found, wanted = signed(ports.get("head"), self.config.acc_width), self._due.pop(now)
            assert found == wanted, f"row pass {self.rows}: read {found}, expected {wanted} of {self._shadows}"
            self.read += 1
        if arrives:
            assert self._coming is not None
            self._shadows, self._flags = self._coming.values, self._coming.flags
            self._left, self._turned, self._coming = self.bench.rng.randint(1, 2 * self.config.lanes), 0, None
            self.rows += 1
        if self._flags is not None and (self._coming is None or arrives):
            assert (ports.get("finished_last_x"), ports.get("finished_last")) == self._flags, "flags are held"


@cocotb.test()
async def rows_accumulate_and_are_read(dut: Any) -> None:
    """Sums of extreme and random activations, rectified at random; the next row's terms run while one is read."""
    bench = await Bench.open(dut, "lanes")
    for _ in range(3 * bench.rounds):
        # Garbage of before must not stay.
        bench.ports.put(x=bench.rng.getrandbits(bench.config.lanes * (bench.config.act_bits + 1)), eor=0, rectify=0)
        await bench.step(3)
        bench.ports.put(x=0, neg=0)
        await bench.step(2)
        await bench.strobe(restart=1)
        await bench.step(2)
        rows = Rows(bench)
        await bench.step(200 + 10 * bench.config.lanes)
        assert rows.rows >= 3 and rows.read >= 3
        bench.agents.remove(rows)
