"""Ports with byte addresses: on the pins by masters that others wrote, in the manifest, in C."""

import ctypes
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shiftwright.hw.arch.bus import BANK_SHIFT, Control, Region, Register, Status, StatusBit
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import ConfigError, MismatchError
from shiftwright.hw.arch.ports import MAPPED_PORTS, PORT_ADDR_BITS, PortRegister, address_map, byte_address
from shiftwright.hw.generate import generate
from shiftwright.hw.ports.header import c_header
from shiftwright.hw.ports.top import accelerator_with_port
from shiftwright.sim import golden
from shiftwright.sim.ports import check_port
from shiftwright.sw.compiler.compile import compile_detailed
from shiftwright.sw.compiler.layout import locate, pack_activations, unpack_activations
from shiftwright.sw.data import PIXEL_SCALE, load
from shiftwright.sw.image import Image
from shiftwright.sw.network import QuantizedNetwork
from shiftwright.sw.tools import require, tool_env, using_tools
from tests.networks import random_images, random_network

# Depths that are no powers of two: addresses are compared, not cut.
CONFIG = AcceleratorConfig(lanes_y=1, lanes_x=2, weight_depth=2000, act_depth=500)
NETWORK = 7
DOCUMENT = Path(__file__).parents[2] / "docs" / "ip-core.md"

