"""Functions of networks, in the handout's layout: images (..., H, W, C), filters (h, w, C1, C2).

The kernels are those of ``hw5.py``. Convolution is bilinear in images and filters, so its three
kernels are closed: each is differentiated by the other two. Max-pooling picks an entry of each
window; at fixed winners picking is linear, and ``unpool`` is its adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from .. import domains
from ..domains import Domain
from ..errors import ShapeError
from ..graph import Handle, as_array, constant, primitive
from ..kernels import hw5
from . import index, linalg, reduce
from .elementwise import (
    _as_tensor,
    _value,
    add,
    clip,
    log,
    multiply,
    negative,
    softplus,
    sqrt,
    square,
    subtract,
    where,
)
from .elementwise import abs as absolute
from .shape import concatenate, expand_dims, reshape, transpose

Pair = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
Axes = int | Sequence[int]
Reduction = Literal["mean", "sum", "none"]
Rng = None | int | np.random.Generator

_WHOLE = (int, np.integer)


# --- Convolution ------------------------------------------------------------------------------


def _window_call(draw):
    """Choose (N, H, W, C1), (h, w, C1, C2) and the parameters of a convolution."""
    size = (draw.integer(1, 3), draw.integer(1, 3))
    dilation = (draw.integer(1, 2), 1)
    image = tuple(d * (k - 1) + 1 + draw.integer(0, 2) for k, d in zip(size, dilation, strict=True))
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
        Channels and filters are split in order into so many groups; a filter sees the channels of
        its group only.

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
    _check_filters("conv2d", x, w, groups)
    c1, c2 = w.shape[2], w.shape[3]
    if x.shape[-1] != c1 * groups:
        raise ShapeError(
            f"conv2d: x {x.shape} has {x.shape[-1]} channels, w {w.shape} takes {c1}"
            + (f" in each of {groups} groups" if groups > 1 else "")
            + "; want (..., H, W, C1) and (h, w, C1 / groups, C2)"
        )
    window = _window("conv2d", stride, padding, dilation)
    if groups == 1:
        y = conv(x, w, **window)
    else:
        pairs = zip(_split(x, groups), _split(w, groups), strict=True)
        y = concatenate([conv(part, filters, **window) for part, filters in pairs], axis=-1)
    return y if b is None else add(y, _channel_bias("conv2d", b, c2))


def conv2d_transpose(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    stride: Pair = 1,
    padding: Padding = "valid",
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Any:
    """Apply the adjoint of :func:`conv2d` with the same ``w``, and add a bias.

    Where ``conv2d(., w)`` takes images with C1 channels to images with C2, this goes from C2 to C1:
    ``sum(conv2d(a, w) * x) == sum(a * conv2d_transpose(x, w))`` for every ``a``.

    Parameters
    ----------
    x : array or Tensor, shape (..., H, W, C2)
    w : array or Tensor, shape (h, w, C1 / groups, C2)
        Of the convolution that is transposed, so the channels of the output come before those of
        the input.
    b : array or Tensor, shape (C1,) or (C1, 1), optional
    stride, padding, dilation, groups
        Of the convolution that is transposed. "same" gives an output of size H * stride.
    output_padding : int or (int, int)
        Rows and columns more at the bottom and right, below ``stride``: of the image sizes that
        the convolution takes to H, the smallest is the default.

    Returns
    -------
    array or Tensor, shape (..., H', W', C1)
        With ``H' = (H - 1) * stride - top - bottom + dilation * (h - 1) + 1 + output_padding``.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or nothing is left after ``padding`` is taken off.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x, w = np.ones((5, 7, 7, 8)), np.ones((2, 2, 1, 8))
    >>> tg.conv2d_transpose(x, w, stride=2).shape
    (5, 14, 14, 1)
    """
    x, w = _array(x), _array(w)
    _check_filters("conv2d_transpose", x, w, groups)
    if x.shape[-1] != w.shape[3]:
        raise ShapeError(
            f"conv2d_transpose: x {x.shape} has {x.shape[-1]} channels, w {w.shape} takes "
            f"{w.shape[3]}; want (..., H, W, C2) and (h, w, C1 / groups, C2)"
        )
    window = _window("conv2d_transpose", stride, padding, dilation)
    extra = _pair("conv2d_transpose", "output_padding", output_padding, least=0)
    shape = _transposed_image(x.shape[-3:-1], w.shape[:2], extra, **window)
    pairs = zip(_split(x, groups), _split(w, groups), strict=True)
    images = [conv_dx(part, filters, shape=shape, **window) for part, filters in pairs]
    y = images[0] if groups == 1 else concatenate(images, axis=-1)
    return y if b is None else add(y, _channel_bias("conv2d_transpose", b, w.shape[2] * groups))


def _transposed_image(image, size, extra, *, stride, padding, dilation):
    if any(e >= s for e, s in zip(extra, stride, strict=True)):
        raise ShapeError(f"conv2d_transpose: output_padding {extra} is not below stride {stride}")
    if padding == "same":
        if extra != (0, 0):
            raise ShapeError('conv2d_transpose: padding="same" leaves no room for output_padding')
        return image[0] * stride[0], image[1] * stride[1]
    sides = zip(image, size, stride, dilation, _both_sides(padding), extra, strict=True)
    full = [(n - 1) * s + d * (k - 1) + 1 - p + e for n, k, s, d, p, e in sides]
    if min(full) < 1:
        raise ShapeError(
            f"conv2d_transpose: padding {padding} leaves an image of {full[0]}x{full[1]}; pad less"
        )
    return full[0], full[1]


def _both_sides(padding):
    """Rows and columns that a padding other than "same" adds."""
    if padding == "valid":
        return 0, 0
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return tuple(2 * p if isinstance(p, int) else p[0] + p[1] for p in (rows, columns))


def _split(x, groups):
    """Split the last axis in order."""
    if groups == 1:
        return [x]
    n = x.shape[-1] // groups
    return [x[..., i * n : (i + 1) * n] for i in range(groups)]


def _check_filters(op, x, w, groups):
    if w.ndim != 4 or x.ndim < 3 or 0 in x.shape[-3:] or 0 in w.shape:
        raise ShapeError(
            f"{op}: x is {x.shape} and w {w.shape}; want (..., H, W, C) and (h, w, C1, C2)"
            + ("; add a channel axis with x[..., np.newaxis]" if x.ndim in (2, 3) else "")
        )
    if not isinstance(groups, int) or groups < 1 or w.shape[3] % groups:
        raise ShapeError(f"{op}: {w.shape[3]} filters do not split into groups={groups!r}")


def _channel_bias(op, b, channels):
    b = _array(b)
    if b.shape == (channels, 1):
        return reshape(b, (channels,))
    if b.shape != (channels,):
        raise ShapeError(f"{op}: b is {b.shape} for {channels} channels; want ({channels},)")
    return b


def _window(op, stride, padding, dilation):
    return {
        "stride": _pair(op, "stride", stride),
        "padding": _checked_padding(op, padding),
        "dilation": _pair(op, "dilation", dilation),
    }


def _pair(op, name, value, least=1):
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2 or not all(isinstance(n, _WHOLE) and n >= least for n in sides):
        raise ShapeError(f"{op}: {name} is {value!r}; want one or two whole numbers >= {least}")
    return int(sides[0]), int(sides[1])


def _checked_padding(op, padding):
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ShapeError(f'{op}: padding is {padding!r}; want "valid", "same" or numbers')
        return padding
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        rows, columns = (_pair(op, "padding", side, least=0) for side in padding)
        return rows, columns
    return _pair(op, "padding", padding, least=0)


# --- Pooling ----------------------------------------------------------------------------------


def _pool_call(draw):
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


def _spread_windows_call(draw):
    (g, _), params = _unpool_call(draw)
    return (g,), params


@primitive(
    domain=Domain("all reals, any window and stride", _pool_call),
    piece=lambda x, **window: hw5.pool_winners(x, **window),
    conventions="the first of equal entries gets the gradient",
)
def max_pool(x, *, size, stride):
    """The handout's ``pool2x2`` for any window: the largest entry of each."""
    return hw5.max_pool(x, size=size, stride=stride)


