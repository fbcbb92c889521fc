"""Training from Python: epochs, the bar, breaking off."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import OPTIONS, START_THREADS, TEST, TRAIN, context

import datafusion_wae

NAMED = ", ".join(f"{name} => {value!r}" for name, value in OPTIONS.items())


def training_threads():
    """The number of threads of this process that train; `None` where that cannot be seen."""
    if sys.platform != "linux":
        return None
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm") as file:
                names.append(file.read().strip())
        except FileNotFoundError:
            pass
    return names.count("wae_train")


def eventually(condition):
    """Waits until a condition holds; whoever waits ten minutes waits for ever."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_epochs_are_the_columns_of_wae_train(models):
    folder, epochs = models
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    ctx = context(folder)
    history = pa.table(ctx.sql("SELECT * FROM wae_history('clothes')"))
    assert list(epochs[0]) == history.column_names
    assert epochs == history.to_pylist()
    # A column that is NULL for an objective is None.
    plain = next(ctx.train(str(TEST), model="plain", objective="ae", network="8,16", epochs=1, progress=False))
    assert plain["divergence"] is None and isinstance(plain["loss"], float)


def test_it_trains_what_the_shell_trains_bit_for_bit(models, shell, tmp_path):
    codes = f"SELECT wae_encode(image, 'clothes') AS code FROM '{TEST}'"
    _, errors = shell(
        f"SET wae.model_dir = '{tmp_path}'",
        f"SELECT epoch FROM wae_train((SELECT image FROM '{TRAIN}' WHERE label < 5), model => 'clothes', {NAMED})",
        f"COPY ({codes}) TO '{tmp_path}/shell.parquet'",
    )
    assert errors == ""
    expected, got = pq.read_table(tmp_path / "shell.parquet"), pa.table(context(models[0]).sql(codes))
    assert got["code"].to_pylist() == expected["code"].to_pylist()


@pytest.mark.parametrize("kind", ["path", "table", "query", "pyarrow", "polars", "reader"])
def test_sources(tmp_path, kind):
    ctx = context(tmp_path)
    clothes = ctx.sql(f"SELECT image, label FROM '{TEST}' WHERE label = 1")
    ctx.register("clothes", clothes)
    source = {
        "path": lambda: str(TEST),
        "table": lambda: "clothes",
        "query": lambda: clothes,
        "pyarrow": lambda: pa.table(clothes),
        "polars": lambda: pl.DataFrame(clothes),
        "reader": lambda: pa.table(clothes).to_reader(),
    }[kind]()
    (epoch,) = ctx.train(source, model="m", network="8,16", batch_size=50, epochs=1, progress=False)
    # A tenth of the rows is held out, and an incomplete last batch left out.
    assert epoch["images"] == (1350 if kind == "path" else 100)
    assert (tmp_path / "m.safetensors").exists()
    # What it registered on the way is gone.
    tables = pa.table(ctx.sql("SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%wae_source%'"))
    assert tables.num_rows == 0


@pytest.mark.parametrize(
    "options",
    [{"epoch": 3}, {"epochs": 0}, {"network": "huge"}, {"scales": []}, {"objective": "vae", "prior": "sphere"}],
)
def test_wrong_options_are_refused_at_once_with_the_text_of_sql(ctx, options):
    with pytest.raises(datafusion_wae.PlanError) as raised:
        ctx.train(str(TEST), model="never", **options)
    named = ", ".join(f"{name} => {value!r}" for name, value in options.items())
    with pytest.raises(datafusion_wae.PlanError) as expected:
        ctx.sql(f"SELECT * FROM wae_train('{TEST}', model => 'never', {named})")
    assert str(raised.value) == str(expected.value)


def test_wrong_sources_and_models_are_refused_at_once(ctx):
    with pytest.raises(datafusion_wae.PlanError, match="wae_train: no table or file 'nothing'"):
        ctx.train("nothing", model="m")
    with pytest.raises(datafusion_wae.PlanError, match="wae_train: model 'clothes' exists already"):
        ctx.train(str(TEST), model="clothes")
    with pytest.raises(TypeError, match="the source of a training: expected a query, or Arrow data"):
        ctx.train([1, 2], model="m")
    with pytest.raises(datafusion_wae.PlanError, match="wae_train: a model's name has letters"):
        ctx.train(str(TEST), model="it's")


def test_a_failing_training_raises_with_its_text(tmp_path):
    ctx = context(tmp_path)
    images = pa.table({"image": [b"no image"] * 10})
    epochs = ctx.train(images, model="m", progress=False)
    with pytest.raises(datafusion_wae.ExecutionError, match="wae_train: "):
        next(epochs)
    with pytest.raises(StopIteration):
        next(epochs)


