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
# Terms of the sums that are added in one round of the loop.
_UNROLLED = 4


class _Matrix:
    """A matrix in flat memory."""

    def __init__(self, builder: Builder, memory: Memory, lie: Lie) -> None:
        self.builder, self.memory = builder, memory
        self.steps = lie
        self.itemsize = memory.dtype.itemsize

    def pointer(self, i: Any, j: Any) -> Any:
        """Point to an entry."""
        down, across = (
            self.builder.mul(place, SIZE(step))
            for place, step in zip((i, j), self.steps, strict=True)
        )
        index = self.builder.add(down, across)
        return self.builder.gep(self.memory.code, [index], inbounds=True)

    def vector(self, i: Any, j: Any, vector: Any) -> Any:
        """Point to entries side by side."""
        return self.builder.bitcast(self.pointer(i, j), vector.as_pointer())


def _repeated(builder: Builder, entry: Any, vector: Any) -> Any:
    """A vector of one number."""
    first = builder.insert_element(vector(ir.Undefined), entry, WHOLE(0))
    return builder.shuffle_vector(first, first, ir.VectorType(WHOLE, vector.count)(None))


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
        sizes: tuple[int, int, int],
        lies: Any,
    ) -> None:
        self.builder = builder
        self.rows, vectors, lanes = tile
        self.height, self.width, self.terms = sizes
        self.a, self.b, self.y = (
            _Matrix(builder, memory, lie) for memory, lie in zip(factors, lies, strict=True)
        )
        self.vector = ir.VectorType(kind(factors[0].dtype), lanes)
        self.block = min(vectors * lanes, self.width)
        self.columns = [min(c, self.block - lanes) for c in range(0, self.block, lanes)]

    def down(self, b: _Matrix, left: tuple[Any, Any], first: Any, last: Any) -> None:
        """Go through tiles of rows; ``left`` is the first column in ``b`` and that in ``y``."""
        builder = self.builder
        with counting(builder, first, last) as tile:
            top = builder.mul(tile.code, SIZE(self.rows))
            self._tile(b, _least_of(builder, top, self.height - self.rows), left)

    def _tile(self, b: _Matrix, top: Any, left: tuple[Any, Any]) -> None:
        """Compute the entries of some rows, in vectors that begin at some columns."""
        builder, vector = self.builder, self.vector
        sums = [[slot(builder, vector) for _ in self.columns] for _ in range(self.rows)]
        for row in sums:
            for place in row:
                builder.store(vector(None), place)
        at = [builder.add(top, SIZE(r)) for r in range(self.rows)]
        starts = [builder.add(left[0], SIZE(c)) for c in self.columns]

        def add(term: Any) -> None:
            across = [
                builder.load(b.vector(term, start, vector), align=b.itemsize) for start in starts
            ]
            for r, row in enumerate(sums):
                entry = _repeated(builder, builder.load(self.a.pointer(at[r], term)), vector)
                for place, other in zip(row, across, strict=True):
                    product = builder.fmul(entry, other, flags=["contract"])
                    total = builder.fadd(builder.load(place), product, flags=["contract"])
                    builder.store(total, place)

        rest = self.terms % _UNROLLED
        with counting(builder, 0, self.terms - rest, _UNROLLED) as first:
            for k in range(_UNROLLED):
                add(builder.add(first.code, SIZE(k)))
        for k in range(self.terms - rest, self.terms):
            add(SIZE(k))
        for r, row in enumerate(sums):
            for column, place in zip(self.columns, row, strict=True):
                start = builder.add(left[1], SIZE(column))
                target = self.y.vector(at[r], start, vector)
                builder.store(builder.load(place), target, align=self.y.itemsize)

    def left_of(self, block: Value) -> Any:
        """The first column of a block of columns."""
        start = self.builder.mul(block.code, SIZE(self.block))
        return _least_of(self.builder, start, self.width - self.block)

    def pack(self, left: Any, packed: _Matrix) -> None:
        """Copy a block of columns of ``b`` to where it lies without gaps."""
        builder = self.builder
        with counting(builder, 0, self.terms) as term:
            for c in range(self.block):
                entry = builder.load(self.b.pointer(term.code, builder.add(left, SIZE(c))))
                builder.store(entry, packed.pointer(term.code, SIZE(c)))


@intrinsic
def product(
    builder: Builder,
    a: Memory,
    b: Memory,
    y: Memory,
    first: Any,
    last: Any,
    tile: Tile,
    sizes: tuple[int, int, int],
    *lies: Lie,
) -> None:
    """``y = a @ b``, in tiles of rows number ``first`` to ``last``.

    ``sizes`` are rows and columns of ``y``, and terms of its sums; the lies are those of ``a``,
    ``b`` and ``y``, where columns of ``b`` and ``y`` lie side by side. The last tile begins earlier
    instead of being smaller: it computes some entries once more.
    """
    p = _Product(builder, (a, b, y), tile, sizes, lies)
    with counting(builder, 0, -(-p.width // p.block)) as block:
        left = p.left_of(block)
        p.down(p.b, (left, left), first, last)


@intrinsic
def packed_product(
    builder: Builder,
    a: Memory,
    b: Memory,
    y: Memory,
    first: Any,
    last: Any,
    tile: Tile,
    sizes: tuple[int, int, int],
    *given: Any,
) -> None:
    """The same in blocks of columns number ``first`` to ``last``, each of which is packed first.

    ``b`` may lie in any way; the last of what is given is memory for a block of its columns.
    """
    *lies, memory = given
    p = _Product(builder, (a, b, y), tile, sizes, lies)
    packed = _Matrix(builder, memory, (p.block, 1))
    with counting(builder, first, last) as block:
        left = p.left_of(block)
        p.pack(left, packed)
        p.down(packed, (SIZE(0), left), 0, -(-p.height // p.rows))


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
