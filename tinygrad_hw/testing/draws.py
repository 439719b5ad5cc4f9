"""Hypothesis as a source of the choices that a :class:`~tinygrad_hw.domains.Domain` asks for."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..domains import finite

T = TypeVar("T")
Array = np.ndarray[Any, Any]

EIGHTH = 8


class HypothesisDraw:
    """Choices by Hypothesis, so that examples shrink: see :class:`tinygrad_hw.domains.Draw`."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self._arrays = 0

    def integer(self, low: int, high: int) -> int:
        from hypothesis import strategies as st

        return int(self.draw(st.integers(low, high)))

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def array(self, shape: Sequence[int], low: float = -math.inf, high: float = math.inf) -> Array:
        from hypothesis import strategies as st

        # One draw of bytes for the whole array: fast, and it shrinks entry by entry.
        size = math.prod(shape)
        apart = self.integer(0, 3)
        codes = np.frombuffer(self.draw(st.binary(min_size=size, max_size=size)), np.uint8)
        low, high = finite(low, high)
        self._arrays += 1
        if apart:
            return _apart(codes, low, high, self._arrays % 4).reshape(tuple(shape))
        values = simplest_values(low, high)
        return values[codes % len(values)].reshape(tuple(shape))


def _apart(codes: Array, low: float, high: float, which: int) -> Array:
    """Give numbers off the kinks and ties: no two alike, and none that another array has too."""
    grain = EIGHTH
    while (high - low) * grain < max(6, len(codes) + 1):
        grain *= 2
    offset = (4 + which) / (8 * grain)
    first = math.floor((low - offset) * grain) + 1
    left = [k / grain + offset for k in range(first, math.ceil((high - offset) * grain))]
    return np.array([left.pop(int(code) % len(left)) for code in codes], np.float64)


@functools.lru_cache
def simplest_values(low: float, high: float) -> Array:
    """Give numbers in an open interval, the ones that are easiest to compute with by hand first.

    They are multiples of 1/8, or of a smaller power of two in a short interval. Zero comes last:
    it is where kinks and ties are, and a product with it hides what it is multiplied by.

    Examples
    --------
    >>> simplest_values(0.0, 1.0)
    array([0.5  , 0.25 , 0.75 , 0.125, 0.375, 0.625, 0.875])
    """
    grain = EIGHTH
    while (high - low) * grain < 6:
        grain *= 2
    first, last = math.floor(low * grain) + 1, math.ceil(high * grain) - 1
    values = [k / grain for k in range(first, last + 1)]
    values.sort(key=lambda v: (v == 0, v.as_integer_ratio()[1], abs(v), v < 0))
    array = np.array(values)
    array.flags.writeable = False
    return array
