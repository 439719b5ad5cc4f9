"""Products of matrices in native code: in tiles whose sums stay in registers, or by BLAS."""

# mypy: ignore-errors
# Numba's extensions have types of their own, which are not Python's.

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_SIZE = ir.IntType(64)
# The sums of a tile stay in registers: some rows of so many vectors.
_TILE_VECTORS, _VECTOR_BYTES = 2, 32


class _Matrix:
    """A matrix in flat memory, whose offset and steps of rows and columns are known."""

    def __init__(self, builder, kind, memory, place):
        self.builder, self.data = builder, memory
        self.offset, *self.steps = (t.literal_value for t in place)
        self.itemsize = kind.dtype.bitwidth // 8

    def pointer(self, i, j):
        """Point to an entry."""
        index = _SIZE(self.offset)
        for place, step in zip((i, j), self.steps, strict=True):
            index = self.builder.add(index, self.builder.mul(place, _SIZE(step)))
        return self.builder.gep(self.data, [index], inbounds=True)

    def vector(self, i, j, kind):
        """Point to entries side by side."""
        return self.builder.bitcast(self.pointer(i, j), kind.as_pointer())


def _repeated(builder, number, kind):
    """A vector of one number."""
    first = builder.insert_element(kind(ir.Undefined), number, ir.IntType(32)(0))
    return builder.shuffle_vector(first, first, ir.VectorType(ir.IntType(32), kind.count)(None))


def _tile(builder, a, b, y, terms, top, left, rows, columns, kind):
    """Compute the entries of ``y`` in some rows, in vectors that begin at some columns.

    ``left`` is the first column in ``b`` and that in ``y``.
    """
    sums = [[cgutils.alloca_once(builder, kind) for _ in columns] for _ in range(rows)]
    for row in sums:
        for place in row:
            builder.store(kind(None), place)
    at = [builder.add(top, _SIZE(r)) for r in range(rows)]
    with cgutils.for_range(builder, _SIZE(terms)) as loop:
        starts = [builder.add(left[0], _SIZE(c)) for c in columns]
        across = [
            builder.load(b.vector(loop.index, start, kind), align=b.itemsize) for start in starts
        ]
        for r in range(rows):
            entry = _repeated(builder, builder.load(a.pointer(at[r], loop.index)), kind)
            for place, vector in zip(sums[r], across, strict=True):
                term = builder.fmul(entry, vector, flags=["contract"])
                total = builder.fadd(builder.load(place), term, flags=["contract"])
                builder.store(total, place)
    for r in range(rows):
        for column, place in zip(columns, sums[r], strict=True):
            start = builder.add(left[1], _SIZE(column))
            builder.store(builder.load(place), y.vector(at[r], start, kind), align=y.itemsize)


def _least_of(builder, number, most):
    smaller = builder.icmp_signed("<", number, _SIZE(most))
    return builder.select(smaller, number, _SIZE(most))


class _Product:
    """Writes the code of a product in tiles, from the arguments of :func:`product`."""

    def __init__(self, context, builder, signature, args):
        self.builder = builder
        kinds, values = signature.args, args
        self.rows, *sizes = (t.literal_value for t in kinds[5])
        self.height, self.width, self.terms = sizes
        self.a, self.b, self.y = (
            _Matrix(builder, kinds[i], values[i], kinds[i + 6]) for i in range(3)
        )
        self.first, self.last = values[3:5]
        lanes = _VECTOR_BYTES // self.a.itemsize
        while lanes > self.width:
            lanes //= 2
        self.kind = ir.VectorType(context.get_value_type(kinds[0].dtype), lanes)
        self.block = min(_TILE_VECTORS * lanes, self.width)
        self.columns = [min(c, self.block - lanes) for c in range(0, self.block, lanes)]

    def down(self, b, left, first, last):
        """Go through tiles of rows."""
        builder = self.builder
        with cgutils.for_range_slice(builder, first, last, _SIZE(1)) as (tile, _):
            top = builder.mul(tile, _SIZE(self.rows))
            top = _least_of(builder, top, self.height - self.rows)
            matrices, shape = (self.a, b, self.y), (self.rows, self.columns, self.kind)
            _tile(builder, *matrices, self.terms, top, left, *shape)

    def left_of(self, block):
        """The first column of a block of columns."""
        start = self.builder.mul(block, _SIZE(self.block))
        return _least_of(self.builder, start, self.width - self.block)

    def pack(self, left, packed):
        """Copy a block of columns of ``b`` to where it lies without gaps."""
        builder = self.builder
        with cgutils.for_range(builder, _SIZE(self.terms)) as loop:
            for c in range(self.block):
                entry = builder.load(self.b.pointer(loop.index, builder.add(left, _SIZE(c))))
                builder.store(entry, packed.pointer(loop.index, _SIZE(c)))


