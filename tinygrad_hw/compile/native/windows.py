"""Native loops for convolution and pooling."""

from __future__ import annotations

import math
from typing import Any

from ..program import Instruction
from .layout import Place, places
from .scalars import literal
from .writer import Writer

# Products in one statement list: more would not fit the registers.
_UNROLLED = 64


def _at(place: Place, *names: str | int) -> str:
    """Spell the index of an entry, its position given axis by axis."""
    terms, offset = [], place.offset
    for name, stride in zip(names, place.strides, strict=True):
        if isinstance(name, int):
            offset += name * stride
        elif stride:
            terms.append(f"({name}) * {stride}" if stride != 1 else f"({name})")
    return " + ".join([*terms, str(offset)] if offset or not terms else terms)


# --- Convolution ----------------------------------------------------------------------------------


def border(w: Writer, i: Instruction) -> bool:
    (x,) = places(w.layout, i)
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


def spaced(w: Writer, i: Instruction) -> bool:
    """Zeros everywhere, and then the pixels."""
    (x,), y = places(w.layout, i), w.layout.places[i.out]
    (top, left), (down, across) = i.params["before"], i.params["step"]
    n, height, width, c = x.shape
    w.line(0, f"for k in range({w.share(math.prod(y.shape))}):")
    w.line(1, w.store(i.out, "k", literal(0, w.dtype(i.out))))
    w.meet()
    w.line(0, f"for c in range({c}):")
    w.line(1, f"for i in range({w.share(height)}):")
    w.line(2, f"for j in range({width}):")
    w.line(3, f"for k in range({n}):")
    target = _at(y, "c", f"i * {down} + {top}", f"j * {across} + {left}", "k")
    w.line(4, w.store(i.out, target, w.load(x.root, _at(x, "k", "i", "j", "c"))))
    return True


def turned(w: Writer, i: Instruction) -> bool:
    (x,), y = places(w.layout, i), w.layout.places[i.out]
    a, b, c1, c2 = x.shape
    for depth, (name, side) in enumerate(zip("abcd", (a, b, c1, c2), strict=True)):
        w.line(depth, f"for {name} in range({side}):")
    source = w.load(x.root, _at(x, "a", "b", "c", "d"))
    w.line(4, w.store(i.out, _at(y, f"{a - 1} - a", f"{b - 1} - b", "d", "c"), source))
    return True


def correlation(w: Writer, i: Instruction) -> bool:
    """Rows of windows at once: at stride 1 the windows of a row, image by image, lie in a run.

    For a few filters at a time, each entry that is read meets all of them.
    """
    x, f = places(w.layout, i)
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


def correlation_dw(w: Writer, i: Instruction) -> bool:
    g, x = places(w.layout, i)
    y = w.layout.places[i.out]
    c1, height, width, n = x.shape
    (a, b), (rows, columns), stride, dilation = (
        i.params[k] for k in ("size", "out", "stride", "dilation")
    )
    taps, c2 = a * b, y.shape[3]
    if g.strides != (1,) or taps > _UNROLLED:
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
        w.line(depth + 1, f"g = {w.load(g.root, 'q + k', g.offset)}")
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


def pool(w: Writer, i: Instruction) -> bool:
    (x,), y = places(w.layout, i), w.layout.places[i.out]
    if not _fits_pool(w, i) or w.dtype(x.root).kind != "f":
        return False
    size, stride = i.params["size"], i.params["stride"]
    _pool_loops(w, x, y.shape)
    _window_reads(w, x, size, stride)
    _largest(w, math.prod(size))
    w.line(4, w.store(i.out, _at(y, "n", "i", "j", "c"), "y"))
    return True


def winners(w: Writer, i: Instruction) -> bool:
    x, y = places(w.layout, i)[0], w.layout.places[i.out]
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


def total(w: Writer, i: Instruction) -> bool:
    """Sum of each window."""
    (x,), y = places(w.layout, i), w.layout.places[i.out]
    if not _fits_pool(w, i) or w.dtype(x.root).kind != "f":
        return False
    _pool_loops(w, x, y.shape)
    _window_reads(w, x, i.params["size"], i.params["stride"])
    terms = [f"x{t}" for t in range(math.prod(i.params["size"]))]
    w.line(4, w.store(i.out, _at(y, "n", "i", "j", "c"), " + ".join(terms)))
    return True


def spread(w: Writer, i: Instruction) -> bool:
    """Adjoint of :func:`total`."""
    (g,) = places(w.layout, i)
    return _fits_pool(w, i) and _to_windows(w, i, g, None)


def unpool(w: Writer, i: Instruction) -> bool:
    """Give the winner of each window its entry."""
    g, winners = places(w.layout, i)
    return _fits_pool(w, i) and _to_windows(w, i, g, winners)


def _to_windows(w: Writer, i: Instruction, g: Place, winners: Place | None) -> bool:
    """Add each entry to the winner of its window, or to all of the window."""
    y = w.layout.places[i.out]
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
    _pool_loops(w, winners or g, g.shape, apart=apart)
    w.line(4, f"g = {w.load(g.root, _at(g, 'n', 'i', 'j', 'c'))}")
    if winners:
        w.line(4, f"k = {w.load(winners.root, _at(winners, 'n', 'i', 'j', 'c'))}")
    for t in range(math.prod(size)):
        rows, columns = f"i * {stride[0]} + {t // size[1]}", f"j * {stride[1]} + {t % size[1]}"
        at = _at(y, "n", rows, columns, "c")
        value = f"pick(k == {t}, g, {zero})" if winners else "g"
        w.line(4, w.store(i.out, at, value if apart else f"({w.load(i.out, at)} + {value})"))
    return True
