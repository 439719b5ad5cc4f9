"""What sorts: median, sort, argsort, topk."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dispatch import primitive
from ..domains import reduction
from ..errors import ShapeError
from ..graph import value_of
from .constants import _constant
from .index import _checked_axis, _getitem, take_along_axis
from .reduce import (
    Axis,
    _check_count,
    _count,
    _kept,
    _kept_shape,
    _lanes,
    _shares,
)
from .scan import _backwards
from .shape import _whole_number


def argsort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """Positions that sort along an axis, equal entries in their order; a constant.

    Parameters
    ----------
    x : array or Tensor
    axis : int or None
        None for the flattened tensor.
    descending : bool
        Largest first; equal entries in their order all the same.
    stable : bool
        Always true; for the array API.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.argsort(np.array([3.0, 1.0, 2.0]), descending=True)
    array([0, 2, 1])
    """
    return _constant(_order, x, axis=axis, descending=descending)


def _order(x, *, axis, descending):
    if axis is None:
        x, axis = np.reshape(x, -1), -1
    order = np.argsort(_backwards(x, axis, descending), axis=axis, stable=True)
    return np.flip(np.shape(x)[axis] - 1 - order, axis) if descending else order


_order.__name__ = "argsort"  # For errors.


def sort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """Sort along an axis; a gradient goes back to where its entry came from.

    Parameters
    ----------
    x, axis, descending, stable : as in ``argsort``

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.sort(np.array([3.0, 1.0, 2.0]))
    array([1., 2., 3.])
    """
    if axis is not None:
        axis = _checked_axis("sort", axis, x)
    return take_along_axis(x, argsort(x, axis, descending=descending, stable=stable), axis)


def topk(x: Any, k: int, axis: int = -1) -> tuple[Any, Any]:
    """Find the ``k`` largest entries along an axis, largest first.

    Parameters
    ----------
    x : array or Tensor
    k : int
    axis : int

    Returns
    -------
    values : array or Tensor
    indices : array or Tensor of int
        Where they stand; of equal entries the first come first.

    Raises
    ------
    ShapeError
        If the axis has fewer than ``k`` entries.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.topk(np.array([3.0, 1.0, 2.0]), 2)
    (array([3., 2.]), array([0, 2]))
    """
    shape = np.shape(value_of(x))
    axis, k = _checked_axis("topk", axis, x), _whole_number("topk", "k", k)
    n = shape[axis]
    if not 0 <= k <= n:
        raise ShapeError(
            f"topk: got k={k} for {n} entries along axis {axis} of {shape}; want 0 to {n}"
        )
    order = argsort(x, axis, descending=True)
    indices = _getitem(order, index=(*(slice(None),) * axis, slice(k)))
    return take_along_axis(x, indices, axis), indices


@primitive(
    name="median",
    domain=reduction(),
    piece=lambda x, *, axis, keepdims: _middle_shares(x, axis) > 0,
    conventions="mean of the two middle entries; ties split equally",
)
def _median(x, *, axis, keepdims):
    x = np.asarray(x)
    _check_count(x, axis)
    y = np.median(_lanes(x, axis), axis=1).reshape(_kept_shape(x.shape, axis))
    return y if keepdims else np.squeeze(y, axis=axis)


@_median.rule(keeps="x")
def _(g, y, x, *, axis, keepdims):
    return (_kept(g, x, axis, keepdims) * _middle_shares(value_of(x), axis),)


def _middle_shares(x, axis):
    """What each entry weighs in the median: a constant."""
    n = _count(x.shape, axis)
    middle = [(n - 1) // 2, n // 2]
    values = np.partition(_lanes(x, axis), middle, axis=1)[:, middle]
    low, high = (column.reshape(_kept_shape(x.shape, axis)) for column in values.T)
    return (_shares(x, low, axis) + _shares(x, high, axis)) / 2


def median(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Middle entry over one, several or all axes; of an even number, the mean of the middle two.

    Parameters
    ----------
    x, axis, keepdims : as in ``sum``

    Raises
    ------
    ShapeError
        If there are no entries.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.median(np.array([5.0, 1.0, 2.0, 4.0]))
    array(3.)
    """
    return _median(x, axis=axis, keepdims=keepdims)


__all__ = ["argsort", "median", "sort", "topk"]
