"""Numerical derivatives that carry their own error bar.

A slope is measured along a line: ``phi(t)``, a :class:`Sample` of a function at the parameter t.
Central differences at the steps h, h/2, h/4 and h/8 are extrapolated to the step 0 (Richardson
1911). Two such ladders, their steps far apart, err for different reasons: the coarse one by the
terms that the extrapolation leaves, the fine one by rounding. Where they agree, both are right, and
what is left between them is the error bar; where they do not, there is no verdict.

Steps are shortened until they do, a few times. A difference across a kink is no derivative either.
So each sample carries the *pieces* of the primitives that computed it, and steps are shortened
until all of them lie on one piece; a point where no step is short enough is a kink, which has a
slope on either side.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..graph import Handle, observe, wrap
from .functions import Flat, float_arrays, precision_of

__all__ = ["STEP", "Estimate", "Sample", "Slope", "numeric_gradient", "slope", "watching"]

STEP = 1 / 64
# Not a power of two, lest the steps of the ladders fall together on the period of a function.
_APART = 85.3
_APART_LOW_PRECISION = 8.53
_RUNGS = 4
_SHORTENINGS = 8
_MOST_GROUPS = 32

Array = np.ndarray[Any, Any]
Pieces = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Sample:
    """A function of one parameter, at one place.

    Attributes
    ----------
    value : float
    magnitude : float
        Sum of the absolute values that were added up to the value: what rounding is relative to.
    pieces : tuple
        Name and piece of every primitive that computed it, None where it has no pieces.
    precision : float
        The rounding unit of the dtype that it was computed in.
    largest : float
        The largest size of any number that it was computed from.
    """

    value: float
    magnitude: float
    pieces: Pieces = ()
    precision: float = float(np.finfo(np.float64).eps)
    largest: float = 1.0


@dataclass(frozen=True)
class Slope:
    """What the oracle knows of a slope.

    Attributes
    ----------
    kind : str
        ``smooth``, ``kink``, ``inconclusive`` or ``nonfinite``.
    value, error : float
        The slope and how far off it may be; at a kink, the middle and half of the gap.
    sides : tuple of float
        Slope to the left and to the right; NaN if none can be told, as at a jump.
    kinks : int
        Number of entries, of all primitives, that are on different pieces to the left and right.
    magnitude, precision : float
        Of the function, as in :class:`Sample`.
    """

    kind: str
    value: float = math.nan
    error: float = math.inf
    sides: tuple[float, float] = (math.nan, math.nan)
    kinks: int = 0
    magnitude: float = 0.0
    precision: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A numerical gradient and its error, arrays of the shape of the argument.

    The error is infinite where nothing can be said. On a kink the value is the middle of the slopes
    on both sides, and the error what these are off it.
    """

    value: Array
    error: Array
    on_kink: Array


def slope(
    phi: Callable[[float], Sample], *, step: float | None = None, declared: bool = True
) -> Slope:
    """Measure the derivative of ``phi(t)`` at t = 0.

    Parameters
    ----------
    phi : callable
        Gives a :class:`Sample` for a float.
    step : float, optional
        The longest step. If it is given, shorter ones are only tried to stay off kinks.
    declared : bool
        Whether the samples name their pieces. If not, ladders that disagree may be on two sides of
        a kink, and shorter steps are tried.

    Examples
    --------
    >>> found = slope(lambda t: Sample(math.exp(t), math.exp(t)))
    >>> found.kind, round(found.value, 9), found.error < 1e-9
    ('smooth', 1.0, True)
    >>> slope(lambda t: Sample(math.sin(500 * t), 1.0), step=0.5).kind
    'inconclusive'
    """
    centre = phi(0.0)
    if not math.isfinite(centre.value):
        return Slope("nonfinite")
    patient = step is None or not declared
    step = STEP if step is None else step
    apart = _APART if centre.precision < 1e-12 else _APART_LOW_PRECISION
    found = Slope("inconclusive")
    for attempt in range(_SHORTENINGS + 1):
        h = step / 4**attempt
        coarse = _ladder(phi, centre, h)
        fine = _ladder(phi, centre, h / apart) if coarse else None
        if coarse and fine:
            before, found = found, _judge(centre, coarse, fine, h, apart)
            if found.kind == "smooth" or not patient:
                return found
            if found.kind == "kink" and _same_bend(before, found):
                return found
        elif attempt == 0:
            # Decide at once for a point on a kink, where shorter steps do not help.
            shortest = step / 4**_SHORTENINGS
            if not _on_one_piece(centre, _samples(phi, shortest / apart)):
                return _at_kink(phi, centre, shortest)
    return found if found.kind == "inconclusive" else Slope("inconclusive")


