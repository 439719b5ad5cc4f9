"""How native code spells elementwise operations on one entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...kernels import hw5
from ...ops import activations, elementwise, special
from ..program import Instruction, Ref, Spec
from ..traced import as_type

Dtype = np.dtype[Any]
FLOAT32 = np.dtype(np.float32)
# What one entry of these dtypes is in native code.
DTYPES = frozenset("? b h i l q B H I L Q f d".split())


def known(dtype: Dtype) -> bool:
    """Tell whether native code has entries of a dtype."""
    return dtype.char in DTYPES and dtype.isnative


def literal(value: Any, dtype: Dtype) -> str:
    """Spell a number of a dtype."""
    if dtype.kind == "b":
        return repr(bool(value))
    number = float(value) if dtype.kind == "f" else int(value)
    text = repr(number)
    if dtype.kind == "f" and not math.isfinite(number):
        text = {"inf": "np.inf", "-inf": "-np.inf"}.get(text, "np.nan")
    return f"np.{dtype.name}({text})"


def cast(text: str, given: Dtype, wanted: Dtype) -> str:
    """Spell the conversion of an entry."""
    if given == wanted:
        return text
    return f"({text} != 0)" if wanted.kind == "b" else f"np.{wanted.name}({text})"


def _call(name: str, fast: str | None = None) -> Callable[..., str]:
    """A function of numbers, or a faster one of ours for float32."""

    def spell(dtype: Dtype, *args: str) -> str:
        chosen = fast if fast is not None and dtype == FLOAT32 else name
        return f"{chosen}({', '.join(args)})"

    return spell


def _form(text: str) -> Callable[..., str]:
    def spell(dtype: Dtype, *args: str) -> str:
        return text.format(*args, one=literal(1, dtype), zero=literal(0, dtype))

    return spell


def _inverted(dtype: Dtype, x: str) -> str:
    # Native code computes with wider integers, of which the upper bits would be set.
    return f"({x} == 0)" if dtype.kind == "b" else f"np.{dtype.name}(~{x})"


UFUNCS: dict[Any, Callable[..., str]] = {
    np.add: _form("({0} + {1})"),
    np.subtract: _form("({0} - {1})"),
    np.multiply: _form("({0} * {1})"),
    np.divide: _form("({0} / {1})"),
    np.negative: _form("(-{0})"),
    np.positive: _form("{0}"),
    np.reciprocal: _form("({one} / {0})"),
    np.square: _form("({0} * {0})"),
    np.sqrt: _call("np.sqrt"),
    np.exp: _call("np.exp", "exp32"),
    np.expm1: _call("np.expm1", "expm1_32"),
    np.log: _call("np.log", "log32"),
    np.log1p: _call("np.log1p", "log1p32"),
    np.logaddexp: _call("logaddexp", "logaddexp32"),
    np.tanh: _call("np.tanh", "tanh32"),
    np.abs: _call("abs"),
    np.maximum: _call("larger"),
    np.minimum: _call("smaller"),
    np.power: _call("np.power"),
    np.copysign: _call("np.copysign"),
    np.arctan2: _call("np.arctan2"),
    np.hypot: _call("np.hypot"),
    np.isnan: _form("({0} != {0})"),
    np.equal: _form("({0} == {1})"),
    np.not_equal: _form("({0} != {1})"),
    np.less: _form("({0} < {1})"),
    np.less_equal: _form("({0} <= {1})"),
    np.greater: _form("({0} > {1})"),
    np.greater_equal: _form("({0} >= {1})"),
    np.logical_and: _form("(({0} != 0) & ({1} != 0))"),
    np.logical_or: _form("(({0} != 0) | ({1} != 0))"),
    np.logical_not: _form("({0} == 0)"),
    np.bitwise_and: _form("({0} & {1})"),
    np.bitwise_or: _form("({0} | {1})"),
    np.bitwise_xor: _form("({0} ^ {1})"),
    np.invert: _inverted,
}
for _name in (
    "log2 log10 exp2 sin cos tan arcsin arccos arctan sinh cosh arcsinh arccosh "
    "arctanh floor ceil rint cbrt"
).split():
    UFUNCS[getattr(np, _name)] = _call(f"np.{_name}")
for _name in ("sign", "isinf", "isfinite"):
    UFUNCS[getattr(np, _name)] = _call(_name)
# What C computes one by one, and NumPy many at once on processors with AVX-512, the sine and the
# cosine of float32 on all: it takes a third to a twentieth of the time, from so many entries on
# with the call.
_NUMPYS = frozenset(
    getattr(np, name)
    for name in "log2 log10 exp2 sin cos tan arcsin arccos arctan arctan2 sinh cosh arcsinh "
    "arccosh arctanh cbrt power".split()
)
_NUMPYS_OF_FLOAT64 = _NUMPYS | {np.exp, np.expm1, np.log, np.log1p, np.tanh}
_NUMPYS_OF_FLOAT64 |= {elementwise.sigmoid.forward, activations.softplus.forward}
_MANY = 1024
# On integers these are spelled in ways that do not hold for them.
_OF_WHOLE = {np.isnan: "False", np.isinf: "False", np.isfinite: "True"}
_FLOATS_ONLY = {np.reciprocal, np.power, np.sign, np.floor, np.ceil, np.rint, np.hypot, np.copysign}


def _powers(exponent: Any) -> Callable[..., str] | None:
    forms = {2: "({0} * {0})", 3: "({0} * {0} * {0})", 1: "{0}", -1: "({one} / {0})"}
    if exponent == 0.5:
        return _call("np.sqrt")
    return _form(forms[exponent]) if exponent in forms else None


def _dtype_for(arg: Any, dtype: Dtype | None) -> Any:
    """Give what NumPy's promotion takes: a dtype, or the type of a Python number, which is weak."""
    return type(arg) if dtype is None else dtype


