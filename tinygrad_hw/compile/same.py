"""Whether a value that is there now is as good as the one that was: what a run looks at."""

from __future__ import annotations

from typing import Any

import numpy as np

PLAIN = (int, float, complex, bool, str, bytes, type(None), np.generic, np.dtype)


def same_plain(a: Any, b: Any) -> bool:
    """Tell whether two values are equal numbers, texts or flags; 0.0 and -0.0 are not."""
    if type(a) is not type(b) or not isinstance(a, PLAIN):
        return False
    if a != a:
        return bool(b != b)
    signed = isinstance(a, (float, complex, np.inexact))
    return bool(a == b) and (not signed or repr(a) == repr(b))


def same_array(array: Any, other: Any) -> bool:
    """Tell whether an array is still equal to its copy."""
    if array.shape != other.shape or array.dtype != other.dtype:
        return False
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size <= 8:
        # By the bits: NaN is the same, -0.0 is not 0.0.
        array, other = array.view(f"u{size}"), other.view(f"u{size}")
    return bool(np.array_equal(array, other, equal_nan=kind == "c"))