@primitive(domain=Domain("all reals, any winners", _pick_call))
def pick(x, winners, *, size, stride):
    """From each window the entry that ``winners`` names."""
    return hw5.pool_pick(x, winners, size=size, stride=stride)


@primitive(domain=Domain("all reals, any winners", _unpool_call))
def unpool(g, winners, *, shape, size, stride):
    """Adjoint of ``pick``: send each window's entry to its winner."""
    return hw5.max_unpool(g, winners, shape=shape, size=size, stride=stride)


pool_winners = constant(hw5.pool_winners)


@max_pool.rule(keeps="x")
def _(g, y, x, **window):
    winners = pool_winners(_value(x), **window)
    return (unpool(g, winners, shape=x.shape[-3:-1], **window),)


@pick.rule(keeps="winners")
def _(g, y, x, winners, **window):
    return unpool(g, winners, shape=x.shape[-3:-1], **window), None


@unpool.rule(keeps="winners")
def _(h, y, g, winners, *, shape, **window):
    return pick(h, winners, **window), None


@primitive(domain=Domain("all reals, any window and stride", _pool_call))
def sum_windows(x, *, size, stride):
    """Sum of each window."""
    y = 0
    for _, _, rows, columns in hw5.Window(x.shape, size, stride).taps():
        y = y + x[..., rows, columns, :]
    return y


