"""NumPy's functions on tensors: ``np.sin(t)``, ``np.sum(t, axis=0)``, ``np.where(m, t, 0)``.

A function of NumPy stands for the op of the same name. One without an op raises a TypeError that
says what to use instead; none falls back to the bare array, which would lose the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import ops
from .errors import MissingRuleError
from .graph import Handle

_OTHER_NAMES = {
    "absolute": "abs",
    "true_divide": "divide",
    "mod": "remainder",
    "pow": "power",
    "around": "round",
    "positive": "identity",
    "copy": "identity",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "atan2": "arctan2",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "concat": "concatenate",
    "permute_dims": "transpose",
}
_OTHER_KEYWORDS = {"a_min": "min", "a_max": "max", "ddof": "correction", "newshape": "shape"}
# Keywords of NumPy that stand for the arguments which our op takes one by one.
_BY_PLACE = {"reshape": "shape", "transpose": "axes"}
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
        advice = _method_advice(name, method)
        raise MissingRuleError(f"np.{name}.{method}: has no gradient here; {advice}")
    op = _op(name)
    dtype = kwargs.pop("dtype", None)
    if kwargs:
        raise TypeError(f"np.{name}: {sorted(kwargs)} do not work on tensors; use tg.where")
    if dtype is None:
        return op(*inputs)
    # The inputs are cast, as in NumPy: the result may have overflowed by then. Truth values come
    # of inputs of any dtype.
    if np.dtype(dtype).kind != "b":
        inputs = [_cast(name, x, np.dtype(dtype)) for x in inputs]
    return op(*inputs).astype(dtype)


def _cast(name: str, x: Any, dtype: np.dtype[Any]) -> Any:
    if not hasattr(x, "dtype"):
        return x
    if not np.can_cast(x.dtype, dtype, "same_kind"):
        raise TypeError(
            f"np.{name}: dtype={dtype} cannot hold {x.dtype} without loss; use t.astype({dtype})"
        )
    return x.astype(dtype)


def _reduced(name: str, inputs: Any, kwargs: Any) -> Any:
    reductions = {
        "add": ops.sum,
        "multiply": ops.prod,
        "maximum": ops.max,
        "minimum": ops.min,
        "logical_and": ops.all,
        "logical_or": ops.any,
    }
    if kwargs.get("where", True) is not True:
        raise TypeError(f"np.{name}.reduce: where= does not work on tensors; use tg.where")
    if name not in reductions:
        advice = _method_advice(name, "reduce")
        raise MissingRuleError(f"np.{name}.reduce: has no gradient here; {advice}")
    (x,), options, dtype = _cast_first(inputs, kwargs)
    y = reductions[name](x, options.get("axis", 0), options.get("keepdims", False))
    y = _of_dtype(y, dtype)
    initial = options.get("initial")
    return y if initial is None or initial is np._NoValue else _op(name)(y, initial)


def call_function(function: Any, args: Any, kwargs: Any) -> Any:
    """Do what NumPy asks of a tensor in place of ``function(*args, **kwargs)``."""
    name = function.__name__
    if name in _ABOUT_ARRAYS or name in _ON_VALUES:
        values = [_values(arg) for arg in args]
        return function(*values, **{key: _values(value) for key, value in kwargs.items()})
    module = function.__module__.removeprefix("numpy")
    if module == ".fft":
        raise MissingRuleError(f"np.fft.{name}: has no gradient here; {_advice(name)}")
    args, options, dtype = _cast_first(*_required_and_given(function, args, kwargs))
    if "out" in options:
        raise TypeError(f"np.{name}: cannot write a tensor's values into out=; assign the result")
    if name == "svd" and not options.pop("compute_uv", True):
        name = "svdvals"
        options.pop("full_matrices", None)
    op = _op(name, f"{module}.{name}".removeprefix("."))
    options = {_OTHER_KEYWORDS.get(key, key): value for key, value in options.items()}
    if _BY_PLACE.get(name) in options:
        args = (*args, options.pop(_BY_PLACE[name]))
    try:
        y = op(*args, **options)
    except TypeError as error:
        if "unexpected keyword" in str(error):
            reason = str(error).partition("() ")[2]
            raise TypeError(
                f"np.{name}: {reason}; tg.{op.__name__} has none such; write it otherwise"
            ) from None
        raise
    return _of_dtype(y, dtype)


def _required_and_given(function: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """Split arguments into those that NumPy requires, and by name those that differ from defaults.

    An op has the required ones in the same order, but not the others.
    """
    places = _places(function, len(args), tuple(kwargs))
    if places is None:
        return args, {k: v for k, v in kwargs.items() if v is not None or k == "axis"}
    required: list[Any] = []
    given: dict[str, Any] = {}
    for source, name, default in places:
        value = kwargs[source] if isinstance(source, str) else args[source]
        if name is None:
            required.append(value)
        elif value is not default:
            given[name] = value
    return tuple(required), given


@functools.cache
def _places(function: Any, count: int, names: tuple[str, ...]) -> Any:
    """Say where ``count`` arguments and some by name belong: (which, name, default) of each.

    Those that are required have no name. None for a function in C: from NumPy 2.4 on they have
    signatures too.
    """
    import inspect

    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    places: list[tuple[Any, str | None, Any]] = []
    for name, source in signature.bind(*range(count), **{n: n for n in names}).arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            places += [(each, None, None) for each in source]
        elif parameter.kind is parameter.VAR_KEYWORD:
            places += [(each, each, parameter.empty) for each in source]
        elif parameter.kind is parameter.POSITIONAL_ONLY or parameter.default is parameter.empty:
            places.append((source, None, None))
        else:
            places.append((source, name, parameter.default))
    return places


def _cast_first(args: Any, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """Apply ``dtype=`` to what is summed: the sum may have overflowed by then.

    It is given too, since a sum of small integers is one of large ones again.
    """
    options = dict(options)
    if not args or not isinstance(args[0], Handle) or options.get("dtype") is None:
        return args, options, None
    dtype = options.pop("dtype")
    first, *rest = args
    return (first.astype(dtype), *rest), options, dtype


def _of_dtype(y: Any, dtype: Any) -> Any:
    return y if dtype is None or y.dtype == dtype else y.astype(dtype)


def _trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    return ops.trace(ops.moveaxis(x, (axis1, axis2), (-2, -1)), offset)


def _full_like(x: Any, fill_value: Any, **options: Any) -> Any:
    if isinstance(fill_value, Handle) and fill_value._node is not None:
        raise TypeError(
            "np.full_like: the value requires a gradient, which an array would lose; use "
            "v * np.ones_like(t)"
        )
    return np.full_like(_values(x), _values(fill_value), **options)


def _where(condition: Any, *branches: Any) -> Any:
    return ops.where(condition, *branches) if branches else np.nonzero(_values(condition))


def _passing_over_nan(op: Any) -> Any:
    def extreme(a: Any, b: Any) -> Any:
        return ops.where(ops.isnan(a), b, ops.where(ops.isnan(b), a, op(a, b)))

    return extreme


def _of_floats(ufunc: np.ufunc, op: Any) -> Any:
    """Make the op give floats of integers too, of the dtype that NumPy's function gives."""

    def call(x: Any) -> Any:
        wanted = ufunc(np.zeros((), x.dtype)).dtype
        return op(x if x.dtype == wanted else x.astype(wanted))

    return call


