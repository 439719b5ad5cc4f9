"""How shapes, numbers and bytes are written in pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as ``32×10``.

    Examples
    --------
    >>> shape_text((32, 10)), shape_text((3,)), shape_text(())
    ('32×10', '3', 'scalar')
    """
    return "×".join(map(str, shape)) or "scalar"


def count_text(count: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count_text(1, "op"), count_text(1200, "op")
    ('1 op', '1,200 ops')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def bytes_text(count: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> bytes_text(12), bytes_text(1536), bytes_text(3 * 2**30)
    ('12 bytes', '1.5 KiB', '3.0 GiB')
    """
    if count < 1024:
        return count_text(count, "byte")
    size, units = float(count), ["KiB", "MiB", "GiB", "TiB"]
    while (size := size / 1024) >= 1024 and len(units) > 1:
        units.pop(0)
    return f"{size:.1f} {units[0]}"


def flops_text(count: int) -> str:
    """Write a number of floating-point operations.

    Examples
    --------
    >>> flops_text(1), flops_text(94080), flops_text(3_600_000)
    ('1 FLOP', '94.1 kFLOP', '3.6 MFLOP')
    """
    if count < 1000:
        return f"{count} FLOP"
    size, units = float(count), ["k", "M", "G", "T", "P"]
    while (size := size / 1000) >= 1000 and len(units) > 1:
        units.pop(0)
    return f"{size:.1f} {units[0]}FLOP"


def number_text(x: Any) -> str:
    """Write one number with four digits."""
    return f"{x:.4g}" if isinstance(x, (float, np.floating)) else str(x)


def value_text(array: np.ndarray[Any, Any], most: int = 4) -> str:
    """Write an array's first entries.

    Examples
    --------
    >>> value_text(np.array(0.5)), value_text(np.arange(9.0))
    ('0.5', '[0, 1, 2, 3, …]')
    """
    if array.ndim == 0:
        return number_text(array[()])
    # `flat` of a view costs no copy of the whole.
    first = [number_text(x) for x, _ in zip(array.flat, range(most), strict=False)]
    return f"[{', '.join(first)}{', …' if array.size > most else ''}]"


def seconds_text(seconds: float) -> str:
    """Write a duration.

    Examples
    --------
    >>> seconds_text(0.0000123), seconds_text(0.0123), seconds_text(2.5)
    ('12.3 µs', '12.3 ms', '2.5 s')
    """
    for factor, unit in ((1e6, "µs"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.1f} s"


def listing(names: Iterable[str], most: int = 20) -> str:
    """Write the first of some names, in order."""
    names = sorted(set(names))
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def shorten(text: str, longest: int) -> str:
    """Cut a long text in the middle.

    Examples
    --------
    >>> shorten("abcdefghij", 5)
    'ab…ij'
    """
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"


def printable(text: str) -> str:
    """Put a sign in the place of what has no shape: controls, surrogates, marks of direction.

    Examples
    --------
    >>> printable("a\\x00b\\u202ec")
    'a�b�c'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
