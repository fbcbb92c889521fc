"""How well scores and maps find what is strange, in NumPy: AUROC, and AUPRO over connected regions."""

import numpy as np


def auroc(scores, positive):
    """The probability that a strange one scores above a normal one; ties count half."""
    scores, positive = np.ravel(scores), np.ravel(positive).astype(bool)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # of each value the mean rank, from 1
    n = positive.sum()
    return (ranks[place[positive]].sum() - n * (n + 1) / 2) / (n * (len(positive) - n))


def regions(masks):
    """Numbers the 8-connected regions of masks (N, H, W), from 1, over all masks; 0 outside."""
    inside = np.pad(masks.astype(bool), ((0, 0), (1, 1), (1, 1)))
    labels = np.where(inside, np.arange(1, inside.size + 1).reshape(inside.shape), 0)
    while True:  # the largest number of a region spreads over it
        wide = labels.copy()
        for axis in (1, 2):
            wide = np.maximum(wide, np.maximum(np.roll(wide, 1, axis), np.roll(wide, -1, axis)))
        wide = np.where(inside, wide, 0)
        if (wide == labels).all():
            break
        labels = wide
    # The border of the padding is 0, the first number.
    return np.unique(labels, return_inverse=True)[1].reshape(labels.shape)[:, 1:-1, 1:-1]


def aupro(maps, masks, limit=0.3):
    """The area under the per-region overlap by the false positive rate, from 0 to `limit`, over `limit`.

    At a threshold, the overlap is the share of a region's pixels at or above it, averaged over regions; the false
    positive rate is that share of all pixels outside every mask. (Bergmann et al., IJCV 129 (2021), section 6.)
    """
    numbers = regions(masks).ravel()
    counts = np.bincount(numbers)
    overlap = np.append(0.0, 1 / counts[1:] / (len(counts) - 1))[numbers]  # a pixel's part of the mean overlap
    false = (numbers == 0) / counts[0]
    scores = maps.ravel()
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each group of equal scores
    rate = np.append(0.0, np.cumsum(false[order])[last])
    mean = np.append(0.0, np.cumsum(overlap[order])[last])
    end = np.searchsorted(rate, limit)  # the first point at the limit or beyond it
    rate, mean = np.append(rate[:end], limit), np.append(mean[:end], np.interp(limit, rate[:end + 1], mean[:end + 1]))
    return np.trapezoid(mean, rate) / limit
