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
def _bits(typingctx, x):
    """The bits of a float32 as a whole number."""
    signature = types.int32(types.float32)

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return signature, codegen


@intrinsic
def _power_of_two(typingctx, n):
    """2**n as a float32; of ``n`` only the last nine bits count."""
    signature = types.float32(types.int32)

    def codegen(context, builder, signature, args):
        whole = args[0].type
        exponent = builder.shl(args[0], whole(23))
        return builder.bitcast(builder.add(exponent, whole(127 << 23)), ir.FloatType())

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

# The coefficients make the largest relative error least, as fitted by weights that grow where the
# error is large (Lawson 1961).

F = np.float32
_ONE = F(1.0)

_TOP, _BOTTOM = F(89.0), F(-104.0)
_PER_LOG2, _LOG2_HIGH, _LOG2_LOW = F(1.44269504088896), F(0.693145751953125), F(1.42860682030942e-6)
# Added to a small number, it leaves the nearest whole number in the last bits.
_ROUNDING = F(1.5 * 2**23)
_E2, _E3, _E4 = F(0.49999994), F(0.16666521), F(0.041668389)
_E5, _E6 = F(0.0083687454), F(0.0013814541)


@njit(forceinline=True, error_model="numpy")
def exp32(x):
    """Exponential of a float32, to 1 unit in the last place, without a call or a branch.

    x = n log 2 + r, where |r| is at most log(2) / 2, and a polynomial for exp(r) (Muller,
    "Elementary Functions", section 11.3), by Estrin's scheme.
    """
    z = _most(_BOTTOM, _least(_TOP, x))
    rounded = _fused(z, _PER_LOG2, _ROUNDING)
    n = rounded - _ROUNDING
    r = _fused(n, -_LOG2_LOW, _fused(n, -_LOG2_HIGH, z))
    square = r * r
    p = _fused(_fused(_E6, square, _fused(_E5, r, _E4)), square, _fused(_E3, r, _E2))
    p = _fused(p, square, r)
    # Two factors, since 2**n itself may be no normal number.
    whole = _bits(rounded)
    half = np.int32(whole >> np.int32(1))
    power = _power_of_two(half)
    return _fused(p, power, power) * _power_of_two(np.int32(whole - half))


_LIMIT = F(9.02)
_P1, _P2, _P3, _P4 = F(0.13382687), F(0.0034974565), F(2.0635803e-5), F(1.3384264e-8)
_Q1, _Q2, _Q3, _Q4 = F(0.46716008), F(0.025884356), F(0.00032885154), F(7.7902381e-7)


@njit(forceinline=True, error_model="numpy")
def tanh32(x):
    """Hyperbolic tangent of a float32, to 5 units in the last place: x P(x**2) / Q(x**2)."""
    z = _most(-_LIMIT, _least(_LIMIT, x))
    s = z * z
    p = _fused(_fused(_fused(_fused(_P4, s, _P3), s, _P2), s, _P1), s, _ONE)
    q = _fused(_fused(_fused(_fused(_Q4, s, _Q3), s, _Q2), s, _Q1), s, _ONE)
    return _most(-_ONE, _least(_ONE, z * p / q))


@njit(forceinline=True, error_model="numpy")
def sigmoid32(x):
    """Logistic function of a float32."""
    return _ONE / (_ONE + exp32(-x))


@njit(forceinline=True, error_model="numpy")
def larger(a, b):
    """Maximum as NumPy's: NaN if one is."""
    return pick((a > b) | (a != a), a, b)


@njit(forceinline=True, error_model="numpy")
def smaller(a, b):
    """Minimum as NumPy's: NaN if one is."""
    return pick((a < b) | (a != a), a, b)
