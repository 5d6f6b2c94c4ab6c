"""The tables of docs/image.md against the constants that hardware and software import."""

import re
from pathlib import Path

import pytest

from shiftwright.hw.arch import image as arch
from shiftwright.hw.arch.config import SYMBOLS_MAX
from shiftwright.hw.arch.image import DESCRIPTOR, Flag, MicroOp, OpKind
from shiftwright.sw import image as file
from shiftwright.sw.compiler.descriptor import SECTIONS
from shiftwright.sw.compiler.placement import TENSOR_BYTES

DOCUMENT = Path(__file__).parents[2] / "docs" / "image.md"


@pytest.fixture(scope="module")
def text() -> str:
    return DOCUMENT.read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the first table after a line that begins with `heading`, without its two head lines."""
    after = text[text.index(heading):]
    start = after.index("\n|") + 1 if not heading.startswith("|") else 0
    lines = after[start:].splitlines()
    table = lines[:next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def numbers(cell: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", cell)]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_descriptor_words(text: str) -> None:
    found: dict[int, str] = {}
    for words, fields, _ in rows(text, "### Descriptor"):
        found.update(zip(numbers(words), names(fields), strict=True))
    assert [found[n] for n in range(len(found))] == list(DESCRIPTOR)


def test_descriptor_tag_and_watchdog(text: str) -> None:
    table = {names(fields)[0]: meaning for _, fields, meaning in rows(text, "### Descriptor")}
    assert f"bits 15:12 = 0x{arch.DESCRIPTOR_TAG:X}" in table["tag_flags"]
    assert f"x {arch.WATCHDOG_UNIT:,} cycles" in table["watchdog"]


def test_flags(text: str) -> None:
    found = {names(name)[0]: 1 << int(bit) for bit, name, _ in rows(text, "| flag bit |")}
    assert found == {flag.name: flag.value for flag in Flag}


def test_header(text: str) -> None:
    table = rows(text, "| header word |")
    assert table[0][1] == f"magic, 0x{arch.MODEL_MAGIC:04x}"
    assert max(number for words, _ in table for number in numbers(words)) == arch.HEADER_WORDS - 1
    assert f"header ({arch.HEADER_WORDS} words)" in text


def test_positions(text: str) -> None:
    table = rows(text, "### Positions")
    assert {int(word) for word, _, _ in table} == set(range(arch.POSITION_WORDS))
    width = {"residue": arch.RESIDUE_BITS, "first": arch.EDGE_BITS, "last": arch.EDGE_BITS}
    ends = {0: 0, 1: 0, 2: 0}
    for word, bits, meaning in table:
        high, low = numbers(bits)
        assert low == ends[int(word)]
        ends[int(word)] = high + 1
        name = names(meaning)[0].split("_")[0]
        assert high - low + 1 == width.get(name, 16), meaning


def test_dictionary_fields(text: str) -> None:
    fields = {names(name)[0]: (numbers(bits)[-1], numbers(bits)[0]) for bits, name, _ in rows(text, "### Dictionary")}
    assert list(fields) == ["kind", "last", "shift", "pre", "post"]
    zero = MicroOp(kind=OpKind.ADD, last=False)
    greatest = {"kind": OpKind.EOR, "last": True, "shift": arch.MAX_SHIFT_FIELD, "pre": arch.MAX_PRE,
                "post": arch.MAX_POST}
    for name, (low, high) in fields.items():
        packed = MicroOp(**{**vars(zero), name: greatest[name]}).pack()
        assert packed == (1 << high + 1) - (1 << low), name


def test_operation_kinds(text: str) -> None:
    meaning = next(meaning for _, name, meaning in rows(text, "### Dictionary") if "kind" in name)
    assert re.findall(r"\d \w+", meaning) == [f"{OpKind.ADD} add", f"{OpKind.SUB} subtract", f"{OpKind.SKIP} skip",
                                              f"{OpKind.EOR} end"]


def test_lengths(text: str) -> None:
    words = ("one", "two", "three", "four")[arch.LENGTH_WORDS - 1]
    assert f"**Lengths** are {words} words for each stream" in text


def test_limits(text: str) -> None:
    assert f"each of 1 to {arch.ENTRY_OPS_MAX} micro-operations" in text
    assert f"A skip with shift {arch.RECTIFY_SHIFT} *rectifies*" in text
    assert f"at most {SYMBOLS_MAX} entries" in text


def test_order_of_a_layer(text: str) -> None:
    line = next(line for line in text.splitlines() if line.strip().startswith("descriptor | lengths"))
    documented = [name.strip().lower().replace(" ", "_") for name in line.split("|")]
    assert documented == list(SECTIONS)


def test_scale_words(text: str) -> None:
    assert f"bits {arch.SCALE_SHIFT_BITS - 1}:0 final shift" in text
    assert f"number of further terms E (0 to {arch.SCALE_EXTRA_MAX})" in text


def test_file(text: str) -> None:
    table = rows(text, "| offset | bytes |")
    assert table[0][2] == f"magic, `{file.MAGIC.decode()}`"
    assert table[1][2] == f"version, {file.VERSION}"
    assert [names(kind)[0] for kind, _ in rows(text, "| section | payload |")] == [k.decode() for k in file.SECTIONS]
    assert f"padding u8: {TENSOR_BYTES} bytes" in text
