"""The arguments of a native function: how they are given to it, and made to fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..program import Array

# Flags of NumPy's: in C order and aligned; may be written to.
_FLAGS, _WRITEABLE = 0x101, 0x400


class Given:
    """The arguments of a native function.

    Attributes
    ----------
    texts : list of str
        How the caller spells them.
    checks, lines : list of str
        How the function tells whether they fit, and how it reads them.
    dtypes : list of dtype or None
        Of those that are arrays.
    targets : list of int
        Numbers of those that it writes to in place.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.checks: list[str] = []
        self.lines: list[str] = []
        self.dtypes: list[np.dtype[Any] | None] = []
        self.targets: list[int] = []

    def array(
        self, name: str, text: str, like: Array, *, writable: bool, number: int | None = None
    ) -> None:
        """Give an array in C order, which lies like another, and the number of its memory."""
        k, dtype, shape = len(self.texts), like.dtype, like.shape
        flags, facts = _FLAGS | _WRITEABLE * writable, (dtype.num, ord(dtype.byteorder))
        self.texts.append(text)
        self.dtypes.append(dtype)
        self.checks.append(f"fits(objects, {k}, self, {facts}, {flags}, {shape})")
        self.lines.append(f"{name} = memory(objects, {k}, np.{dtype.name}, {number})")

    def number(self, name: str, text: str, kind: str) -> None:
        """Give a number of Python: a real or a whole one."""
        self.lines.append(f"{name} = {kind}_of(argument(objects, {len(self.texts)}))")
        self.texts.append(text)
        self.dtypes.append(None)

    def place_in_crew(self) -> None:
        """Read the number of the thread and how many there are, which come last."""
        for k, name in enumerate(("me", "crew"), len(self.texts)):
            self.lines.append(f"{name} = whole_of(argument(objects, {k}))")


def real(number: Any) -> float:
    """Give a number as native code takes it; it cannot say itself that something is none."""
    if isinstance(number, (float, int, np.number)):
        return float(number)
    raise TypeError(f"want a number, got {type(number).__name__}")


def refit(
    function: Callable[..., Any],
    arguments: Any,
    dtypes: list[np.dtype[Any] | None],
    targets: list[int],
) -> Any:
    """Call a native function on arrays that lie as it needs them, in place of those that do not."""
    fitted = [
        array if dtype is None else _fitted(array, dtype)
        for array, dtype in zip(arguments, dtypes, strict=True)
    ]
    held = function(*fitted)
    if held < 0:
        raise TypeError("an array is of another shape, or cannot be written to")
    for k in targets:
        if held and not np.may_share_memory(fitted[k], arguments[k]):
            arguments[k][...] = fitted[k]
    return held


def _fitted(array: Any, dtype: np.dtype[Any]) -> Array:
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"want an array of {dtype}, got {getattr(array, 'dtype', array)}")
    fitted: Array = np.require(np.asarray(array), dtype, ["C", "A"])
    return fitted
