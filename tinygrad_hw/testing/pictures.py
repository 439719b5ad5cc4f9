"""The picture of a checked function, with the ops to blame marked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from ..graph import Handle
from .functions import Flat, float_leaves

_MOST_NODES = 200
MARK = "wrong gradient"


def picture(fn: Callable[..., Any], flat: Flat, blamed: Collection[str]) -> Any:
    """Draw the graph of a call, and the backward pass too if a blamed op is only in that.

    Parameters
    ----------
    fn : callable
    flat : Flat
        Its arguments.
    blamed : collection of str
        Names of ops.

    Returns
    -------
    Graph or None
        None if the call records no graph.
    """
    from ..drawing import draw
    from ..drawing.fold import limit

    variables = flat.variables()
    names = dict(zip(flat.labels, variables, strict=True))
    outputs = [
        y
        for y in float_leaves(flat.call(fn, variables))
        if isinstance(y, Handle) and y._node is not None
    ]
    if not outputs:
        return None
    for order in ("forward", "both"):
        # Marked first and folded then: a folded part shows the marks of what is in it.
        graph = draw(*outputs, names=names, max_nodes=10**9, order=order)
        nodes = tuple(
            v._replace(marks=(MARK, *v.marks)) if v.kind == "op" and v.title in blamed else v
            for v in graph.nodes
        )
        if not blamed or nodes != graph.nodes:
            break
    return limit(replace(graph, nodes=nodes), _MOST_NODES)
