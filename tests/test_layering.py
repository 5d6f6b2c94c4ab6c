"""Imports point one way: hw <- boards, hw.arch <- sw, hw and sw <- sim; commands reach the rest inside functions."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("hw", "sw", "sim", "boards")
MODULES = sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py"))
COMMANDS = REPOSITORY / "sw" / "commands"

ALLOWED = {
    "hw": ("shiftwright.hw",),
    "boards": ("shiftwright.hw", "shiftwright.boards"),
    "sw": ("shiftwright.hw.arch", "shiftwright.sw"),
    "sim": ("shiftwright.hw", "shiftwright.sw", "shiftwright.sim"),
}
# "amaranth_boards" and its tools belong to boards; torch and scikit-learn never reach hardware.
FOREIGN = {"hw": {"amaranth"}, "boards": {"amaranth", "amaranth_boards"}}
HARDWARE = {"amaranth", "amaranth_boards", "cocotb", "cocotb_tools"}
LAZY = {"torch", "sklearn", "amaranth", "amaranth_boards", "cocotb", "cocotb_tools", "numpy", "rich"}


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(("shiftwright", *parts)).removesuffix(".__init__")


def imports(source: str, module: str, *, package: bool) -> Iterator[tuple[str, int, bool]]:
    """Each imported module as (absolute name, line, whether at module level), relative ones resolved.

    ``from X import a`` is X, unless X is the package above the folders: then it is X.a.
    """
    base = module.split(".") if package else module.split(".")[:-1]
    tree = ast.parse(source)
    inside = {id(node) for function in ast.walk(tree)
              if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
              for node in ast.walk(function)}
    typing_only = {id(node) for test in ast.walk(tree)
                   if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
                   for node in ast.walk(test)}
    for node in ast.walk(tree):
        top = id(node) not in inside and id(node) not in typing_only
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = base[:len(base) - node.level + 1] if node.level else []
            name = ".".join([*parent, *([node.module] if node.module else [])])
            if name in {"shiftwright", *(f"shiftwright.{folder}" for folder in FOLDERS)}:
                yield from ((f"{name}.{alias.name}", node.lineno, top) for alias in node.names)
            else:
                yield name, node.lineno, top


def within(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def violations(source: str, module: str, *, package: bool = False) -> list[str]:
    """The rules of CONTRIBUTING.md that a module's source breaks, one line each."""
    folder = module.split(".")[1]
    command = within(module, ("shiftwright.sw.commands",))
    found = []
    for name, line, top in imports(source, module, package=package):
        root = name.split(".")[0]
        where = f"{module}:{line}: imports {name}"
        if root in FOLDERS:
            found.append(f"{where}: makes a second copy; import shiftwright.{name}")
        elif root == "shiftwright" and not within(name, ALLOWED[folder]):
            if not command:
                found.append(f"{where}: {folder} may import only {', '.join(ALLOWED[folder])}")
            elif top:
                found.append(f"{where}: a command imports {name.split('.')[1]} inside a function")
        elif root not in {"shiftwright", "__future__", *sys.stdlib_module_names}:
            if folder in FOREIGN and root not in FOREIGN[folder]:
                found.append(f"{where}: {folder} may import only {', '.join(sorted(FOREIGN[folder]))}")
            if folder == "sw" and not command and root in HARDWARE:
                found.append(f"{where}: hardware is described in hw and simulated in sim")
            if command and top and root in LAZY:
                found.append(f"{where}: a command imports {root} inside a function")
        elif name == "__future__" and folder == "hw":
            found.append(f"{where}: breaks Amaranth components that are declared by annotation")
    return found


def test_the_tree_is_found() -> None:
    assert {path.relative_to(REPOSITORY).parts[0] for path in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("path", MODULES, ids=[dotted(path) for path in MODULES])
def test_imports_point_one_way(path: Path) -> None:
    assert violations(path.read_text(), dotted(path), package=path.name == "__init__.py") == []


@pytest.mark.parametrize(("module", "source", "expected"), [
    ("shiftwright.hw.lane", "from ..sw import network", "may import only"),
    ("shiftwright.hw.lane", "from shiftwright.sw.network import Term", "may import only"),
    ("shiftwright.hw.lane", "import numpy", "may import only"),
    ("shiftwright.hw.lane", "from __future__ import annotations", "declared by annotation"),
    ("shiftwright.sw.codec.huffman", "from ...hw.lane import Lane", "may import only"),
    ("shiftwright.sw.codec.huffman", "def f():\n    from ...sim import golden", "may import only"),
    ("shiftwright.sw.codec.huffman", "import amaranth", "described in hw"),
    ("shiftwright.boards.ulx3s", "from ..sw import tools", "may import only"),
    ("shiftwright.sim.golden", "from .. import boards", "may import only"),
    ("shiftwright.sim.golden", "import hw.arch.config", "second copy"),
    ("shiftwright.sw.commands.build", "from ...boards import registry", "inside a function"),
    ("shiftwright.sw.commands.train", "import torch", "inside a function"),
])
def test_a_wrong_import_is_seen(module: str, source: str, expected: str) -> None:
    (message,) = violations(source, module)
    assert expected in message


@pytest.mark.parametrize(("module", "source"), [
    ("shiftwright.hw.lane", "from amaranth.lib import wiring\nfrom .arch.config import AcceleratorConfig"),
    ("shiftwright.sw.network", "from ..hw.arch.errors import ModelError\nimport numpy as np"),
    ("shiftwright.sw.network", "from ..hw import arch"),
    ("shiftwright.sim.golden", "from ..sw.network import Layer\nfrom ..hw import top\nfrom . import runner"),
    ("shiftwright.sw.commands.build", "def command():\n    from ...boards import registry\n    import torch"),
])
def test_a_right_import_passes(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_init_files_stay_small() -> None:
    long = [dotted(path) for path in MODULES if path.name == "__init__.py" and len(path.read_text().splitlines()) > 30]
    assert long == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_typings_are_links(folder: str) -> None:
    link = REPOSITORY / "typings" / "shiftwright" / folder
    assert link.is_symlink(), "a copy in typings/ would be checked in place of the source"
    assert link.resolve() == REPOSITORY / folder


def loaded_by(arguments: str) -> set[str]:
    code = (f"import sys; from shiftwright.sw.cli import main; code = main({arguments}); "
            "print('LOADED', code, *sorted({name.split('.')[0] for name in sys.modules}))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    words = done.stdout.splitlines()[-1].split()
    assert words[:2] == ["LOADED", "0"]
    return set(words[2:])


@pytest.mark.parametrize("arguments", ['["--help"]', '["--version"]'])
def test_help_loads_nothing_heavy(arguments: str) -> None:
    assert loaded_by(arguments) & (LAZY | {"scipy", "safetensors"}) == set()


def test_help_of_every_command_loads_nothing_heavy() -> None:
    names = sorted(path.stem for path in COMMANDS.glob("[a-z]*.py"))
    code = ("import sys; from shiftwright.sw.cli import main; "
            f"failed = [name for name in {names} if main([name, '--help'])]; "
            f"print('RESULT', failed, sorted(set({sorted(LAZY)}) & sys.modules.keys()))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "RESULT [] []"
