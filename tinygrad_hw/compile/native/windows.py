"""Native loops for convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

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


class _Rows(NamedTuple):
    """Windows in bordered images (C1, H, W, N): at stride 1 those of a row lie in one run.

    Image lies by image, so that else those at one place do.
    """

    x: Place
    size: tuple[int, int]
    out: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def row(self) -> int:
        """Entries of a row of results."""
        return self.out[1] * self.x.shape[3]

    @property
    def run(self) -> int:
        """Entries in a run."""
        return self.row if self.stride[1] == 1 else self.x.shape[3]

    def go(self, w: Writer, depth: int) -> tuple[int, str]:
        """Write the loop over runs of a row; give how deep it is, and where a run begins in it."""
        if self.stride[1] == 1:
            return depth, "0"
        w.line(depth, f"for j in range({self.out[1]}):")
        return depth + 1, f"j * {self.x.shape[3]}"

    def begin(self, w: Writer, depth: int, start: str) -> None:
        """Write where each row of a window begins, for run ``start`` of channel c and row i."""
        _, height, width, n = self.x.shape
        for r in range(self.size[0]):
            row = f"(c * {height} + i * {self.stride[0]} + {r * self.dilation[0]}) * {width * n}"
            w.line(depth, f"r{r} = {row} + ({start}) * {self.stride[1]}")

    def read(self, w: Writer, t: int) -> str:
        """Spell entry ``t`` of the window at ``k`` in the run."""
        r, across = divmod(t, self.size[1])
        return w.load(self.x.root, f"r{r} + k + {across * self.dilation[1] * self.x.shape[3]}")


def correlation(w: Writer, i: Instruction) -> bool:
    """Rows of windows at once; for a few filters at a time, each entry read meets all of them."""
    x, f = places(w.layout, i)
    y = w.layout.places[i.out]
    a, b, _, c2 = f.shape
    rows = _Rows(x, (a, b), **i.params)
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
        w.line(1, f"for i in range({w.share(rows.out[0])}):")
        w.line(2, f"for c in range({x.shape[0]}):")
        for k, filter_ in enumerate(filters):
            for t in range(taps):
                weight = w.load(f.root, _at(f, t // b, t % b, "c", filter_))
                w.line(3, f"w{k}_{t} = {weight}")
        depth, start = rows.go(w, 3)
        for k, filter_ in enumerate(filters):
            w.line(depth, f"q{k} = (({filter_}) * {y.shape[1]} + i) * {rows.row} + {start}")
        rows.begin(w, depth, start)
        _sum_up(w, depth, rows, i.out, size)
    return True


def _sum_up(w: Writer, depth: int, rows: _Rows, out: int, filters: int) -> None:
    """Add what some filters make of a run of channel c to what they made of those before."""
    taps, zero = math.prod(rows.size), literal(0, w.dtype(out))
    for first in (True, False)[: min(rows.x.shape[0], 2)]:
        w.line(depth, "if c == 0:" if first else "else:")
        w.line(depth + 1, f"for k in range({rows.run}):")
        for t in range(taps):
            w.line(depth + 2, f"x{t} = {rows.read(w, t)}")
        for o in range(filters):
            total = zero if first else w.load(out, f"q{o} + k")
            for t in range(taps):
                total = f"plus(times(x{t}, w{o}_{t}), {total})"
            w.line(depth + 2, w.store(out, f"q{o} + k", total))


def correlation_dw(w: Writer, i: Instruction) -> bool:
    g, x = places(w.layout, i)
    y = w.layout.places[i.out]
    rows = _Rows(x, **i.params)
    taps, b = math.prod(rows.size), rows.size[1]
    if g.strides != (1,) or taps > _UNROLLED:
        return False
    zero = literal(0, w.dtype(i.out))
    w.line(0, f"for c in range({x.shape[0]}):")
    w.line(1, f"for o in range({w.share(y.shape[3])}):")
    for t in range(taps):
        w.line(2, f"s{t} = {zero}")
    w.line(2, f"for i in range({rows.out[0]}):")
    depth, start = rows.go(w, 3)
    w.line(depth, f"q = (o * {rows.out[0]} + i) * {rows.row} + {start}")
    rows.begin(w, depth, start)
    # As many sums at a time as there are registers for.
    for first in range(0, taps, 16):
        w.line(depth, f"for k in range({rows.run}):")
        w.line(depth + 1, f"g = {w.load(g.root, 'q + k', g.offset)}")
        for t in range(first, min(first + 16, taps)):
            w.line(depth + 1, f"s{t} = plus(s{t}, times(g, {rows.read(w, t)}))")
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


def _fits_pool(w: Writer, i: Instruction) -> bool:
    return len(w.layout.places[i.args[0].index].shape) == 4 and math.prod(i.params["size"]) <= 16


def _of_windows(w: Writer, i: Instruction, spell: Callable[[Writer, int], str]) -> bool:
    """Make one entry of those of each window, spelled by how many they are."""
    x, y = places(w.layout, i)[0], w.layout.places[i.out]
    if not _fits_pool(w, i) or w.dtype(x.root).kind != "f":
        return False
    size = i.params["size"]
    _pool_loops(w, x, y.shape)
    _window_reads(w, x, size, i.params["stride"])
    made = f"np.{w.dtype(i.out).name}({spell(w, math.prod(size))})"
    w.line(4, w.store(i.out, _at(y, "n", "i", "j", "c"), made))
    return True


def _largest(w: Writer, taps: int) -> str:
    w.line(4, "y = x0")
    for t in range(1, taps):
        w.line(4, f"y = larger(y, x{t})")
    return "y"


def _winner(w: Writer, taps: int) -> str:
    y, text = _largest(w, taps), str(taps - 1)
    for t in reversed(range(taps - 1)):
        text = f"pick(x{t} == {y}, {t}, {text})"
    return text


def _sum(w: Writer, taps: int) -> str:
    return " + ".join(f"x{t}" for t in range(taps))


def pool(w: Writer, i: Instruction) -> bool:
    """Largest entry of each window."""
    return _of_windows(w, i, _largest)


def winners(w: Writer, i: Instruction) -> bool:
    """Number of the first largest entry of each window."""
    return _of_windows(w, i, _winner)


def total(w: Writer, i: Instruction) -> bool:
    """Sum of each window."""
    return _of_windows(w, i, _sum)


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
