"""Reductions over axes: sums, means, norms, extremes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import domains
from ..dispatch import primitive
from ..domains import Domain, reduction
from ..errors import ShapeError, with_graph
from ..graph import as_array, value_of
from .constants import _constant, equal
from .elementwise import abs, cast, where
from .shape import _reshape, _transpose, expand

Axis = int | tuple[int, ...] | None


# --- Back along the reduced axes --------------------------------------------------------------


def _kept_shape(shape, axis):
    """The shape with length 1 along the reduced axes."""
    if axis is None:
        return (1,) * len(shape)
    kept = list(shape)
    for n in axis if isinstance(axis, tuple) else (axis,):
        try:
            kept[n] = 1
        except IndexError:
            raise np.exceptions.AxisError(n, len(shape)) from None
    return tuple(kept)


def _kept(y, x, axis, keepdims):
    """Give a reduced value the axes of ``x`` again, so that it broadcasts against ``x``."""
    if keepdims or axis is None:
        return y
    return _reshape(y, shape=_kept_shape(x.shape, axis))


def _spread(g, x, axis, keepdims):
    """Give every entry of ``x`` the value of the result that it went into."""
    return expand(_kept(g, x, axis, keepdims), shape=x.shape)


def _count(shape, axis):
    """How many entries each result is made of."""
    kept = _kept_shape(shape, axis)
    return math.prod([side for side, one in zip(shape, kept, strict=True) if one == 1])


def _floats(x):
    """Give integers and booleans as floats, as NumPy's mean does."""
    x = np.asarray(x)
    return x if x.dtype.kind in "fc" else x.astype(float)


def _lanes(x, axis):
    """Lay out the entries so that each result is made of a row."""
    shape = x.shape
    moved = _transpose(x, axes=tuple(_reduced_last(len(shape), axis)))
    return _reshape(moved, shape=(math.prod(_kept_shape(shape, axis)), _count(shape, axis)))


def _unlaned(rows, shape, axis):
    """Undo ``_lanes``."""
    order = _reduced_last(len(shape), axis)
    moved = _reshape(rows, shape=tuple([shape[n] for n in order]))
    return _transpose(moved, axes=tuple(np.argsort(order).tolist()))


def _reduced_last(ndim, axis):
    """The order of axes that puts the reduced ones behind the others."""
    reduced = range(ndim) if axis is None else normalize_axis_tuple(axis, ndim)
    return [n for n in range(ndim) if n not in reduced] + sorted(reduced)


# --- Sums and means ---------------------------------------------------------------------------


@primitive(name="sum", domain=reduction())
def _sum(x, *, axis, keepdims):
    return np.sum(x, axis=axis, keepdims=keepdims)


@_sum.rule
def _(g, y, x, *, axis, keepdims):
    return (_spread(g, x, axis, keepdims),)


