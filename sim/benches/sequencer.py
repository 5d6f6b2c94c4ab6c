"""cocotb bench of :class:`shiftwright.hw.sequencer.Sequencer`: what it loads, when it starts a layer, how it ends."""

import dataclasses
import random
from typing import Any

import cocotb

from ...hw.arch.bus import Status
from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import DESCRIPTOR, DESCRIPTOR_TAG, KERNEL_ENTRY_WORDS, MODEL_MAGIC, WATCHDOG_UNIT
from .agents import Bench, Memory, layer_word

HEADER, DESCRIPTOR_SECTION, ROWS, COLUMNS, CODES, DICTIONARY = range(6)
END_LIMIT = 12
"""Cycles from the cause of an end to ``done``, when no memory is waited for."""


@dataclasses.dataclass
class Layer:
    """A layer of a model: descriptor fields, and random words for all else."""

    fields: dict[str, int]
    tables: list[tuple[int, list[int]]]
    sizes: tuple[int, int, int]
    """Words of parameters and of the sub-streams."""

    @classmethod
    def random(cls, rng: random.Random, config: AcceleratorConfig) -> "Layer":
        height, width = (rng.choice((1, config.kernel_max, rng.randint(1, min(4, config.kernel_max))))
                         for _ in range(2))
        sizes = rng.randrange(5), rng.randrange(5), rng.randrange(5)
        counts = ((ROWS, KERNEL_ENTRY_WORDS * height), (COLUMNS, KERNEL_ENTRY_WORDS * width),
                  (CODES, config.max_code_bits), (DICTIONARY, rng.choice((0, 1, 30))))
        fields = {name: rng.getrandbits(16) for name in DESCRIPTOR}
        most = (1 << config.map_bits) - 1
        fields |= {
            "tag_flags": DESCRIPTOR_TAG << 12 | rng.getrandbits(12), "channels": rng.choice((1, config.act_depth)),
            "kernel": height << 8 | width, "rows": rng.randint(1, 0xFFFF), "group_rows": rng.randint(1, 0xFFFF),
            "out_h": rng.choice((1, most)), "out_w": rng.choice((1, most)), "dict_words": counts[3][1],
        }
        for name, size in zip(("param", "a", "b"), sizes, strict=True):
            fields |= {f"{name}_words_lo": size, f"{name}_words_hi": 0}
        return cls(fields, [(section, [rng.getrandbits(16) for _ in range(count)]) for section, count in counts], sizes)

    @property
    def head(self) -> list[int]:
        return [self.fields[name] for name in DESCRIPTOR]


@dataclasses.dataclass
class Model:
    """A model memory, and what the sequencer must load of it."""

    layers: list[Layer]
    magic: int = MODEL_MAGIC

    @property
    def words(self) -> list[int]:
        body: list[int] = []
        for layer in self.layers:
            body += layer.head + [word for _, words in layer.tables for word in words] + [0xBAD] * sum(layer.sizes)
        total = 4 + len(body)
        return [self.magic, len(self.layers), total & 0xFFFF, total >> 16, *body]

    def loads(self, number: int) -> list[tuple[int, int]]:
        """Sections and words of a layer."""
        layer = self.layers[number]
        return [(DESCRIPTOR_SECTION, word) for word in layer.head] + [
            (section, word) for section, words in layer.tables for word in words]

    def starts(self, number: int) -> tuple[int, ...]:
        """First words of parameters, sub-streams and the next layer."""
        at = 4 + sum(len(self.loads(n)) + sum(self.layers[n].sizes) for n in range(number)) + len(self.loads(number))
        sizes = self.layers[number].sizes
        return at, at + sizes[0], at + sizes[0] + sizes[1], at + sum(sizes)


class Monitor:
    """Records what the sequencer does."""

    def __init__(self, bench: Bench) -> None:
        self.ports = bench.ports
        self.loads: list[tuple[int, int]] = []
        self.begins: list[int] = []
        """Number of words loaded before each ``load_begin``."""
        self.runs = self.layers = self.clears = 0
        bench.agents.append(self)

    def drive(self) -> None:
        pass

    def sample(self) -> None:
        ports = self.ports
        if ports.get("load_valid"):
            self.loads.append((ports.get("load_section"), ports.get("load")))
        if ports.get("load_begin"):
            self.begins.append(len(self.loads))
        self.runs += ports.get("run")
        self.layers += ports.get("layer_done")
        self.clears += ports.get("clear")


