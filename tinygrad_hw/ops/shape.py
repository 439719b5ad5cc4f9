"""Primitives that move entries without computing with them, and the pair that undoes broadcasting.

``expand`` repeats, ``sum_to`` adds up what was repeated: each is the other's adjoint. The engine
applies ``sum_to`` wherever a cotangent is larger than the input that it belongs to; this is the one
place that knows about broadcasting.
"""

from __future__ import annotations

import builtins
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .. import domains
from ..dispatch import primitive
from ..errors import ShapeError, with_graph
from ..graph import Handle
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


def axes_of(op: str, axis: Any, ndim: int, *, allow_duplicate: bool = False) -> tuple[int, ...]:
    """Give one axis or several as numbers from 0 up; errors name the op."""
    try:
        return normalize_axis_tuple(axis, ndim, allow_duplicate=allow_duplicate)
    except np.exceptions.AxisError:
        span = f"{-ndim} to {ndim - 1}" if ndim else "none, for the tensor is 0-d"
        raise with_graph(np.exceptions.AxisError)(
            f"{op}: axis {axis} is out of bounds for {ndim} axes; want {span}"
        ) from None
    except ValueError:
        raise ShapeError(f"{op}: axis {axis} names an axis twice; want each once") from None
    except TypeError:
        raise with_graph(TypeError)(
            f"{op}: axis is {axis!r}; want a whole number, or several in a tuple"
        ) from None


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
    if x.shape[lead:] != shape:
        if lead < 0 or any(side not in (1, x.shape[lead + i]) for i, side in enumerate(shape)):
            raise ShapeError(
                f"a cotangent of shape {x.shape} does not belong to an input of shape {shape}; "
                "the rule must return one of the input's shape, or of one it broadcasts to"
            )
        stretched = (lead + i for i, side in enumerate(shape) if side == 1 != x.shape[lead + i])
        x = np.add.reduce(x, axis=tuple(stretched), keepdims=True)
    if lead and len(shape) == 1 and x.size >= _MANY and x.dtype.char in "fd":
        # BLAS adds up in a third of the time.
        n = x.size // shape[0]
        if n <= _MOST_ONES and x.flags.c_contiguous:
            return _ones(n, x.dtype.char).dot(x.reshape(n, -1))
        if n <= _MOST_ONES and x.strides[-1] > max(x.strides[:-1]) and min(x.strides) > 0:
            # As in images whose channels lie outermost.
            return x.ravel(order="K").reshape(-1, n).dot(_ones(n, x.dtype.char))
    # Without a reshape, so that the result is no view and can serve as a gradient as it is.
    return np.add.reduce(x, axis=0 if lead == 1 else tuple(range(lead)))


# From so many entries on a product with ones pays; so many ones are kept at most.
_MANY, _MOST_ONES = 2**11, 2**17


@functools.lru_cache(maxsize=16)
def _ones(n, char):
    return np.ones(n, char)


@sum_to.rule
def _(g, y, x, *, shape):
    return (expand(g, shape=x.shape),)


# --- Reordering -------------------------------------------------------------------------------


def _reshape_call(draw):
    shape = domains.shape(draw)
    return (draw.array(shape),), {"shape": draw.choice([(-1,), shape[::-1], (1, *shape)])}


@primitive(name="reshape", domain=domains.Domain("all reals", _reshape_call), view=True)
def _reshape(x, *, shape):
    try:
        if type(x) is not np.ndarray:
            return np.reshape(x, shape)
        if x.ndim > 2 == len(shape) and x.strides[0] == x.itemsize and shape[0] == len(x):
            # Images whose batch lies innermost: as columns, in long runs, and turned by a view.
            return x.transpose(*range(1, x.ndim), 0).reshape(shape[1], len(x)).T
        return x.reshape(shape)
    except ValueError:
        raise ShapeError(_reshape_trouble(np.shape(x), shape)) from None


def _reshape_trouble(old, new):
    size, sides = math.prod(old), [side for side in new if side != -1]
    if len(new) - len(sides) > 1:
        return f"{old} to {new}: -1 comes twice; want one side at most to be found"
    if len(new) > len(sides):
        return f"{old} to {new}: {size} entries do not divide by {math.prod(sides)}"
    return f"{old} has {size} entries, {new} takes {math.prod(new)}; want equal sizes, or a side -1"


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
    sides = _sides("reshape", shape)
    if sides and min(sides) < -1:
        raise ShapeError(
            f"reshape: {np.shape(x)} to {sides}: a side is negative; want -1 or a length"
        )
    return _reshape(x, shape=sides)


def _sides(op: str, given: tuple[Any, ...]) -> tuple[int, ...]:
    if len(given) == 1 and (type(given[0]) is tuple or np.ndim(given[0])):
        given = given[0]
    try:
        return tuple(map(operator.index, given))
    except TypeError:
        raise with_graph(TypeError)(f"{op}: got {given!r}; want whole numbers") from None


