"""Who is to blame: every recorded op, checked alone at its own inputs."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..debugging import caller
from ..dispatch import Primitive
from ..graph import Constant, Handle, Leaf, Node, observe
from ..walk import reachable
from .compare import right_entries
from .levels import array_of
from .oracle import Estimate
from .report import Culprit, Entry, GradientReport

Array = np.ndarray[Any, Any]

# Checking one op takes about 10 ms; a network unrolled over time has thousands alike.
_MOST_CALLS = 300


@dataclass(frozen=True)
class Recorded:
    """One call of a primitive, with the values that it got."""

    primitive: Primitive
    args: tuple[Any, ...]
    params: dict[str, Any]
    where: str = ""


def record_calls(
    function: Callable[[Sequence[Any]], Any], variables: Sequence[Any]
) -> list[Recorded]:
    """Call a function and list the primitives that it called on tensors, up to an error."""
    calls: list[Recorded] = []
    # An op that writes to its argument has done so when it is noted: the values are from before.
    # The arrays are held too, lest another one takes the place of one that goes.
    before: dict[int, tuple[Array, Array]] = {}

    def keep(array: Array) -> None:
        before[id(array)] = array, array.copy()

    def value(arg: Any) -> Any:
        if not isinstance(arg, (Handle, np.ndarray)):
            return arg
        array = array_of(arg)
        return before[id(array)][1] if id(array) in before else array

    def note(primitive: Any, args: Any, params: Any, result: Any) -> None:
        calls.append(Recorded(primitive, tuple(map(value, args)), dict(params), caller()))
        keep(array_of(result))

    for x in variables:
        keep(array_of(x))
    with observe(note), np.errstate(all="ignore"), contextlib.suppress(Exception):
        function(variables)
    return calls


def culprits_among(
    calls: Sequence[Recorded], examine: Callable[[Recorded], GradientReport | None]
) -> tuple[Culprit, ...]:
    """Check calls alone, and name those with a wrong gradient; of equal calls, the first."""
    found = []
    blamed: set[tuple[str, str]] = set()
    for number, call in enumerate(calls[:_MOST_CALLS], 1):
        if (call.primitive.name, call.where) in blamed:
            continue
        report = examine(call)
        if report is not None and report.verdict == "wrong":
            blamed.add((call.primitive.name, call.where))
            found.append(_culprit(number, call, report))
    return tuple(found)


def _culprit(number: int, call: Recorded, report: GradientReport) -> Culprit:
    return Culprit(
        call.primitive.name,
        number,
        call.where,
        tuple(np.shape(a) for a in call.args),
        report.cause or "; ".join(report.broken),
        report.entries,
        report.reproducer,
    )


# --- What the graph of an output still knows ---------------------------------------------------


def calls_of_graph(output: Any, leaves: Sequence[Any]) -> Iterator[Recorded]:
    """List the ops of a graph with their values, oldest first.

    A graph keeps only what the rules need. What is missing is computed again from the leaves, and
    a leaf that nobody kept is drawn: the rules are right everywhere or they are wrong.
    """
    nodes = reachable([output._node])[0][::-1]
    values = _kept_values(nodes)
    values.update({x._node or x._constant: array_of(x) for x in leaves if isinstance(x, Handle)})
    rng = np.random.default_rng(0)
    for node in nodes:
        if node.primitive is None:
            continue
        args = tuple(_value_of(parent, values, rng) for parent in node.parents)
        if any(arg is None for arg in args):
            continue
        call = Recorded(
            node.primitive, args, dict(node.params), (node.extras or {}).get("where", "")
        )
        if node not in values:
            with np.errstate(all="ignore"):
                values[node] = np.asarray(node.primitive.forward(*args, **node.params))
        yield call


def _kept_values(nodes: Sequence[Node]) -> dict[Any, Array]:
    values: dict[Any, Array] = {}
    for node in nodes:
        if node.output is not None:
            values[node] = np.asarray(node.output)
        for parent, kept in node.kept():
            values[parent] = np.asarray(kept)
    return values


def _value_of(parent: Any, values: dict[Any, Array], rng: np.random.Generator) -> Any:
    """Give the value of a parent, drawing it if nobody knows; None if it cannot be drawn."""
    if not isinstance(parent, Node):
        return parent
    if parent not in values:
        if not isinstance(parent, (Leaf, Constant)) or parent.dtype.kind != "f":
            return None
        # Between the poles and kinks of the usual functions.
        values[parent] = rng.uniform(0.1, 0.9, parent.shape).astype(parent.dtype)
    return values[parent]


# --- What a wrong gradient looks like -----------------------------------------------------------


def parts_of_broadcast(shape: tuple[int, ...], weights: Array) -> Iterator[tuple[str, Array]]:
    """Give the weights of the first and the last results that a shape was broadcast to.

    Each comes with the axes in words.
    """
    lead = weights.ndim - len(shape)
    axes = [i for i, n in enumerate(weights.shape) if n > 1 and (i < lead or shape[i - lead] == 1)]
    groups = [axes, *([axis] for axis in axes)] if len(axes) > 1 else [axes]
    for group in groups if axes else []:
        for end in (0, -1):
            part: list[Any] = [slice(None)] * weights.ndim
            for axis in group:
                part[axis] = end
            left = np.zeros_like(weights)
            left[tuple(part)] = weights[tuple(part)]
            yield f"ax{'e' if len(group) > 1 else 'i'}s {', '.join(map(str, group))}", left


def likely_cause(
    engine: Sequence[Array],
    numeric: Sequence[Estimate],
    entries: Sequence[Entry],
    labels: Sequence[str],
    precision: float,
) -> str:
    """Say in a sentence what a wrong gradient looks like; empty if like nothing known."""
    wrong = {entry.argument for entry in entries if entry.wrong}
    known = [bool(np.isfinite(e.error).all()) for e in numeric]
    truth = [e.value for e in numeric]
    if len(engine) > 1 and all(known) and len(wrong) > 1:
        for j, i in itertools.combinations(range(len(engine)), 2):
            if alike(engine[i], truth[j]) and alike(engine[j], truth[i]):
                return f"the gradients of {labels[j]} and {labels[i]} are swapped"
    for label, g, estimate, whole in zip(labels, engine, numeric, known, strict=True):
        if label in wrong:
            return _cause_of_one(label, g, estimate, whole, precision)
    return ""


def _cause_of_one(label: str, g: Array, estimate: Estimate, whole: bool, precision: float) -> str:
    known = np.isfinite(estimate.error)
    a, n = g[known], estimate.value[known]
    right = right_entries(g, estimate, precision)[known]
    if not np.isfinite(a).all():
        return f"the gradient of {label} is not finite"
    if estimate.on_kink[known][~right].all():
        return f"on a kink, the gradient of {label} is beyond the slopes on both sides"
    if not a.any():
        return (
            f"nothing arrives at {label}: its term is missing, or a value left the graph "
            "(.data, .numpy(), detach)"
        )
    if alike(a, n):
        digits = -math.log10(float(np.abs(a - n).max() / np.abs(n).max()))
        return (
            f"the gradient of {label} is right to {digits:.0f} digits only: look for a cast to "
            "float32, or a constant that was rounded"
        )
    if alike(a, -n):
        return f"the gradient of {label} has the wrong sign"
    square = whole and g.ndim >= 2 and g.shape[-1] == g.shape[-2] > 1
    if square and alike(np.swapaxes(g, -1, -2), estimate.value):
        return f"the gradient of {label} is transposed"
    factor = float(np.vdot(a, n) / np.vdot(n, n)) if n.any() else np.nan
    if np.isfinite(factor) and alike(a, factor * n) and (n.size > 1 or _plain(factor)):
        return f"the gradient of {label} is off by a factor of {factor:.6g}"
    if n.size > 1 and _constant(a - n):
        return (
            f"the gradient of {label} is off by the same amount everywhere: a term or a sum over "
            "an axis is missing"
        )
    if right.any():
        return (
            f"{int(right.sum())} of {right.size} entries of the gradient of {label} are right: see "
            "whether the others are used more than once (`=` for `+=`), lie at a border, or take "
            "another branch"
        )
    return ""


def alike(a: Array, b: Array) -> bool:
    """Tell whether two arrays are equal up to the error of differences."""
    if np.shape(a) != np.shape(b):
        return False
    size = float(np.abs(b).max()) if np.size(b) else 0.0
    return size > 0 and bool(np.allclose(a, b, rtol=0, atol=1e-6 * size))


def _plain(factor: float) -> bool:
    """Tell a factor that somebody may have left out from the quotient of any two numbers."""
    return abs(factor - float(Fraction(factor).limit_denominator(100))) <= 1e-7 * abs(factor)


def _constant(a: Array) -> bool:
    return bool(np.ptp(a) <= 1e-6 * float(np.abs(a).max()))
