"""cocotb bench of :class:`shiftwright.hw.decoder.CodeTable`: its limits and offsets must decode every codeword."""

from typing import Any

import cocotb

from .agents import Bench
from .codes import SHAPES, random_code


def _fields(word: int, widths: list[int]) -> list[int]:
    values = []
    for width in widths:
        values.append(word & (1 << width) - 1)
        word >>= width
    return values


@cocotb.test()
async def tables_decode_every_codeword(dut: Any) -> None:
    """Codes of all shapes, each with the first, the last and random symbols as end of row."""
    bench = await Bench.open(dut, "codetable")
    ports, max_bits = bench.ports, bench.config.max_code_bits
    for shape in SHAPES * bench.rounds:
        code = random_code(bench.rng, max_bits, shape)
        for eor in {0, code.symbols - 1, bench.rng.randrange(code.symbols)}:
            ports.put(eor=eor)
            await bench.strobe(start=1)
            for count in code.counts:
                await bench.step(bench.rng.randrange(3))
                await bench.strobe(count_valid=1, count=count)
            await bench.step()
            limits = _fields(ports.get("limits"), [length + 1 for length in range(1, max_bits + 1)])
            offsets = []
            for length in range(1, max_bits + 1):
                ports.put(length=length)
                await bench.step()
                offsets.append(ports.get("offset"))
            for symbol, text in enumerate(code.codewords):
                # Any bits may follow the codeword.
                rest = max_bits - len(text)
                window = int(text, 2) << rest | bench.rng.getrandbits(rest)
                fits = [n for n in range(1, max_bits + 1) if window >> max_bits - n < limits[n - 1]]
                assert fits, f"{code}: codeword {text} of {symbol} is below no limit"
                length = fits[0]
                found = (window >> max_bits - length) + offsets[length - 1] & 0xFF
                assert (length, found) == (len(text), symbol), f"{code}: codeword {text} of {symbol} gives {found}"
            if code.gap:
                window = int(code.gap, 2) << max_bits - len(code.gap)
                assert not any(window >> max_bits - n < limits[n - 1] for n in range(1, max_bits + 1)), f"{code}: gap"
            text = code.codewords[eor]
            rest = max_bits - len(text)
            mask = ports.get("eor_mask")
            assert mask == (1 << max_bits) - (1 << rest), f"{code}: mask of the end of row {eor}"
            assert ports.get("eor_code") & mask == int(text, 2) << rest, f"{code}: codeword of the end of row {eor}"
