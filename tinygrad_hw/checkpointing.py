"""Memory for time: compute a part of the graph again when backward needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .dispatch import Primitive
from .errors import GraphError
from .graph import VARIABLES, Handle, Leaf, Node, enable_grad, is_recording, tick, value_of, wrap
from .linearize import fresh_variable
from .ops.elementwise import identity
from .walk import by_index, pull, reachable


def checkpoint(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function, keep only its arguments, and compute it again when backward needs it.

    Memory for time (Chen et al. 2016, Training deep nets with sublinear memory cost).

    Parameters
    ----------
    function : callable
        Returns one tensor and gives the same values when called again. It may use other tensors,
        such as a module's parameters; their gradients are right too.
    *args : Tensor or anything else

    Returns
    -------
    Tensor

    Raises
    ------
    GraphError
        In backward, if the second call gives other values, as with unseeded dropout.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> x = tg.Tensor(2.0, requires_grad=True)
    >>> y = tg.checkpoint(lambda x: tg.exp(tg.sin(x)), x)
    >>> y.backward()
    >>> bool(abs(x.grad - np.cos(2.0) * np.exp(np.sin(2.0))) < 1e-12)
    True
    """
    if not is_recording():
        return function(*args)
    start = tick()
    probes = [_detached_variable(arg) for arg in args]
    y = function(*probes)
    if not isinstance(y, Handle):
        raise TypeError(f"checkpoint: the function returned a {type(y).__name__}; want one Tensor")
    if y._node is None:
        return y
    captured = sorted(_frontier(y._node, start), key=by_index)
    replay = _replaying(function, args, captured)
    value = y._data
    variables = [arg for arg in args if isinstance(arg, Handle)]
    outside = [wrap(np.empty(node.shape, node.dtype), node) for node in captured]
    del y, probes
    replay.forward = lambda *values: value
    out = replay(*variables, *outside)
    replay.forward = _no_forward
    return out


def _no_forward(*values: Any) -> Any:
    raise GraphError("checkpoint: its node cannot be computed from arrays alone")


def _detached_variable(arg: Any) -> Any:
    if isinstance(arg, Handle) and arg._node is not None:
        return wrap(arg._data, Leaf(arg._data))
    return arg


def _frontier(root: Node, start: int) -> set[Node]:
    """The nodes older than ``start`` that newer ones under ``root`` were computed from."""
    older = {root} if root.index < start else set()
    for node in reachable([root])[0]:
        if node.index > start:
            older |= {p for p in node.parents if type(p) in VARIABLES and p.index < start}
    return older


def _replaying(
    function: Callable[..., Any], args: tuple[Any, ...], captured: list[Node]
) -> Primitive:
    """A primitive whose rule calls the function again and pulls back through that graph."""
    places = [i for i, arg in enumerate(args) if isinstance(arg, Handle)]
    others = [None if isinstance(arg, Handle) else arg for arg in args]
    op = Primitive(_no_forward, "checkpoint", None, None, "", view=False)

    def rule(g: Any, y: Any, *inputs: Any) -> tuple[Any, ...]:
        arguments = list(others)
        nodes: list[Node] = []
        deeper = isinstance(g, Handle)
        with enable_grad():
            for place, value in zip(places, inputs, strict=False):
                data = value_of(value)
                linked = isinstance(value, Handle) and value._node is not None
                # A node of its own, apart from those that the function reaches in other ways.
                variable = identity(value) if linked else fresh_variable(data)
                arguments[place] = variable
                nodes.append(variable._node)
            again = function(*arguments)
        if not np.array_equal(again._data, value_of(y), equal_nan=True):
            raise GraphError(
                "checkpoint: the function gave other values when it was called again; seed its "
                "random numbers inside it"
            )
        cotangents, _ = pull(
            [(again._node, g)], [*nodes, *captured], create_graph=deeper, beyond=False
        )
        return tuple(cotangents.get(node) for node in [*nodes, *captured])

    op.rule(rule, keeps="y")
    op.keeps_inputs = tuple(range(len(places)))
    return op