@primitive(domain=Domain("all reals, any window and stride", _spread_windows_call))
def spread_windows(g, *, shape, size, stride):
    """Adjoint of ``sum_windows``: add each entry to all of its window."""
    y = np.zeros((*g.shape[:-3], *shape, g.shape[-1]), g.dtype)
    for _, _, rows, columns in hw5.Window(y.shape, size, stride).taps():
        y[..., rows, columns, :] += g
    return y


@sum_windows.rule
def _(g, y, x, **window):
    return (spread_windows(g, shape=x.shape[-3:-1], **window),)


@spread_windows.rule
def _(h, y, g, *, shape, **window):
    return (sum_windows(h, **window),)


def max_pool2d(x: Any, size: Pair, stride: Pair | None = None, padding: Padding = "valid") -> Any:
    """Largest entry of each window of images, channel by channel.

    The gradient of a window goes to its largest entry, to the first of equal ones, row-major.

    Parameters
    ----------
    x : array or Tensor, shape (..., H, W, C)
    size : int or (int, int)
        Rows and columns of a window.
    stride : int or (int, int), optional
        From one window to the next; by default ``size``. Rows and columns at the bottom and right
        that fill no whole window are left out.
    padding : as in :func:`conv2d`
        Around the image, narrower than a window. What is padded never wins.

    Returns
    -------
    array or Tensor, shape (..., H', W', C)

    Raises
    ------
    ShapeError
        If ``x`` is no image, or a window is larger than it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.max_pool2d(np.arange(16.0).reshape(4, 4, 1), 2)[..., 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    x = _array(x)
    border, window = _pool_window("max_pool2d", x, size, stride, padding)
    if border is not None:
        lowest = -math.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        x = index.pad(x, border, constant_values=lowest)
    return max_pool(x, **window)


def avg_pool2d(x: Any, size: Pair, stride: Pair | None = None, padding: Padding = "valid") -> Any:
    """Mean of each window of images, channel by channel.

    Parameters
    ----------
    x, size, stride, padding
        As in :func:`max_pool2d`. What is padded does not count: the mean is that of the entries
        inside the image.

    Returns
    -------
    array or Tensor, shape (..., H', W', C)

    Raises
    ------
    ShapeError
        If ``x`` is no image, or a window is larger than it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.avg_pool2d(np.arange(16.0).reshape(4, 4, 1), 2)[..., 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    x = _array(x)
    border, window = _pool_window("avg_pool2d", x, size, stride, padding)
    if border is None:
        return multiply(sum_windows(x, **window), 1 / math.prod(window["size"]))
    inside = np.ones((*x.shape[-3:-1], 1), x.dtype if x.dtype.kind == "f" else float)
    count = sum_windows(index.pad(inside, border[-3:]), **window)
    return sum_windows(index.pad(x, border), **window) / count


def _pool_window(op, x, size, stride, padding):
    """Give the border to pad with, None for none, and the parameters of the primitive."""
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ShapeError(
            f"{op}: x is {x.shape}; want (..., H, W, C)"
            + ("; add a channel axis with x[..., np.newaxis]" if x.ndim == 2 else "")
        )
    size = _pair(op, "size", size)
    stride = size if stride is None else _pair(op, "stride", stride)
    params = {"size": size, "stride": stride}
    padding = _checked_padding(op, padding)
    if padding == "valid":
        return None, params
    window = hw5.Window(x.shape, size, stride, padding)
    if window.before == window.after == (0, 0):
        return None, params
    if any(p >= k for ps in (window.before, window.after) for p, k in zip(ps, size, strict=True)):
        raise ShapeError(f"{op}: padding {padding!r} is not narrower than a window {size}")
    border = [(0, 0)] * x.ndim
    border[-3:-1] = zip(window.before, window.after, strict=True)
    return border, params


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
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[0]:
        hint = "; pass w.T" if w.ndim == 2 and x.ndim and x.shape[-1] == w.shape[1] else ""
        raise ShapeError(f"linear: x is {x.shape} and w {w.shape}; want (..., m) and (m, n){hint}")
    y = linalg.matmul(x, w)
    if b is None:
        return y
    b = _array(b)
    if b.shape != w.shape[1:]:
        raise ShapeError(f"linear: b is {b.shape} for w {w.shape}; want {w.shape[1:]}")
    return add(y, b)


def _standardize_call(draw):
    x = draw.array(domains.shape(draw, min_dims=1))
    axis = tuple(i for i in range(x.ndim) if draw.integer(0, 2)) or (-1,)
    return (x,), {"axis": axis, "eps": draw.choice([1.0, 0.25])}


@primitive(domain=Domain("all reals, any axis, eps > 0", _standardize_call))
def standardize(x, *, axis, eps):
    """Shift and scale to mean 0 and variance 1 (less for ``eps``) over the axes."""
    centred = x - x.mean(axis=axis, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=axis, keepdims=True) + eps)


