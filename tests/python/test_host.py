"""`register`: the functions on a `datafusion.SessionContext` of PyPI give what they give in a session of ours."""

import datafusion
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BACKBONES, TEST, context

import datafusion_wae

IMAGES = "FROM images ORDER BY id"
# Every scalar function, by a call that needs no names for its arguments.
SCALARS = {
    "wae_encode": "wae_encode(image)",
    "wae_decode": "wae_decode(wae_encode(image))",
    "wae_reconstruct": "wae_reconstruct(image)",
    "wae_reconstruction_cost": "wae_reconstruction_cost(image)",
    "wae_latent_distance": "wae_latent_distance(image)",
    "wae_anomaly_score": "wae_anomaly_score(image)",
    "wae_p_value": "wae_p_value(image)",
    "wae_is_outlier": "wae_is_outlier(image, 0.05)",
    "wae_detect": "wae_detect(image)",
    "wae_anomaly_map": "wae_anomaly_map(image)",
    "wae_anomaly_mask": "wae_anomaly_mask(image, 0.05)",
    "wae_anomaly_regions": "wae_anomaly_regions(image, 0.05)",
    "wae_cost_map": "wae_cost_map(image)",
    "wae_interpolate": "wae_interpolate(wae_encode(image), wae_encode(image), 3)",
    "image_decode": "image_decode(image, 14, 14, 1)",
    "image_encode": "image_encode(image_decode(image, 14, 14, 1), 'png')",
    "image_resize": "image_resize(image, 14, 10)",
    "image_crop": "image_crop(image, 2, 3, 10, 9)",
    "image_tiles": "image_tiles(image, 14)",
    "image_sharpness": "image_sharpness(image)",
    "image_features": "image_features(image_decode(image, 14, 14, 3), 'resnet-timm', 'pooled', 14)",
}
AGGREGATES = {
    "auroc": "auroc(wae_reconstruction_cost(image), label IN (4, 5, 7, 9))",
    "average_precision": "average_precision(wae_reconstruction_cost(image), label IN (4, 5, 7, 9))",
    "wae_mmd": "wae_mmd(wae_encode(image))",
    "wae_mmd_p_value": "wae_mmd_p_value(wae_encode(image))",
    "image_stitch": "image_stitch(make_array(make_array(label)), 0, place)['data'][1]",
    "frechet_distance": "frechet_distance(wae_encode(image), wae_encode(wae_reconstruct(image)))",
    "pixel_auroc": "pixel_auroc(wae_anomaly_map(image), image)",
    "aupro": "aupro(wae_anomaly_map(image), image)",
}


@pytest.fixture(scope="module")
def images(models):
    ctx = context(models[0])
    query = f"SELECT row_number() OVER () AS id, label, image FROM '{TEST}' LIMIT 300"
    return pa.table(ctx.sql(query))


@pytest.fixture
def ours(ctx, images):
    ctx.register("images", images)
    return ctx


@pytest.fixture
def host(models, images):
    # As ours: rows come in the order of the table.
    host = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    datafusion_wae.register(host, model="clothes", model_dir=models[0], weights_dir=BACKBONES)
    host.from_arrow(images, name="images")
    return host


def same(ours, host, statement):
    """The rows of a statement, which both contexts agree on."""
    expected, got = pa.table(ours.sql(statement)), host.sql(statement).to_arrow_table()
    assert got.num_rows > 0 and got.to_pylist() == expected.to_pylist()
    return got


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_functions(ours, host, name):
    rows = same(ours, host, f"SELECT id, {SCALARS[name]} AS value {IMAGES}")
    assert rows.num_rows == 300 and rows["value"].null_count == 0


def test_the_codes_are_equal_bit_for_bit(ours, host):
    statement = f"SELECT wae_encode(image) AS code {IMAGES}"
    codes = [pa.table(ours.sql(statement))["code"], host.sql(statement).to_arrow_table()["code"]]
    ours, hosts = (column.combine_chunks().flatten().to_numpy().tobytes() for column in codes)
    assert ours == hosts and len(ours) == 300 * 8 * 4


@pytest.mark.parametrize("name", AGGREGATES)
def test_aggregates(ours, host, name):
    place = "CAST(row_number() OVER (PARTITION BY label < 5 ORDER BY id) AS BIGINT) - 1 AS place"
    rows = f"SELECT label, image, {place} FROM images"
    statement = f"SELECT {AGGREGATES[name]} AS value FROM ({rows}) GROUP BY label < 5 ORDER BY label < 5"
    expected, got = pa.table(ours.sql(statement)), host.sql(statement).to_arrow_table()
    # Sums are taken in another order where states are merged.
    assert got["value"].to_pylist() == pytest.approx(expected["value"].to_pylist(), rel=1e-9)
    assert got.num_rows == 2 and got["value"].null_count == 0


def test_the_window_function(ours, host):
    same(ours, host, f"SELECT id, wae_fdr(wae_p_value(image)) OVER () AS adjusted {IMAGES}")


def test_functions_in_every_clause(ours, host):
    same(ours, host, "SELECT id FROM images WHERE wae_is_outlier(image, 0.05) ORDER BY wae_reconstruction_cost(image) LIMIT 5")
    same(ours, host, "SELECT label, avg(wae_reconstruction_cost(image)) AS cost FROM images GROUP BY label "
                     "HAVING max(wae_p_value(image)) > 0.5 ORDER BY label")


def test_every_function_that_is_registered_is_tested_here(host):
    plain = datafusion.SessionContext()
    assert set(host.udfs()) - set(plain.udfs()) == set(SCALARS)
    assert set(host.udafs()) - set(plain.udafs()) == set(AGGREGATES)
    assert set(host.udwfs()) - set(plain.udwfs()) == {"wae_fdr"}


