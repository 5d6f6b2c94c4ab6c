"""The lanes: what the operations of a layer's rows add up to."""

import numpy as np

from ...hw.arch.config import AcceleratorConfig
from ...hw.arch.errors import ImageError
from ...hw.arch.image import Flag, OpKind
from .banks import ADDRESS_MASK, Banks, Sites
from .program import LayerProgram
from .streams import Operations

__all__ = ["NOBODY", "Lanes"]

CHUNK_BYTES = 1 << 26
"""Bound on the taps that are gathered at once."""
AGAIN = "compile the network again"
NOBODY, SEVERAL = -1, -2
"""In place of the number of an output activation."""


class Lanes:
    """The accumulators of one layer.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and lanes.
    banks : Banks
        Where the taps are read.
    layer : LayerProgram
        The layer.
    pixels : (int64 array, int64 array)
        Row and column of each output pixel that is computed.

    Attributes
    ----------
    reader : int64 array (banks, addresses)
        Which output activation has read it, its channel times the pixels plus its pixel: :data:`NOBODY`, or
        :data:`SEVERAL`.
    """

    def __init__(self, config: AcceleratorConfig, banks: Banks, layer: LayerProgram,
                 pixels: tuple[np.ndarray, np.ndarray]) -> None:
        self.config, self.banks, self.layer, self.pixels = config, banks, layer, pixels
        self.reader = np.full(banks.written.shape, NOBODY)

    def accumulate(self) -> np.ndarray:
        """Accumulators of all output channels in order, int64 (rows, pixels, runs).

        Raises
        ------
        ImageError
            If a tap was never written or lies beyond the banks, or an accumulator leaves its width.
        """
        layer = self.layer
        acc = np.zeros((layer.rows, len(self.pixels[0]), self.banks.runs), np.int64)
        for stream in layer.streams:
            channel, operations = stream.parameters.channel, stream.operations
            if not len(channel):
                continue
            if Flag.SHARED_ROW in layer.flags:
                acc[channel] = self._follow(operations, slice(None), stream.base, channel)
                continue
            rectified = np.unique(operations.row[~operations.is_term])
            for row in rectified.tolist():
                chosen = slice(*np.searchsorted(operations.row, [row, row + 1]))
                acc[channel[row]] = self._follow(operations, chosen, stream.base[[row]], channel[[row]])[0]
            plain = np.setdiff1d(np.arange(operations.rows), rectified)
            for base in np.unique(stream.base[plain]).tolist():
                rows = plain[stream.base[plain] == base]
                acc[channel[rows]] = self._sum(operations, rows, base, channel[rows])
        limit = 1 << self.config.acc_width - 1
        over = (acc < -limit) | (acc >= limit)
        if over.any():
            row = int(np.flatnonzero(over.any(axis=(1, 2)))[0])
            self._refuse(f"output channel {row}", acc[row])
        return acc

    def _refuse(self, what: str, acc: np.ndarray) -> None:
        worst = int(acc.flat[np.abs(acc).argmax()])
        raise ImageError(f"{self.layer.where} {what}: the accumulator reaches {worst}, beyond its "
                         f"{self.config.acc_width} bits; {AGAIN}")

    def _sites(self, taps: np.ndarray, base: np.ndarray) -> Sites:
        """Sites (taps or bases, pixels) that the output pixels read."""
        config, layer, table = self.config, self.layer, self.layer.positions
        position, channel = np.divmod(taps[:, None], layer.channels)
        y, x = self.pixels
        across_y, bank_y = np.divmod(table.residue_y[position] + y % config.lanes_y, config.lanes_y)
        across_x, bank_x = np.divmod(table.residue_x[position] + x % config.lanes_x, config.lanes_x)
        address = (base[:, None] + table.offset[position] + channel
                   + (y // config.lanes_y + across_y) * layer.in_steps[0]
                   + (x // config.lanes_x + across_x) * layer.in_steps[1])
        inside = ((table.first_y[position] <= y) & (y <= layer.out[0] - 1 - table.last_y[position])
                  & (table.first_x[position] <= x) & (x <= layer.out[1] - 1 - table.last_x[position]))
        shape = np.broadcast_shapes(address.shape, inside.shape)
        return Sites(*(np.broadcast_to(part, shape)
                       for part in (bank_y * config.lanes_x + bank_x, address & ADDRESS_MASK, inside)))

    def _activations(self, taps: np.ndarray, base: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """What the lanes get, (taps or bases, pixels, runs), int8, uint8 or int64; the output channel of each base, or
        all that read the taps."""
        sites = self._sites(taps, base)
        x = self.banks.read(self.layer.where, sites)
        self._note(sites, channels if len(channels) == len(base) else None)
        if Flag.X_SIGNED not in self.layer.flags:
            return x
        if Flag.MAX not in self.layer.flags:
            return x.view(np.int8)
        lifted = x.view(np.int8).astype(np.int64) + (1 << self.config.act_bits - 1)
        lifted[~sites.inside] = 0
        return lifted

    def _note(self, sites: Sites, channels: np.ndarray | None) -> None:
        """Keep who reads sites, with one channel a base; ``None`` stands for several channels."""
        at, pixels = (sites.bank[sites.inside], sites.address[sites.inside]), sites.bank.shape[1]
        if channels is None:
            self.reader[at] = SEVERAL
            return
        who = np.broadcast_to(channels[:, None] * pixels + np.arange(pixels), sites.bank.shape)[sites.inside]
        before = self.reader[at]
        self.reader[at] = np.where((before == NOBODY) | (before == who), who, SEVERAL)
        clash = self.reader[at] != who  # also of two that read the same site just now
        self.reader[at[0][clash], at[1][clash]] = SEVERAL

    def _sum(self, operations: Operations, rows: np.ndarray, base: int, channels: np.ndarray) -> np.ndarray:
        """Sums of the terms of rows with one base, int64 (rows, pixels, runs)."""
        first, last = np.searchsorted(operations.row, [rows[0], rows[-1] + 1])
        chosen = first + np.flatnonzero(np.isin(operations.row[first:last], rows))
        row = np.searchsorted(rows, operations.row[chosen])
        shift, sign = operations.shift[chosen], np.where(operations.kind[chosen] == OpKind.SUB, -1.0, 1.0)
        taps, tap = np.unique(operations.tap[chosen], return_inverse=True)
        truncate = self.config.truncate
        acc = np.zeros((len(rows), len(self.pixels[0]) * self.banks.runs), np.int64)
        step = max(1, CHUNK_BYTES // (8 * max(1, acc.shape[1])))
        for start in range(0, len(taps), step):
            x = self._activations(taps[start:start + step], np.array([base]), channels)
            count = len(x)
            x = x.reshape(count, -1)
            here = (tap >= start) & (tap < start + step)
            # Nothing is cut off of terms that reach the kept bits, so their shifts may as well be in the weight.
            drop = np.maximum(truncate - shift, 0)
            for amount in np.unique(drop[here]).tolist():
                use = here & (drop == amount)
                weights = np.bincount(row[use] * count + tap[use] - start, minlength=len(rows) * count,
                                      weights=sign[use] * 2.0 ** np.maximum(shift[use] - truncate, 0))
                # Exact: the watchdog allows at most 2**28 terms, each below 2**23, so every sum is below 2**53.
                acc += (weights.reshape(len(rows), count) @ (x >> amount).astype(np.float64)).astype(np.int64)
        return acc.reshape(len(rows), len(self.pixels[0]), self.banks.runs)

    def _follow(self, operations: Operations, chosen: slice, base: np.ndarray, channels: np.ndarray) -> np.ndarray:
        """Accumulators of one row's operations, one after another, at each base; int64 (bases, pixels, runs)."""
        acc = np.zeros((len(base), len(self.pixels[0]), self.banks.runs), np.int64)
        limit, held, x = 1 << self.config.acc_width - 1, -1, acc
        for tap, shift, kind in zip(operations.tap[chosen].tolist(), operations.shift[chosen].tolist(),
                                    operations.kind[chosen].tolist(), strict=True):
            if kind == OpKind.SKIP:
                if acc.size and (acc.min() < -limit or acc.max() >= limit):
                    self._refuse("before a rectification", acc)
                np.maximum(acc, 0, out=acc)
                continue
            if tap != held:
                held, x = tap, self._activations(np.array([tap]), base, channels).astype(np.int64)
            product = (x << shift) >> self.config.truncate
            acc += -product if kind == OpKind.SUB else product
        return acc
