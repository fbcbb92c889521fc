#!/usr/bin/env python3
"""Reads a column of image tensors with pyarrow and polars, and holds it against its values in a plain file.

usage: read_tensors.py IN.parquet PIXELS
needs: pip install pyarrow numpy; polars is used where it is installed

PIXELS has the bytes of column `image`, row by row. Prints JSON: what pyarrow says of the type, whether its values and polars'
are those of PIXELS, and what polars says of the type (null where it is not installed).
"""
import json
import sys

import numpy
import pyarrow.parquet as pq

try:
    import polars
except ImportError:
    polars = None


def main(path, pixels):
    expected = numpy.fromfile(pixels, numpy.uint8)
    column = pq.read_table(path)["image"].combine_chunks()
    array = column.to_numpy_ndarray()  # (N, H, W, C)
    answer = {
        "extension": column.type.extension_name,
        "shape": list(column.type.shape),
        "dim_names": column.type.dim_names,
        "value_type": str(column.type.value_type),
        "array_shape": list(array.shape),
        "array_equal": bool(numpy.array_equal(array.ravel(), expected)),
        "polars_equal": None,
        "polars_type": None,
    }
    if polars is not None:
        series = polars.read_parquet(path)["image"]
        answer["polars_type"] = str(series.dtype)
        answer["polars_equal"] = bool(numpy.array_equal(series.to_numpy().ravel(), expected))
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