# Where NumPy's function does something else than our op of that name, or we have none.
_AS_IN_NUMPY = {
    "fabs": _of_floats(np.fabs, ops.abs),
    "fmax": _passing_over_nan(ops.maximum),
    "fmin": _passing_over_nan(ops.minimum),
    "full_like": _full_like,
    "rint": _of_floats(np.rint, ops.round),
    "trace": _trace,
    "where": _where,
}


def _op(name: str, path: str | None = None) -> Any:
    op = _AS_IN_NUMPY.get(path or name) or getattr(ops, _OTHER_NAMES.get(name, name), None)
    if not callable(op) or name.startswith("_") or name in ("primitives", "Any"):
        raise MissingRuleError(
            f"np.{path or name}: has no rule for gradients on tensors; {_advice(name)}"
        )
    return op


def _method_advice(name: str, method: str) -> str:
    if method == "outer":
        return _advice("outer", f"tg.{_OTHER_NAMES.get(name, name)}(a[..., None], b) for vectors")
    return _advice(f"{name}.{method}")


def _advice(name: str, instead: str = "") -> str:
    import difflib

    from .elsewhere import NUMPY

    known = [n for n in ops.__all__ if n != "primitives"]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if name.startswith("nan"):
        alike = "tg.where with tg.isnan"  # The op of such a name gives NaN.
    else:
        alike = f"tg.{close[0]}" if close else ""
    instead = instead or NUMPY.get(name) or alike
    similar = f"use {instead}, or " if instead else ""
    return (
        f"{similar}call it on t.numpy() for a constant result, or declare a rule with tg.primitive"
    )


def by_other_name(name: str) -> Any:
    """Give the op that NumPy has by another name too, such as ``concat``."""
    if name in _OTHER_NAMES:
        return getattr(ops, _OTHER_NAMES[name])
    from .elsewhere import NUMPY, TENSORS, missing

    instead = NUMPY.get(name) or TENSORS.get(name)
    if not instead and not name.startswith("_") and hasattr(np, name):
        instead = f"np.{name}; ops take arrays as they take tensors"
    raise missing("tinygrad_hw", name, instead)


def _values(arg: Any) -> Any:
    if isinstance(arg, Handle):
        return arg._data
    if isinstance(arg, (list, tuple)):
        parts = [_values(part) for part in arg]
        return tuple(parts) if isinstance(arg, tuple) else parts
    return arg
