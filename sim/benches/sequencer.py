"""cocotb bench of :class:`shiftwright.hw.sequencer.Sequencer`: what it loads, when it starts a layer, how it ends."""

import dataclasses
import functools
import random
from typing import Any

import cocotb

from ...hw.arch.bus import COUNTER_WORDS, Counter, Status
from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.image import (
    DESCRIPTOR,
    DESCRIPTOR_TAG,
    HEADER_WORDS,
    KEPT_AT,
    KEPT_MAX,
    MODEL_MAGIC,
    POSITION_WORDS,
    WATCHDOG_UNIT,
    Flag,
)
from ...hw.sequencer import Section
from .agents import Bench, Memory, layer_word

END_LIMIT = 40
"""Cycles from the cause of an end to ``done``, when no memory is waited for."""


@dataclasses.dataclass
class Layer:
    """A layer of a model: descriptor fields, and random words for all else."""

    fields: dict[str, int]
    tables: list[tuple[Section, list[int]]]
    sizes: list[int]
    """Words of parameters and of codewords, stream by stream."""

    @classmethod
    def random(cls, rng: random.Random, config: AcceleratorConfig) -> "Layer":
        fields = {name: rng.getrandbits(16) for name in DESCRIPTOR}
        flags, kept = rng.getrandbits(12), rng.choice((0, rng.randint(0, KEPT_MAX)))
        counts = {Section.POSITIONS: rng.choice((not kept, 1, config.positions,
                                                 rng.randint(1, min(20, config.positions)))),
                  Section.CODES: 0 if flags & Flag.SAME_CODE else config.max_code_bits,
                  Section.DICTIONARY: rng.choice((0, 1, 30, config.dict_depth))}
        most = (1 << config.map_bits) - 1
        fields |= {
            "tag_flags": DESCRIPTOR_TAG << 12 | flags, "channels": rng.choice((1, config.act_depth)),
            "positions": kept << KEPT_AT | counts[Section.POSITIONS], "group_rows": rng.randint(1, 0xFFFF),
            "rows": rng.choice((1, config.streams + 1, 0xFFFF, rng.randint(1, 0xFFFF))),
            "out_h": rng.choice((1, most)), "out_w": rng.choice((1, most)), "dict_words": counts[Section.DICTIONARY],
        }
        counts[Section.POSITIONS] *= POSITION_WORDS
        tables = [(section, [rng.getrandbits(16) for _ in range(count)]) for section, count in counts.items()]
        return cls(fields, tables, [rng.randrange(5) for _ in range(2 * config.streams)])

    @property
    def head(self) -> list[int]:
        return [self.fields[name] for name in DESCRIPTOR] + [
            half for size in self.sizes for half in (size & 0xFFFF, size >> 16)]

    @property
    def loads(self) -> list[tuple[int, int]]:
        """Sections and words that are loaded."""
        return [(int(Section.DESCRIPTOR), word) for word in self.head] + [
            (int(section), word) for section, words in self.tables for word in words]

    @property
    def words(self) -> int:
        """All words of the layer."""
        return len(self.loads) + sum(self.sizes)


@dataclasses.dataclass
class Model:
    """A model memory, and what the sequencer must load of it."""

    layers: list[Layer]
    tail: int

    @classmethod
    def random(cls, rng: random.Random, config: AcceleratorConfig, layers: int) -> "Model":
        return cls([Layer.random(rng, config) for _ in range(layers)], rng.randint(0, layers))

    def begin(self, number: int) -> int:
        """Address of a layer's descriptor."""
        return HEADER_WORDS + sum(layer.words for layer in self.layers[:number])

    @property
    def words(self) -> list[int]:
        body = [word for layer in self.layers for word in
                [word for _, word in layer.loads] + [0xBAD] * sum(layer.sizes)]
        total = HEADER_WORDS + len(body)
        at = self.begin(self.tail) if self.tail < len(self.layers) else 0
        return [MODEL_MAGIC, len(self.layers), total & 0xFFFF, total >> 16, self.tail, at & 0xFFFF, at >> 16, *body]

    def starts(self, number: int) -> list[int]:
        """First words of the parameters of each stream, then of the codewords of each."""
        layer = self.layers[number]
        at = self.begin(number) + len(layer.loads)
        starts = []
        for size in layer.sizes[::2] + layer.sizes[1::2]:
            starts.append(at)
            at += size
        return starts


