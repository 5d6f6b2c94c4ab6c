"""cocotb bench of :class:`shiftwright.hw.window.Window`: convolutions of random tensors, and the host's probes."""

from typing import Any

import cocotb

from ...hw.arch.image import Flag
from ...hw.window import Window
from .agents import Bench, fill_banks, signed
from .convolutions import Issue, Shape, load, op_word, plan, random_shape


class Reader:
    """Issues operations, and compares all lanes with the tensor.

    Parameters
    ----------
    bench : Bench
    shape : Shape
    banks : list of list of int
        What the activation memory holds.
    flags : Flag
        Of the layer.
    """

    def __init__(self, bench: Bench, shape: Shape, banks: list[list[int]], flags: Flag) -> None:
        self.bench, self.shape, self.banks, self.flags = bench, shape, banks, flags
        self.items: list[Issue] = []
        self.checked = 0
        self._ago: list[Issue | None] = [None] * (Window.LATENCY + 1)
        bench.agents.append(self)

    @property
    def idle(self) -> bool:
        return not self.items and not any(self._ago)

    def drive(self) -> None:
        item = self.items.pop(0) if self.items and not self.bench.chance(0.1) else None
        self.bench.ports.put(op=op_word(item.op) if item else self.bench.rng.getrandbits(17),
                             op_valid=int(item is not None), op_last_x=int(item is not None and item.last_x),
                             op_last=int(item is not None and item.last))
        self._ago = [item, *self._ago[:-1]]

    def _value(self, item: Issue, i: int, j: int) -> int:
        bits, (inside_y, inside_x, bank, address) = self.bench.config.act_bits, self.shape.locate(item, i, j)
        if not (inside_y and inside_x):
            return 0
        value = self.banks[bank[0] * self.shape.x.lanes + bank[1]][address % len(self.banks[0])]
        if Flag.X_SIGNED not in self.flags:
            return value
        return value ^ 1 << bits - 1 if Flag.MAX in self.flags else signed(value, bits)

    def sample(self) -> None:
        ports, shape, item = self.bench.ports, self.shape, self._ago[-1]
        word, bits = ports.get("x"), self.bench.config.act_bits + 1
        assert ports.get("term") == (item is not None and item.tap is not None), item
        if item is None or item.tap is None:
            assert word == 0, f"{item}: lanes are not 0"
            return
        for i in range(min(shape.y.lanes, shape.y.out - item.y)):
            for j in range(min(shape.x.lanes, shape.x.out - item.x)):
                found, wanted = signed(word >> (i * shape.x.lanes + j) * bits, bits), self._value(item, i, j)
                assert found == wanted, f"{item}: lane {i, j} is {found}, not {wanted}"
                self.checked += 1


@cocotb.test()
async def lanes_see_their_pixels(dut: Any) -> None:
    """Convolutions of every signedness, added or compared; between layers the host looks at the banks."""
    bench = await Bench.open(dut, "window")
    config = bench.config
    # Layers lie anywhere, so addresses come around.
    assert config.act_depth & config.act_depth - 1 == 0, "this bench needs an act_depth that is a power of two"
    banks = await fill_banks(bench)
    checked = 0
    for number in range(8 * bench.rounds):
        flags = (Flag(0), Flag.X_SIGNED, Flag.MAX, Flag.MAX | Flag.X_SIGNED)[number % 4]
        shape = random_shape(bench.rng, bench.config, (1, 3, 20)[number % 3])
        await load(bench, shape, tag_flags=int(flags))
        reader = Reader(bench, shape, banks, flags)
        reader.items = plan(bench.rng, shape, 100)
        limit = 2 * len(reader.items) + 200
        await bench.until(lambda reader=reader: reader.idle, limit, f"layer {number}")  # type: ignore[misc]
        checked += reader.checked
        bench.agents.remove(reader)
        bench.ports.put(op_valid=0)
        for _ in range(4):
            bank, addr = bench.rng.randrange(bench.config.lanes), bench.rng.randrange(bench.config.act_depth)
            await bench.strobe(probe=1, probe_bank=bank, probe_addr=addr)
            await bench.step(Window.PROBE_LATENCY - 1)
            assert bench.ports.get("raw") == banks[bank][addr], f"bank {bank}, address {addr}"
    assert checked > 100 * bench.rounds, "too few lanes had a pixel"
