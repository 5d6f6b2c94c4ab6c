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
    """Codes of all shapes."""
    bench = await Bench.open(dut, "codetable")
    ports, max_bits = bench.ports, bench.config.max_code_bits
    for shape in SHAPES * bench.rounds:
        code = random_code(bench.rng, max_bits, shape)
        # Something else was loaded before.
        await bench.strobe(load_codes=1, load=bench.rng.getrandbits(8))
        await bench.strobe(load_begin=1)
        for count in code.counts:
            await bench.step(bench.rng.randrange(3))
            await bench.strobe(load_codes=1, load=count)
        await bench.step()
        limits = _fields(ports.get("limits"), [length + 1 for length in range(1, max_bits + 1)])
        offsets = []
        for length in range(1, max_bits + 1):
            await bench.strobe(read=1, length=length - 1)
            ports.put(length=bench.rng.randrange(max_bits))
            await bench.step(bench.rng.randrange(2))
            offsets.append(ports.get("offset"))
        for symbol, text in enumerate(code.codewords):
            # Any bits may follow the codeword.
            rest = max_bits - len(text)
            window = int(text, 2) << rest | bench.rng.getrandbits(rest)
            fits = [n for n in range(1, max_bits + 1) if window >> max_bits - n < limits[n - 1]]
            assert fits, f"{code}: codeword {text} of {symbol} is below no limit"
            length = fits[0]
            assert fits == list(range(length, max_bits + 1)), f"{code}: below the limits of {fits}, not a thermometer"
            found = (window >> max_bits - length) + offsets[length - 1] & 0xFF
            assert (length, found) == (len(text), symbol), f"{code}: codeword {text} of {symbol} gives {found}"
        if code.gap:
            window = int(code.gap, 2) << max_bits - len(code.gap)
            assert not any(window >> max_bits - n < limits[n - 1] for n in range(1, max_bits + 1)), f"{code}: gap"
