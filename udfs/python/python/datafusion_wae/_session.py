"""The session."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

from datafusion_wae._internal import Query, Session, Training

Epoch = dict[str, float | int | None]
"""What an epoch reports: the columns of ``wae_train``, by name."""


class SessionContext:
    """A session of DataFusion with all functions of ``datafusion-wae``, in which a file can be named in FROM by its path.

    Models are files in the folder that ``SET wae.model_dir`` names, by default ``models``. The guide of the project has
    the functions and the options.
    """

    def __init__(self) -> None:
        self._session = Session()

    def sql(self, query: str) -> Query:
        """Plans a statement.

        A query computes when its rows are read, and again each time they are: ``pyarrow.table(...)``,
        ``polars.DataFrame(...)``, ``pandas.DataFrame.from_arrow(...)`` and whatever else takes an Arrow stream read them;
        ``show()`` prints them. Its rows stream, so that a consumer that takes batches needs no memory for all of them. Any
        other statement has run when this returns: ``SET``, ``CREATE``, ``DROP``, ``COPY``, ``INSERT``.

        :raises PlanError: where the statement is wrong.
        :raises ExecutionError: where a statement that is no query fails. Where a query fails while its rows are read, the
            reading library raises an exception of its own with the same text.
        """
        return self._session.sql(query)

    def register(self, name: str, source: Any) -> None:
        """Makes a table of a query of this session, or of Arrow data; a table of that name is replaced.

        Anything with ``__arrow_c_stream__`` is Arrow data: tables and readers of pyarrow, frames of polars and pandas,
        relations of DuckDB; and so is a pyarrow ``Dataset``, of which only the columns in use are read. Nothing is copied:
        the object is read when a query reads the table. A stream, such as a ``pyarrow.RecordBatchReader``, can be read
        once; a second query over it fails. A relation of DuckDB can be read once at a time.

        :raises TypeError: for anything else.
        """
        self._session.register(name, source)

    def train(self, source: Any, *, model: str, progress: bool = True, **options: Any) -> Iterator[Epoch]:
        """Trains a model, and yields a dict as each epoch ends: ``epoch``, ``loss``, ``reconstruction_cost`` and the other
        columns of ``wae_train``. Nothing is trained before the first is asked for; ``list(ctx.train(...))`` trains to the
        end.

        Whoever breaks off, by ``break``, ``close()`` or Ctrl-C, stops the training within a batch. The model is saved before
        the last epoch is yielded, so that none is then; with ``checkpoint_every`` there is a checkpoint, from which
        ``resume=True`` goes on.

        :param source: images: the name of a table or file, a query, or Arrow data as :meth:`register` takes it. One of
            its columns has to be of images.
        :param model: the model's name; it becomes the file ``<model>.safetensors`` in ``wae.model_dir``.
        :param progress: whether to show a bar of ``tqdm``, where that is installed.
        :param options: options of ``wae_train``, such as ``epochs=20`` or ``network="small"``.
        :raises PlanError: at once, for a source without images and for unknown or invalid options.
        :raises ExecutionError: with an epoch, for images that cannot be read and other failures while training.
        """
        training = self._session.train(source, model, json.dumps(options))
        return _epochs(training, model, progress)

    def report(
        self, source: str, *, model: str, image: str = "image", label: str | None = None, alpha: float | None = None
    ) -> str:
        """Makes a page about a model and a table of images, and returns its HTML: the number of outliers, the histogram of
        costs, the strangest images with reconstructions and anomaly maps, samples from the prior, the latent codes on two
        principal components, the training curves, and the model's facts. It has no scripts and loads nothing::

            html = ctx.report("test.parquet", model="clothes", label="label")
            Path("report.html").write_text(html, encoding="utf-8")

        :param source: images: a path, the name of a table, a table function, or a query in parentheses. Arrow data
            become a table by :meth:`register`.
        :param image: the column of images.
        :param label: a column that names each image, or its class.
        :param alpha: the highest rate of false alarms, between 0 and 1. ``None`` stands for 0.01, or for 1/(n + 1) where
            the model has n < 99 calibration rows; the page says so then.
        :raises PlanError: for a model, table or column that does not exist, for a column without images, and for an alpha
            that is no rate or that no p-value of the model can reach.
        :raises ExecutionError: for images that cannot be read.
        """
        return self._session.report(model, source, image, label, alpha)


def _epochs(training: Training, model: str, progress: bool) -> Iterator[Epoch]:
    bar = _bar(training.epochs, model) if progress else None
    try:
        for epoch in training:
            if bar is not None:
                bar.set_postfix(loss=f"{epoch['loss']:.4g}", refresh=False)
                # Resumed, the first epoch is not the first.
                bar.update(epoch["epoch"] - bar.n)
            yield epoch
    finally:
        training.close()
        if bar is not None:
            bar.close()


def _bar(epochs: int, model: str) -> Any:
    try:
        tqdm = importlib.import_module("tqdm.auto").tqdm
    except ImportError:
        return None
    return tqdm(total=epochs, desc=f"training '{model}'", unit="epoch")
