"""Functions of nested arguments as functions of a list of arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..errors import ShapeError
from ..graph import Handle, Leaf, wrap

Array = np.ndarray[Any, Any]


class Flat:
    """The arguments of a call: which of their leaves vary, and the call at other values.

    Attributes
    ----------
    values : list of float64 arrays
        The varying leaves, in a precision fit for differences.
    dtypes : list of dtype
        What they were given in.
    labels : list of str
        What they are called in a report.
    """

    def __init__(
        self,
        args: Sequence[Any],
        wrt: int | Sequence[int] | None = None,
        fn: Callable[..., Any] | None = None,
    ) -> None:
        given = tuple(_with_arrays(arg) for arg in args)
        chosen = _chosen(wrt, len(given))
        names = _names(fn, len(given))
        self._places: list[int] = []
        self.labels: list[str] = []
        self._leaves, self._rebuild = tree.flatten(given)
        position = 0
        for number, arg in enumerate(given):
            for path in _paths(arg):
                leaf = self._leaves[position]
                if number in chosen and _is_float(leaf):
                    self._places.append(position)
                    self.labels.append(names[number] + path)
                position += 1
        if not self._places:
            raise TypeError(
                "there is nothing to differentiate by: no argument"
                + ("" if wrt is None else f" out of wrt={wrt}")
                + " holds floats; pass arrays of floats, as in x.astype(float)"
            )
        originals = [_array(self._leaves[i]) for i in self._places]
        self.dtypes = [x.dtype for x in originals]
        self.values: list[Array] = [x.astype(np.float64) for x in originals]

    def variables(self, values: Sequence[Array] | None = None, *, exact: bool = False) -> list[Any]:
        """Make a fresh tensor that requires a gradient of each value.

        They have the dtypes that were given; with ``exact``, float64.
        """
        values = self.values if values is None else values
        dtypes = [x.dtype for x in values] if exact else self.dtypes
        return [variable(np.array(x, d)) for x, d in zip(values, dtypes, strict=True)]

    def arguments(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Give the arguments with ``leaves`` in the places of the values."""
        new = list(self._leaves)
        for place, leaf in zip(self._places, leaves, strict=True):
            new[place] = leaf
        arguments: tuple[Any, ...] = self._rebuild(iter(new))
        return arguments

    def call(self, fn: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        """Call a function with ``leaves`` in the places of the values."""
        return fn(*self.arguments(leaves))

    def scalar(self, fn: Callable[..., Any], values: Sequence[Array]) -> tuple[float, float, float]:
        """Call a function of one number; give it, its size, and its rounding unit."""
        output = self.call(fn, [wrap(x) for x in values])
        y = np.asarray(_array(output))
        if y.size != 1:
            raise ShapeError(
                f"the function returned shape {y.shape}, no scalar; take .sum(), or weigh the "
                "entries and add them up"
            )
        return float(y.reshape(())), abs(float(y.reshape(()))), precision_of([y])


def variable(value: Array) -> Any:
    """Make a tensor that requires a gradient, without copying."""
    tensor = wrap(value)
    tensor._node = Leaf(value)
    return tensor


def float_leaves(output: Any, op: str = "") -> list[Any]:
    """Give the leaves of an output that hold floats: tensors, arrays or numbers."""
    leaves = tree.flatten(output)[0]
    floats = [leaf for leaf in leaves if _is_float(leaf)]
    if not floats:
        dtypes = {str(leaf.dtype) for leaf in leaves if hasattr(leaf, "dtype")}
        raise TypeError(
            f"{op or 'the function'}: returned a {type(output).__name__}"
            + (f" of {', '.join(sorted(dtypes))}" if dtypes else "")
            + "; want floats, in a tensor or array or a container of them"
        )
    return floats


def float_arrays(output: Any, kinds: str = "f") -> list[Array]:
    """Give the floats of an output as arrays."""
    return [_array(leaf) for leaf in tree.flatten(output)[0] if _is_float(leaf, kinds)]


def weigh(outputs: Sequence[Array], weights: Sequence[Array]) -> tuple[float, float, float]:
    """Add up weighted outputs: the sum, the sum of sizes, and the rounding unit."""
    if [np.shape(y) for y in outputs] != [np.shape(u) for u in weights]:
        raise ShapeError(
            f"the outputs have shapes {[np.shape(y) for y in outputs]} at one point and "
            f"{[np.shape(u) for u in weights]} at another; want the same"
        )
    value = magnitude = 0.0
    for y, u in zip(outputs, weights, strict=True):
        terms = y.astype(np.float64) * u
        value += float(terms.sum())
        magnitude += float(np.abs(terms).sum())
    return value, magnitude, precision_of(outputs)


def precision_of(arrays: Sequence[Array]) -> float:
    """Give the rounding unit of the least precise of some arrays."""
    return max((float(np.finfo(y.dtype).eps) for y in arrays if y.dtype.kind == "f"), default=0.0)


def _array(leaf: Any) -> Array:
    return leaf._data if isinstance(leaf, Handle) else np.asarray(leaf)


def _is_float(leaf: Any, kinds: str = "f") -> bool:
    if isinstance(leaf, (Handle, np.ndarray, np.generic)):
        return leaf.dtype.kind in kinds  # type: ignore[union-attr]
    return isinstance(leaf, float)


def _with_arrays(arg: Any) -> Any:
    """Make arrays of lists of numbers: they stand for arrays, not for containers."""
    if isinstance(arg, Mapping):
        return {key: _with_arrays(value) for key, value in arg.items()}
    if isinstance(arg, tuple):
        items = [_with_arrays(item) for item in arg]
        return type(arg)(*items) if hasattr(arg, "_fields") else tuple(items)
    if isinstance(arg, list):
        return np.array(arg) if _all_numbers(arg) else [_with_arrays(item) for item in arg]
    return arg


def _all_numbers(items: list[Any]) -> bool:
    return bool(items) and all(
        _all_numbers(item) if isinstance(item, list) else isinstance(item, (int, float))
        for item in items
    )


def _paths(tree_: Any) -> list[str]:
    """Name the leaves of a container by how they are reached, in the order of ``flatten``."""
    items: Any
    if isinstance(tree_, Mapping):
        items = [(f"[{key!r}]", value) for key, value in tree_.items()]
    elif isinstance(tree_, tuple) and hasattr(tree_, "_fields"):
        items = [(f".{name}", value) for name, value in zip(tree_._fields, tree_, strict=True)]
    elif isinstance(tree_, (list, tuple)):
        items = [(f"[{i}]", value) for i, value in enumerate(tree_)]
    else:
        return [""]
    return [head + tail for head, value in items for tail in _paths(value)]


def _chosen(wrt: int | Sequence[int] | None, count: int) -> set[int]:
    if wrt is None:
        return set(range(count))
    numbers: list[Any] = np.atleast_1d(wrt).tolist()
    if not all(isinstance(n, int) for n in numbers):
        raise TypeError(f"wrt is {wrt!r}; want the position of an argument, from 0, or several")
    if not all(-count <= n < count for n in numbers):
        raise ValueError(f"wrt is {wrt}; want positions of arguments, 0 to {count - 1}")
    return {n % count for n in numbers}


def _names(fn: Callable[..., Any] | None, count: int) -> list[str]:
    """Give the names of the first arguments of a function, as far as they are known."""
    names: list[str] = []
    try:
        for p in inspect.signature(fn).parameters.values() if fn is not None else ():
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                names.append(p.name)
    except (TypeError, ValueError):
        names = []
    return (names + [f"argument {i}" for i in range(len(names), count)])[:count]
