"""What is wrong with a value or a gradient, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..graph import Leaf, Node

# Root mean squares of gradients: a parameter's is small beside the largest one, or large.
VANISHED = 1e-7
EXPLODED = 1e4


def value_marks(node: Node, value: Any) -> tuple[str, ...]:
    """Name what is wrong with a value: NaN, infinity, a relu that passes nothing."""
    if value is None or value.dtype.kind not in "fc" or value.size == 0:
        return ()
    trouble = _not_finite(value)
    if trouble:
        return (trouble,)
    if node.primitive is not None and node.primitive.name == "relu" and not value.any():
        return ("dead relu: all zero",)
    return ()


def _not_finite(array: Any) -> str:
    # The sum reads the array once and makes no other; an overflow of it is looked into.
    with np.errstate(all="ignore"):
        if math.isfinite(abs(array.sum())):
            return ""
    nans, bad = int(np.isnan(array).sum()), int((~np.isfinite(array)).sum())
    words = []
    if nans:
        words.append(f"NaN in {nans:,} of {array.size:,}")
    if bad > nans:
        words.append(f"infinity in {bad - nans:,} of {array.size:,}")
    return ", ".join(words)


def rms(gradient: Any) -> float:
    """Give the root mean square of a gradient's entries."""
    flat = np.ravel(gradient)
    if flat.size == 0:
        return 0.0
    with np.errstate(all="ignore"):
        return math.sqrt(abs(float(np.vdot(flat, flat))) / flat.size)


def largest(gradients: Mapping[Node, Any], sizes: Mapping[Node, float]) -> float:
    """Give the largest root mean square of a leaf's gradient; of any where no leaf has one."""
    leaves = [sizes[node] for node in gradients if isinstance(node, Leaf)]
    finite = [size for size in leaves or sizes.values() if math.isfinite(size)]
    return max(finite, default=0.0)


def gradient_marks(size: float, beside: float) -> tuple[str, ...]:
    """Name what is wrong with a gradient of this root mean square."""
    if not math.isfinite(size):
        return ("gradient is not finite",)
    if size == 0:
        return ("gradient is zero",)
    if size > EXPLODED:
        return (f"gradient exploded: {size:.1e}",)
    if size < VANISHED * beside:
        return (f"gradient vanished: {size:.1e}",)
    return ()


def merged(marks: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Sum up the marks of several nodes, by their first words."""
    counts: dict[str, int] = {}
    for each in marks:
        for mark in each:
            key = mark.split(":")[0].split(" in ")[0]
            counts[key] = counts.get(key, 0) + 1
    return tuple(f"{key} ({count}×)" if count > 1 else key for key, count in counts.items())
