"""What must hold of every gradient, whatever the function: checked on every example."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import tree
from ..autodiff import backward, jvp
from ..graph import no_grad
from .functions import Flat, float_leaves, precision_of, variable, weigh
from .levels import array_of, pulled
from .oracle import scale_of, watching

Array = np.ndarray[Any, Any]

WRITES = "the function or its backward writes to its arguments"


class Nondeterministic(Exception):
    """Two runs differ."""


def broken_laws(
    fn: Callable[..., Any],
    flat: Flat,
    weights: Sequence[Array],
    other_weights: Sequence[Array],
    direction: Sequence[Array],
) -> Iterator[str]:
    """Name the laws that do not hold at a point.

    Raises
    ------
    Nondeterministic
        If a second run gives another result.
    BackwardFailed
        If a rule raises an error.
    """
    _run_elsewhere(fn, flat, weights, direction)
    variables = flat.variables()
    before = _snapshot(flat, variables)
    with watching() as watch:
        outputs = float_leaves(flat.call(fn, variables))
    values = [array_of(y).copy() for y in outputs]
    gradient = pulled(outputs, weights, variables)
    if not _same(before, _snapshot(flat, variables)):
        yield WRITES
        return
    _run_elsewhere(fn, flat, weights, direction)
    if not _same(values, [array_of(y) for y in outputs]):
        yield "a later call overwrites what an earlier one returned"
        return
    again = float_leaves(flat.call(fn, variables))
    second = pulled(again, weights, variables)
    if not _same(values, [array_of(y) for y in again]):
        raise Nondeterministic("a second run on the same arguments gives other values")
    if not _same(gradient, second):
        raise Nondeterministic("a second run on the same arguments gives another gradient")
    for label, x, g in zip(flat.labels, variables, gradient, strict=True):
        if g.shape != x.shape or g.dtype != x.dtype:
            yield (
                f"the gradient of {label} has shape {g.shape} and dtype {g.dtype}, the argument "
                f"{x.shape} and {x.dtype}"
            )
    precision = max(precision_of(values + gradient), watch.precision)
    close = _Close(precision, lambda: _rounding(fn, flat, [weights, other_weights]))
    both = pulled([*outputs, *again], [*weights, *weights], variables)
    if not close(both, [2 * g for g in gradient]):
        yield "two uses of the arguments do not add up in the gradient"
    yield from _linearity(outputs, weights, other_weights, variables, gradient, close)
    with no_grad():
        plain = float_leaves(flat.call(fn, variables))
    if not close([array_of(y) for y in plain], values):
        yield "under no_grad the values are others"
    yield from _accumulation(outputs, weights, variables, gradient, close)
    yield from _layout(fn, flat, weights, values, gradient, close)
    recorded = pulled(outputs, weights, variables, create_graph=True)
    if not close([array_of(g) for g in recorded], gradient):
        yield "a rule computes other values on tensors, under create_graph, than on arrays"
    yield from _precision(fn, flat, weights, values, gradient)


def _layout(
    fn: Callable[..., Any],
    flat: Flat,
    weights: Sequence[Array],
    values: Sequence[Array],
    gradient: Sequence[Array],
    close: _Close,
) -> Iterator[str]:
    """Compare with a run on the same numbers that lie in memory in another order, with gaps."""
    variables = [variable(laid_otherwise(x._data)) for x in flat.variables()]
    try:
        outputs = float_leaves(flat.call(fn, variables))
    except Exception as error:
        yield f"on arrays of another memory layout, such as x.T, it raised {error!r}"
        return
    if not close([array_of(y) for y in outputs], values):
        yield "on arrays of another memory layout, such as x.T, the values are others"
        return
    strided = pulled(outputs, [laid_otherwise(u) for u in weights], variables)
    if not close(strided, gradient):
        yield "with arrays of another memory layout, such as x.T, the gradient is another"


def laid_otherwise(x: Array) -> Array:
    """Copy an array to memory in another order of its axes, with gaps."""
    order = x.shape[::-1] if x.flags.c_contiguous else x.shape
    room = np.empty((*order, 2), x.dtype)[..., 0]
    laid = room.T if x.flags.c_contiguous else room
    laid[...] = x
    return laid


def _run_elsewhere(
    fn: Callable[..., Any], flat: Flat, weights: Sequence[Array], direction: Sequence[Array]
) -> None:
    """Run at another point, so that what a function or rule remembers from there shows here."""
    moved = [x + v / 64 for x, v in zip(flat.values, direction, strict=True)]
    variables = flat.variables(moved)
    # It may be outside the domain; nobody wants its result.
    with contextlib.suppress(Exception):
        pulled(float_leaves(flat.call(fn, variables)), weights, variables)


def _precision(
    fn: Callable[..., Any],
    flat: Flat,
    weights: Sequence[Array],
    values: Sequence[Array],
    gradient: Sequence[Array],
) -> Iterator[str]:
    """Compare a gradient of low precision with the one in float64.

    They may differ by what a change of the arguments in their last digit does to it. One that
    vanishes by cancellation, such as that of a bias in front of a normalisation, is rounded
    relative to what cancels: the size of the value, or of the other gradients.
    """
    if all(dtype == np.float64 for dtype in flat.dtypes):
        return

    def exact(values: Sequence[Array]) -> list[Array]:
        variables = flat.variables(values, exact=True)
        return pulled(float_leaves(flat.call(fn, variables)), weights, variables)

    unit = precision_of(gradient)
    here = exact(flat.values)
    near = [exact([x * (1 + sign * unit) for x in flat.values]) for sign in (-1, 1)]
    scales = [scale_of(x) for x in flat.values]
    largest = [float(np.abs(g).max(initial=0.0)) for g in here]
    terms = max(weigh(values, weights)[1], *(g * s for g, s in zip(largest, scales, strict=True)))
    for i, label in enumerate(flat.labels):
        spread = max(float(np.abs(other[i] - here[i]).max(initial=0.0)) for other in near)
        off = float(np.abs(gradient[i] - here[i]).max(initial=0.0))
        tolerance = 4096 * unit * largest[i] + 20 * spread + 64 * unit * terms / scales[i]
        if off > tolerance and np.isfinite(largest[i]):
            yield f"the gradient of {label} in {gradient[i].dtype} is another than in float64"


def _snapshot(flat: Flat, variables: Sequence[Any]) -> list[Array]:
    leaves, _ = tree.flatten(flat.arguments(variables))
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray) or hasattr(leaf, "_data")]
    return [array_of(leaf).copy() for leaf in arrays]


def _linearity(
    outputs: Sequence[Any],
    weights: Sequence[Array],
    others: Sequence[Array],
    variables: Sequence[Any],
    gradient: Sequence[Array],
    close: _Close,
) -> Iterator[str]:
    other = pulled(outputs, others, variables)
    total = pulled(outputs, [a + b for a, b in zip(weights, others, strict=True)], variables)
    parts = [g + h for g, h in zip(gradient, other, strict=True)]
    if not close(total, parts, sizes=[*gradient, *other]):
        yield "the gradient is not linear in the upstream one"


def _accumulation(
    outputs: Sequence[Any],
    weights: Sequence[Array],
    variables: Sequence[Any],
    gradient: Sequence[Array],
    close: _Close,
) -> Iterator[str]:
    """Check what ``backward`` leaves in ``.grad``, once and twice."""
    tracked = [(y, u) for y, u in zip(outputs, weights, strict=True) if getattr(y, "_node", None)]
    if not tracked:
        return
    for _ in range(2):
        for y, u in tracked:
            backward(y, u, retain_graph=True)
    reached = [(x, g) for x, g in zip(variables, gradient, strict=True) if x.grad is not None]
    if not close([x.grad for x, _ in reached], [2 * g for _, g in reached]):
        yield "two backwards do not add up in .grad"
    owned = [x.grad for x, _ in reached]
    values = [array_of(v) for v in (*variables, *outputs)]
    for i, g in enumerate(owned):
        if any(np.may_share_memory(g, other) for other in [*owned[i + 1 :], *values]):
            yield "a gradient shares memory with another array"
            return


def forward_mode(
    fn: Callable[..., Any], flat: Flat, weights: Sequence[Array], direction: Sequence[Array]
) -> Iterator[str]:
    """Compare the slope along a direction by forward mode with that by reverse mode."""
    variables = flat.variables()
    with watching() as watch:
        outputs = float_leaves(flat.call(fn, variables))
    gradient = pulled(outputs, weights, variables)
    primals = tuple(x._data for x in variables)
    tangents = tuple(v.astype(d) for v, d in zip(direction, flat.dtypes, strict=True))

    def tensors_of(*leaves: Any) -> list[Any]:
        return float_leaves(flat.call(fn, leaves))

    try:
        _, pushed = jvp(tensors_of, primals, tangents)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        yield f"forward mode, the backward of the backward, raised {type(error).__name__}: {error}"
        return
    terms = [u * array_of(t) for u, t in zip(weights, pushed, strict=True)]
    others = [g * v for g, v in zip(gradient, direction, strict=True)]
    forward, reverse = (np.array(sum(float(t.sum()) for t in side)) for side in (terms, others))
    size = np.array(sum(float(np.abs(t).sum()) for t in [*terms, *others]))
    length = max(float(np.abs(v).max(initial=0.0)) for v in direction)
    close = _Close(
        max(precision_of([*gradient, *map(array_of, pushed)]), watch.precision),
        lambda: _rounding(fn, flat, [weights]) * length * sum(v.size for v in direction),
    )
    if not close([forward], [reverse], sizes=[size]):
        yield (
            f"forward mode gives the slope {forward:.10g}, reverse mode {reverse:.10g}: a rule "
            "leaves the graph, or that of an op that the backward calls is wrong"
        )


class _Close:
    """Equality up to rounding: relative to the largest entry, or else to what is measured."""

    def __init__(self, precision: float, rounding: Callable[[], float]) -> None:
        self.precision, self.rounding = precision, rounding

    def __call__(
        self,
        a: Sequence[Array],
        b: Sequence[Array],
        sizes: Sequence[Array] | None = None,
    ) -> bool:
        sizes = b if sizes is None else sizes
        largest = max((float(np.abs(x).max(initial=0.0)) for x in sizes), default=0.0)
        if not np.isfinite(largest):
            return True
        tolerance = 1e4 * self.precision * largest
        return _within(a, b, tolerance) or _within(a, b, tolerance + 100 * self.rounding())


def _within(a: Sequence[Array], b: Sequence[Array], tolerance: float) -> bool:
    return all(
        np.shape(x) == np.shape(y) and np.allclose(x, y, rtol=0, atol=tolerance)
        for x, y in zip(a, b, strict=True)
    )


def _rounding(fn: Callable[..., Any], flat: Flat, several: Sequence[Sequence[Array]]) -> float:
    """Measure how far gradients jump when the last digits of the arguments change.

    Where large terms cancel, as in ``x / x``, they jump by more than a unit of the result. It is at
    least what the last digit of the function's value amounts to, over the size of the arguments.
    """
    size = max(map(scale_of, flat.values))
    found = []
    for weights in several:
        outputs = float_leaves(flat.call(fn, flat.variables()))
        _, magnitude, precision = weigh([array_of(y) for y in outputs], weights)
        found.append(precision * magnitude / size)

        def gradient(values: list[Array], weights: Sequence[Array] = weights) -> list[Array]:
            variables = flat.variables(values)
            return pulled(float_leaves(flat.call(fn, variables)), weights, variables)

        found += [float(j.max(initial=0.0)) for j in jumps(gradient, flat.values, flat.dtypes)]
    return max(found)


def jumps(
    gradient: Callable[[list[Array]], list[Array]], values: Sequence[Array], dtypes: Sequence[Any]
) -> list[Array]:
    """Measure how far gradients jump, entry by entry, when the last digits of values change."""
    units = [float(np.finfo(dtype).eps) for dtype in dtypes]
    near = [
        gradient([x * (1 + k * unit) for x, unit in zip(values, units, strict=True)])
        for k in range(-4, 5)
    ]
    return [np.ptp(np.array(gradients), axis=0) for gradients in zip(*near, strict=True)]


def _same(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return len(a) == len(b) and all(
        x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes()
        for x, y in zip(a, b, strict=True)
    )
