"""Native loops that move entries: joining, reading at positions, and the adjoint of reading."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..program import Instruction, Ref
from .layout import Place, places
from .loops import Nest, Operand
from .scalars import cast, literal
from .writer import BLOCK, Writer


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


def getitem(w: Writer, i: Instruction) -> bool:
    """Read at whole numbers: arrays of them for neighbouring axes, or one for each axis."""
    (x,), y, index = places(w.layout, i), w.layout.places[i.out], i.params["index"]
    picks = _picks(w, index, x)
    if picks is None:
        entry = _view(w, i.args[0].index, index)
        if entry is not None:
            _copy(w, 0, entry, y)
        return entry is not None
    _look(w, picks, x)
    depth, *shifts = _positions(w, picks, x, y, share=True)
    _copy(w, depth, picks.rest(x, len(picks.at)), picks.rest(y, len(picks.shape)), shifts)
    return True


def scatter_add(w: Writer, i: Instruction) -> bool:
    """Add to zeros at an index: at whole numbers, or in a view."""
    (g,), y, index = places(w.layout, i), w.layout.places[i.out], i.params["index"]
    picks = _picks(w, index, y)
    if picks is not None:
        _add(w, g, y, picks)
        return True
    view = _view(w, i.out, index)
    if view is None:
        return False
    if math.prod(view.shape) < math.prod(y.shape):
        _clear(w, y)
    _copy(w, 0, g, view)
    return True


def setitem(w: Writer, i: Instruction) -> bool:
    """Copy a value, and write another one to what an index makes a view of."""
    (x, v), y = places(w.layout, i), w.layout.places[i.out]
    view = _view(w, i.out, i.params["index"])
    strides = None if view is None else v.spread(view.shape)
    if view is None or strides is None:
        return False
    _copy(w, 0, x, y)
    w.meet()
    _copy(w, 0, v._replace(shape=view.shape, strides=strides), view)
    return True


def cumsum(w: Writer, i: Instruction) -> bool:
    """Add up along an axis, each lane by itself."""
    (x,), y = places(w.layout, i), w.layout.places[i.out]
    if w.dtype(x.root) != w.dtype(y.root):
        return False
    axis = i.params["axis"] % len(x.shape)
    n, lanes = x.shape[axis], _Picks(axis, [], ())
    operands = [Operand(*lanes.rest(place, 1)[:3]) for place in (x, y)]
    nest = Nest(lanes.rest(x, 1).shape, operands, operands[1])
    names = _loops(w, nest, share=True)
    depth, steps = len(names), [place.strides[axis] for place in (x, y)]
    first, step = (n - 1, -1) if i.params["reverse"] else (0, 1)
    source, target = (f"{nest.index(k, names)} + {first * along}" for k, along in enumerate(steps))
    w.line(depth, operands[1].store(w, target, operands[0].load(w, source)))
    w.line(depth, f"for k in range(1, {n}):")
    new = operands[0].load(w, f"{source} + k * {step * steps[0]}")
    before = operands[1].load(w, f"{target} + (k - 1) * {step * steps[1]}")
    total = f"{before} + {new}"
    w.line(depth + 1, operands[1].store(w, f"{target} + k * {step * steps[1]}", total))
    return True


def _add(w: Writer, g: Place, y: Place, picks: _Picks) -> None:
    _look(w, picks, y)
    _clear(w, y)
    # Every thread adds at all positions, in some of the columns: two may be one place.
    depth, to, source = _positions(w, picks, y, g)
    rows = picks.rest(g, len(picks.shape)), picks.rest(y, len(picks.at))
    _copy(w, depth, *rows, (source, to), lambda old, new: f"({old} + {new})", share=True)


# --- Indices --------------------------------------------------------------------------------------


class _Picks(NamedTuple):
    """An index of whole numbers for some neighbouring axes, which takes the others whole.

    Attributes
    ----------
    first : int
        The first of these axes.
    at : list of Place or int
        The numbers for each.
    shape : tuple of int
        What their shapes broadcast to.
    """

    first: int
    at: list[Place | int]
    shape: tuple[int, ...]

    def rest(self, place: Place, axes: int) -> Place:
        """What lies at one position, which is along so many axes from the first on."""
        before, after = slice(self.first), slice(self.first + axes, None)
        return place._replace(
            shape=place.shape[before] + place.shape[after],
            strides=place.strides[before] + place.strides[after],
        )


def _picks(w: Writer, index: Any, x: Place) -> _Picks | None:
    """Understand an index of whole numbers; None if it is another one."""
    parts = list(index) if isinstance(index, tuple) else [index]
    dots = [a for a, part in enumerate(parts) if part is ...] or [len(parts)]
    whole = [slice(None)] * (len(x.shape) - sum(part is not ... for part in parts))
    parts[dots[0] : dots[0] + 1] = whole
    axes = [a for a, part in enumerate(parts) if not (type(part) is slice and part == slice(None))]
    at = [_numbers(w, parts[a], x.shape[a]) for a in axes if a < len(x.shape)]
    arrays = [numbers for numbers in at if isinstance(numbers, Place)]
    if len(parts) != len(x.shape) or not arrays or axes != [*range(axes[0], axes[-1] + 1)]:
        return None
    shape = np.broadcast_shapes(*(numbers.shape for numbers in arrays))
    known = [numbers for numbers in at if numbers is not None]
    return _Picks(axes[0], known, shape) if len(known) == len(at) and 0 not in shape else None


def _numbers(w: Writer, part: Any, side: int) -> Place | int | None:
    """The whole numbers of one part of an index; None if it has no such, or one is outside."""
    if type(part) is int:
        return part % side if -side <= part < side else None
    place = w.layout.places.get(part.index) if isinstance(part, Ref) else None
    if place is None or w.dtype(part.index).kind not in "iu":
        return None
    return place if _is_inside(w.layout.program.constants.get(place.root), side) else None


def _is_inside(numbers: Any, side: int) -> bool:
    return numbers is None or not numbers.size or -side <= numbers.min() <= numbers.max() < side


def _view(w: Writer, i: int, index: Any) -> Place | None:
    """Where that lies of a value which an index makes a view of; None if it makes none."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(part is None or part is ... or type(part) in (int, slice) for part in parts):
        return None
    whole = w.layout.stand[i]
    view = whole[index] if any(part is ... for part in parts) else whole[(*parts, ...)]
    return w.layout.place_of(view, w.layout.places[i].root) if view.size else None


