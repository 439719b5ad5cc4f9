"""From a slope by the engine and one by differences to a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .oracle import Estimate, Slope
from .report import Check, Entry

Array = np.ndarray[Any, Any]

# How far apart two right derivatives may be: in the error bars of the differences, and in the
# rounding units of the dtype, of all the terms that were added up.
_BARS = 20.0
_UNITS = 256.0
# At a kink, where the error bar is no estimate but reaches from slope to slope.
_BARS_AT_KINK = 1 + 1e-5
# A tolerance above this part of the slope would let a wrong gradient pass; one above this part of
# the function, that there is a slope where the engine says there is none.
_BLUNT = {True: 1e-3, False: 3e-2}
_BLUNT_FOR_ZERO = {True: 1e-6, False: 3e-2}


def compare(
    order: int,
    engine: float,
    magnitude: float,
    found: Slope,
    precision: float,
    rtol: float | None,
    atol: float | None,
) -> Check:
    """Compare one directional derivative.

    Parameters
    ----------
    engine, magnitude : float
        The slope by the engine, and the sum of its absolute terms.
    precision : float
        The rounding unit of the gradient.
    rtol, atol : float, optional
        Further tolerance, relative to the magnitude and absolute.
    """
    floor = (_UNITS * precision if rtol is None else rtol) * magnitude + (atol or 0.0)
    tolerance = _BARS * found.error + floor

    def check(verdict: str, note: str = "") -> Check:
        return Check(order, engine, found.value, found.error, tolerance, verdict, note)

    if found.kind == "kink":
        return _at_kink(check, engine, magnitude, found, floor)
    if found.kind != "smooth":
        return check(found.kind)
    if not math.isfinite(engine):
        return check("wrong", "the gradient is not finite though the slope is")
    if engine == found.value == 0:
        return check("ok")
    precise = max(precision, found.precision) < 1e-12
    blunt = tolerance > _BLUNT[precise] * max(magnitude, abs(found.value))
    if magnitude <= _UNITS * precision * found.magnitude:
        blunt = tolerance > _BLUNT_FOR_ZERO[precise] * found.magnitude
    if blunt and rtol is None and atol is None:
        return check("inconclusive", "too blunt to tell right from wrong")
    return check("ok" if abs(engine - found.value) <= tolerance else "wrong")


def _at_kink(
    check: Callable[[str, str], Check],
    engine: float,
    magnitude: float,
    found: Slope,
    floor: float,
) -> Check:
    left, right = found.sides
    if not math.isfinite(left):
        return check("kink", "a jump, or an infinite slope")
    if not math.isfinite(engine):
        note = "the gradient is not finite though the slopes of the kink are"
        return check("wrong" if found.kinks == 1 else "nonfinite", note)
    low, high = sorted(found.sides)
    slack = 1e-5 * (magnitude + abs(low) + abs(high)) + floor
    if found.kinks == 1 and not low - slack <= engine <= high + slack:
        return check("wrong", f"beyond the slopes of a kink, {left:.6g} and {right:.6g}")
    return check("kink", f"slopes {left:.6g} and {right:.6g}")


def worst_entries(
    labels: Sequence[str], engine: Sequence[Array], numeric: Sequence[Estimate], precision: float
) -> tuple[Entry, ...]:
    """Give the entry of each argument that is furthest off, in tolerances."""
    entries = []
    for label, g, estimate in zip(labels, engine, numeric, strict=True):
        if not np.isfinite(estimate.error).any():
            continue
        off = _off(g, estimate, precision)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(off)), off.shape))
        entries.append(
            Entry(
                label,
                index,
                float(g[index]),
                float(estimate.value[index]),
                float(estimate.error[index]),
                bool(off[index] > 1),
            )
        )
    return tuple(entries)


def right_entries(engine: Array, numeric: Estimate, precision: float) -> Array:
    """Tell which entries of a gradient agree with the differences."""
    return _off(engine, numeric, precision) <= 1


def _off(g: Array, estimate: Estimate, precision: float) -> Array:
    known = np.isfinite(estimate.error)
    largest = float(np.abs(estimate.value[known]).max()) if known.any() else 0.0
    bars = np.where(estimate.on_kink, _BARS_AT_KINK, _BARS)
    tolerance = bars * estimate.error + _UNITS * precision * (largest + 1e-300)
    with np.errstate(all="ignore"):
        off = np.abs(g - estimate.value) / tolerance
    off = np.where(np.isfinite(g), off, np.inf)
    return np.asarray(np.where(known, off, 0.0))
