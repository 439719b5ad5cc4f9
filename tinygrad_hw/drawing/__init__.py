"""Pictures of graphs: forward, backward or both, as text, DOT, SVG, PNG, PDF, HTML or JSON."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..settings import check, check_least
from .build import MOST_DESCRIBED, build
from .fold import fold as _fold
from .fold import limit
from .graph import Edge, Graph, Group, Vertex
from .render import RendererError, renderer

__all__ = ["Edge", "Graph", "Group", "RendererError", "Vertex", "draw", "renderer"]


def draw(
    *outputs: Any,
    show: str | Iterable[str] = ("shape",),
    names: Any = None,
    depth: int | None = None,
    fold: str | Iterable[str] = (),
    direction: str = "LR",
    max_nodes: int = 200,
    order: str = "forward",
) -> Graph:
    """Picture what tensors were computed from.

    Parameters
    ----------
    *outputs : Tensor
    show : str or several
        What labels say: any of ``shape`` (on the arrows), ``dtype``, ``value``, ``grad``,
        ``stats``, ``saved``, ``bytes``, ``time`` (of computing it again), ``flops`` and ``source``
        (the line that recorded it, inside ``tg.debug()``). NaN, infinity, a dead relu, a vanished
        or exploded gradient and a parameter without gradient are always marked.
    names : dict of tensors, arrays and modules, or a Module, optional
        Names besides those of tensors, of the parameters of modules, and of the caller's variables.
    depth : int, optional
        Modules that lie this deep are folded into one box each; 0 folds all.
    fold : str or several
        Modules whose name or class matches such a pattern, as in a shell, are folded;
        ``"repeats"`` folds what repeats.
    direction : str
        ``LR``, ``TB``, ``RL`` or ``BT``.
    max_nodes : int
        A larger graph is folded by itself, and its caption says so.
    order : str
        ``forward``; ``backward`` for what computes the gradients; ``both``.

    Returns
    -------
    Graph

    Raises
    ------
    TypeError, ValueError
        If an output is no tensor, or an option is unknown.
    GraphError
        If gradients are asked for that are gone, because a backward freed the graph.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor([1.0, 2.0], requires_grad=True, name="x")
    >>> print(tg.draw(tg.sum(x * x)).text())
    sum ()
    └─ multiply (2,)
       ├─ x (2,)  parameter
       └─ x (2,)  above
    2 ops; 2 parameters in 1 tensor; 16 bytes kept for backward; 4 FLOPs
    """
    check_least("draw", "max_nodes", max_nodes, 2)
    check("draw", "show", show, "a name, or several", iter)
    check("draw", "fold", fold, "a pattern, or several", iter)
    shown = (show,) if isinstance(show, str) else tuple(show)
    patterns = (fold,) if isinstance(fold, str) else tuple(fold)
    with _uncollected():
        graph = build(
            outputs,
            show=shown,
            names=names,
            direction=direction,
            order=order,
            detail=max(max_nodes, MOST_DESCRIBED),
        )
        graph = _fold(
            graph,
            depth=depth,
            patterns=[pattern for pattern in patterns if pattern != "repeats"],
            repeats="repeats" in patterns,
        )
        return limit(graph, max_nodes)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hold off the collector of cycles: it would walk the boxes again and again and find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
