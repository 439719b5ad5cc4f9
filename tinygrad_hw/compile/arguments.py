"""The arguments of a native function: how they are given to it, and made to fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .program import Array

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
    targets : list of int
        Numbers of those that it writes to in place.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.checks: list[str] = []
        self.lines: list[str] = []
        self.targets: list[int] = []

    def array(self, name: str, text: str, like: Array, *, writable: bool) -> None:
        """Give an array in C order, which lies like another."""
        k, dtype, shape = len(self.texts), like.dtype, like.shape
        flags = _FLAGS | _WRITEABLE * writable
        self.texts.append(text)
        self.checks.append(f"fits(objects, {k}, self, {flags}, {shape})")
        self.lines.append(f"{name} = memory(objects, {k}, np.{dtype.name})")

    def number(self, name: str, text: str, kind: str) -> None:
        """Give a number of Python: a real or a whole one."""
        self.lines.append(f"{name} = {kind}_of(argument(objects, {len(self.texts)}))")
        self.texts.append(text)

    def place_in_crew(self) -> None:
        """Read the number of the thread and how many there are, which come last."""
        for k, name in enumerate(("me", "crew"), len(self.texts)):
            self.lines.append(f"{name} = whole_of(argument(objects, {k}))")


def aligned(size: int, alignment: int) -> Array:
    """Make an array of bytes that begins at a multiple of the alignment."""
    raw = np.zeros(size + alignment, np.uint8)
    start = -raw.__array_interface__["data"][0] % alignment
    return raw[start : start + size]


def refit(function: Callable[..., Any], arguments: Any, writable: list[int]) -> Any:
    """Call a native function on copies of the arrays that do not lie as it needs them."""
    fitted = [
        np.require(a, requirements=["C", "A"]) if isinstance(a, np.ndarray) else a
        for a in arguments
    ]
    held = function(*fitted)
    if held < 0:
        raise TypeError("an array cannot be written to")
    for k in writable:
        if held and fitted[k] is not arguments[k]:
            arguments[k][...] = fitted[k]
    return held
