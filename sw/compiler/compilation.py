"""What the compiler hands back: an image, and how it came about."""

import dataclasses
from collections.abc import Mapping

from ..image import Image
from ..network import QuantizedNetwork
from .cycles import LayerCycles, run_cycles
from .memory import Allocation
from .placement import TensorPlacement
from .proof import Proof

__all__ = ["Compilation", "CompiledLayer"]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class CompiledLayer:
    """What the compiler made of one layer.

    Parameters
    ----------
    name, op : str
        Of the network's layer.
    alphabet : str
        Kind of dictionary that gave the smallest layer.
    entries : int
        Dictionary entries, which is also codewords.
    same_code : bool
        Dictionary and code are those of the layer before.
    weights : int
        Weights of the layer; 0 for pooling.
    words : mapping of str to int
        16-bit words of each section, by the names of :data:`~shiftwright.sw.compiler.descriptor.SECTIONS`.
    cycles : LayerCycles
        Prediction.
    proof : Proof
        Bounds of the accumulator.
    target : TensorPlacement
        Where the output lies when the layer has run.
    """

    name: str
    op: str
    alphabet: str
    entries: int
    same_code: bool
    weights: int
    words: Mapping[str, int]
    cycles: LayerCycles
    proof: Proof
    target: TensorPlacement

    @property
    def bytes(self) -> int:
        """Bytes of the layer in the model memory, all sections."""
        return 2 * sum(self.words.values())

    @property
    def bits_per_weight(self) -> float | None:
        """All bits of the layer over its weights; ``None`` for pooling."""
        return 8 * self.bytes / self.weights if self.weights else None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Compilation:
    """An image and how it came about.

    Parameters
    ----------
    image : Image
        The result.
    network : QuantizedNetwork
        The lowered network, which has the layers of the image; it computes what the compiled one does.
    layers : tuple of CompiledLayer
        In execution order.
    memory : Allocation
        Where every tensor lies, and when.
    parameters : int
        Float32 parameters of the original network.
    size : int
        Bytes of the whole ``.swi`` file.
    """

    image: Image
    network: QuantizedNetwork
    layers: tuple[CompiledLayer, ...]
    memory: Allocation
    parameters: int
    size: int

    @property
    def placements(self) -> dict[str, TensorPlacement]:
        """Place of every tensor by its name, the network's input included. A place is reused by later tensors."""
        return self.memory.placements

    @property
    def peak(self) -> int:
        """Activation addresses in use in every bank."""
        return self.memory.peak

    @property
    def ratio(self) -> float:
        """Float32 bytes of the original parameters over the bytes of the whole image file."""
        return 4 * self.parameters / self.size

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole image file over the original parameters."""
        return 8 * self.size / self.parameters if self.parameters else float("nan")

    @property
    def cycles(self) -> int:
        """Predicted cycles of one inference."""
        return run_cycles(layer.cycles for layer in self.layers)

    @property
    def overhead(self) -> int:
        """Bytes of the file outside the layers: file header, section table, configuration, tensors, model header."""
        return self.size - sum(layer.bytes for layer in self.layers)
