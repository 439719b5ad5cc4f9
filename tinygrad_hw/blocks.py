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
    """Cut an array of so many bytes, or one of its shape, across the axis that lies outermost."""
    steps = [abs(s) * (n > 1) for s, n in zip(array.strides, array.shape, strict=True)]
    axis = steps.index(max(steps))
    n = array.shape[axis]
    length = max(1, BLOCK * n // nbytes)
    for start in range(0, n, length):
        block = slice(start, start + length)
        yield block if axis == 0 else (slice(None),) * axis + (block,)


def by_blocks(function: Callable[[Any], Any], x: Any) -> Any:
    """Apply a function of the entries of an array, which keeps its dtype."""
    if x.nbytes < LONG:
        return function(x)
    y = np.empty_like(x)
    for block in blocks_of(x, x.nbytes):
        y[block] = function(x[block])
    return y
