"""The cells of ``generic.v`` as Amaranth expressions.

Synthesis maps them to the family's own form where ``<family>.v`` has one (:func:`shiftwright.boards.flow.synthesize`);
generated Verilog carries ``generic.v``.
"""

from collections.abc import Sequence
from importlib import resources

from amaranth.hdl import Cat, Instance, Module, Mux, Signal, Value, ValueLike
from amaranth.utils import ceil_log2

__all__ = ["cells_verilog", "gated_add", "select", "shift_add"]

SELECT_WORDS = (4, 8, 16)
"""Numbers of words that :func:`select` has a cell for."""


def cells_verilog(family: str = "generic") -> str:
    """Verilog of the cells as a family has them (``"generic"`` or ``"ecp5"``)."""
    return resources.files(__package__).joinpath(f"{family}.v").read_text()


def shift_add(m: Module, acc: Value, low: Value, high: Value, sel: ValueLike, carry: ValueLike = 0, *,
              name: str = "sum") -> Signal:
    """``acc + Mux(sel, high, low) + carry`` in as many bits as ``acc``: one LUT4 a bit on ECP5.

    ``low`` and ``high`` are extended by their signs.
    """
    width = len(acc)
    total = Signal(width, name=name)
    words = [Signal(width, name=f"{name}_{part}") for part in ("low", "high")]
    m.d.comb += [words[0].eq(low), words[1].eq(high)]
    m.submodules += Instance("SHIFTWRIGHT_SHIFT_ADD", p_WIDTH=width, i_acc=acc, i_low=words[0], i_high=words[1],
                             i_sel=sel, i_carry=carry, o_sum=total)
    return total


def gated_add(m: Module, acc: Value, addend: Value, enable: ValueLike, invert: ValueLike = 0, *,
              name: str = "sum") -> Signal:
    """``acc``, plus ``addend`` (or its complement, if ``invert``) if ``enable``, in as many bits as ``addend``.

    One LUT4 a bit on ECP5. ``acc`` is extended by its sign.
    """
    width = len(addend)
    total, extended = Signal(width, name=name), Signal(width, name=f"{name}_acc")
    m.d.comb += extended.eq(acc)
    m.submodules += Instance("SHIFTWRIGHT_GATED_ADD", p_WIDTH=width, i_acc=extended, i_addend=addend, i_enable=enable,
                             i_invert=invert, o_sum=total)
    return total


def select(m: Module, words: Sequence[Value], index: Value, invert: ValueLike = 0, *, name: str = "chosen") -> Signal:
    """``words[index]``, each bit exclusive-or ``invert``: half a LUT4 a word and bit on ECP5.

    Parameters
    ----------
    words : sequence of Value
        Up to 16, of one width.
    index : Value
        As many bits as it takes; further ones are ignored. Beyond the last word, any is chosen.
    """
    width, bits = len(words[0]), ceil_log2(len(words))
    words = [*words, *words[:1] * ((1 << bits) - len(words))]
    chosen = Signal(width, name=name)
    if len(words) in SELECT_WORDS:
        m.submodules += Instance("SHIFTWRIGHT_SELECT", p_WIDTH=width, p_WORDS=len(words), p_BITS=bits,
                                 i_words=Cat(*words), i_sel=index[:bits], i_invert=invert, o_out=chosen)
    else:
        found = words[0] if len(words) == 1 else Mux(index[0], words[1], words[0])
        m.d.comb += chosen.eq(found ^ Value.cast(invert).replicate(width))
    return chosen
