"""When two results are the same, and how to show that they are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from .driver import Foreign
from .reference import Array

TOLERANCE = 1e-5  # Some files compute in single precision.
LOSS_TOLERANCE = 1e-4  # And many add a little to the probability before its logarithm.
SHOWN = 40


def close(got: Array, wanted: Array, tolerance: float = TOLERANCE) -> bool:
    """Whether two results have the same shape and, on the scale of the largest, the same numbers.

    Examples
    --------
    >>> close(np.array([1.0, 2.0]), np.array([1.0, 2.000001]))
    True
    >>> close(np.array([1.0, 2.0]), np.array([[1.0, 2.0]]))
    False
    """
    if got.shape != wanted.shape:
        return False
    if not np.isfinite(got).all() or not np.isfinite(wanted).all():
        return bool(np.array_equal(got, wanted, equal_nan=True))
    scale = 1 + np.abs(wanted).max(initial=0)
    return bool(np.abs(got - wanted).max(initial=0) <= tolerance * scale)


def show(name: str, value: Any, beside: Any = None) -> str:
    """Show a result: small ones whole, of others the shape and the entry that is off the most."""
    array = np.asarray(value)
    if array.size <= SHOWN:
        one_channel = array.ndim > 2 and set(array.shape[2:]) == {1}
        shown = array.reshape(array.shape[:2]) if one_channel else array
        text = np.array2string(shown, separator=", ", precision=6, suppress_small=True)
        return f"{name} of shape {array.shape}:\n{text}" if array.ndim else f"{name} = {text}"
    if beside is None or np.shape(beside) != array.shape:
        return f"{name} of shape {array.shape}"
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.abs(array - beside), nan=np.inf)
    at = tuple(int(n) for n in np.unravel_index(np.argmax(gap), array.shape))
    return f"{name}[{', '.join(map(str, at))}] = {array[at]:.6g}, of shape {array.shape}"


def summary(value: Any) -> str:
    """A result by its kind and size."""
    if isinstance(value, Foreign):
        return value.text
    if isinstance(value, list):
        return f"{counted(len(value))}: {', '.join(map(summary, value[:6]))}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return repr(value)


def counted(count: int) -> str:
    """So many values, in words."""
    return "one value" if count == 1 else f"{count} values"
