"""The walk back through the graph: from cotangents of results to those of what they came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .cotangents import (
    WORTH_CUTTING,
    elementwise_run,
    is_ours,
    is_worth_cutting,
    owned_array,
    pull_blocks,
)
from .debugging import trouble_in
from .errors import GraphError, MissingRuleError, ShapeError
from .graph import (
    FREED,
    VARIABLES,
    Constant,
    Handle,
    Node,
    as_array,
    clock,
    recorder,
    value_of,
    with_bases,
    wrap,
)
from .ops.elementwise import cast, where
from .ops.shape import sum_to

by_index = attrgetter("index")


def pull(
    seeds: Iterable[tuple[Node, Any]],
    wanted: Iterable[Node] | None = None,
    *,
    create_graph: bool = False,
    beyond: bool = True,
    watched: bool = True,
) -> tuple[dict[Node, Any], list[Node]]:
    """Pull cotangents of some nodes back to others.

    Parameters
    ----------
    seeds : pairs of a node and the cotangent of its value
    wanted : nodes, optional
        Where cotangents are asked for; by default at every leaf that is tracked.
    create_graph : bool
        Compute on tensors, so that the result can be differentiated again.
    beyond : bool
        Go on past a wanted node to those that it depends on.
    watched : bool
        Whether to call hooks and leave retained gradients; a picture leaves no trace.

    Returns
    -------
    cotangents : dict
        Of the wanted nodes that the seeds depend on; arrays, or tensors under ``create_graph``.
    visited : list of Node
        The nodes between them, latest first.
    """
    starts: dict[Node, Any] = {}
    for node, seed in seeds:
        starts[node] = starts[node] + seed if node in starts else seed
    order, marked = reachable(starts)
    hooked = watched and any([not _PULLED.isdisjoint(node.extras or ()) for node in marked])
    keep = set(wanted or ())
    if wanted is None:
        path, useful = order, set(order)
    else:
        useful = _leading_to(keep, order)
        path = [node for node in order if node in useful]
    with np.errstate(all="ignore"):
        # A slope may be infinite where a `where` or an index sends no cotangent: 0 * inf is then
        # NaN and not 0. That is rare, so only a result with NaN is computed again, with care.
        # Hooks may have effects, so a walk with hooks is careful the first time.
        walk = (path, keep, useful, create_graph, beyond, hooked)
        result = _walk(dict(starts), *walk, careful=hooked)
        if not hooked and _any_nan(result.values()):
            result = _walk(starts, *walk, careful=True)
    return result, order


# Extras that have a part in a walk.
_PULLED = frozenset({"hooks", "retained"})


def _walk(
    cotangents: dict[Node, Any],
    path: list[Node],
    keep: set[Node],
    useful: set[Node],
    create_graph: bool,
    beyond: bool,
    hooked: bool,
    *,
    careful: bool,
) -> dict[Node, Any]:
    """Apply the rules of the nodes on a path; return the cotangents of leaves and of ``keep``."""
    result = {}
    cut = not careful and not create_graph and recorder() is None
    whole: set[Node] = set()
    for node in path:
        g = cotangents.pop(node, None)
        if g is None:
            continue
        if hooked and node.extras is not None:
            g = _hooked(node, g)
        if node.primitive is None:
            result[node] = g
            continue
        if node in keep:
            result[node] = g
            if not beyond:
                continue
        pulled = None
        try:
            if cut and g.nbytes >= WORTH_CUTTING and node not in whole:
                run = elementwise_run(path, path.index(node), keep)
                if is_worth_cutting(run) and pull_blocks(run, g, useful, cotangents):
                    continue
                whole.update(run)
            pulled = _apply_rule(node, g, useful, create_graph)
            if len(pulled) != len(node.parents):
                raise TypeError(
                    f"{op_name(node)}: its rule returned {_count(pulled)} for "
                    f"{len(node.parents)} inputs; want a tuple with one each, None for zero"
                )
            for parent, cotangent in zip(node.parents, pulled):  # noqa: B905 (strict= costs time)
                if cotangent is None or parent not in useful:
                    continue
                if careful:
                    cotangent = _without_leaks(node, g, cotangent)
                if cotangent.shape != parent.shape:
                    cotangent = sum_to(cotangent, shape=parent.shape)
                if cotangent.dtype is not parent.dtype and cotangent.dtype != parent.dtype:
                    cotangent = cast(cotangent, dtype=parent.dtype)
                before = cotangents.pop(parent, None)
                if before is None:
                    cotangents[parent] = cotangent
                elif type(cotangent) is np.ndarray and is_ours(before):
                    before += cotangent
                    cotangents[parent] = before
                else:
                    cotangents[parent] = before + cotangent
        except (TypeError, AttributeError) as error:
            _explain(error, node, pulled)
            raise
        except ShapeError as error:
            raise ShapeError(f"{op_name(node)}: in its rule, {error}") from error
    return result


def _apply_rule(node: Node, g: Any, useful: set[Node], create_graph: bool) -> Any:
    """Pull the cotangent of a node's value back to its parents."""
    op: Any = node.primitive
    rule, parents, params = op.gradient, node.parents, node.params
    if rule is None:
        raise MissingRuleError(
            f"{op.name}: has no rule for its gradient; declare one with @{op.name}.rule, or call "
            f".detach() on what you pass to it"
        )
    inputs = parents if node.inputs is None else node.inputs
    output = node if node.output is None else node.output
    if create_graph:
        inputs = tuple(map(_lifted, inputs, parents))
        output = _lifted(output, node)
    # Two inputs are the most frequent case. Spelt out, the call takes half the time.
    if len(parents) == 2 == len(inputs) and not params:
        a, b = inputs
        if op.asks_needs:
            left, right = parents
            pulled = rule(g, output, a, b, needs=(left in useful, right in useful))
        else:
            pulled = rule(g, output, a, b)
    elif op.asks_needs:
        needs = tuple(map(useful.__contains__, parents))
        pulled = rule(g, output, *inputs, needs=needs, **params)
    else:
        pulled = rule(g, output, *inputs, **params) if params else rule(g, output, *inputs)
    if node.extras is not None and "where" in node.extras:
        _check_finite(node, g, pulled)
    return pulled


