"""Values and gradients of the nodes of a graph, as far as they can be had."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..errors import GraphError
from ..graph import FREED, Constant, Leaf, Node, Recorded, no_grad
from ..walk import VARIABLES, array_of, pull, reachable, wrap

ADVICE = (
    "draw the graph before backward(), keep it with backward(retain_graph=True), or call "
    ".retain_grad() before backward() on what you want to see"
)


def intact(roots: Sequence[Node]) -> bool:
    """Tell whether a graph still keeps what it kept, and none of it was overwritten."""
    try:
        reachable([root for root in roots if type(root) is not Constant])
    except GraphError:
        return False
    return True


def values_of(nodes: Sequence[Node], given: Mapping[Node, Any]) -> dict[Node, Any]:
    """Give the values of nodes: those at hand, those kept, and the rest computed again.

    Parameters
    ----------
    nodes : sequence of Node
        Parents first.
    given : mapping of Node to array
        From tensors that the user holds.
    """
    values = dict(given)
    for node in nodes:
        if node.output is not None:
            values.setdefault(node, np.asarray(node.output))
        if node.inputs is None or node.inputs is FREED:
            continue
        for parent, value in zip(node.parents, node.inputs, strict=True):
            if isinstance(parent, Node) and not isinstance(value, Node):
                values.setdefault(parent, np.asarray(value))
    with no_grad(), np.errstate(all="ignore"):
        for node in nodes:
            if node.primitive is not None and node not in values:
                value = forward(node, values)
                if value is not None:
                    values[node] = value
    return values


def forward(node: Node, values: Mapping[Node, Any]) -> Any:
    """Compute a node's value from those of its parents, or None where one is not known."""
    assert node.primitive is not None
    arguments = []
    for parent in node.parents:
        if isinstance(parent, Node):
            parent = values.get(parent)
            if parent is None or isinstance(parent, Recorded):
                return None
        arguments.append(parent)
    try:
        return np.asarray(node.primitive.forward(*arguments, **node.params))
    except Exception:  # A user's op may do anything; the picture goes without the value.
        return None


def seconds(node: Node, values: Mapping[Node, Any]) -> float | None:
    """Measure a node's forward, the best of three."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        if forward(node, values) is None:
            return None
        times.append(time.perf_counter() - start)
    return min(times)


def gradients_of(
    roots: Sequence[Node], nodes: Sequence[Node], *, create_graph: bool = False
) -> dict[Node, Any]:
    """Give the gradients of the sum of the roots; tensors with nodes under ``create_graph``.

    The user's hooks are not called, and no ``.grad`` is written to.
    """
    variables = [node for node in nodes if type(node) in VARIABLES]
    seeds: list[tuple[Node, Any]] = []
    for root in roots:
        if type(root) in VARIABLES:
            ones = np.ones(root.shape, root.dtype)
            # A leaf of its own makes all that is computed from it part of a graph.
            seeds.append((root, wrap(ones, Leaf(ones)) if create_graph else ones))
    with _without_hooks(variables):
        return pull(seeds, variables, create_graph=create_graph)[0]


def seen_gradients(nodes: Sequence[Node]) -> dict[Node, Any]:
    """Give the gradients that an earlier backward left: of leaves, and where they were retained."""
    found = {}
    for node in nodes:
        gradient = node.grad if isinstance(node, Leaf) else (node.extras or {}).get("retained")
        if gradient is not None:
            found[node] = array_of(gradient)
    return found


@contextmanager
def _without_hooks(nodes: Sequence[Node]) -> Iterator[None]:
    hidden = {}
    for node in nodes:
        if node.extras and not node.extras.keys().isdisjoint(("hooks", "retained")):
            hidden[node] = node.extras
            node.extras = {
                key: value for key, value in node.extras.items() if key not in ("hooks", "retained")
            }
    try:
        yield
    finally:
        for node, extras in hidden.items():
            node.extras = extras
