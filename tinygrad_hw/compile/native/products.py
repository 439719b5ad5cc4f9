"""Products of matrices in native code: in tiles whose sums stay in registers, or by BLAS."""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from .emission import LETTER, SIZE, WHOLE, Builder, Memory, Value, counting, kind, number, slot
from .intrinsics import intrinsic

# How a matrix lies in memory: its steps of rows and of columns.
Lie = tuple[int, int]
# A tile, whose sums stay in registers: its rows, its vectors in a row, entries in a vector.
Tile = tuple[int, int, int]
# Terms of sums in nested loops: how many, and the steps of both factors.
Terms = tuple[tuple[int, int, int], ...]
# Terms that are added in one round of the innermost loop.
_UNROLLED = 8


def _repeated(builder: Builder, entry: Any, vector: Any) -> Any:
    """A vector of one number."""
    first = builder.insert_element(vector(ir.Undefined), entry, WHOLE(0))
    return builder.shuffle_vector(first, first, ir.VectorType(WHOLE, vector.count)(None))


def _zeros(builder: Builder, vector: Any, rows: int, columns: int) -> list[list[Any]]:
    """Places for the sums of a tile, which begin as zeros."""
    sums = [[slot(builder, vector) for _ in range(columns)] for _ in range(rows)]
    for row in sums:
        for place in row:
            builder.store(vector(None), place)
    return sums


def _add_product(builder: Builder, place: Any, a: Any, b: Any, mask: Any = None) -> None:
    """Add a product of vectors to a sum, where a mask holds if one is given."""
    product = builder.fmul(a, b, flags=["contract"])
    if mask is not None:
        product = builder.select(mask, product, product.type(None))
    total = builder.fadd(builder.load(place), product, flags=["contract"])
    builder.store(total, place)


def _part(builder: Builder, vector: Any, start: int, count: int) -> Any:
    """Some entries of a vector, side by side."""
    places = ir.VectorType(WHOLE, count)([WHOLE(start + k) for k in range(count)])
    return builder.shuffle_vector(vector, vector, places)


def _least_of(builder: Builder, index: Any, most: int) -> Any:
    smaller = builder.icmp_signed("<", index, SIZE(most))
    return builder.select(smaller, index, SIZE(most))


