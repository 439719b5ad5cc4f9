"""Sums of exponentials over axes: their logarithm, and the softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..domains import Domain, reduction
from ..graph import value_of
from .constants import equal
from .elementwise import exp, where
from .reduce import Axis, _floats, _kept, _sum

__all__ = ["log_softmax", "logsumexp", "softmax"]


@primitive(name="logsumexp", domain=reduction())
def _logsumexp(x, *, axis, keepdims):
    x = _floats(x)
    top = np.max(x.real, axis=axis, keepdims=True)
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


_ALONG = Domain("all reals, any axis", _softmax_call, "axis")


@primitive(name="softmax", domain=_ALONG)
def _softmax(x, *, axis):
    x = _floats(x)
    y = np.exp(x - np.maximum.reduce(x, axis=axis, keepdims=True))
    return y / np.add.reduce(y, axis=axis, keepdims=True)


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
    y = x - np.max(x.real, axis=axis, keepdims=True)
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
    return None if np.ndim(value_of(x)) == 0 and axis == -1 else axis
