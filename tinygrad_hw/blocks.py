"""Long arrays, block by block.

A block stays in the cache from one operation to the next, where a whole array would go to memory
and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

# Bytes from which on an array is long, and of a block.
LONG, BLOCK = 2**20, 2**17


def blocks_of(array: Any, nbytes: int) -> Iterator[Any]:
    """Cut an array of so many bytes, or one that lies as it does, into what follows in memory."""
    steps = [abs(s) * (n > 1) for s, n in zip(array.strides, array.shape, strict=True)]
    outermost = sorted(range(array.ndim), key=steps.__getitem__, reverse=True)
    return _cut(array.shape, outermost, nbytes, (slice(None),) * array.ndim)


def _cut(
    shape: tuple[int, ...], axes: list[int], nbytes: int, whole: tuple[slice, ...]
) -> Iterator[Any]:
    """Cut a part of an array along the first of some axes; along the others, if that is short."""
    axis, *others = axes
    n = shape[axis]
    length = max(BLOCK * n // nbytes, 1)
    for start in range(0, n, length):
        block = (*whole[:axis], slice(start, start + length), *whole[axis + 1 :])
        if others and length == 1 and nbytes > BLOCK * n:
            yield from _cut(shape, others, nbytes // n, block)
        else:
            yield block


def by_blocks(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function of the entries of an array, which keeps its dtype."""
    if x.nbytes < LONG:
        return function(x)
    y = np.empty_like(x)
    for block in blocks_of(x, x.nbytes):
        y[block] = function(x[block])
    return y
