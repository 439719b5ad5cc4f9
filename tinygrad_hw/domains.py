"""Where a primitive is defined and smooth, said once: for the docs, the checker and the tests.

A :class:`Domain` has a text for readers and a way to draw a call, arguments and parameters, from a
source of choices. The sources are :class:`RandomDraw` here and Hypothesis in
:mod:`tinygrad_hw.testing`; both offer the methods of :class:`Draw`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np

T = TypeVar("T")
Call = tuple[tuple[Any, ...], dict[str, Any]]


class Draw(Protocol):
    """A source of choices."""

    def integer(self, low: int, high: int) -> int:
        """Choose from low to high, both included."""

    def choice(self, options: Sequence[T]) -> T:
        """Choose one; earlier ones are simpler."""

    def array(
        self, shape: Sequence[int], low: float = -math.inf, high: float = math.inf
    ) -> np.ndarray[Any, Any]:
        """Choose float64 entries in the open interval."""


class RandomDraw:
    """Choices by a NumPy generator.

    Examples
    --------
    >>> draw = RandomDraw(0)
    >>> bool((draw.array((2, 3), 0, 1) < 1).all())
    True
    """

    def __init__(self, rng: int | np.random.Generator | None = None) -> None:
        self.rng = np.random.default_rng(rng)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def choice(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def array(
        self, shape: Sequence[int], low: float = -math.inf, high: float = math.inf
    ) -> np.ndarray[Any, Any]:
        low, high = finite(low, high)
        margin = (high - low) / 32
        return self.rng.uniform(low + margin, high - margin, tuple(shape))


def finite(low: float, high: float) -> tuple[float, float]:
    """Cut an interval down to numbers of ordinary size."""
    given = low, high
    if low == -math.inf:
        low = -3.0 if high == math.inf else high - max(4.0, abs(high))
    if high == math.inf:
        high = low + max(4.0, abs(low)) + 2.0 * (low == -3.0)
    if not 0 < high - low < math.inf:
        raise ValueError(
            f"numbers are drawn from between low and high; got {given[0]} and {given[1]}, want low "
            f"below high, by less than {np.finfo(float).max:.1g}"
        )
    return low, high


class Domain(NamedTuple):
    """The calls of a primitive that are defined and smooth, off its kinks.

    Attributes
    ----------
    text : str
        For readers.
    sample : callable
        Draws a call from a source of choices.
    reach : "entry", "axis" or "all"
        What an entry of the result depends on: on the entries at its place, on those along the
        parameter ``axis`` (the last one by default), or on any.
    """

    text: str
    sample: Callable[[Draw], Call]
    reach: Literal["entry", "axis", "all"] = "all"


def shape(draw: Draw, min_dims: int = 0, max_dims: int = 3, max_side: int = 4) -> tuple[int, ...]:
    """Choose a shape; a source that knows of fitting ones may offer them itself."""
    offer = getattr(draw, "shape", None)
    known = None if offer is None else offer(min_dims, max_dims, max_side)
    if known is not None:
        return cast(tuple[int, ...], known)
    return tuple(draw.integer(1, max_side) for _ in range(draw.integer(min_dims, max_dims)))


def broadcastable(draw: Draw, n: int) -> list[tuple[int, ...]]:
    """Choose ``n`` shapes that broadcast together."""
    full = shape(draw)
    shapes = [full]
    for _ in range(n - 1):
        kept = full[draw.integer(0, len(full)) :]
        shapes.append(tuple(1 if draw.integer(0, 3) == 3 else side for side in kept))
    return shapes


def elementwise(*intervals: tuple[float, float], **params: Any) -> Domain:
    """Arguments that broadcast together, each with entries in its open interval."""

    def sample(draw: Draw) -> Call:
        shapes = broadcastable(draw, len(intervals))
        arrays = [draw.array(s, *i) for s, i in zip(shapes, intervals, strict=True)]
        return tuple(arrays), dict(params)

    return Domain(" and ".join(map(_interval_text, intervals)), sample, "entry")


def reduction(low: float = -math.inf, high: float = math.inf, min_dims: int = 0) -> Domain:
    """One argument, an ``axis`` (None, an int or several) and ``keepdims``."""

    def sample(draw: Draw) -> Call:
        x = draw.array(shape(draw, min_dims), low, high)
        return (x,), {"axis": axes(draw, x.ndim), "keepdims": bool(draw.integer(0, 1))}

    return Domain(f"{_interval_text((low, high))}, any axis", sample, "axis")


def axes(draw: Draw, ndim: int) -> int | tuple[int, ...] | None:
    """Choose None, one axis or several, in any order and maybe counted from the end."""
    kind = draw.integer(0, 2)
    if ndim == 0 or kind == 0:
        return None
    if kind == 1:
        return draw.integer(-ndim, ndim - 1)
    several = [axis - ndim * draw.integer(0, 1) for axis in range(ndim) if draw.integer(0, 1) == 0]
    return tuple(several[:: draw.choice([1, -1])])


def one(
    text: str = "all reals",
    low: float = -math.inf,
    high: float = math.inf,
    min_dims: int = 0,
    params: Callable[[Draw, tuple[int, ...]], dict[str, Any]] | None = None,
) -> Domain:
    """One argument of any shape, with parameters that may depend on the shape."""

    def sample(draw: Draw) -> Call:
        x = draw.array(shape(draw, min_dims), low, high)
        return (x,), {} if params is None else params(draw, x.shape)

    return Domain(text, sample)


def _interval_text(interval: tuple[float, float]) -> str:
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return "all reals"
    return f"({low:g}, {high:g})"


REAL = (-math.inf, math.inf)
POSITIVE = (0.0, math.inf)