Case = tuple[Image, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def case() -> Case:
    network = random_network(NETWORK, CONFIG, size=7)
    inputs = random_images(network, 2)
    compilation = compile_detailed(network, CONFIG)
    return compilation.image, inputs, golden.run(compilation.network, inputs)


@pytest.mark.parametrize("port", [
    pytest.param(port, marks=pytest.mark.regress) if port == "wishbone-classic" else port for port in MAPPED_PORTS])
def test_port_on_the_pins(case: Case, port: str, seed: int) -> None:
    image, inputs, outputs = case
    simulator = "icarus" if shutil.which("iverilog") else "verilator"
    result = check_port(port, CONFIG, simulator=simulator, seed=seed, accesses=100, image=image,
                        inputs=inputs, outputs=outputs)
    assert {"answers_follow_the_model", "an_image_runs"} <= set(result.tests)


def test_a_wrong_output_is_noticed(case: Case, seed: int) -> None:
    image, inputs, outputs = case
    simulator = "icarus" if shutil.which("iverilog") else "verilator"
    with pytest.raises(MismatchError, match="image 0, layer output"):
        check_port("wishbone", CONFIG, simulator=simulator, seed=seed, image=image, inputs=inputs[:1],
                   outputs=outputs[:1] + 1, only="an_image_runs")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The embedded network, on a few of its images."""
    folder = tmp_path_factory.mktemp("digits")
    for arguments in (("train", "digits", "--data", "digits", "-o", "digits.safetensors"),
                      ("compress", "digits.safetensors", "--recipe", "bqnet", "-o", "digits.swc"),
                      ("compile", "digits.swc", "-o", "digits.swi")):
        subprocess.run([sys.executable, "-m", "shiftwright.sw.cli", *arguments], cwd=folder, check=True)
    network = QuantizedNetwork.load(folder / "digits.swc")
    inputs = network.quantize_input(load("digits", split="test").take(4).images / PIXEL_SCALE)
    return Image.load(folder / "digits.swi"), inputs, golden.run(network, inputs)


@pytest.mark.regress
@pytest.mark.parametrize("port", MAPPED_PORTS)
def test_the_digits_through_the_top_module(digits: Case, port: str, seed: int) -> None:
    image, inputs, outputs = digits
    check_port(port, image.config, seed=seed, accesses=2000, alone=True, image=image, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize("config", [CONFIG, AcceleratorConfig(lanes_y=8, lanes_x=8, act_depth=1 << 16)])
@pytest.mark.parametrize("mapped", [False, True])
def test_the_map_has_no_overlap_and_fits(config: AcceleratorConfig, mapped: bool) -> None:
    parts = address_map(config, mapped=mapped)
    assert all(first.at + first.size <= second.at for first, second in itertools.pairwise(parts))
    unit = 4 if mapped else 1
    assert parts[-1].at + parts[-1].size <= 1 << PORT_ADDR_BITS - (0 if mapped else 2)
    where = {part.name: part for part in parts}
    last = f"BANK{config.lanes - 1}"
    assert where[last].at == unit * (Region.ACTIVATIONS << 22 | config.lanes - 1 << BANK_SHIFT)
    assert where["MODEL"].size == unit * config.weight_depth
    assert ("IRQ_PENDING" in where) == mapped and where["CONTROL"].access == "rw" and where["STATUS"].access == "r"


@pytest.mark.parametrize(("port", "names"), [
    ("wishbone-classic", {"wb_clk_i", "wb_rst_i", "wb_adr_i", "wb_ack_o", "irq"}),
    ("axi4-lite", {"s_axi_aclk", "s_axi_aresetn", "s_axi_awaddr", "s_axi_rdata", "irq"})])
def test_generated_files(tmp_path: Path, port: str, names: set[str]) -> None:
    with using_tools():
        manifest = generate(CONFIG, tmp_path, port=port)
    assert manifest["port"] == port and manifest["fingerprint"] == f"{CONFIG.fingerprint:08x}"
    assert set(manifest["files"]) == {"accelerator.v", "accelerator.vlt", "shiftwright.h"}
    ports = {port["name"] for port in manifest["ports"]}
    assert names <= ports and set(manifest["clock"].values()) & ports == {name for name in ports if "clk" in name
                                                                          or "rst" in name or "reset" in name}
    assert manifest["address_map"]["unit"] == "byte"
    assert {"name": "STATUS", "at": 0x2000014, "size": 4, "access": "r"} in manifest["address_map"]["parts"]
    assert json.loads((tmp_path / "accelerator.json").read_text()) == manifest
    done = subprocess.run([require("verilator").path, "--lint-only", "-Wall", "accelerator.vlt", "accelerator.v"],
                          cwd=tmp_path, env=tool_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ports_that_are_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="the port must be one of word, wishbone, .*, not 'apb'"):
        accelerator_with_port(CONFIG, "apb")
    with pytest.raises(ConfigError, match="the port uart must have a clock"):
        accelerator_with_port(CONFIG, "uart")


def test_uart_needs_a_clock(shiftwright: Callable, tmp_path: Path) -> None:
    code, _, err = shiftwright("generate", "--port", "uart", "-o", tmp_path / "rtl")
    assert code == 2 and "--port uart needs the clock" in err
    code, _, err = shiftwright("generate", "--port", "uart", "--clock", "0", "-o", tmp_path / "rtl")
    assert code == 2 and "the clock must be greater than 0 MHz, not 0" in err


def macros(config: AcceleratorConfig) -> dict[str, int]:
    """The header's plain numbers, by name; a name that is defined twice is an error."""
    found = re.findall(r"^#define SHIFTWRIGHT_(\w+) +(0x[0-9a-f]+|\d+)u$", c_header(config), re.MULTILINE)
    assert len(dict(found)) == len(found)
    return {name: int(value, 0) for name, value in found}


def test_the_header_has_all_registers_bits_and_codes() -> None:
    found = macros(CONFIG)
    for kind in (Register, PortRegister):
        for register in kind:
            assert found[f"REG_{register.name}"] == byte_address(Region.REGISTERS, register)
    for prefix, members in (("CONTROL", Control), ("STATUS", StatusBit), ("CODE", Status)):
        assert all(found[f"{prefix}_{member.name}"] == member for member in members)
    assert (found["FINGERPRINT"], found["LANES_X"], found["MODEL_WORDS"]) == (CONFIG.fingerprint, 2, 2000)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The document's driver as a shared library."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler (cc)")
    folder = tmp_path_factory.mktemp("driver")
    (text,) = re.findall(r"^```c\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    (folder / "driver.c").write_text(text)
    (folder / "shiftwright.h").write_text(c_header(CONFIG))
    subprocess.run([compiler, "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-shared", "-fPIC",
                    "driver.c", "-o", "driver.so"], cwd=folder, check=True)
    return ctypes.CDLL(str(folder / "driver.so"))


class Tensor(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in (
        "base", "channels", "height", "width", "col_step", "row_step", "phases_y", "phases_x", "bits")] + [
        ("is_signed", ctypes.c_int), ("is_vector", ctypes.c_int)]


class Device(ctypes.Structure):
    _fields_ = [("base", ctypes.c_size_t), ("words", ctypes.c_void_p), ("count", ctypes.c_uint32), ("input", Tensor),
                ("output", Tensor)]


class Window:
    """Memory in place of the accelerator's window, in which a run ends as soon as it is started."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.words = np.zeros(1 << PORT_ADDR_BITS - 2, np.uint32)
        for register, value in ((Register.MAGIC, 0x5357), (Register.VERSION, 3), (Register.STATUS, StatusBit.DONE),
                                (Register.FINGERPRINT_LO, config.fingerprint & 0xFFFF),
                                (Register.FINGERPRINT_HI, config.fingerprint >> 16)):
            self[Region.REGISTERS, register] = value

    def __setitem__(self, at: tuple[int, int], value: int) -> None:
        self.words[byte_address(Region(at[0]), at[1]) // 4] = value

    def __getitem__(self, at: tuple[int, int]) -> int:
        return int(self.words[byte_address(Region(at[0]), at[1]) // 4])


@pytest.mark.parametrize("number", [1, 4, 6, 7])
def test_the_c_driver_does_what_the_compiler_says(driver: ctypes.CDLL, number: int, rng: np.random.Generator) -> None:
    network = random_network(number, CONFIG, size=7)
    image = compile_detailed(network, CONFIG).image
    x = random_images(network, 1)[0]
    window, device, file = Window(CONFIG), Device(), image.to_bytes()
    assert driver.shiftwright_open(ctypes.byref(device), ctypes.c_size_t(window.words.ctypes.data), file,
                                   ctypes.c_size_t(len(file))) == 0
    assert driver.shiftwright_load(ctypes.byref(device)) == 0
    assert window.words[:len(image.words)].tolist() == image.words.tolist()

    given = x.astype(np.int64).astype(np.uint8).copy()
    driver.shiftwright_start(ctypes.byref(device), given.ctypes.data_as(ctypes.c_void_p), 1)
    assert window[Region.REGISTERS, Register.CONTROL] == Control.START
    assert window[Region.REGISTERS, PortRegister.IRQ_ENABLE] == 1
    for bank, at, byte in zip(*pack_activations(image.input, CONFIG, x), strict=True):
        assert window[Region.ACTIVATIONS, int(bank) << BANK_SHIFT | int(at)] == byte
    assert driver.shiftwright_wait(ctypes.byref(device)) == Status.OK

    banks = rng.integers(256, size=(CONFIG.lanes, CONFIG.act_depth))
    for bank, at in {(int(b), int(a)) for b, a in zip(*map(np.ravel, locate(image.output, CONFIG)), strict=True)}:
        window[Region.ACTIVATIONS, bank << BANK_SHIFT | at] = banks[bank, at]
    found = np.zeros(image.output.shape, np.int32)
    driver.shiftwright_output(ctypes.byref(device), found.ctypes.data_as(ctypes.c_void_p))
    assert found.tolist() == unpack_activations(image.output, CONFIG, banks).tolist()


def test_the_c_driver_refuses(driver: ctypes.CDLL, case: Case) -> None:
    window, device, file = Window(CONFIG), Device(), case[0].to_bytes()

    def opened(data: bytes) -> int:
        base = ctypes.c_size_t(window.words.ctypes.data)
        code: int = driver.shiftwright_open(ctypes.byref(device), base, data, ctypes.c_size_t(len(data)))
        return code

    assert opened(file) == 0
    assert opened(b"") == opened(b"SWI2" + file[4:]) == opened(file[:40]) == opened(file[:-1]) == -1
    assert opened(file[:8] + bytes(4) + file[12:]) == -3
    window[Region.REGISTERS, Register.MAGIC] = 0
    assert opened(file) == -2