def test_breaking_off_stops_the_training_and_saves_nothing(tmp_path):
    ctx = context(tmp_path)
    for epoch in ctx.train(str(TEST), model="m", network="8,16", epochs=100_000, progress=False):
        if training_threads() is not None:
            assert training_threads() == 1
        if epoch["epoch"] == 2:
            break
    # The loop's iterator is gone, and with it the training.
    assert eventually(lambda: training_threads() in (None, 0))
    assert list(tmp_path.iterdir()) == []

    epochs = ctx.train(str(TEST), model="m", network="8,16", epochs=100_000, progress=False)
    next(epochs)
    epochs.close()
    assert eventually(lambda: training_threads() in (None, 0))
    # Its name is free again.
    assert len(list(ctx.train(str(TEST), model="m", network="8,16", epochs=1, progress=False))) == 1


def test_a_training_that_was_broken_off_goes_on_from_its_checkpoint(tmp_path, capsys):
    ctx = context(tmp_path)
    options = {"model": "m", "network": "8,16", "epochs": 6, "checkpoint_every": 1, "resume": True}
    for epoch in ctx.train(str(TEST), progress=False, **options):
        if epoch["epoch"] == 2:
            break
    # Its thread may have been an epoch ahead of its reader.
    rest = [epoch["epoch"] for epoch in ctx.train(str(TEST), **options)]
    assert rest in ([3, 4, 5, 6], [4, 5, 6])
    assert "6/6" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_bar_where_tqdm_is_installed(ctx, capsys):
    options = {"network": "8,16", "epochs": 2, "overwrite": True}
    list(ctx.train(str(TEST), model="bar", **options))
    shown = capsys.readouterr().err
    assert "training 'bar': 100%" in shown and "2/2" in shown and "loss=" in shown
    list(ctx.train(str(TEST), model="bar", progress=False, **options))
    assert capsys.readouterr().err == ""


def test_a_pretrained_network(tmp_path):
    ctx = context(tmp_path)
    options = {"backbone": "resnet-timm", "layer": "layer2", "size": 32, "embed": True}
    assert len(list(ctx.train(str(TEST), model="seen", progress=False, epochs=1, **options))) == 1
    scores = pa.table(ctx.sql(f"SELECT max(wae_anomaly_score(image, 'seen')) AS s FROM '{TEST}'"))
    assert 0 < scores["s"][0].as_py() < 1


def test_no_bar_without_tqdm(ctx, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    list(ctx.train(str(TEST), model="bare", network="8,16", epochs=1))
    assert capsys.readouterr().err == ""


INTERRUPTED = """
import os, time
import datafusion_wae

def training():
    return [t for t in os.listdir("/proc/self/task") if open(f"/proc/self/task/{t}/comm").read() == "wae_train\\n"]

ctx = datafusion_wae.SessionContext()
ctx.sql("SET wae.model_dir = 'models'")
pool = ctx.sql("START_THREADS")
pool.show()
query = ctx.sql("SELECT count(*) FROM generate_series(1, 100000000000000) AS t(n) WHERE sin(n) > 2")
try:
    print("begun", flush=True)
    COMPUTE
except KeyboardInterrupt:
    caught = time.time()
    # Ctrl-C has come: from here on, nothing is interrupted.
    while training():
        assert time.time() - caught < 300, "the training goes on"
        time.sleep(0.01)
    print("stopped", flush=True)
"""
# Other libraries may raise an exception of their own where a stream breaks off; Ctrl-C is not lost on who catches that.
READ = "import {library}\n    try: {call}\n    except Exception as error: print(error, flush=True); time.sleep(1)"
COMPUTE = {
    # Epochs of 1,980 batches, far more than two seconds: the signal comes in the middle of one, and there is no checkpoint of a
    # training that stops before its end.
    "training": f"list(ctx.train('{TRAIN}', model='m', network='128,256', batch_size=2, epochs=100, checkpoint_every=1, progress=False))",
    "show": "query.show()",
    "pyarrow": READ.format(library="pyarrow", call="pyarrow.table(query)"),
    "polars": READ.format(library="polars", call="polars.DataFrame(query)"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its threads in /proc")
@pytest.mark.parametrize("what", COMPUTE)
def test_ctrl_c_stops_within_a_batch(tmp_path, what):
    script = INTERRUPTED.replace("START_THREADS", START_THREADS).replace("COMPUTE", COMPUTE[what])
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        while (line := process.stdout.readline()) != "begun\n":
            assert line, process.stderr.read()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        # The query has work for days.
        out, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0 and "stopped" in out, out + err
    assert list(tmp_path.glob("models/*")) == []
