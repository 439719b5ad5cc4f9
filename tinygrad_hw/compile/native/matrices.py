"""Native loops for products of matrices, and of stacks of them."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..program import Instruction
from .layout import Place, places
from .processor import vectors
from .writer import Writer

# Bytes of a second factor that stays in the cache while the rows of the first pass by.
_SMALL = 200_000


class _Product(NamedTuple):
    """``y = a @ b`` of matrices, inside loops over stacks of them.

    A loop has its count, and the steps of ``a``, ``b`` and ``y``.
    """

    a: Place
    b: Place
    y: Place
    loops: list[tuple[int, ...]]


def matmul(w: Writer, i: Instruction) -> bool:
    # NumPy's own may be asked for other axes.
    if i.params or len({w.dtype(a.index) for a in i.args}) > 1 or w.dtype(i.out).kind != "f":
        return False
    a, b = places(w.layout, i)
    p = _stacked(a, b, w.layout.places[i.out])
    if p.y.strides[1] != 1 and p.y.shape[1] != 1:
        # Columns side by side: the transposed product has rows.
        a, b, y = (m._replace(strides=m.strides[::-1], shape=m.shape[::-1]) for m in p[:3])
        p = _Product(b, a, y, [(n, step_b, step_a, step) for n, step_a, step_b, step in p.loops])
    p = _joined(p)
    return _in_tiles(w, p) or _by_blas(w, p)


def _stacked(a: Place, b: Place, y: Place) -> _Product:
    """Make matrices of vectors, and loops of the axes in front of the matrices."""
    shape, strides = y.shape, y.strides
    if len(a.shape) == 1:
        a = a._replace(shape=(1, *a.shape), strides=(0, *a.strides))
        rest = len(shape) - (len(b.shape) > 1)
        shape = (*shape[:rest], 1, *shape[rest:])
        strides = (*strides[:rest], 0, *strides[rest:])
    if len(b.shape) == 1:
        b = b._replace(shape=(*b.shape, 1), strides=(*b.strides, 0))
        shape, strides = (*shape, 1), (*strides, 0)
    steps = [m.spread((*shape[:-2], *m.shape[-2:])) for m in (a, b)]
    loops = [
        (n, *(s[axis] for s in steps if s is not None), strides[axis])
        for axis, n in enumerate(shape[:-2])
        if n > 1
    ]
    y = y._replace(shape=shape, strides=strides)
    a, b, y = (m._replace(shape=m.shape[-2:], strides=m.strides[-2:]) for m in (a, b, y))
    return _Product(a, b, y, loops)


def _joined(p: _Product) -> _Product:
    """Take as more rows what a loop does with one second factor, if the rows lie evenly."""
    a, b, y, loops = p
    while loops:
        n, *steps = loops[-1]
        rows = y.shape[0]
        if steps != [a.strides[0] * rows, 0, y.strides[0] * rows]:
            break
        a, y = (m._replace(shape=(rows * n, m.shape[1])) for m in (a, y))
        loops = loops[:-1]
    return _Product(a, b, y, loops)


def _inside(w: Writer, p: _Product) -> tuple[int, str]:
    """Write the loops; give their depth, and how the memories of the matrices are spelled there."""
    names = [f"i{depth}" for depth in range(len(p.loops))]
    for depth, (name, (n, *_)) in enumerate(zip(names, p.loops, strict=True)):
        w.line(depth, f"for {name} in range({_rest(w, n)}):")
    memories = []
    for k, matrix in enumerate(p[:3], 1):
        terms = [
            f"{name} * {loop[k]}" for name, loop in zip(names, p.loops, strict=True) if loop[k]
        ]
        memory = w.memory(matrix.root, matrix.offset)
        memories.append(f"beyond({memory}, {' + '.join(terms)})" if terms else memory)
    return len(names), ", ".join(memories)


def _by_blas(w: Writer, p: _Product) -> bool:
    """Write a product by BLAS, if rows or columns of the matrices lie side by side."""
    a, b, y = p[:3]
    if not _rows_apart(y.shape, y.strides):
        return False
    for m in (a, b):
        if not (_rows_apart(m.shape, m.strides) or _rows_apart(m.shape[::-1], m.strides[::-1])):
            return False
    dtype = w.dtype(y.root)
    w.blas.add(dtype)
    depth, memories = _inside(w, p)
    places = ", ".join(str(m.strides) for m in (a, b, y))
    given = f"{memories}, {(*y.shape, a.shape[1])}, {places}"
    w.line(depth, f"gemm({dtype.name}_blas, {given})")
    return True


def _rows_apart(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Tell whether a matrix lies row by row, the entries of each side by side."""
    (rows, columns), (down, across) = shape, strides
    return (across == 1 or columns == 1) and (down >= columns or rows == 1)


def _in_tiles(w: Writer, p: _Product) -> bool:
    """Write a product in tiles, where that beats BLAS, which first copies the matrices."""
    a, b, y = p[:3]
    (rows, columns), terms = y.shape, a.shape[1]
    small = math.prod(b.shape) * w.dtype(b.root).itemsize <= _SMALL
    # Threads of BLAS and those of the crew would take each other's cores.
    if y.strides[1] != 1 or columns == 1 or not (small or w.crew):
        return False
    dtype = w.dtype(b.root)
    tile = tile_of(rows, columns, dtype.itemsize)
    given = f"{tile}, {(rows, columns)}, {(a.strides[0], y.strides[0])}"
    depth, memories = _inside(w, p)
    if small and b.strides[1] == 1:
        summed = ((terms, a.strides[1], b.strides[0]),)
        w.line(depth, f"product({memories}, {_rest(w, -(-rows // tile[0]))}, {given}, {summed})")
        return True
    block = min(tile[1] * tile[2], columns)
    w.packing = max(w.packing, terms * block * dtype.itemsize)
    w.line(depth, f"o = part(packed, 0, np.{dtype.name})")
    given = f"{given}, {(terms, a.strides[1])}, {b.strides}, o"
    w.line(depth, f"packed_product({memories}, {_rest(w, -(-columns // block))}, {given})")
    return True


def lanes_of(most: int, itemsize: int) -> int:
    """Entries in the widest vector of at most so many."""
    lanes = vectors()[0] // itemsize
    while lanes > most:
        lanes //= 2
    return lanes


def tile_of(rows: int, columns: int, itemsize: int) -> tuple[int, int, int]:
    """Choose how many rows of a product are computed at once, in how many vectors of how many
    entries: as many as there are registers for, and such that few are computed twice."""
    _, registers = vectors()
    lanes = lanes_of(2 * columns - 1, itemsize)
    wide = -(-columns // lanes)
    height = -(-rows // -(-rows // (registers // (4 if wide > 1 else 2))))
    # An entry of a row is read once for so many vectors.
    most = min((registers - 1) // (height + 1), 8)
    across = min(range(most, 0, -1), key=lambda n: -(-wide // n) * (n + 1))
    return height, across, lanes


def _rest(w: Writer, count: int) -> str:
    """Spell what of a loop is for this thread, unless a loop around it is shared."""
    return f"0, {count}" if w.shared else w.share(count)
