from typing import Any, final

__all__ = [
    "HostAggregate",
    "HostScalar",
    "HostWindow",
    "Query",
    "Session",
    "Training",
    "__version__",
    "host_functions",
]
__version__: str

@final
class Query:
    """Rows of a statement, computed whenever they are read.

    Anything that takes Arrow streams takes a query: ``pyarrow.table(query)``, ``polars.DataFrame(query)``,
    ``pandas.DataFrame.from_arrow(query)``, DuckDB by the variable's name.
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows as an Arrow C stream. Each call computes them anew."""

    def __arrow_c_schema__(self) -> object:
        """The columns as an Arrow C schema, as ``pyarrow.schema(query)`` takes it. Computes nothing."""

    def show(self, limit: int = 20) -> None:
        """Computes the first rows and prints them as a table, long lists and binary values cut."""

@final
class Session:
    def __new__(cls) -> Session: ...
    def sql(self, text: str) -> Query: ...
    def register(self, name: str, source: Any) -> None: ...
    def train(self, source: Any, model: str, options: str) -> Training: ...
    def report(self, model: str, source: str, image: str, label: str | None, alpha: float | None) -> str: ...

@final
class Training:
    @property
    def epochs(self) -> int: ...
    def __iter__(self) -> Training: ...
    def __next__(self) -> dict[str, float | int | None]: ...
    def close(self) -> None: ...

@final
class HostScalar:
    def __datafusion_scalar_udf__(self) -> object: ...

@final
class HostAggregate:
    def __datafusion_aggregate_udf__(self) -> object: ...

@final
class HostWindow:
    def __datafusion_window_udf__(self) -> object: ...

def host_functions(
    options: list[tuple[str, str]],
) -> tuple[list[HostScalar], list[HostAggregate], list[HostWindow]]: ...
