"""What a board tells of itself."""

from ..arch.bus import MAP_VERSION
from ..arch.config import AcceleratorConfig
from ..arch.errors import ConfigError
from ..arch.link import IDENTITY, PROTOCOL

__all__ = ["identity"]


def identity(config: AcceleratorConfig, *, clock_hz: int, divisor: int, board: str = "") -> bytes:
    """The payload of the answer to :attr:`.Op.HELLO`.

    Parameters
    ----------
    config : AcceleratorConfig
    clock_hz : int
        Clock frequency.
    divisor : int
        That of the first speed.
    board : str
        Name, ASCII.

    Raises
    ------
    ConfigError
        If the name is too long or not ASCII.
    """
    size = IDENTITY["board"]
    if len(board) > size or not board.isascii():
        raise ConfigError(f"the name of a board must be at most {size} ASCII characters for its identity, "
                          f"not {board!r}; give it a shorter one")
    values: dict[str, int] = {
        "protocol": PROTOCOL, "map_version": MAP_VERSION, "lanes_y": config.lanes_y, "lanes_x": config.lanes_x,
        "streams": config.streams, "act_bits": config.act_bits, "counters": int(config.counters), "reserved": 0,
        "fingerprint": config.fingerprint, "clock_hz": clock_hz, "divisor": divisor,
        "weight_depth": config.weight_depth, "act_depth": config.act_depth,
        "board": int.from_bytes(board.encode("ascii"), "little"),
    }
    return b"".join(values[name].to_bytes(width, "little") for name, width in IDENTITY.items())
