#!/usr/bin/env python3
"""Makes photographs of textures with defects whose exact masks are known, as Parquet.

usage: textures.py OUT [--side 64] [--train 1500] [--test 400] [--seed 0]
needs: pip install numpy pyarrow scikit-image

The textures are scikit-image's brick, grass and gravel, 512×512 grey, which come with the package. Training crops lie in the
upper two thirds of a photograph, test crops in the lower third: none shares a pixel. Half of the test crops get one of six
defects, each kind as often as the others.

OUT/TEXTURE/train.parquet   image, kind ('none')
OUT/TEXTURE/test.parquet    i (the row), image, mask (255 where it was drawn), kind ('none' for half)
Images and masks are tensors of UInt8, H×W×1.
"""

import argparse
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEXTURES = ("brick", "grass", "gravel")
KINDS = ("scratch", "blot", "missing", "wrong texture", "low contrast", "blur")


def crop(photograph, rows, side, rng):
    """A square of a photograph, within a range of its rows."""
    y = rng.integers(rows[0], rows[1] - side + 1)
    x = rng.integers(0, photograph.shape[1] - side + 1)
    return photograph[y:y + side, x:x + side]


def smooth(image, sigma):
    """A Gaussian blur whose border is mirrored."""
    reach = int(3 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        pad = [(reach, reach) if a == axis else (0, 0) for a in (0, 1)]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, pad, "symmetric"), 2 * reach + 1, axis)
        image = windows @ weights
    return image


def spot(side, rng):
    """A filled shape with a wavy outline, of 3 to 10 % of the image, wholly inside."""
    radius = side * np.sqrt(rng.uniform(0.03, 0.10) / np.pi)
    y, x = rng.uniform(1.4 * radius, side - 1.4 * radius, 2)
    angle, stretch = rng.uniform(0, np.pi), rng.uniform(1, 1.4)
    rows, columns = np.mgrid[:side, :side].astype(float)
    along = (np.cos(angle) * (columns - x) + np.sin(angle) * (rows - y)) / stretch
    across = (np.cos(angle) * (rows - y) - np.sin(angle) * (columns - x)) * stretch
    waves = sum(rng.uniform(0, 0.08) * np.cos(k * np.arctan2(across, along) + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    return np.hypot(along, across) <= radius * (1 + waves)


def line(side, rng):
    """A bent line, 1 to 2 pixels wide, 40 to 80 % of the side long."""
    angle, length, bend = rng.uniform(0, np.pi), side * rng.uniform(0.4, 0.8), side * rng.uniform(-0.1, 0.1)
    t = np.linspace(-0.5, 0.5, 8 * side)
    along, across = length * t, bend * (1 - 4 * t * t)
    width = rng.integers(1, 3)
    points = np.array([np.sin(angle) * along + np.cos(angle) * across, np.cos(angle) * along - np.sin(angle) * across])
    low, high = points.min(1), points.max(1)
    points += (rng.uniform(0, 1, 2) * (side - width - (high - low)) - low)[:, None]
    mask = np.zeros((side, side), bool)
    for dy in range(width):
        for dx in range(width):
            mask[np.floor(points[0]).astype(int) + dy, np.floor(points[1]).astype(int) + dx] = True
    return mask


def patch(side, rng):
    """A rectangle of 2 to 10 % of the image."""
    height, width = rng.integers(round(0.15 * side), round(0.32 * side) + 1, 2)
    y, x = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
    mask = np.zeros((side, side), bool)
    mask[y:y + height, x:x + width] = True
    return mask


def draw(kind, image, other, rng):
    """A copy of a crop with a defect, and the defect's mask. `other` is a crop of another texture."""
    side, clean = image.shape[0], image.astype(float)
    mask = {"scratch": line, "missing": patch}.get(kind, spot)(side, rng)
    inside = clean[mask]
    if kind == "scratch":  # towards white or black
        new = inside + rng.uniform(0.35, 0.7) * ((255 if rng.random() < 0.5 else 0) - inside)
    elif kind == "blot":  # something dark lies over it
        new = inside + rng.uniform(0.3, 0.6) * (rng.uniform(0, 40) - inside)
    elif kind == "missing":  # the texture's own grey, without the texture
        new = np.full(inside.shape, clean.mean())
    elif kind == "wrong texture":  # as bright and as rough as the place that it takes
        there = other.astype(float)[mask]
        new = (there - there.mean()) * (inside.std() / max(there.std(), 1)) + inside.mean()
    elif kind == "low contrast":
        new = inside.mean() + rng.uniform(0.2, 0.5) * (inside - inside.mean())
    else:
        new = smooth(clean, rng.uniform(1.5, 3))[mask]
    changed = image.copy()
    changed[mask] = np.rint(new).clip(0, 255)
    return changed, mask


def tensors(images):
    """Images (N, H, W) as a column of tensors."""
    images = np.ascontiguousarray(np.stack(images))[..., None]
    kind = pa.fixed_shape_tensor(pa.uint8(), images.shape[1:], dim_names=["H", "W", "C"])
    values = pa.FixedSizeListArray.from_arrays(pa.array(images.ravel()), int(np.prod(images.shape[1:])))
    return pa.ExtensionArray.from_storage(kind, values)


def make(name, photographs, side, train, test, seed):
    """The training and the test table of one texture."""
    rng = np.random.default_rng([seed, TEXTURES.index(name)])
    photograph = photographs[name]
    boundary = photograph.shape[0] * 2 // 3
    upper, lower = (0, boundary), (boundary, photograph.shape[0])
    training = [crop(photograph, upper, side, rng) for _ in range(train)]
    images, masks, kinds = [], [], []
    for i in range(test):
        image, mask = crop(photograph, lower, side, rng), np.zeros((side, side), bool)
        kinds.append("none" if i % 2 == 0 else KINDS[i // 2 % len(KINDS)])
        if kinds[-1] != "none":
            others = [photographs[other] for other in TEXTURES if other != name]
            other = others[rng.integers(len(others))]
            image, mask = draw(kinds[-1], image, crop(other, (0, other.shape[0]), side, rng), rng)
        images.append(image)
        masks.append(mask.astype(np.uint8) * 255)
    tested = pa.table({"i": pa.array(range(test), pa.int64()), "image": tensors(images), "mask": tensors(masks), "kind": kinds})
    return pa.table({"image": tensors(training), "kind": ["none"] * train}), tested


def main():
    from skimage import data

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    for name, default in (("side", 64), ("train", 1500), ("test", 400), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    photographs = {name: getattr(data, name)() for name in TEXTURES}
    for name in TEXTURES:
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        for table, file in zip(make(name, photographs, args.side, args.train, args.test, args.seed), ("train", "test")):
            pq.write_table(table, folder / f"{file}.parquet")


if __name__ == "__main__":
    main()
