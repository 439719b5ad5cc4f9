"""What runs along an axis: cumulative sums and products, and the product made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .. import domains
from ..dispatch import primitive
from ..domains import Domain, reduction
from .reduce import Axis, _kept, _lanes, _unlaned
from .shape import _reshape


def _running(draw):
    x = draw.array(domains.shape(draw, min_dims=1))
    axis = draw.integer(-x.ndim, x.ndim - 1)
    return x, {"axis": axis, "reverse": bool(draw.integer(0, 1))}


def _one_running(draw):
    x, params = _running(draw)
    return (x,), params


def _backwards(x, axis, reverse):
    return np.flip(x, axis) if reverse else x


@primitive(name="cumsum", domain=Domain("all reals, any axis", _one_running, "axis"))
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


@primitive(name="shift", domain=Domain("all reals, any axis", _shift_call, "axis"))
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


@primitive(name="recurrence", domain=Domain("all reals, any axis", _recurrence_call, "axis"))
def _recurrence(b, a, *, axis, reverse):
    """Solve ``y[k] = b[k] + a[k] y[k - 1]`` along an axis, or with ``y[k + 1]`` in reverse."""
    b, a = (np.moveaxis(_backwards(v, axis, reverse), axis, 0) for v in (b, a))
    y = _by_doubling(b.copy(), a.copy())
    if not np.isfinite(y).all():
        # Products of many factors may overflow where the solution does not.
        y = _step_by_step(b.copy(), a)
    return _backwards(np.moveaxis(y, 0, axis), axis, reverse)


def _by_doubling(y, a):
    """Solve it in place: after each pass the recurrence reaches twice as far back.

    So it takes few calls of NumPy even along a long axis, and no division, which zeros would spoil.
    """
    far = 1
    while far < len(y):
        y[far:] += a[far:] * y[:-far]
        a[far:] *= a[:-far]
        far *= 2
    return y


def _step_by_step(y, a):
    for k in range(1, len(y)):
        y[k] += a[k] * y[k - 1]
    return y


@_recurrence.rule(keeps="y a")
def _(g, y, b, a, *, axis, reverse):
    by = -1 if reverse else 1
    towards = _shift(a, axis=axis, by=-by, fill=0)
    pulled = _recurrence(g, towards, axis=axis, reverse=not reverse)
    return pulled, pulled * _shift(y, axis=axis, by=by, fill=0)


@primitive(
    name="cumprod",
    domain=Domain("all reals, any axis", _one_running, "axis"),
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


__all__ = ["cumprod", "cumsum", "prod"]
