"""What native text calls: its arguments, loads, stores, sums in any order, and steps of formulas.

A native function takes what a builtin function of Python takes: an array of pointers to objects.
Each function here takes LLVM's builder, then what the text gives it, and returns what the call
stands for. Numbers that are written out in the text are numbers of Python here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from llvmlite import ir

from .emission import (
    BOOL,
    FLOAT64,
    LETTER,
    POINTER,
    SIZE,
    WHOLE,
    Builder,
    Memory,
    Value,
    applied,
    compared,
    converted,
    external,
    kind,
    matched,
    negative,
    number,
    stored,
)

INTRINSICS: dict[str, Callable[..., Any]] = {}
Write = TypeVar("Write", bound=Callable[..., Any])


def intrinsic(write: Write) -> Write:
    """Make a function callable from native text, by its name."""
    INTRINSICS[write.__name__.removesuffix("_")] = write
    return write


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


@intrinsic
def argument(builder: Builder, objects: Any, k: int) -> Any:
    """Give object number ``k``."""
    return builder.load(builder.gep(objects, [SIZE(k)]))


def _field(builder: Builder, thing: Any, offset: int, what: Any) -> Any:
    """Read a field of an object, given its distance from the beginning."""
    place = builder.gep(thing, [SIZE(offset)])
    return builder.load(builder.bitcast(place, what.as_pointer()))


@intrinsic
def memory(builder: Builder, objects: Any, k: int, entry: Any, own: int | None = None) -> Memory:
    """Point to the first entry of array number ``k``; ``own`` is the number of its memory."""
    pointer = _field(builder, argument(builder, objects, k), _DATA, POINTER)
    return _entries(builder, pointer, entry, own)


@intrinsic
def part(builder: Builder, whole: Memory, start: Any, entry: Any, own: int | None = None) -> Memory:
    """Point to the entry of a dtype that begins at a byte."""
    return _entries(builder, builder.gep(whole.code, [number(start).code]), entry, own)


@intrinsic
def position(builder: Builder, x: Value) -> Value:
    """Take a whole number as an index."""
    return converted(builder, x, np.dtype(np.int64))._replace(dtype=None)


@intrinsic
def beyond(builder: Builder, whole: Memory, start: Any) -> Memory:
    """Point to the entry of a number."""
    return whole._replace(code=builder.gep(whole.code, [number(start).code], inbounds=True))


def _entries(builder: Builder, pointer: Any, entry: Any, own: int | None) -> Memory:
    dtype = np.dtype(entry)
    return Memory(builder.bitcast(pointer, stored(dtype).as_pointer()), dtype, own)


@intrinsic
def fits(
    builder: Builder,
    objects: Any,
    k: int,
    array_type: Any,
    dtype: tuple[int, int],
    flags: int,
    shape: tuple[int, ...],
) -> Value:
    """Tell whether object number ``k`` is an array with these flags, of this dtype and shape.

    ``dtype`` is its number and the letter of its byte order.
    """
    number_, order = dtype
    wanted = [WHOLE(number_), LETTER(order), WHOLE(flags), *map(SIZE, shape)]
    codes = [argument(builder, objects, k), array_type, *wanted]
    name = f"fits_{len(shape)}"
    function = builder.module.globals.get(name) or _fits(builder.module, name, codes)
    return Value(builder.call(function, codes), BOOL)


def _fits(module: Any, name: str, codes: list[Any]) -> Any:
    """Define a function for arrays of so many axes: in place of each call it would take long."""
    function = ir.Function(module, ir.FunctionType(kind(BOOL), [c.type for c in codes]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    array, array_type, number_, order, flags, *shape = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))

    def equal(thing: Any, offset: int, wanted: Any) -> Any:
        found = _field(builder, thing, offset, wanted.type)
        return builder.icmp_unsigned("==", found, wanted)

    # What is not an array may have no field there, and one of other axes no such sides.
    with builder.if_then(equal(array, _TYPE, array_type)):
        found = _field(builder, array, _DTYPE, POINTER)
        set_ = builder.and_(_field(builder, array, _FLAGS, WHOLE), flags)
        held = builder.icmp_unsigned("==", set_, flags)
        held = builder.and_(held, equal(found, _NUMBER, number_))
        held = builder.and_(held, equal(found, _BYTE_ORDER, order))
        held = builder.and_(held, equal(array, _NDIM, WHOLE(len(shape))))
        with builder.if_then(held):
            sides = _field(builder, array, _SHAPE, POINTER)
            for axis, side in enumerate(shape):
                held = builder.and_(held, equal(sides, axis * _WORD, side))
            builder.ret(held)
    builder.ret(kind(BOOL)(0))
    return function


@intrinsic
def real_of(builder: Builder, thing: Any) -> Value:
    """Read a real number."""
    return Value(external(builder, "PyFloat_AsDouble", kind(FLOAT64), thing), FLOAT64)


@intrinsic
def whole_of(builder: Builder, thing: Any) -> Value:
    """Read a whole number."""
    return Value(external(builder, "PyLong_AsLongLong", SIZE, thing), None)


@intrinsic
def answer(builder: Builder, held: int) -> None:
    """Leave the function with a number."""
    builder.ret(external(builder, "PyLong_FromLongLong", POINTER, SIZE(held)))


# --- Steps of sums and formulas -------------------------------------------------------------------


@intrinsic
def plus(builder: Builder, total: Value, term: Value) -> Value:
    """Add to a sum whose terms may be added in any order; NaN and infinities stay."""
    a, b = matched(total, term)
    if a.dtype is not None and a.dtype.kind == "f":
        return Value(builder.fadd(a.code, b.code, flags=["reassoc", "contract"]), a.dtype)
    return Value(builder.add(a.code, b.code), a.dtype)


@intrinsic
def peak(builder: Builder, most: Value, entry: Value) -> Value:
    """The larger one, in any order; NaN stays."""
    return _extreme(builder, "maximum", most, entry)


@intrinsic
def dip(builder: Builder, least: Value, entry: Value) -> Value:
    """The smaller one, in any order; NaN stays."""
    return _extreme(builder, "minimum", least, entry)


def _extreme(builder: Builder, name: str, a: Value, b: Value) -> Value:
    a, b = matched(a, b)
    if a.dtype is None or a.dtype.kind != "f":
        order = compared(builder, "Gt" if name == "maximum" else "Lt", a, b)
        return pick(builder, order, a, b)
    called = f"llvm.{name}.f{8 * a.dtype.itemsize}"
    return Value(external(builder, called, kind(a.dtype), a.code, b.code), a.dtype)


@intrinsic
def times(builder: Builder, a: Value, b: Value) -> Value:
    """Multiply; a sum may take the product without rounding it first."""
    a, b = matched(a, b)
    return Value(builder.fmul(a.code, b.code, flags=["contract"]), a.dtype)


@intrinsic
def fused(builder: Builder, a: Any, b: Any, c: Any) -> Value:
    """``a * b + c``, rounded once where the processor can, else twice."""
    product, c = matched(times(builder, a, b), c)
    return Value(builder.fadd(product.code, c.code, flags=["contract"]), c.dtype)


@intrinsic
def bits(builder: Builder, x: Value) -> Value:
    """The bits of a float32 as a whole number."""
    return Value(builder.bitcast(x.code, WHOLE), np.dtype(np.int32))


@intrinsic
def from_bits(builder: Builder, n: Value) -> Value:
    """The float32 of some bits."""
    return Value(builder.bitcast(n.code, ir.FloatType()), np.dtype(np.float32))


@intrinsic
def with_exponent(builder: Builder, n: Value) -> Value:
    """2**(n - 127) as a float32, whose exponent is kept as ``n``; only its last nine bits count."""
    return from_bits(builder, n._replace(code=builder.shl(n.code, WHOLE(23))))


@intrinsic
def pick(builder: Builder, condition: Any, a: Any, b: Any) -> Value:
    """Give ``a`` where the condition holds, else ``b``, both computed: loops without branches."""
    a, b = matched(a, b)
    return Value(builder.select(number(condition).code, a.code, b.code), a.dtype)


# One instruction of the processor each. Where one is NaN they give the second.


@intrinsic
def least(builder: Builder, a: Any, b: Any) -> Value:
    """Give ``a`` where it is less than ``b``, else ``b``."""
    return pick(builder, compared(builder, "Lt", a, b), a, b)


@intrinsic
def most(builder: Builder, a: Any, b: Any) -> Value:
    """Give ``a`` where it is greater than ``b``, else ``b``."""
    return pick(builder, compared(builder, "Gt", a, b), a, b)


INTRINSICS["min"] = least


@intrinsic
def abs_(builder: Builder, given: Any) -> Value:
    """Absolute value."""
    x = number(given)
    if x.dtype is not None and x.dtype.kind == "f":
        return applied(builder, "absolute", x)
    return pick(builder, compared(builder, "Lt", x, 0), negative(builder, x), x)


# --- Threads --------------------------------------------------------------------------------------


@intrinsic
def let_go(builder: Builder) -> Any:
    """Let other Python threads run."""
    return external(builder, "PyEval_SaveThread", POINTER)


@intrinsic
def take_back(builder: Builder, state: Any) -> None:
    """Wait until the others let this one run."""
    external(builder, "PyEval_RestoreThread", ir.VoidType(), state)


@intrinsic
def arrive(builder: Builder, counter: Memory) -> Value:
    """Add one to the counter; give what it was."""
    return Value(builder.atomic_rmw("add", counter.code, SIZE(1), "seq_cst"), None)


@intrinsic
def arrived(builder: Builder, counter: Memory) -> Value:
    """Read the counter."""
    return Value(builder.load_atomic(counter.code, "acquire", align=8), None)


@intrinsic
def let_pass(builder: Builder) -> None:
    """Let other threads have the core; where the system cannot, one thread does it all."""
    if os.name == "posix":
        external(builder, "sched_yield", WHOLE)
