"""Dealing of rows to streams: everybody's rows are where the descriptor says, and the work is balanced."""

import numpy as np
import pytest

from shiftwright.sw.compiler.streams import Dealing, deal, dealable
from shiftwright.sw.network import Layer
from tests.networks import conv, pool, tensor


def grouped(rng: np.random.Generator, groups: int, rows: int, inner: int = 2) -> Layer:
    return conv(rng, tensor("input", groups * inner, 4, 4), "layer", channels=groups * rows, groups=groups)


def check(dealing: Dealing, layer: Layer, streams: int) -> None:
    """Counts, channels and input bases are the documented ones."""
    rows = layer.target.channels
    assert len(dealing.channels) == streams
    assert sorted(np.concatenate(dealing.channels).tolist()) == list(range(rows))
    group_rows = rows // layer.groups if layer.op == "conv" else 1
    inner = layer.source.channels // layer.groups if layer.op == "conv" else 1
    for stream, channels in enumerate(dealing.channels):
        assert channels.size == -(-(rows - stream) // streams)
        for row, channel in enumerate(channels.tolist()):
            assert dealing.order or channel == row * streams + stream
            base = stream * dealing.stream_step + row // dealing.group_rows * dealing.group_step
            assert base == channel // group_rows * inner


@pytest.mark.parametrize("streams", range(1, 9))
def test_groups_are_dealt_where_they_can_be(rng: np.random.Generator, streams: int) -> None:
    seen = set()
    for groups in (1, 2, 3, 4, 6, 8, 13):
        for rows in (1, 2, 3, 4, 8):
            layer = grouped(rng, groups, rows)
            assert dealable(layer, streams) == (groups == 1 or rows == 1 or rows % streams == 0
                                                or groups % streams == 0)
            seen.add(dealable(layer, streams))
            if dealable(layer, streams):
                check(deal(layer, streams, rng.integers(1, 50, size=groups * rows)), layer, streams)
    assert seen == ({True} if streams == 1 else {True, False})


@pytest.mark.parametrize("streams", [1, 3, 8])
@pytest.mark.parametrize("channels", [1, 5, 16])
def test_pooling_gives_each_stream_channels_of_its_own(rng: np.random.Generator, streams: int, channels: int) -> None:
    layer = pool(rng, tensor("input", channels, 4, 4), "pool")
    check(deal(layer, streams), layer, streams)


def test_long_rows_go_to_the_stream_with_less_to_do(rng: np.random.Generator) -> None:
    layer = conv(rng, tensor("input", 2, 4, 4), "layer", channels=64)
    work = rng.integers(1, 100, size=64)
    plain, balanced = deal(layer, 4), deal(layer, 4, work)
    check(balanced, layer, 4)

    def slowest(dealing: Dealing) -> int:
        return max(int(work[channels].sum()) for channels in dealing.channels)

    assert balanced.order and not plain.order
    assert slowest(balanced) < slowest(plain)
    assert slowest(balanced) - work.sum() / 4 <= work.max()


def test_order_is_not_worth_its_words_when_rows_are_alike(rng: np.random.Generator) -> None:
    layer = conv(rng, tensor("input", 2, 4, 4), "layer", channels=64)
    assert not deal(layer, 4, np.full(64, 20)).order
    assert not deal(layer, 1, rng.integers(1, 100, size=64)).order


def test_rows_that_are_fewer_than_the_streams_go_to_the_first(rng: np.random.Generator) -> None:
    layer = conv(rng, tensor("input", 2, 4, 4), "layer", channels=10)
    check(deal(layer, 8, np.array([1, 90, 3, 4, 80, 6, 7, 8, 50, 2])), layer, 8)
