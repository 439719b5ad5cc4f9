"""Functions of networks, in the handout's layout: images (..., H, W, C), filters (h, w, C1, C2).

The kernels are those of ``hw5.py``. Convolution is bilinear in images and filters, so its three
kernels are closed: each is differentiated by the other two. Max-pooling picks an entry of each
window; at fixed winners picking is linear, and ``unpool`` is its adjoint.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from .. import domains
from ..domains import Domain
from ..errors import ShapeError
from ..graph import Handle, primitive
from ..kernels import hw5
from . import linalg, reduce
from .elementwise import abs as absolute
from .elementwise import clip, equal
from .shape import concatenate, expand_dims, reshape, transpose

Pair = int | tuple[int, int]
Padding = str | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
Axes = int | tuple[int, ...]
Reduction = Literal["mean", "sum", "none"]
Rng = None | int | np.random.Generator


# --- Convolution ------------------------------------------------------------------------------


def _window_call(draw):
    """Choose (N, H, W, C1), (h, w, C1, C2) and the parameters of a convolution."""
    size = (draw.integer(1, 3), draw.integer(1, 3))
    dilation = (draw.integer(1, 2), 1)
    image = tuple(
        d * (k - 1) + 1 + draw.integer(0, 2) for k, d in zip(size, dilation, strict=True)
    )
    window = {
        "stride": (draw.integer(1, 2), draw.integer(1, 2)),
        "padding": draw.choice(["valid", "same", 1, ((0, 1), (2, 0))]),
        "dilation": dilation,
    }
    lead = draw.choice([(1,), (2,), (), (2, 1)])
    c1, c2 = draw.integer(1, 2), draw.integer(1, 2)
    return (*lead, *image, c1), (*size, c1, c2), window


def _conv_call(draw):
    x, w, window = _window_call(draw)
    return (draw.array(x), draw.array(w)), window


def _conv_dx_call(draw):
    x, w, window = _window_call(draw)
    g = _conv_shape(x, w, **window)
    return (draw.array(g), draw.array(w)), {"shape": x[-3:-1], **window}


def _conv_dw_call(draw):
    x, w, window = _window_call(draw)
    g = _conv_shape(x, w, **window)
    return (draw.array(g), draw.array(x)), {"size": w[:2], **window}


def _conv_shape(x, w, *, stride, padding, dilation):
    return (*x[:-3], *hw5.Window(x, w[:2], stride, padding, dilation).out, w[3])


@primitive(domain=Domain("all reals, any stride, padding and dilation", _conv_call))
def conv(x, w, *, stride, padding, dilation):
    """The handout's ``conv`` without its bias: correlate every image with every filter."""
    return hw5.correlate(x, w, stride=stride, padding=padding, dilation=dilation)


@primitive(domain=Domain("all reals, any stride, padding and dilation", _conv_dx_call))
def conv_dx(g, w, *, shape, stride, padding, dilation):
    """Adjoint of ``conv`` in its images, which have ``shape`` (H, W)."""
    return hw5.correlate_dx(g, w, shape=shape, stride=stride, padding=padding, dilation=dilation)


@primitive(domain=Domain("all reals, any stride, padding and dilation", _conv_dw_call))
def conv_dw(g, x, *, size, stride, padding, dilation):
    """Adjoint of ``conv`` in its filters, which have ``size`` (h, w)."""
    return hw5.correlate_dw(g, x, size=size, stride=stride, padding=padding, dilation=dilation)


@conv.rule(keeps="x w")
def _(g, y, x, w, *, needs, **window):
    return (
        conv_dx(g, w, shape=x.shape[-3:-1], **window) if needs[0] else None,
        conv_dw(g, x, size=w.shape[:2], **window) if needs[1] else None,
    )


@conv_dx.rule(keeps="g w")
def _(h, y, g, w, *, shape, needs, **window):
    return (
        conv(h, w, **window) if needs[0] else None,
        conv_dw(g, h, size=w.shape[:2], **window) if needs[1] else None,
    )


@conv_dw.rule(keeps="g x")
def _(v, y, g, x, *, size, needs, **window):
    return (
        conv(x, v, **window) if needs[0] else None,
        conv_dx(g, v, shape=x.shape[-3:-1], **window) if needs[1] else None,
    )


