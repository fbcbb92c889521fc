"""PyTorch computes what SQL does from a model file alone: codes, costs, anomaly maps and scores (tests/interop/torch_scores.py)."""

import sys

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT, TEST, TRAIN, context

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
sys.path.insert(0, str(ROOT / "tests/interop"))
import torch_scores  # noqa: E402

EMOJI = ROOT / "fixtures/emoji/test.parquet"
# The largest |a − b| / max|b| of codes and costs, as of the golden files.
TOLERANCE = 1e-4
# The largest |a − b| of maps and scores, which lie in [0, 1].
OF_MAPS = 1e-4


def column(table, name):
    """A column of numbers or of lists and tensors of them, a row an entry of the first axis."""
    values = table[name].combine_chunks()
    values = getattr(values, "storage", values)
    flat = values.flatten() if pa.types.is_nested(values.type) else values
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), -1)


def check(ctx, folder, source, rows):
    """Compares the model `m` in SQL, over the rows of column `x` in `source`, with PyTorch over `rows`, (N, H, W, C)."""
    calls = {name: f"{name}(x, 'm')" for name in ("wae_encode", "wae_reconstruction_cost", "wae_anomaly_map", "wae_anomaly_score")}
    table = pa.table(ctx.sql(f"SELECT {', '.join(f'{call} AS {name}' for name, call in calls.items())} FROM {source}"))
    model = torch_scores.Model(folder / "m.safetensors")
    codes, reconstructions, maps, scores = (values.numpy() for values in model(torch.from_numpy(rows)))
    assert np.abs(column(table, "wae_encode") - codes).max() <= TOLERANCE * np.abs(codes).max()
    if "input" not in model.config:
        costs = ((rows - reconstructions) ** 2).sum((1, 2, 3))
        assert np.abs(column(table, "wae_reconstruction_cost")[:, 0] - costs).max() <= TOLERANCE * costs.max()
    assert np.abs(column(table, "wae_anomaly_map") - maps.reshape(len(maps), -1)).max() <= OF_MAPS
    ours = column(table, "wae_anomaly_score")[:, 0]
    assert np.abs(ours - scores).max() <= OF_MAPS
    assert scores.min() < 0.5 < scores.max(), "normal and strange rows are compared"
    assert ((ours > 0.5) == (scores > 0.5))[np.abs(scores - 0.5) > OF_MAPS].all()


@pytest.mark.parametrize("scales", ["16,mean,whole", "16,8,4"])
def test_grey_images(tmp_path, scales):
    ctx = context(tmp_path)
    source = ctx.sql(f"SELECT image FROM '{TRAIN}' WHERE label < 5")
    list(ctx.train(source, model="m", progress=False, network="8,16", epochs=2, score_scales=scales))
    table = pa.table(ctx.sql(f"SELECT image_decode(image, 28, 28, 1) AS x FROM '{TEST}' LIMIT 300"))
    ctx.register("decoded", table)
    check(ctx, tmp_path, "decoded", column(table, "x").reshape(-1, 28, 28, 1) / 255)


def test_pictures_in_colour(tmp_path):
    ctx = context(tmp_path)
    table = pa.table(ctx.sql(f"SELECT image_decode(image, 32, 48, 3) AS x FROM '{EMOJI}'"))
    ctx.register("decoded", table)
    list(ctx.train(ctx.sql("SELECT x FROM decoded LIMIT 200"), model="m", progress=False, network="8,16", epochs=2, cost="l1"))
    rows = column(table, "x").reshape(-1, 32, 48, 3) / 255
    model = torch_scores.Model(tmp_path / "m.safetensors")
    scores = column(pa.table(ctx.sql("SELECT wae_anomaly_score(x, 'm') AS s FROM decoded")), "s")[:, 0]
    assert np.abs(scores - model(torch.from_numpy(rows))[3].numpy()).max() <= OF_MAPS


@pytest.mark.parametrize("shape", [(1, 1, 12), (3, 5, 6), (10, 9, 4)], ids=["vectors", "small maps", "maps"])
def test_features(tmp_path, shape):
    ctx = context(tmp_path)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, *shape)) @ rng.normal(size=(shape[2], shape[2])) * 20 + 7
    values[500:] += rng.normal(size=(100, *shape)) * 60  # strange rows
    values = values.astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), int(np.prod(shape)))
    kind = pa.fixed_shape_tensor(pa.float32(), shape, dim_names=["H", "W", "C"])
    rows = flat if shape[:2] == (1, 1) else pa.ExtensionArray.from_storage(kind, flat)
    ctx.register("rows", pa.table({"x": rows, "i": np.arange(600)}))
    source = ctx.sql("SELECT x FROM rows WHERE i < 500")
    list(ctx.train(source, model="m", progress=False, input="features", epochs=3, batch_size=25))
    check(ctx, tmp_path, "rows", values)
