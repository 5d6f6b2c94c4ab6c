"""The position table of a layer (``docs/image.md`` "Positions")."""

import dataclasses

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import CapacityError
from ...hw.arch.image import EDGE_BITS, KEPT_MAX, POSITION_WORDS, RESIDUE_BITS
from ..network import Layer, Residual
from .placement import TensorPlacement

__all__ = ["PositionTable", "live_pixels", "position_table", "residual_offsets"]

EDGE_MAX = (1 << EDGE_BITS) - 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Axis:
    """The pixels of a kernel along one axis, int64 arrays (kernel,) all.

    Parameters
    ----------
    offset : array
        Their part of the address.
    residue : array
        Row or column of the bank that lane 0 reads.
    first, last : array
        Output positions whose tap lies inside the input, from first to last; none when last < first.
    """

    offset: np.ndarray
    residue: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def of(cls, *, kernel: int, dilation: int, padding: int, phases: int, size: int, out: int, lanes: int, plane: int,
           step: int) -> "_Axis":
        """Compute one axis.

        Parameters
        ----------
        kernel, dilation, padding : int
            Of the layer; the padding before the first row or column.
        phases : int
            Polyphase planes of the input tensor along the axis, equal to the stride unless ``out`` is 1.
        size, out : int
            Input and output length.
        lanes : int
            Lanes along the axis.
        plane, step : int
            Address steps of the input tensor to the next plane and to the next block.
        """
        d = np.arange(kernel) * dilation - padding
        block, residue = np.divmod(d // phases, lanes)
        # The least output o with o * phases + d >= 0 is ceil(-d / phases).
        return cls(offset=d % phases * plane + block * step, residue=residue, first=np.maximum(0, -(d // phases)),
                   last=np.minimum(out - 1, (size - 1 - d) // phases))

    @property
    def live(self) -> np.ndarray:
        """Pixels that ever see the input, int64."""
        return np.flatnonzero(self.first <= self.last)


def _axes(layer: Layer, source: TensorPlacement, config: AcceleratorConfig) -> tuple[_Axis, _Axis]:
    steps = source.steps(config)
    _, out_h, out_w = layer.target.shape
    return (_Axis.of(kernel=layer.kernel[0], dilation=layer.dilation[0], padding=layer.padding[0],
                    phases=source.phases_y, size=source.height, out=out_h, lanes=config.lanes_y, plane=steps.plane_y,
                    step=steps.row),
            _Axis.of(kernel=layer.kernel[1], dilation=layer.dilation[1], padding=layer.padding[1],
                    phases=source.phases_x, size=source.width, out=out_w, lanes=config.lanes_x, plane=steps.plane_x,
                    step=steps.col))


def live_pixels(layer: Layer, source: TensorPlacement, config: AcceleratorConfig) -> np.ndarray:
    """Numbers (row by row) of the kernel's pixels that ever see the input: only they get a position, int64."""
    if source.vector:
        return np.arange(layer.kernel[0] * layer.kernel[1])
    rows, columns = _axes(layer, source, config)
    return np.asarray((rows.live[:, None] * layer.kernel[1] + columns.live[None, :]).ravel())


def residual_offsets(layer: Layer, residual: Residual, channels: int) -> tuple[int, ...]:
    """For each position of a residual what its address adds to the distance of the tensors.

    A row of an ungrouped layer picks its channel by the tap; a row of a grouped one by its group's base.
    """
    return tuple(range(0, residual.source.channels, channels)) if layer.groups == 1 else (-residual.channel_offset,)


def position_table(layer: Layer, source: TensorPlacement, residuals: tuple[TensorPlacement, ...], channels: int,
                   config: AcceleratorConfig) -> np.ndarray:
    """Positions of the kernel, then of the residuals, uint16 (positions, POSITION_WORDS).

    Parameters
    ----------
    source : TensorPlacement
        The layer's input.
    residuals : tuple of TensorPlacement
        Places of the sources of ``layer.residuals``.
    channels : int
        Taps of a position.

    Raises
    ------
    CapacityError
        If a tap enters or leaves the input too far from the map's edge.
    """
    if source.vector:
        table = np.zeros((1, POSITION_WORDS), np.int64)
    else:
        axes = _axes(layer, source, config)
        y, x = (part.ravel() for part in np.meshgrid(axes[0].live, axes[1].live, indexing="ij"))
        edges = [np.stack((axis.first, out - 1 - axis.last)) for axis, out in
                 zip(axes, layer.target.shape[1:], strict=True)]
        for axis, edge, name in zip(axes, edges, ("rows", "columns"), strict=True):
            if axis.live.size and edge[:, axis.live].max() > EDGE_MAX:
                raise CapacityError(f"layer {layer.name}: a tap lies in the padding for {edge[:, axis.live].max()} "
                                    f"output {name} in turn, more than {EDGE_MAX}; use less padding or dilation")
        (first_y, last_y), (first_x, last_x) = edges[0][:, y], edges[1][:, x]
        table = np.stack((
            axes[0].offset[y] + axes[1].offset[x],
            axes[0].residue[y] | axes[1].residue[x] << RESIDUE_BITS | first_y << 2 * RESIDUE_BITS
            | first_x << 2 * RESIDUE_BITS + EDGE_BITS, last_y | last_x << EDGE_BITS), axis=1)
        if not len(table):  # a layer has at least one position
            table = np.zeros((1, POSITION_WORDS), np.int64)
    further = [(place.base - source.base + offset, 0, 0)
               for residual, place in zip(layer.residuals, residuals, strict=True)
               for offset in residual_offsets(layer, residual, channels)]
    table = np.concatenate((table, np.array(further, np.int64).reshape(-1, POSITION_WORDS)))
    return (table & 0xFFFF).astype(np.uint16)


class PositionTable:
    """The accelerator's position table as the layers so far have left it; empty before the first."""

    def __init__(self) -> None:
        self._words = np.empty((0, POSITION_WORDS), np.uint16)

    def replace(self, positions: np.ndarray) -> int:
        """Put a layer's positions, uint16 (positions, POSITION_WORDS), at the beginning; how many of the first ones
        are there already."""
        common = min(len(positions), len(self._words), KEPT_MAX)
        differs = (positions[:common] != self._words[:common]).any(axis=1)
        kept = int(differs.argmax()) if differs.any() else common
        self._words = np.concatenate((positions, self._words[len(positions):]))
        return kept
