"""Mini-batches, and small random changes of images that leave the digit what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Array = np.ndarray[Any, Any]
Rng: TypeAlias = "int | np.random.Generator | None"


def mini_batches(
    images: Array, labels: Array, batch_size: int, *, rng: Rng = None
) -> Iterator[tuple[Array, Array]]:
    """Go through the data once, in random order.

    Parameters
    ----------
    images, labels : array, as long as each other
    batch_size : int
        The last batch holds what is left over.
    rng : None, int or Generator

    Yields
    ------
    images, labels : arrays of up to ``batch_size`` entries

    Raises
    ------
    ValueError
        If the lengths differ or are zero, or ``batch_size`` is below 1.

    Examples
    --------
    >>> [len(x) for x, y in mini_batches(np.zeros((5, 14, 14)), np.zeros(5), 2, rng=0)]
    [2, 2, 1]
    """
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"mini_batches: got {len(images)} images and {len(labels)} labels; want as many of both"
        )
    if batch_size < 1:
        raise ValueError(f"mini_batches: batch_size is {batch_size}; want at least 1")
    order = np.random.default_rng(rng).permutation(len(images))
    return (
        (images[part], labels[part])
        for part in (order[i : i + batch_size] for i in range(0, len(order), batch_size))
    )


def augment(
    images: Array,
    rng: Rng = None,
    *,
    max_shift: float = 0.5,
    max_rotation: float = 8.0,
    max_zoom: float = 0.0,
) -> Array:
    """Turn, shift and scale each image by a random amount of its own; zeros come in from outside.

    Parameters
    ----------
    images : array of floats, shape (N, H, W)
    rng : None, int or Generator
    max_shift : float
        Pixels, each way.
    max_rotation : float
        Degrees, each way.
    max_zoom : float
        Logarithm of the largest factor.

    Returns
    -------
    array of the same shape and dtype

    Raises
    ------
    ValueError
        If the images are no floats (N, H, W).

    Examples
    --------
    >>> images = np.random.default_rng(0).random((5, 14, 14), np.float32)
    >>> turned = augment(images, rng=0)
    >>> turned.shape, turned.dtype
    ((5, 14, 14), dtype('float32'))
    """
    if images.ndim != 3 or images.dtype.kind != "f":
        raise ValueError(f"augment: got {images.dtype} {images.shape}; want floats (N, H, W)")
    rng = np.random.default_rng(rng)
    n, height, width = images.shape
    angle = np.deg2rad(rng.uniform(-max_rotation, max_rotation, (n, 1, 1)))
    scale = np.exp(rng.uniform(-max_zoom, max_zoom, (n, 1, 1)))
    down, right = rng.uniform(-max_shift, max_shift, (2, n, 1, 1))
    # Where each pixel comes from, about the middle of the image.
    rows = np.arange(height)[:, np.newaxis] - (height - 1) / 2
    columns = np.arange(width) - (width - 1) / 2
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    y = cosine * rows - sine * columns + (height - 1) / 2 + down
    x = sine * rows + cosine * columns + (width - 1) / 2 + right
    return _bilinear(images, y, x)


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Read images (N, H, W) at places between the pixels, zero outside."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    top, left = np.floor(y).astype(np.intp), np.floor(x).astype(np.intp)
    below, beside = (y - top).astype(images.dtype), (x - left).astype(images.dtype)
    number = np.arange(n)[:, np.newaxis, np.newaxis]

    def at(row: Array, column: Array) -> Array:
        inside: Array = padded[number, np.clip(row, -1, height) + 1, np.clip(column, -1, width) + 1]
        return inside

    upper = at(top, left) * (1 - beside) + at(top, left + 1) * beside
    lower = at(top + 1, left) * (1 - beside) + at(top + 1, left + 1) * beside
    between: Array = upper * (1 - below) + lower * below
    return between
