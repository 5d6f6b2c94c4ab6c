"""The wheel: complete, and usable from a fresh environment outside the repository."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("hw", "sw", "sim", "boards")
DATA = {".toml", ".json", ".v", ".sv", ".vlt", ".cpp", ".h", ".typed"}

# Run in the fresh environment, from a folder that is not the repository's.
OUTSIDE_TEST = '''
from pathlib import Path

import pytest
from shiftwright.hw.arch import config, errors
from shiftwright.sw import cli


def test_configuration_and_command_line(capfd):
    assert "site-packages" in Path(config.__file__).parts
    assert config.AcceleratorConfig(lanes_x=2).name == "4x2x1"
    with pytest.raises(errors.ConfigError):
        config.AcceleratorConfig(lanes_x=9)
    assert cli.main(["--help"]) == 0
    assert "demo" in capfd.readouterr().out
'''


def tracked_sources() -> list[Path]:
    """Files of the package, from the tree: what people work on, not caches."""
    return sorted(path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*")
                  if path.is_file() and "__pycache__" not in path.parts
                  and (path.suffix == ".py" or path.suffix in DATA))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    # A copy, so that parallel runs and an old build folder in the tree can't leak into the wheel.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        if (REPOSITORY / name).exists():
            shutil.copy(REPOSITORY / name, source / name)
    done = subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source],
                          capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_every_module_and_data_file_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert packed == {f"shiftwright/{path.relative_to(REPOSITORY).as_posix()}" for path in tracked_sources()}


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    fields = metadata.partition("\n\n")[0].splitlines()
    assert "License-Expression: BSD-2-Clause" in fields
    assert "Name: shiftwright" in fields
    assert {field.removeprefix("Provides-Extra: ") for field in fields if field.startswith("Provides-Extra")} == {
        "train", "onnx", "sim", "fpga", "gowin", "device", "imagenet", "dev", "all"}


def test_the_wheel_works_outside_the_repository(wheel, tmp_path):
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    purelib = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True,
                             env=variables, capture_output=True, check=True, timeout=60).stdout.strip()
    # Install by hand what pip would: the wheel alone. Its dependencies come from this environment, without the
    # links of the editable install, which .pth files would make and a plain path entry does not.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(purelib)
    Path(purelib, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    home = tmp_path / "elsewhere"
    home.mkdir()
    (home / "test_outside.py").write_text(OUTSIDE_TEST)
    run = {"cwd": home, "env": variables, "capture_output": True, "text": True, "check": False, "timeout": 120}
    entry = ("import sys; from importlib.metadata import entry_points; "
             "(script,) = entry_points(group='console_scripts', name='shiftwright'); "
             "sys.argv = ['shiftwright', '--version']; sys.exit(script.load()())")
    version = Version(wheel.name.split("-")[1])
    done = subprocess.run([python, "-c", entry], **run)
    assert (done.returncode, done.stdout) == (0, f"shiftwright, version {version}\n"), done.stderr
    done = subprocess.run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_outside.py"], **run)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_every_requirement_is_pinned_within_its_range():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pins = {Requirement(line).name.lower(): Requirement(line) for line in lines}
    assert len(pins) == len(lines)
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    for line in wanted:
        requirement = Requirement(line)
        if requirement.name == project["name"]:
            continue
        (pin,) = pins[requirement.name.lower()].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), requirement


def test_every_requirement_tells_its_reason():
    text = (REPOSITORY / "pyproject.toml").read_text()
    requirements = [line for line in text.splitlines() if line.startswith('    "') and ">=" in line]
    assert len(requirements) > 10
    assert [line for line in requirements if "  # " not in line] == []


def test_the_environment_has_the_pinned_releases():
    import importlib.metadata

    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    wrong = {}
    for line in lines:
        if line and line[0] != "#":
            name, _, version = line.partition("==")
            found = Version(importlib.metadata.version(name))
            if found.public != Version(version).public:
                wrong[name] = f"{found}, pinned {version}"
    assert wrong == {}, "run make venv"
