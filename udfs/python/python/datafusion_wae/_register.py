"""The functions on a context of the package ``datafusion``."""

from __future__ import annotations

from typing import Any

from datafusion_wae._internal import host_functions

# The C interface by which the functions get there is one of DataFusion's major version.
_MAJOR = "55"


def register(ctx: Any, **options: Any) -> None:
    """Puts the scalar functions, aggregates and window functions on a ``datafusion.SessionContext``.

    Options ``wae.*`` are given here, without the prefix, since that context has none: ``register(ctx, model="clothes",
    model_dir="models")``, where the folder is a local one. Registering again changes them. A function's model can also be
    named by its last argument, as a literal.

    What differs from a session of this package: there are no table functions, so that models are trained there; arguments
    have no names; each function of an image runs the network by itself; ``wae_mmd`` and ``wae_mmd_p_value`` are there if
    ``model`` is given, and take no other; a query that a model is replaced under may use both versions.

    Like this package's sessions, the context is set to keep the types of image tensors in Parquet files
    (``datafusion.execution.parquet.skip_metadata = false``). Its method ``register_parquet`` has an argument for that,
    ``skip_metadata=False``.

    :raises ImportError: if the package ``datafusion`` is not there or has another major version.
    :raises PlanError: for unknown or invalid options, and for a model that cannot be found.
    """
    import datafusion

    if datafusion.__version__.split(".")[0] != _MAJOR:
        raise ImportError(
            f"datafusion_wae.register: expected version {_MAJOR} of the package datafusion, got {datafusion.__version__}"
        )
    scalars, aggregates, windows = host_functions([(name, _text(value)) for name, value in options.items()])
    for scalar in scalars:
        ctx.register_udf(datafusion.udf(scalar))
    for aggregate in aggregates:
        ctx.register_udaf(datafusion.udaf(aggregate))
    for window in windows:
        ctx.register_udwf(datafusion.udwf(window))
    for option in ("parquet.skip_metadata = false", "skip_physical_aggregate_schema_check = true"):
        ctx.sql(f"SET datafusion.execution.{option}")


def _text(value: Any) -> str:
    return "" if value is None else str(value)