def _count(pulled: Any) -> str:
    if isinstance(pulled, (tuple, list)):
        return f"{len(pulled)} cotangents"
    return f"a {type(pulled).__name__}"


def _explain(error: Exception, node: Node, pulled: Any) -> None:
    """Raise a better error, if a rule gave no arrays or used a value that its node did not keep."""
    # Of None, a number, a 0-d array and a 0-d tensor.
    if re.search(r"has no len|len\(\) of", str(error)):
        raise TypeError(
            f"{op_name(node)}: its rule returned no tuple; want one cotangent an input, as in "
            "return (g,)"
        ) from error
    given = pulled if isinstance(pulled, (tuple, list)) else ()
    strange = [g for g in given if g is not None and not hasattr(g, "shape")]
    if strange:
        raise TypeError(
            f"{op_name(node)}: its rule returned {strange[0]!r}, a {type(strange[0]).__name__}; "
            "want arrays or tensors"
        ) from error
    if re.search(r"\b(Node|Leaf|Constant)\b", str(error)):
        raise TypeError(
            f"{op_name(node)}: its rule uses a value that was not kept ({error}); name it, as in "
            f'@{op_name(node)}.rule(keeps="x")'
        ) from error


def _check_finite(node: Node, g: Any, pulled: tuple[Any, ...]) -> None:
    """In debug mode: raise if a rule made NaN or infinity of finite cotangents."""
    if trouble_in(np.asarray(value_of(g))):
        return
    for i, cotangent in enumerate(pulled):
        trouble = "" if cotangent is None else trouble_in(np.asarray(value_of(cotangent)))
        if trouble:
            place = (node.extras or {}).get("where")
            raise FloatingPointError(
                f"{op_name(node)}: the gradient of argument {i} has {trouble}"
                + (f"; recorded at {place}" if place else "")
            )


def _any_nan(cotangents: Iterable[Any]) -> bool:
    # The dot product reads an array once and makes no other; NaN survives it, and the sum.
    total = 0.0
    for g in cotangents:
        flat = value_of(g).ravel(order="K")
        total = total + np.vdot(flat, flat)
    return bool(total != total)


def _without_leaks(node: Node, g: Any, cotangent: Any) -> Any:
    """Make a NaN zero where the cotangents that it was computed from are all zero."""
    undefined = np.isnan(value_of(cotangent))
    if not undefined.any():
        return cotangent
    leaks = undefined & ~_asked(node, value_of(g) != 0, cotangent.shape)
    return where(leaks, 0, cotangent) if leaks.any() else cotangent