@standardize.rule(keeps="y x")
def _(g, y, x, *, axis, eps):
    # Ioffe and Szegedy 2015, section 3, put together: the mean and the part along y drop out.
    def mean(v):
        return reduce.mean(v, axis=axis, keepdims=True)

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

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.batch_norm([[1.0, 5.0], [3.0, 5.0]], training=True, eps=0.0625).round(2)
    array([[-0.97,  0.  ],
           [ 0.97,  0.  ]])
    """
    x = _array(x)
    channels = x.shape[-1:]
    named = {"gamma": gamma, "beta": beta}
    if not training:
        named |= {"running_mean": running_mean, "running_var": running_var}
    for name, value in named.items():
        if value is None and name.startswith("running"):
            raise ValueError(f"batch_norm: {name} is None; pass it, or training=True")
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
    value = _value(_array(x))
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

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.layer_norm([[1.0, 3.0], [10.0, 30.0]], eps=0.0)
    array([[-1.,  1.],
           [-1.,  1.]])
    """
    x = _array(x)
    chosen = np.lib.array_utils.normalize_axis_tuple(axis, x.ndim)
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
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p is {p!r}; want a probability in [0, 1)")
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
    hot = _hot("one_hot", labels, n).astype(dtype)
    return _as_tensor(hot) if isinstance(labels, Handle) else hot


def _hot(op, labels, n):
    """One-hot rows, as booleans."""
    labels = _whole(op, "label", labels)
    hot = labels[..., np.newaxis] == np.arange(n)
    if np.count_nonzero(hot) != labels.size:
        raise _no_class(op, "label", labels, n)
    return hot


def _whole(op, name, values):
    values = as_array(_value(values))
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(
            f"{op}: each {name} must be a whole number, these are {values.dtype}; use .astype(int)"
        )
    return values.astype(int) if values.size == 0 else values


