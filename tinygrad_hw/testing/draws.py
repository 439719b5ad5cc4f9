"""Hypothesis as a source of the choices that a :class:`~tinygrad_hw.domains.Domain` asks for."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from ..domains import finite

T = TypeVar("T")
Array = np.ndarray[Any, Any]

EIGHTH = 8.0
# The codes that stand for 0, besides its own: a quarter of them.
_ZEROS = 192


class HypothesisDraw:
    """Choices by Hypothesis, so that examples shrink: see :class:`tinygrad_hw.domains.Draw`."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self._used: set[float] = set()
        self._finer: dict[tuple[float, float], int] = {}

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
        codes = self.draw(st.binary(min_size=size, max_size=size))
        low, high = finite(low, high)
        values = simplest_values(low, high)
        if apart:
            entries = [self._unused(code, low, high) for code in codes]
            return np.array(entries, np.float64).reshape(tuple(shape))
        numbers = np.frombuffer(codes, np.uint8)
        places = numbers % len(values)
        if values[-1] == 0:
            # Where most goes wrong: at a kink, or dividing.
            places[numbers >= _ZEROS] = len(values) - 1
        return values[places].reshape(tuple(shape))

    def _unused(self, code: int, low: float, high: float) -> float:
        """Give a number off the kinks and ties: not 0, and of another size than those before."""
        # Of large arrays: what is all taken stays so, and is not gone through for each entry.
        while True:
            finer = self._finer.setdefault((low, high), 1)
            values = simplest_values(low, high, finer)
            start = code % len(values)
            # The same code gives the same number as elsewhere, unless that is taken.
            for value in itertools.chain(values[start:], values[:start]):
                if value and abs(value) not in self._used:
                    self._used.add(abs(value))
                    return float(value)
            self._finer[low, high] = 2 * finer


@functools.lru_cache
def simplest_values(low: float, high: float, finer: int = 1) -> Array:
    """Give numbers in an open interval, the ones that are easiest to compute with by hand first.

    They are multiples of 1/8, of a smaller power of two in a short interval, and of a larger one in
    a wide one, of which a byte could not name all; ``finer`` divides it. Zero comes last: it is
    where kinks and ties are, and a product with it hides what it is multiplied by.

    Examples
    --------
    >>> simplest_values(0.0, 1.0)
    array([0.5  , 0.25 , 0.75 , 0.125, 0.375, 0.625, 0.875])
    """
    grain = EIGHTH
    while (high - low) * grain < 6:
        grain *= 2
    while (high - low) * grain > 255:
        grain /= 2
    grain *= finer
    first, last = math.floor(low * grain) + 1, math.ceil(high * grain) - 1
    values = [k / grain for k in range(first, last + 1)]
    values.sort(key=lambda v: (v == 0, v.as_integer_ratio()[1], abs(v), v < 0))
    array = np.array(values)
    array.flags.writeable = False
    return array
