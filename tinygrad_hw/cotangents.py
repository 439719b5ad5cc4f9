"""Arrays of cotangents: whose memory they are, and how long ones are pulled back block by block.

The rules of elementwise primitives that follow each other are applied to one block of long arrays
after the other. What goes from one operation to the next, and from one rule to the next, stays in
the cache; whole arrays would go to memory and come back each time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from .blocks import blocks_of
from .graph import VARIABLES, Node, value_of

# Bytes from which on it pays to cut cotangents: the calls for blocks of fewer cost what they save.
WORTH_CUTTING = 2**21
# Their rules hand cotangents on, or make one pass: of these alone blocks gain nothing.
_CHEAP = frozenset({"add", "subtract", "negative", "identity"})


def is_ours(g: Any) -> bool:
    """Tell whether an array in a variable of the caller's is shared with nobody.

    Rules may hand the same array to two parents, or one that the graph keeps; a view would hold a
    reference too. Where none does, it can be written to, or given away without a copy.
    """
    if type(g) is not np.ndarray or g.base is not None or not g.flags.writeable:
        return False
    return sys.getrefcount(g) <= _REFERENCES


def _references() -> int:
    """How many there are to an array of the caller's own, as :func:`is_ours` counts them."""
    own = np.empty(0)
    return _counted(own)


def _counted(g: Any) -> int:
    return sys.getrefcount(g)


_REFERENCES = _references()


def owned_array(g: Any, node: Node) -> np.ndarray[Any, Any]:
    """Give a gradient as an array of its own: no view, and shared with nobody."""
    array: Any = value_of(g)
    if type(array) is not np.ndarray or array.shape != node.shape:
        array = np.broadcast_to(array, node.shape)
    return array.astype(node.dtype)  # type: ignore[no-any-return]


def elementwise_run(path: Sequence[Node], start: int, keep: set[Node]) -> list[Node]:
    """Nodes of one shape and dtype from a place of a path on, whose rules go entry by entry."""
    first = path[start]
    run = []
    for place in range(start, len(path)):
        node = path[place]
        ends = node.shape != first.shape or node.dtype != first.dtype or node.extras is not None
        if ends or not _goes_by_entries(node) or (node in keep and node is not first):
            break
        run.append(node)
    return run


def is_worth_cutting(run: list[Node]) -> bool:
    """Whether a run makes so many arrays that blocks of them save time."""
    return len([n for n in run if n.primitive and n.primitive.name not in _CHEAP]) > 1


def _goes_by_entries(node: Node) -> bool:
    """Whether a block of cotangents is what a rule makes of a block of all that it takes."""
    op = node.primitive
    if op is None or op.reach != "entry" or node.params or not _is_ours_by_rule(op):
        return False
    values = (*(node.inputs or ()), node.output)
    if any([isinstance(v, np.ndarray) and type(v) is not np.ndarray for v in values]):
        return False
    return all(
        [
            parent.shape == node.shape and parent.dtype == node.dtype
            if type(parent) in VARIABLES
            else parent.shape in ((), node.shape)
            for parent in node.parents
            if isinstance(parent, Node)
        ]
    )


def _is_ours_by_rule(op: Any) -> bool:
    """Whether the rule is of this package: others may look at whole arrays, as to limit a norm."""
    origin = getattr(op.gradient, "__globals__", {})
    return str(origin.get("__name__", "")).startswith(f"{__package__}.ops.")


def pull_blocks(run: list[Node], g: Any, useful: set[Node], cotangents: dict[Node, Any]) -> bool:
    """Pull a cotangent back through a run of elementwise nodes; False if that is not possible.

    Parameters
    ----------
    run : list of Node
        As :func:`elementwise_run` gives them.
    g : array
        The cotangent of the first one.
    useful : set of Node
        Those whose cotangents are asked for.
    cotangents : dict
        Those that are known. Those of the run go in, those of other parents come out.
    """
    rules = [_BlockRule(node, useful) for node in run]
    ends = {parent for rule in rules for _, parent in rule.wanted}.difference(run)
    known = {run[0]: g, **{n: cotangents[n] for n in (*run, *ends) if n in cotangents}}
    lying = next((a for rule in rules for a in rule.values if _is_array(a)), g)
    blocks = blocks_of(lying, g.nbytes)

    def through(block: Any) -> tuple[dict[Node, Any], dict[Node, Any]]:
        given = {node: array[block] for node, array in known.items()}
        parts = dict(given)
        for rule in rules:
            h = parts.pop(rule.node, None)
            if h is not None:
                rule.pull(h, block, parts)
        return given, parts

    first = next(blocks)
    given, parts = through(first)
    if not all([_is_like(part, given[run[0]]) for part in parts.values()]):
        return False
    for node in run:
        cotangents.pop(node, None)
    sums = {}
    for parent, part in parts.items():
        handed = [known[node] for node, own in given.items() if own is part]
        if handed:
            cotangents[parent] = handed[0]
        else:
            sums[parent] = cotangents[parent] = np.empty_like(lying, dtype=g.dtype)
            sums[parent][first] = part
    for block in blocks:
        _, parts = through(block)
        for parent, whole in sums.items():
            whole[block] = parts[parent]
    return True


class _BlockRule:
    """The rule of an elementwise node, for blocks of its arrays."""

    def __init__(self, node: Node, useful: set[Node]) -> None:
        op: Any = node.primitive
        inputs = node.parents if node.inputs is None else node.inputs
        needs = tuple(map(useful.__contains__, node.parents))
        self.node, self.rule = node, op.gradient
        self.values = [node if node.output is None else node.output, *inputs]
        self.arrays = [(i, v) for i, v in enumerate(self.values) if _is_array(v)]
        self.options = {"needs": needs} if op.asks_needs else {}
        self.wanted = [(i, node.parents[i]) for i, needed in enumerate(needs) if needed]

    def pull(self, g: Any, block: Any, parts: dict[Node, Any]) -> None:
        """Add the cotangents of a block of the parents to ``parts``."""
        values = self.values.copy()
        for i, array in self.arrays:
            values[i] = array[block]
        pulled = self.rule(g, *values, **self.options)
        for i, parent in self.wanted:
            part = pulled[i]
            if part is not None:
                before = parts.pop(parent, None)
                if is_ours(before):
                    before += part
                    part = before
                elif before is not None:
                    part = before + part
                parts[parent] = part


def _is_array(value: Any) -> bool:
    return type(value) is np.ndarray and value.ndim > 0


def _is_like(part: Any, g: Any) -> bool:
    return _is_array(part) and part.shape == g.shape and part.dtype == g.dtype
