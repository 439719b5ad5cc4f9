"""Native loops for what is not elementwise: products, convolution, pooling.

A rule takes a :class:`Writer` and the instruction, writes the code and returns True; or it returns
False before it writes anything, and the call is left to NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ...kernels import hw5
from ...ops import conv, linalg
from ..expand import border, correlation, correlation_dw, turned
from ..program import Instruction, Spec
from .layout import Place
from .loops import Writer
from .scalars import literal

Rule = Callable[[Writer, Instruction], bool]
# Bytes of a second factor that stays in the cache while the rows of the first pass by.
_SMALL = 200_000
# Rows of a product that are computed at once, as many as there are registers for.
_TILE_ROWS = 4
# What those rows have of a row of the second factor; products.py computes so much at once.
_TILE_BYTES = 64
# Products in one statement list: more would not fit the registers.
_UNROLLED = 64


def _places(w: Writer, instruction: Instruction) -> list[Place]:
    return [w.layout.places[a.index] for a in instruction.args]


def _at(place: Place, *names: str | int) -> str:
    """Spell the index of an entry, its position given axis by axis."""
    terms, offset = [], place.offset
    for name, stride in zip(names, place.strides, strict=True):
        if isinstance(name, int):
            offset += name * stride
        elif stride:
            terms.append(f"({name}) * {stride}" if stride != 1 else f"({name})")
    return " + ".join([*terms, str(offset)] if offset or not terms else terms)


# --- Products -------------------------------------------------------------------------------------


class _Product(NamedTuple):
    """``y = a @ b`` of matrices, inside loops over stacks of them.

    A loop has its count, and the steps of ``a``, ``b`` and ``y``.
    """

    a: Place
    b: Place
    y: Place
    loops: list[tuple[int, ...]]


def _matmul(w: Writer, i: Instruction) -> bool:
    if len({w.dtype(a.index) for a in i.args}) > 1 or w.dtype(i.out).kind != "f":
        return False
    a, b = _places(w, i)
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
        memory = w.memory(matrix.root)
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
    places = ", ".join(str((m.offset, *m.strides)) for m in (a, b, y))
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
    height = min(_TILE_ROWS, rows)
    places = ", ".join(str((m.offset, *m.strides)) for m in (a, b, y))
    given = f"{(height, rows, columns, terms)}, {places}"
    depth, memories = _inside(w, p)
    if small and b.strides[1] == 1:
        w.line(depth, f"product({memories}, {_rest(w, -(-rows // height))}, {given})")
        return True
    dtype = w.dtype(b.root)
    block = min(_TILE_BYTES // dtype.itemsize, columns)
    w.packing = max(w.packing, terms * block * dtype.itemsize)
    w.line(depth, f"o = part(packed, 0, np.{dtype.name})")
    w.line(depth, f"packed_product({memories}, {_rest(w, -(-columns // block))}, {given}, o)")
    return True


def _rest(w: Writer, count: int) -> str:
    """Spell what of a loop is for this thread, unless a loop around it is shared."""
    return f"0, {count}" if w.shared else w.share(count)


# --- Convolution ----------------------------------------------------------------------------------


def _border(w: Writer, i: Instruction) -> bool:
    (x,) = _places(w, i)
    (top, left), (bottom, right) = i.params["before"], i.params["after"]
    n, height, width, c = x.shape
    zero = literal(0, w.dtype(i.out))
    rows, row = height + top + bottom, (width + left + right) * n
    w.line(0, f"for c in range({c}):")
    w.line(1, f"for i in range({w.share(rows)}):")
    w.line(2, f"o = (c * {rows} + i) * {row}")
    outside = [f"i < {top}"] * bool(top) + [f"i >= {top + height}"] * bool(bottom)
    if outside:
        w.line(2, f"if {' or '.join(outside)}:")
        w.line(3, f"for k in range({row}):")
        w.line(4, w.store(i.out, "o + k", zero))
        w.line(2, "else:")
    depth = 3 if outside else 2
    for start, count in ((0, left), (left + width, right)):
        if count:
            w.line(depth, f"for k in range({count * n}):")
            w.line(depth + 1, w.store(i.out, f"o + {start * n} + k", zero))
    # Long runs of reads or of writes: images side by side, or pixels.
    source = _at(x, "k", f"i - {top}" if top else "i", "j", "c")
    w.line(depth, f"for j in range({width}):")
    w.line(depth + 1, f"for k in range({n}):")
    place = f"o + (j + {left}) * {n} + k"
    w.line(depth + 2, w.store(i.out, place, w.load(x.root, source)))
    return True


def _turned(w: Writer, i: Instruction) -> bool:
    (x,), y = _places(w, i), w.layout.places[i.out]
    a, b, c1, c2 = x.shape
    for depth, (name, side) in enumerate(zip("abcd", (a, b, c1, c2), strict=True)):
        w.line(depth, f"for {name} in range({side}):")
    source = w.load(x.root, _at(x, "a", "b", "c", "d"))
    w.line(4, w.store(i.out, _at(y, f"{a - 1} - a", f"{b - 1} - b", "d", "c"), source))
    return True


def _correlation(w: Writer, i: Instruction) -> bool:
    """Rows of windows at once: at stride 1 the windows of a row, image by image, lie in a run.

    For a few filters at a time, each entry that is read meets all of them.
    """
    x, f = _places(w, i)
    y = w.layout.places[i.out]
    c1, _, width, n = x.shape
    a, b, _, c2 = f.shape
    (rows, columns), stride, dilation = (i.params[k] for k in ("out", "stride", "dilation"))
    taps = a * b
    if taps > _UNROLLED:
        return False
    most = max(1, min(c2, _UNROLLED // taps, 8))
    # Blocks that leave nothing over, if they need not be small for that.
    block = next((k for k in range(most, 3, -1) if c2 % k == 0), most)
    whole = c2 // block
    # One text for all whole blocks, and one for what is left: a text for each of many blocks takes
    # minutes to compile.
    for first, count, size in ((0, whole, block), (whole * block, 1, c2 - whole * block)):
        if not size:
            continue
        filters = [f"o * {block} + {first + k}" for k in range(size)]
        w.line(0, f"for o in range({count}):")
        w.line(1, f"for i in range({w.share(rows)}):")
        w.line(2, f"for c in range({c1}):")
        for k, filter_ in enumerate(filters):
            for t in range(taps):
                weight = w.load(f.root, _at(f, t // b, t % b, "c", filter_))
                w.line(3, f"w{k}_{t} = {weight}")
        _row(w, i, x, y, filters, (a, b), (columns, n, width), stride, dilation)
    return True


def _row(
    w: Writer,
    i: Instruction,
    x: Place,
    y: Place,
    filters: list[str],
    size: tuple[int, int],
    sides: tuple[int, int, int],
    stride: Any,
    dilation: Any,
) -> None:
    columns, n, width = sides
    rows = x.shape[1]
    run = columns * n if stride[1] == 1 else n
    depth = 3
    shift = "0"
    if stride[1] != 1:
        w.line(3, f"for j in range({columns}):")
        depth, shift = 4, f"j * {n}"
    for o in range(len(filters)):
        place = f"q{o} = (({filters[o]}) * {y.shape[1]} + i) * {columns * n} + {shift}"
        w.line(depth, place)
    for r in range(size[0]):
        row = f"(c * {rows} + i * {stride[0]} + {r * dilation[0]}) * {width * n}"
        w.line(depth, f"r{r} = {row} + ({shift}) * {stride[1]}")
    for first in (True, False)[: min(x.shape[0], 2)]:
        w.line(depth, "if c == 0:" if first else "else:")
        w.line(depth + 1, f"for k in range({run}):")
        for t in range(size[0] * size[1]):
            at = f"r{t // size[1]} + k + {t % size[1] * dilation[1] * n}"
            w.line(depth + 2, f"x{t} = {w.load(x.root, at)}")
        for o in range(len(filters)):
            zero = literal(0, w.dtype(i.out))
            sum_ = zero if first else w.load(i.out, f"q{o} + k")
            for t in range(size[0] * size[1]):
                sum_ = f"plus(times(x{t}, w{o}_{t}), {sum_})"
            w.line(depth + 2, w.store(i.out, f"q{o} + k", sum_))


def _correlation_dw(w: Writer, i: Instruction) -> bool:
    g, x = _places(w, i)
    y = w.layout.places[i.out]
    n, rows, columns, c2 = g.shape
    c1, height, width, _ = x.shape
    (a, b), stride, dilation = (i.params[k] for k in ("size", "stride", "dilation"))
    taps = a * b
    wanted = (1, columns * n, n, rows * columns * n)
    if any(s != t and m > 1 for s, t, m in zip(g.strides, wanted, g.shape, strict=True)):
        return False
    if g.offset or taps > _UNROLLED or w.layout.stand[g.root].size != math.prod(g.shape):
        return False
    zero = literal(0, w.dtype(i.out))
    run = columns * n if stride[1] == 1 else n
    w.line(0, f"for c in range({c1}):")
    w.line(1, f"for o in range({w.share(c2)}):")
    for t in range(taps):
        w.line(2, f"s{t} = {zero}")
    w.line(2, f"for i in range({rows}):")
    depth, shift = 3, "0"
    if stride[1] != 1:
        w.line(3, f"for j in range({columns}):")
        depth, shift = 4, f"j * {n}"
    w.line(depth, f"q = (o * {rows} + i) * {columns * n} + {shift}")
    for r in range(a):
        row = f"(c * {height} + i * {stride[0]} + {r * dilation[0]}) * {width * n}"
        w.line(depth, f"r{r} = {row} + ({shift}) * {stride[1]}")
    # As many sums at a time as there are registers for.
    for start in range(0, taps, 16):
        w.line(depth, f"for k in range({run}):")
        w.line(depth + 1, f"g = {w.load(g.root, 'q + k')}")
        for t in range(start, min(start + 16, taps)):
            at = f"r{t // b} + k + {t % b * dilation[1] * n}"
            w.line(depth + 1, f"s{t} = plus(s{t}, times(g, {w.load(x.root, at)}))")
    for t in range(taps):
        w.line(2, w.store(i.out, _at(y, t // b, t % b, "c", "o"), f"s{t}"))
    return True


# --- Pooling --------------------------------------------------------------------------------------


def _pool_loops(w: Writer, x: Place, out: Any, *, apart: bool = True) -> None:
    """Loops over windows, in the order in which the images lie; those apart may be shared."""
    for depth, axis in enumerate(sorted(range(4), key=lambda a: -x.strides[a])):
        free = not w.shared and (apart or axis in (0, 3))
        span = w.share(out[axis]) if free else f"0, {out[axis]}"
        w.line(depth, f"for {'nijc'[axis]} in range({span}):")


def _window_reads(w: Writer, x: Place, size: Any, stride: Any) -> None:
    for t in range(size[0] * size[1]):
        i, j = f"i * {stride[0]} + {t // size[1]}", f"j * {stride[1]} + {t % size[1]}"
        w.line(4, f"x{t} = {w.load(x.root, _at(x, 'n', i, j, 'c'))}")


def _largest(w: Writer, taps: int) -> None:
    w.line(4, "y = x0")
    for t in range(1, taps):
        w.line(4, f"y = larger(y, x{t})")


def _fits_pool(w: Writer, i: Instruction) -> bool:
    return len(w.layout.places[i.args[0].index].shape) == 4 and math.prod(i.params["size"]) <= 16


def _pool(w: Writer, i: Instruction) -> bool:
    (x,), y = _places(w, i), w.layout.places[i.out]
    if not _fits_pool(w, i) or w.dtype(x.root).kind != "f":
        return False
    size, stride = i.params["size"], i.params["stride"]
    _pool_loops(w, x, y.shape)
    _window_reads(w, x, size, stride)
    _largest(w, math.prod(size))
    w.line(4, w.store(i.out, _at(y, "n", "i", "j", "c"), "y"))
    return True


def _winners(w: Writer, i: Instruction) -> bool:
    x, y = _places(w, i)[0], w.layout.places[i.out]
    if not _fits_pool(w, i) or w.dtype(x.root).kind != "f":
        return False
    size, stride = i.params["size"], i.params["stride"]
    taps = math.prod(size)
    _pool_loops(w, x, y.shape)
    _window_reads(w, x, size, stride)
    _largest(w, taps)
    text = str(taps - 1)
    for t in reversed(range(taps - 1)):
        text = f"pick(x{t} == y, {t}, {text})"
    w.line(4, w.store(i.out, _at(y, "n", "i", "j", "c"), f"np.{w.dtype(i.out).name}({text})"))
    return True


def _unpool(w: Writer, i: Instruction) -> bool:
    g, winners = _places(w, i)
    y = w.layout.places[i.out]
    if not _fits_pool(w, i):
        return False
    size, stride = i.params["size"], i.params["stride"]
    zero = literal(0, w.dtype(i.out))
    apart = all(s >= k for s, k in zip(stride, size, strict=True))
    covered = all(
        n == m * k == m * s
        for n, m, k, s in zip(i.params["shape"], g.shape[1:3], size, stride, strict=True)
    )
    if not covered:
        w.line(0, f"for o in range({w.share(math.prod(y.shape))}):")
        w.line(1, w.store(i.out, "o", zero))
        w.meet()
    _pool_loops(w, winners, g.shape, apart=apart)
    w.line(4, f"g = {w.load(g.root, _at(g, 'n', 'i', 'j', 'c'))}")
    w.line(4, f"k = {w.load(winners.root, _at(winners, 'n', 'i', 'j', 'c'))}")
    for t in range(math.prod(size)):
        rows, columns = f"i * {stride[0]} + {t // size[1]}", f"j * {stride[1]} + {t % size[1]}"
        at = _at(y, "n", rows, columns, "c")
        value = f"pick(k == {t}, g, {zero})"
        w.line(4, w.store(i.out, at, value if apart else f"({w.load(i.out, at)} + {value})"))
    return True


KERNELS: dict[Any, Rule] = {
    linalg.matmul.forward: _matmul,
    np.matmul: _matmul,
    border: _border,
    turned: _turned,
    correlation: _correlation,
    correlation_dw: _correlation_dw,
    conv.max_pool.forward: _pool,
    hw5.pool_winners: _winners,
    conv.unpool.forward: _unpool,
}
# Results that lie in memory as one of their arguments does, by its number.
LIKE_ARGUMENT = {conv.max_pool.forward: 0, hw5.pool_winners: 0, conv.unpool.forward: 1}


def multiplications(instruction: Instruction, specs: dict[int, Spec]) -> int:
    """Count the products of numbers in a product of matrices or a convolution, else 0."""
    forward, out = instruction.op.forward, specs[instruction.out]
    if forward is correlation:
        filters = specs[instruction.args[1].index]
        return out.size * math.prod(filters.shape[:3])
    if forward is correlation_dw:
        return specs[instruction.args[0].index].size * math.prod(out.shape[:3])
    if forward in (linalg.matmul.forward, np.matmul):
        return out.size * specs[instruction.args[0].index].shape[-1]
    return 0