@intrinsic(prefer_literal=True)
def product(typingctx, a, b, y, first, last, sizes, place_a, place_b, place_y):
    """``y = a @ b``, in tiles of rows number ``first`` to ``last``.

    ``sizes`` are rows in a tile, rows and columns of ``y``, and terms of its sums; the places are
    ``(offset, step of rows, step of columns)``, where columns of ``b`` and ``y`` lie side by side.
    The last tile begins earlier instead of being smaller: it computes some entries once more.
    """
    signature = types.void(a, b, y, types.intp, types.intp, sizes, place_a, place_b, place_y)

    def codegen(context, builder, signature, args):
        p = _Product(context, builder, signature, args)
        with cgutils.for_range(builder, _SIZE(-(-p.width // p.block))) as across:
            left = p.left_of(across.index)
            p.down(p.b, (left, left), p.first, p.last)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def packed_product(typingctx, a, b, y, first, last, sizes, place_a, place_b, place_y, memory):
    """The same in blocks of columns number ``first`` to ``last``, each of which is packed first.

    ``b`` may lie in any way; ``memory`` has room for a block of its columns.
    """
    signature = types.void(
        a, b, y, types.intp, types.intp, sizes, place_a, place_b, place_y, memory
    )

    def codegen(context, builder, signature, args):
        p = _Product(context, builder, signature, args)
        place = [types.literal(n) for n in (0, p.block, 1)]
        packed = _Matrix(builder, signature.args[9], args[9], place)
        with cgutils.for_range_slice(builder, p.first, p.last, _SIZE(1)) as (block, _):
            left = p.left_of(block)
            p.pack(left, packed)
            p.down(packed, (_SIZE(0), left), _SIZE(0), _SIZE(-(-p.height // p.rows)))
        return context.get_dummy_value()

    return signature, codegen


# --- BLAS -----------------------------------------------------------------------------------------


def _in_memory(builder, value):
    """Point to a value: Fortran takes everything so."""
    place = cgutils.alloca_once(builder, value.type)
    builder.store(value, place)
    return place


def _as_fortran_sees(place, shape):
    """Give how BLAS is told of a matrix, which it thinks of by columns: transposed or not, and the
    distance of its long sides."""
    (rows, columns), (_, down, across) = shape, (t.literal_value for t in place)
    if across == 1 or columns == 1:
        return "N", down if rows > 1 else columns
    return "T", across


@intrinsic(prefer_literal=True)
def gemm(typingctx, blas, a, b, y, sizes, place_a, place_b, place_y):
    """``y = a @ b``, with the function of BLAS at an address.

    ``sizes`` are rows and columns of ``y`` and terms of its sums; the places are those of
    :func:`product`, where rows or columns lie side by side, those of ``y`` by rows.
    """
    signature = types.void(blas, a, b, y, sizes, place_a, place_b, place_y)

    def codegen(context, builder, signature, args):
        rows, columns, terms = (t.literal_value for t in sizes)
        number, whole = context.get_value_type(a.dtype), ir.IntType(32)
        # By columns it is the product of the transposed factors, in the other order.
        first = _as_fortran_sees(place_b, (terms, columns))
        second = _as_fortran_sees(place_a, (rows, terms))
        last = _as_fortran_sees(place_y, (rows, columns))
        letters = [_in_memory(builder, ir.IntType(8)(ord(m[0]))) for m in (first, second)]
        counts = [_in_memory(builder, whole(n)) for n in (columns, rows, terms)]
        steps = [_in_memory(builder, whole(m[1])) for m in (first, second, last)]
        one, zero = (_in_memory(builder, number(n)) for n in (1.0, 0.0))
        pointers = [
            builder.gep(memory, [_SIZE(place.types[0].literal_value)])
            for memory, place in zip(args[1:4], (place_a, place_b, place_y), strict=True)
        ]
        given = [*letters, *counts, one, pointers[1], steps[0], pointers[0], steps[1]]
        given += [zero, pointers[2], steps[2]]
        kind = ir.FunctionType(ir.VoidType(), [g.type for g in given])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), given)
        return context.get_dummy_value()

    return signature, codegen
