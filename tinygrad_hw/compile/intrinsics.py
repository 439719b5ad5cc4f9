"""What native code is made of: loads, stores, sums in any order, small products, exp and tanh.

Only this module and the generated ones import numba.
"""

# mypy: ignore-errors
# Numba's extensions have types of their own, which are not Python's.

from __future__ import annotations

import os

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_SIZE = ir.IntType(64)


def _scopes(builder, own, count):
    """Metadata that tells memory ``own`` apart from the others of the function."""
    module = builder.module
    domain = module.add_metadata(["tinygrad_hw"])
    scopes = [module.add_metadata([f"memory {i}", domain]) for i in range(count)]
    others = [scope for i, scope in enumerate(scopes) if i != own]
    return module.add_metadata([scopes[own]]), module.add_metadata(others or [scopes[own]])


def _mark(builder, instruction, memory, count):
    own, others = _scopes(builder, memory.literal_value, count.literal_value)
    instruction.set_metadata("alias.scope", own)
    if count.literal_value > 1:
        instruction.set_metadata("noalias", others)


def _pointer(context, builder, array_type, array, index):
    struct = context.make_array(array_type)(context, builder, array)
    return builder.gep(struct.data, [index], inbounds=True)


@intrinsic(prefer_literal=True)
def load(typingctx, array, index, memory, count):
    """``array[index]`` without a test of the sign of the index."""
    signature = array.dtype(array, types.intp, memory, count)

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        value = builder.load(pointer)
        _mark(builder, value, memory, count)
        model = context.data_model_manager[signature.return_type]
        return model.from_data(builder, value)

    return signature, codegen


@intrinsic(prefer_literal=True)
def store(typingctx, array, index, value, memory, count):
    """``array[index] = value``; the value has the array's dtype."""
    signature = types.void(array, types.intp, array.dtype, memory, count)

    def codegen(context, builder, signature, args):
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        model = context.data_model_manager[signature.args[2]]
        stored = builder.store(model.as_data(builder, args[2]), pointer)
        _mark(builder, stored, memory, count)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def plus(typingctx, total, term):
    """Add to a sum whose terms may be added in any order; NaN and infinities stay."""
    signature = total(total, total)

    def codegen(context, builder, signature, args):
        if isinstance(signature.return_type, types.Float):
            return builder.fadd(*args, flags=["reassoc", "contract"])
        return builder.add(*args)

    return signature, codegen


@intrinsic
def times(typingctx, a, b):
    """Multiply; a sum may take the product without rounding it first."""
    signature = a(a, a)

    def codegen(context, builder, signature, args):
        return builder.fmul(*args, flags=["contract"])

    return signature, codegen


@intrinsic
def _fused(typingctx, a, b, c):
    """``a * b + c``, rounded once where the processor can, else twice."""
    signature = c(c, c, c)

    def codegen(context, builder, signature, args):
        product = builder.fmul(args[0], args[1], flags=["contract"])
        return builder.fadd(product, args[2], flags=["contract"])

    return signature, codegen


@intrinsic
def _float_of_bits(typingctx, bits):
    signature = types.float32(types.int32)

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return signature, codegen


def _chosen(predicate):
    """The intrinsic that gives ``a`` where it compares so with ``b``, else ``b``: min or max."""

    def choice(typingctx, a, b):
        signature = a(a, a)

        def codegen(context, builder, signature, args):
            return builder.select(builder.fcmp_ordered(predicate, *args), *args)

        return signature, codegen

    return intrinsic(choice)


# One instruction of the processor each. Where one is NaN they give the second.
_least, _most = _chosen("<"), _chosen(">")


# --- Threads --------------------------------------------------------------------------------------

# So long a thread waits before it lets others have its core.
_PATIENCE = 2000


@intrinsic
def _arrive(typingctx, counter):
    """Add one to the counter; give what it was."""
    signature = types.int64(counter)

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", data, _SIZE(1), "seq_cst")

    return signature, codegen


@intrinsic
def _arrived(typingctx, counter):
    """Read the counter."""
    signature = types.int64(counter)

    def codegen(context, builder, signature, args):
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(data, "acquire", align=8)

    return signature, codegen


