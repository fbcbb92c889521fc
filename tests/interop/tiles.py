#!/usr/bin/env python3
"""Holds resized, cropped and stitched images against Pillow's and NumPy's.

usage: tiles.py pictures PICTURES.parquet   columns KIND, and of each KIND_FILTER and KIND_crop
       tiles.py stitched TILES.parquet IMAGES.parquet   columns id, y, x, tile; and id, image
needs: pip install pyarrow pillow numpy

Prints JSON: the largest difference of each column, absolute for bytes and relative to the largest value for floats.
"""
import json
import sys

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

HEIGHT, WIDTH = 13, 31
BOX = (slice(2, 9), slice(3, 17))
FILTERS = {
    "bilinear": Image.BILINEAR,
    "bicubic": Image.BICUBIC,
    "lanczos": Image.LANCZOS,
    "nearest": Image.NEAREST,
}


def tensors(column):
    """The arrays of a column, whose tensors have one shape or a shape a row."""
    array = column.combine_chunks()
    if hasattr(array, "to_numpy_ndarray"):
        return list(array.to_numpy_ndarray())
    array = getattr(array, "storage", array)
    rows = zip(array.field("data"), array.field("shape").to_pylist())
    return [data.values.to_numpy().reshape(shape) for data, shape in rows]


def resized(array, filter):
    """By Pillow: floats a channel after another, in mode F."""
    size = (WIDTH, HEIGHT)
    if array.dtype == numpy.uint8:
        image = Image.fromarray(array.squeeze(axis=2) if array.shape[2:] == (1,) else array)
        return numpy.asarray(image.resize(size, filter)).reshape(HEIGHT, WIDTH, *array.shape[2:])
    planes = numpy.atleast_3d(array)
    planes = [Image.fromarray(planes[..., c].copy()).resize(size, filter) for c in range(planes.shape[2])]
    return numpy.stack([numpy.asarray(plane) for plane in planes], -1).reshape(HEIGHT, WIDTH, *array.shape[2:])


def difference(got, expected):
    """The largest difference of two lists of arrays."""
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected):
        assert (a.shape, a.dtype) == (b.shape, b.dtype), (a.shape, a.dtype, b.shape, b.dtype)
    scale = 1 if got[0].dtype == numpy.uint8 else max(numpy.abs(b).max() for b in expected)
    return max(float(numpy.abs(a.astype(float) - b.astype(float)).max() / scale) for a, b in zip(got, expected))


def pictures(path):
    table = pq.read_table(path)
    differences = {}
    for name in table.column_names:
        kind, _, does = name.partition("_")
        if does:
            sources = tensors(table[kind])
            make = (lambda a: a[BOX]) if does == "crop" else (lambda a: resized(a, FILTERS[does]))
            differences[name] = difference(tensors(table[name]), [make(source) for source in sources])
    return differences


def stitched(tiles, images):
    tiles = pq.read_table(tiles).sort_by("id")
    images = pq.read_table(images).sort_by("id")
    ids = tiles["id"].to_numpy()
    places = numpy.stack([tiles["y"].to_numpy(), tiles["x"].to_numpy()], -1)
    arrays = tensors(tiles["tile"])
    expected = []
    for image in images["id"].to_pylist():
        rows = numpy.flatnonzero(ids == image)
        height, width, *channels = arrays[rows[0]].shape
        end = places[rows].max(0) + (height, width)
        sums, counts = numpy.zeros((*end, *channels)), numpy.zeros((*end, *[1 for _ in channels]))
        for row in rows:
            y, x = places[row]
            sums[y : y + height, x : x + width] += arrays[row]
            counts[y : y + height, x : x + width] += 1
        mean = sums / counts
        dtype = arrays[rows[0]].dtype
        expected.append((numpy.floor(mean + 0.5) if dtype == numpy.uint8 else mean).astype(dtype))
    return {"image": difference(tensors(images["image"]), expected)}


if __name__ == "__main__":
    print(json.dumps({"pictures": pictures, "stitched": stitched}[sys.argv[1]](*sys.argv[2:])))
