"""cocotb bench: the accelerator through a port with byte addresses, by a master that others wrote.

Given: ``port``, ``config``, ``prefix`` of the port's signals, ``clock``, ``reset``, ``reset_low``, ``accesses`` (random
ones), ``pins`` (all inputs), ``chosen`` (of a yard); optionally ``image`` (bytes of a ``.swi``), ``inputs`` and
``outputs`` (N, C, H, W).
Returns: ``answers`` that the checker of the bus's rules saw.
"""

import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, First, RisingEdge, Timer

from ...hw.arch.bus import BANK_SHIFT, MAP_VERSION, Control, Region, Register, StatusBit
from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import MismatchError
from ...hw.arch.image import MODEL_MAGIC
from ...hw.arch.ports import PORT_ADDR_BITS, WORD_SHIFT, PortRegister, byte_address
from ...sw.image import Image
from ..bus import address
from ..runner import bench_data, bench_result
from .accelerator import HarnessDriver, check_identity, check_status, compare, load_model
from .masters import Access, Answer, AxiLite, AxiLiteChecker, Master, Wishbone, WishboneChecker

PERIOD_NS = 10
RUN_LIMIT = 5_000_000
"""Cycles that a run may take."""
SHORT_CYCLES, REGISTER_CYCLES = 4, 6
"""From an answer to the next one: of what the port answers by itself, of a register of the accelerator."""


class Bench:
    """The port that was given, out of reset, with a master and a checker."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        self.given = given = bench_data()
        self.config = AcceleratorConfig(**given["config"])
        self.clock, self._reset = getattr(dut, given["clock"]), getattr(dut, given["reset"])
        self.axi, self.pipelined = given["port"] == "axi4-lite", given["port"] == "wishbone"
        self.irq = getattr(dut, f"{given['prefix']}irq")
        self.edge = RisingEdge(self.clock)

    def pins(self, *ends: str) -> list[Any]:
        """The port's signals whose names end so."""
        prefix = f"{self.given['prefix']}{'s_axi' if self.axi else 'wb'}_"
        return [getattr(self.dut, prefix + end) for end in ends]

    async def begin(self) -> None:
        """Clock and reset, with all inputs low."""
        for name in self.given["pins"]:
            getattr(self.dut, name).value = 0
        if "chosen" in self.given:
            self.dut.chosen.value = self.given["chosen"]
        Clock(self.clock, PERIOD_NS, unit="ns").start()
        low = self.given["reset_low"]
        self._reset.value = int(not low)
        for _ in range(4):
            await self.edge
        self._reset.value = int(low)
        await self.edge

    async def with_master(self) -> tuple[Master, WishboneChecker | AxiLiteChecker]:
        """Begin with a master."""
        prefix = self.given["prefix"]
        await self.begin()
        if self.axi:
            return AxiLite(self.dut, prefix, self.clock), AxiLiteChecker(self.dut, prefix, self.clock)
        return (Wishbone(self.dut, prefix, self.clock, pipelined=self.pipelined),
                WishboneChecker(self.dut, prefix, self.clock, pipelined=self.pipelined))