@intrinsic
def _let_pass(typingctx):
    """Let another thread have the core."""

    def codegen(context, builder, signature, args):
        if os.name == "posix":
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@njit
def meet(counter, crew):
    """Wait until all threads of the crew are here."""
    if crew == 1:
        return
    everybody = (_arrive(counter) // crew + 1) * crew
    waited = 0
    while _arrived(counter) < everybody:
        waited += 1
        if waited > _PATIENCE:
            _let_pass()


# --- Small matrix products ------------------------------------------------------------------------

# The sums of a tile stay in registers: some rows of so many vectors.
_TILE_VECTORS, _VECTOR_BYTES = 2, 32


class _Matrix:
    """A matrix in flat memory, whose offset and steps of rows and columns are known."""

    def __init__(self, context, builder, array_type, array, place):
        self.builder = builder
        self.data = context.make_array(array_type)(context, builder, array).data
        self.offset, *self.steps = (t.literal_value for t in place)
        self.itemsize = array_type.dtype.bitwidth // 8

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
            _Matrix(context, builder, kinds[i], values[i], kinds[i + 6]) for i in range(3)
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
        packed = _Matrix(context, builder, signature.args[9], args[9], place)
        with cgutils.for_range_slice(builder, p.first, p.last, _SIZE(1)) as (block, _):
            left = p.left_of(block)
            p.pack(left, packed)
            p.down(packed, (_SIZE(0), left), _SIZE(0), _SIZE(-(-p.height // p.rows)))
        return context.get_dummy_value()

    return signature, codegen


# --- Functions of one number ----------------------------------------------------------------------

F = np.float32
_TOP, _BOTTOM = F(89.0), F(-104.0)
_PER_LOG2, _LOG2_HIGH, _LOG2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
_E0, _E1, _E2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
_E3, _E4, _E5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
_ONE, _HALF = F(1.0), F(0.5)


@njit(forceinline=True, error_model="numpy")
def exp32(x):
    """Exponential of a float32, to 2 units in the last place, without a call or a branch.

    Cephes' expf (Moshier 1992): x = n log 2 + r, and a polynomial for exp(r).
    """
    z = _most(_least(x, _TOP), _BOTTOM)
    n = np.floor(_fused(z, _PER_LOG2, _HALF))
    r = _fused(n, -_LOG2_LOW, _fused(n, -_LOG2_HIGH, z))
    p = _fused(_fused(_E0, r, _E1), r, _E2)
    p = _fused(_fused(_fused(p, r, _E3), r, _E4), r, _E5)
    p = _fused(p, r * r, r + _ONE)
    whole = np.int32(n)
    half = np.int32(whole >> np.int32(1))
    # Two factors, since 2**n itself may be no normal number.
    one = _float_of_bits(np.int32((half + np.int32(127)) << np.int32(23)))
    two = _float_of_bits(np.int32((whole - half + np.int32(127)) << np.int32(23)))
    return x if x != x else p * one * two


_LIMIT = F(9.0)
_A1, _A3, _A5 = F(4.89352455891786e-03), F(6.37261928875436e-04), F(1.48572235717979e-05)
_A7, _A9 = F(5.12229709037114e-08), F(-8.60467152213735e-11)
_A11, _A13 = F(2.00018790482477e-13), F(-2.76076847742355e-16)
_B0, _B2 = F(4.89352518554385e-03), F(2.26843463243900e-03)
_B4, _B6 = F(1.18534705686654e-04), F(1.19825839466702e-06)


@njit(forceinline=True, error_model="numpy")
def tanh32(x):
    """Hyperbolic tangent of a float32, to 3 units in the last place (Eigen's rational function)."""
    z = _most(_least(x, _LIMIT), -_LIMIT)
    s = z * z
    p = _fused(_fused(_fused(_A13, s, _A11), s, _A9), s, _A7)
    p = _fused(_fused(_fused(p, s, _A5), s, _A3), s, _A1)
    q = _fused(_fused(_fused(_B6, s, _B4), s, _B2), s, _B0)
    y = _most(_least(z * p / q, _ONE), -_ONE)
    return x if x != x else y


@njit(forceinline=True, error_model="numpy")
def sigmoid32(x):
    """Logistic function of a float32."""
    return _HALF * tanh32(_HALF * x) + _HALF


@njit(forceinline=True, error_model="numpy")
def larger(a, b):
    """Maximum as NumPy's: NaN if one is."""
    return a if (a > b or a != a) else b


@njit(forceinline=True, error_model="numpy")
def smaller(a, b):
    """Minimum as NumPy's: NaN if one is."""
    return a if (a < b or a != a) else b
