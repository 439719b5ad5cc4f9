"""Moving entries to places known beforehand, by reading or writing at fixed indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..errors import ShapeError, with_graph
from ..graph import Handle, value_of
from .index import _checked_axis, _getitem, _scatter_add, _setitem, take
from .shape import _reshape, _whole_number, axes_of


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Any:
    """Reverse the order along some axes; along all of them without ``axis``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.flip(np.array([1.0, 2.0]))
    array([2., 1.])
    """
    ndim = np.ndim(value_of(x))
    flipped = range(ndim) if axis is None else axes_of("flip", axis, ndim)
    return _getitem(
        x, index=tuple(slice(None, None, -1 if i in flipped else 1) for i in range(ndim))
    )


def _roll_call(draw):
    x = draw.array(domains.shape(draw, min_dims=1))
    axis = tuple(draw.integer(0, x.ndim - 1) for _ in range(draw.integer(1, 2)))
    return (x,), {"shift": tuple(draw.integer(-5, 5) for _ in axis), "axis": axis}


@primitive(name="roll", domain=domains.Domain("all reals", _roll_call))
def _roll(x, *, shift, axis):
    # As NumPy's function does it, in a third of the time for few entries.
    for step, i in zip(shift, axis, strict=True):
        step %= max(x.shape[i], 1)
        lead = (slice(None),) * i
        ends = x[(*lead, slice(-step, None))], x[(*lead, slice(None, -step))]
        x = np.concatenate(ends, axis=i)
    return x


@_roll.rule
def _(g, y, x, *, shift, axis):
    return (_roll(g, shift=tuple(-step for step in shift), axis=axis),)


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Any:
    """Move entries along some axes; what leaves at the end comes in at the front.

    Parameters
    ----------
    x : array or Tensor
    shift : int or sequence of int
    axis : int, sequence of int or None
        None rolls the flattened tensor.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.roll(np.array([1.0, 2.0, 3.0]), 1)
    array([3., 1., 2.])
    """
    shape = np.shape(value_of(x))
    _check_whole("roll", "shift", shift)
    if axis is None:
        return _reshape(roll(_reshape(x, shape=(-1,)), shift, 0), shape=shape)
    axes = axes_of("roll", axis, len(shape), allow_duplicate=True)
    if len(axes) != np.size(shift) and 1 not in (len(axes), np.size(shift)):
        raise ShapeError(f"roll: got {np.size(shift)} shifts for {len(axes)} axes; want as many")
    steps = [(int(step), int(i)) for step, i in np.broadcast(shift, axes)]
    if not steps:
        return x
    return _roll(x, shift=tuple(s for s, _ in steps), axis=tuple(i for _, i in steps))


def repeat(x: Any, repeats: int | Sequence[int], axis: int | None = None) -> Any:
    """Repeat each entry; ``repeats`` is one number, or one for each place along the axis.

    Parameters
    ----------
    x : array or Tensor
    repeats : int or sequence of int
    axis : int or None
        None repeats the entries of the flattened tensor.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.repeat(np.array([1.0, 2.0]), [2, 1])
    array([1., 1., 2.])
    """
    if axis is None:
        x, axis = _reshape(x, shape=(-1,)), 0
    side, repeats = np.shape(value_of(x))[_checked_axis("repeat", axis, x)], value_of(repeats)
    _check_whole("repeat", "repeats", repeats)
    if np.min(repeats, initial=0) < 0:
        raise ShapeError(f"repeat: repeats is {repeats}; want no negative number")
    if np.ndim(repeats) > 1 or np.size(repeats) not in (1, side):
        raise ShapeError(
            f"repeat: got {np.shape(repeats)} repeats for {side} places; want 1 or ({side},)"
        )
    return take(x, np.repeat(np.arange(side), repeats), axis=axis)


def split(x: Any, indices_or_sections: int | Sequence[int], axis: int = 0) -> list[Any]:
    """Cut into parts along an axis: into so many equal ones, or before the given places.

    Raises
    ------
    ShapeError
        If the axis does not divide into equal parts.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> [part.shape for part in tg.split(np.zeros((6, 2)), [1, 3])]
    [(1, 2), (2, 2), (3, 2)]
    """
    axis = _checked_axis("split", axis, x)
    side = np.shape(value_of(x))[axis]
    if np.ndim(indices_or_sections) == 0:
        parts = _whole_number("split", "indices_or_sections", indices_or_sections)
        if parts < 1 or side % parts:
            raise ShapeError(f"split: {side} entries do not divide into {parts} equal parts")
        places = list(range(side // parts, side, side // parts)) if side else [0] * (parts - 1)
    else:
        places = [_whole_number("split", "a place", i) for i in indices_or_sections]  # type: ignore[union-attr]
    before = (slice(None),) * axis
    bounds = zip([0, *places], [*places, side], strict=True)
    return [_getitem(x, index=(*before, slice(start, end))) for start, end in bounds]


def diag(x: Any, k: int = 0) -> Any:
    """Give the k-th diagonal of a matrix, or the matrix that has a vector as its k-th diagonal.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.diag(np.array([1.0, 2.0]))
    array([[1., 0.],
           [0., 2.]])
    """
    shape, k = np.shape(value_of(x)), _whole_number("diag", "k", k)
    if len(shape) == 1:
        n = shape[0] + abs(k)
        rows = np.arange(shape[0]) + max(-k, 0)
        return _scatter_add(x, index=(rows, rows + k), shape=(n, n))
    if len(shape) != 2:
        raise ShapeError(f"diag: got shape {shape}; want a vector or a matrix")
    return _getitem(x, index=_diagonal_places(shape, k))


def trace(x: Any, offset: int = 0) -> Any:
    """Sum of a diagonal of matrices in the last two axes (..., n, m).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.trace(np.eye(3))
    array(3.)
    """
    from .reduce import sum as sum_

    shape = np.shape(value_of(x))
    if len(shape) < 2:
        raise ShapeError(f"trace: got shape {shape}; want matrices (..., n, m)")
    offset = _whole_number("trace", "offset", offset)
    return sum_(_getitem(x, index=(..., *_diagonal_places(shape[-2:], offset))), axis=-1)


def _diagonal_places(shape, k):
    length = max(min(shape[0] + min(k, 0), shape[1] - max(k, 0)), 0)
    rows = np.arange(length) + max(-k, 0)
    return rows, rows + k


def pad(x: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0.0) -> Any:
    """Surround by a border.

    Parameters
    ----------
    x : array or Tensor
    pad_width : int, (before, after) or one such pair an axis
    mode : "constant", "edge" or "reflect"
        What the border holds: one value, the outermost entries, or the inner ones mirrored.
    constant_values : float, (before, after) or one such pair an axis

    Raises
    ------
    ShapeError
        If the widths are negative, they or the values do not fit, or there is too little to mirror.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.pad(np.array([1.0, 2.0, 3.0]), 2, mode="reflect")
    array([3., 2., 1., 2., 3., 2., 1.])
    """
    shape = np.shape(value_of(x))
    _check_whole("pad", "pad_width", pad_width)
    try:
        widths = np.broadcast_to(pad_width, (len(shape), 2)).tolist()
    except ValueError:
        raise ShapeError(
            f"pad: pad_width {pad_width} does not fit {len(shape)} axes; want one pair an axis"
        ) from None
    if any(n < 0 for pair in widths for n in pair):
        raise ShapeError(f"pad: pad_width is {pad_width}; want no negative number")
    if mode == "constant":
        inner = tuple(slice(b, b + n) for (b, _), n in zip(widths, shape, strict=True))
        dtype = getattr(value_of(x), "dtype", None) or np.asarray(x).dtype
        return _setitem(_surroundings(shape, widths, constant_values, dtype), x, index=inner)
    if mode not in ("edge", "reflect"):
        raise with_graph(ValueError)(f"pad: mode is {mode!r}; want 'constant', 'edge' or 'reflect'")
    if np.any(constant_values):
        raise with_graph(ValueError)(
            f"pad: constant_values={constant_values!r} with mode={mode!r}; leave one of them out"
        )
    for axis, (pair, n) in enumerate(zip(widths, shape, strict=True)):
        if any(pair):
            if n == 0 or (mode == "reflect" and n == 1):
                raise ShapeError(f"pad: axis {axis} of shape {shape} has nothing to {mode}")
            x = take(x, np.pad(np.arange(n), pair, mode=mode), axis=axis)  # type: ignore[call-overload]
    return x


def _check_whole(op, name, values):
    if np.size(values) and np.asarray(values).dtype.kind not in "iu":
        raise with_graph(TypeError)(f"{op}: {name} is {values!r}; want whole numbers")


def _surroundings(shape, widths, values, dtype):
    """The padded array, still without what it surrounds."""
    if isinstance(values, Handle) and values._node is not None:
        raise with_graph(TypeError)("pad: constant_values require a gradient; use concatenate")
    if np.ndim(values) == 0:
        full = [b + n + a for (b, a), n in zip(widths, shape, strict=True)]
        return np.full(full, values, dtype)
    try:
        return np.pad(np.zeros(shape, dtype), widths, constant_values=values)
    except ValueError:
        raise ShapeError(
            f"pad: constant_values {values} does not fit {len(shape)} axes; want one pair an axis"
        ) from None


__all__ = ["diag", "flip", "pad", "repeat", "roll", "split", "trace"]
