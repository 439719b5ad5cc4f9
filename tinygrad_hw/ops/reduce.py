"""Reductions, and what runs along an axis: sums, extremes, norms, softmax, sorting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from .. import domains
from ..domains import Domain, reduction
from ..errors import ShapeError
from ..graph import Handle, as_array, primitive
from .elementwise import _as_tensor, _value, abs, equal, exp, where
from .index import _getitem, take_along_axis
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
    return x if x.dtype.kind == "f" else x.astype(float)


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
    return (_spread(g / _count(x.shape, axis), x, axis, keepdims),)


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


_VARIANCE = Domain("all reals, more entries than the correction", _variance_call)


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
    flat = np.ptp(_value(x), axis=axis, keepdims=True) == 0
    slope = _slope(g, y * (_count(x.shape, axis) - correction), flat | (_value(y) == 0))
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


def norm(x: Any, ord: float | None = None, axis: Axis = None, keepdims: bool = False) -> Any:
    """Norm of the vectors along one or several axes; its gradient at 0 is 0.

    Parameters
    ----------
    x : array or Tensor
    ord : None, 1, 2 or inf
        None is the root of the sum of squares, over any axes. The others are for vectors: one
        axis, or all of a 1-D tensor. NumPy's norms of matrices are not among them.
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
    if ord is None:
        return _norm(x, axis=axis, keepdims=keepdims)
    if ord not in (1, 2, math.inf):
        raise ValueError(f"norm: got ord={ord!r}; want None, 1, 2 or inf")
    if (np.ndim(_value(x)) if axis is None else np.size(axis)) != 1:
        raise ValueError(
            f"norm: ord={ord} over axis {axis} of shape {np.shape(_value(x))} would be the norm of "
            "a matrix; want one axis, or ravel(x)"
        )
    if ord == 2:
        return _norm(x, axis=axis, keepdims=keepdims)
    return (sum if ord == 1 else max)(abs(x), axis=axis, keepdims=keepdims)


# --- Extremes ---------------------------------------------------------------------------------


def _is_extreme(extreme):
    def piece(x, *, axis, keepdims):
        return np.equal(x, extreme(x, axis=axis, keepdims=True))

    return piece


_TIES = "ties split equally"


@primitive(name="max", domain=reduction(), piece=_is_extreme(np.max), conventions=_TIES)
def _max(x, *, axis, keepdims):
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(name="min", domain=reduction(), piece=_is_extreme(np.min), conventions=_TIES)
def _min(x, *, axis, keepdims):
    return np.min(x, axis=axis, keepdims=keepdims)


@_min.rule(keeps="y x")
@_max.rule(keeps="y x")
def _(g, y, x, *, axis, keepdims):
    reached = _kept(_value(y), x, axis, keepdims)
    return (_kept(g, x, axis, keepdims) * _shares(_value(x), reached, axis),)


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
    return (_kept(g, x, axis, keepdims) * _middle_shares(_value(x), axis),)


