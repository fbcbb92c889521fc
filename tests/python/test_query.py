"""Queries: who takes their rows, when they run, what they raise."""

import subprocess
import sys
import textwrap
import threading
import time

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TEST, TRAIN, context

import datafusion_wae

CODES = f"SELECT label, wae_encode(image) AS code, wae_reconstruction_cost(image) AS cost FROM '{TEST}' LIMIT 100"


def test_pyarrow_polars_pandas_and_duckdb_take_the_same_rows(ctx):
    query = ctx.sql(CODES)
    table = pa.table(query)
    assert table.num_rows == 100
    assert table.schema == pa.schema(query)
    assert table.schema.field("code").type == pa.list_(pa.field("item", pa.float32()), 8)
    rows = table.to_pylist()

    frame = pl.DataFrame(query)
    assert frame.schema["code"] == pl.Array(pl.Float32, 8)
    assert frame.to_dicts() == rows

    frame = pd.DataFrame.from_arrow(query)
    assert frame["cost"].tolist() == [row["cost"] for row in rows]

    counted = duckdb.sql("SELECT count(*), sum(cost::DOUBLE), max(code[1]) FROM query").fetchall()[0]
    costs, firsts = [row["cost"] for row in rows], [row["code"][0] for row in rows]
    assert counted == (100, pytest.approx(sum(costs)), max(firsts))


def test_the_codes_are_those_of_the_shell_bit_for_bit(ctx, models, shell, tmp_path):
    statement = f"SELECT wae_encode(image) AS code, wae_detect(image) AS scores FROM '{TEST}'"
    _, errors = shell(
        f"SET wae.model_dir = '{models[0]}'",
        "SET wae.model = 'clothes'",
        f"COPY ({statement}) TO '{tmp_path}/shell.parquet'",
    )
    assert errors == ""
    expected, got = pq.read_table(tmp_path / "shell.parquet"), pa.table(ctx.sql(statement))
    assert got.num_rows == 1500
    for column in ("code", "scores"):
        assert got[column].to_pylist() == expected[column].to_pylist()
    assert bits(got["code"]) == bits(expected["code"])


def bits(column):
    """The bytes of a column of codes."""
    return column.combine_chunks().flatten().to_numpy().tobytes()


def test_images_keep_their_tensor_type(ctx):
    images = pa.table(ctx.sql("SELECT image FROM wae_sample(3)"))
    assert isinstance(images.schema.field("image").type, pa.FixedShapeTensorType)
    assert images["image"].combine_chunks().to_numpy_ndarray().shape == (3, 28, 28, 1)


def test_what_is_no_query_has_run_when_sql_returns(ctx, tmp_path):
    ctx.sql("SET wae.batch_size = 7")
    assert pa.table(ctx.sql("SHOW wae.batch_size"))["value"].to_pylist() == ["7"]
    ctx.sql("CREATE TABLE numbers AS SELECT 1 AS n")
    assert pa.table(ctx.sql("INSERT INTO numbers VALUES (2), (3)"))["count"].to_pylist() == [2]
    copied = ctx.sql(f"COPY numbers TO '{tmp_path}/numbers.parquet'")
    assert pq.read_table(tmp_path / "numbers.parquet")["n"].to_pylist() == [1, 2, 3]
    # Reading its row does not copy again.
    (tmp_path / "numbers.parquet").unlink()
    assert pa.table(copied)["count"].to_pylist() == [3]
    assert not (tmp_path / "numbers.parquet").exists()


def test_rows_stream_and_are_computed_anew_each_time(ctx):
    endless = ctx.sql("SELECT * FROM generate_series(1, 1000000000000)")
    reader = pa.RecordBatchReader.from_stream(endless)
    assert reader.read_next_batch()["value"][0].as_py() == 1
    reader.close()

    ctx.sql("CREATE TABLE growing AS SELECT 1 AS n")
    query = ctx.sql("SELECT * FROM growing")
    assert pa.table(query).num_rows == 1
    ctx.sql("INSERT INTO growing VALUES (2)")
    assert pa.table(query).num_rows == 2