def _same_bend(a: Slope, b: Slope) -> bool:
    """Tell a kink from a smooth bend: it is as sharp from nearer by."""
    return a.kind == "kink" and abs(a.error - b.error) <= 0.1 * b.error


def _samples(phi: Callable[[float], Sample], h: float) -> list[tuple[float, Sample, Sample]]:
    steps = [h / 2**i for i in range(_RUNGS)]
    return [(s, phi(s), phi(-s)) for s in steps]


def _ladder(
    phi: Callable[[float], Sample], centre: Sample, h: float
) -> list[tuple[float, Sample, Sample]] | None:
    """Sample both sides at the steps of a ladder; None as soon as one leaves the piece."""
    rungs = []
    for i in range(_RUNGS):
        s = h / 2**i
        rung = (s, phi(s), phi(-s))
        if not _on_one_piece(centre, [rung]):
            return None
        rungs.append(rung)
    return rungs


def _on_one_piece(centre: Sample, rungs: list[tuple[float, Sample, Sample]]) -> bool:
    return all(
        math.isfinite(sample.value) and _differing(sample.pieces, centre.pieces) == 0
        for _, *sides in rungs
        for sample in sides
    )


def _differing(a: Pieces, b: Pieces) -> int:
    """Count the entries in which two signatures differ; at least one if other primitives ran."""
    if [name for name, _ in a] != [name for name, _ in b]:
        return max(2, abs(len(a) - len(b)))
    count = 0
    for (_, left), (_, right) in zip(a, b, strict=True):
        if left is None or left is right:
            continue
        if left.shape != right.shape:
            return 2
        count += int(np.count_nonzero(left != right))
    return count


def _judge(
    centre: Sample,
    coarse: list[tuple[float, Sample, Sample]],
    fine: list[tuple[float, Sample, Sample]],
    h: float,
    apart: float,
) -> Slope:
    value, _ = _central(coarse)
    check, scatter = _central(fine)
    last = h / 2 ** (_RUNGS - 1)
    samples = [sample for _, *sides in (*coarse, *fine) for sample in sides]
    precision = max(sample.precision for sample in samples)
    magnitude = max(sample.magnitude for sample in samples)
    # On a plateau nothing shows what digits were lost on the way to it.
    flat = all(sample.value == centre.value for sample in samples)
    digits = max(sample.largest for sample in samples) if flat else magnitude
    left, right = sides = _one_sided(centre, fine)
    gap, noise = abs(right - left), precision * digits / last * apart
    # Errors of the two that happen to be alike would hide, were it not for the last term.
    error = abs(value - check) + max(noise, scatter) / 4
    if gap > 1e-3 * max(abs(left), abs(right)) + 1e3 * noise + 20 * error:
        # Too steep a bend for a smooth function, at the very point: a kink that nobody declared.
        return Slope("kink", (left + right) / 2, gap / 2, sides, 2, magnitude, precision)
    agree = error <= 1e-5 * max(abs(value), abs(check)) + 50 * noise
    return Slope(
        "smooth" if agree else "inconclusive", value, error, sides, 0, magnitude, precision
    )


def _central(rungs: list[tuple[float, Sample, Sample]]) -> tuple[float, float]:
    """Extrapolate central differences; give the result and how much the last column scatters."""
    column = [(up.value - down.value) / (2 * s) for s, up, down in rungs]
    before, last = (_extrapolate(part, 4) for part in (column[:-1], column[1:]))
    return _extrapolate(column, 4), abs(last - before)


def _one_sided(centre: Sample, rungs: list[tuple[float, Sample, Sample]]) -> tuple[float, float]:
    left, right = zip(*(_differences(centre, rung) for rung in rungs), strict=True)
    return _extrapolate(list(left), 2), _extrapolate(list(right), 2)