def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Sum over one, several or all axes.

    Parameters
    ----------
    x : array or Tensor
    axis : int, tuple of int or None
        None for all of them.
    keepdims : bool
        Leave the reduced axes in place with length 1.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.sum(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    array([4., 6.])
    """
    return _sum(x, axis=axis, keepdims=keepdims)


@primitive(name="mean", domain=reduction())
def _mean(x, *, axis, keepdims):
    _check_count(x, axis)
    return np.mean(x, axis=axis, keepdims=keepdims)


@_mean.rule
def _(g, y, x, *, axis, keepdims):
    # Half precision has no number for a count over 65504, but one for its inverse.
    return (_spread(g * (1 / _count(x.shape, axis)), x, axis, keepdims),)


def _check_count(x, axis, correction=0):
    count = _count(np.shape(x), axis)
    if count <= correction:
        raise ShapeError(
            f"axis {axis} has {count} entries; want more than {correction}"
            + (", or a smaller correction" if correction else "")
        )


def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Mean over one, several or all axes.

    Parameters
    ----------
    x, axis, keepdims : as in ``sum``

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


def _variance_call(draw):
    x = draw.array(domains.shape(draw))
    axis = domains.axes(draw, x.ndim)
    correction = draw.choice([0, 1, 0.5]) if _count(x.shape, axis) > 1 else 0
    keepdims = bool(draw.integer(0, 1))
    return (x,), {"axis": axis, "correction": correction, "keepdims": keepdims}


_VARIANCE = Domain("all reals, more entries than the correction", _variance_call, "axis")


@primitive(name="var", domain=_VARIANCE)
def _var(x, *, axis, correction, keepdims):
    _check_count(x, axis, correction)
    return np.var(x, axis=axis, correction=correction, keepdims=keepdims)


@_var.rule(keeps="x")
def _(g, y, x, *, axis, correction, keepdims):
    slope = g * (2 / (_count(x.shape, axis) - correction))
    return (_kept(slope, x, axis, keepdims) * _deviation(x, axis),)


def _deviation(x, axis):
    return x - _mean(x, axis=axis, keepdims=True)


def var(x: Any, axis: Axis = None, *, correction: float = 0, keepdims: bool = False) -> Any:
    """Variance over one, several or all axes.

    Parameters
    ----------
    x, axis, keepdims : as in ``sum``
    correction : float
        The sum of squares is divided by the number of entries less this: 0 for the variance of
        the entries, 1 for the unbiased estimate from a sample.

    Raises
    ------
    ShapeError
        If there are not more entries than the correction.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.var(np.array([1.0, 3.0])), tg.var(np.array([1.0, 3.0]), correction=1)
    (array(1.), array(2.))
    """
    return _var(x, axis=axis, correction=correction, keepdims=keepdims)


@primitive(name="std", domain=_VARIANCE, conventions="std'(const) = 0")
def _std(x, *, axis, correction, keepdims):
    _check_count(x, axis, correction)
    return np.std(x, axis=axis, correction=correction, keepdims=keepdims)


@_std.rule(keeps="y x")
def _(g, y, x, *, axis, correction, keepdims):
    g, y = (_kept(value, x, axis, keepdims) for value in (g, y))
    # The mean of equal entries may be off by a rounding, and so not give the deviation 0.
    flat = np.ptp(value_of(x), axis=axis, keepdims=True) == 0
    share = g * (1 / (_count(x.shape, axis) - correction))
    slope = _slope(share, y, flat | (value_of(y) == 0))
    return (slope * _deviation(x, axis),)


def _slope(g, length, flat):
    """Divide by a length, and give 0 where the convention says that the gradient is 0."""
    return where(flat, 0, g / where(flat, 1, length))


def std(x: Any, axis: Axis = None, *, correction: float = 0, keepdims: bool = False) -> Any:
    """Standard deviation over one, several or all axes; its gradient at equal entries is 0.

    Parameters
    ----------
    x, axis, correction, keepdims : as in ``var``

    Raises
    ------
    ShapeError
        If there are not more entries than the correction.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.std(np.array([1.0, 3.0]))
    array(1.)
    """
    return _std(x, axis=axis, correction=correction, keepdims=keepdims)


# --- Norms ------------------------------------------------------------------------------------


@primitive(name="norm", domain=reduction(0.1, 3.0), conventions="norm'(0) = 0")
def _norm(x, *, axis, keepdims):
    x = _floats(x)
    return np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))


@_norm.rule(keeps="y x")
def _(g, y, x, *, axis, keepdims):
    g, y = (_kept(value, x, axis, keepdims) for value in (g, y))
    return (_slope(g, y, equal(y, 0)) * x,)


def norm(x: Any, ord: float | str | None = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Norm of the vectors along one or several axes; its gradient at 0 is 0.

    Parameters
    ----------
    x : array or Tensor
    ord : None, "fro", inf, -inf or a number above 0
        None and "fro" are the root of the sum of squares, over any axes. The others are for
        vectors: one axis, or all of a 1-D tensor. NumPy's norms of matrices are not among them.
    axis : int, tuple of int or None
    keepdims : bool

    Raises
    ------
    ValueError
        If ``ord`` is another one, or is given where NumPy would take the norm of a matrix.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.norm(np.array([3.0, -4.0])), tg.norm(np.array([3.0, -4.0]), 1)
    (array(5.), array(7.))
    """
    dtype = as_array(value_of(x)).dtype
    if dtype.kind == "c":
        x = abs(x)
    elif dtype.kind != "f":
        x = cast(x, dtype=float)
    if ord is None or (isinstance(ord, str) and ord == "fro"):
        return _norm(x, axis=axis, keepdims=keepdims)
    if not isinstance(ord, (int, float, np.number)) or not (ord > 0 or ord == -math.inf):
        raise with_graph(ValueError)(
            f"norm: got ord={ord!r}; want None, 'fro', inf, -inf or a number above 0"
        )
    shape = np.shape(value_of(x))
    if (len(shape) if axis is None else np.size(axis)) != 1:
        raise with_graph(ValueError)(
            f"norm: ord={ord} over axis {axis} of shape {shape} would be the norm of a matrix; "
            "want one axis, or ravel(x); of a matrix, use svdvals(x)"
        )
    if ord == 2:
        return _norm(x, axis=axis, keepdims=keepdims)
    simple = {1: sum, math.inf: max, -math.inf: min}.get(ord)
    if simple is not None:
        return simple(abs(x), axis=axis, keepdims=keepdims)
    return _root(sum(_root(abs(x), ord), axis=axis, keepdims=keepdims), 1 / ord)


def _root(x, exponent):
    """Raise to a power that may be below 1: its slope at 0 would be infinite, and is 0 here."""
    zero = equal(x, 0)
    return where(zero, 0, where(zero, 1, x) ** exponent)


# --- Extremes ---------------------------------------------------------------------------------


def _first_of(arg):
    def piece(x, *, axis, keepdims):
        return arg(_lanes(x, axis), axis=1)

    return piece


_TIES = "ties split equally"


@primitive(name="max", domain=reduction(), piece=_first_of(np.argmax), conventions=_TIES)
def _max(x, *, axis, keepdims):
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(name="min", domain=reduction(), piece=_first_of(np.argmin), conventions=_TIES)
def _min(x, *, axis, keepdims):
    return np.min(x, axis=axis, keepdims=keepdims)


@_min.rule(keeps="y x")
@_max.rule(keeps="y x")
def _(g, y, x, *, axis, keepdims):
    reached = _kept(value_of(y), x, axis, keepdims)
    return (_kept(g, x, axis, keepdims) * _shares(value_of(x), reached, axis),)


def _shares(x, value, axis):
    """Share 1 equally among the entries that equal a value, which is one of them: a constant."""
    there = np.equal(x, value) | np.isnan(x)
    return (there / np.sum(there, axis=axis, keepdims=True)).astype(x.dtype)


def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Largest entry over one, several or all axes; entries that tie share the gradient equally.

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
    >>> x = tg.Tensor([1.0, 2.0, 2.0], requires_grad=True)
    >>> tg.max(x).backward()
    >>> x.grad
    array([0. , 0.5, 0.5])
    """
    return _max(x, axis=axis, keepdims=keepdims)


def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Smallest entry over one, several or all axes; entries that tie share the gradient equally.

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
    >>> tg.min(np.array([[3.0, 1.0], [2.0, 4.0]]), axis=1)
    array([1., 2.])
    """
    return _min(x, axis=axis, keepdims=keepdims)


amax, amin = max, min


# --- Constants: no gradient flows -------------------------------------------------------------


def argmax(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Position of the largest entry, of equal ones the first; a constant.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.argmax(np.array([[1.0, 3.0], [4.0, 2.0]]), axis=1)
    array([1, 0])
    """
    return _constant(np.argmax, x, axis=axis, keepdims=keepdims)


def argmin(x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
    """Position of the smallest entry, of equal ones the first; a constant.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.argmin(np.array([[1.0, 3.0], [4.0, 2.0]]), axis=1)
    array([0, 1])
    """
    return _constant(np.argmin, x, axis=axis, keepdims=keepdims)


def any(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Tell whether an entry is not zero; a constant.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.any(np.array([[0.0, 1.0], [0.0, 0.0]]), axis=1)
    array([ True, False])
    """
    return _constant(np.any, x, axis=axis, keepdims=keepdims)


def all(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Tell whether no entry is zero; a constant.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.all(np.array([[2.0, 1.0], [0.0, 1.0]]), axis=1)
    array([ True, False])
    """
    return _constant(np.all, x, axis=axis, keepdims=keepdims)


def count_nonzero(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Count the entries that are not zero; a constant.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.count_nonzero(np.array([[2.0, 1.0], [0.0, 1.0]]), axis=0)
    array([1, 2])
    """
    return _constant(np.count_nonzero, x, axis=axis, keepdims=keepdims)


__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "max",
    "mean",
    "min",
    "norm",
    "std",
    "sum",
    "var",
]
