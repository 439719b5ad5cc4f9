"""Mini-batches, and small random changes of images that leave the digit what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from ..settings import check_least, check_whole

Array = np.ndarray[Any, Any]
Rng: TypeAlias = "int | np.random.Generator | None"
# Images that are changed at a time: all that is computed of them stays in the cache.
_BLOCK = 512


def mini_batches(
    images: Array, labels: Array, batch_size: int, *, rng: Rng = None
) -> Iterator[tuple[Array, Array]]:
    """Go through the data once, in random order.

    Parameters
    ----------
    images, labels : array or list, as long as each other
    batch_size : int
        The last batch holds what is left over.
    rng : None, int or Generator

    Yields
    ------
    images, labels : arrays of up to ``batch_size`` entries

    Raises
    ------
    ValueError
        If the lengths differ or are zero, or ``batch_size`` is no whole number above 0.

    Examples
    --------
    >>> [len(x) for x, y in mini_batches(np.zeros((5, 14, 14)), np.zeros(5), 2, rng=0)]
    [2, 2, 1]
    """
    images, labels = (np.asarray(x) if isinstance(x, list) else x for x in (images, labels))
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"mini_batches: got {len(images)} images and {len(labels)} labels; want as many of both"
        )
    check_whole("mini_batches", "batch_size", batch_size, 1)
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
    images : array or Tensor of floats, shape (N, H, W)
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
        If the images are no floats (N, H, W), or a bound is negative.

    Examples
    --------
    >>> images = np.random.default_rng(0).random((5, 14, 14), np.float32)
    >>> turned = augment(images, rng=0)
    >>> turned.shape, turned.dtype
    ((5, 14, 14), dtype('float32'))
    """
    images = np.asarray(images)
    if images.ndim != 3 or images.dtype.kind != "f":
        raise ValueError(f"augment: got {images.dtype} {images.shape}; want floats (N, H, W)")
    bounds = {"max_shift": max_shift, "max_rotation": max_rotation, "max_zoom": max_zoom}
    for name, bound in bounds.items():
        check_least("augment", name, bound, 0)
    rng = np.random.default_rng(rng)
    n, height, width = images.shape
    angle = np.deg2rad(rng.uniform(-max_rotation, max_rotation, (n, 1, 1)))
    scale = np.exp(rng.uniform(-max_zoom, max_zoom, (n, 1, 1)))
    shift = rng.uniform(-max_shift, max_shift, (2, n, 1, 1))
    # Where each pixel comes from, about the middle of the image.
    middle = np.array([height - 1, width - 1]).reshape(2, 1, 1, 1) / 2
    turn = np.stack([np.cos(angle) / scale, np.sin(angle) / scale])
    (cosine, sine), (down, right) = (a.astype(images.dtype) for a in (turn, middle + shift))
    rows = (np.arange(height) - (height - 1) / 2).astype(images.dtype)[:, np.newaxis]
    columns = (np.arange(width) - (width - 1) / 2).astype(images.dtype)
    moved = np.empty_like(images)
    for start in range(0, n, _BLOCK):
        some = slice(start, start + _BLOCK)
        y = cosine[some] * rows - sine[some] * columns + down[some]
        x = sine[some] * rows + cosine[some] * columns + right[some]
        moved[some] = _bilinear(images[some], y, x)
    return moved


def _bilinear(images: Array, y: Array, x: Array) -> Array:
    """Read images (N, H, W) at places between the pixels, zero outside; ``y`` and ``x`` change."""
    n, height, width = images.shape
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    # Places count from the border now; what is outside comes to lie on it.
    for place, side in ((y, height), (x, width)):
        place += 1
        np.clip(place, 0, side + 1, out=place)
    top, left = y.astype(np.intp), x.astype(np.intp)
    y -= top
    x -= left
    row = width + 3
    place = (np.arange(n)[:, np.newaxis, np.newaxis] * (height + 3) + top) * row + left
    flat = padded.reshape(-1)

    def at(distance: int) -> Array:
        # Every place is inside, so that there is nothing to clip: it only saves the tests.
        pixels: Array = flat[distance:].take(place, mode="clip")
        return pixels

    upper = _between(at(0), at(1), x)
    lower = _between(at(row), at(row + 1), x)
    return _between(upper, lower, y)


def _between(one: Array, other: Array, share: Array) -> Array:
    """Go a share of the way from one to the other, which changes."""
    other -= one
    other *= share
    other += one
    return other
