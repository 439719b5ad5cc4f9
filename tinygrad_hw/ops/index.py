"""Primitives that read and write at an index: ``getitem`` and ``scatter_add`` are adjoint.

An index is a constant. Arrays in it are copied once, so that a later write to the user's own array
cannot change a gradient; copies are in C order, so that among repeated positions of an assignment
NumPy's order of writing, and with it the winner, is the same wherever the index is used.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..errors import ShapeError, with_graph
from ..graph import Handle, Recorded, as_array, value_of
from .shape import Shape, _reshape, _sides, axes_of

# --- What an index is -------------------------------------------------------------------------


def _constant_index(index, op):
    """Give an index whose arrays are constants of our own: integers or booleans, nothing else."""
    if isinstance(index, tuple):
        return tuple([_constant_part(part, op) for part in index])
    return _constant_part(index, op)


def _constant_part(part, op):
    if part is None or part is Ellipsis or type(part) in (int, bool):
        return part
    if isinstance(part, Handle):
        part = part._data
    if isinstance(part, Recorded):
        return part
    if isinstance(part, slice):
        return slice(*[_bound(bound, op) for bound in (part.start, part.stop, part.step)])
    array = np.array(_without_tensors(part), order="C")
    if array.size == 0 and isinstance(part, (list, tuple)):
        array = array.astype(np.intp)
    if array.dtype.kind not in "iub":
        raise with_graph(IndexError)(
            f"{op}: got an index of dtype {array.dtype}; want integers or booleans, "
            "as in index.astype(int)"
        )
    return array if array.ndim else array.item()


def _bound(bound, op):
    if bound is None or type(bound) is int:
        return bound
    try:
        return operator.index(bound)
    except TypeError:
        raise with_graph(IndexError)(
            f"{op}: a slice has the bound {bound!r}; want an integer or None"
        ) from None


def _without_tensors(part):
    if isinstance(part, Handle):
        return part._data
    if isinstance(part, (list, tuple)):
        return [_without_tensors(item) for item in part]
    return part


def _parts(index):
    return index if isinstance(index, tuple) else (index,)


def _may_repeat(index):
    """Tell whether an index can name a position twice: only integer arrays can."""
    arrays = [part for part in _parts(index) if isinstance(part, (np.ndarray, Recorded))]
    return any(part.dtype.kind != "b" for part in arrays)


def _axes_touched(index, ndim):
    """Count the leading axes that an index speaks of; along the others it takes everything."""
    parts = _parts(index)
    if any(part is Ellipsis for part in parts):
        return ndim
    lengths = [
        part.ndim if isinstance(part, np.ndarray) and part.dtype.kind == "b" else 1
        for part in parts
        if part is not None and not isinstance(part, bool)
    ]
    return sum(lengths)


# --- Reading, and adding up what was read -----------------------------------------------------


def _index_into(draw, shape):
    """Choose an index of one of NumPy's kinds."""
    kinds = ["basic", "new axis", "boolean", "mask of one axis", "integers", "mixed", "grid"]
    kind = draw.choice(kinds[: 3 if not shape else len(kinds)])
    if kind == "boolean":
        return draw.array(shape) > 0
    if kind == "new axis":
        return (None, Ellipsis)
    if kind == "basic":
        return tuple(_basic_part(draw, side) for side in shape[: draw.integer(0, len(shape))])
    first = _integers(draw, shape[0], (draw.integer(1, 4),))
    if kind == "mask of one axis":
        return (draw.array(shape[:1]) > 0,)
    if kind == "integers" or len(shape) == 1:
        return first if draw.integer(0, 1) else first.reshape(-1, 1)
    last = _integers(draw, shape[-1], (len(first),))
    if kind == "mixed":
        return (first, Ellipsis, last)
    if len(shape) == 2:
        return (first.reshape(-1, 1), last)
    return (first, slice(None), None, -1)


def _basic_part(draw, side):
    start = draw.integer(-side, side - 1)
    return draw.choice([start, slice(None), slice(start, None), slice(None, None, -2)])


def _integers(draw, side, shape):
    flat = [draw.integer(-side, side - 1) for _ in range(math.prod(shape))]
    return np.array(flat).reshape(shape)


def _getitem_call(draw):
    shape = domains.shape(draw)
    return (draw.array(shape),), {"index": _index_into(draw, shape)}


