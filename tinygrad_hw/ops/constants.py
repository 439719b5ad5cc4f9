"""Functions whose result is a constant: comparisons and logic, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import about_call
from ..graph import Handle, as_array, value_of, wrap

__all__ = [
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "invert",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
]


def _constant(function: Any, *args: Any, **params: Any) -> Any:
    """Call a function on the values; a tensor in gives a tensor out, without a gradient."""
    values = [value_of(arg) for arg in args]
    try:
        y = as_array(function(*values, **params))
    except (ValueError, TypeError) as error:
        raise about_call(error, function.__name__, values, params) from error
    return wrap(y) if any([isinstance(arg, Handle) for arg in args]) else y


def _elementwise(ufunc: Any) -> Any:
    def constant(*args: Any) -> Any:
        return _constant(ufunc, *args)

    constant.__name__ = constant.__qualname__ = ufunc.__name__
    constant.__doc__ = f"NumPy's ``{ufunc.__name__}``, element by element; a constant."
    return constant


def _array(x: Any) -> Any:
    return x if isinstance(x, Handle) else as_array(x)


def _real(x: Any) -> Any:
    """Give an array or tensor, with whole numbers as floats: sums of theirs may wrap around."""
    x = _array(x)
    return x.astype(float) if x.dtype.kind in "iub" else x


equal, not_equal = _elementwise(np.equal), _elementwise(np.not_equal)
less, less_equal = _elementwise(np.less), _elementwise(np.less_equal)
greater, greater_equal = _elementwise(np.greater), _elementwise(np.greater_equal)
isnan, isfinite, isinf = _elementwise(np.isnan), _elementwise(np.isfinite), _elementwise(np.isinf)
logical_and, logical_or = _elementwise(np.logical_and), _elementwise(np.logical_or)
logical_not, logical_xor = _elementwise(np.logical_not), _elementwise(np.logical_xor)
bitwise_and, bitwise_or = _elementwise(np.bitwise_and), _elementwise(np.bitwise_or)
bitwise_xor, invert = _elementwise(np.bitwise_xor), _elementwise(np.invert)
