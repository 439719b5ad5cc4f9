"""The array that ``Tensor.data`` gives: an ndarray that tells its tensor when it is written to.

A graph keeps values, not copies. If one is overwritten before backward, the gradient would be that
of other values; so every write through ``.data`` is stamped, and backward compares the stamps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Watched(np.ndarray[Any, Any]):
    """A view of a tensor's array. What is computed from it is an ordinary array."""

    _note: Callable[[], None] | None = None

    def __array_finalize__(self, source: Any) -> None:
        note = getattr(source, "_note", None)
        # A copy is nobody's: only what looks into the tensor's memory has to tell.
        ours = note is not None and np.may_share_memory(_plain(self), _plain(source))
        self._note = note if ours else None

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
        # Which of NumPy's functions write to an argument is not written down: compare. `out` may
        # come without its name, but never first.
        first = 0 if function.__name__ in _WRITERS else 1
        candidates = [a for a in (*args[first:], *kwargs.values()) if isinstance(a, Watched)]
        before = [array.tobytes() for array in candidates]
        result = function(*map(_plain, args), **{k: _plain(v) for k, v in kwargs.items()})
        for array, old in zip(candidates, before, strict=True):
            if array.tobytes() != old:
                array._stamp()
        return self._view_again(result)

    def _view_again(self, result: Any) -> Any:
        """Have a view that a function gave of the array, such as ``np.ravel``, tell of writes."""
        if isinstance(result, (list, tuple)):
            return _mapped(self._view_again, result)
        ours = isinstance(result, np.ndarray) and np.may_share_memory(result, _plain(self))
        return watched(result, self._note) if ours and self._note is not None else result

    @property
    def flat(self) -> Any:
        return _Flat(self)

    @flat.setter
    def flat(self, value: Any) -> None:
        self.flat[:] = value

    def __repr__(self) -> str:
        return repr(_plain(self))

    def __str__(self) -> str:
        return str(_plain(self))

    def __reduce__(self) -> Any:
        return _plain(self).copy().__reduce__()


class _Flat:
    """What ``Watched.flat`` gives: NumPy's iterator, with writes that are noted."""

    def __init__(self, array: Watched) -> None:
        self._array, self._entries = array, _plain(array).flat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._entries, name)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self._entries, dtype)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._entries)

    def __next__(self) -> Any:
        return next(self._entries)

    def __getitem__(self, index: Any) -> Any:
        return self._entries[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._entries[index] = value
        self._array._stamp()


def _comparing(name: str) -> Any:
    def method(self: _Flat, other: Any) -> Any:
        return getattr(self._entries, name)(other)

    method.__name__ = name
    return method


# Python looks for these in the class alone.
for _name in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(_Flat, _name, _comparing(_name))


# Those that write to their first argument.
_WRITERS = frozenset(
    {"copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal", "nan_to_num"}
)


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
        return _mapped(_plain, value)
    return value


def _mapped(function: Callable[[Any], Any], parts: Any) -> Any:
    """Call a function on the parts of a list or a tuple, whose names stay, as np.linalg.svd's."""
    new = map(function, parts)
    return type(parts)(*new) if hasattr(parts, "_fields") else type(parts)(new)