class _Product:
    """Writes the code of a product in tiles, from what :func:`product` is given."""

    def __init__(
        self,
        builder: Builder,
        factors: tuple[Memory, Memory, Memory],
        tile: Tile,
        sizes: tuple[int, int],
        steps: tuple[int, int],
    ) -> None:
        self.builder = builder
        self.a, self.b, self.y = factors
        self.rows, vectors, lanes = tile
        self.height, self.width = sizes
        self.steps = steps
        self.vector = ir.VectorType(kind(self.a.dtype), lanes)
        self.half = ir.VectorType(kind(self.a.dtype), lanes // 2)
        self.block = min(vectors * lanes, self.width)
        self.columns = [max(min(c, self.block - lanes), 0) for c in range(0, self.block, lanes)]
        # What is added to each row at the end: a memory of numbers, its step, and whether to make
        # zeros of what is negative.
        self.end: Any = None

    def at(self, memory: Memory, *terms: tuple[Any, int]) -> Any:
        """Point to an entry, given positions and their steps."""
        builder, index = self.builder, SIZE(0)
        for position, step in terms:
            index = builder.add(index, builder.mul(position, SIZE(step)))
        return builder.gep(memory.code, [index], inbounds=True)

    def down(self, b: Memory, terms: Terms, left: tuple[Any, Any], first: Any, last: Any) -> None:
        """Go through tiles of rows; ``left`` is the first column in ``b`` and that in ``y``."""
        builder = self.builder
        with counting(builder, first, last) as tile:
            top = builder.mul(tile.code, SIZE(self.rows))
            self._tile(b, terms, _least_of(builder, top, self.height - self.rows), left)

    def _tile(self, b: Memory, terms: Terms, top: Any, left: tuple[Any, Any]) -> None:
        """Compute the entries of some rows, in vectors that begin at some columns."""
        builder = self.builder
        sums = _zeros(builder, self.vector, self.rows, len(self.columns))
        first = self.at(self.a, (top, self.steps[0]))
        self._add_up(sums, first, self.at(b, (left[0], 1)), terms)
        for r, row in enumerate(sums):
            down = builder.add(top, SIZE(r))
            for column, place in zip(self.columns, row, strict=True):
                across = builder.add(left[1], SIZE(column))
                target = self.at(self.y, (down, self.steps[1]), (across, 1))
                self._store(self._ended(builder.load(place), down), target)

    def _ended(self, value: Any, row: Any) -> Any:
        """Add the row's number to a vector, and make zeros of what is negative, if wanted."""
        if self.end is None:
            return value
        builder, (bias, step, relu) = self.builder, self.end
        number = builder.load(self.at(bias, (row, step)))
        value = builder.fadd(value, _repeated(builder, number, self.vector))
        if not relu:
            return value
        # NaN stays.
        kept = builder.fcmp_unordered(">", value, self.vector(None))
        return builder.select(kept, value, self.vector(None))

    def _load(self, pointer: Any) -> Any:
        """Read a vector; of fewer columns than it has entries two halves, which overlap."""
        lanes, rest = self.vector.count, self.vector.count - self.width
        if rest <= 0:
            return self._read(pointer, self.vector)
        low, high = (self._read(p, self.half) for p in self._halves(pointer))
        order = [k if k < lanes // 2 else min(k + rest, lanes - 1) for k in range(lanes)]
        places = ir.VectorType(WHOLE, lanes)(list(map(WHOLE, order)))
        return self.builder.shuffle_vector(low, high, places)

    def _store(self, value: Any, pointer: Any) -> None:
        half, rest = self.half.count, self.width - self.half.count
        if rest >= half:
            return self._write(value, pointer)
        for start, place in zip((0, rest), self._halves(pointer), strict=True):
            self._write(_part(self.builder, value, start, half), place)

    def _halves(self, pointer: Any) -> tuple[Any, Any]:
        return pointer, self.builder.gep(pointer, [SIZE(self.width - self.half.count)])

    def _read(self, pointer: Any, vector: Any) -> Any:
        place = self.builder.bitcast(pointer, vector.as_pointer())
        return self.builder.load(place, align=self.b.dtype.itemsize)

    def _write(self, value: Any, pointer: Any) -> None:
        place = self.builder.bitcast(pointer, value.type.as_pointer())
        self.builder.store(value, place, align=self.y.dtype.itemsize)

    def _add_up(self, sums: Any, a: Any, b: Any, terms: Terms) -> None:
        """Add terms, given where the tile's first row and first column begin."""
        (count, *steps), inner = terms[0], terms[1:]
        builder, rest = self.builder, 0 if inner else count % _UNROLLED

        def beyond(term: Any) -> tuple[Any, Any]:
            down, across = (builder.mul(term, SIZE(step)) for step in steps)
            return builder.gep(a, [down], inbounds=True), builder.gep(b, [across], inbounds=True)

        if inner:
            with counting(builder, 0, count) as term:
                self._add_up(sums, *beyond(term.code), inner)
            return
        with counting(builder, 0, count - rest, _UNROLLED) as first:
            for k in range(_UNROLLED):
                self._add(sums, *beyond(builder.add(first.code, SIZE(k))))
        for k in range(count - rest, count):
            self._add(sums, *beyond(SIZE(k)))

    def _add(self, sums: Any, a: Any, b: Any) -> None:
        """Add the products of an entry of each row and of some vectors."""
        builder = self.builder
        vectors = [self._load(builder.gep(b, [SIZE(c)], inbounds=True)) for c in self.columns]
        for r, row in enumerate(sums):
            place = builder.gep(a, [SIZE(r * self.steps[0])], inbounds=True)
            entry = _repeated(builder, builder.load(place), self.vector)
            for total, vector in zip(row, vectors, strict=True):
                _add_product(builder, total, entry, vector)

    def left_of(self, block: Value) -> Any:
        """The first column of a block of columns."""
        start = self.builder.mul(block.code, SIZE(self.block))
        return _least_of(self.builder, start, self.width - self.block)

    def pack(self, left: Any, packed: Memory, count: int, lie: Lie) -> None:
        """Copy a block of columns of ``b``, which lies so, to where it lies without gaps."""
        builder = self.builder
        with counting(builder, 0, count) as term:
            for c in range(self.block):
                column = builder.add(left, SIZE(c))
                entry = builder.load(self.at(self.b, (term.code, lie[0]), (column, lie[1])))
                builder.store(entry, self.at(packed, (term.code, self.block), (SIZE(c), 1)))


@intrinsic
def product(
    builder: Builder,
    a: Memory,
    b: Memory,
    y: Memory,
    first: Any,
    last: Any,
    tile: Tile,
    sizes: tuple[int, int],
    steps: tuple[int, int],
    terms: Terms,
    *end: Any,
) -> None:
    """Sums of products of entries of ``a`` and rows of ``b``, in tiles ``first`` to ``last``.

    ``sizes`` are rows and columns of ``y``; ``steps`` those of the rows of ``a`` and of ``y``.
    Columns of ``b`` and ``y`` lie side by side. The last tile begins earlier instead of being
    smaller: it computes some entries once more. At the end a number is added to each row, if the
    memory of these is given with its step and whether to make zeros of what is negative.
    """
    p = _Product(builder, (a, b, y), tile, sizes, steps)
    p.end = end or None
    with counting(builder, 0, -(-p.width // p.block)) as block:
        left = p.left_of(block)
        p.down(b, terms, (left, left), first, last)


@intrinsic
def packed_product(
    builder: Builder,
    a: Memory,
    b: Memory,
    y: Memory,
    first: Any,
    last: Any,
    tile: Tile,
    sizes: tuple[int, int],
    steps: tuple[int, int],
    terms: tuple[int, int],
    lie: Lie,
    packed: Memory,
) -> None:
    """``y = a @ b`` in blocks of columns number ``first`` to ``last``, each packed first.

    ``b`` may lie in any way; ``terms`` are how many there are and the step of ``a``, and ``packed``
    is memory for a block of columns of ``b``.
    """
    p = _Product(builder, (a, b, y), tile, sizes, steps)
    count, step = terms
    with counting(builder, first, last) as block:
        left = p.left_of(block)
        p.pack(left, packed, count, lie)
        whole = ((count, step, p.block),)
        p.down(packed, whole, (SIZE(0), left), 0, -(-p.height // p.rows))


# --- Scalar products ------------------------------------------------------------------------------


class _Scalars:
    """Writes the code of scalar products, from what :func:`add_scalar_products` is given."""

    def __init__(self, builder: Builder, dtype: Any, lanes: int, rows: Any) -> None:
        self.builder, self.itemsize = builder, dtype.itemsize
        self.vector = ir.VectorType(kind(dtype), lanes)
        # Where rows begin, of both; and their sums.
        self.rows = rows
        self.sums = _zeros(builder, self.vector, *map(len, rows))

    def add_up(self, a: Any, b: Any, run: int, loops: Any) -> None:
        """Add what runs give, given where the first ones begin."""
        builder, lanes = self.builder, self.vector.count
        if loops:
            (count, *steps), *inner = loops
            with counting(builder, 0, count) as index:
                down, across = (builder.mul(index.code, SIZE(step)) for step in steps)
                self.add_up(self._beyond(a, down), self._beyond(b, across), run, inner)
            return
        rest = run % lanes
        with counting(builder, 0, run - rest, lanes) as k:
            self._add(self._beyond(a, k.code), self._beyond(b, k.code))
        if rest:
            # The last vector begins earlier, and of what it has again nothing is added.
            new = ir.VectorType(ir.IntType(1), lanes)([k >= lanes - rest for k in range(lanes)])
            last = SIZE(run - lanes)
            self._add(self._beyond(a, last), self._beyond(b, last), new)

    def _add(self, a: Any, b: Any, new: Any = None) -> None:
        """Add the products of vectors that begin at these entries."""
        ours = [self._load(a, step) for step in self.rows[0]]
        for n, step in enumerate(self.rows[1]):
            other = self._load(b, step)
            for our, row in zip(ours, self.sums, strict=True):
                _add_product(self.builder, row[n], our, other, new)

    def _beyond(self, pointer: Any, step: Any) -> Any:
        return self.builder.gep(pointer, [step], inbounds=True)

    def _load(self, pointer: Any, step: int) -> Any:
        place = self._beyond(pointer, SIZE(step))
        vectors = self.builder.bitcast(place, self.vector.as_pointer())
        return self.builder.load(vectors, align=self.itemsize)

    def total(self, place: Any) -> Any:
        """Add up the entries of a sum."""
        vector, count = self.builder.load(place), self.vector.count
        while count > 1:
            count //= 2
            low, high = (_part(self.builder, vector, start, count) for start in (0, count))
            vector = self.builder.fadd(low, high)
        return self.builder.extract_element(vector, WHOLE(0))


@intrinsic
def add_scalar_products(
    builder: Builder,
    a: Memory,
    b: Memory,
    y: Memory,
    lanes: int,
    run: int,
    counts: tuple[int, int],
    apart: tuple[int, int],
    steps: tuple[int, int],
    *loops: tuple[Any, int, int],
) -> None:
    """Add to a matrix ``y`` the scalar products of some rows of ``a`` with some of ``b``.

    There are ``counts`` rows, so far ``apart``, in ``a`` and ``b``. Each is runs of so many entries
    side by side, at the steps of loops: how often, and how far in ``a`` and ``b``. ``steps`` are
    those of ``y``, and ``lanes`` the entries of a vector, no more than those of a run.
    """
    rows = [range(0, count * step, step) for count, step in zip(counts, apart, strict=True)]
    w = _Scalars(builder, a.dtype, lanes, rows)
    w.add_up(a.code, b.code, run, loops)
    for m, row in enumerate(w.sums):
        for n, place in enumerate(row):
            index = SIZE(m * steps[0] + n * steps[1])
            target = builder.gep(y.code, [index], inbounds=True)
            builder.store(builder.fadd(builder.load(target), w.total(place)), target)


# --- BLAS -----------------------------------------------------------------------------------------


def _in_memory(builder: Builder, value: Any) -> Any:
    """Point to a value: Fortran takes everything so."""
    place = slot(builder, value.type)
    builder.store(value, place)
    return place


def _as_fortran_sees(lie: Lie, shape: tuple[int, int]) -> tuple[str, int]:
    """Give how BLAS is told of a matrix, which it thinks of by columns: transposed or not, and the
    distance of its long sides."""
    (rows, columns), (down, across) = shape, lie
    if across == 1 or columns == 1:
        return "N", down if rows > 1 else columns
    return "T", across


@intrinsic
def gemm(
    builder: Builder,
    blas: Value,
    a: Memory,
    b: Memory,
    y: Memory,
    sizes: tuple[int, int, int],
    *lies: Lie,
) -> None:
    """``y = a @ b``, with the function of BLAS at an address.

    ``sizes`` are rows and columns of ``y`` and terms of its sums; the lies are those of
    :func:`product`, where rows or columns lie side by side, those of ``y`` by rows.
    """
    rows, columns, terms = sizes
    # By columns it is the product of the transposed factors, in the other order.
    first = _as_fortran_sees(lies[1], (terms, columns))
    second = _as_fortran_sees(lies[0], (rows, terms))
    last = _as_fortran_sees(lies[2], (rows, columns))
    letters = [_in_memory(builder, LETTER(ord(m[0]))) for m in (first, second)]
    counts = [_in_memory(builder, WHOLE(n)) for n in (columns, rows, terms)]
    steps = [_in_memory(builder, WHOLE(m[1])) for m in (first, second, last)]
    one, zero = (_in_memory(builder, number(n, a.dtype).code) for n in (1, 0))
    given = [*letters, *counts, one, b.code, steps[0], a.code, steps[1], zero, y.code, steps[2]]
    shape = ir.FunctionType(ir.VoidType(), [g.type for g in given])
    builder.call(builder.inttoptr(blas.code, shape.as_pointer()), given)
