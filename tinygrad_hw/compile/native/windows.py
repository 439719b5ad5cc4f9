"""Native loops for convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from ..program import Instruction
from .layout import Place, places
from .matrices import lanes_of, tile_of
from .processor import vectors
from .scalars import literal
from .writer import Writer

# Entries in a row of a filter: of more, gradients are left to NumPy.
_TAPS = 64
# Bytes that leave the fastest cache room for what else a loop reads.
_NEAR = 2**16


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

    def place(self, i: str, c: str, r: str) -> str:
        """Spell where row r of the windows of row i begins in channel c."""
        _, height, width, n = self.x.shape
        row = f"{c} * {height} + {i} * {self.stride[0]} + {r} * {self.dilation[0]}"
        return f"({row}) * {width * n}"


def correlation(w: Writer, i: Instruction) -> bool:
    """In each run of windows a product of filters and of what stands at each of their entries."""
    x, f, *bias = places(w.layout, i)
    y = w.layout.places[i.out]
    a, b, c1, c2 = f.shape
    window = {key: i.params[key] for key in ("out", "stride", "dilation")}
    rows = _Rows(x, (a, b), **window)
    _, height, width, n = x.shape
    tile = tile_of(c2, rows.run, w.dtype(i.out).itemsize)
    w.line(0, f"for i in range({w.share(rows.out[0])}):")
    depth, start = rows.go(w, 1)
    images = _beyond(w, x, f"{rows.place('i', '0', '0')} + ({start}) * {rows.stride[1]}")
    result = _beyond(w, y, f"i * {rows.row} + {start}")
    terms = (
        (c1, f.strides[2], height * width * n),
        (a, f.strides[0], rows.dilation[0] * width * n),
        (b, f.strides[1], rows.dilation[1] * n),
    )
    given: list[Any] = [tile, (c2, rows.run), (f.strides[3], y.shape[1] * rows.row), terms]
    if bias:
        given += [w.memory(bias[0].root, bias[0].offset), bias[0].strides[0], i.params["relu"]]
    filters, count = w.memory(f.root, f.offset), -(-c2 // tile[0])
    shown = ", ".join(map(str, given))
    w.line(depth, f"product({filters}, {images}, {result}, 0, {count}, {shown})")
    return True


def correlation_dw(w: Writer, i: Instruction) -> bool:
    """For some filters at a time, all that stands at a row of their entries meets each gradient."""
    g, x = places(w.layout, i)
    y = w.layout.places[i.out]
    rows = _Rows(x, **i.params)
    height, width, channels, filters = y.shape
    if g.strides != (1,) or width > _TAPS:
        return False
    w.line(0, f"for k in range({w.share(math.prod(y.shape))}):")
    w.line(1, w.store(i.out, "k", literal(0, w.dtype(i.out))))
    w.meet()
    # Sums, gradients and what they meet are in registers.
    most = max(1, min((vectors()[1] - 1) // (width + 1), 8))
    block = -(-filters // -(-filters // most))
    whole = filters // block
    # Rows of gradients that stay in the cache for all that they meet.
    some = max(1, _NEAR // (block * rows.row * w.dtype(i.out).itemsize))
    w.line(0, f"for p in range(0, {rows.out[0]}, {some}):")
    w.line(1, f"e = min(p + {some}, {rows.out[0]})")
    for first, count, size in ((0, whole, block), (whole * block, 1, filters - whole * block)):
        if size:
            w.line(1, f"for q in range({count}):")
            w.line(2, f"o = q * {block} + {first}")
            w.line(2, f"for t in range({w.share(channels * height)}):")
            w.line(3, f"c = t // {height}")
            w.line(3, f"r = t - c * {height}")
            w.line(3, _scalar_products(w, rows, g, i.out, size))
    return True


def _scalar_products(w: Writer, rows: _Rows, g: Place, out: int, filters: int) -> str:
    """Spell what rows p to e of results, of filters from o on, add to row r of channel c."""
    y, (_, _, width, n) = w.layout.places[out], rows.x.shape
    lanes = lanes_of(rows.run, w.dtype(out).itemsize)
    apart = rows.out[0] * rows.row, rows.dilation[1] * n
    counts, steps = (filters, rows.size[1]), (y.strides[3], y.strides[1])
    loops = [f"(e - p, {rows.row}, {rows.stride[0] * width * n})"]
    if rows.run < rows.row:
        loops.append(str((rows.out[1], rows.run, rows.run * rows.stride[1])))
    given = [
        _beyond(w, g, f"(o * {rows.out[0]} + p) * {rows.row}"),
        _beyond(w, rows.x, rows.place("p", "c", "r")),
        _beyond(w, y, _at(y, "r", 0, "c", "o")),
        *(lanes, rows.run, counts, apart, steps, *loops),
    ]
    return f"add_scalar_products({', '.join(map(str, given))})"


def _beyond(w: Writer, place: Place, index: str) -> str:
    return f"beyond({w.memory(place.root, place.offset)}, {index})"


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
    return _to_windows(w, i, {"g": g}, ["g"] * math.prod(i.params["size"]))


def unpool(w: Writer, i: Instruction) -> bool:
    """Give the winner of each window its entry."""
    g, winners = places(w.layout, i)
    masks = [f"k == {t}" for t in range(math.prod(i.params["size"]))]
    return _to_windows(w, i, {"k": winners, "g": g}, _masked(w, i, masks))


def pool_dx(w: Writer, i: Instruction) -> bool:
    """The same, the winner found on the way; where a relu made it, if it is positive."""
    g, x, y = places(w.layout, i)
    taps, zero = math.prod(i.params["size"]), literal(0, w.dtype(i.out))
    masks = []
    for t in range(taps):
        terms = [f"(x{k} != y)" for k in range(t)]
        terms += [f"(x{t} == y)"] * (t < taps - 1) + [f"(x{t} > {zero})"] * i.params["relu"]
        masks.append(" & ".join(terms))
    return _to_windows(w, i, {"y": y, "g": g}, _masked(w, i, masks), x)


def _masked(w: Writer, i: Instruction, masks: list[str]) -> list[str]:
    zero = literal(0, w.dtype(i.out))
    return [f"pick({mask}, g, {zero})" if mask else "g" for mask in masks]


def _to_windows(
    w: Writer, i: Instruction, given: dict[str, Place], entries: list[str], x: Place | None = None
) -> bool:
    """Add to each window its entries, spelled by what is given of it and by those of ``x``."""
    if not _fits_pool(w, i):
        return False
    y, like = w.layout.places[i.out], next(iter(given.values()))
    size, stride = i.params["size"], i.params["stride"]
    apart = all(s >= k for s, k in zip(stride, size, strict=True))
    covered = all(
        n == m * k == m * s
        for n, m, k, s in zip(i.params["shape"], like.shape[1:3], size, stride, strict=True)
    )
    if not covered:
        w.line(0, f"for o in range({w.share(math.prod(y.shape))}):")
        w.line(1, w.store(i.out, "o", literal(0, w.dtype(i.out))))
        w.meet()
    _pool_loops(w, x or like, like.shape, apart=apart)
    for name, place in given.items():
        w.line(4, f"{name} = {w.load(place.root, _at(place, 'n', 'i', 'j', 'c'))}")
    if x:
        _window_reads(w, x, size, stride)
    for t, entry in enumerate(entries):
        rows, columns = f"i * {stride[0]} + {t // size[1]}", f"j * {stride[1]} + {t % size[1]}"
        at = _at(y, "n", rows, columns, "c")
        w.line(4, w.store(i.out, at, entry if apart else f"({w.load(i.out, at)} + {entry})"))
    return True
