"""Native loops that move entries: joining, reading rows, and the adjoints of reading."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..program import Instruction, Ref
from .layout import Place, places
from .loops import BLOCK, Nest, Operand, Writer
from .scalars import cast, literal


def concatenate(w: Writer, i: Instruction) -> bool:
    """Copy each part to where it goes."""
    y = w.layout.places[i.out]
    axis = i.params["axis"] % len(y.shape)
    start = y.offset
    for part in places(w.layout, i):
        target = y._replace(offset=start, shape=part.shape)
        _copy(w, 0, part, target)
        start += part.shape[axis] * y.strides[axis]
    return True


def rows(w: Writer, i: Instruction) -> bool:
    """Read rows, the first axis of a value, at whole numbers."""
    (x,), y, at = places(w.layout, i), w.layout.places[i.out], _numbers(w, i)
    if at is None or not _in_line(y, len(at.shape)):
        return False
    _look(w, at, x.shape[0])
    w.line(0, f"for i in range({w.share(math.prod(at.shape))}):")
    _row(w, 1, at, x.shape[0])
    row, target = _inner(x, 1), _inner(y, len(at.shape))
    _copy(w, 1, row, target, (f"k * {x.strides[0]}", f"i * {y.strides[len(at.shape) - 1]}"))
    return True


def scatter_add(w: Writer, i: Instruction) -> bool:
    """Add to zeros at an index: rows at whole numbers, or a view."""
    (g,), y, at = places(w.layout, i), w.layout.places[i.out], _numbers(w, i)
    if at is not None:
        return _add_rows(w, g, y, at)
    view = w.layout.stand[i.out][i.params["index"]] if _basic(i.params["index"]) else None
    if not isinstance(view, np.ndarray) or not view.size:
        return False
    if view.size < math.prod(y.shape):
        _clear(w, y)
    _copy(w, 0, g, w.layout.place_of(view, i.out))
    return True


def _add_rows(w: Writer, g: Place, y: Place, at: Place) -> bool:
    if not _in_line(g, len(at.shape)):
        return False
    _look(w, at, y.shape[0])
    _clear(w, y)
    # Every thread adds all rows, in some of the columns: two rows may go to one place.
    row, source = _inner(y, 1), _inner(g, len(at.shape))
    w.line(0, f"for i in range({math.prod(at.shape)}):")
    _row(w, 1, at, y.shape[0])
    shifts = f"i * {g.strides[len(at.shape) - 1]}", f"k * {y.strides[0]}"
    _copy(w, 1, source, row, shifts, lambda old, new: f"({old} + {new})", share=True)
    return True


# --- Indices --------------------------------------------------------------------------------------


def _basic(index: Any) -> bool:
    """Tell whether an index makes views."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or part is ... or type(part) in (int, slice) for part in parts)


def _numbers(w: Writer, i: Instruction) -> Place | None:
    """Where the whole numbers of an index are that is one array of them, for the first axis."""
    index = i.params["index"]
    # Nothing is asked of no axis.
    first, *others = (index or (...,)) if isinstance(index, tuple) else (index,)
    if not all(part is ... or (type(part) is slice and part == slice(None)) for part in others):
        return None
    place = w.layout.places.get(first.index) if isinstance(first, Ref) else None
    if place is None or w.dtype(first.index).kind not in "iu" or not place.shape:
        return None
    return place if _in_line(place, len(place.shape)) else None


def _in_line(place: Place, axes: int) -> bool:
    """Tell whether the positions along the first axes lie at equal distances, in C order."""
    pairs = zip(place.shape[1:axes], place.strides[: axes - 1], place.strides[1:axes], strict=True)
    return all(outer == n * step for n, outer, step in pairs)


def _inner(place: Place, axes: int) -> Place:
    """What lies at the first position along the first axes."""
    return place._replace(shape=place.shape[axes:], strides=place.strides[axes:])


def _look(w: Writer, at: Place, side: int) -> None:
    """Leave if a number is outside; all threads look, so that all of them leave."""
    w.line(0, f"for i in range({math.prod(at.shape)}):")
    w.line(1, f"k = {_number(w, at)}")
    w.line(1, f"if k < {-side} or k >= {side}:")
    w.leave(2, 0)
    w.outside()


def _row(w: Writer, depth: int, at: Place, side: int) -> None:
    w.line(depth, f"k = {_number(w, at)}")
    w.line(depth, f"k = k + pick(k < 0, {side}, 0)")


def _number(w: Writer, at: Place) -> str:
    step = at.strides[-1]
    return f"position({w.load(at.root, f'i * {step} + {at.offset}')})"


# --- Loops ----------------------------------------------------------------------------------------


def _clear(w: Writer, y: Place) -> None:
    """Write zeros everywhere."""
    w.line(0, f"for i in range({w.share(math.prod(y.shape))}):")
    w.line(1, w.store(y.root, "i", literal(0, w.dtype(y.root))))
    w.meet()


def _copy(
    w: Writer,
    depth: int,
    source: Place,
    target: Place,
    shifts: tuple[str, str] = ("0", "0"),
    join: Callable[[str, str], str] = lambda old, new: new,
    *,
    share: bool = False,
) -> None:
    """Write entries to other places; the shifts say how much further each is."""
    operands = [Operand(*place[:3]) for place in (source, target)]
    nest = Nest(source.shape, operands, operands[1])
    names = [f"i{a}" for a in range(len(nest.sides))]
    share = share or (depth == 0 and math.prod(source.shape) >= BLOCK)
    for a, (name, side) in enumerate(zip(names, nest.sides, strict=True)):
        span = w.share(side) if share and a == 0 else f"0, {side}"
        w.line(depth + a, f"for {name} in range({span}):")
    old, new = (f"{nest.index(k, names)} + {shift}" for k, shift in enumerate(shifts))
    value = cast(operands[0].load(w, old), w.dtype(source.root), w.dtype(target.root))
    text = operands[1].store(w, new, join(operands[1].load(w, new), value))
    w.line(depth + len(names), text)