@primitive(name="getitem", domain=domains.Domain("all reals, any index", _getitem_call), view=True)
def _getitem(x, *, index):
    return np.asarray(x)[index]


@_getitem.rule
def _(g, y, x, *, index):
    return (_scatter_add(g, index=index, shape=x.shape),)


def _scatter_add_call(draw):
    shape = domains.shape(draw)
    index = _index_into(draw, shape)
    return (draw.array(np.zeros(shape)[index].shape),), {"index": index, "shape": shape}


@primitive(name="scatter_add", domain=domains.Domain("all reals, any index", _scatter_add_call))
def _scatter_add(g, *, index, shape):
    g = np.asarray(g)
    out = np.zeros(shape, g.dtype)
    if not _may_repeat(index):
        out[index] = g
    elif len(shape) == 1:
        np.add.at(out, index, g)
    else:
        # add.at is an order of magnitude faster on one flat index than on rows or several arrays.
        places = _flat_places(index, shape)
        np.add.at(out.reshape(-1), places.reshape(-1), np.broadcast_to(g, places.shape).reshape(-1))
    return out


def _flat_places(index, shape):
    """Where ``x[index]`` lies in ``x.reshape(-1)``, for ``x`` of that shape."""
    split = _axes_touched(index, len(shape))
    touched, rest = shape[:split], shape[split:]
    places = np.arange(math.prod(touched)).reshape(touched)[index]
    within = np.arange(math.prod(rest)).reshape(rest)
    return np.add.outer(places * within.size, within)


@_scatter_add.rule
def _(g, y, x, *, index, shape):
    return (_getitem(g, index=index),)


def getitem(x: Any, index: Any) -> Any:
    """Read at an index of any NumPy kind; the same as ``x[index]``.

    Parameters
    ----------
    x : array or Tensor
    index : int, slice, ``...``, None, array of integers or booleans, or a tuple of them
        A constant; integers may repeat, and their gradients add up.

    Raises
    ------
    IndexError
        If a position lies outside, or an index is not of integers or booleans.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> x[[0, 0, -1]].sum().backward()
    >>> x.grad
    array([2., 0., 1.])
    """
    return _getitem(x, index=_constant_index(index, "getitem"))


def scatter_add(g: Any, *, index: Any, shape: Shape) -> Any:
    """Add ``g`` into zeros at an index, the adjoint of reading there; repeated positions add up.

    Parameters
    ----------
    g : array or Tensor, of the shape of ``x[index]``
    index : as in ``getitem``
    shape : int or tuple of int
        Of the result.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.scatter_add(np.array([1.0, 2.0, 3.0]), index=[0, 2, 0], shape=(4,))
    array([4., 0., 2., 0.])
    """
    sides = _sides("scatter_add", (shape,))
    return _scatter_add(g, index=_constant_index(index, "scatter_add"), shape=sides)


# --- Writing ----------------------------------------------------------------------------------


def _setitem_call(draw):
    (x,), params = _getitem_call(draw)
    shape = x[params["index"]].shape
    return (x, draw.array(shape[draw.integer(0, len(shape)) :])), params


@primitive(
    name="setitem",
    domain=domains.Domain("all reals, any index", _setitem_call),
    conventions="of values written to one place, the last has the gradient",
)
def _setitem(x, v, *, index):
    out = np.array(x, order="C")
    # Python's numbers take the dtype of what they are put into, as far as they are of its kind.
    given = np.result_type(out, v) if type(v) in (int, float) else np.asarray(v).dtype
    if not np.can_cast(given, out.dtype, "same_kind"):
        raise with_graph(TypeError)(
            f"cannot put {given} into {out.dtype} without loss; use x.astype(float) first"
        )
    try:
        out[index] = v
    except TypeError as error:
        raise ShapeError(str(error)) from None
    return out


@_setitem.rule
def _(g, y, x, v, *, index, needs):
    taken = None
    if needs[1]:
        taken = _getitem(g, index=index)
        if _may_repeat(index):
            taken = taken * _winners(index, g.shape, taken)
        # NumPy lets a value have more leading axes of length 1 than the place that it goes to.
        extra = len(v.shape) - len(taken.shape)
        if extra > 0:
            taken = _reshape(taken, shape=(1,) * extra + taken.shape)
    return _setitem(g, 0, index=index), taken


