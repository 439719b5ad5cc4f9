"""Reductions, and what runs along an axis: sums, extremes, norms, softmax, sorting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..domains import reduction
from ..errors import ShapeError
from ..graph import primitive
from .shape import _reshape, expand

Axis = int | tuple[int, ...] | None


# --- Back along the reduced axes --------------------------------------------------------------


def _kept_shape(shape, axis):
    """The shape with length 1 along the reduced axes."""
    if axis is None:
        return (1,) * len(shape)
    axes = np.lib.array_utils.normalize_axis_tuple(axis, len(shape))
    return tuple([1 if n in axes else side for n, side in enumerate(shape)])


def _kept(y, x, axis, keepdims):
    """Give a reduced value the axes of ``x`` again, so that it broadcasts against ``x``."""
    if keepdims or axis is None:
        return y
    return _reshape(y, shape=_kept_shape(x.shape, axis))


def _count(shape, axis):
    """How many entries each result is made of."""
    kept = _kept_shape(shape, axis)
    return math.prod([side for side, one in zip(shape, kept, strict=True) if one == 1])


def _spread(g, x, axis, keepdims):
    return expand(_kept(g, x, axis, keepdims), shape=x.shape)


# --- Sums and means ---------------------------------------------------------------------------


@primitive(name="sum", domain=reduction())
def _sum(x, *, axis, keepdims):
    return np.sum(x, axis=axis, keepdims=keepdims)


@_sum.rule
def _(g, y, x, *, axis, keepdims):
    return (_spread(g, x, axis, keepdims),)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over one, several or all axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.sum(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    array([4., 6.])
    """
    return _sum(x, axis=axis, keepdims=keepdims)


@primitive(name="mean", domain=reduction())
def _mean(x, *, axis, keepdims):
    if _count(np.shape(x), axis) == 0:
        raise ShapeError(f"no entries along axis {axis}; want at least one")
    return np.mean(x, axis=axis, keepdims=keepdims)


@_mean.rule
def _(g, y, x, *, axis, keepdims):
    return (_spread(g / _count(x.shape, axis), x, axis, keepdims),)


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean over one, several or all axes.

    Raises
    ------
    ShapeError
        If there is nothing to take the mean of.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.mean(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=1)
    array([1.5, 3.5])
    """
    return _mean(x, axis=axis, keepdims=keepdims)


__all__ = ["mean", "sum"]
