"""The commands load and infer, on a software board behind a pseudo-terminal."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shiftwright.hw.arch.bus import COUNTER_WORDS, Status
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.sim import interpreter
from shiftwright.sw.compiler.compile import compile_
from shiftwright.sw.compiler.layout import pack_activations, unpack_activations
from shiftwright.sw.data import load
from shiftwright.sw.image import Image
from shiftwright.sw.network import QuantizedNetwork
from tests.conftest import Outcome
from tests.device_model import Board, Terminal
from tests.networks import arithmetic_of, conv, linear, tensor

CONFIG = AcceleratorConfig(lanes_y=2, lanes_x=2, weight_depth=4096, act_depth=256)
Shiftwright = Callable[..., Outcome]


@dataclasses.dataclass
class Desk:
    """Files, and boards behind their ports."""

    folder: Path
    image: Image
    network: QuantizedNetwork
    terminals: list[Terminal]

    @property
    def ports(self) -> list[str]:
        return [terminal.port for terminal in self.terminals]


def network_of(seed: int) -> QuantizedNetwork:
    rng = np.random.default_rng(seed)
    source = tensor("input", 1, 8, 8, bits=8, exponent=-8)
    arithmetic = arithmetic_of(CONFIG)
    first = conv(rng, source, "first", channels=4, stride=(2, 2), arithmetic=arithmetic)
    last = linear(rng, first.target, "last", features=10, raw=True, arithmetic=arithmetic)
    return QuantizedNetwork(input=source, layers=(first, last), acc_bits=arithmetic.acc_bits,
                            max_shift=arithmetic.max_shift, guard_bits=arithmetic.guard_bits)


@pytest.fixture
def desk(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(tmp_path / "cache"))
    network = network_of(seed)
    image = compile_(network, CONFIG)
    image.save(tmp_path / "a.swi")
    network.save(tmp_path / "a.swc")
    program = interpreter.read_image(image.to_bytes())

    def compute(board: Board) -> tuple[int, int]:
        x = unpack_activations(image.input, CONFIG, board.banks)
        y = interpreter.run(program, x[None].astype(np.int64)).final[0]
        banks, addresses, data = pack_activations(image.output, CONFIG, y)
        board.banks[banks, addresses] = data
        board.model[-2 * COUNTER_WORDS:] = np.arange(2 * COUNTER_WORDS) % 2 ^ 1
        return 4321, Status.OK

    boards = [Terminal(Board(CONFIG, compute=compute, name="desk")) for _ in range(2)]
    with boards[0], boards[1]:
        yield Desk(tmp_path, image, network, boards)


def test_load_then_infer(desk: Desk, shiftwright: Shiftwright) -> None:
    code, out, err = shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0], "--json")
    assert code == 0 and err == ""
    found = json.loads(out)
    size = 2 * len(desk.image.words)
    assert found | {"seconds": 0, "efficiency": 0} == {
        "image": str(desk.folder / "a.swi"), "port": desk.ports[0], "board": "desk", "bytes": size, "sent": size,
        "skipped": 0, "seconds": 0, "baud": 1_000_000, "efficiency": 0, "sent_again": 0, "damaged_frames": 0,
        "sessions": 1, "verified": True}
    assert 0 < found["efficiency"] <= 1
    code, out, _ = shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    assert code == 0 and f"skipped         {size}".split() == out.splitlines()[out.splitlines().index(next(
        line for line in out.splitlines() if "skipped" in line))].replace("│", "").split()

    # The copy that load kept is found by what the board holds.
    code, out, _ = shiftwright("infer", "--port", desk.ports[0], "--data", "digits", "--images", 5, "--check", "--json")
    assert code == 0
    found = json.loads(out)
    digits = load("digits").take(5)
    expected = interpreter.run(desk.image.to_bytes(), desk.network.quantize_input(digits.images / 256)).final
    assert np.array_equal(found["outputs"], expected.reshape(5, -1))
    assert found["classes"] == expected.reshape(5, -1).argmax(axis=1).tolist()
    assert found["accuracy"] == np.mean(np.equal(found["classes"], digits.labels))
    assert found["comparison"] == "bit-exact with the image interpreter: 50 values"
    assert found["cycles"] == 4321 and found["images"] == 5 and found["images_per_second"] > 0


def test_infer_files_on_two_boards(desk: Desk, shiftwright: Shiftwright) -> None:
    for port in desk.ports:
        assert shiftwright("load", desk.folder / "a.swi", "--port", port, "--baud", 500_000).code == 0
    pixels = load("digits").images[:6]
    np.save(desk.folder / "one.npy", pixels[0])
    np.save(desk.folder / "more.npy", (pixels[1:] / 256).astype(np.float32))
    code, out, _ = shiftwright("infer", "--port", desk.ports[0], "--port", desk.ports[1], "--network",
                               desk.folder / "a.swc", desk.folder / "one.npy", desk.folder / "more.npy", "--json")
    found = json.loads(out)
    assert code == 0 and found["ports"] == desk.ports and found["images"] == 6 and "accuracy" not in found
    assert found["comparison"].startswith("bit-exact with the golden model of ")
    code, out, _ = shiftwright("infer", "--port", desk.ports[0], desk.folder / "more.npy")
    # The path is broken over lines.
    assert code == 0 and f"4:{found['classes'][5]}" in "".join(out.replace("│", "").split())


def test_several_outputs_have_a_class_each(desk: Desk, shiftwright: Shiftwright) -> None:
    heads = [{"name": "digit", "channels": [0, 7]}, {"name": "kind", "channels": [7, 10]}]
    dataclasses.replace(desk.network, metadata={"outputs": heads}).save(desk.folder / "heads.swc")
    shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    arguments = ("infer", "--port", desk.ports[0], "--data", "digits", "--images", 3, "--network",
                 desk.folder / "heads.swc")
    found = json.loads(shiftwright(*arguments, "--json").out)
    scores = np.array(found["outputs"])
    assert "accuracy" not in found and found["comparison"].startswith("bit-exact with the golden model")
    assert found["classes"] == [{"digit": int(row[:7].argmax()), "kind": int(row[7:].argmax())} for row in scores]
    assert f"2: digit {scores[2, :7].argmax()}, kind {scores[2, 7:].argmax()}" in shiftwright(*arguments).out


def test_profile(desk: Desk, shiftwright: Shiftwright) -> None:
    arguments = ("infer", "--port", desk.ports[0], "--data", "digits", "--images", "1", "--profile")
    shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    layers = json.loads(shiftwright(*arguments, "--json").out)["layers"]
    assert [layer["layer"] for layer in layers] == ["layer 0", "layer 1"]
    assert all(layer["predicted"] > 0 and layer["busy"] == layer["stalled"] == 1 for layer in layers)
    assert "Cycles of the last run" in shiftwright(*arguments).out


def test_a_difference(desk: Desk, shiftwright: Shiftwright) -> None:
    shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    network_of(99).save(desk.folder / "b.swc")
    code, _, err = shiftwright("infer", "--port", desk.ports[0], "--data", "digits", "--images", 2, "--network",
                               desk.folder / "b.swc")
    assert code == 1 and "input 0, channel 0, row 0, column 0: the board gives " in err


def test_trace(desk: Desk, shiftwright: Shiftwright) -> None:
    err = shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0], "--trace").err
    assert err.count(" > HELLO seq ") == err.count(" < HELLO seq ") == 1 and " > WRITE_WORDS seq " in err


def test_what_goes_wrong(desk: Desk, shiftwright: Shiftwright) -> None:
    port, swi = desk.ports[0], desk.folder / "a.swi"
    for arguments, code, message in (
        (("load", swi, "--port", "/dev/none"), 4, "/dev/none: there is no such port; "),
        (("load", swi), 2, "name the board's port with --port; "),
        (("load", desk.folder / "none.swi", "--port", port), 2, "can't read the image"),
        (("load", swi, "--port", port, "--baud", 9600), 2, "9600 is not in the range"),
        (("infer", "--port", port), 2, "give either a data set with --data, or files"),
        (("infer", "--port", port, "--data", "digits", "x.npy"), 2, "give either a data set with --data, or files"),
        (("infer", "--port", port, "--port", port, "--data", "digits"), 2, "a port was given twice"),
        (("infer", "--port", port, "--data", "digits"), 4, "the board holds no model; load one with: shiftwright load"),
        (("infer", "--port", port, "--image", swi, "--data", "digits"), 4, "the board holds another model than this"),
        (("infer", "--port", port, "--image", swi, "--data", "letters"), 2, "letters"),
    ):
        found = shiftwright(*arguments)
        assert found.code == code and message in found.err and "Traceback" not in found.err, arguments
        assert found.out == ""


def test_a_model_that_was_not_loaded_from_here(desk: Desk, shiftwright: Shiftwright) -> None:
    shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    for file in (desk.folder / "cache" / "images").iterdir():
        file.unlink()
    code, _, err = shiftwright("infer", "--port", desk.ports[0], "--data", "digits", "--images", 1)
    assert code == 4 and "which was not loaded from here; name its file with --image, or load one with" in err
    assert shiftwright("infer", "--port", desk.ports[0], "--image", desk.folder / "a.swi", "--data", "digits",
                       "--images", 1).code == 0


def test_a_cache_that_cannot_be_written(desk: Desk, shiftwright: Shiftwright, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIFTWRIGHT_CACHE", str(desk.folder / "a.swi"))
    code, _, err = shiftwright("load", desk.folder / "a.swi", "--port", desk.ports[0])
    assert code == 0 and "no copy was kept for 'infer': " in err


def test_an_image_for_another_board(desk: Desk, shiftwright: Shiftwright) -> None:
    compile_(desk.network, CONFIG.replace(act_depth=512)).save(desk.folder / "b.swi")
    code, _, err = shiftwright("load", desk.folder / "b.swi", "--port", desk.ports[0])
    assert code == 2 and "was compiled for another accelerator: 2x2x1, " in err and "--board desk, or --config" in err
