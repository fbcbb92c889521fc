#!/usr/bin/env python3
"""Writes the first images of an image set as every kind of column that pyarrow has for them, a Parquet file each.

usage: write_images.py IN.parquet OUT_DIR
needs: pip install pyarrow pillow numpy

IN has Hugging Face's layout, and its images are 28×28 grey. Each file has one column, `image`, of the same 50 images. Prints
nothing.
"""
import io
import pathlib
import sys

import numpy
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 50


def lists(values):
    """A FixedSizeList of a row's values."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values[0].size)


def tensors(values, shape):
    """A fixed-shape tensor of a row's values."""
    tensor = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), shape)
    return pa.ExtensionArray.from_storage(tensor, lists(values))


def pixels(png):
    """The decoded images, (N, H, W)."""
    return numpy.stack([numpy.asarray(Image.open(io.BytesIO(row))) for row in png.to_pylist()])


def columns(images):
    """The same images in each kind of column, by name."""
    png = images.field("bytes")
    gray = pixels(png)
    unit = gray.astype(numpy.float32) / numpy.float32(255)
    flat = gray.reshape(ROWS, -1)
    transposed = numpy.ascontiguousarray(gray.transpose(0, 2, 1)).transpose(0, 2, 1)  # (N, H, W), but W lies outside H
    return {
        "png_struct": images,
        "png_binary": png.cast(pa.binary()),
        "png_large_binary": png.cast(pa.large_binary()),
        "png_dictionary": png.cast(pa.binary()).dictionary_encode(),
        "u8_fixed": lists(gray),
        "u8_list": pa.array(list(flat), pa.list_(pa.uint8())),
        "u8_nested": pa.array(gray.tolist(), pa.list_(pa.list_(pa.uint8()))),
        "f32_list": pa.array(list(unit.reshape(ROWS, -1)), pa.list_(pa.float32())),
        "f64_list": pa.array(list(flat / 255.0), pa.list_(pa.float64())),
        "f16_list": pa.array(list(unit.reshape(ROWS, -1).astype(numpy.float16)), pa.list_(pa.float16())),
        "u8_tensor_hwc": tensors(gray, (28, 28, 1)),
        "u8_tensor_hw": tensors(gray, (28, 28)),
        "f32_tensor": tensors(unit, (28, 28, 1)),
        # pyarrow names the identity permutation here, and below the one that swaps height and width.
        "u8_tensor_numpy": pa.FixedShapeTensorArray.from_numpy_ndarray(gray[..., None]),
        "u8_tensor_transposed": pa.FixedShapeTensorArray.from_numpy_ndarray(transposed),
    }


def main(source, out):
    images = pq.read_table(source, columns=["image"]).slice(0, ROWS)["image"].combine_chunks()
    for kind, column in columns(images).items():
        pq.write_table(pa.table({"image": column}), pathlib.Path(out) / f"{kind}.parquet")
    # As another writer would: without the Arrow schema that pyarrow puts beside Parquet's own.
    plain = pa.table({"image": lists(pixels(images.field("bytes")))})
    pq.write_table(plain, pathlib.Path(out) / "u8_parquet.parquet", store_schema=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
