"""Nested containers of tensors: lists, tuples, named tuples and dicts, flattened and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Callable[[Iterator[Any]], Any]]:
    """Give the leaves of a nested container, and how to put others in their places.

    Examples
    --------
    >>> leaves, rebuild = flatten({"w": [1, 2], "b": (3,)})
    >>> leaves
    [1, 2, 3]
    >>> rebuild(iter("xyz"))
    {'w': ['x', 'y'], 'b': ('z',)}
    """
    if isinstance(tree, Mapping):
        keys = list(tree)
        leaves, rebuild = _flatten_all([tree[key] for key in keys])
        return leaves, lambda new: dict(zip(keys, rebuild(new), strict=True))
    if isinstance(tree, (list, tuple)):
        leaves, rebuild = _flatten_all(tree)
        if hasattr(tree, "_fields"):
            return leaves, lambda new: type(tree)(*rebuild(new))
        return leaves, lambda new: type(tree)(rebuild(new))
    return [tree], next


def map_leaves(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Apply a function to the leaves of containers of the same structure.

    Examples
    --------
    >>> map_leaves(lambda a, b: a + b, {"x": [1, 2]}, {"x": [10, 20]})
    {'x': [11, 22]}
    """
    leaves, rebuild = flatten(tree)
    columns = [leaves, *(flatten(other)[0] for other in others)]
    if any(len(column) != len(leaves) for column in columns):
        raise ValueError(
            f"containers of different structure: {[len(column) for column in columns]} leaves; "
            "want as many in the same places"
        )
    return rebuild(iter([function(*entries) for entries in zip(*columns, strict=True)]))


def _flatten_all(
    trees: Any,
) -> tuple[list[Any], Callable[[Iterator[Any]], list[Any]]]:
    parts = [flatten(tree) for tree in trees]
    leaves = [leaf for part, _ in parts for leaf in part]
    return leaves, lambda new: [rebuild(new) for _, rebuild in parts]
