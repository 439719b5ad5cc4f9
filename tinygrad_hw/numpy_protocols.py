"""NumPy's functions on tensors: ``np.sin(t)``, ``np.sum(t, axis=0)``, ``np.where(m, t, 0)``.

A function of NumPy stands for the op of the same name. One without an op raises a TypeError that
says what to use instead; none falls back to the bare array, which would lose the gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import ops
from .errors import MissingRuleError
from .graph import Handle

_OTHER_NAMES = {
    "absolute": "abs",
    "fabs": "abs",
    "true_divide": "divide",
    "mod": "remainder",
    "pow": "power",
    "positive": "identity",
    "copy": "identity",
    "fmax": "maximum",
    "fmin": "minimum",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "concat": "concatenate",
    "permute_dims": "transpose",
    "matrix_transpose": "matrix_transpose",
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "invert": "logical_not",
}
_ABOUT_ARRAYS = frozenset(
    {
        "shape",
        "ndim",
        "size",
        "result_type",
        "can_cast",
        "iscomplexobj",
        "isrealobj",
        "may_share_memory",
    }
)
_ON_VALUES = frozenset(
    {
        "array_equal",
        "allclose",
        "isclose",
        "array_repr",
        "array_str",
        "array2string",
        "save",
        "savez",
        "savez_compressed",
        "savetxt",
        "zeros_like",
        "ones_like",
        "empty_like",
        "full_like",
        "nonzero",
        "flatnonzero",
        "argwhere",
        "array_equiv",
        "count_nonzero",
        "shares_memory",
    }
)


def call_ufunc(ufunc: np.ufunc, method: str, inputs: Any, kwargs: Any) -> Any:
    """Do what NumPy asks of a tensor in place of ``ufunc.method(*inputs, **kwargs)``."""
    name = ufunc.__name__
    if kwargs.pop("out", None) is not None:
        raise TypeError(
            f"np.{name}: cannot write a tensor's values into out=, or into an array by an operator "
            "such as +=; assign the result instead, as in a = a + t"
        )
    if method == "reduce":
        return _reduced(name, inputs, kwargs)
    if method == "outer" and name == "multiply" and not kwargs:
        return ops.tensordot(inputs[0], inputs[1], axes=0)
    if method != "__call__":
        raise MissingRuleError(f"np.{name}.{method}: has no gradient here; {_advice(name)}")
    op = _op(name)
    dtype = kwargs.pop("dtype", None)
    if kwargs:
        raise TypeError(f"np.{name}: {sorted(kwargs)} do not work on tensors; use tg.where")
    result = op(*inputs)
    return result if dtype is None else result.astype(dtype)


def _reduced(name: str, inputs: Any, kwargs: Any) -> Any:
    reductions = {
        "add": ops.sum,
        "multiply": ops.prod,
        "maximum": ops.max,
        "minimum": ops.min,
        "logical_and": ops.all,
        "logical_or": ops.any,
    }
    options = {key: value for key, value in kwargs.items() if key in ("axis", "keepdims")}
    rest = {k for k, v in kwargs.items() if k not in options and v not in (None, np._NoValue, True)}
    if name not in reductions or rest:
        raise MissingRuleError(f"np.{name}.reduce: has no gradient here; {_advice(name)}")
    options.setdefault("axis", 0)
    return reductions[name](*inputs, **options)


def call_function(function: Any, args: Any, kwargs: Any) -> Any:
    """Do what NumPy asks of a tensor in place of ``function(*args, **kwargs)``."""
    name = function.__name__
    if name in _ABOUT_ARRAYS or name in _ON_VALUES:
        values = [_values(arg) for arg in args]
        return function(*values, **{key: _values(value) for key, value in kwargs.items()})
    given = {k: v for k, v in kwargs.items() if v is not None and v is not np._NoValue}
    if "out" in given:
        raise TypeError(f"np.{name}: cannot write a tensor's values into out=; assign the result")
    if function.__module__ == "numpy.fft":
        raise MissingRuleError(f"np.fft.{name}: has no gradient here; {_advice(name)}")
    op = _op(name)
    for old, new in (("a_min", "min"), ("a_max", "max"), ("ddof", "correction")):
        if old in given:
            given[new] = given.pop(old)
    given = {_RENAMED.get((name, key), key): value for key, value in given.items()}
    try:
        return op(*args, **given)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            raise TypeError(
                f"np.{name}: {error}; tg.{op.__name__} takes no such argument"
            ) from None
        raise


_RENAMED = {("clip", "a_min"): "min", ("clip", "a_max"): "max"}


def _op(name: str) -> Any:
    op = getattr(ops, _OTHER_NAMES.get(name, name), None)
    if not callable(op) or name.startswith("_") or name in ("primitives", "Any"):
        raise MissingRuleError(f"np.{name}: has no rule for gradients on tensors; {_advice(name)}")
    return op


def _advice(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, [n for n in dir(ops) if n.islower()], n=1, cutoff=0.8)
    similar = f"use tg.{close[0]}, or " if close and not close[0].startswith("_") else ""
    return (
        f"{similar}call it on t.numpy() for a constant result, or declare a rule with tg.primitive"
    )


def _values(arg: Any) -> Any:
    if isinstance(arg, Handle):
        return arg._data
    if isinstance(arg, (list, tuple)):
        return type(arg)(_values(part) for part in arg)
    return arg
