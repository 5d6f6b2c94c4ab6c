"""Renew what the documents take from the program: options of commands and recipes, configurations, boards, operators.

A document asks for a part with a pair of comment lines, between which this script writes::

    <!-- made:commands -->
    <!-- /made -->

Figures of benchmarks are another matter: ``benchmarks/summary.py``.
"""

import argparse
import ast
import dataclasses
import enum
import functools
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import click

from shiftwright.boards import registry
from shiftwright.hw.arch.config import AcceleratorConfig
from shiftwright.hw.arch.link import IDENTITY, REQUEST, RESPONSE, Answer, Op
from shiftwright.hw.arch.ports import address_map
from shiftwright.sw.cli import COMMANDS, cli
from shiftwright.sw.compress.clustered import ClusteredRecipe
from shiftwright.sw.compress.options import QuantizedRecipe
from shiftwright.sw.compress.recipe import RECIPE_NAMES, recipe_class
from shiftwright.sw.frontend import onnx_operators, operators

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/*.md")
PART = re.compile(r"(?P<open><!-- made:(?P<name>[\w-]+) -->\n).*?(?P<close><!-- /made -->)", re.DOTALL)
COMMON = ("json", "seed", "help")
"""Options of every command."""


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _paragraphs(text: str) -> str:
    """Click's help text: paragraphs, of which those that begin with a backspace keep their lines."""
    blocks = []
    for block in inspect.cleandoc(text).split("\n\n"):
        if block.startswith("\b\n"):
            lines = block.splitlines()[1:]
            title, kept = lines[0], textwrap.dedent("\n".join(lines[1:]))
            blocks.append(f"{title.rstrip()}\n\n```{'sh' if title.startswith('Example') else 'text'}\n{kept}\n```")
        else:
            blocks.append("\n".join(textwrap.wrap(" ".join(block.split()), 120, break_on_hyphens=False)))
    return "\n\n".join(blocks) + "\n"


def _option(param: click.Option) -> tuple[str, str, str]:
    flags = ", ".join(f"`{flag}`" for flag in param.opts)
    kind = "N" if isinstance(param.type, click.IntRange) else param.type.name.upper()
    value = "" if param.is_flag else f" {param.metavar or kind}"
    if isinstance(param.type, click.Choice):
        value = f" {' or '.join(map(str, param.type.choices))}"
    shown = "required" if param.required else f"`{param.default}`" if param.show_default else ""
    return flags + value, shown, (param.help or "").removesuffix(".")


def commands() -> str:
    """A section for each subcommand: usage, help text, options."""
    parts = []
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        options = [param for param in command.params if isinstance(param, click.Option) and param.name
                   and param.name.removeprefix("_") not in COMMON]
        arguments = [param for param in command.params if isinstance(param, click.Argument)]
        words = " ".join(str(each.metavar or (each.name or "").upper()) if each.required
                         else f"[{each.metavar or (each.name or '').upper()}]" for each in arguments)
        usage = f"shiftwright {name} [OPTIONS] {words}".rstrip()
        table = "\n" + _table(("option", "default", "meaning"), [_option(option) for option in options])
        parts.append(f"## {name}\n\n```text\n{usage}\n```\n\n{_paragraphs(command.help or '')}"
                     f"{table if options else ''}")
    return "\n" + "\n".join(parts) + "\n"


def _parameters(kind: type) -> str:
    """The parameters of a dataclass: name, default, and what its numpydoc docstring says."""
    text = inspect.cleandoc(kind.__doc__ or "")
    section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, kind
    meanings: dict[str, str] = {}
    for entry in re.finditer(r"^(?P<names>[\w, ]+) : .*\n(?P<text>(?:    .*\n?)+)", section[1] + "\n", re.MULTILINE):
        said = " ".join(entry["text"].split()).replace("``", "`").removesuffix(".")
        meanings.update(dict.fromkeys((name.strip() for name in entry["names"].split(",")), said))
    rows = []
    inherited = {field.name for base in kind.__mro__[1:] if dataclasses.is_dataclass(base)
                 for field in dataclasses.fields(base)}
    for field in dataclasses.fields(kind):
        if field.name in inherited:
            continue
        default = field.default_factory() if callable(field.default_factory) else field.default
        rows.append((f"`{field.name}`", f"`{default}`", meanings[field.name]))
    return _table(("option", "default", "meaning"), rows)


def boards() -> str:
    """Every board with what differs from the default configuration."""
    rows = []
    for name in registry.names():
        board = registry.get(name)
        changed = ", ".join(f"`{key} = {value}`" for key, value in board.config.changes.items())
        clock = f"{board.clock_mhz:g} MHz" + (f", of {board.oscillator_mhz:g} MHz" if board.pll() else "")
        rows.append((f"`{name}`", board.part, clock, changed, board.serial))
    return _table(("board", "device", "clock", "configuration, where not the default", "UART"), rows)


def ip_map() -> str:
    """The address map of ports with byte addresses; only the number of banks depends on the configuration."""
    config = AcceleratorConfig()
    parts = address_map(config, mapped=True)
    banks = [part for part in parts if part.name.startswith("BANK")]
    rows = [("`MODEL`", "read, write", f"`{parts[0].at:#09x}` + 4 n",
             "word n of the model memory, below `weight_depth`"),
            ("`ACTIVATION`", "read, write", f"`{banks[0].at:#09x}` + `{banks[1].at - banks[0].at:#x}` b + 4 n",
             "activation n of bank b, below `act_depth`; the bank is y * `lanes_x` + x")]
    access = {"r": "read", "rw": "read, write"}
    rows += [(f"`REG_{part.name}`", access[part.access], f"`{part.at:#09x}`", "register")
             for part in parts if part.name != "MODEL" and part not in banks]
    return _table(("name", "access", "byte address", "what"), rows)


def _fields(layout: Mapping[str, int]) -> str:
    at, rows = 0, []
    for name, size in layout.items():
        rows.append((str(at) if size == 1 else f"{at} to {at + size - 1}", f"`{name}`"))
        at += size
    return _table(("bytes", "field"), rows)


def _members(kind: type[enum.IntEnum], head: str) -> str:
    """The members of an enumeration, with the strings that stand below them."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    said = {}
    for before, after in itertools.pairwise(tree.body):
        if isinstance(before, ast.Assign) and isinstance(before.targets[0], ast.Name):
            text = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
            said[before.targets[0].id] = re.sub(r"(?: \(:mod:`[^`]*`\)|:attr:`[^`]*?(\w+)`|:data:`[^`]*?(\w+)`)",
                                                lambda found: f"`{found[1] or found[2]}`" if found[1] or found[2]
                                                else "", " ".join(text.split()).replace("``", "`")).removesuffix(".")
    return _table((head, "name", "meaning"), [(str(int(member)), f"`{member.name}`", said.get(member.name, ""))
                                              for member in kind])


def link_session() -> str:
    """A short session with a board, as bytes; the board's part by the model that the hardware is tested against."""
    from shiftwright.hw.link.identity import identity
    from shiftwright.hw.top import divisor_of, first_divisor
    from shiftwright.sim.benches.link_model import STATUS_AT, BoardModel, framed, request, split

    clock_hz, session = 12_000_000, 0x1234
    divisor = first_divisor(clock_hz)
    board = BoardModel(divisor, identity(AcceleratorConfig(), clock_hz=clock_hz, divisor=divisor, board="example"))
    asked = (("begin a session", Op.HELLO, 0, 0, b""), ("two words to the model memory", Op.WRITE_WORDS, 0, 2,
             bytes([0x57, 0x53, 0x7E, 0x00])), ("their CRC-32", Op.VERIFY, 0, 2, b""),
             ("STATUS", Op.READ_WORDS, STATUS_AT, 1, b""), ("1,000,000 bits a second", Op.BAUD, 0,
             divisor_of(clock_hz, 1_000_000), b""))
    lines = []
    for n, (what, op, address, count, payload) in enumerate(asked):
        sent = framed(request(op, n, session, address, count, payload))
        (piece,) = split(sent)
        lines.append(f"{what}:")
        for mark, data in ((">", sent), ("<", framed(board.take(piece)))):
            text = textwrap.wrap(data.hex(" "), 96)
            lines += [f"{' ' if k else mark} {part}" for k, part in enumerate(text)]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def knobs() -> str:
    """The option of each recipe that a search for a target turns."""
    found = [(name, knob) for name in RECIPE_NAMES if (knob := recipe_class(name).knob) is not None]
    return _table(("recipe", "knob", "gentle", "strong"), [
        (f"`{name}`", f"`{knob.option}`", f"{knob.gentle:g}", f"{knob.strong:g}") for name, knob in found])


PARTS: dict[str, Callable[[], str]] = {
    "knobs": knobs,
    "commands": commands,
    "training": lambda: _parameters(QuantizedRecipe),
    "clustered": lambda: _parameters(ClusteredRecipe),
    **{f"recipe-{name}": functools.partial(_parameters, recipe_class(name)) for name in RECIPE_NAMES},
    "configuration": lambda: _parameters(AcceleratorConfig),
    "boards": boards,
    "operators": operators.markdown,
    "onnx": onnx_operators.markdown,
    "link-request": lambda: _fields(REQUEST),
    "link-response": lambda: _fields(RESPONSE),
    "link-identity": lambda: _fields(IDENTITY),
    "link-operations": lambda: _members(Op, "op"),
    "link-answers": lambda: _members(Answer, "answer"),
    "link-session": link_session,
    "ip-map": ip_map,
}


def renew(text: str) -> str:
    """The document with all its parts made anew; an unknown part is an error."""
    def replacement(match: re.Match[str]) -> str:
        if match["name"] not in PARTS:
            raise SystemExit(f"unknown part {match['name']!r}; known are {', '.join(PARTS)}")
        return match["open"] + PARTS[match["name"]]() + match["close"]

    return PART.sub(replacement, text)


def main(argv: list[str] | None = None) -> int:
    """Write the documents; with ``--check`` only tell (exit code 1) whether they are up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is out of date")
    check = parser.parse_args(argv).check
    stale = []
    for path in sorted(path for pattern in DOCUMENTS for path in ROOT.glob(pattern)):
        text = path.read_text()
        if (wanted := renew(text)) != text:
            stale.append(path)
            sys.stdout.write(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}\n")
            if not check:
                path.write_text(wanted)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