def conv2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    dilation: Pair = 1,
    groups: int = 1,
) -> Any:
    """Correlate images with filters and add a bias: a convolution layer.

    Parameters
    ----------
    x : array or Tensor, shape (..., H, W, C1)
    w : array or Tensor, shape (h, w, C1 / groups, C2)
    b : array or Tensor, shape (C2,) or the handout's (C2, 1), optional
    stride : int or (int, int)
        Rows and columns from one window to the next.
    padding : "valid", "same", int, (rows, columns) or ((top, bottom), (left, right))
        Zeros around the image; none by default. "same" gives an output of size H / stride, rounded
        up; an odd zero goes to the bottom and right.
    dilation : int or (int, int)
        Distance between neighbouring taps of a filter.
    groups : int
        The channels and the filters are split into so many groups, in order; filters see the
        channels of their group only.

    Returns
    -------
    array or Tensor, shape (..., H', W', C2)

    Raises
    ------
    ShapeError
        If the shapes do not fit or a window is larger than the padded image.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x, w = np.ones((5, 14, 14, 1)), np.ones((3, 3, 1, 8))
    >>> tg.conv2d(x, w, np.zeros(8), padding="same").shape
    (5, 14, 14, 8)
    """
    x, w = _array(x), _array(w)
    _check_conv("conv2d", x, w, groups, x_channels=w.ndim > 2 and w.shape[2] * groups)
    window = {"stride": stride, "padding": padding, "dilation": dilation}
    if groups == 1:
        y = conv(x, w, **window)
    else:
        c1, c2 = w.shape[2], w.shape[3] // groups
        y = concatenate(
            [
                conv(x[..., i * c1 : (i + 1) * c1], w[..., i * c2 : (i + 1) * c2], **window)
                for i in range(groups)
            ],
            axis=-1,
        )
    return y if b is None else y + _channel_bias("conv2d", b, w.shape[3])


def _check_conv(op, x, w, groups, x_channels):
    if w.ndim != 4 or x.ndim < 3 or 0 in x.shape[-3:] or 0 in w.shape:
        raise ShapeError(f"{op}: x is {x.shape} and w {w.shape}; want (..., H, W, C) and 4 axes")
    if groups < 1 or w.shape[3] % groups:
        raise ShapeError(f"{op}: {w.shape[3]} filters do not split into {groups} groups")
    if x.shape[-1] != x_channels:
        raise ShapeError(
            f"{op}: x {x.shape} has {x.shape[-1]} channels, w {w.shape} wants {x_channels}"
        )


def _channel_bias(op, b, channels):
    b = _array(b)
    if b.shape == (channels, 1):
        b = reshape(b, (channels,))
    if b.shape != (channels,):
        raise ShapeError(f"{op}: b is {b.shape} for {channels} channels; want ({channels},)")
    return b


# --- Pooling ----------------------------------------------------------------------------------


def _pool_call(draw):
    """Choose images whose windows have clear winners, and the parameters of a pooling."""
    size = (draw.integer(1, 3), draw.integer(1, 3))
    image = tuple(k + draw.integer(0, 3) for k in size)
    stride = (draw.integer(1, 3), draw.integer(1, 3))
    x = draw.array((*draw.choice([(1,), (), (2,)]), *image, draw.integer(1, 2)))
    return (x,), {"size": size, "stride": stride}


def _pick_call(draw):
    (x,), window = _pool_call(draw)
    return (x, hw5.pool_winners(-x, **window)), window


def _unpool_call(draw):
    (x, winners), window = _pick_call(draw)
    return (draw.array(winners.shape), winners), {"shape": x.shape[-3:-1], **window}


@primitive(
    domain=Domain("all reals, any window and stride", _pool_call),
    piece=lambda x, **window: hw5.pool_winners(x, **window),
    conventions="the first of equal entries gets the gradient",
)
def max_pool(x, *, size, stride):
    """Largest entry of each window."""
    return hw5.max_pool(x, size=size, stride=stride)


@primitive(domain=Domain("all reals, any winners", _pick_call))
def pick(x, winners, *, size, stride):
    """From each window the entry that ``winners`` names."""
    return hw5.pool_pick(x, winners, size=size, stride=stride)


