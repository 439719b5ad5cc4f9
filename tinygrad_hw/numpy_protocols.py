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
    "rint": "round",
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
# What to write in the place of well-known functions that have no op.
_INSTEAD = {
    "append": "tg.concatenate",
    "array_split": "tg.split",
    "average": "tg.mean(w * t) / tg.mean(w)",
    "block": "tg.concatenate",
    "column_stack": "tg.stack(ts, axis=1)",
    "cond": "the ratio of tg.svdvals",
    "convolve": "tg.conv2d",
    "cross": "tg.stack of products of components",
    "deg2rad": "t * (np.pi / 180)",
    "diagonal": "tg.diag",
    "diff": "t[1:] - t[:-1]",
    "dstack": "tg.stack(ts, axis=2)",
    "eig": "tg.eigh for symmetric matrices",
    "eigvalsh": "tg.eigh(t)[0]",
    "fliplr": "tg.flip(t, 1)",
    "flipud": "tg.flip(t, 0)",
    "float_power": "tg.power",
    "heaviside": "t > 0",
    "hstack": "tg.concatenate(ts, axis=1)",
    "lstsq": "tg.solve(t.T @ t, t.T @ b)",
    "matrix_power": "products by @",
    "matvec": "tg.matmul",
    "nan_to_num": "tg.where(tg.isnan(t), 0, t)",
    "nanmean": "tg.where with tg.isnan",
    "nansum": "tg.where(tg.isnan(t), 0, t).sum()",
    "pinv": "tg.inv(t.T @ t) @ t.T",
    "piecewise": "tg.where",
    "ptp": "tg.max(t) - tg.min(t)",
    "quantile": "tg.sort",
    "percentile": "tg.sort",
    "rad2deg": "t * (180 / np.pi)",
    "rot90": "tg.flip(t, 0).T",
    "select": "tg.where",
    "svd": "tg.svdvals for the singular values",
    "trapezoid": "((t[1:] + t[:-1]) / 2 * dx).sum()",
    "vecdot": "tg.sum(a * b, axis=-1)",
    "vstack": "tg.concatenate",
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
    if name == "svd" and not given.pop("compute_uv", True):
        name = "svdvals"
    module = function.__module__.removeprefix("numpy")
    if module == ".fft":
        raise MissingRuleError(f"np.fft.{name}: has no gradient here; {_advice(name)}")
    op = _op(name, f"{module}.{name}".removeprefix("."))
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


def _op(name: str, path: str | None = None) -> Any:
    op = getattr(ops, _OTHER_NAMES.get(name, name), None)
    if not callable(op) or name.startswith("_") or name in ("primitives", "Any"):
        raise MissingRuleError(
            f"np.{path or name}: has no rule for gradients on tensors; {_advice(name)}"
        )
    return op


def _advice(name: str) -> str:
    import difflib

    known = [n for n in ops.__all__ if n != "primitives"]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    instead = _INSTEAD.get(name) or (f"tg.{close[0]}" if close else "")
    similar = f"use {instead}, or " if instead else ""
    return (
        f"{similar}call it on t.numpy() for a constant result, or declare a rule with tg.primitive"
    )


def _values(arg: Any) -> Any:
    if isinstance(arg, Handle):
        return arg._data
    if isinstance(arg, (list, tuple)):
        return type(arg)(_values(part) for part in arg)
    return arg