def _no_class(op, name, values, n):
    place = tuple(np.argwhere((values < 0) | (values >= n))[0].tolist())
    return IndexError(f"{op}: {name} {values[place]} at {place} is out of range; want 0 to {n - 1}")


# --- Losses -----------------------------------------------------------------------------------


def _cross_entropy_call(draw):
    shape = (*domains.shape(draw, max_dims=2), draw.integer(1, 4))
    y = draw.array(shape, 0, 1)
    if draw.integer(0, 1):
        y = np.arange(shape[-1]) == y.argmax(axis=-1)[..., np.newaxis]
    return (draw.array(shape), y), {"reduction": draw.choice(["mean", "sum", "none"])}


@primitive(
    name="softmax_cross_entropy", domain=Domain("all logits, targets >= 0", _cross_entropy_call)
)
def _cross_entropy(x, y, *, reduction):
    # The handout's loss, on rows. A boolean target is one-hot, and its class is picked.
    shifted = x - x.max(axis=-1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=-1))
    if y.dtype == bool:
        losses = losses - shifted[y].reshape(losses.shape)
    else:
        # A logit of -inf has probability 0: it costs nothing where the target does not want it.
        wanted = y * np.where(y == 0, 0, shifted)
        losses = losses * y.sum(axis=-1) - wanted.sum(axis=-1)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / losses.size


@_cross_entropy.rule(keeps="x y")
def _(g, _, x, y, *, reduction, needs):
    if reduction == "none":
        g = expand_dims(g, -1)
    elif reduction == "mean":
        g = g / math.prod(x.shape[:-1])
    dx = dy = None
    if needs[0]:
        p = reduce.softmax(x, axis=-1)
        if y.dtype != bool:
            p = p * reduce.sum(y, axis=-1, keepdims=True)
        dx = g * (p - y)
    if needs[1]:
        dy = -g * reduce.log_softmax(x, axis=-1)
    return dx, dy


def softmax_cross_entropy(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
    axis: int = -1,
) -> Any:
    """Cross-entropy of ``softmax(logits)`` against labels, without overflow.

    Parameters
    ----------
    logits : array or Tensor, shape (..., K)
    labels : array of int, shape (...), or array or Tensor, shape (..., K)
        A class for each row, or its target probabilities, as a rule one-hot. Constant targets take
        the dtype of the logits; those that require a gradient get theirs, ``-log_softmax(logits)``.
    label_smoothing : float
        Share in [0, 1] of the target that is spread evenly over the classes (Szegedy et al. 2016,
        section 7).
    reduction : "mean", "sum" or "none"
        Over the rows.
    axis : int
        Of the classes in ``logits``, and in ``labels`` if these are probabilities.

    Returns
    -------
    array or Tensor
        0-d, or of shape (...) without reduction.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    TypeError, IndexError
        If a class is no whole number, or not one of K.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> logits = tg.Tensor([[0.0, 0.0], [1000.0, 0.0]], requires_grad=True)
    >>> loss = tg.softmax_cross_entropy(logits, [0, 1], reduction="sum")
    >>> loss.backward()
    >>> print(loss.item().__round__(4), logits.grad.tolist())
    1000.6931 [[-0.5, 0.5], [1.0, -1.0]]
    """
    op = "softmax_cross_entropy"
    x, y = _array(logits), _array(labels)
    if x.shape == y.shape:
        x, y = _rows(op, x, axis), _rows(op, _constant_like(y, x), axis)
        if not _tracked(y) and _value(y).min(initial=0) < 0:
            raise ValueError(f"{op}: a target is negative; want probabilities")
    else:
        x = _rows(op, x, axis)
        y = _classes(op, y, x)
    if label_smoothing:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"{op}: label_smoothing is {label_smoothing!r}; want one in [0, 1]")
        y = y.astype(x.dtype) if y.dtype == bool else y
        y = y * (1 - label_smoothing) + label_smoothing / x.shape[-1]
    _check_reduction(op, reduction, math.prod(x.shape[:-1]))
    return _cross_entropy(x, y, reduction=reduction)