def _whole_number(op: str, name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise with_graph(TypeError)(f"{op}: {name} is {value!r}; want a whole number") from None


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
    sides = _sides("broadcast_to", (shape,))
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
    sides = list(np.shape(x))
    for place in sorted(axes_of("expand_dims", axis, len(sides) + np.size(axis))):
        sides.insert(place, 1)
    return reshape(x, sides)


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
    chosen = axes_of("squeeze", axis, len(shape))
    if any(shape[i] != 1 for i in chosen):
        raise ShapeError(f"squeeze: axis {axis} of shape {shape} has not length 1; leave it out")
    return reshape(x, [side for i, side in enumerate(shape) if i not in chosen])


def tile(x: Any, reps: Shape) -> Any:
    """Lay copies of ``x`` side by side, ``reps`` along each axis.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.tile(np.array([1.0, 2.0]), 2)
    array([1., 2., 1., 2.])
    """
    counts = _sides("tile", (reps,))
    if min(counts, default=0) < 0:
        raise ShapeError(f"tile: reps is {reps}; want no negative number")
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
    back = None if axes is None else np.argsort(axes)
    return (_transpose(g, axes=back),)


def transpose(x: Any, *axes: Any) -> Any:
    """Permute the axes; without ``axes``, reverse them.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.transpose(np.zeros((2, 3, 4)), (0, 2, 1)).shape
    (2, 4, 3)
    """
    if not axes or (len(axes) == 1 and axes[0] is None):
        return _transpose(x, axes=None)
    order = axes_of("transpose", _sides("transpose", axes), np.ndim(x))
    if len(order) != np.ndim(x):
        two = "; swapaxes exchanges two" if len(order) == 2 else ""
        raise ShapeError(
            f"transpose: got {len(order)} axes for shape {np.shape(x)}; want each once{two}"
        )
    return _transpose(x, axes=order)


def moveaxis(x: Any, source: Shape, destination: Shape) -> Any:
    """Move axes to other places; the rest keep their order.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.moveaxis(np.zeros((2, 3, 4)), 0, -1).shape
    (3, 4, 2)
    """
    ndim = np.ndim(x)
    places = axes_of("moveaxis", destination, ndim)
    moved = axes_of("moveaxis", source, ndim)
    if len(places) != len(moved):
        raise ShapeError(f"moveaxis: {len(moved)} axes to {len(places)} places; want as many")
    order = [axis for axis in range(ndim) if axis not in moved]
    for place, axis in sorted(zip(places, moved, strict=True)):
        order.insert(place, axis)
    return _transpose(x, axes=tuple(order))


def swapaxes(x: Any, axis1: int, axis2: int) -> Any:
    """Exchange two axes.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.swapaxes(np.zeros((2, 3, 4)), 0, -1).shape
    (4, 3, 2)
    """
    order = list(range(np.ndim(x)))
    one, two = axes_of("swapaxes", (axis1, axis2), len(order), allow_duplicate=True)
    order[one], order[two] = order[two], order[one]
    return _transpose(x, axes=tuple(order))


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
    try:
        return np.concatenate(parts, axis=axis)
    except np.exceptions.AxisError:
        raise
    except ValueError:
        shapes = " and ".join(str(np.shape(part)) for part in parts)
        raise ShapeError(f"shapes {shapes} differ beside axis {axis}{_advice(parts)}") from None


def _advice(parts):
    if all(np.ndim(part) == 0 for part in parts):
        return "; join 0-d tensors with stack"
    return "; want equal lengths of all other axes"


@_concatenate.rule
def _(g, y, *parts, axis):
    axis %= g.ndim
    ends = np.cumsum([part.shape[axis] for part in parts]).tolist()
    before = (slice(None),) * axis
    return tuple(
        g[(*before, slice(start, end))] for start, end in zip([0, *ends], ends, strict=False)
    )


def concatenate(parts: Sequence[Any], axis: int | None = 0) -> Any:
    """Join tensors along an axis that they have; with None, flattened.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.concatenate([np.zeros((1, 2)), np.ones((2, 2))]).shape
    (3, 2)
    """
    parts = _several("concatenate", parts, axis)
    if axis is None:
        return _concatenate(*map(ravel, parts), axis=0)
    return _concatenate(*parts, axis=axis)


def _several(op: str, parts: Any, axis: Any) -> list[Any]:
    if not np.iterable(parts) or isinstance(axis, (Handle, np.ndarray)):
        raise with_graph(TypeError)(f"{op}: got tensors one by one; want a list: {op}([a, b])")
    listed = list(parts)
    if not listed:
        raise ShapeError(f"{op}: got no tensors; want at least one")
    return listed


def stack(parts: Sequence[Any], axis: int = 0) -> Any:
    """Join tensors of one shape along a new axis.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.stack([np.zeros(3), np.ones(3)], axis=1).shape
    (3, 2)
    """
    parts = _several("stack", parts, axis)
    shapes = {np.shape(part) for part in parts}
    if len(shapes) > 1:
        raise ShapeError(f"stack: shapes {', '.join(map(str, sorted(shapes)))}; want equal ones")
    axis = _whole_number("stack", "axis", axis)
    (place,) = axes_of("stack", axis, np.ndim(parts[0]) + 1)
    return concatenate([expand_dims(part, place) for part in parts], place)


def tril(x: Any, k: int = 0) -> Any:
    """Lower triangle of matrices (..., n, m), zeros above the k-th diagonal.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.tril(np.ones((2, 2)))
    array([[1., 0.],
           [1., 1.]])
    """
    k = _whole_number("tril", "k", k)
    return where(_triangle(x, "tril", k), x, False)  # Of any dtype, unlike 0.


def triu(x: Any, k: int = 0) -> Any:
    """Upper triangle of matrices (..., n, m), zeros below the k-th diagonal.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.triu(np.ones((2, 2)))
    array([[1., 1.],
           [0., 1.]])
    """
    k = _whole_number("triu", "k", k)
    return where(_triangle(x, "triu", k - 1), False, x)


def _triangle(x: Any, op: str, k: int) -> Any:
    shape = np.shape(x)
    if len(shape) < 2:
        raise ShapeError(f"{op}: got shape {shape}; want matrices (..., n, m)")
    return np.tri(shape[-2], shape[-1], k=k, dtype=bool)