class Monitor:
    """Records what the sequencer does."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ports = bench, bench.ports
        self.loads: list[tuple[int, int]] = []
        self.begins: list[int] = []
        """Number of words loaded before each ``load_begin``."""
        self.began = 0
        """Cycle of the last one."""
        self.written: dict[int, int] = {}
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
            self.began = self.bench.cycle
        if ports.get("w_en"):
            assert not ports.get("paused"), "counters are written while the host may write"
            self.written[ports.get("w_addr")] = ports.get("w_data")
        self.runs += ports.get("run")
        self.layers += ports.get("layer_done")
        self.clears += ports.get("clear")


class Activity:
    """Plays the counters' inputs during layers, and counts beside."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.running, self.chance = bench, False, 0.5
        self.counts = [0, 0, 0]
        bench.agents.append(self)

    def drive(self) -> None:
        bench = self.bench
        strobes = [sum((self.running and bench.chance(self.chance)) << s for s in range(bench.config.streams))
                   for _ in self.counts]
        bench.ports.put(term=strobes[0], starved=strobes[1], stalled=strobes[2])
        self.counts = [count + strobe.bit_count() for count, strobe in zip(self.counts, strobes, strict=True)]

    def sample(self) -> None:
        pass


class SequencerBench:
    """Plays host and units."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.ports, self.rng, self.config = bench, bench.ports, bench.rng, bench.config
        self.memory = Memory(bench, "mem")
        self.monitor = Monitor(bench)
        self.activity = Activity(bench)

    def model(self, layers: int = 1) -> Model:
        """A model that fits."""
        while (model := Model.random(self.rng, self.config, layers)) and len(model.words) > self.config.weight_depth:
            pass
        return model

    async def start(self, words: list[int], stall: float = 0.0, **control: int) -> None:
        self.memory.words, self.memory.stall = words, stall
        self.memory.filler = self.rng.getrandbits(16)
        monitor = self.monitor
        monitor.loads, monitor.begins, monitor.written = [], [], {}
        monitor.runs = monitor.layers = monitor.clears = 0
        self.memory.requests.clear()
        await self.bench.strobe(start=1, **control)
        assert self.ports.get("busy") and not self.ports.get("done")

    def shows(self, name: str) -> bool:
        """Whether an output is high."""
        return bool(self.ports.get(name))

    async def until_run(self, what: str) -> None:
        """Until the layer begins."""
        before = self.monitor.runs
        await self.bench.until(lambda: self.monitor.runs > before, 6000, f"{what}: the layer's start")

    async def finish(self) -> None:
        self.activity.running = False
        await self.bench.strobe(finished=1)

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

    def check_outputs(self, model: Model, number: int, where: str) -> None:
        """What the units are given at the start of a layer."""
        get, streams, layer = self.ports.get, range(self.config.streams), model.layers[number]
        starts = [get(f"addr_{what}_{s}") for what in ("parameters", "codes") for s in streams]
        assert starts == model.starts(number), f"{where}: streams start at {starts}, expected {model.starts(number)}"
        rows = [get(f"stream_rows_{s}") for s in streams]
        wanted = [len(range(s, layer.fields["rows"], len(streams))) for s in streams]
        assert rows == wanted, f"{where}: {layer.fields['rows']} rows are dealt as {rows}, not {wanted}"
        bases = [get(f"stream_base_{s}") for s in streams]
        wanted = [layer.fields["in_base"] + s * layer.fields["stream_step"] & 0xFFFF for s in streams]
        assert bases == wanted, f"{where}: bases {bases}, expected {wanted}"
        assert get("layer") == layer_word(**layer.fields), f"{where}: descriptor"
        assert (get("layer_number"), get("limit")) == (number, len(model.words))

    def check_counters(self, number: int, words: int, cycles: int, where: str) -> None:
        """What has been written of the layer's counters."""
        at = self.config.weight_depth - (number + 1) * COUNTER_WORDS
        if not self.config.counters or at < words:
            assert not self.monitor.written, f"{where}: {len(self.monitor.written)} words were written"
            return
        written = self.monitor.written
        assert sorted(written) == list(range(at, at + COUNTER_WORDS)), f"{where}: addresses {sorted(written)}"
        counts = [written[at + 2 * counter] | written[at + 2 * counter + 1] << 16 for counter in Counter]
        assert counts[1:] == self.activity.counts, f"{where}: counted {counts[1:]}, expected {self.activity.counts}"
        assert abs(counts[Counter.BUSY] - cycles) <= 3 * COUNTER_WORDS, f"{where}: {counts[0]} cycles, not {cycles}"
        written.clear()

    async def good(self, what: str, layers: int = 1, stall: float = 0.0, pause: bool = False, steps: int = 30,
                   **control: int) -> None:
        """A sound model, checked in every respect."""
        bench, ports, monitor = self.bench, self.ports, self.monitor
        model = self.model(layers)
        words = model.words
        await self.start(words, stall, **control)
        begin = 0
        numbers = range(model.tail if control.get("tail") else 0, model.tail if control.get("head") else layers)
        wanted: list[tuple[int, int]] = [(Section.HEADER, word) for word in words[:HEADER_WORDS]]
        addresses = list(range(HEADER_WORDS))
        for number in numbers:
            where = f"{what}, layer {number} of {layers}"
            layer = model.layers[number]
            await self.until_run(where)
            begin = monitor.began if number == numbers[0] else begin
            assert monitor.begins[-1] == len(wanted), f"{where}: load_begin"
            wanted += layer.loads
            addresses += range(model.begin(number), model.starts(number)[0])
            assert monitor.loads == wanted, f"{where}: loads differ"
            self.check_outputs(model, number, where)
            ports.put(pause=int(pause))
            self.activity.counts, self.activity.running = [0, 0, 0], True
            self.activity.chance = self.rng.choice((0.1, 0.5, 1.0))
            await bench.step(self.rng.randrange(1, steps))
            clears = monitor.clears
            await self.finish()
            assert monitor.clears == clears + 1, f"{where}: units are cleared when the layer has finished"
            sign = "paused" if pause else "done" if number == numbers[-1] else "load_begin"
            await bench.until(functools.partial(self.shows, sign), 3 * COUNTER_WORDS + 8, f"{where}: {sign}")
            self.check_counters(number, len(words), bench.cycle - begin, where)
            begin = bench.cycle
            if pause:
                await bench.step(20)
                assert ports.get("paused") and ports.get("busy"), f"{where}: does not wait"
                assert monitor.loads == wanted, f"{where}: loads while paused"
                ports.put(pause=0)
                begin = bench.cycle - 20
        await self.end(Status.OK, what, limit=120)
        assert monitor.layers == monitor.runs == len(numbers)
        assert self.memory.requests == addresses, f"{what}: other words were asked for"


