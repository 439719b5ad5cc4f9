"""Arrays that a caller keeps, from memory that no caller keeps any more.

A large new array costs a page fault for every 4 kB, more than most of what is computed into it. So
the last few of each result are remembered, and one that nobody else refers to is given again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from .program import Array, Spec

_LARGE = 32 * 1024
_MOST = 3


def maker(spec: Spec) -> Callable[[], Array]:
    """Give the function that makes the arrays of a result, axes as they lie in memory."""
    shape, dtype = tuple(spec.shape[axis] for axis in spec.order or ()), spec.dtype
    if spec.nbytes < _LARGE:
        return partial(np.empty, shape, dtype)
    pool: list[Array] = []

    def make() -> Array:
        array = _unused(pool)
        if array is None:
            array = np.empty(shape, dtype)
            if len(pool) == _MOST:
                pool.pop(0)
            pool.append(array)
        return array

    return make


def _unused(pool: list[Array]) -> Array | None:
    for array in pool:
        if sys.getrefcount(array) <= _ALONE:
            return array
    return None


def _references(pool: list[Array]) -> int:
    """What ``_unused`` counts for an array that only the pool holds."""
    for array in pool:
        return sys.getrefcount(array)
    return 0


_ALONE = _references([np.empty(0)])
