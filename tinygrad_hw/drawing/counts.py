"""What a node costs: floating-point operations, and bytes that it keeps for backward."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..graph import FREED, Leaf, Node

# These move values and compute none.
_MOVING = frozenset(
    "reshape transpose getitem setitem scatter_add concatenate stack split pad flip roll expand "
    "identity cast moveaxis swapaxes broadcast_to take take_along_axis take_along_axis_grad "
    "unpool pick".split()
)


def flops(node: Node) -> int:
    """Count the floating-point operations of a node's forward.

    A product with a sum is two; any function of one number, such as ``exp``, counts as one;
    whatever only moves values counts as none.
    """
    op = "" if node.primitive is None else node.primitive.name
    shapes = [p.shape if isinstance(p, Node) else () for p in node.parents]
    entries = math.prod(node.shape)
    if op == "" or op in _MOVING:
        return 0
    if op == "matmul":
        return 2 * entries * (shapes[0][-1] if shapes[0] else 1)
    if op == "conv":
        return 2 * entries * math.prod(shapes[1][:-1])
    if op == "conv_dx":
        return 2 * math.prod(shapes[0]) * math.prod(shapes[1][:-1])
    if op == "conv_dw":
        return 2 * math.prod(shapes[0]) * math.prod(node.shape[:-1])
    if op == "einsum":
        return _einsum_flops(node.params.get("spec", ""), shapes)
    return max([entries, *map(math.prod, shapes)])


def _einsum_flops(spec: str, shapes: list[tuple[int, ...]]) -> int:
    terms = spec.replace(" ", "").split("->")[0].split(",")
    sides = {
        letter: side
        for term, shape in zip(terms, shapes, strict=False)
        for letter, side in zip(term, shape, strict=False)
    }
    return len(terms) * math.prod(sides.values())


def kept(nodes: Iterable[Node]) -> int:
    """Count the bytes that nodes keep for backward, each array once and leaves' own ones not."""
    arrays: dict[Any, int] = {}
    for node in nodes:
        for value in _kept_values(node):
            if isinstance(value, (np.ndarray, np.generic)):
                array = np.asarray(value)
                place = id(value) if array.ndim == 0 else array.__array_interface__["data"][0]
                arrays[place] = max(arrays.get(place, 0), array.nbytes)
    return sum(arrays.values())


def _kept_values(node: Node) -> list[Any]:
    values = [] if node.output is None else [node.output]
    if node.inputs is not None and node.inputs is not FREED:
        pairs = zip(node.inputs, node.parents, strict=True)
        values += [value for value, parent in pairs if type(parent) is not Leaf]
    return values
