"""The current layer's descriptor as the sequencer holds it for all units."""

from amaranth.lib import data

from .arch.image import DESCRIPTOR

__all__ = ["LayerLayout"]


class LayerLayout(data.StructLayout):
    """One 16-bit field for each descriptor word (:data:`.arch.image.DESCRIPTOR`), in order.

    Units use the bits they need; synthesis removes the others.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(DESCRIPTOR, 16))
