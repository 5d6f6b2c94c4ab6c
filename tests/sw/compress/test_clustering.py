"""Codewords: k-means with and without a mask, self-organizing maps, stages."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from shiftwright.hw.arch.errors import ModelError
from shiftwright.sw.compress.clustering import LEARNERS, kmeans, learn, scalar_starts, self_organizing_map

pytestmark = pytest.mark.usefixtures("one_thread")


def cloud(count: int, dimension: int, seed: int = 3) -> Tensor:
    """Points of a normal distribution."""
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def error(points: Tensor, mask: Tensor, labels: Tensor, codewords: Tensor) -> float:
    """Sum of squared errors over what is not masked."""
    return float(((points - codewords[labels]) * mask).square().sum())


def test_starts() -> None:
    values = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 4.0])
    assert scalar_starts(values, 3, "linear").tolist() == [0.0, 2.0, 4.0]
    assert scalar_starts(values, 2, "density").tolist() == pytest.approx([0.2, 0.6])
    chosen = scalar_starts(values, 4, "random", seed=1)
    assert len(chosen.unique()) == 4 and bool(torch.isin(chosen, values).all())
    assert torch.equal(chosen, scalar_starts(values, 4, "random", seed=1))


def test_masked_coordinates_do_not_count() -> None:
    points = torch.tensor([[1.0, 0.0], [1.2, 5.0], [-1.0, 0.0], [-1.0, -3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, True], [True, False], [True, True]])
    labels, codewords = kmeans(points, mask, points[[1, 3]], 10)
    assert labels.tolist() == [0, 0, 1, 1]
    assert codewords.tolist() == [[pytest.approx(1.1), 5.0], [-1.0, -3.0]]
    _, codewords = kmeans(points[[0, 2]], mask[[0, 2]], points[[0, 2]], 10)
    assert codewords.tolist() == [[1.0, 0.0], [-1.0, 0.0]], "a coordinate that nobody has is 0"


def test_an_unused_codeword_moves_to_where_the_error_is() -> None:
    points, mask = cloud(60, 3), torch.ones(60, 3, dtype=torch.bool)
    mask[0, 0], points[0, 0] = False, 0
    far = torch.cat([points[:4], torch.full((1, 3), 1e6, dtype=torch.float64)])
    labels, _ = kmeans(points, mask, far, 30)
    assert len(labels.unique()) == 5


def test_masked_is_the_same_where_nothing_is_masked() -> None:
    points, starts = cloud(200, 2), cloud(200, 2)[:7]
    mask = torch.ones(201, 2, dtype=torch.bool)
    mask[200] = False  # one vector that no distance sees
    labels, codewords = kmeans(torch.cat([points, torch.zeros(1, 2, dtype=torch.float64)]), mask, starts, 100)
    found = KMeans(7, init=starts.numpy(), n_init=1, max_iter=100, tol=0).fit(points.numpy())
    assert np.array_equal(labels[:200].numpy(), found.labels_)
    assert codewords.numpy() == pytest.approx(found.cluster_centers_)


def test_a_map_keeps_its_order_and_learns() -> None:
    points = cloud(500, 1)
    mask = torch.ones_like(points, dtype=torch.bool)
    labels, codewords = self_organizing_map(points, mask, 12, 30, 0.25)
    assert bool((codewords[1:] > codewords[:-1]).all())
    starts = scalar_starts(points[:, 0], 12, "linear")[:, None]
    assert error(points, mask, labels, codewords) < 1.3 * error(points, mask, *kmeans(points, mask, starts, 30))
    again = self_organizing_map(points, mask, 12, 30, 0.25)
    assert torch.equal(again[0], labels) and torch.equal(again[1], codewords)


def test_neighbours_of_a_map_are_near_each_other() -> None:
    points = cloud(800, 2)
    _, codewords = self_organizing_map(points, torch.ones_like(points, dtype=torch.bool), 16, 40, 0.25)
    steps = (codewords[1:] - codewords[:-1]).norm(dim=1).mean()
    apart = torch.cdist(codewords, codewords).sum() / (16 * 15)
    assert steps < 0.7 * apart


@pytest.mark.parametrize("learner", LEARNERS)
def test_each_stage_lowers_the_error(learner: str) -> None:
    points = cloud(300, 2).float()
    mask = torch.rand(300, 2, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[~mask.any(1), 0] = True
    errors = []
    for counts in ((8,), (8, 4), (8, 4, 4)):
        labels, codewords = learn(points, mask, counts, learner=learner, passes=30, radius=0.25, seed=0)
        assert labels.shape == (len(counts), 300) and tuple(map(len, codewords)) == counts
        total = torch.stack([stage[label] for stage, label in zip(codewords, labels, strict=True)]).sum(0)
        errors.append(float(((points - total) * mask).square().sum()))
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


@pytest.mark.parametrize("learner", LEARNERS)
def test_few_different_vectors(learner: str) -> None:
    points = torch.tensor([[0.5, 0.5]] * 5 + [[-1.0, 0.0]])
    labels, codewords = learn(points, torch.ones(6, 2, dtype=torch.bool), (256,), learner=learner, passes=30,
                              radius=0.25, seed=0)
    assert len(codewords[0]) == 2 and torch.allclose(codewords[0][labels[0]], points, atol=1e-6)
    labels, codewords = learn(points[:1], torch.ones(1, 2, dtype=torch.bool), (4, 4), learner=learner, passes=30,
                              radius=0.25, seed=0)
    assert torch.equal(codewords[0][labels[0]], points[:1])


def test_not_a_number() -> None:
    points = torch.tensor([[float("nan")]])
    with pytest.raises(ModelError, match="no numbers can't be clustered"):
        learn(points, torch.tensor([[True]]), (2,), learner="som", passes=3, radius=0.25, seed=0)
