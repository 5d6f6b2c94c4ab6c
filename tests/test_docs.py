"""The documents: code runs, command lines exist, tables are the program's, links lead somewhere."""

import importlib
import importlib.util
import math
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import pytest

from shiftwright.boards import registry
from shiftwright.hw.arch.bus import Counter, Register, Status
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.errors import CapacityError
from shiftwright.sw.cli import COMMANDS, cli
from shiftwright.sw.compiler.memory import allocate
from shiftwright.sw.compress import compress
from shiftwright.sw.compress.bqnet import BQNet
from shiftwright.sw.compress.recipe import load_recipe
from shiftwright.sw.data import Dataset
from shiftwright.sw.zoo import NETWORKS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(path for pattern in ("*.md", "docs/*.md", "examples/*.md") for path in ROOT.glob(pattern))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SIMULATED = "README.md"
"""The document whose code simulates."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(path.read_text()) if language in languages]


def tables(path: Path) -> list[list[list[str]]]:
    """Rows of cells of each table, without the line below the head."""
    found = re.findall(r"(?:^\|.*\n)+", path.read_text(), re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines()
             if not set(line) <= set("|-: ")] for table in found]


def command_lines(path: Path) -> list[str]:
    """Lines of shell blocks that call shiftwright."""
    return [line for text in blocks(path, "sh") for line in text.splitlines() if " shiftwright " in f" {line} "]


def parse(line: str) -> None:
    """Let click read a command line without running it; what click does not take is an exception."""
    words = shlex.split(line, comments=True)
    words = words[words.index("shiftwright") + 1:]
    name = next(word for word in words if not word.startswith("-"))
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"no command {name!r}"
    command.make_context(name, words[words.index(name) + 1:], parent=click.Context(cli))


@pytest.fixture(scope="module")
def renew() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_renew", ROOT / "docs" / "renew.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [
    pytest.param(path, marks=[pytest.mark.slow] if name_of(path) == SIMULATED else [], id=name_of(path))
    for path in DOCUMENTS if blocks(path, "python")])
def test_python_blocks_run(path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "document"}
    for number, text in enumerate(blocks(path, "python")):
        exec(compile(text, f"{name_of(path)}, block {number + 1}", "exec"), namespace)


def test_there_is_code_to_run() -> None:
    assert {"README.md", "docs/arithmetic.md"} <= {name_of(path) for path in DOCUMENTS if blocks(path, "python")}


@pytest.mark.parametrize(("path", "line"), [pytest.param(path, line, id=f"{name_of(path)}: {line}")
                                            for path in DOCUMENTS for line in dict.fromkeys(command_lines(path))])
def test_command_lines_are_understood(path: Path, line: str) -> None:
    parse(line)


def test_a_wrong_command_line_is_noticed() -> None:
    for line in ("shiftwright compile a.swc --bord x", "shiftwright simulate a.swi", "shiftwright train"):
        with pytest.raises(click.UsageError):
            parse(line)
    with pytest.raises(AssertionError):
        parse("shiftwright explore")


def test_the_whole_job_is_in_the_readme() -> None:
    used = {line.split()[1] for line in command_lines(ROOT / "README.md")}
    assert {"train", "compress", "compile", "evaluate", "simulate", "build", "doctor"} <= used <= set(COMMANDS)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    benchmarks = {f"bench-{path.stem}" for path in (ROOT / "benchmarks").glob("*.py")}
    for path in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)", path.read_text()))
        named |= set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks(path, "sh")), re.MULTILINE))
        assert named <= targets | benchmarks, name_of(path)


def test_made_parts_are_up_to_date(renew: ModuleType) -> None:
    assert renew.main(["--check"]) == 0, "run .venv/bin/python docs/renew.py and commit what it writes"


def test_made_parts_follow_the_program(renew: ModuleType) -> None:
    text = "<!-- made:recipe-bqnet -->\nSTALE\n<!-- /made -->\n"
    made = renew.renew(text)
    assert "STALE" not in made and "| `levels` | `2` |" in made and renew.renew(made) == made
    with pytest.raises(SystemExit, match="unknown part 'none'"):
        renew.renew(text.replace("recipe-bqnet", "none"))
    for name in COMMANDS:
        assert f"\n## {name}\n" in renew.commands()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, link


def test_files_that_are_named_exist() -> None:
    pattern = re.compile(r"`((?:hw|sw|sim|boards|tests|docs|benchmarks|examples)/[\w./-]*)(?::\w+)?`")
    for path in DOCUMENTS:
        for name in pattern.findall(path.read_text()):
            assert (ROOT / name).exists(), f"{name_of(path)}: {name}"


def test_toml_blocks_load(tmp_path: Path) -> None:
    count = 0
    for path in DOCUMENTS:
        for text in blocks(path, "toml"):
            file = tmp_path / "block.toml"
            file.write_text(text)
            if "accelerator" in tomllib.loads(text):
                AcceleratorConfig.from_toml(file)
            else:
                load_recipe(file=file)
            count += 1
    assert count >= 3


def test_registers_and_statuses() -> None:
    registers, statuses = ({name: int(number) for numbers, names, *_ in table[1:]
                            for number, name in zip(numbers.split(","), re.findall(r"\w+", names), strict=True)}
                           for table in tables(ROOT / "docs" / "boards.md") if table[0][0] in ("register", "status"))
    assert registers == {register.name: register.value for register in Register}
    assert statuses == {status.name: status.value for status in Status}


def test_counters() -> None:
    table = next(table for table in tables(ROOT / "docs" / "boards.md") if table[0][1] == "counter")
    assert [(words, name.strip("`")) for words, name, _ in table[1:]] == [
        (f"{2 * counter}, {2 * counter + 1}", counter.name) for counter in Counter]


def test_latencies() -> None:
    """The constants of the pipeline, by module and attribute."""
    table = next(table for table in tables(ROOT / "docs" / "architecture.md") if table[0][0] == "constant")
    assert len(table) > 4
    for constant, cycles, _ in table[1:]:
        module, owner, name = constant.strip("`").split(".")
        found = getattr(getattr(importlib.import_module(f"shiftwright.hw.{module}"), owner), name)
        assert found == int(cycles), constant


def test_what_fits_which_board(rng: np.random.Generator, one_thread: None) -> None:
    """Activations only: the size of the weights depends on their training, as does the accumulators' width."""
    table = next(table for table in tables(ROOT / "README.md") if table[0][0] == "network")
    boards = [re.findall(r"`([\w-]+)`", head)[0] for head in table[0][1:]]
    configs = [registry.get(board).config for board in boards]
    assert table[0][1:] == [f"`{board}` ({config.lanes_y}x{config.lanes_x} lanes)"
                            for board, config in zip(boards, configs, strict=True)]
    assert set(boards) <= set(registry.names()) and {row[0].strip("`") for row in table[1:]} == set(NETWORKS)
    for name, *cells in table[1:]:
        info = NETWORKS[name.strip("`")]
        if info.dataset == "imagenet":  # the image alone is too large
            assert all(math.prod(info.input_shape) > config.lanes * config.act_depth for config in configs)
            assert cells == ["no: activations"] * len(boards), name
            continue
        pixels = rng.integers(256, size=(8, *info.input_shape), dtype=np.uint8)
        images = Dataset(pixels, np.arange(8), "random", "train", tuple("0123456789"))
        network = compress(info.build(), BQNet(epochs=0, calibration_images=8, acc_bits=32), images)
        for board, config, cell in zip(boards, configs, cells, strict=True):
            try:
                allocate(network, config)
            except CapacityError:
                assert cell == "no: activations", f"{name} on {board}"
            else:
                assert cell == "yes", f"{name} on {board}"