def spell(op: Any, args: Sequence[Any], params: Any, dtypes: Sequence[Any], out: Dtype) -> Any:
    """Give ``(dtypes, function)``: what to cast the arguments to, and how to spell the call.

    None if there is no native way. ``dtypes`` has None for a Python number.
    """
    if not all(d is None or known(d) for d in (*dtypes, out)):
        return None
    forward = op.forward
    if isinstance(forward, np.ufunc):
        return None if params else _spell_ufunc(forward, args, dtypes, out)
    special = _SPECIAL.get(forward)
    return None if special is None else special(args, params, dtypes, out)


def _spell_ufunc(ufunc: Any, args: Any, dtypes: Any, out: Dtype) -> Any:
    form = UFUNCS.get(ufunc)
    if form is None or len(args) != ufunc.nin:
        return None
    given = [_dtype_for(arg, dtype) for arg, dtype in zip(args, dtypes, strict=True)]
    if any(isinstance(g, type) and g not in (int, float) for g in given):
        return None
    try:
        *inputs, result = ufunc.resolve_dtypes((*given, None))
    except TypeError:
        return None
    if not all(map(known, (*inputs, result))):
        return None
    if result != out or (inputs[0].kind != "f" and ufunc in _FLOATS_ONLY):
        return None
    # NumPy compares whole numbers exactly, whatever their dtypes; native code would convert them.
    if len({i.kind for i in inputs} & {"i", "u"}) > 1:
        return None
    if not all(map(_holds, inputs, args)):
        return None
    if ufunc is np.power and not isinstance(args[1], Ref) and (short := _powers(args[1])):
        return inputs[:1], short
    if inputs[0].kind != "f" and ufunc in _OF_WHOLE:
        return inputs, _form(_OF_WHOLE[ufunc])
    if result.kind == "b" and ufunc in (np.add, np.multiply):
        form = UFUNCS[np.logical_or if ufunc is np.add else np.logical_and]
    return inputs, lambda *texts: form(inputs[0], *texts[1:])


def numpy_is_quicker(instruction: Instruction, spec: Spec) -> bool:
    """Tell whether a call is better left to NumPy, though there is a native way."""
    forward, args = instruction.op.forward, instruction.args
    if forward is np.power and not isinstance(args[1], Ref) and _powers(args[1]):
        return False
    if spec.size < _MANY:
        return False
    if not hw5.AVX512:
        return spec.dtype == FLOAT32 and forward in (np.sin, np.cos)
    return forward in (_NUMPYS if spec.dtype == FLOAT32 else _NUMPYS_OF_FLOAT64)


def _holds(dtype: Dtype, arg: Any) -> bool:
    """Tell whether a Python number among the arguments is one of the dtype's."""
    if dtype.kind not in "iu" or isinstance(arg, Ref):
        return True
    bounds = np.iinfo(dtype)
    return bool(bounds.min <= arg <= bounds.max)


def _relu(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    return [out], lambda dtype, x: f"larger({x}, {literal(0, out)})"


def _relu_grad(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    if dtypes[1] is None:
        return None
    return [out, dtypes[1]], lambda dtype, g, x: f"pick({x} > 0, {g}, {literal(0, out)})"


def _where(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    if dtypes[0] is None:
        return None
    condition = np.dtype(bool)
    return [condition, out, out], lambda dtype, c, a, b: f"pick({c}, {a}, {b})"


def _cast(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    return None if dtypes[0] is None else ([out], lambda dtype, x: x)


def _sigmoid(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    if out == FLOAT32:
        return [out], lambda dtype, x: f"sigmoid32({x})"
    return [out], lambda dtype, x: f"(1 / (1 + np.exp(-{x})))"


def _softplus(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    if out == FLOAT32:
        return [out], lambda dtype, x: f"softplus32({x})"
    zero = literal(0, out)
    return (
        [out],
        lambda dtype, x: (
            f"pick({x} != {x}, {x}, larger({x}, {zero}) + np.log1p(np.exp(-abs({x}))))"
        ),
    )


def _erf(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    return [out], lambda dtype, x: f"erf32({x})" if out == FLOAT32 else f"math.erf({x})"


def _clip(args: Any, params: Any, dtypes: Any, out: Dtype) -> Any:
    bounds = params["lower"], params["upper"]
    # Bounds may be beyond what a dtype of whole numbers holds.
    if dtypes[0] != out or out.kind != "f":
        return None
    if not all(isinstance(b, (int, float, type(None))) for b in bounds):
        return None

    def clip(dtype: Dtype, x: str) -> str:
        text = x if bounds[0] is None else f"larger({x}, {literal(bounds[0], out)})"
        return text if bounds[1] is None else f"smaller({text}, {literal(bounds[1], out)})"

    return [out], clip


_SPECIAL: dict[Any, Any] = {
    activations.relu.forward: _relu,
    activations.relu_grad.forward: _relu_grad,
    elementwise.where.forward: _where,
    np.where: _where,
    elementwise.cast.forward: _cast,
    elementwise.identity.forward: _cast,
    as_type: _cast,
    elementwise.sigmoid.forward: _sigmoid,
    activations.softplus.forward: _softplus,
    special.erf.forward: _erf,
    elementwise._clip.forward: _clip,
}
