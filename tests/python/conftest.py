"""What the tests share: the repository, the shell, and a model of clothes.

They test the installed wheel, so that they run anywhere but in the folder of its sources::

    pip install target/wheels/datafusion_wae-*.whl
    python -m pytest tests/python
"""

import os
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

import datafusion_wae

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "fixtures/fashion/train.parquet"
TEST = ROOT / "fixtures/fashion/test.parquet"
BACKBONES = ROOT / "fixtures/backbones"
# One partition gives the rows in the order of the file.
ONE_PARTITION = "SET datafusion.execution.target_partitions = 1"
# Starts the pool of threads that compute: begun by a training, they would bear the name of its thread.
START_THREADS = f"SELECT image_decode(image, 1, 1, 1) FROM '{TEST}' LIMIT 1"
OPTIONS = {"network": "8,16", "epochs": 2, "seed": 3}


@pytest.fixture(scope="session")
def shell():
    """Runs statements in the Rust shell, and gives what it printed and what it complained of."""
    binary = os.environ.get("WAE_SHELL", ROOT / "target/debug/wae")
    if not Path(binary).exists():
        pytest.skip(f"no shell at {binary}: cargo build --bin wae")

    def run(*statements):
        done = subprocess.run(
            [binary, "--format", "csv", "-c", ONE_PARTITION, *statements], capture_output=True, text=True, timeout=300
        )
        return done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with a model of clothes, and the epochs of its training."""
    folder = tmp_path_factory.mktemp("models")
    ctx = context(folder)
    source = ctx.sql(f"SELECT image FROM '{TRAIN}' WHERE label < 5")
    epochs = list(ctx.train(source, model="clothes", progress=False, **OPTIONS))
    return folder, epochs


@pytest.fixture
def ctx(models):
    """A session in which the model is set."""
    ctx = context(models[0])
    ctx.sql("SET wae.model = 'clothes'")
    return ctx


def context(folder):
    """A session whose models are in a folder."""
    ctx = datafusion_wae.SessionContext()
    ctx.sql(f"SET wae.model_dir = '{folder}'")
    ctx.sql(f"SET wae.weights_dir = '{BACKBONES}'")
    ctx.sql(ONE_PARTITION)
    pa.table(ctx.sql(START_THREADS))
    return ctx
