"""What the arguments of a call must be for a program to fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from .. import tree
from ..graph import Handle, Leaf
from .guards import Test
from .reached import hooks_of
from .same import PLAIN, same_plain


class Arguments:
    """What the leaves of a call's arguments must be for a program to fit."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self.leaves, self.rebuild = tree.flatten((args, kwargs))
        self.structure = _structure((args, kwargs))
        self.kinds = [_kind(leaf) for leaf in self.leaves]
        self.pattern = _pattern(self.leaves)
        self.tensors = {id(leaf): leaf for leaf in self.leaves if isinstance(leaf, Handle)}
        # Tensors that the function has from elsewhere, too: an argument stays or stays not one.
        self.reached: set[int] = set()
        # For the common case, positional arrays and tensors, a test without containers.
        plain = not kwargs and all(
            leaf is arg for leaf, arg in zip(self.leaves, args, strict=False)
        )
        self.flat = len(args) if plain and len(args) == len(self.leaves) else -1

    def test(self, test: Test) -> None:
        """Test the arguments ``a0``, ``a1`` and so on."""
        if self.flat < 0:
            test.term("False")
            return
        for i, kind in enumerate(self.kinds):
            test.term(f"type(a{i}) is {test.known(kind[0])}")
            if kind[1] is None:
                test.term(f"a{i} is {test.known(kind[2])}")
                continue
            if kind[1] != "array" and id(self.leaves[i]) in self.reached:
                test.term(f"a{i} is {test.known(self.leaves[i])}")
            elif kind[1] != "array" and self.reached:
                test.term(f"id(a{i}) not in {test.known(self.reached)}")
            array = f"a{i}" if kind[1] == "array" else f"a{i}._data"
            test.term(f"{array}.shape == {test.known(kind[2])}")
            test.term(f"{array}.dtype == {test.known(kind[3])}")
            if kind[1] == "constant":
                test.term(f"a{i}._node is None")
            elif kind[1] != "array":
                test.term(f"{test.known(_kind)}(a{i}) == {test.known(kind)}")
        for i, first in enumerate(self.pattern):
            for k in range(i):
                test.term(f"a{k} is {'' if first == k else 'not '}a{i}")

    def match(self, args: Any, kwargs: Any) -> Sequence[Any] | None:
        """Give the leaves if they are as they must be."""
        if len(args) == self.flat and not kwargs:
            leaves: Sequence[Any] = args
        else:
            if _structure((args, kwargs)) != self.structure:
                return None
            leaves = tree.flatten((args, kwargs))[0]
        for leaf, kind in zip(leaves, self.kinds, strict=True):
            if type(leaf) is not kind[0]:
                return None
            if kind[1] is None:
                if not _same_leaf(leaf, kind[2]):
                    return None
                continue
            array = leaf if kind[1] == "array" else leaf._data
            if array.shape != kind[2] or array.dtype != kind[3]:
                return None
            if kind[1] != "array" and _kind(leaf) != kind:
                return None
        if not self._reaches_the_same(leaves):
            return None
        if len(leaves) > 1 and _pattern(leaves) != self.pattern:
            return None
        return leaves

    def _reaches_the_same(self, leaves: Sequence[Any]) -> bool:
        """Tell whether arguments that the function has from elsewhere too are the same."""
        return all(
            now is leaf or not ({id(now), id(leaf)} & self.reached)
            for now, leaf in zip(leaves, self.leaves, strict=True)
            if isinstance(leaf, Handle)
        )

    def difference(self, args: Any, kwargs: Any) -> str:
        """Say what is different in other arguments."""
        if _structure((args, kwargs)) != self.structure:
            return "the arguments have another structure"
        leaves = tree.flatten((args, kwargs))[0]
        for i, (leaf, kind) in enumerate(zip(leaves, self.kinds, strict=True)):
            now = _kind(leaf)
            same = _same_leaf(leaf, kind[2]) if now[1] is kind[1] is None else now == kind
            if not same:
                return f"argument {i} was {_described(kind)}, is {_described(now)}"
        if not self._reaches_the_same(leaves):
            return "an argument is, or was, a tensor that the function has from elsewhere too"
        if _pattern(leaves) != self.pattern:
            return "other arguments are the same tensor"
        return ""

    def __str__(self) -> str:
        return ", ".join(map(_described, self.kinds)) or "none"


def _same_leaf(leaf: Any, recorded: Any) -> bool:
    return leaf is recorded or same_plain(leaf, recorded)


def _structure(container: Any) -> Any:
    if isinstance(container, Mapping):
        return (type(container), *((key, _structure(value)) for key, value in container.items()))
    if isinstance(container, (list, tuple)):
        return (type(container), *map(_structure, container))
    return None


def _kind(leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, Handle):
        node = leaf._node
        leaf_kind = "constant" if node is None else "leaf" if isinstance(node, Leaf) else "computed"
        has_grad = isinstance(node, Leaf) and node.grad is not None
        return type(leaf), leaf_kind, leaf._data.shape, leaf._data.dtype, has_grad, hooks_of(node)
    if isinstance(leaf, np.ndarray):
        return type(leaf), "array", leaf.shape, leaf.dtype
    return type(leaf), None, leaf


def _described(kind: tuple[Any, ...]) -> str:
    if kind[1] is None:
        return repr(kind[2]) if isinstance(kind[2], PLAIN) else f"a {kind[0].__name__}"
    extra = "" if kind[1] == "array" else f", {kind[1]}" + (" with a gradient" if kind[4] else "")
    return f"{kind[0].__name__} {kind[2]} {kind[3]}{extra}"


def _pattern(leaves: Sequence[Any]) -> list[int]:
    """For each leaf the first tensor or array that it is the same as."""
    first: dict[int, int] = {}
    return [
        first.setdefault(id(leaf), i) if isinstance(leaf, (Handle, np.ndarray)) else i
        for i, leaf in enumerate(leaves)
    ]


def share_memory(leaves: Sequence[Any]) -> bool:
    """Tell whether different arrays among the leaves lie, in part, at the same place."""
    values = [leaf._data if isinstance(leaf, Handle) else leaf for leaf in leaves]
    arrays = list({id(v): v for v in values if isinstance(v, np.ndarray)}.values())
    return any(np.may_share_memory(a, b) for a, b in combinations(arrays, 2))
