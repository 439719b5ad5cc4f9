"""Layers of networks that are more than one elementary op: linear, normalisation, dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from .. import domains
from ..dispatch import constant, primitive
from ..domains import Domain
from ..errors import ShapeError, with_graph
from ..graph import Handle, as_array, value_of, wrap
from ..settings import check_least, check_share
from . import linalg, reduce
from .constants import _array
from .elementwise import add, multiply, negative, sqrt, square
from .shape import _whole_number, axes_of, reshape

Axes = int | Sequence[int]
Rng: TypeAlias = "int | np.random.Generator | None"


# --- Layers -----------------------------------------------------------------------------------


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """Compute ``x @ w + b``: a fully connected layer on rows.

    Parameters
    ----------
    x : array or Tensor, shape (..., m)
    w : array or Tensor, shape (m, n)
        The transpose of the handout's ``w``, which multiplies columns from the left.
    b : array or Tensor, shape (n,), optional

    Returns
    -------
    array or Tensor, shape (..., n)

    Raises
    ------
    ShapeError
        If the shapes do not fit.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.linear(np.ones((4, 3)), np.ones((3, 2)), np.zeros(2)).shape
    (4, 2)
    """
    x, w = _array(x), _array(w)
    rows, sides = x.shape, w.shape
    if len(sides) != 2 or not rows or rows[-1] != sides[0]:
        hint = "; pass w.T" if len(sides) == 2 and rows and rows[-1] == sides[1] else ""
        raise ShapeError(f"linear: x is {rows} and w {sides}; want (..., m) and (m, n){hint}")
    y = linalg.matmul(x, w)
    if b is None:
        return y
    b = _array(b)
    if b.shape != sides[1:]:
        raise ShapeError(f"linear: b is {b.shape} for w {sides}; want {sides[1:]}")
    return add(y, b)


def _standardize_call(draw):
    x = draw.array(domains.shape(draw, min_dims=1))
    axis = tuple(i for i in range(x.ndim) if draw.integer(0, 2)) or (-1,)
    return (x,), {"axis": axis, "eps": draw.choice([1.0, 0.25])}


def _standardized_and_scale(x, *, axis, eps, needs):
    centred = x - x.mean(axis=axis, keepdims=True)
    scale = np.sqrt(np.square(centred).mean(axis=axis, keepdims=True) + eps)
    centred /= scale
    return centred, scale


@primitive(
    domain=Domain("all reals, any axis, eps > 0", _standardize_call, "axis"),
    residual=_standardized_and_scale,
)
def standardize(x, *, axis, eps):
    """Shift and scale to mean 0 and variance 1 (less for ``eps``) over the axes."""
    return _standardized_and_scale(x, axis=axis, eps=eps, needs=())[0]


@standardize.rule(keeps="y x")
def _(g, y, x, scale=None, *, axis, eps):
    # Ioffe and Szegedy 2015, section 3, put together: the mean and the part along y drop out.
    def mean(v):
        return reduce.mean(v, axis=axis, keepdims=True)

    if scale is None:
        scale = sqrt(mean(square(x - mean(x))) + eps)
    return ((g - mean(g) - y * mean(g * y)) / scale,)


def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    running_mean: Any = None,
    running_var: Any = None,
    *,
    training: bool = False,
    eps: float = 1e-5,
) -> Any:
    """Normalise each channel, then scale and shift it (Ioffe and Szegedy 2015).

    Nothing is updated here: :func:`batch_statistics` gives what a layer adds to its running
    averages.

    Parameters
    ----------
    x : array or Tensor, shape (..., C)
    gamma, beta : array or Tensor, shape (C,), optional
        Scale and shift; 1 and 0 by default.
    running_mean, running_var : array or Tensor, shape (C,)
        Used unless ``training``.
    training : bool
        Use the mean and variance of ``x`` over all axes but the last; the gradient goes through
        them.
    eps : float
        Added to the variance.

    Returns
    -------
    array or Tensor, shape of ``x``

    Raises
    ------
    ShapeError
        If a shape does not fit, or in training there is only one entry a channel.
    ValueError
        If ``eps`` is negative, or there are no running averages to use.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.batch_norm([[1.0, 5.0], [3.0, 5.0]], training=True, eps=0.0625).round(2)
    array([[-0.97,  0.  ],
           [ 0.97,  0.  ]])
    """
    x = _array(x)
    check_least("batch_norm", "eps", eps, 0)
    channels = x.shape[-1:]
    named = {"gamma": gamma, "beta": beta}
    if not training:
        named |= {"running_mean": running_mean, "running_var": running_var}
    for name, value in named.items():
        if value is None and name.startswith("running"):
            raise with_graph(ValueError)(f"batch_norm: {name} is None; pass it, or training=True")
        if value is not None and _array(value).shape != channels:
            raise ShapeError(
                f"batch_norm: {name} is {_array(value).shape} for x {x.shape}; want {channels}"
            )
    if not training:
        scale = sqrt(add(running_var, eps))
        scale = 1 / scale if gamma is None else gamma / scale
        shift = negative(multiply(running_mean, scale))
        return x * scale + (shift if beta is None else shift + beta)
    if x.ndim < 2 or math.prod(x.shape[:-1]) < 2:
        raise ShapeError(
            f"batch_norm: x {x.shape} has one entry a channel, so no variance; want (N, ..., C) "
            "with N > 1, or training=False"
        )
    y = standardize(x, axis=tuple(range(x.ndim - 1)), eps=eps)
    return _affine(y, gamma, beta)


def batch_statistics(x: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and variance of each channel of ``x`` (..., C), as arrays without gradient.

    The variance is that of :func:`batch_norm`, divided by the number of entries N; running averages
    by convention take the unbiased ``var * N / (N - 1)``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.batch_statistics([[1.0, 5.0], [3.0, 5.0]])
    (array([2., 5.]), array([1., 0.]))
    """
    value = value_of(_array(x))
    axes = tuple(range(value.ndim - 1))
    return value.mean(axis=axes), value.var(axis=axes)


