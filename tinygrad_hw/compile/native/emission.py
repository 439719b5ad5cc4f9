"""Numbers, memory and loops as LLVM's instructions.

A number of Python has no dtype of its own: it takes that of the number beside it, and alone it is
an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir

Dtype = np.dtype[Any]
# LLVM's builder: llvmlite has no types.
Builder = Any
BOOL, FLOAT64 = np.dtype(bool), np.dtype(np.float64)
LETTER, WHOLE, SIZE = ir.IntType(8), ir.IntType(32), ir.IntType(64)
POINTER = LETTER.as_pointer()
_FLOATS = {4: ir.FloatType(), 8: ir.DoubleType()}
_OPERATORS = {"Add": ("fadd", "add"), "Sub": ("fsub", "sub"), "Mult": ("fmul", "mul")}
_OF_BITS = {"BitAnd": "and_", "BitOr": "or_", "BitXor": "xor"}
COMPARISONS = {"Eq": "==", "NotEq": "!=", "Lt": "<", "LtE": "<=", "Gt": ">", "GtE": ">="}


class Value(NamedTuple):
    """A number: its instruction, and its dtype, which is None for an index.

    An index is of 64 bits and does not overflow.
    """

    code: Any
    dtype: Dtype | None


class Memory(NamedTuple):
    """Entries of a dtype side by side: a pointer to the first.

    Memories of different numbers do not overlap; None may overlap with any.
    """

    code: Any
    dtype: Dtype
    number: int | None = None


# --- Kinds and constants --------------------------------------------------------------------------


def kind(dtype: Dtype | None) -> Any:
    """Type of a number."""
    if dtype is None:
        return SIZE
    if dtype.kind == "b":
        return ir.IntType(1)
    return _FLOATS[dtype.itemsize] if dtype.kind == "f" else ir.IntType(8 * dtype.itemsize)


def stored(dtype: Dtype) -> Any:
    """Type of an entry in memory, where a bool takes a byte."""
    return LETTER if dtype.kind == "b" else kind(dtype)


def number(given: Any, dtype: Dtype | None = None) -> Value:
    """Give a number as it is, or that of Python as one of a dtype."""
    if isinstance(given, Value):
        return given
    if isinstance(given, (bool, np.generic)):
        dtype = np.asarray(given).dtype
    if not isinstance(given, (int, float, np.generic)):
        raise TypeError(f"native text: want a number, got {given!r}")
    if isinstance(given, float) and (dtype is None or dtype.kind != "f"):
        raise TypeError(f"native text: {given} has no dtype, or not one of its own")
    real = dtype is not None and dtype.kind == "f"
    return Value(kind(dtype)(float(given) if real else int(given)), dtype)


def matched(a: Any, b: Any) -> tuple[Value, Value]:
    """Two numbers as of one dtype."""
    if not isinstance(a, (Value, bool, np.generic)):
        b = number(b)
        a = number(a, b.dtype)
    else:
        a = number(a)
        b = number(b, a.dtype)
    if a.dtype != b.dtype:
        raise TypeError(f"native text: cast {a.dtype} and {b.dtype} to one dtype")
    return a, b


# --- Operators ------------------------------------------------------------------------------------


def binary(builder: Builder, operator: str, a: Any, b: Any) -> Value:
    """``a operator b``, named as in Python's syntax trees; whole numbers wrap around."""
    a, b = matched(a, b)
    dtype = a.dtype
    real = dtype is not None and dtype.kind == "f"
    if operator in _OPERATORS:
        name = _OPERATORS[operator][not real]
        # An index that overflows would point outside memory.
        flags = ["nsw"] if dtype is None else []
        return Value(getattr(builder, name)(a.code, b.code, flags=flags), dtype)
    if operator in _OF_BITS and not real:
        return Value(getattr(builder, _OF_BITS[operator])(a.code, b.code), dtype)
    if operator == "RShift" and dtype is not None and dtype.kind == "i":
        return Value(builder.ashr(a.code, b.code), dtype)
    if operator == "Div" and real:
        return Value(builder.fdiv(a.code, b.code), dtype)
    if operator == "FloorDiv" and dtype is None:
        # Of shares of a loop, which are not negative.
        return Value(builder.sdiv(a.code, b.code), dtype)
    raise TypeError(f"native text: no {operator} of {dtype}")