def _look(w: Writer, picks: _Picks, x: Place) -> None:
    """Leave if a number is outside; all threads look, so that all of them leave."""
    for axis, numbers in enumerate(picks.at, picks.first):
        if isinstance(numbers, int) or numbers.root in w.layout.program.constants:
            continue
        operand, side = Operand(*numbers[:3]), x.shape[axis]
        # Of numbers without a sign, those beyond int64 are negative here.
        low = -side if w.dtype(numbers.root).kind == "i" else 0
        nest = Nest(numbers.shape, [operand], operand)
        names = _loops(w, nest)
        w.line(len(names), f"k = position({operand.load(w, nest.index(0, names))})")
        w.line(len(names), f"if k < {low} or k >= {side}:")
        w.leave(len(names) + 1, 0)
        w.outside()


def _positions(
    w: Writer, picks: _Picks, x: Place, y: Place, *, share: bool = False
) -> tuple[int, str, str]:
    """Go through positions: give how deep the loops are, and what lies there in ``x`` and ``y``."""
    lying = slice(picks.first, picks.first + len(picks.shape))
    operands = [
        Operand(numbers.root, numbers.offset, numbers.spread(picks.shape) or ())
        for numbers in picks.at
        if isinstance(numbers, Place)
    ]
    operands.append(Operand(y.root, y.offset, y.strides[lying]))
    nest = Nest(picks.shape, operands, operands[-1])
    names = _loops(w, nest, share=share)
    depth, arrays, terms = len(names), 0, []
    for axis, numbers in enumerate(picks.at, picks.first):
        text = str(numbers)
        if isinstance(numbers, Place):
            text = f"k{arrays}"
            read = operands[arrays].load(w, nest.index(arrays, names))
            w.line(depth, f"{text} = position({read})")
            w.line(depth, f"{text} = {text} + pick({text} < 0, {x.shape[axis]}, 0)")
            arrays += 1
        terms.append(f"{text} * {x.strides[axis]}")
    return depth, " + ".join(terms), nest.index(arrays, names)


# --- Loops ----------------------------------------------------------------------------------------


def _loops(
    w: Writer, nest: Nest, letter: str = "j", depth: int = 0, *, share: bool = False
) -> list[str]:
    """Write the heads of loops; give the names of their variables, which begin with a letter."""
    names = [f"{letter}{a}" for a in range(len(nest.sides))]
    for a, (name, side) in enumerate(zip(names, nest.sides, strict=True)):
        span = w.share(side) if share and a == 0 else f"0, {side}"
        w.line(depth + a, f"for {name} in range({span}):")
    return names


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
    shifts: Sequence[str] = ("0", "0"),
    join: Callable[[str, str], str] = lambda old, new: new,
    *,
    share: bool = False,
) -> None:
    """Write entries to other places; the shifts say how much further each is."""
    operands = [Operand(*place[:3]) for place in (source, target)]
    nest = Nest(source.shape, operands, operands[1])
    share = share or (depth == 0 and math.prod(source.shape) >= BLOCK)
    names = _loops(w, nest, "i", depth, share=share)
    old, new = (f"{nest.index(k, names)} + {shift}" for k, shift in enumerate(shifts))
    value = cast(operands[0].load(w, old), w.dtype(source.root), w.dtype(target.root))
    text = operands[1].store(w, new, join(operands[1].load(w, new), value))
    w.line(depth + len(names), text)
