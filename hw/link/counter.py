"""A register that is loaded once and then counts, in one logic cell of iCE40 a bit."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

__all__ = ["load_or_count"]


def load_or_count(m: Module, register: Signal, value: Value, load: Value, step: Value) -> Value:
    """Load ``register`` with ``value``, or with ``step`` add 1 to it.

    The sum's second operand is all ones while loading: what chooses enters the logic cell where the sum wants an
    operand anyway. That operand is taken back by a carry in, so that counting adds 1.

    Returns
    -------
    Value
        Whether all bits are ones; not good while loading.
    """
    width = len(register)
    total = Signal(width + 2, name=f"{register.name}_more")
    m.d.comb += total.eq(Cat(Const(1, 1), register) + Cat(Const(1, 1), load.replicate(width)))
    with m.If(load | step):
        m.d.sync += register.eq(Mux(load, value, total[1:]))
    return total[-1]
