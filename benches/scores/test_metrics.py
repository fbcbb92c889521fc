"""Metrics and drawn defects, by numbers that one can check by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import metrics
import textures


def test_auroc_counts_pairs():
    assert metrics.auroc([1, 2, 3, 4], [0, 0, 1, 1]) == 1
    assert metrics.auroc([4, 2, 3, 1], [0, 0, 1, 1]) == 0.25
    assert metrics.auroc([1, 1, 1], [0, 1, 1]) == 0.5


def test_regions_touch_at_corners():
    mask = np.array([[[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 0, 0]]])
    numbers = metrics.regions(np.concatenate([mask, mask]))
    assert numbers.max() == 6 and (numbers[mask.repeat(2, 0) == 0] == 0).all()
    assert numbers[0, 0, 0] == numbers[0, 1, 1] != numbers[0, 0, 3] == numbers[0, 1, 3]
    assert metrics.regions(np.ones((1, 2, 2))).tolist() == [[[1, 1], [1, 1]]]


def test_regions_of_a_spiral_are_one():
    spiral = np.array([[[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]])
    assert metrics.regions(spiral).max() == 1


def test_aupro_weighs_regions_alike():
    # A region of three pixels is found before any other pixel, a region of one pixel after half of the normal ones.
    mask = np.array([[[1, 1, 1, 0, 0, 0, 1, 0]]])
    scores = np.array([[[9, 8, 7, 6, 5, 4, 4.5, 3.0]]])
    assert metrics.aupro(scores, mask) == pytest.approx(0.5)
    assert metrics.aupro(scores, mask, limit=1) == pytest.approx((0.5 * 0.5 + 1 * 0.5))
    assert metrics.aupro(mask.astype(float), mask) == 1
    # Where all scores are equal, the overlap grows as the false positive rate does.
    assert metrics.aupro(np.zeros(mask.shape), mask) == pytest.approx(0.15)


@pytest.mark.parametrize("kind", textures.KINDS)
def test_a_defect_changes_its_mask_alone(kind):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    other = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    for _ in range(20):
        changed, mask = textures.draw(kind, image, other, rng)
        assert changed.dtype == np.uint8 and changed.shape == mask.shape == image.shape
        assert (changed[~mask] == image[~mask]).all()
        assert (changed[mask] != image[mask]).mean() > 0.5
        assert 0.002 < mask.mean() < 0.2
