"""The command line: options that all commands share, exit codes, one line for every error."""

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import click
import pytest

from shiftwright.hw.arch import errors
from shiftwright.sw import cli


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[click.Command], None]]:
    """Add a subcommand called ``planted``."""
    def plant(command: click.Command) -> None:
        module = types.ModuleType("planted")
        module.command = command  # type: ignore[attr-defined]
        monkeypatch.setitem(cli.COMMANDS, "planted", "A command of the tests.")
        monkeypatch.setitem(sys.modules, "shiftwright.sw.commands.planted", module)

    yield plant


def raising(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@click.command()
@click.pass_context
def show(ctx: click.Context) -> None:
    cli.emit({"seed": ctx.obj["seed"], "is_json": ctx.obj["json"], "text": "[red]brackets[/]"}, title="Shown")


@pytest.mark.parametrize(("arguments", "seed"), [
    (["--json", "planted"], 0),
    (["planted", "--json"], 0),
    (["--seed", "7", "planted", "--json"], 7),
    (["--json", "planted", "--seed", "8"], 8),
    (["--seed", "7", "--json", "planted", "--seed", "8"], 8),
    (["--seed", "7", "--json", "planted", "--json"], 7),
])
def test_json_and_seed_before_and_after_the_command(shiftwright, planted, arguments, seed):
    planted(show)
    done = shiftwright(*arguments)
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"seed": seed, "is_json": True, "text": "[red]brackets[/]"}


def test_people_get_a_table(shiftwright, planted):
    planted(show)
    done = shiftwright("planted")
    assert done.code == 0
    assert "Shown" in done.out and "is json" in done.out and "[red]brackets[/]" in done.out
    with pytest.raises(ValueError):
        json.loads(done.out)


def test_options_are_added_once_and_not_over_a_commands_own(shiftwright, planted):
    @click.command()
    @click.option("--seed", type=str)
    def command(seed: str) -> None:
        click.echo(f"own {seed}")

    planted(command)
    for _ in range(2):
        assert shiftwright("planted", "--seed", "text").out == "own text\n"
    assert shiftwright("planted", "--help").out.count("--json") == 1


@pytest.mark.parametrize(("error", "code", "message"), [
    (errors.MismatchError("conv1 differs"), 1, "shiftwright: conv1 differs\n"),
    (errors.ConfigError("lanes_y must be small"), 2, "shiftwright: lanes_y must be small\n"),
    (errors.ToolError("yosys is missing"), 3, "shiftwright: yosys is missing\n"),
    (errors.DeviceError("no answer"), 4, "shiftwright: no answer\n"),
    (ModuleNotFoundError("No module named 'torch'", name="torch"), 3, "pip install 'shiftwright[all]'"),
    (ModuleNotFoundError("gone", name="shiftwright.sw.gone"), 2, "internal error: ModuleNotFoundError: gone"),
    (ValueError("two\nlines"), 2, "internal error: ValueError: two lines; this is a defect"),
    (KeyboardInterrupt(), 130, "shiftwright: interrupted\n"),
    (click.UsageError("give --board or --config"), 2, "Error: give --board or --config\n"),
    (click.exceptions.Exit(5), 5, ""),
])
def test_exit_codes(shiftwright, planted, error, code, message):
    planted(raising(error))
    done = shiftwright("planted")
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("error", [ValueError("odd"), errors.ConfigError("odd")])
def test_debug_shows_the_traceback(shiftwright, planted, monkeypatch, error):
    monkeypatch.setenv("SHIFTWRIGHT_DEBUG", "1")
    planted(raising(error))
    assert "Traceback" in shiftwright("planted").err


@pytest.mark.parametrize("arguments", [["unheard-of"], ["--unheard-of"], ["--seed", "-1", "doctor"], ["--seed", "x"],
                                       []])
def test_wrong_usage_is_2(shiftwright, arguments):
    done = shiftwright(*arguments)
    assert done.code == 2
    assert "Usage: shiftwright" in done.err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(shiftwright, name):
    done = shiftwright(name, "--help")
    assert done.code == 0, done.err
    assert f"shiftwright {name}" in done.out.partition("Usage:")[2].partition("\n")[2], "no example"
    assert "--json" in done.out and "--seed" in done.out


def test_a_closed_pipe_is_no_error():
    # The reader goes away at once, while the writer still has much to say.
    code = ("import sys, types, click; from shiftwright.sw import cli; m = types.ModuleType('m'); "
            "m.command = click.Command('talk', callback=lambda: [click.echo('x' * 1000) for _ in range(1000)]); "
            "cli.COMMANDS['talk'] = ''; sys.modules['shiftwright.sw.commands.talk'] = m; sys.exit(cli.main(['talk']))")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_program_runs():
    done = subprocess.run([sys.executable, "-m", "shiftwright.sw.cli", "--version"], capture_output=True, text=True,
                          check=True, timeout=60)
    assert done.stdout.startswith("shiftwright, version ")