@cocotb.test()
async def sound_models_run(dut: Any) -> None:
    """One to three layers, idle and stalling memory, with and without pauses; whole, head only, tail only."""
    unit = SequencerBench(await Bench.open(dut, "sequencer"))
    for number in range(9 * unit.bench.rounds):
        await unit.good(f"model {number}", layers=1 + number % 3, stall=(0.0, 0.5)[number % 2], pause=number % 4 >= 2,
                        **({}, {"head": 1}, {"tail": 1})[number // 3 % 3])


@cocotb.test()
async def counters_carry_to_their_high_half(dut: Any) -> None:
    """More than 65,536 of an event in one layer."""
    unit = SequencerBench(bench := await Bench.open(dut, "sequencer"))
    if not unit.config.counters:
        return
    model = unit.model()
    model.layers[0].fields["watchdog"] = 40
    await unit.start(model.words)
    await unit.until_run("counters")
    unit.activity.counts, unit.activity.running, unit.activity.chance = [0, 0, 0], True, 1.0
    await bench.step(66_000)
    await unit.finish()
    cycles = bench.cycle - unit.monitor.began + COUNTER_WORDS
    await unit.end(Status.OK, "counters")
    unit.check_counters(0, len(model.words), cycles, "counters")


@cocotb.test()
async def bad_headers_and_descriptors(dut: Any) -> None:
    """Each rule broken once, in the first or the second layer; a sound model runs after each."""
    bench = await Bench.open(dut, "sequencer")
    unit, config = SequencerBench(bench), bench.config
    depth = config.weight_depth
    for words in ([MODEL_MAGIC ^ 1, 1, 100, 0], [0, 1, 100, 0], [MODEL_MAGIC, 0, 100, 0], [MODEL_MAGIC, 256, 100, 0],
                  [MODEL_MAGIC, 1, 100, 0x8000], [MODEL_MAGIC, 1, depth + 1 & 0xFFFF, depth + 1 >> 16]):
        await unit.start([*words, 0, 0, 0, *[0] * 100])
        await unit.end(Status.BAD_MODEL, f"header {words}")
        assert unit.monitor.runs == 0
    most = 1 << config.map_bits
    channels, positions, dictionary = (
        1 << depth.bit_length() for depth in (config.act_depth, config.positions, config.dict_depth))
    bad = [("tag_flags", 0xC123), ("tag_flags", 0x0123), ("channels", 0), ("channels", channels),
           ("channels", 0xFFFF), ("positions", 0), *[("positions", 0x8000 | positions)] * (not positions >> KEPT_AT),
           ("rows", 0), ("group_rows", 0), ("out_h", 0), ("out_w", 0), ("out_h", most), ("out_w", most),
           ("out_w", 0xFFFF), ("dict_words", dictionary), ("dict_words", 0xFFFF)]
    for number, (field, value) in enumerate(bad):
        if value > 0xFFFF:
            continue
        what = f"{field} = {value:#x}"
        model = unit.model(2)
        words = model.words
        at = number % 2
        words[model.begin(at) + DESCRIPTOR.index(field)] = value
        await unit.start(words, stall=0.2)
        if at:
            await unit.until_run(what)
            await unit.finish()
        await unit.end(Status.BAD_DESCRIPTOR, what, limit=400)
        assert (unit.monitor.runs, bench.ports.get("layer_number")) == (at, at), f"{what}: the layer was started"
        await unit.good(f"after {what}")


@cocotb.test()
async def sections_past_the_end(dut: Any) -> None:
    """A model that ends inside any section, and sizes so large that addresses would wrap."""
    bench = await Bench.open(dut, "sequencer")
    unit, config = SequencerBench(bench), bench.config
    model = unit.model()
    model.tail = 0
    words, starts = model.words, model.starts(0)
    cuts = {HEADER_WORDS, HEADER_WORDS + 1, starts[0] - 1, starts[0], *(max(starts[0], start - 1) for start in starts)}
    for total in sorted(cut for cut in cuts if cut < len(words)):
        cut = list(words)
        cut[2:4] = total & 0xFFFF, total >> 16
        await unit.start(cut)
        await unit.end(Status.STREAM_OVERRUN, f"{total} of {len(words)} words", limit=4000)
        assert unit.monitor.runs == 0
    await unit.start(words)
    await unit.until_run("the whole model")
    await unit.finish()
    await unit.end(Status.OK, "the whole model")
    width = max(16, (config.weight_depth - 1).bit_length())
    for number in range(2 * config.streams):
        for size in (len(words), config.weight_depth - 1, (1 << width) - 1, 1 << width, 1 << 31, (1 << 32) - 1):
            cut = list(words)
            at = HEADER_WORDS + len(DESCRIPTOR) + 2 * number
            cut[at:at + 2] = size & 0xFFFF, size >> 16
            await unit.start(cut)
            await unit.end(Status.STREAM_OVERRUN if size < 1 << width else Status.BAD_DESCRIPTOR,
                           f"length {number} = {size:#x}", limit=4000)
            assert unit.monitor.runs == 0
    for at, status in ((len(words), Status.STREAM_OVERRUN), (0xFFFF, Status.STREAM_OVERRUN),
                       (1 << 31, Status.BAD_MODEL)):
        cut = list(words)
        cut[5:7] = at & 0xFFFF, at >> 16
        await unit.start(cut, tail=1)
        await unit.end(status, f"the tail at {at:#x}", limit=4000)


@cocotb.test()
async def errors_of_units_end_the_run(dut: Any) -> None:
    """Each error at a random moment of the layer; before it, errors of a layer that does not run are nothing."""
    bench = await Bench.open(dut, "sequencer")
    unit = SequencerBench(bench)
    for name, status in (("bad_codeword", Status.BAD_CODEWORD), ("stream_overrun", Status.STREAM_OVERRUN),
                         ("tap_overrun", Status.TAP_OVERRUN)) * bench.rounds:
        await unit.start(unit.model(2).words)
        bench.ports.put(**{name: 1})
        await bench.step(20)
        bench.ports.put(**{name: 0})
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
    for units in (0, 1, 2):
        model.layers[0].fields["watchdog"] = units
        await unit.start(model.words)
        await unit.until_run("watchdog")
        begin = bench.cycle
        bound = (units + 1) * WATCHDOG_UNIT
        await unit.end(Status.WATCHDOG, "watchdog", limit=bound + 20)
        assert bench.cycle - begin >= bound
        await unit.start(model.words)
        await unit.until_run("watchdog")
        await bench.step(bound - 8)
        await unit.finish()
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
    await unit.finish()
    await bench.until(lambda: bool(ports.get("paused")), END_LIMIT, "the boundary")
    await bench.strobe(abort=1)
    await unit.end(Status.ABORTED, "abort at a boundary")
    ports.put(pause=0)
    await unit.good("after aborts")