def compared(builder: Builder, operator: str, a: Any, b: Any) -> Value:
    """Compare two numbers; a NaN differs from all, and nothing else holds of it."""
    a, b = matched(a, b)
    sign = COMPARISONS[operator]
    if a.dtype is not None and a.dtype.kind == "f":
        compare = builder.fcmp_unordered if operator == "NotEq" else builder.fcmp_ordered
    else:
        signed = a.dtype is None or a.dtype.kind == "i"
        compare = builder.icmp_signed if signed else builder.icmp_unsigned
    return Value(compare(sign, a.code, b.code), BOOL)


def negative(builder: Builder, a: Value) -> Value:
    """``-a``."""
    if a.dtype is not None and a.dtype.kind == "f":
        return Value(builder.fneg(a.code), a.dtype)
    return Value(builder.neg(a.code), a.dtype)


def converted(builder: Builder, given: Any, dtype: Dtype) -> Value:
    """Convert a number to a dtype, as C does."""
    given = number(given, dtype)
    before, wanted = given.dtype, kind(dtype)
    if before == dtype:
        return Value(given.code, dtype)
    if dtype.kind == "b":
        return compared(builder, "NotEq", given, 0)
    signed = before is None or before.kind == "i"
    if before is not None and before.kind == "f":
        return Value(_from_real(builder, given.code, before, dtype), dtype)
    if dtype.kind == "f":
        convert = builder.sitofp if signed else builder.uitofp
    elif given.code.type.width >= wanted.width:
        convert = builder.trunc
    else:
        convert = builder.sext if signed else builder.zext
    return Value(given.code if given.code.type == wanted else convert(given.code, wanted), dtype)


def _from_real(builder: Builder, code: Any, before: Dtype, dtype: Dtype) -> Any:
    wanted = kind(dtype)
    if dtype.kind == "f":
        wider = dtype.itemsize > before.itemsize
        return builder.fpext(code, wanted) if wider else builder.fptrunc(code, wanted)
    if dtype == np.uint64:
        # What is negative wraps around: processors that convert to unsigned give something else.
        large = builder.fcmp_ordered(">=", code, code.type(2.0**63))
        return builder.select(large, builder.fptoui(code, wanted), builder.fptosi(code, wanted))
    # Small numbers come from wider ones, so that -1.0 is 255 as a byte.
    wide = WHOLE if wanted.width < 32 or dtype == np.int32 else SIZE
    whole = builder.fptosi(code, wide)
    return whole if wide == wanted else builder.trunc(whole, wanted)


# --- Functions ------------------------------------------------------------------------------------

# Of LLVM, which may have an instruction for them, and of C; by NumPy's names.
_LLVM = {name: name for name in "sqrt exp exp2 log log2 log10 sin cos floor ceil rint".split()}
_LLVM |= {"absolute": "fabs", "power": "pow", "copysign": "copysign"}
_C = {name: name for name in "log1p expm1 tan sinh cosh tanh hypot erf cbrt".split()}
_C |= {f"arc{name}": f"a{name}" for name in "sin cos tan tan2 sinh cosh tanh".split()}


def applied(builder: Builder, name: str, *given: Any) -> Value:
    """Give a function of real numbers, by NumPy's name for it."""
    first, *others = given
    first = number(first)
    dtype = first.dtype
    assert dtype is not None
    assert dtype.kind == "f"
    codes = [first.code, *(number(other, dtype).code for other in others)]
    if name in _LLVM:
        bits = 8 * dtype.itemsize
        called = f"llvm.{_LLVM[name]}.f{bits}"
    else:
        called = _C[name] + "f" * (dtype.itemsize == 4)
    return Value(external(builder, called, kind(dtype), *codes), dtype)