def nll_loss(log_probs: Any, labels: Any, *, reduction: Reduction = "mean", axis: int = -1) -> Any:
    """Negative log-likelihood: minus the entry of ``log_probs`` at each label.

    Parameters
    ----------
    log_probs : array or Tensor, shape (..., K)
        Such as ``log_softmax(logits)``.
    labels : array of int, shape (...)
    reduction : "mean", "sum" or "none"
        Over the rows.
    axis : int
        Of the classes.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    TypeError, IndexError
        If a class is no whole number, or not one of K.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.nll_loss([[-1.0, -2.0], [-3.0, -4.0]], [0, 1])
    array(2.5)
    """
    x = _rows("nll_loss", _array(log_probs), axis)
    hot = _classes("nll_loss", labels, x)
    return _reduced("nll_loss", negative(reshape(x[hot], x.shape[:-1])), reduction)


def mse_loss(prediction: Any, target: Any, *, reduction: Reduction = "mean") -> Any:
    """Squared error.

    Parameters
    ----------
    prediction, target : arrays or Tensors of one shape
        Nothing is broadcast. A constant target takes the dtype of the prediction.
    reduction : "mean", "sum" or "none"
        Over all entries.

    Raises
    ------
    ShapeError
        If the shapes differ.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.mse_loss([1.0, 2.0], [1.0, 4.0])
    array(2.)
    """
    x, t = _matched("mse_loss", prediction, target)
    return _reduced("mse_loss", square(subtract(x, t)), reduction)


def l1_loss(prediction: Any, target: Any, *, reduction: Reduction = "mean") -> Any:
    """Absolute error; parameters as in :func:`mse_loss`.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.l1_loss([1.0, 2.0], [1.0, 4.0])
    array(1.)
    """
    x, t = _matched("l1_loss", prediction, target)
    return _reduced("l1_loss", absolute(subtract(x, t)), reduction)


def huber_loss(
    prediction: Any, target: Any, *, delta: float = 1.0, reduction: Reduction = "mean"
) -> Any:
    """Half the squared error up to ``delta``, linear beyond (Huber 1964).

    Parameters
    ----------
    prediction, target, reduction
        As in :func:`mse_loss`.
    delta : float
        Positive.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ValueError
        If ``delta`` is not positive.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.huber_loss([0.0, 0.0], [1.0, 4.0], reduction="none")
    array([0.5, 3.5])
    """
    if not delta > 0:
        raise ValueError(f"huber_loss: delta is {delta!r}; want a positive number")
    x, t = _matched("huber_loss", prediction, target)
    error = subtract(x, t)
    near = clip(error, -delta, delta)
    return _reduced("huber_loss", near * (error - near * 0.5), reduction)


def binary_cross_entropy_with_logits(
    logits: Any, targets: Any, *, pos_weight: Any = None, reduction: Reduction = "mean"
) -> Any:
    """Cross-entropy of ``sigmoid(logits)`` against targets in [0, 1], without overflow.

    Parameters
    ----------
    logits, targets : arrays or Tensors of one shape
        Nothing is broadcast. Constant targets take the dtype of the logits.
    pos_weight : float, array or Tensor, broadcastable to ``logits``, optional
        Weight of the targets 1 against the targets 0.
    reduction : "mean", "sum" or "none"
        Over all entries.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ValueError
        If a target is not in [0, 1].

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.binary_cross_entropy_with_logits([-1000.0, -1000.0], [0, 1], reduction="none")
    array([   0., 1000.])
    """
    op = "binary_cross_entropy_with_logits"
    x, t = _matched(op, logits, targets)
    value = _value(t)
    if value.size and not 0 <= value.min() <= value.max() <= 1:
        raise ValueError(f"{op}: a target is not in [0, 1]; labels -1 and 1 become (t + 1) / 2")
    # -log sigmoid(x) = softplus(-x), and -log(1 - sigmoid(x)) is x more: nothing cancels.
    negative_log = softplus(negative(x))
    if pos_weight is not None:
        weight = _constant_like(_array(pos_weight), x)
        if np.broadcast_shapes(weight.shape, x.shape) != x.shape:
            raise ShapeError(f"{op}: pos_weight is {weight.shape} for logits {x.shape}")
        negative_log = negative_log * (1 + (weight - 1) * t)
    return _reduced(op, (1 - t) * x + negative_log, reduction)


