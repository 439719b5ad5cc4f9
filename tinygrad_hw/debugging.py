"""``with tg.debug():`` remembers the line that recorded each node, and checks every value."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .errors import with_graph
from .graph import Constant, observe, value_of

_PACKAGE = os.path.join(Path(__file__).parent, "")
# The handout's networks, written as a user would write them.
_MODELS = str(Path(__file__).with_name("models.py"))


@contextmanager
def debug() -> Iterator[None]:
    """Find NaN and infinity where they arise, forward and backward, with the user's line.

    Every node recorded inside remembers the file and line that made it, also for pictures. A value
    that is NaN or infinite though its inputs are not raises a FloatingPointError that names the op
    and the line; so does a backward, inside or later, at the node whose rule made one.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> with tg.debug():
    ...     tg.log(tg.Tensor([1.0, -1.0]))
    Traceback (most recent call last):
    ...
    FloatingPointError: log: NaN in 1 of 2 values, first at (1,), from finite inputs
    """
    # NumPy's warnings would say the same, without the op and the line.
    with observe(_check), np.errstate(all="ignore"):
        yield


def lines() -> Any:
    """Remember the line that recorded each node, for pictures, and check nothing."""
    return observe(_note_line)


def one_constant_each(arrays: Sequence[Any]) -> Any:
    """Let one constant stand for an array in all calls, for pictures: each call makes its own."""
    places = set(map(id, arrays))
    known: dict[int, Any] = {}

    def share(primitive: Any, args: Any, params: Any, result: Any) -> None:
        node = result._node
        if node is None or node.primitive is not primitive:
            return
        shared = {
            parent: known.setdefault(id(arg), parent)
            for arg, parent in zip(args, node.parents, strict=True)
            if id(arg) in places and type(parent) is Constant
        }
        node.parents = tuple(shared.get(parent, parent) for parent in node.parents)
        if node.inputs is not None:
            # Those that are not kept stand there too.
            node.inputs = tuple(
                shared.get(value, value) if type(value) is Constant else value
                for value in node.inputs
            )

    return observe(share)


def _note_line(primitive: Any, args: Any, params: Any, result: Any) -> None:
    if result._node is not None and result._node.primitive is primitive:
        result._node.extra()["line"] = caller()


def _check(primitive: Any, args: Any, params: Any, result: Any) -> None:
    where = caller()
    if result._node is not None and result._node.primitive is primitive:
        result._node.extra()["where"] = where
    values = [value_of(arg) for arg in args]
    if any(_bad(value) for value in values):
        return
    trouble = trouble_in(result._data)
    if trouble:
        place = f"; recorded at {where}" if where else ""
        error = with_graph(FloatingPointError)(
            f"{primitive.name}: {trouble}, from finite inputs{place}"
        )
        error.op = primitive.name
        error.parents = () if result._node is None else result._node.parents
        raise error


def trouble_in(array: np.ndarray[Any, Any]) -> str:
    """Describe the NaN or infinities of an array; empty if it has none."""
    bad = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    if not bad.any():
        return ""
    kind = "NaN" if np.isnan(array).any() else "infinity"
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{kind} in {int(bad.sum())} of {array.size} values, first at {first}"


def _bad(value: Any) -> bool:
    array = np.asarray(value)
    return array.dtype.kind == "f" and not np.isfinite(array).all()


def caller() -> str:
    """Give the file and line of the innermost frame outside this package, or in its models."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_globals.get("__name__", "").startswith("hypothesis."):
            return ""  # A call that was drawn is on no line of the user's.
        if not file.startswith(_PACKAGE) or file == _MODELS:
            return "" if file.startswith("<doctest") else f"{file}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""