class SequencerBench:
    """Plays host and units."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ports, self.rng = bench, bench.ports, bench.rng
        self.memory = Memory(bench, "mem")
        self.monitor = Monitor(bench)

    def model(self, layers: int = 1) -> Model:
        return Model([Layer.random(self.rng, self.bench.config) for _ in range(layers)])

    async def start(self, words: list[int], stall: float = 0.0) -> None:
        self.memory.words, self.memory.stall = words, stall
        self.memory.filler = self.rng.getrandbits(16)
        monitor = self.monitor
        monitor.loads, monitor.begins = [], []
        monitor.runs = monitor.layers = monitor.clears = 0
        await self.bench.strobe(start=1)
        assert self.ports.get("busy") and not self.ports.get("done")

    async def until_run(self, what: str) -> None:
        """Until the layer begins."""
        before = self.monitor.runs
        await self.bench.until(lambda: self.monitor.runs > before, 4000, f"{what}: the layer's start")

    async def end(self, status: Status, what: str, limit: int = END_LIMIT) -> None:
        """The run must end with a status, once, and clear the units."""
        await self.bench.until(lambda: bool(self.ports.get("done")), limit, f"{what}: the end")
        found = Status(self.ports.get("status"))
        assert found == status, f"{what}: ended with {found!r}, expected {status!r}"
        assert not self.ports.get("busy")
        assert self.monitor.clears >= 1, f"{what}: units were not cleared"
        await self.bench.step(4)
        requests = len(self.memory.requests)
        await self.bench.step(8)
        assert len(self.memory.requests) == requests, f"{what}: requests after the end"

    async def good(self, what: str, layers: int = 1, stall: float = 0.0, pause: bool = False) -> None:
        """A sound model, checked in every respect."""
        bench, ports, monitor = self.bench, self.ports, self.monitor
        model = self.model(layers)
        words = model.words
        await self.start(words, stall)
        wanted = [(HEADER, word) for word in words[:4]]
        for number, layer in enumerate(model.layers):
            where = f"{what}, layer {number}"
            await self.until_run(where)
            wanted += model.loads(number)
            assert monitor.loads == wanted, f"{where}: loads differ"
            assert monitor.begins[-1] == len(wanted) - len(model.loads(number)), f"{where}: load_begin"
            found = tuple(ports.get(f"addr_{name}") for name in ("parameters", "a", "b", "next"))
            assert found == model.starts(number), f"{where}: sections start at {found}, expected {model.starts(number)}"
            assert ports.get("layer") == layer_word(**layer.fields), f"{where}: descriptor"
            assert ports.get("layer_number") == number
            ports.put(pause=int(pause))
            await bench.step(self.rng.randrange(1, 30))
            clears = monitor.clears
            await bench.strobe(finished=1)
            assert monitor.clears == clears + 1, f"{where}: units are cleared when the layer has finished"
            if pause:
                await bench.step(20)
                assert ports.get("paused") and ports.get("busy"), f"{where}: does not wait"
                assert monitor.loads == wanted, f"{where}: loads while paused"
                ports.put(pause=0)
        await self.end(Status.OK, what)
        assert monitor.layers == monitor.runs == layers
        assert self.memory.requests[-len(wanted):] == [
            addr for n in range(layers) for addr in ([0, 1, 2, 3] if n == 0 else [])
            + list(range(model.starts(n)[0] - len(model.loads(n)), model.starts(n)[0]))]


@cocotb.test()
async def sound_models_run(dut: Any) -> None:
    """One to three layers, idle and stalling memory, with and without pauses."""
    unit = SequencerBench(await Bench.open(dut, "sequencer"))
    for number in range(6 * unit.bench.rounds):
        await unit.good(f"model {number}", layers=1 + number % 3, stall=(0.0, 0.5)[number % 2], pause=number % 4 >= 2)


@cocotb.test()
async def bad_headers_and_descriptors(dut: Any) -> None:
    """Each rule broken once, in the first or the second layer; a sound model runs after each."""
    bench = await Bench.open(dut, "sequencer")
    unit, config = SequencerBench(bench), bench.config
    for words in ([MODEL_MAGIC ^ 1, 1, 100, 0], [0, 1, 100, 0], [MODEL_MAGIC, 0, 100, 0],
                  [MODEL_MAGIC, 1, 100, 0x8000]):
        await unit.start(words)
        await unit.end(Status.BAD_MODEL, f"header {words}", limit=40)
        assert unit.monitor.runs == 0
    bad = [("tag_flags", 0xC123), ("tag_flags", 0x0123), ("channels", 0), ("channels", config.act_depth + 1),
           ("rows", 0), ("group_rows", 0), ("out_h", 0), ("out_w", 0), ("out_h", 1 << config.map_bits),
           ("out_w", 1 << config.map_bits), ("kernel", 0x0001), ("kernel", 0x0100),
           ("kernel", config.kernel_max + 1 << 8 | 1), ("kernel", 0x100 | config.kernel_max + 1)]
    for number, (field, value) in enumerate(bad):
        what = f"{field} = {value:#x}"
        model = unit.model(2)
        words = model.words
        at = number % 2
        words[4 + at * (model.starts(0)[3] - 4) + DESCRIPTOR.index(field)] = value
        await unit.start(words, stall=0.2)
        if at:
            await unit.until_run(what)
            await bench.strobe(finished=1)
        await unit.end(Status.BAD_DESCRIPTOR, what, limit=200)
        assert (unit.monitor.runs, bench.ports.get("layer_number")) == (at, at), f"{what}: the layer was started"
        await unit.good(f"after {what}")


@cocotb.test()
async def sections_past_the_end(dut: Any) -> None:
    """A model that ends inside any section, and sizes so large that addresses would wrap."""
    bench = await Bench.open(dut, "sequencer")
    unit = SequencerBench(bench)
    model = unit.model()
    words, starts = model.words, model.starts(0)
    cuts = {4, 5, 31, 32, starts[0] - 1, starts[0], *(max(starts[0], start - 1) for start in starts[1:])}
    for total in sorted(cut for cut in cuts if cut < len(words)):
        cut = list(words)
        cut[2:4] = total & 0xFFFF, total >> 16
        await unit.start(cut)
        await unit.end(Status.STREAM_OVERRUN, f"{total} of {len(words)} words", limit=600)
        assert unit.monitor.runs == 0
    await unit.start(words)
    await unit.until_run("the whole model")
    await bench.strobe(finished=1)
    await unit.end(Status.OK, "the whole model")
    width = (bench.config.weight_depth - 1).bit_length()
    for name in ("param", "a", "b"):
        for size in (len(words), bench.config.weight_depth - 1, (1 << width + 1) - 1, 1 << width + 1, 1 << 16, 1 << 31,
                     (1 << 32) - 1):
            cut = list(words)
            cut[4 + DESCRIPTOR.index(f"{name}_words_lo")] = size & 0xFFFF
            cut[4 + DESCRIPTOR.index(f"{name}_words_hi")] = size >> 16
            await unit.start(cut)
            await unit.end(Status.STREAM_OVERRUN, f"{name}_words = {size:#x}", limit=600)
            assert unit.monitor.runs == 0
    cut = list(words)
    cut[4 + DESCRIPTOR.index("dict_words")] = 0xFFFF
    await unit.start(cut)
    await unit.end(Status.STREAM_OVERRUN, "dict_words", limit=600)


@cocotb.test()
async def errors_of_units_end_the_run(dut: Any) -> None:
    """Each error at a random moment of the layer; before it, errors of a layer that does not run are nothing."""
    bench = await Bench.open(dut, "sequencer")
    unit = SequencerBench(bench)
    for name, status in (("bad_codeword", Status.BAD_CODEWORD), ("stream_overrun", Status.STREAM_OVERRUN),
                         ("tap_overrun", Status.TAP_OVERRUN)) * bench.rounds:
        await unit.start(unit.model(2).words)
        await unit.until_run(name)
        await bench.step(bench.rng.randrange(1, 50))
        await bench.strobe(**{name: 1})
        await unit.end(status, name)
        assert bench.ports.get("layer_number") == 0 and unit.monitor.layers == 0
        await unit.good(f"after {name}")


@cocotb.test()
async def the_watchdog_bounds_a_layer(dut: Any) -> None:
    """A layer that is never finished ends at its bound; one that finishes just before does not."""
    bench = await Bench.open(dut, "sequencer")
    unit = SequencerBench(bench)
    model = unit.model()
    model.layers[0].fields["watchdog"] = 0
    await unit.start(model.words)
    await unit.until_run("watchdog")
    begin = bench.cycle
    await unit.end(Status.WATCHDOG, "watchdog", limit=WATCHDOG_UNIT + 20)
    assert bench.cycle - begin >= WATCHDOG_UNIT
    await unit.start(model.words)
    await unit.until_run("watchdog")
    await bench.step(WATCHDOG_UNIT - 8)
    await bench.strobe(finished=1)
    await unit.end(Status.OK, "a layer that just makes it")


@cocotb.test()
async def abort_ends_a_run_at_any_moment(dut: Any) -> None:
    """While loading, running, at the boundary and held there; without a run it is nothing."""
    bench = await Bench.open(dut, "sequencer")
    unit, ports = SequencerBench(bench), bench.ports
    await bench.strobe(abort=1)
    await bench.step(4)
    assert not ports.get("busy") and not ports.get("done"), "an abort without a run"
    for number in range(20 * bench.rounds):
        model = unit.model()
        await unit.start(model.words, stall=(0.0, 0.4)[number % 2])
        await bench.step(bench.rng.randrange(2 * len(model.words)))
        await bench.strobe(abort=1)
        await unit.end(Status.ABORTED, f"abort {number} after {len(unit.monitor.loads)} words",
                       limit=4 * len(model.words) + 40)
    ports.put(pause=1)
    await unit.start(unit.model(2).words)
    await unit.until_run("pause")
    await bench.strobe(finished=1)
    await bench.step(5)
    assert ports.get("paused")
    await bench.strobe(abort=1)
    await unit.end(Status.ABORTED, "abort at a boundary")
    ports.put(pause=0)
    await unit.good("after aborts")
