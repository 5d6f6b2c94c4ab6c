"""What a board tells of itself."""

import dataclasses

from ...hw.arch.bus import MAP_VERSION
from ...hw.arch.errors import DeviceError
from ...hw.arch.link import DIVISOR_FRACTION, FIRST_BAUD, IDENTITY, PROTOCOL
from .frames import unpack_fields

__all__ = ["EXPLICIT_CYCLES", "SPEEDS", "Identity"]

SPEEDS = (1_000_000, 921_600, 500_000, 460_800, 250_000, 230_400, 115_200, 57_600, 38_400, 19_200)
"""Speeds that are tried, fastest first; those below the first one only when many frames are lost."""
SPEED_ERROR = 0.01
USUAL_CYCLES, EXPLICIT_CYCLES = 8, 4
"""Clock cycles of a bit, at least: by default, and for a speed that the user asks for."""
_NUMBERS = {name: size for name, size in IDENTITY.items() if name != "board"}
_BOARD_AT = sum(_NUMBERS.values())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """A board's answer to :attr:`~shiftwright.hw.arch.link.Op.HELLO`.

    Parameters
    ----------
    board : str
        Its name, empty when it has none.
    fingerprint : int
        That of its accelerator's configuration.
    lanes_y, lanes_x, streams, act_bits, weight_depth, act_depth : int
        As in :class:`~shiftwright.hw.arch.config.AcceleratorConfig`.
    counters : bool
        Whether it counts what cycles were spent on.
    clock_hz : int
        Clock cycles a second.
    """

    board: str
    fingerprint: int
    lanes_y: int
    lanes_x: int
    streams: int
    act_bits: int
    counters: bool
    clock_hz: int
    weight_depth: int
    act_depth: int

    @classmethod
    def unpack(cls, payload: bytes) -> "Identity":
        """Read the payload.

        Raises
        ------
        DeviceError
            If the board speaks another version of the protocol, or has another register map.
        """
        fields = unpack_fields(_NUMBERS, payload)
        for what, field, known in (("protocol", "protocol", PROTOCOL), ("register map", "map_version", MAP_VERSION)):
            if fields[field] != known:
                raise DeviceError(f"the board has version {fields[field]} of the {what}, this program version {known}; "
                                  f"build its bitstream again with this version of Shiftwright ('shiftwright build'), "
                                  f"or use the version that it was built with")
        if len(payload) != _BOARD_AT + IDENTITY["board"]:
            raise DeviceError(f"the board's identity must have {_BOARD_AT + IDENTITY['board']} bytes, not "
                              f"{len(payload)}; build its bitstream again with this version of Shiftwright")
        if not fields["clock_hz"]:
            raise DeviceError("the board says that its clock is 0 Hz; build its bitstream again")
        names = {field.name for field in dataclasses.fields(cls)} - {"board", "counters"}
        board = payload[_BOARD_AT:].rstrip(b"\0").decode("ascii", "replace")
        return cls(board=board, counters=bool(fields["counters"]), **{name: fields[name] for name in names})

    def __str__(self) -> str:
        return (f"{self.board or 'a board'}: {self.lanes_y}x{self.lanes_x}x{self.streams}, configuration "
                f"0x{self.fingerprint:08x}, {self.weight_depth} words of model memory, {self.act_depth} activations a "
                f"bank, {self.clock_hz / 1e6:g} MHz")

    def divisor(self, baud: int) -> int:
        """Clock cycles of a bit at `baud`, times 2**DIVISOR_FRACTION."""
        return max(1, round((self.clock_hz << DIVISOR_FRACTION) / baud))

    def reaches(self, baud: int, cycles: int = USUAL_CYCLES) -> bool:
        """Whether the clock divides to a speed within 1 %, with so many cycles a bit or more."""
        actual = (self.clock_hz << DIVISOR_FRACTION) / self.divisor(baud)
        return self.clock_hz >= cycles * baud and abs(actual / baud - 1) <= SPEED_ERROR

    def slower(self, baud: int) -> int | None:
        """The next speed below `baud`; ``None`` at the lowest."""
        return next((speed for speed in SPEEDS if speed < baud and self.reaches(speed)), None)

    @property
    def fastest(self) -> int:
        """The fastest speed of :data:`SPEEDS`, at least the first one."""
        return next((speed for speed in SPEEDS if speed > FIRST_BAUD and self.reaches(speed)), FIRST_BAUD)