def _extrapolate(column: list[float], base: int) -> float:
    """Richardson's table: the error of the k-th column goes with the k-th power of ``base``."""
    for k in range(1, len(column)):
        power = float(base**k)
        column = [(power * b - a) / (power - 1) for a, b in itertools.pairwise(column)]
    return column[0]


def _at_kink(phi: Callable[[float], Sample], centre: Sample, h: float) -> Slope:
    """Measure the two slopes, each on its own side."""
    rungs = _samples(phi, h)
    first = rungs[0]
    if not all(math.isfinite(sample.value) for _, *sides in rungs for sample in sides):
        return Slope("nonfinite")
    kinks = _differing(first[1].pieces, first[2].pieces)
    left, right = sides = _one_sided(centre, rungs)
    noise = 1e3 * centre.precision * centre.magnitude / h
    for near, far in zip(_differences(centre, rungs[-1]), _differences(centre, first), strict=True):
        if abs(near - far) > 0.1 * abs(far) + noise:
            sides = (math.nan, math.nan)  # A jump, or a slope that is infinite.
    gap, unit = abs(right - left), centre.precision
    return Slope("kink", (left + right) / 2, gap / 2, sides, kinks, centre.magnitude, unit)


def _differences(centre: Sample, rung: tuple[float, Sample, Sample]) -> tuple[float, float]:
    s, up, down = rung
    return (centre.value - down.value) / s, (up.value - centre.value) / s


# --- Pieces -----------------------------------------------------------------------------------


class watching:
    """Collect what primitives that run in a ``with`` say of their results.

    These are the pieces, the largest size, and the coarsest rounding unit.
    """

    def __init__(self) -> None:
        self.pieces: list[tuple[str, Any]] = []
        self.largest = 1.0
        self.precision = 0.0

    def __enter__(self) -> watching:
        self._mode = observe(self._note)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)

    def sample(self, value: float, magnitude: float, precision: float) -> Sample:
        """Make the sample of what was computed in the block."""
        unit = max(precision, self.precision)
        return Sample(value, magnitude, tuple(self.pieces), unit, self.largest)

    def _note(self, primitive: Any, args: Any, params: Any, result: Any) -> None:
        piece = None
        if primitive.piece is not None:
            values = [arg._data if isinstance(arg, Handle) else arg for arg in args]
            piece = np.asarray(primitive.piece(*values, **params))
        self.pieces.append((primitive.name, piece))
        if result._data.size and result._data.dtype.kind == "f":
            self.precision = max(self.precision, precision_of([result._data]))
            largest = float(np.abs(result._data).max())
            if self.largest < largest < math.inf:
                self.largest = largest


# --- Functions of arrays ----------------------------------------------------------------------


def numeric_gradient(
    fn: Callable[..., Any], *args: Any, step: float | None = None
) -> tuple[Estimate, ...]:
    """Estimate the gradient of a scalar function by differences, each entry with its error.

    Parameters
    ----------
    fn : callable
        Takes tensors, or arrays, and returns one number. It need not be differentiable by the
        engine.
    *args
        Arrays, tensors, numbers, or containers of them. Integers are constants.
    step : float, optional
        The longest step, relative to the size of an argument; by default 1/64, and shorter where
        that is too coarse.

    Returns
    -------
    tuple of Estimate
        One for every array of floats in the arguments, in order.

    Raises
    ------
    ShapeError
        If the function does not return one number.

    Examples
    --------
    >>> import numpy as np, tinygrad_hw as tg
    >>> (estimate,) = numeric_gradient(lambda x: tg.sin(x).sum(), np.array([0.0, 1.0]))
    >>> bool((abs(estimate.value - np.cos([0.0, 1.0])) <= estimate.error).all())
    True
    >>> bool((estimate.error < 1e-10).all())
    True
    """
    flat = Flat(args)
    along = scalar_along(lambda values: flat.scalar(fn, values), flat.values)
    return entrywise(along, flat.values, step=step)


