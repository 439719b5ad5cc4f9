"""Judges mini-batches, of which no two right ones are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .compare import TOLERANCE, summary
from .reference import Array

CLASSES = 10
Problem = tuple[str, str, str]


def problem(arguments: dict[str, Any], xs: Any, ys: Any) -> Problem | None:
    """What is wrong with mini-batches: expected, got and the likely mistake.

    Parameters
    ----------
    arguments : dict
        Those of ``get_mini_batch``.
    xs, ys : sequences of arrays
    """
    images, label = arguments["im_train"], arguments["label_train"][0]
    size, n = arguments["batch_size"], images.shape[1]
    x_batches, y_batches = _batches(xs), _batches(ys)
    if x_batches is None or y_batches is None:
        got = f"{summary(xs)} and {summary(ys)}"
        return "two lists of arrays", got, "it returns no lists of arrays"
    return (
        _sizes(x_batches, y_batches, len(images), size, n)
        or _contents(x_batches, images)
        or _labels(x_batches, y_batches, images, label)
        or _order(x_batches, images, label)
    )


def _batches(value: Any) -> list[Array] | None:
    """Whatever can be gone through batch by batch, as a list of arrays."""
    if not isinstance(value, list) and not (isinstance(value, np.ndarray) and value.ndim):
        return None
    try:
        batches = [np.asarray(batch) for batch in value]
    except ValueError:
        return None
    return batches if all(batch.dtype.kind in "fiub" for batch in batches) else None


def _sizes(
    xs: Sequence[Array], ys: Sequence[Array], pixels: int, size: int, n: int
) -> Problem | None:
    counts = [size] * (n // size) + ([n % size] if n % size else [])
    for name, batches, rows in (("x", xs, pixels), ("y", ys, CLASSES)):
        wanted = [(rows, count) for count in counts]
        shapes = [batch.shape for batch in batches]
        if shapes == wanted:
            continue
        expected = f"mini_batch_{name} with the shapes {_listed(wanted)}"
        got = f"mini_batch_{name} with the shapes {_listed(shapes)}"
        if shapes == wanted[: n // size]:
            likely = "the last batch, which is smaller, is dropped: all images count"
        elif shapes == [*wanted, (rows, 0)]:
            likely = "a last batch holds no images"
        elif shapes == [shape[::-1] for shape in wanted]:
            likely = f"the batches of {name} are transposed: an image, or a label, is a column"
        elif shapes == [(rows, size)] * len(counts):
            likely = "the last batch is filled up, so that some images come twice or are blank"
        elif name == "y" and shapes in ([(1, c) for c in counts], [(c,) for c in counts]):
            likely = "the labels are not one-hot"
        elif shapes == [(n // size or 1, *wanted[0])] or len(shapes) == rows:
            likely = "all batches are in one array: a list of arrays is due"
        elif shapes == [(rows,)] * n or shapes == [(rows, 1)] * n:
            likely = "each image is a batch of its own: join batch_size of them"
        elif shapes == [shape if shape[1] > 1 else (rows,) for shape in wanted]:
            likely = "a batch of one image loses an axis: it is a column, (m, 1)"
        elif name == "y" and [shape[1:] for shape in shapes] == [(count,) for count in counts]:
            likely = f"a label has {CLASSES} rows, one for each class, whichever of them occur"
        elif all(len(shape) == 2 and shape[0] == rows for shape in shapes):
            likely = "the batches do not have batch_size images each (but for the last)"
        else:
            likely = "the batches have other shapes than the handout's"
        return expected, got, likely
    return None


def _contents(xs: Sequence[Array], images: Array) -> Problem | None:
    found = _found(xs, images)
    n = images.shape[1]
    times = np.bincount(found[found >= 0], minlength=n)
    if (times == 1).all() and (found >= 0).all():
        return None
    expected = f"each of the {n} images once"
    if (found < 0).any():
        other = int((found < 0).sum())
        got = f"{other} columns that are no image of im_train"
        return expected, got, "the images are changed, or rows and columns are mixed"
    missing, twice = int((times == 0).sum()), int((times > 1).sum())
    got = f"{missing} images missing, {twice} more than once"
    if missing and missing + len(np.unique(found)) == n and not twice:
        return expected, got, "some images are left out"
    return expected, got, "images are drawn with replacement, or a batch starts at the wrong index"


def _found(xs: Sequence[Array], images: Array) -> Array:
    """Which image each column is, -1 for none."""
    columns = np.hstack(xs).astype(float)
    distance = np.abs(columns[:, :, np.newaxis] - images[:, np.newaxis]).max(axis=0)
    nearest = distance.argmin(axis=1)
    exact = distance[np.arange(len(nearest)), nearest] <= TOLERANCE * (1 + images.max())
    return np.where(exact, nearest, -1)


def _labels(
    xs: Sequence[Array], ys: Sequence[Array], images: Array, label: Array
) -> Problem | None:
    y, wanted = np.hstack(ys).astype(float), np.eye(CLASSES)[:, label[_found(xs, images)]]
    if np.array_equal(y, wanted):
        return None
    off = int((y != wanted).any(axis=0).sum())
    expected = "for each image its label as a one-hot column"
    got = f"{off} of {y.shape[1]} columns that are not their image's"
    one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=0) == 1).all()
    if not one_hot:
        return expected, got, "the labels are not one-hot: one 1 in each column, else 0"
    classes = y.argmax(axis=0)
    if np.array_equal(classes, label):
        return expected, got, "the images are shuffled but their labels are not"
    if np.array_equal(np.sort(classes), np.sort(label)):
        return expected, got, "the labels are shuffled apart from the images: use one permutation"
    if np.array_equal(classes, (label[_found(xs, images)] - 1) % CLASSES):
        return expected, got, "the labels are off by one: label 0 is row 0"
    return expected, got, "the one-hot labels have their 1 in the wrong row"


def _order(xs: Sequence[Array], images: Array, label: Array) -> Problem | None:
    """Whether the permutation is random; of few images even a random one may look sorted."""
    found, size = _found(xs, images), xs[0].shape[1]
    if len(found) < 16 or size < 2:
        return None
    expected = "a random permutation of the images"
    if np.array_equal(found, np.arange(len(found))):
        return expected, "the images in the order in which they came", "nothing is shuffled"
    # As signed numbers, whose differences may be negative.
    if (np.diff(label[found].astype(int)) >= 0).all():
        return expected, "the images in the order of their classes", "they are sorted by class"
    if (np.abs(np.diff(found)) == 1).sum() > len(found) / 2:
        likely = "whole runs of images are moved: permute the images, not only the batches"
        return expected, "long runs of images in the order in which they came", likely
    blocks = [np.ptp(found[i : i + size]) for i in range(0, len(found), size)]
    if len(blocks) > 2 and all(spread < size for spread in blocks):
        likely = "only the images within each batch are shuffled: permute all of them"
        return expected, "batches of neighbouring images", likely
    return None


def _listed(shapes: Sequence[tuple[int, ...]]) -> str:
    first = ", ".join(str(shape) for shape in shapes[:4])
    return f"[{first}{', ...' if len(shapes) > 4 else ''}] ({len(shapes)} of them)"