def _middle_shares(x, axis):
    """What each entry weighs in the median: a constant."""
    n = _count(x.shape, axis)
    middle = [(n - 1) // 2, n // 2]
    values = np.partition(_lanes(x, axis), middle, axis=1)[:, middle]
    low, high = (column.reshape(_kept_shape(x.shape, axis)) for column in values.T)
    return (_shares(x, low, axis) + _shares(x, high, axis)) / 2


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


# --- Running sums and products ----------------------------------------------------------------


def _running(draw):
    x = draw.array(domains.shape(draw, min_dims=1))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    return x, {"axis": axis, "reverse": bool(draw.integer(0, 1))}


def _one_running(draw):
    x, params = _running(draw)
    return (x,), params


def _backwards(x, axis, reverse):
    return np.flip(x, axis) if reverse else x


@primitive(name="cumsum", domain=Domain("all reals, any axis", _one_running))
def _cumsum(x, *, axis, reverse):
    return _backwards(np.cumsum(_backwards(x, axis, reverse), axis), axis, reverse)


@_cumsum.rule
def _(g, y, x, *, axis, reverse):
    return (_cumsum(g, axis=axis, reverse=not reverse),)


def cumsum(x: Any, axis: int | None = None) -> Any:
    """Running sum along an axis; without one, of the flattened tensor.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.cumsum(np.array([1.0, 2.0, 3.0]))
    array([1., 3., 6.])
    """
    if axis is None:
        x, axis = _reshape(x, shape=(-1,)), 0
    return _cumsum(x, axis=axis, reverse=False)


def _shift_call(draw):
    x, params = _running(draw)
    return (x,), {"axis": params["axis"], "by": draw.choice([1, -1]), "fill": draw.integer(0, 1)}


@primitive(name="shift", domain=Domain("all reals, any axis", _shift_call))
def _shift(x, *, axis, by, fill):
    """Move the entries one place along an axis, up or down, and fill the place that gets free."""
    out = np.full_like(x, fill)
    to, source = (slice(1, None), slice(None, -1))[::by]
    before = (slice(None),) * normalize_axis_index(axis, x.ndim)
    out[(*before, to)] = x[(*before, source)]
    return out


@_shift.rule
def _(g, y, x, *, axis, by, fill):
    return (_shift(g, axis=axis, by=-by, fill=0),)


def _recurrence_call(draw):
    b, params = _running(draw)
    return (b, draw.array(b.shape)), params


@primitive(name="recurrence", domain=Domain("all reals, any axis", _recurrence_call))
def _recurrence(b, a, *, axis, reverse):
    """Solve ``y[k] = b[k] + a[k] y[k - 1]`` along an axis, or with ``y[k + 1]`` in reverse.

    By doubling: after each pass the recurrence reaches twice as far back. So it takes few calls of
    NumPy even along a long axis, and no division, which zeros would spoil.
    """
    b, a = (np.moveaxis(_backwards(v, axis, reverse), axis, 0).copy() for v in (b, a))
    far = 1
    while far < len(b):
        b[far:] += a[far:] * b[:-far]
        a[far:] *= a[:-far]
        far *= 2
    return _backwards(np.moveaxis(b, 0, axis), axis, reverse)


@_recurrence.rule(keeps="y a")
def _(g, y, b, a, *, axis, reverse):
    by = -1 if reverse else 1
    towards = _shift(a, axis=axis, by=-by, fill=0)
    pulled = _recurrence(g, towards, axis=axis, reverse=not reverse)
    return pulled, pulled * _shift(y, axis=axis, by=by, fill=0)


@primitive(
    name="cumprod",
    domain=Domain("all reals, any axis", _one_running),
    conventions="exact at zeros",
)
def _cumprod(x, *, axis, reverse):
    return _backwards(np.cumprod(_backwards(x, axis, reverse), axis), axis, reverse)


@_cumprod.rule(keeps="y x")
def _(g, y, x, *, axis, reverse):
    # The k-th entry is a factor of every product from the k-th on. Without it each of these is the
    # product before k times one from k + 1 on; the sum of the latter, weighted by g, is
    # r[k] = g[k] + x[k + 1] r[k + 1].
    by = -1 if reverse else 1
    following = _shift(x, axis=axis, by=-by, fill=0)
    after = _recurrence(g, following, axis=axis, reverse=not reverse)
    return (_shift(y, axis=axis, by=by, fill=1) * after,)


def cumprod(x: Any, axis: int | None = None) -> Any:
    """Running product along an axis; without one, of the flattened tensor. Exact at zeros.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.cumprod(x).sum().backward()
    >>> x.grad
    array([1., 8., 0.])
    """
    if axis is None:
        x, axis = _reshape(x, shape=(-1,)), 0
    return _cumprod(x, axis=axis, reverse=False)


@primitive(name="prod", domain=reduction(), conventions="exact at zeros")
def _prod(x, *, axis, keepdims):
    return np.prod(x, axis=axis, keepdims=keepdims)


@_prod.rule(keeps="x")
def _(g, y, x, *, axis, keepdims):
    return (_kept(g, x, axis, keepdims) * _product_of_others(x, axis),)


def _product_of_others(x, axis):
    """For each entry, the product of the others that are reduced with it."""
    rows = _lanes(x, axis)
    before, after = (
        _shift(_cumprod(rows, axis=1, reverse=by < 0), axis=1, by=by, fill=1) for by in (1, -1)
    )
    return _unlaned(before * after, x.shape, axis)


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Product over one, several or all axes; derivatives of every order are exact at zeros.

    Parameters
    ----------
    x, axis, keepdims : as in ``sum``

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([2.0, 0.0, 3.0], requires_grad=True)
    >>> tg.prod(x).backward()
    >>> x.grad
    array([0., 6., 0.])
    """
    return _prod(x, axis=axis, keepdims=keepdims)


# --- Exponential families ---------------------------------------------------------------------


@primitive(name="logsumexp", domain=reduction())
def _logsumexp(x, *, axis, keepdims):
    x = _floats(x)
    top = np.max(x, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)
    with np.errstate(divide="ignore"):
        y = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else np.squeeze(y, axis=axis)


@_logsumexp.rule(keeps="y x")
def _(g, y, x, *, axis, keepdims):
    # All entries -inf: nothing has a share.
    level = where(equal(y, -math.inf), 0, y)
    share = exp(x - _kept(level, x, axis, keepdims))
    return (_kept(g, x, axis, keepdims) * share,)


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Any:
    """Compute ``log(sum(exp(x)))`` over one, several or all axes, without overflow.

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
    >>> tg.logsumexp(np.array([0.0, 1000.0]))
    array(1000.)
    """
    return _logsumexp(x, axis=axis, keepdims=keepdims)


def _softmax_call(draw):
    x = draw.array(domains.shape(draw))
    return (x,), {"axis": domains.axes(draw, x.ndim)}


_ALONG = Domain("all reals, any axis", _softmax_call)


@primitive(name="softmax", domain=_ALONG)
def _softmax(x, *, axis):
    x = _floats(x)
    y = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return y / np.sum(y, axis=axis, keepdims=True)


@_softmax.rule(keeps="y")
def _(g, y, x, *, axis):
    return (y * (g - _sum(g * y, axis=axis, keepdims=True)),)


def softmax(x: Any, axis: Axis = -1) -> Any:
    """Shares ``exp(x) / sum(exp(x))`` along an axis, without overflow.

    Parameters
    ----------
    x : array or Tensor
    axis : int, tuple of int or None
        Along which the shares add up to 1; None for all of them.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.softmax(np.array([1000.0, 1000.0]))
    array([0.5, 0.5])
    """
    return _softmax(x, axis=_along(x, axis))


@primitive(name="log_softmax", domain=_ALONG)
def _log_softmax(x, *, axis):
    x = _floats(x)
    y = x - np.max(x, axis=axis, keepdims=True)
    return y - np.log(np.sum(np.exp(y), axis=axis, keepdims=True))


@_log_softmax.rule(keeps="y")
def _(g, y, x, *, axis):
    return (g - exp(y) * _sum(g, axis=axis, keepdims=True),)


def log_softmax(x: Any, axis: Axis = -1) -> Any:
    """Logarithm of ``softmax``, accurate where the shares are small.

    Parameters
    ----------
    x, axis : as in ``softmax``

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    return _log_softmax(x, axis=_along(x, axis))


def _along(x, axis):
    """The last axis of a 0-d tensor is all of its axes."""
    return None if axis == -1 and np.ndim(_value(x)) == 0 else axis


# --- Order ------------------------------------------------------------------------------------


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
    shape = np.shape(_value(x))
    axis = normalize_axis_index(axis, len(shape))
    if not 0 <= k <= shape[axis]:
        raise ShapeError(f"topk: got k={k} for {shape[axis]} entries along axis {axis} of {shape}")
    order = argsort(x, axis, descending=True)
    indices = _getitem(order, index=(*(slice(None),) * axis, slice(k)))
    return take_along_axis(x, indices, axis), indices


# --- Constants: no gradient flows -------------------------------------------------------------


def _constant(function, x, **params):
    """Compute on the value; a tensor in gives a tensor out, without a gradient."""
    try:
        y = as_array(function(as_array(_value(x)), **params))
    except ValueError as error:
        if isinstance(error, np.exceptions.AxisError):
            raise
        raise ShapeError(f"{function.__name__}: {error}") from error
    return _as_tensor(y) if isinstance(x, Handle) else y


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
    "argsort",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "median",
    "min",
    "norm",
    "prod",
    "softmax",
    "sort",
    "std",
    "sum",
    "topk",
    "var",
]