def test_the_model_as_an_argument(models, images):
    host = datafusion.SessionContext()
    datafusion_wae.register(host, model_dir=models[0])
    host.from_arrow(images, name="images")
    host.sql(f"SELECT wae_encode(image, 'clothes') AS code, wae_p_value(image, 'clothes', 'anomaly_score') {IMAGES}").collect()
    with pytest.raises(Exception, match="wae_encode: no model given"):
        host.sql(f"SELECT wae_encode(image) {IMAGES}")
    with pytest.raises(Exception, match="wae_encode: no model 'nobody' in '.*', which holds clothes"):
        host.sql(f"SELECT wae_encode(image, 'nobody') {IMAGES}")
    # Aggregates cannot look a model up over there.
    with pytest.raises(Exception, match="wae_mmd"):
        host.sql("SELECT wae_mmd(wae_encode(image, 'clothes'), 'clothes') FROM images")


def test_what_the_interface_does_not_carry(host):
    with pytest.raises(Exception, match="does not support named arguments"):
        host.sql("SELECT wae_encode(image, model => 'clothes') FROM images")
    with pytest.raises(Exception, match="wae_mmd takes 1 argument here"):
        host.sql("SELECT wae_mmd(wae_encode(image), 'other') FROM images")
    with pytest.raises(Exception, match="wae"):
        host.sql("SET wae.model = 'other'")
    with pytest.raises(Exception, match="wae_train"):
        host.sql("SELECT * FROM wae_train('images', 'm')")


def test_each_function_runs_the_network_by_itself(ours, host):
    statement = "EXPLAIN SELECT wae_encode(image), wae_reconstruction_cost(image) FROM images"
    assert "WaePassExec" in str(pa.table(ours.sql(statement)).to_pylist())
    assert "WaePassExec" not in str(host.sql(statement).to_arrow_table().to_pylist())


def test_a_model_that_is_replaced_while_a_query_runs(images, tmp_path):
    ctx = context(tmp_path)
    ctx.register("images", images)
    codes = {}
    for seed, name in enumerate(("old", "new")):
        list(ctx.train("images", model=name, network="8", epochs=1, seed=seed, progress=False))
        codes[name] = pa.table(ctx.sql(f"SELECT wae_encode(image, '{name}') AS code FROM images"))["code"].to_pylist()
    pq.write_table(images, tmp_path / "images.parquet")
    (tmp_path / "old.safetensors").rename(tmp_path / "model.safetensors")

    host = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1).with_batch_size(50))
    datafusion_wae.register(host, model_dir=tmp_path)
    host.register_parquet("pictures", tmp_path / "images.parquet")
    batches = iter(host.sql("SELECT wae_encode(image, 'model') AS code FROM pictures"))
    assert next(batches).to_pyarrow()["code"].to_pylist() == codes["old"][:50]
    (tmp_path / "new.safetensors").rename(tmp_path / "model.safetensors")
    *_, last = batches
    assert last.to_pyarrow()["code"].to_pylist() == codes["new"][-50:]


def test_options(models, images):
    host = datafusion.SessionContext()
    with pytest.raises(datafusion_wae.PlanError, match="unknown option 'wae.models', expected one of wae.model"):
        datafusion_wae.register(host, models="clothes")
    with pytest.raises(datafusion_wae.PlanError, match="wae.batch_size must be an integer of at least 1, got '0'"):
        datafusion_wae.register(host, batch_size=0)
    with pytest.raises(datafusion_wae.PlanError, match="wae_mmd: no model 'nobody'"):
        datafusion_wae.register(host, model="nobody", model_dir=models[0])
    # They hold while computing, too, and until functions are registered again.
    host.from_pydict({"bytes": [b"no image"]}, name="broken")
    datafusion_wae.register(host, on_error="null")
    statement = "SELECT image_decode(bytes, 2, 2, 1) AS image FROM broken"
    assert host.sql(statement).to_arrow_table()["image"].null_count == 1
    host.sql("SET datafusion.execution.batch_size = 100")
    assert host.sql(statement).to_arrow_table()["image"].null_count == 1
    datafusion_wae.register(host)
    with pytest.raises(Exception, match="image_decode"):
        host.sql(statement).collect()


def test_tensors_of_parquet_files_keep_their_type(host, ours, tmp_path):
    ours.sql(f"COPY (SELECT image_decode(image, 28, 28, 1) AS image FROM images) TO '{tmp_path}/tensors.parquet'")
    statement = "SELECT image_encode(image) AS png, wae_encode(image) AS code FROM"
    host.sql(f"CREATE EXTERNAL TABLE tensors STORED AS PARQUET LOCATION '{tmp_path}/tensors.parquet'")
    host.sql(f"{statement} tensors").collect()
    # Its method has an argument for it, which knows nothing of the session.
    host.register_parquet("kept", tmp_path / "tensors.parquet", skip_metadata=False)
    host.sql(f"{statement} kept").collect()
    host.register_parquet("lost", tmp_path / "tensors.parquet")
    with pytest.raises(Exception, match="give the column arrow.fixed_shape_tensor metadata"):
        host.sql(f"{statement} lost").collect()


def test_another_version_of_datafusion_is_refused(monkeypatch):
    host = datafusion.SessionContext()
    monkeypatch.setattr(datafusion, "__version__", "54.1.0")
    with pytest.raises(ImportError, match="expected version 55 of the package datafusion, got 54.1.0"):
        datafusion_wae.register(host)
