"""Forms of images in tables in memory: read right, or refused for a reason. The files of all writers: tests/writers.rs."""

import sys

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import ROOT, context

sys.path.insert(0, str(ROOT / "fixtures"))
from writers.arrow import arrow_table, pyarrow_lists, pyarrow_tensors  # noqa: E402
from writers.frames import pandas_forms, polars_forms  # noqa: E402
from writers.pictures import IDS, PICTURES, values  # noqa: E402

REFERENCE = f"'{ROOT}/fixtures/writers/reference.parquet'"
NETWORK = {"network": "8", "latent_dim": 4, "epochs": 1, "batch_size": 6, "holdout": 0}
# How a table is made of forms, and how many of its readings are right at least.
TABLES = {
    "pyarrow lists": (pyarrow_lists, arrow_table, 28),
    "pyarrow tensors": (pyarrow_tensors, arrow_table, 24),
    "pandas": (pandas_forms, lambda forms: pd.DataFrame({"id": IDS, **values(forms)}), 11),
    "polars": (polars_forms, lambda forms: pl.DataFrame({"id": IDS, **values(forms)}), 19),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A session with a model of each kind of pictures, and the costs of the pictures as PNG."""
    ctx = context(tmp_path_factory.mktemp("forms"))
    costs = {}
    for kind in PICTURES:
        source = ctx.sql(f"SELECT {kind} AS image FROM {REFERENCE}")
        assert len(list(ctx.train(source, model=kind, progress=False, **NETWORK))) == 1
        costs[kind] = column(ctx, f"wae_reconstruction_cost({kind}, '{kind}')", REFERENCE)
    return ctx, costs


def column(ctx, expression, table):
    """The values of the six pictures; the row of id 6 has to be NULL."""
    rows = pa.table(ctx.sql(f"SELECT {expression} AS value FROM {table} ORDER BY id"))["value"]
    found = rows.combine_chunks() if rows.num_chunks != 1 else rows.chunk(0)
    assert found.null_count == 1 and not found[6].is_valid
    return found[:6].to_pylist()


def pixels(values, kind):
    """Shapes and bytes of decoded images: tensors of one shape are lists, others have a shape each."""
    shape = truth(kind)[0][0]
    tensors = [value if isinstance(value, dict) else {"shape": shape, "data": value} for value in values]
    return [(tensor["shape"], bytes(tensor["data"])) for tensor in tensors]


def truth(kind):
    """Shapes and bytes of pictures."""
    images = PICTURES.get(kind, PICTURES["grey"])
    return [([*image.shape[:2], image[0, 0].size], image.tobytes()) for image in images]


def attempt(read):
    """What a reading gives, or the text of its error."""
    try:
        return read(), None
    except Exception as error:  # A reader of the stream raises what it raises.
        return None, str(error)


def faults(ctx, costs, name, form):
    """The readings of a column that are neither right nor refused; and the number of those that are right."""
    wrong, right = [], 0
    kind = form["pictures"]
    for call in filter(None, ["{}", form["call"]]):
        image = call.format(f'"{name}"')
        decode = image if image.startswith("image_decode") else f"image_decode({image})"
        model = kind if kind in costs else "grey"
        cost, refused = attempt(lambda: column(ctx, f"wae_reconstruction_cost({image}, '{model}')", "forms"))
        tolerance = form["tolerance"] or 1e-5
        if refused is None and not (kind in costs and cost == pytest.approx(costs[kind], rel=tolerance)):
            wrong.append(f"{image}: costs {cost}")
        shown, refused_to_decode = attempt(lambda: pixels(column(ctx, decode, "forms"), kind))
        if refused_to_decode is None and not (kind in costs and shown == truth(kind)):
            wrong.append(f"{decode}: pixels {shown}")
        errors = [error for error in (refused, refused_to_decode) if error is not None]
        wrong += [f"{image}: {error}" for error in errors if "panicked" in error or "nternal error" in error]
        right += 2 - len(errors)
    return wrong, right - len(wrong)


@pytest.mark.parametrize("table", TABLES)
def test_a_form_is_read_right_or_refused(trained, table):
    ctx, costs = trained
    make, frame, enough = TABLES[table]
    forms = make()
    ctx.register("forms", frame(forms))
    found = {name: faults(ctx, costs, name, form) for name, form in forms.items()}
    assert [fault for wrong, _ in found.values() for fault in wrong] == []
    assert sum(right for _, right in found.values()) >= enough