def layer_norm(
    x: Any, weight: Any = None, bias: Any = None, *, axis: Axes = -1, eps: float = 1e-5
) -> Any:
    """Normalise over some axes, then scale and shift entry by entry (Ba, Kiros and Hinton 2016).

    Parameters
    ----------
    x : array or Tensor
    weight, bias : array or Tensor, shape of ``x`` along ``axis``, optional
    axis : int or tuple of int
        Of which the mean and variance are taken.
    eps : float
        Added to the variance.

    Returns
    -------
    array or Tensor, shape of ``x``

    Raises
    ------
    ShapeError
        If the shape of ``weight`` or ``bias`` does not fit.
    ValueError
        If ``eps`` is negative.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.layer_norm([[1.0, 3.0], [10.0, 30.0]], eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    x = _array(x)
    check_least("layer_norm", "eps", eps, 0)
    chosen = axes_of("layer_norm", axis, x.ndim)
    lengths = tuple(x.shape[i] for i in sorted(chosen))
    kept = tuple(n if i in chosen else 1 for i, n in enumerate(x.shape))
    parts = []
    for name, value in (("weight", weight), ("bias", bias)):
        part = None if value is None else _array(value)
        if part is not None and part.shape != lengths:
            raise ShapeError(
                f"layer_norm: {name} is {part.shape} for x {x.shape} over axis={axis}; "
                f"want {lengths}"
            )
        parts.append(part if part is None or part.ndim == x.ndim else reshape(part, kept))
    return _affine(standardize(x, axis=chosen, eps=eps), *parts)


def _affine(y, scale, shift):
    if scale is not None:
        y = y * scale
    return y if shift is None else y + shift


def dropout(x: Any, p: float = 0.5, rng: Rng = None, training: bool = True) -> Any:
    """Set entries to zero with probability ``p`` and scale the others by ``1 / (1 - p)``.

    The mean stays, so that nothing needs to be done when the network is used (Srivastava et al.
    2014, section 10, "inverted").

    Parameters
    ----------
    x : array or Tensor
    p : float
        In [0, 1).
    rng : None, int or numpy.random.Generator
        Pass a Generator to draw anew at every call; an int draws the same entries each time.
    training : bool
        Without it, ``x`` comes back as it is.

    Raises
    ------
    ValueError
        If ``p`` is not in [0, 1).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.dropout(np.ones(6), 0.5, rng=0)
    array([2., 0., 0., 0., 2., 2.])
    """
    check_share("dropout", "p", p)
    x = _array(x)
    if not training or p == 0:
        return x
    kept = _uniform(shape=x.shape, rng=rng) >= p
    scale = np.asarray(1 / (1 - p), x.dtype if x.dtype.kind == "f" else float)
    return multiply(x, kept * scale)


@constant
def _uniform(*, shape, rng):
    return np.random.default_rng(rng).random(shape)


def embedding(indices: Any, table: Any) -> Any:
    """Look up rows of a table; the gradient of a row is the sum over its uses.

    Parameters
    ----------
    indices : array of int, any shape
        From 0 to K - 1.
    table : array or Tensor, shape (K, D)

    Returns
    -------
    array or Tensor, shape (*indices.shape, D)

    Raises
    ------
    TypeError, IndexError
        If an index is no whole number, or none of the table.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.embedding([2, 0, 2], np.arange(6.0).reshape(3, 2))
    array([[4., 5.],
           [0., 1.],
           [4., 5.]])
    """
    table = _array(table)
    if table.ndim != 2:
        raise ShapeError(f"embedding: table is {table.shape}; want (K, D)")
    indices = _whole("embedding", "index", indices)
    if indices.size and not 0 <= indices.min() <= indices.max() < table.shape[0]:
        raise _no_class("embedding", "index", indices, table.shape[0])
    return table[indices]


def one_hot(labels: Any, n: int, dtype: Any = float) -> Any:
    """Give for each label a row with 1 at its class and 0 elsewhere; a constant.

    Parameters
    ----------
    labels : array of int, any shape
        From 0 to ``n - 1``.
    n : int
        Number of classes.
    dtype : optional

    Returns
    -------
    array, shape (*labels.shape, n)
        A Tensor if ``labels`` is one.

    Raises
    ------
    TypeError, IndexError
        If a label is no whole number, or no class.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.one_hot([2, 0], 3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    if (n := _whole_number("one_hot", "n", n)) < 0:
        raise with_graph(ValueError)(f"one_hot: n is {n}; want a number of classes, not below 0")
    hot = _hot("one_hot", labels, n).astype(dtype)
    return wrap(hot) if isinstance(labels, Handle) else hot


def _hot(op, labels, n):
    """One-hot rows, as booleans."""
    labels = _whole(op, "label", labels)
    hot = labels[..., np.newaxis] == np.arange(n)
    if np.count_nonzero(hot) != labels.size:
        raise _no_class(op, "label", labels, n)
    return hot


def _whole(op, name, values):
    values = as_array(value_of(values))
    if values.dtype.kind not in "iu" and values.size:
        raise with_graph(TypeError)(
            f"{op}: each {name} must be a whole number, these are {values.dtype}; use .astype(int)"
        )
    return values.astype(int) if values.size == 0 else values


def _no_class(op, name, values, n):
    first = int(np.argmax((values < 0) | (values >= n)))
    place = tuple(map(int, np.unravel_index(first, values.shape)))
    return with_graph(IndexError)(
        f"{op}: {name} {int(values[place])} at {place} is out of range; want 0 to {n - 1}"
    )


__all__ = [
    "batch_norm",
    "batch_statistics",
    "dropout",
    "embedding",
    "layer_norm",
    "linear",
    "one_hot",
]