class Model:
    """What a port answers while no run is under way and none has been."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.config = config
        self.memory: dict[int, int] = {}
        self.registers = dict.fromkeys((*Register, *PortRegister), 0) | {
            Register.MAGIC: MODEL_MAGIC, Register.VERSION: MAP_VERSION,
            Register.FINGERPRINT_LO: config.fingerprint & 0xFFFF, Register.FINGERPRINT_HI: config.fingerprint >> 16}

    def answer(self, access: Access) -> tuple[bool, int | None]:
        """Whether an access is refused, and the word that is read when that is known."""
        word = access.address >> WORD_SHIFT
        region, offset = word >> 22, word & (1 << 22) - 1
        whole = access.lanes & 3 == 3
        exists: dict[int, bool] = {
            Region.MODEL: offset < self.config.weight_depth,
            Region.ACTIVATIONS: (offset >> BANK_SHIFT < self.config.lanes
                                 and offset & (1 << BANK_SHIFT) - 1 < self.config.act_depth),
            Region.REGISTERS: offset in self.registers,
        }
        if not exists.get(region):
            return True, None
        if access.data is None:
            return False, self.registers[offset] if region == Region.REGISTERS else self.memory.get(word)
        if not access.lanes:
            return False, None
        if region == Region.REGISTERS:
            if not whole or offset not in (Register.CONTROL, *PortRegister):
                return True, None
            if offset == PortRegister.IRQ_ENABLE:
                self.registers[offset] = access.data & 1
            return False, None
        if not whole and not (region == Region.ACTIVATIONS and access.lanes & 1):
            return True, None
        mask = (1 << self.config.act_bits) - 1 if region == Region.ACTIVATIONS else 0xFFFF
        self.memory[word] = access.data & mask
        return False, None


def random_access(model: Model, lanes: Any) -> Access:
    """Any access, of which most reach something; never a start, nor a read of what was not written."""
    config = model.config
    near = [0, 1, 2, config.weight_depth - 1]
    word = random.choice([
        lambda: address(Region.REGISTERS, random.randrange(24)),
        lambda: address(Region.REGISTERS, random.choice([*PortRegister, Register.CONTROL, 32, 4 | 1 << 12])),
        lambda: address(Region.MODEL, random.choice([*near, config.weight_depth, random.randrange(1 << 22)])),
        lambda: address(Region.MODEL, random.randrange(min(64, config.weight_depth))),
        lambda: address(Region.ACTIVATIONS, random.randrange(config.lanes + 1) << BANK_SHIFT
                        | random.choice([0, 1, config.act_depth - 1, config.act_depth, random.randrange(1 << 16)])),
        lambda: address(Region.ACTIVATIONS, random.randrange(config.lanes) << BANK_SHIFT | random.randrange(16)),
        lambda: random.getrandbits(PORT_ADDR_BITS - WORD_SHIFT),
    ])()
    data = random.choice([None, random.getrandbits(32)])
    if data is not None and word == address(Region.REGISTERS, Register.CONTROL):
        data &= ~Control.START
    if data is None and model.answer(Access(word << WORD_SHIFT)) == (False, None):
        return Access(word << WORD_SHIFT, random.getrandbits(32))
    width = random.choice([0xF, 0xF, 0x3, 0x1, random.choice(lanes)])
    return Access(word << WORD_SHIFT | random.getrandbits(WORD_SHIFT), data, 0xF if data is None else width)


def check(access: Access, found: Answer, wanted: tuple[bool, int | None]) -> None:
    error, word = wanted
    what = f"{'read' if access.data is None else f'write of {access.data:#x}, lanes {access.lanes:04b}'}"
    where = f"{what} at byte {access.address:#09x}"
    if found.error != error:
        raise MismatchError(f"{where}: {'refused' if found.error else 'not refused'}")
    if access.data is None and not error and (found.word != word if word is not None else found.word >> 16):
        raise MismatchError(f"{where}: gave {found.word:#x} in place of {word}")


@cocotb.test()
async def answers_follow_the_model(dut: Any) -> None:
    """Random accesses with random pauses, each kind of refusal among them."""
    bench = Bench(dut)
    master, checker = await bench.with_master()
    model = Model(bench.config)
    for registers in (Register, PortRegister):
        for register in registers:
            read = Access(byte_address(Region.REGISTERS, register))
            check(read, (await master.access([read]))[0], model.answer(read))
    left = bench.given["accesses"]
    while left > 0:
        master.hurry(random.random() < 0.3)
        accesses, wanted = [], []
        for _ in range(random.randint(1, 20)):
            accesses.append(random_access(model, master.lanes))
            wanted.append(model.answer(accesses[-1]))
        for access, found, right in zip(accesses, await master.access(accesses), wanted, strict=True):
            check(access, found, right)
        left -= len(accesses)
    assert checker.answers >= bench.given["accesses"]
    bench_result({"answers": checker.answers})


@cocotb.test()
async def byte_lanes_are_looked_at(dut: Any) -> None:
    """Each combination of byte lanes, in each kind of word, has its effect or none."""
    bench = Bench(dut)
    master, _ = await bench.with_master()
    master.hurry(True)
    model = Model(bench.config)
    for where in (byte_address(Region.MODEL, 5), byte_address(Region.ACTIVATIONS, 7),
                  byte_address(Region.REGISTERS, PortRegister.IRQ_ENABLE), byte_address(Region.REGISTERS, 0)):
        for lanes in master.lanes:
            before = Access(where, random.getrandbits(32))
            accesses = [before, Access(where, ~(before.data or 0) & 0xFFFFFFFF, lanes), Access(where)]
            wanted = [model.answer(access) for access in accesses]
            for access, found, right in zip(accesses, await master.access(accesses), wanted, strict=True):
                check(access, found, right)


@cocotb.test()
async def writes_and_reads_at_once(dut: Any) -> None:
    """AXI4-Lite's two directions do not disturb each other, and neither waits for ever."""
    bench = Bench(dut)
    master, _ = await bench.with_master()
    if not isinstance(master, AxiLite):
        return
    model = Model(bench.config)
    for hurried in (False, True, False):
        master.hurry(hurried)
        half = bench.config.weight_depth // 2
        writes = [Access(byte_address(Region.MODEL, random.randrange(half)), random.getrandbits(16)) for _ in range(30)]
        reads = [Access(byte_address(Region.REGISTERS, random.choice(list(Register)[:4]))) for _ in range(30)]
        for access, found in zip(reads, await master.both(writes, reads), strict=True):
            check(access, found, model.answer(access))
        for access in writes:
            model.answer(access)
        again = [Access(access.address) for access in writes]
        for access, found in zip(again, await master.access(again), strict=True):
            check(access, found, model.answer(access))