def external(builder: Builder, name: str, result: Any, *codes: Any) -> Any:
    """Call a function from elsewhere."""
    function = builder.module.globals.get(name)
    if function is None:
        shape = ir.FunctionType(result, [code.type for code in codes])
        function = ir.Function(builder.module, shape, name)
    return builder.call(function, codes)


# --- Memory ---------------------------------------------------------------------------------------


def loaded(builder: Builder, memory: Memory, index: Any) -> Value:
    """``memory[index]`` without a test of the index."""
    code = builder.load(_entry(builder, memory, index))
    if memory.dtype == BOOL:
        code = builder.trunc(code, kind(BOOL))
    return Value(code, memory.dtype)


def store(builder: Builder, memory: Memory, index: Any, value: Any) -> None:
    """``memory[index] = value``; the value has the memory's dtype."""
    given = number(value, memory.dtype)
    if given.dtype != memory.dtype:
        raise TypeError(f"native text: cast {given.dtype} to {memory.dtype} to store it")
    code = builder.zext(given.code, LETTER) if memory.dtype == BOOL else given.code
    builder.store(code, _entry(builder, memory, index))


def _entry(builder: Builder, memory: Memory, index: Any) -> Any:
    return builder.gep(memory.code, [number(index).code], inbounds=True)


# --- Places and loops -----------------------------------------------------------------------------


def slot(builder: Builder, what: Any) -> Any:
    """Make a place on the stack, once for each call of the function."""
    with builder.goto_entry_block():
        return builder.alloca(what)


def kept(builder: Builder, constant: np.floating[Any]) -> Value:
    """Give a constant that loops keep in a register, or on the stack.

    Of what it knows to be a constant LLVM makes the address, and then a vector, in each round.
    """
    value = number(constant)
    whole = ir.IntType(8 * constant.itemsize)
    with builder.goto_entry_block():
        known = builder.bitcast(value.code, whole)
        # An empty piece of assembly: its result is in the register of its argument.
        code = builder.asm(ir.FunctionType(whole, [whole]), "", "=r,0", [known], False)
        return value._replace(code=builder.bitcast(code, value.code.type))


@contextmanager
def counting(
    builder: Builder, first: Any, last: Any, step: int = 1, *, abreast: int = 0
) -> Iterator[Value]:
    """Write what a loop does for an index that goes from ``first`` to before ``last``.

    ``abreast`` is how many rounds, of a vector each, LLVM is to interleave; 0 leaves it to LLVM.
    """
    first, last = number(first).code, number(last).code
    head, body, end = (builder.append_basic_block(name) for name in ("head", "body", "end"))
    before = builder.block
    builder.branch(head)
    builder.position_at_end(head)
    index = builder.phi(SIZE)
    index.add_incoming(first, before)
    builder.cbranch(builder.icmp_signed("<", index, last), body, end)
    builder.position_at_end(body)
    yield Value(index, None)
    index.add_incoming(builder.add(index, SIZE(step), flags=["nsw"]), builder.block)
    back = builder.branch(head)
    if abreast:
        _interleave(back, abreast)
    builder.position_at_end(end)


def _interleave(back: Any, abreast: int) -> None:
    """Mark a loop, given the branch to its head."""
    module = back.function.module
    wanted = [ir.MetaDataString(module, "llvm.loop.interleave.count"), WHOLE(abreast)]
    # The number keeps loops apart. What belongs to a loop has itself as its first part.
    loop = module.add_metadata([module.add_metadata(wanted), WHOLE(len(module.metadata))])
    loop.operands = (loop, loop.operands[0])
    back.set_metadata("llvm.loop", loop)
