"""The array that ``Tensor.data`` gives: an ndarray that tells its tensor when it is written to.

A graph keeps values, not copies. If one is overwritten before backward, the gradient would be that
of other values; so every write through ``.data`` is stamped, and backward compares the stamps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


class Watched(np.ndarray[Any, Any]):
    """A view of a tensor's array. What is computed from it is an ordinary array."""

    _note: Callable[[], None] | None = None

    def __array_finalize__(self, source: Any) -> None:
        self._note = getattr(source, "_note", None)

    def _stamp(self) -> None:
        if self._note is not None:
            self._note()

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, value)
        self._stamp()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        outputs = kwargs.get("out", ())
        if outputs:
            kwargs["out"] = tuple(_plain(out) for out in outputs)
        result = getattr(ufunc, method)(*map(_plain, inputs), **kwargs)
        written = [*outputs, *(inputs[:1] if method == "at" else ())]
        for array in written:
            if isinstance(array, Watched):
                array._stamp()
        return outputs[0] if len(outputs) == 1 and outputs[0] is not None else result

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        # Which of NumPy's functions write to an argument is not written down: compare.
        before = self.tobytes() if function.__name__ in _WRITERS else None
        result = function(*map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()})
        written = kwargs.get("out")
        if isinstance(written, Watched):
            written._stamp()
        if before is not None and before != self.tobytes():
            self._stamp()
        return result

    def __repr__(self) -> str:
        return repr(_plain(self))

    def __str__(self) -> str:
        return str(_plain(self))

    def __reduce__(self) -> Any:
        return _plain(self).copy().__reduce__()


_WRITERS = frozenset({"copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal"})


def _writing(name: str) -> Any:
    def method(self: Watched, *args: Any, **kwargs: Any) -> Any:
        result = getattr(np.ndarray, name)(self, *args, **kwargs)
        self._stamp()
        return result

    method.__name__ = name
    return method


for _name in ("fill", "sort", "partition", "put", "resize", "setfield"):
    setattr(Watched, _name, _writing(_name))


def watched(array: np.ndarray[Any, Any], note: Callable[[], None]) -> Watched:
    """View an array so that writes call ``note()``."""
    view = array.view(Watched)
    view._note = note
    return view


def _plain(value: Any) -> Any:
    if isinstance(value, Watched):
        return value.view(np.ndarray)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    return value
