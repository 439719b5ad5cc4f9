"""Functions whose result is a constant: comparisons and logic, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ShapeError, with_graph
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


def _constant_op(function: Any, wanted: str = "numbers") -> Any:
    """Make a NumPy function of tensors whose result has no gradient, such as a comparison."""

    def constant(*args: Any) -> Any:
        values = [value_of(arg) for arg in args]
        try:
            y = as_array(function(*values))
        except ValueError as error:
            shapes = " and ".join(str(np.shape(value)) for value in values)
            raise ShapeError(f"{function.__name__}: {error} (shapes {shapes})") from error
        except TypeError as error:
            kinds = [str(getattr(value, "dtype", type(value).__name__)) for value in values]
            raise with_graph(TypeError)(
                f"{function.__name__}: got {' and '.join(kinds)}; want {wanted}"
            ) from error
        return wrap(y) if any(isinstance(arg, Handle) for arg in args) else y

    constant.__name__ = constant.__qualname__ = function.__name__
    constant.__doc__ = f"NumPy's ``{function.__name__}``, element by element; a constant."
    return constant


def _array(x: Any) -> Any:
    return x if isinstance(x, Handle) else as_array(x)


def _real(x: Any) -> Any:
    """Give an array or tensor, with whole numbers as floats: sums of theirs may wrap around."""
    x = _array(x)
    return x.astype(float) if x.dtype.kind in "iub" else x


equal, not_equal = _constant_op(np.equal), _constant_op(np.not_equal)
less, less_equal = _constant_op(np.less), _constant_op(np.less_equal)
greater, greater_equal = _constant_op(np.greater), _constant_op(np.greater_equal)
isnan, isfinite, isinf = _constant_op(np.isnan), _constant_op(np.isfinite), _constant_op(np.isinf)
logical_and, logical_or = _constant_op(np.logical_and), _constant_op(np.logical_or)
logical_not, logical_xor = _constant_op(np.logical_not), _constant_op(np.logical_xor)

_WHOLE = "integers or truth values, such as those of x > 0"
bitwise_and, bitwise_or = _constant_op(np.bitwise_and, _WHOLE), _constant_op(np.bitwise_or, _WHOLE)
bitwise_xor, invert = _constant_op(np.bitwise_xor, _WHOLE), _constant_op(np.invert, _WHOLE)
