"""Primitives that move entries without computing with them, and the pair that undoes broadcasting.

``expand`` repeats, ``sum_to`` adds up what was repeated: each is the other's adjoint. The engine
applies ``sum_to`` wherever a cotangent is larger than the input that it belongs to; this is the one
place that knows about broadcasting.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import domains
from ..errors import ShapeError
from ..graph import Handle, primitive
from .elementwise import where

Shape = int | Sequence[int]

__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concatenate",
    "expand",
    "expand_dims",
    "matrix_transpose",
    "moveaxis",
    "ravel",
    "reshape",
    "squeeze",
    "stack",
    "sum_to",
    "swapaxes",
    "tile",
    "transpose",
    "tril",
    "triu",
]


# --- Broadcasting and its undoing -------------------------------------------------------------


def _expand_call(draw):
    small, large = domains.broadcastable(draw, 2)[::-1]
    return (draw.array(small),), {"shape": large}


@primitive(domain=domains.Domain("all reals", _expand_call), view=True)
def expand(x, *, shape):
    """Broadcast to a larger shape, without copying."""
    return np.broadcast_to(x, shape)


@expand.rule
def _(g, y, x, *, shape):
    return (sum_to(g, shape=x.shape),)


def _sum_to_call(draw):
    small, large = domains.broadcastable(draw, 2)[::-1]
    return (draw.array(large),), {"shape": small}


@primitive(domain=domains.Domain("all reals", _sum_to_call))
def sum_to(x, *, shape):
    """Sum over the axes along which ``shape`` was broadcast to the shape of ``x``."""
    lead = x.ndim - len(shape)
    stretched = [lead + i for i, side in enumerate(shape) if side == 1 != x.shape[lead + i]]
    if lead < 0 or any(side not in (1, x.shape[lead + i]) for i, side in enumerate(shape)):
        raise ShapeError(
            f"a cotangent of shape {x.shape} does not belong to an input of shape {shape}; "
            "the rule must return one of the input's shape, or of one it broadcasts to"
        )
    return x.sum(axis=(*range(lead), *stretched), keepdims=True).reshape(shape)


@sum_to.rule
def _(g, y, x, *, shape):
    return (expand(g, shape=x.shape),)


# --- Reordering -------------------------------------------------------------------------------


def _reshape_call(draw):
    shape = domains.shape(draw)
    return (draw.array(shape),), {"shape": draw.choice([(-1,), shape[::-1], (1, *shape)])}


@primitive(name="reshape", domain=domains.Domain("all reals", _reshape_call), view=True)
def _reshape(x, *, shape):
    return np.reshape(x, shape)


@_reshape.rule
def _(g, y, x, *, shape):
    return (_reshape(g, shape=x.shape),)


def reshape(x: Any, *shape: Any) -> Any:
    """Give the same entries in another shape; one side may be -1.

    Parameters
    ----------
    x : array or Tensor
    *shape : ints, or one sequence of ints

    Raises
    ------
    ShapeError
        If the sizes differ.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.reshape(np.arange(6.0), (2, -1)).shape
    (2, 3)
    """
    return _reshape(x, shape=_sides(shape))


def _sides(given: tuple[Any, ...]) -> tuple[int, ...]:
    sides = given[0] if len(given) == 1 and np.ndim(given[0]) else given
    return tuple(operator.index(side) for side in sides)


def ravel(x: Any) -> Any:
    """Give the entries as a vector, row by row.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.ravel(np.ones((2, 3))).shape
    (6,)
    """
    return reshape(x, -1)


def broadcast_to(x: Any, shape: Shape) -> Any:
    """Repeat along axes of length 1, or missing in front, up to a shape.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.broadcast_to(np.ones((2, 1)), (3, 2, 4)).shape
    (3, 2, 4)
    """
    sides = _sides((shape,))
    try:
        return expand(x, shape=sides)
    except ShapeError as error:
        raise ShapeError(
            f"broadcast_to: {np.shape(x)} does not broadcast to {sides}; want equal sides, or "
            "sides of 1, aligned at the right"
        ) from error


def broadcast_arrays(*xs: Any) -> list[Any]:
    """Broadcast arguments to their common shape.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> [x.shape for x in tg.broadcast_arrays(np.ones((2, 1)), np.ones(3))]
    [(2, 3), (2, 3)]
    """
    shapes = [np.shape(x) for x in xs]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(
            f"broadcast_arrays: shapes {' and '.join(map(str, shapes))} do not broadcast; want "
            "equal sides, or sides of 1"
        ) from error
    return [broadcast_to(x, shape) for x in xs]


def expand_dims(x: Any, axis: Shape) -> Any:
    """Insert axes of length 1 at the places ``axis`` of the result.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.expand_dims(np.zeros((2, 3)), (0, -1)).shape
    (1, 2, 3, 1)
    """
    return reshape(x, np.expand_dims(np.broadcast_to(0, np.shape(x)), axis).shape)


def squeeze(x: Any, axis: Shape | None = None) -> Any:
    """Leave out axes of length 1; all of them without ``axis``.

    Raises
    ------
    ShapeError
        If an axis has another length.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.squeeze(np.zeros((1, 2, 1)), 0).shape
    (2, 1)
    """
    shape = np.shape(x)
    if axis is None:
        return reshape(x, [side for side in shape if side != 1])
    chosen = normalize_axis_tuple(axis, len(shape))
    if any(shape[i] != 1 for i in chosen):
        raise ShapeError(f"squeeze: axis {axis} of shape {shape} is longer than 1")
    return reshape(x, [side for i, side in enumerate(shape) if i not in chosen])


def tile(x: Any, reps: Shape) -> Any:
    """Lay copies of ``x`` side by side, ``reps`` along each axis.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.tile(np.array([1.0, 2.0]), 2)
    array([1., 2., 1., 2.])
    """
    counts = _sides((reps,))
    ndim = builtins.max(len(counts), np.ndim(x))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - np.ndim(x)) + np.shape(x)
    pairs = list(zip(counts, shape, strict=True))
    apart = reshape(x, [side for _, n in pairs for side in (1, n)])
    repeated = broadcast_to(apart, [side for pair in pairs for side in pair])
    return reshape(repeated, [count * n for count, n in pairs])


def _transpose_call(draw):
    shape = domains.shape(draw)
    order = list(range(len(shape)))
    for i in range(len(order) - 1):
        j = draw.integer(i, len(order) - 1)
        order[i], order[j] = order[j], order[i]
    return (draw.array(shape),), {"axes": tuple(order)}


@primitive(name="transpose", domain=domains.Domain("all reals", _transpose_call), view=True)
def _transpose(x, *, axes):
    return np.transpose(x, axes)


@_transpose.rule
def _(g, y, x, *, axes):
    back = None if axes is None else np.argsort([axis % len(axes) for axis in axes])
    return (_transpose(g, axes=back),)


def transpose(x: Any, *axes: Any) -> Any:
    """Permute the axes; without ``axes``, reverse them.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.transpose(np.zeros((2, 3, 4)), (0, 2, 1)).shape
    (2, 4, 3)
    """
    if not axes or axes == (None,):
        return _transpose(x, axes=None)
    return _transpose(x, axes=_sides(axes))


def moveaxis(x: Any, source: Shape, destination: Shape) -> Any:
    """Move axes to other places; the rest keep their order.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.moveaxis(np.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    ndim = np.ndim(x)
    places = normalize_axis_tuple(destination, ndim, "destination")
    moved = normalize_axis_tuple(source, ndim, "source")
    if len(places) != len(moved):
        raise ShapeError(f"moveaxis: {len(moved)} axes to {len(places)} places; want as many")
    order = [axis for axis in range(ndim) if axis not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return transpose(x, order)


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Exchange two axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.swapaxes(np.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    order = list(range(np.ndim(x)))
    one, two = normalize_axis_tuple((axis1,), len(order)) + normalize_axis_tuple(
        (axis2,), len(order)
    )
    order[one], order[two] = order[two], order[one]
    return transpose(x, order)


def matrix_transpose(x: Any) -> Any:
    """Exchange the last two axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.matrix_transpose(np.zeros((2, 3, 4))).shape
    (2, 4, 3)
    """
    return swapaxes(x, -1, -2)


# --- Joining ----------------------------------------------------------------------------------


def _concatenate_call(draw):
    shape = domains.shape(draw, min_dims=1)
    axis = draw.integer(0, len(shape) - 1)
    sides = [draw.integer(1, 3) for _ in range(draw.integer(1, 3))]
    parts = [draw.array((*shape[:axis], side, *shape[axis + 1 :])) for side in sides]
    return tuple(parts), {"axis": axis}


@primitive(name="concatenate", domain=domains.Domain("all reals", _concatenate_call))
def _concatenate(*parts, axis):
    return np.concatenate(parts, axis=axis)


@_concatenate.rule
def _(g, y, *parts, axis):
    axis %= g.ndim
    ends = np.cumsum([part.shape[axis] for part in parts]).tolist()
    before = (slice(None),) * axis
    return tuple(
        g[(*before, slice(start, end))] for start, end in zip([0, *ends], ends, strict=False)
    )


def concatenate(parts: Sequence[Any], axis: int = 0) -> Any:
    """Join tensors along an axis that they have.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.concatenate([np.zeros((1, 2)), np.ones((2, 2))]).shape
    (3, 2)
    """
    if isinstance(parts, (Handle, np.ndarray)):
        parts = list(parts)
    if len(parts) == 0:
        raise ShapeError("concatenate: got no tensors; want at least one")
    return _concatenate(*parts, axis=axis)


def stack(parts: Sequence[Any], axis: int = 0) -> Any:
    """Join tensors of one shape along a new axis.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.stack([np.zeros(3), np.ones(3)], axis=1).shape
    (3, 2)
    """
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1:
        raise ShapeError(f"stack: shapes {', '.join(map(str, sorted(shapes)))}; want equal ones")
    return concatenate([expand_dims(part, axis) for part in parts], axis)


def tril(x: Any, k: int = 0) -> Any:
    """Lower triangle of matrices (..., n, m), zeros above the k-th diagonal.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.tril(np.ones((2, 2)))
    array([[1., 0.],
           [1., 1.]])
    """
    return where(_triangle(x, "tril", k), x, 0)


def triu(x: Any, k: int = 0) -> Any:
    """Upper triangle of matrices (..., n, m), zeros below the k-th diagonal.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.triu(np.ones((2, 2)))
    array([[1., 1.],
           [0., 1.]])
    """
    return where(_triangle(x, "triu", k - 1), 0, x)


def _triangle(x: Any, op: str, k: int) -> Any:
    shape = np.shape(x)
    if len(shape) < 2:
        raise ShapeError(f"{op}: got shape {shape}; want matrices (..., n, m)")
    return np.tri(shape[-2], shape[-1], k=k, dtype=bool)
