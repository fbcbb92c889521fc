"""Metrics and drawn defects, by numbers that one can check by hand; the product's metrics beside these."""

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import metrics
import textures
from product import SHELL, Product


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


def test_aupro_at_a_limit_that_a_point_meets():
    # Two of four normal pixels lie above the region of one pixel: the curve is 0 up to 0.5, and then jumps.
    mask = np.array([[[0, 0, 1, 0, 0]]])
    scores = np.array([[[5, 4, 3, 2, 1]]])
    assert metrics.aupro(scores, mask, limit=0.5) == 0
    assert metrics.aupro(scores, mask, limit=1) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    shell = Path(os.environ.get("WAE_SHELL", SHELL))
    if not shell.exists():
        pytest.skip(f"no shell at {shell}: cargo build --bin wae")
    return Product(tmp_path_factory.mktemp("models"), shell)


def tensors(values):
    """Maps or masks, (N, H, W), as a column of tensors."""
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:], dim_names=["H", "W"])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), int(np.prod(values.shape[1:])))
    return pa.ExtensionArray.from_storage(kind, flat)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_the_products_metrics_are_these(product, tmp_path, scale, ties):
    rng = np.random.default_rng([scale, ties])
    # Blots that touch and do not, in two images of three; masks larger than maps by whole numbers, or of the same size.
    masks = rng.random((60, 12, 20)) < 0.06
    masks |= np.roll(masks, 1, 1) | np.roll(masks, 1, 2)
    masks[::3] = False
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    maps = (np.round(maps * 4) / 4 if ties else maps).astype(np.float32)
    large = masks.repeat(scale, 1).repeat(scale, 2)
    path = tmp_path / "maps.parquet"
    group = rng.integers(0, 2, len(maps))
    columns = {"map": tensors(maps), "mask": tensors(large.astype(np.uint8) * 255), "half": pa.array(group)}
    pq.write_table(pa.table(columns), path)
    metric = "pixel_auroc(map, mask) AS pixel_auroc, aupro(map, mask) AS aupro"
    rows = product.run(f"SELECT {metric} FROM '{path}'", f"SELECT half, {metric} FROM '{path}' GROUP BY half")
    assert len(rows) == 3
    for row in rows:
        chosen = group == row["half"] if "half" in row else np.ones(len(maps), bool)
        assert row["pixel_auroc"] == pytest.approx(metrics.auroc(maps[chosen], masks[chosen]), abs=1e-6)
        assert row["aupro"] == pytest.approx(metrics.aupro(maps[chosen], masks[chosen]), abs=1e-6)


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
