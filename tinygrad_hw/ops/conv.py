"""Convolution and pooling, in the handout's layout: images (..., H, W, C), filters (h, w, C1, C2).

The kernels are those of ``hw5.py``. Convolution is bilinear in images and filters, so its three
kernels are closed: each is differentiated by the other two. Max-pooling picks an entry of each
window; at fixed winners picking is linear, and ``unpool`` is its adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dispatch import constant, primitive
from ..domains import Domain
from ..errors import ShapeError
from ..graph import value_of
from ..kernels import hw5
from . import moving
from .constants import _array, _real
from .elementwise import add, multiply
from .shape import concatenate, reshape

Pair = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]

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
    return (*x[:-3], *hw5.windows_on(x, w[:2], stride, padding, dilation).out, w[3])


def _patches_nbytes(x, w, *, stride, padding, dilation):
    window = hw5.windows_on(x.shape, w.shape[:2], stride, padding, dilation)
    return window.patches_nbytes(x.shape[-1], math.prod(x.shape[:-3]), x.itemsize)


def _conv_and_patches(x, w, *, needs, **window):
    """The convolution, and the patches that the gradient of the filters needs again.

    Many are made again, in parts: memory costs more than the copy.
    """
    if not needs[1] or _patches_nbytes(x, w, **window) > hw5.LARGE:
        return hw5.correlate(x, w, **window), None
    taps = hw5.patches(x, size=w.shape[:2], **window)
    return hw5.correlate(x, w, taps=taps, **window), taps


@primitive(
    domain=Domain("all reals, any stride, padding and dilation", _conv_call),
    residual=_conv_and_patches,
)
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
def _(g, y, x, w, taps=None, *, needs, **window):
    dx = dw = None
    if needs[0]:
        dx = conv_dx(g, w, shape=x.shape[-3:-1], **window)
    if needs[1] and taps is not None:
        dw = hw5.correlate_dw(g, x, size=w.shape[:2], taps=taps, **window)
    elif needs[1]:
        dw = conv_dw(g, x, size=w.shape[:2], **window)
    return dx, dw


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
            + ("; use tg.moveaxis(x, -3, -1)" if x.shape[-3] == c1 * groups else "")
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
    if not isinstance(groups, _WHOLE) or groups < 1 or w.shape[3] % groups:
        raise ShapeError(f"{op}: {w.shape[3]} filters do not split into groups={groups!r}")


def _channel_bias(op, b, channels):
    b = _array(b)
    if b.shape == (channels, 1):
        return reshape(b, (channels,))
    if b.shape != (channels,):
        raise ShapeError(f"{op}: b is {b.shape} for {channels} channels; want ({channels},)")
    return b


def _window(op: str, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
    return {
        "stride": _pair(op, "stride", stride),
        "padding": _checked_padding(op, padding),
        "dilation": _pair(op, "dilation", dilation),
    }


def _pair(op: str, name: str, value: Any, least: int = 1) -> tuple[int, int]:
    if type(value) is int and value >= least:
        return value, value
    sides = value if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    if len(sides) != 2 or not all(isinstance(n, _WHOLE) and n >= least for n in sides):
        raise ShapeError(f"{op}: {name} is {value!r}; want one or two whole numbers >= {least}")
    return int(sides[0]), int(sides[1])


def _checked_padding(op, padding):
    if isinstance(padding, str):
        if padding not in ("valid", "same"):
            raise ShapeError(f'{op}: padding is {padding!r}; want "valid", "same" or numbers')
        return padding
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != 2:
            raise ShapeError(
                f"{op}: padding is {padding!r}; want ((top, bottom), (left, right)), without the "
                "axes of images and channels"
            )
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


@max_pool.rule(keeps="y x")
def _(g, y, x, **window):
    if type(g) is type(x) is np.ndarray:
        # The same in one step, for a gradient of order 1.
        return (hw5.max_pool_dx(g, x, y, **window),)
    winners = pool_winners(value_of(x), value_of(y), **window)
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
    for _, _, rows, columns in hw5.windows_on(x.shape, size, stride).taps:
        y = y + x[..., rows, columns, :]
    return y


@primitive(domain=Domain("all reals, any window and stride", _spread_windows_call))
def spread_windows(g, *, shape, size, stride):
    """Adjoint of ``sum_windows``: add each entry to all of its window."""
    y = np.zeros((*g.shape[:-3], *shape, g.shape[-1]), g.dtype)
    for _, _, rows, columns in hw5.windows_on(y.shape, size, stride).taps:
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

    The gradient of a window goes to its largest entry, to the first of equal ones, row-major; of a
    window that holds NaN, it goes to the last entry.

    Parameters
    ----------
    x : array or Tensor, shape (..., H, W, C)
    size : int or (int, int)
        Rows and columns of a window.
    stride : int or (int, int), optional
        From one window to the next; by default ``size``. Rows and columns at the bottom and right
        that fill no whole window are left out.
    padding : as in :func:`conv2d`
        Around the image, narrower than a window. What is padded is smaller than any number; it
        ties with -inf.

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
        x = moving.pad(x, border, constant_values=_lowest(x.dtype))
    return max_pool(x, **window)


def _lowest(dtype):
    if dtype.kind == "b":
        return False
    return -math.inf if dtype.kind == "f" else np.iinfo(dtype).min


def avg_pool2d(x: Any, size: Pair, stride: Pair | None = None, padding: Padding = "valid") -> Any:
    """Mean of each window of images, channel by channel.

    Parameters
    ----------
    x, size, stride, padding
        As in :func:`max_pool2d`. What is padded does not count: the mean is that of the entries
        inside the image. Whole numbers count as floats.

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
    x = _real(x)
    border, window = _pool_window("avg_pool2d", x, size, stride, padding)
    if border is None:
        return multiply(sum_windows(x, **window), 1 / math.prod(window["size"]))
    inside = np.ones((*x.shape[-3:-1], 1), x.dtype)
    count = sum_windows(moving.pad(inside, border[-3:]), **window)
    return sum_windows(moving.pad(x, border), **window) / count


def _pool_window(op, x, size, stride, padding):
    """Give the border to pad with, None for none, and the parameters of the primitive."""
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ShapeError(
            f"{op}: x is {x.shape}; want (..., H, W, C)"
            + ("; add a channel axis with x[..., np.newaxis]" if x.ndim == 2 else "")
        )
    size, stride, padding = _pooling(op, size, stride, padding)
    params = {"size": size, "stride": stride}
    if padding == "valid":
        return None, params
    try:
        window = hw5.windows_on(x.shape, size, stride, padding)
    except ValueError as error:
        raise ShapeError(f"{op}: {error}") from None
    if window.before == window.after == (0, 0):
        return None, params
    if any(p >= k for ps in (window.before, window.after) for p, k in zip(ps, size, strict=True)):
        raise ShapeError(f"{op}: padding {padding!r} is not narrower than a window {size}")
    border = [(0, 0)] * x.ndim
    border[-3:-1] = zip(window.before, window.after, strict=True)
    return border, params


def _pooling(op: str, size: Any, stride: Any, padding: Any) -> tuple[Any, Any, Any]:
    size = _pair(op, "size", size)
    stride = size if stride is None else _pair(op, "stride", stride)
    return size, stride, _checked_padding(op, padding)


__all__ = ["avg_pool2d", "conv2d", "conv2d_transpose", "max_pool2d"]
