"""Rows to streams: which output channels each stream computes, in which order, and where it reads."""

import dataclasses

import numpy as np

from ..network import Layer

__all__ = ["Dealing", "deal", "dealable"]

LEAST_GAIN = 1 / 64
"""Share of the slowest stream's work that another order must save: it costs a word a row."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Dealing:
    """Rows of each stream.

    Parameters
    ----------
    channels : tuple of int64 arrays
        Output channels of each stream, in the order of its rows. Stream s of S has ceil((rows - s) / S).
    order : bool
        The parameters must name each row's channel; otherwise row r of stream s is channel r * S + s.
    group_rows, group_step, stream_step : int
        Descriptor fields.
    """

    channels: tuple[np.ndarray, ...]
    order: bool
    group_rows: int
    group_step: int
    stream_step: int


def dealable(layer: Layer, streams: int) -> bool:
    """Whether `layer`'s groups can be dealt to `streams` streams, and its residuals found from the group's base."""
    if layer.op != "conv" or layer.groups == 1:
        return True
    rows, inner = layer.target.channels // layer.groups, layer.source.channels // layer.groups
    if layer.residuals and rows != inner:
        return False
    return rows == 1 or rows % streams == 0 or layer.groups % streams == 0


def deal(layer: Layer, streams: int, work: np.ndarray | None = None) -> Dealing:
    """Deal the rows of a layer for which :func:`dealable` holds.

    Parameters
    ----------
    work : int64 array (rows,), optional
        Micro-operations of each row. When given, rows go to the stream with the least work so far, the longest first
        (R. Graham, "Bounds on multiprocessing timing anomalies", 1969), in rounds of one row for each stream.
    """
    rows = layer.target.channels
    turns = tuple(np.arange(stream, rows, streams) for stream in range(streams))
    if layer.op != "conv":
        return Dealing(channels=turns, order=False, group_rows=1, group_step=streams, stream_step=1)
    size, inner = rows // layer.groups, layer.source.channels // layer.groups
    if layer.groups == 1:
        balanced = turns if work is None or streams == 1 else _balance(work, streams)
        order = work is not None and _slowest(balanced, work) < (1 - LEAST_GAIN) * _slowest(turns, work)
        return Dealing(channels=balanced if order else turns, order=order, group_rows=rows, group_step=0,
                       stream_step=0)
    if size % streams == 0:
        return Dealing(channels=turns, order=False, group_rows=size // streams, group_step=inner, stream_step=0)
    channels = turns if size == 1 else tuple(
        np.arange(rows).reshape(layer.groups, size)[stream::streams].ravel() for stream in range(streams))
    return Dealing(channels=channels, order=size > 1, group_rows=size, group_step=streams * inner, stream_step=inner)


def _balance(work: np.ndarray, streams: int) -> tuple[np.ndarray, ...]:
    load = np.zeros(streams, np.int64)
    dealt: list[list[int]] = [[] for _ in range(streams)]
    longest_first = np.argsort(-work, kind="stable")
    for start in range(0, work.size, streams):
        rows = longest_first[start:start + streams]
        # The last rows, fewer than the streams, go to the first ones.
        for row, stream in zip(rows, np.argsort(load[:rows.size], kind="stable"), strict=True):
            dealt[stream].append(int(row))
            load[stream] += work[row]
    # In the order of channels short rows, which wait for the shared drain, stand among long ones.
    return tuple(np.sort(np.array(rows, np.int64)) for rows in dealt)


def _slowest(channels: tuple[np.ndarray, ...], work: np.ndarray) -> int:
    return max(int(work[part].sum()) for part in channels)
