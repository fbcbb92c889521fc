"""Arrow data as tables: what is taken, how often it is read, how much of it."""

import subprocess
import sys

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import TEST

ROWS = pa.table({"n": [1, 2, 3], "text": ["a", None, "c"]})
KINDS = {
    "pyarrow table": lambda: ROWS,
    "pyarrow batch": lambda: ROWS.to_batches()[0],
    "pyarrow dataset": lambda: ds.dataset(ROWS.to_batches()),
    "polars": lambda: pl.DataFrame(ROWS),
    "pandas": lambda: pd.DataFrame.from_arrow(ROWS),
    "duckdb": lambda: duckdb.sql("FROM ROWS"),
}


def total(ctx, table="t"):
    return pa.table(ctx.sql(f"SELECT sum(n) AS total, count(text) AS texts FROM {table}")).to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_read_as_often_as_a_query_wants(ctx, kind):
    ctx.register("t", KINDS[kind]())
    for _ in range(2):
        assert total(ctx) == [{"total": 6, "texts": 2}]
    if kind == "duckdb":
        return  # A connection of DuckDB reads one relation at a time, and says so.
    joined = ctx.sql("SELECT a.n FROM t AS a JOIN t AS b ON a.n = b.n ORDER BY a.n")
    assert pa.table(joined)["n"].to_pylist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["t", '"A b"', "public.t"])
def test_a_table_of_that_name_is_replaced(ctx, name):
    ctx.register(name, ROWS)
    ctx.register(name, ROWS.slice(0, 1))
    assert total(ctx, name) == [{"total": 1, "texts": 1}]


def test_a_stream_is_read_once_and_never_silently_empty(ctx):
    ctx.register("t", ROWS.to_reader())
    # Planning reads nothing.
    ctx.sql("EXPLAIN SELECT * FROM t").show()
    assert total(ctx) == [{"total": 6, "texts": 2}]
    with pytest.raises(RuntimeError, match="t is a stream, which can be read once, and it was"):
        ctx.sql("SELECT * FROM t").show()


def test_a_query_is_a_view(ctx):
    ctx.register("codes", ctx.sql(f"SELECT label, wae_encode(image) AS code, image FROM '{TEST}'"))
    plan = pa.table(ctx.sql("EXPLAIN SELECT code, wae_reconstruction_cost(image) FROM codes WHERE label = 1"))
    # One pass for both functions, over the rows that the filter lets through.
    plan = dict(zip(plan["plan_type"].to_pylist(), plan["plan"].to_pylist(), strict=True))["physical_plan"]
    assert plan.count("WaePassExec") == 1
    assert plan.index("WaePassExec") < plan.index("FilterExec")


def test_images_of_a_frame_are_scored_as_those_of_the_file(ctx):
    ctx.register("images", pl.read_parquet(TEST))
    ctx.register("tensors", pa.table(ctx.sql(f"SELECT image_decode(image, 28, 28, 1) AS image FROM '{TEST}'")))
    expected = pa.table(ctx.sql(f"SELECT wae_encode(image) AS code FROM '{TEST}'"))
    for table in ("images", "tensors"):
        assert pa.table(ctx.sql(f"SELECT wae_encode(image) AS code FROM {table}")).equals(expected)


def test_a_large_batch_is_read_in_parts(ctx):
    ctx.register("t", pa.table({"n": pa.array(range(100_000))}))
    batches = pa.RecordBatchReader.from_stream(ctx.sql("SELECT n FROM t"))
    sizes = [batch.num_rows for batch in batches]
    assert sum(sizes) == 100_000 and max(sizes) <= 8192


class Recorder:
    """A data set, and the columns that were asked of it."""

    def __init__(self, dataset):
        self.dataset, self.schema, self.asked = dataset, dataset.schema, []

    def scanner(self, columns):
        self.asked.append(columns)
        return self.dataset.scanner(columns=columns)


def test_only_the_columns_in_use_are_read_of_a_dataset(ctx, tmp_path):
    pq.write_table(ROWS, tmp_path / "rows.parquet")
    recorder = Recorder(ds.dataset(tmp_path / "rows.parquet"))
    ctx.register("t", recorder)
    assert pa.table(ctx.sql("SELECT n FROM t"))["n"].to_pylist() == [1, 2, 3]
    assert pa.table(ctx.sql("SELECT count(*) AS rows FROM t"))["rows"].to_pylist() == [3]
    assert recorder.asked == [["n"], []]


def test_an_exception_of_a_source_comes_out_as_it_was(ctx):
    class Broken:
        def __init__(self):
            self.reads = 0

        def __len__(self):
            return 3

        def __arrow_c_stream__(self, requested_schema=None):
            self.reads += 1
            if self.reads > 1:
                raise LookupError("the source is gone")
            return ROWS.__arrow_c_stream__()

    ctx.register("t", Broken())
    with pytest.raises(LookupError, match="the source is gone"):
        ctx.sql("SELECT * FROM t").show()

    def batches():
        yield ROWS.to_batches()[0]
        raise LookupError("half of it is missing")

    ctx.register("t", pa.RecordBatchReader.from_batches(ROWS.schema, batches()))
    with pytest.raises(RuntimeError, match="half of it is missing"):
        ctx.sql("SELECT * FROM t").show()


@pytest.mark.parametrize("other", [1, None, [1, 2], {"n": [1]}])
def test_other_objects_are_refused(ctx, other):
    with pytest.raises(TypeError, match=f"t: expected a query, or Arrow data .*, got {type(other).__name__}"):
        ctx.register("t", other)


def test_the_interpreter_may_end_while_a_source_is_read():
    script = """
import time
import pyarrow as pa
import datafusion_wae

rows = pa.table({"n": list(range(10))})

def batches():
    while True:
        time.sleep(0.05)
        yield rows.to_batches()[0]

ctx = datafusion_wae.SessionContext()
ctx.register("t", pa.RecordBatchReader.from_batches(rows.schema, batches()))
reader = pa.RecordBatchReader.from_stream(ctx.sql("SELECT n FROM t"))
print(reader.read_next_batch().num_rows)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "10\n", "")