def scalar_along(
    function: Callable[[Sequence[Array]], tuple[float, float, float]], values: Sequence[Array]
) -> Callable[[Sequence[Array]], Callable[[float], Sample]]:
    """Turn a function of arrays into the functions ``phi`` along its directions.

    ``function`` gives value, magnitude and precision.
    """

    def along(direction: Sequence[Array]) -> Callable[[float], Sample]:
        def phi(t: float) -> Sample:
            moved = [x + t * v for x, v in zip(values, direction, strict=True)]
            with watching() as watch, np.errstate(all="ignore"):
                value, magnitude, precision = function(moved)
            return watch.sample(value, magnitude, precision)

        return phi

    return along


def entrywise(
    along: Callable[[Sequence[Array]], Callable[[float], Sample]],
    values: Sequence[Array],
    *,
    step: float | None = None,
    declared: bool = True,
    only: Sequence[Array] | None = None,
) -> tuple[Estimate, ...]:
    """Estimate the slope along every entry, or along those where ``only`` is true."""
    estimates = []
    for k, x in enumerate(values):
        value, error = np.full(x.shape, np.nan), np.full(x.shape, np.inf)
        on_kink = np.zeros(x.shape, bool)
        scale = scale_of(x)
        for index in np.ndindex(x.shape):
            if only is not None and not only[k][index]:
                continue
            direction = [np.zeros(v.shape) for v in values]
            direction[k][index] = scale
            found = slope(along(direction), step=step, declared=declared)
            if found.kind in ("smooth", "kink"):
                value[index], error[index] = found.value / scale, found.error / scale
                on_kink[index] = found.kind == "kink" and found.kinks == 1
        estimates.append(Estimate(value, error, on_kink))
    return tuple(estimates)


def off_kinks(
    along: Callable[[Sequence[Array]], Callable[[float], Sample]],
    direction: Sequence[Array],
    *,
    step: float | None = None,
    declared: bool = True,
) -> list[Array]:
    """Give the part of a direction off all kinks: 0 in the entries along which there is one.

    Entries are tried together and apart, by halves, so that few on kinks among many are found soon;
    what is not told apart by then is left out, too.
    """
    moves = np.concatenate([np.ravel(v) for v in direction])
    ends = np.cumsum([np.size(v) for v in direction])[:-1]

    def only(entries: Array) -> list[Array]:
        part = np.zeros_like(moves)
        part[entries] = moves[entries]
        parts = np.split(part, ends)
        return [p.reshape(np.shape(v)) for p, v in zip(parts, direction, strict=True)]

    smooth: list[Array] = [np.arange(0)]
    groups = np.array_split(np.arange(len(moves)), 2)
    for _ in range(_MOST_GROUPS):
        if not groups:
            break
        group = groups.pop(0)
        if slope(along(only(group)), step=step, declared=declared).kind == "smooth":
            smooth.append(group)
        elif len(group) > 1:
            groups += np.array_split(group, 2)
    return only(np.concatenate(smooth))


def scale_of(x: Array) -> float:
    """Give the length that steps in an argument are relative to."""
    with np.errstate(all="ignore"):
        size = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
    return max(size, 1e-3) if size and math.isfinite(size) else 1.0


def complex_step(
    fn: Callable[..., Any], flat: Flat, weights: Sequence[Array], direction: Sequence[Array]
) -> float | None:
    """Differentiate along a direction by an imaginary step (Squire and Trapp 1998).

    It is exact to rounding for analytic functions, and silently wrong for others: a cast to float32
    makes it 0. So it is None as soon as a primitive has pieces or drops the imaginary part, and no
    verdict rests on it alone.
    """
    h = 1e-30
    analytic = True

    def note(primitive: Any, args: Any, params: Any, result: Any) -> None:
        nonlocal analytic
        kinds = [np.asarray(a._data if isinstance(a, Handle) else a).dtype.kind for a in args]
        if "c" in kinds and (primitive.piece is not None or result._data.dtype.kind != "c"):
            analytic = False

    points = [wrap(x + 1j * h * v) for x, v in zip(flat.values, direction, strict=True)]
    try:
        with observe(note), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("error")
            outputs = float_arrays(flat.call(fn, points), kinds="fc")
        total = sum(float(np.sum(u * y.imag)) for u, y in zip(weights, outputs, strict=True))
    except Exception:
        return None
    return total / h if analytic and math.isfinite(total) else None