@primitive(domain=Domain("all reals, any winners", _unpool_call))
def unpool(g, winners, *, shape, size, stride):
    """Adjoint of ``pick``: send each window's entry to its winner."""
    return hw5.max_unpool(g, winners, shape=shape, size=size, stride=stride)


@max_pool.rule(keeps="x")
def _(g, y, x, *, size, stride):
    winners = hw5.pool_winners(_value(x), size=size, stride=stride)
    return (unpool(g, winners, shape=x.shape[-3:-1], size=size, stride=stride),)


@pick.rule(keeps="winners")
def _(g, y, x, winners, **window):
    return unpool(g, winners, shape=x.shape[-3:-1], **window), None


@unpool.rule(keeps="winners")
def _(h, y, g, winners, *, shape, **window):
    return pick(h, winners, **window), None


def max_pool2d(x: Any, size: Pair, stride: Pair | None = None) -> Any:
    """Largest entry of each window of images, channel by channel.

    Parameters
    ----------
    x : array or Tensor, shape (..., H, W, C)
    size : int or (int, int)
        Rows and columns of a window.
    stride : int or (int, int), optional
        From one window to the next; by default ``size``.

    Returns
    -------
    array or Tensor, shape (..., H', W', C)

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.max_pool2d(np.arange(16.0).reshape(4, 4, 1), 2)[..., 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    return max_pool(_array(x), size=size, stride=size if stride is None else stride)


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

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.linear(np.ones((4, 3)), np.ones((3, 2)), np.zeros(2)).shape
    (4, 2)
    """
    y = linalg.matmul(x, w)
    return y if b is None else y + b


# --- Cross-entropy ----------------------------------------------------------------------------


def _cross_entropy_call(draw):
    shape = (*domains.shape(draw, max_dims=2), draw.integer(1, 4))
    y = draw.array(shape, 0, 1)
    if draw.integer(0, 1):
        y = y == y.max(axis=-1, keepdims=True)
    return (draw.array(shape), y), {"reduction": draw.choice(["mean", "sum", "none"])}


@primitive(name="softmax_cross_entropy", domain=Domain("logits all reals", _cross_entropy_call))
def _cross_entropy(x, y, *, reduction):
    # The handout's loss, along the last axis. Booleans are one-hot rows: their class is picked.
    shifted = x - x.max(axis=-1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=-1))
    if y.dtype == bool:
        losses = losses - shifted[y].reshape(losses.shape)
    else:
        # A logit of -inf costs nothing where the target does not want it.
        losses = losses * y.sum(axis=-1) - (y * np.where(y == 0, 0, shifted)).sum(axis=-1)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / losses.size


@_cross_entropy.rule(keeps="x y")
def _(g, _, x, y, *, reduction, needs):
    if reduction == "none":
        g = expand_dims(g, -1)
    elif reduction == "mean":
        g = g / math.prod(x.shape[:-1])
    p = reduce.softmax(x, axis=-1)
    if y.dtype != bool:
        p = p * reduce.sum(y, axis=-1, keepdims=True)
    return (
        g * (p - y) if needs[0] else None,
        -g * reduce.log_softmax(x, axis=-1) if needs[1] else None,
    )


def softmax_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    axis: int = -1,
) -> Any:
    """Cross-entropy of softmax(logits) against labels.

    Parameters
    ----------
    logits : array or Tensor, shape (N, K)
    labels : array of int, shape (N,), or probabilities, shape (N, K)

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.softmax_cross_entropy(np.zeros((3, 4)), [0, 1, 2]).round(4)
    np.float64(1.3863)
    """
    x = _array(logits)
    y = _array(labels)
    if y.ndim == x.ndim - 1:
        y = _value(y)[..., np.newaxis] == np.arange(x.shape[-1])
    return _cross_entropy(x, y, reduction=reduction)


def _array(x):
    return x if isinstance(x, Handle) else np.asarray(x)


def _value(x):
    return x._data if isinstance(x, Handle) else x


__all__ = ["conv2d", "linear", "max_pool2d", "softmax_cross_entropy"]