def kl_div(log_probs: Any, target: Any, *, reduction: Reduction = "mean", axis: int = -1) -> Any:
    """Kullback-Leibler divergence ``sum(target * (log(target) - log_probs))`` along an axis.

    Parameters
    ----------
    log_probs : array or Tensor, shape (..., K)
        Logarithms of the model's probabilities q, such as ``log_softmax(logits)``.
    target : array or Tensor, shape (..., K)
        Probabilities p, not their logarithms; 0 log 0 is 0, with gradient 0.
    reduction : "mean", "sum" or "none"
        Over the rows, so that the mean is the mean of KL(p || q).
    axis : int
        Of the classes.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ValueError
        If a target is negative.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> print(tg.kl_div(np.log([[0.5, 0.5]]), [[1.0, 0.0]]).round(4))
    0.6931
    """
    x, t = _matched("kl_div", log_probs, target)
    if _value(t).min(initial=0) < 0:
        raise ValueError("kl_div: a target is negative; want probabilities, not their logarithms")
    zero = np.equal(_value(t), 0)
    ratio = subtract(log(where(zero, 1, t)), where(zero, 0, x))
    return _reduced("kl_div", reduce.sum(t * ratio, axis=axis), reduction)


def _rows(op, x, axis):
    """Bring the axis of the classes to the end."""
    if axis != -1:
        axis = np.lib.array_utils.normalize_axis_index(axis, x.ndim)
        x = transpose(x, (*range(axis), *range(axis + 1, x.ndim), axis))
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ShapeError(f"{op}: got shape {x.shape}; want (..., K) with at least one class")
    return x


def _classes(op, labels, x):
    """Check class indices against rows (..., K); give them one-hot, as booleans."""
    labels = as_array(_value(labels))
    if labels.shape != x.shape[:-1]:
        hint = ""
        if labels.shape == (*x.shape[:-1], 1):
            hint = "; drop the last axis with labels[..., 0]"
        raise ShapeError(
            f"{op}: labels are {labels.shape} for {x.shape[:-1]} rows of {x.shape[-1]} classes; "
            f"want class indices {x.shape[:-1]} or probabilities {x.shape}{hint}"
        )
    return _hot(op, labels, x.shape[-1])


def _matched(op, prediction, target):
    """Check that the shapes are equal; give a constant target the dtype of the prediction."""
    x, t = _array(prediction), _array(target)
    if x.shape != t.shape:
        raise ShapeError(
            f"{op}: prediction is {x.shape}, target {t.shape}; want equal shapes, since "
            "broadcasting would compare every pair; use reshape"
        )
    return x, _constant_like(t, x)


def _constant_like(t, x):
    """Give a constant the dtype of ``x``, so that it does not promote it."""
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(float)
    if _tracked(t) or t.dtype == dtype:
        return t
    return _value(t).astype(dtype)


def _reduced(op, losses, reduction):
    _check_reduction(op, reduction, losses.size)
    if reduction == "none":
        return losses
    return reduce.sum(losses) if reduction == "sum" else reduce.mean(losses)


def _check_reduction(op, reduction, n):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{op}: reduction is {reduction!r}; want "mean", "sum" or "none"')
    if n == 0 and reduction == "mean":
        raise ShapeError(f'{op}: the batch is empty and has no mean; use reduction="sum"')


def _array(x):
    return x if isinstance(x, Handle) else as_array(x)


def _tracked(x):
    return isinstance(x, Handle) and x._node is not None


__all__ = [
    "avg_pool2d",
    "batch_norm",
    "batch_statistics",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "conv2d_transpose",
    "dropout",
    "embedding",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "linear",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "one_hot",
    "softmax_cross_entropy",
]
