"""Primitives that move entries without computing with them, and the pair that undoes broadcasting.

``expand`` repeats, ``sum_to`` adds up what was repeated: each is the other's adjoint. The engine
applies ``sum_to`` wherever a cotangent is larger than the input that it belongs to; this is the one
place that knows about broadcasting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import domains
from ..errors import ShapeError
from ..graph import Handle, primitive

Shape = int | Sequence[int]


# --- Broadcasting and its undoing -------------------------------------------------------------


def _expand_call(draw):
    small, large = domains.broadcastable(draw, 2)[::-1]
    return (draw.array(small),), {"shape": large}


@primitive(name="expand", domain=domains.Domain("all reals", _expand_call))
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
    if lead < 0 or any(
        side not in (1, x.shape[lead + i]) for i, side in enumerate(shape)
    ):
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


@primitive(name="reshape", domain=domains.Domain("all reals", _reshape_call))
def _reshape(x, *, shape):
    return np.reshape(x, shape)


@_reshape.rule
def _(g, y, x, *, shape):
    return (_reshape(g, shape=x.shape),)


def reshape(x: Any, shape: Shape) -> Any:
    """Give the same entries in another shape; one side may be -1.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.reshape(np.arange(6.0), (2, -1)).shape
    (2, 3)
    """
    return _reshape(x, shape=shape)


def _transpose_call(draw):
    shape = domains.shape(draw)
    order = list(range(len(shape)))
    for i in range(len(order) - 1):
        j = draw.integer(i, len(order) - 1)
        order[i], order[j] = order[j], order[i]
    return (draw.array(shape),), {"axes": tuple(order)}


@primitive(name="transpose", domain=domains.Domain("all reals", _transpose_call))
def _transpose(x, *, axes):
    return np.transpose(x, axes)


@_transpose.rule
def _(g, y, x, *, axes):
    back = None if axes is None else np.argsort([axis % len(axes) for axis in axes])
    return (_transpose(g, axes=back),)


def transpose(x: Any, axes: Sequence[int] | None = None) -> Any:
    """Permute the axes; without ``axes``, reverse them.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.transpose(np.zeros((2, 3, 4)), (0, 2, 1)).shape
    (2, 4, 3)
    """
    return _transpose(x, axes=None if axes is None else tuple(axes))


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
        parts = list(parts)  # type: ignore[arg-type]
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
    return concatenate([expand_dims(part, axis) for part in parts], axis)


def expand_dims(x: Any, axis: Shape) -> Any:
    """Insert axes of length 1 at the places ``axis`` of the result.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.expand_dims(np.zeros((2, 3)), (0, -1)).shape
    (1, 2, 3, 1)
    """
    return reshape(x, np.expand_dims(np.broadcast_to(0, np.shape(x)), axis).shape)
