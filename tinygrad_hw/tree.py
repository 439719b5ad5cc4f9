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
        kind = type(tree)
        return leaves, lambda new: _mapping(kind, dict(zip(keys, rebuild(new), strict=True)))
    if isinstance(tree, (list, tuple)):
        leaves, rebuild = _flatten_all(tree)
        if hasattr(tree, "_fields"):
            return leaves, lambda new: type(tree)(*rebuild(new))
        return leaves, lambda new: type(tree)(rebuild(new))
    return [tree], next


def _mapping(kind: type, entries: dict[Any, Any]) -> Any:
    """Make a mapping of a kind, such as one whose entries are attributes too."""
    if kind is dict or not issubclass(kind, dict):
        return entries
    try:
        return kind(entries)
    except TypeError:
        # It is made of something else, as a defaultdict.
        return entries


def leaves_like(given: Any, tree: Any) -> list[Any]:
    """Give the leaves of a container in the order of those of another, whose structure it has.

    Examples
    --------
    >>> leaves_like({"b": 3, "w": [1, 2]}, {"w": ["x", "y"], "b": "z"})
    [1, 2, 3]
    """
    if isinstance(tree, Mapping):
        if not isinstance(given, Mapping) or given.keys() != tree.keys():
            raise ValueError(f"got {_kind(given)}; want a mapping with the keys {[*tree]}")
        pairs = [(given[key], tree[key]) for key in tree]
    elif isinstance(tree, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(given) != len(tree):
            raise ValueError(f"got {_kind(given)}; want a {type(tree).__name__} of {len(tree)}")
        pairs = list(zip(given, tree, strict=True))
    else:
        return [given]
    return [leaf for pair in pairs for leaf in leaves_like(*pair)]


def _kind(given: Any) -> str:
    if isinstance(given, Mapping):
        return f"one with {[*given]}"
    name = type(given).__name__
    return f"a {name} of {len(given)}" if isinstance(given, (list, tuple)) else f"a {name}"


def check_state(op: str, state: Any) -> None:
    """Raise for what is no mapping, such as the path of a file that holds one."""
    if not isinstance(state, Mapping):
        raise TypeError(
            f"{op}: got a {type(state).__name__}; want a mapping, as state_dict() or load(path) "
            "gives"
        )


def _flatten_all(
    trees: Any,
) -> tuple[list[Any], Callable[[Iterator[Any]], list[Any]]]:
    parts = [flatten(tree) for tree in trees]
    leaves = [leaf for part, _ in parts for leaf in part]
    return leaves, lambda new: [rebuild(new) for _, rebuild in parts]
