"""The quickstart in Python, as a notebook: editors that know `# %%` run it a cell at a time, `python` at once.

    pip install datafusion-wae matplotlib polars tqdm
    python examples/python/quickstart.py

It runs in the repository's root, where the fixtures are, and writes its pictures and its model under target/python.
"""

# %% A session, and two tables: clothes to learn from, and images that the model has not seen.
import io
from pathlib import Path

import matplotlib.pyplot as plt
import polars as pl

import datafusion_wae

OUT = Path("target/python")
OUT.mkdir(parents=True, exist_ok=True)

ctx = datafusion_wae.SessionContext()
ctx.sql(f"SET wae.model_dir = '{OUT}/models'")
clothes = ctx.sql("SELECT image FROM 'fixtures/fashion/train.parquet' WHERE label IN (0, 1, 2, 3, 4, 6)")
ctx.register("test", ctx.sql("SELECT image, label, label IN (5, 7, 8, 9) AS is_other FROM 'fixtures/fashion/test.parquet'"))

# %% Train. Ctrl-C, or the notebook's stop button, ends it within a batch.
epochs = list(ctx.train(clothes, model="clothes", network="16,32", epochs=4, overwrite=True))
print(pl.DataFrame(epochs).select("epoch", "loss", "reconstruction_cost", "holdout_reconstruction_cost"))
ctx.sql("SET wae.model = 'clothes'")

# %% Embed: a frame with a column of codes, which numpy and scikit-learn take as a matrix.
codes = pl.DataFrame(ctx.sql("SELECT label, wae_encode(image) AS code FROM test"))
matrix = codes["code"].to_numpy()
print(f"codes: {matrix.shape[0]} x {matrix.shape[1]}, standard deviation {matrix.std():.2f}")

# %% Outliers: how well the cost tells shoes and bags from clothes, and how many of each are flagged.
ctx.sql("SELECT auroc(wae_reconstruction_cost(image), is_other) AS \"AUROC\" FROM test").show()
ctx.sql(
    "SELECT is_other, count(*) AS images, avg(CAST(wae_is_outlier(image, 0.05) AS DOUBLE)) AS flagged "
    "FROM test GROUP BY is_other ORDER BY is_other"
).show()


# %% Pictures: an image column as PNG files, which matplotlib reads.
def sheet(frame: pl.DataFrame, columns: list[str], path: Path) -> None:
    """A row of pictures a column of the frame."""
    figure, axes = plt.subplots(len(columns), frame.height, figsize=(frame.height, 1.1 * len(columns)), squeeze=False)
    for row, column in zip(axes, columns, strict=True):
        for axis, png in zip(row, frame[column], strict=True):
            axis.imshow(plt.imread(io.BytesIO(png)), cmap="gray")
            axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.show()


strangest = pl.DataFrame(
    ctx.sql(
        "SELECT image['bytes'] AS image, image_encode(wae_reconstruct(image)) AS reconstruction FROM test "
        "ORDER BY wae_reconstruction_cost(image) DESC LIMIT 10"
    )
)
sheet(strangest, ["image", "reconstruction"], OUT / "strangest.png")

# %% Images that there never were, from the prior.
samples = pl.DataFrame(ctx.sql("SELECT image_encode(image) AS image FROM wae_sample(10, seed => 1)"))
sheet(samples, ["image"], OUT / "samples.png")
