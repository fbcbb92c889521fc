"""The columns of Python in the table *What works where?* of the guide's page `hosts.md`: the statements of `places.rs`."""

import json

import datafusion
import pyarrow as pa
import pytest
from conftest import ROOT, TEST, TRAIN, context

import datafusion_wae

FILE = json.loads((ROOT / "tests/cells/cells.json").read_text())
CELLS = dict(FILE["cells"])
# What the host refuses, and what it says.
REFUSED = {
    "named arguments in calls": "does not support named arguments",
    "`SET wae.*`": "wae",
    # A call with a name in it is refused before the function is looked for.
    "`wae_train`": "Unsupported function argument type: model => 'new'",
    "`wae_calibrate`": "Unsupported function argument type: model => 'new'",
    "`wae_sample`": "wae_sample",
    "`wae_models`, `wae_history`": "wae_models",
    "`read_images`": "read_images",
    "these beside other tables": "wae_sample",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the model `m` and the table's file."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "data").mkdir()
    ctx = context(folder / "models")
    ctx.sql(f"COPY (SELECT 0 AS file, label, image FROM '{TEST}') TO '{folder}/data/0.parquet'")
    list(ctx.train(ctx.sql(f"SELECT image FROM '{TRAIN}'"), model="m", network="8", epochs=1, progress=False))
    return folder


def setup(folder):
    return [f"CREATE EXTERNAL TABLE test STORED AS PARQUET LOCATION '{folder}/data/'", FILE["prepare"]]


def test_what_works_in_a_session(folder):
    ctx = context(folder / "models")
    ctx.sql("SET wae.model = 'm'")
    for statement in setup(folder):
        ctx.sql(statement)
    for cell, statement in CELLS.items():
        assert pa.table(ctx.sql(statement.replace("{data}", f"{folder}/data"))).num_rows > 0, cell


@pytest.mark.parametrize("cell", CELLS)
def test_what_works_on_a_host(folder, cell):
    host = datafusion.SessionContext().enable_url_table()
    datafusion_wae.register(host, model="m", model_dir=folder / "models")
    statement = CELLS[cell].replace("{data}", f"{folder}/data")

    def rows():
        host.sql(setup(folder)[0])
        if cell == "prepared statements":
            host.sql(FILE["prepare"]).collect()
        return sum(batch.num_rows for batch in host.sql(statement).collect())

    if cell in REFUSED:
        with pytest.raises(Exception, match=REFUSED[cell]):
            rows()
    else:
        assert rows() > 0
