"""Wasserstein auto-encoders as SQL functions over Arrow images.

A session has everything: models are trained, and images encoded, decoded and scored, in SQL over Parquet files and over
the tables of pyarrow, polars, pandas and DuckDB::

    import datafusion_wae
    import polars as pl

    ctx = datafusion_wae.SessionContext()
    for epoch in ctx.train(ctx.sql("SELECT image FROM 'train.parquet'"), model="clothes", epochs=4):
        print(epoch["epoch"], epoch["loss"])
    ctx.sql("SET wae.model = 'clothes'")
    frame = pl.DataFrame(ctx.sql("SELECT label, wae_encode(image) AS code FROM 'test.parquet'"))

:func:`register` puts the functions on a ``datafusion.SessionContext`` of the package ``datafusion``.

Sessions and queries may be used from several threads. Computing happens without the interpreter's lock, on threads of the
package's own, which begin with the first session; a process that is forked after that cannot use the package, and says so:
start processes by multiprocessing's ``spawn`` or ``forkserver``. Warnings, such as of images that were skipped, go to Python's
``logging``, under the name ``datafusion_wae``.
"""

from datafusion_wae._errors import Error, ExecutionError, PlanError
from datafusion_wae._internal import Query, __version__
from datafusion_wae._register import register
from datafusion_wae._session import SessionContext

__all__ = ["Error", "ExecutionError", "PlanError", "Query", "SessionContext", "__version__", "register"]