def _asked(node: Node, asked: Any, shape: tuple[int, ...]) -> Any:
    """Tell which entries of an input have a part in entries of the result that are asked for."""
    op: Any = node.primitive
    if op.reach == "entry" and asked.shape == shape:
        return asked
    axis = node.params.get("axis", -1)
    if op.reach == "axis" and axis is not None:
        axes = normalize_axis_tuple(axis, len(shape))
        if asked.ndim == len(shape):
            return asked.any(axis=axes, keepdims=True)
        if asked.ndim + len(axes) == len(shape):
            return np.expand_dims(asked, axes)
    return asked.any()


def reachable(roots: Iterable[Node]) -> tuple[list[Node], list[Node]]:
    """Collect the variables that the roots depend on, latest first, and the nodes with extras."""
    order = list(roots)
    seen = set(order)
    see, append = seen.add, order.append
    marked: list[Node] = []
    for node in order:
        if node.inputs is FREED:
            raise GraphError(
                f"backward: the graph of '{op_name(node)}' {node.shape} was freed by an earlier "
                "backward; pass retain_graph=True to that one, or compute the forward again; "
                ".detach() a state that is carried from step to step"
            )
        if node.extras is not None:
            marked.append(node)
        for parent in node.parents:
            kind = type(parent)
            if kind in VARIABLES:
                if parent not in seen:
                    see(parent)
                    append(parent)
            elif kind is Constant and parent.extras is not None:
                marked.append(parent)
    order.sort(key=by_index, reverse=True)
    if marked:
        time = clock.latest_write
        for node in reversed(order):
            if node.index > time:
                break
            if node.primitive is not None:
                _check_unwritten(node)
    return order, marked


def _leading_to(wanted: set[Node], order: list[Node]) -> set[Node]:
    """Of the nodes in ``order``, those that depend on a wanted one."""
    useful = set(wanted)
    for node in reversed(order):
        if node not in useful and not useful.isdisjoint(
            [parent for parent in node.parents if type(parent) in VARIABLES]
        ):
            useful.add(node)
    return useful


def _lifted(value: Any, node: Any) -> Any:
    """Give a kept value as the tensor it was, so that what is computed from it is recorded."""
    if value is node or type(node) not in VARIABLES:
        return value
    return wrap(as_array(value), node)


def _hooked(node: Node, g: Any) -> Any:
    extras = node.extras or {}
    hooks = tuple(extras.get("hooks", {}).values())
    if hooks and not isinstance(g, Handle):
        # A hook may write to what it gets, which may be another tensor's gradient too.
        g = as_array(g).copy()
    for hook in hooks:
        replaced = hook(g if isinstance(g, Handle) else wrap(as_array(g)))
        if replaced is None:
            continue
        recorded = isinstance(g, Handle) and isinstance(replaced, Handle)
        value: Any = replaced if recorded else as_array(value_of(replaced))
        if value.dtype.kind not in "fiub":
            raise TypeError(
                f"hook: returned a gradient of dtype {value.dtype}; want real numbers, or None to "
                "leave it as it is"
            )
        if value.shape != node.shape:
            raise ShapeError(
                f"hook: returned a gradient of shape {value.shape} for a tensor {node.shape}; "
                "return one of the same shape, or None to leave it as it is"
            )
        g = value if value.dtype == node.dtype else cast(value, dtype=node.dtype)
    if "retained" in extras:
        extras["retained"] = owned_array(g, node)
    return g


def _check_unwritten(node: Node) -> None:
    """Raise if the rule of a node uses a value that was overwritten after it was recorded."""
    used = [parent for parent, _ in node.kept()]
    for kept in [*used, node] if node.output is not None else used:
        if _written(kept) > node.index:
            name = kept.name or f"a tensor {kept.shape}"
            raise GraphError(
                f"backward: {name} was written to in place after '{op_name(node)}' used it, so "
                "the gradient would be of other values; update it after backward, or write to a "
                "copy"
            )


def _written(node: Node) -> int:
    """Time of the last raw write to a node's value, or to what it is a view of."""
    times: list[int] = [(base.extras or {}).get("written", 0) for base in with_bases(node)]
    return max(times)


def op_name(node: Node) -> str:
    return "leaf" if node.primitive is None else node.primitive.name


def free(nodes: Iterable[Node]) -> None:
    """Let go of the values that nodes keep for their rules."""
    for node in nodes:
        if node.primitive is not None:
            node.inputs = FREED
            node.output = None