def test_show_prints_a_table_with_long_values_cut(ctx, capsys):
    ctx.sql(f"SELECT label, image_decode(image) AS image FROM '{TEST}'").show(limit=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and max(map(len, lines)) < 90
    assert "…" in lines[3]
    ctx.sql("SELECT 1 AS one WHERE false").show()
    assert "one" in capsys.readouterr().out
    assert repr(ctx.sql("SELECT 1 AS one")) == "<datafusion_wae.Query (one: Int64)>"


@pytest.mark.parametrize(
    "statement",
    [
        "SELEC 1",
        "SELECT nothing",
        "SET wae.batch_size = 0",
        "SET wae.nothing = 1",
        f"SELECT wae_encode(image, 'nobody') FROM '{TEST}'",
        f"SELECT wae_encode(label) FROM '{TEST}'",
        f"SELECT wae_is_outlier(image, 2.0) FROM '{TEST}'",
        f"SELECT * FROM wae_train((SELECT image FROM '{TEST}'), model => 'm', epoch => 1)",
    ],
)
def test_a_wrong_statement_is_a_plan_error_with_the_shells_text(ctx, models, shell, statement):
    with pytest.raises(datafusion_wae.PlanError) as raised:
        ctx.sql(statement)
    assert isinstance(raised.value, ValueError) and isinstance(raised.value, datafusion_wae.Error)
    _, errors = shell(f"SET wae.model_dir = '{models[0]}'", "SET wae.model = 'clothes'", statement)
    assert str(raised.value) == errors.rstrip("\n")


def test_bad_data_is_an_execution_error_with_the_shells_text(ctx, models, shell):
    statement = "SELECT image_decode(arrow_cast('no image', 'Binary')) AS image FROM (VALUES (1)) AS t(n)"
    with pytest.raises(datafusion_wae.ExecutionError) as raised:
        ctx.sql(statement).show()
    assert isinstance(raised.value, RuntimeError)
    _, errors = shell(statement)
    assert errors.rstrip("\n") == str(raised.value) != ""
    # A reader of the stream raises what it raises, with the same text.
    with pytest.raises(Exception) as raised_by_reader:
        pa.table(ctx.sql(statement))
    assert str(raised.value) in str(raised_by_reader.value)


def test_warnings_go_to_logging(ctx, caplog):
    ctx.sql("SET wae.on_error = 'null'")
    broken = ctx.sql("SELECT image_decode(arrow_cast('no image', 'Binary')) AS image FROM generate_series(1, 3)")
    assert pa.table(broken)["image"].null_count == 3
    record = next(record for record in caplog.records if record.levelname == "WARNING")
    assert record.name.startswith("datafusion_wae") and "image_decode" in record.getMessage()


def test_other_threads_run_while_a_query_computes(ctx):
    counted, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counted[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    during = []
    # A query that is too short for the other thread to count is followed by longer ones. Where a query keeps the interpreter, the
    # thread counts at its ends only, however long it is.
    for more in (0, 10**8, 10**10):
        before = counted[0]
        pa.table(ctx.sql(f"SELECT wae_reconstruct(image) FROM '{TRAIN}'"))
        ctx.sql(f"SELECT count(*) FROM generate_series(1, {more}) AS t(n) WHERE sin(n) > 2").show()
        during.append(counted[0] - before)
        if during[-1] > 20:
            break
    done.set()
    thread.join()
    assert during[-1] > 20, during


def test_threads_share_a_session(ctx):
    expected, results = pa.table(ctx.sql(CODES)), []
    threads = [threading.Thread(target=lambda: results.append(pa.table(ctx.sql(CODES)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(result.equals(expected) for result in results)


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_process_says_that_it_cannot():
    script = """
        import os, warnings
        import datafusion_wae
        warnings.simplefilter("ignore")
        if os.fork() == 0:
            # Nothing was started before this fork: it works here.
            datafusion_wae.SessionContext().sql("SELECT 1").show()
            os._exit(0)
        assert os.wait()[1] == 0
        ctx = datafusion_wae.SessionContext()
        if os.fork() == 0:
            try:
                ctx.sql("SELECT 1")
            except RuntimeError as error:
                print(error, flush=True)
            os._exit(0)
        os.wait()
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "'spawn'" in done.stdout