@cocotb.test()
async def outputs_come_from_registers(dut: Any) -> None:
    """No output of AXI4-Lite changes with an input between two edges."""
    bench = Bench(dut)
    await bench.begin()
    if not bench.axi:
        return
    inputs = bench.pins("awaddr", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arvalid", "rready")
    outputs = bench.pins("awready", "wready", "bvalid", "bresp", "arready", "rvalid", "rresp", "rdata")
    seen = set()
    for _ in range(300):
        await FallingEdge(bench.clock)
        before = None
        for _ in range(3):
            for pin in inputs:
                pin.value = random.getrandbits(len(pin))
            await Timer(1, unit="ns")
            now = tuple(str(pin.value) for pin in outputs)
            assert before in (None, now), "an output follows an input"
            before = now
        seen.add(before)
    assert len(seen) > 4, "the port did nothing"


@cocotb.test()
async def accesses_follow_each_other(dut: Any) -> None:
    """Wishbone: with ``stb`` high all the time, each access is answered once, in order."""
    bench = Bench(dut)
    await bench.begin()
    if bench.axi:
        return
    WishboneChecker(dut, bench.given["prefix"], bench.clock, pipelined=bench.pipelined)
    cyc, stb, adr, ack, err, data = bench.pins("cyc_i", "stb_i", "adr_i", "ack_o", "err_o", "dat_o")
    stall = bench.pins("stall_o")[0] if bench.pipelined else None
    model = Model(bench.config)
    accesses = [Access(byte_address(Region.REGISTERS, random.randrange(20))) for _ in range(60)]
    found: list[Answer] = []
    times: list[int] = []
    asked, cycles = 0, 0
    cyc.value, stb.value, adr.value = 1, 1, accesses[0].address
    while len(found) < len(accesses):
        await bench.edge
        cycles += 1
        assert cycles < 10 * len(accesses), f"{len(found)} of {len(accesses)} accesses were answered"
        answered = int(ack.value) or int(err.value)
        if answered:
            found.append(Answer(bool(int(err.value)), int(data.value)))
            times.append(cycles)
        # A pipelined access ends with its acceptance, a classic one with its answer.
        if asked < len(accesses) and (answered if stall is None else not int(stall.value)):
            asked += 1
            stb.value = int(asked < len(accesses))
            adr.value = accesses[min(asked, len(accesses) - 1)].address
    for access, answer in zip(accesses, found, strict=True):
        check(access, answer, model.answer(access))
    own = [access.address >= byte_address(Region.REGISTERS, min(PortRegister)) for access in accesses]
    for before, now, answer, quick in zip(times, times[1:], found[1:], own[1:], strict=False):
        assert now - before == (SHORT_CYCLES if answer.error or quick else REGISTER_CYCLES)


@cocotb.test()
async def a_cycle_may_be_given_up(dut: Any) -> None:
    """Wishbone: the answer to an access that was given up is not taken for the next one's."""
    bench = Bench(dut)
    await bench.begin()
    if bench.axi:
        return
    prefix, pipelined = bench.given["prefix"], bench.pipelined
    WishboneChecker(dut, prefix, bench.clock, pipelined=pipelined)
    cyc, stb, we, adr, sel, ack, data = bench.pins("cyc_i", "stb_i", "we_i", "adr_i", "sel_i", "ack_o", "dat_o")
    stall = bench.pins("stall_o")[0] if pipelined else None
    sel.value, we.value = 0xF, 0
    for kept in range(1, 9):
        for between in range(1, 8, 2):
            cyc.value, stb.value = 1, 1
            adr.value = byte_address(Region.REGISTERS, Register.VERSION)
            for _ in range(kept):
                await bench.edge
            cyc.value, stb.value = 0, random.getrandbits(1)
            for _ in range(between):
                await bench.edge
            cyc.value, stb.value = 1, 1
            adr.value = byte_address(Region.REGISTERS, Register.MAGIC)
            for _ in range(64):
                await bench.edge
                if stall is not None and not int(stall.value):
                    stb.value = 0
                if int(ack.value):
                    break
            else:
                raise AssertionError("no answer")
            assert int(data.value) == MODEL_MAGIC, f"given up after {kept} cycles, again {between} later"
            cyc.value, stb.value = 0, 0
            await bench.edge


class PortDriver(HarnessDriver):
    """What the accelerator's bench does by the harness, through the port."""

    def __init__(self, bench: Bench, master: Master) -> None:
        self.bench, self.master = bench, master

    async def write(self, bus_address: int, words: np.ndarray) -> None:
        await self.master.write(bus_address << WORD_SHIFT, [int(word) & 0xFFFF for word in words])

    async def read(self, bus_address: int, count: int) -> np.ndarray:
        answers = await self.master.access([Access((bus_address + at) << WORD_SHIFT) for at in range(count)])
        assert not any(answer.error for answer in answers), f"reading {count} words at {bus_address:#x} was refused"
        return np.array([answer.word for answer in answers], np.int32)

    async def port_register(self, register: PortRegister) -> int:
        """Read a register of the port itself."""
        return int((await self.read(address(Region.REGISTERS, register), 1))[0])


async def check_refusals(driver: PortDriver) -> None:
    """During a run: memories and a start are refused, registers are not."""
    for number in range(12):
        region = random.choice([Region.MODEL, Region.ACTIVATIONS])
        access = Access(byte_address(region, random.randrange(16)), random.choice([None, random.getrandbits(16)]))
        if number == 5:
            access = Access(byte_address(Region.REGISTERS, Register.CONTROL), int(Control.START))
        found = (await driver.master.access([access]))[0]
        assert await driver.register(Register.STATUS) & StatusBit.BUSY, "the run is too short for this bench"
        assert not await driver.port_register(PortRegister.IRQ_PENDING)
        assert not int(driver.bench.irq.value)
        check(access, found, (True, None))


@cocotb.test()
async def an_image_runs(dut: Any) -> None:
    """Identity, load, inputs, start, interrupt, outputs, as firmware does it."""
    bench = Bench(dut)
    if "image" not in bench.given:
        return
    image = Image.from_bytes(bench.given["image"].tobytes())
    master, _ = await bench.with_master()
    master.hurry(True)
    driver = PortDriver(bench, master)
    await check_identity(driver, image)
    await load_model(driver, image)
    for number, (x, wanted) in enumerate(zip(bench.given["inputs"], bench.given["outputs"], strict=True)):
        await driver.write_tensor(image.input, image, x)
        enabled = number % 2 == 1
        await driver.write(address(Region.REGISTERS, PortRegister.IRQ_ENABLE), np.array([enabled]))
        # One that is left over from the last run does not outlive the start.
        await driver.control(Control.START)
        await check_refusals(driver)
        if enabled:
            limit = Timer(RUN_LIMIT * PERIOD_NS, unit="ns")
            if await First(RisingEdge(bench.irq), limit) is limit:
                raise MismatchError(f"image {number}: no interrupt within {RUN_LIMIT} cycles")
            await bench.edge
        else:
            while await driver.register(Register.STATUS) & StatusBit.BUSY:
                pass
            assert not int(bench.irq.value), "an interrupt that is not enabled"
        await check_status(driver, f"image {number}")
        assert await driver.port_register(PortRegister.IRQ_PENDING) == 1
        found = await driver.read_tensor(image.output, image, f"image {number}")
        compare(found, wanted, what=f"image {number}", layer="output")
        if enabled:
            assert int(bench.irq.value)
            await driver.write(address(Region.REGISTERS, PortRegister.IRQ_PENDING), np.array([0]))
            assert await driver.port_register(PortRegister.IRQ_PENDING) == 1
            await driver.write(address(Region.REGISTERS, PortRegister.IRQ_PENDING), np.array([1]))
            assert await driver.port_register(PortRegister.IRQ_PENDING) == 0
            assert not int(bench.irq.value)
    # A model that is none ends at once, with its status and an interrupt.
    await driver.write(address(Region.MODEL, 0), np.array([0]))
    await driver.control(Control.START)
    while await driver.register(Register.STATUS) & StatusBit.BUSY:
        pass
    assert await driver.register(Register.STATUS) == StatusBit.DONE | 1 << 4
    assert await driver.port_register(PortRegister.IRQ_PENDING) == 1
