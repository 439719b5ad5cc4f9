"""What native code is made of: its arguments, loads, stores, sums in any order, exp and tanh.

A native function takes what a builtin function of Python takes: an array of pointers to objects.
Memory is a pointer to its first entry.
"""

# mypy: ignore-errors
# Numba's extensions have types of their own, which are not Python's.

from __future__ import annotations

import os
import struct

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_SIZE = ir.IntType(64)


# --- Arguments and result -------------------------------------------------------------------------

# Where NumPy keeps what belongs to an array: after the head that all objects have, which ends with
# their type.
_WORD = struct.calcsize("P")
_HEAD = object.__basicsize__
_TYPE, _DATA = _HEAD - _WORD, _HEAD
_NDIM, _SHAPE = _HEAD + _WORD, _HEAD + 2 * _WORD
_DTYPE, _FLAGS = _HEAD + 5 * _WORD, _HEAD + 6 * _WORD
# In a dtype: after the type of its entries and four letters, the third of which is the byte order.
_BYTE_ORDER, _NUMBER = _HEAD + _WORD + 2, _HEAD + _WORD + 4


def _object(builder, objects, k):
    return builder.load(builder.gep(objects, [k]))


def _field(builder, thing, offset, kind):
    """Read a field of an object, given its distance from the beginning."""
    place = builder.gep(thing, [_SIZE(offset)])
    return builder.load(builder.bitcast(place, kind.as_pointer()))


@intrinsic
def memory(typingctx, objects, k, dtype):
    """Point to the first entry of array number ``k``."""
    signature = types.CPointer(dtype.dtype)(objects, types.intp, dtype)

    def codegen(context, builder, signature, args):
        kind = context.get_value_type(signature.return_type)
        return _field(builder, _object(builder, *args[:2]), _DATA, kind)

    return signature, codegen


@intrinsic(prefer_literal=True)
def fits(typingctx, objects, k, array_type, dtype, flags, shape):
    """Tell whether object number ``k`` is an array with these flags, of this dtype and shape.

    ``dtype`` is its number and the letter of its byte order.
    """
    signature = types.boolean(objects, types.intp, array_type, dtype, types.int32, shape)

    def codegen(context, builder, signature, args):
        array, whole, letter = _object(builder, *args[:2]), ir.IntType(32), ir.IntType(8)
        answer = cgutils.alloca_once_value(builder, cgutils.false_bit)

        def equal(thing, offset, wanted):
            found = _field(builder, thing, offset, wanted.type)
            return builder.icmp_unsigned("==", found, wanted)

        # What is not an array may have no field there, and one of no axes has no sides.
        with builder.if_then(equal(array, _TYPE, args[2])):
            number, order = (n.literal_value for n in dtype)
            kind = _field(builder, array, _DTYPE, array.type)
            flags = builder.and_(_field(builder, array, _FLAGS, whole), args[4])
            held = builder.icmp_unsigned("==", flags, args[4])
            held = builder.and_(held, equal(kind, _NUMBER, whole(number)))
            held = builder.and_(held, equal(kind, _BYTE_ORDER, letter(order)))
            held = builder.and_(held, equal(array, _NDIM, whole(len(shape))))
            with builder.if_then(held):
                sides = _field(builder, array, _SHAPE, array.type)
                same = cgutils.true_bit
                for axis, side in enumerate(shape):
                    wanted = _SIZE(side.literal_value)
                    same = builder.and_(same, equal(sides, axis * _WORD, wanted))
                builder.store(same, answer)
        return builder.load(answer)

    return signature, codegen


@intrinsic
def argument(typingctx, objects, k):
    """Give object number ``k``."""
    signature = types.voidptr(objects, types.intp)

    def codegen(context, builder, signature, args):
        return _object(builder, *args)

    return signature, codegen


real_of = types.ExternalFunction("PyFloat_AsDouble", types.float64(types.voidptr))
whole_of = types.ExternalFunction("PyLong_AsLongLong", types.int64(types.voidptr))
answer = types.ExternalFunction("PyLong_FromLongLong", types.voidptr(types.int64))
# Let other Python threads run, and wait until they let this one.
let_go = types.ExternalFunction("PyEval_SaveThread", types.voidptr())
take_back = types.ExternalFunction("PyEval_RestoreThread", types.void(types.voidptr))


# --- Memory ---------------------------------------------------------------------------------------


@intrinsic
def part(typingctx, memory, start, dtype):
    """Point to the entry of a dtype that begins at a byte."""
    signature = types.CPointer(dtype.dtype)(memory, types.intp, dtype)

    def codegen(context, builder, signature, args):
        place = builder.gep(args[0], [args[1]])
        return builder.bitcast(place, context.get_value_type(signature.return_type))

    return signature, codegen


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


@intrinsic(prefer_literal=True)
def load(typingctx, array, index, memory, count):
    """``array[index]`` without a test of the sign of the index."""
    signature = array.dtype(array, types.intp, memory, count)

    def codegen(context, builder, signature, args):
        pointer = builder.gep(args[0], [args[1]], inbounds=True)
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
        pointer = builder.gep(args[0], [args[1]], inbounds=True)
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


@intrinsic
def pick(typingctx, condition, a, b):
    """Give ``a`` where the condition holds, else ``b``, both computed: loops without branches."""
    kind = types.unliteral(a)

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return kind(types.boolean, kind, kind), codegen


# --- Threads --------------------------------------------------------------------------------------

# So long a thread waits before it lets others have its core.
_PATIENCE = 2000


@intrinsic
def _arrive(typingctx, counter):
    """Add one to the counter; give what it was."""
    signature = types.int64(counter)

    def codegen(context, builder, signature, args):
        return builder.atomic_rmw("add", args[0], _SIZE(1), "seq_cst")

    return signature, codegen


@intrinsic
def _arrived(typingctx, counter):
    """Read the counter."""
    signature = types.int64(counter)

    def codegen(context, builder, signature, args):
        return builder.load_atomic(args[0], "acquire", align=8)

    return signature, codegen


if os.name == "posix":
    _let_pass = types.ExternalFunction("sched_yield", types.int32())
else:

    @njit
    def _let_pass():
        """Do nothing: one thread does it all."""


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
    return pick(x != x, x, p * one * two)


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
    return pick(x != x, x, y)


@njit(forceinline=True, error_model="numpy")
def sigmoid32(x):
    """Logistic function of a float32."""
    return _HALF * tanh32(_HALF * x) + _HALF


@njit(forceinline=True, error_model="numpy")
def larger(a, b):
    """Maximum as NumPy's: NaN if one is."""
    return pick((a > b) | (a != a), a, b)


@njit(forceinline=True, error_model="numpy")
def smaller(a, b):
    """Minimum as NumPy's: NaN if one is."""
    return pick((a < b) | (a != a), a, b)