def _winners(index, shape, written):
    """1 where a value is the last that is written to its place, 0 elsewhere."""
    order = np.arange(math.prod(written.shape)).reshape(written.shape)
    last = np.zeros(shape, np.intp)
    last[index] = order
    return (last[index] == order).astype(written.dtype)


def setitem(x: Any, v: Any, *, index: Any) -> Any:
    """Give a copy of ``x`` with ``v`` written at an index.

    Parameters
    ----------
    x : array or Tensor
    v : array or Tensor, broadcastable to ``x[index]``
        Where positions repeat, the last value stays and has the gradient.
    index : as in ``getitem``

    Raises
    ------
    ShapeError
        If ``v`` does not broadcast to the shape of ``x[index]``.
    TypeError
        If ``x`` holds integers and ``v`` does not.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.setitem(np.zeros(3), [1.0, 2.0], index=[2, 0])
    array([2., 0., 1.])
    """
    return _setitem(x, v, index=_constant_index(index, "setitem"))


# --- Reading along an axis --------------------------------------------------------------------


def take(x: Any, indices: Any, axis: int | None = None) -> Any:
    """Read at integer positions along an axis; without one, in the flattened tensor.

    Parameters
    ----------
    x : array or Tensor
    indices : int or array of int, of any shape
        Negative ones count from the end.
    axis : int, optional

    Returns
    -------
    array or Tensor
        With the shape of ``indices`` in place of the axis.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.take(np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 0], axis=1)
    array([[2., 1.],
           [4., 3.]])
    """
    if axis is None:
        x, axis = _reshape(x, shape=(-1,)), 0
    axis = _checked_axis("take", axis, x)
    part = _positions(indices, x, axis, "take")
    return _getitem(x, index=(*(slice(None),) * axis, part))


def take_along_axis(x: Any, indices: Any, axis: int | None = -1) -> Any:
    """Read at positions along an axis that differ from lane to lane, as ``argsort`` gives them.

    Parameters
    ----------
    x : array or Tensor
    indices : array of int
        With as many axes as ``x``, of which all but ``axis`` broadcast with those of ``x``.
    axis : int or None
        None reads in the flattened tensor.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = np.array([[3.0, 1.0, 2.0]])
    >>> tg.take_along_axis(x, tg.argsort(x))
    array([[1., 2., 3.]])
    """
    if axis is None:
        x, axis = _reshape(x, shape=(-1,)), 0
        indices = np.reshape(value_of(indices), -1)
    shape, axis = np.shape(value_of(x)), _checked_axis("take_along_axis", axis, x)
    part = as_array(_positions(indices, x, axis, "take_along_axis"))
    if part.ndim != len(shape) or any(
        n != axis and side not in (1, part.shape[n]) and part.shape[n] != 1
        for n, side in enumerate(shape)
    ):
        raise ShapeError(
            f"take_along_axis: indices of shape {part.shape} for x of shape {shape}; want "
            f"{len(shape)} axes, as long as those of x except for axis {axis}"
        )
    grid = [
        part if n == axis else np.arange(side).reshape((-1,) + (1,) * (len(shape) - n - 1))
        for n, side in enumerate(shape)
    ]
    return _getitem(x, index=tuple(grid))


def _positions(indices, x, axis, op):
    """Check integers that are positions along an axis."""
    part = _constant_part(indices, op)
    if isinstance(part, slice) or as_array(part).dtype.kind not in "iu":
        raise with_graph(IndexError)(f"{op}: want integer indices, got {indices!r}")
    side = np.shape(value_of(x))[axis]
    outside = np.less(part, -side) | np.greater_equal(part, side)
    if np.any(outside):
        first = np.asarray(part)[outside].flat[0]
        raise with_graph(IndexError)(
            f"{op}: index {first} is out of bounds for axis {axis} of length {side}; want "
            f"{-side} to {side - 1}"
        )
    return part


def _checked_axis(op, axis, x):
    """Give one axis as a number from 0 up."""
    if isinstance(axis, (tuple, list)):
        raise with_graph(TypeError)(f"{op}: axis is {axis!r}; want one whole number")
    return axes_of(op, axis, np.ndim(value_of(x)))[0]


__all__ = [
    "getitem",
    "scatter_add",
    "setitem",
    "take",
    "take_along_axis",
]
