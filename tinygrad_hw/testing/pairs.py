"""``check_pair``: a backward written by hand, in NumPy, against differences of its forward."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .check import GRAVEST_FIRST, Settings, advice, name_of, some_entries
from .compare import compare, worst_entries
from .culprits import likely_cause
from .functions import Flat, float_arrays, float_leaves, precision_of, weigh
from .laws import Nondeterministic, laid_otherwise
from .levels import dot, random_direction, random_weights
from .oracle import Sample, entrywise, off_kinks, slope
from .report import Check, GradientError, GradientReport
from .spelling import script

Array = np.ndarray[Any, Any]


def check_pair(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *args: Any,
    wrt: int | Sequence[int] | None = None,
    directions: int = 2,
    rtol: float | None = None,
    atol: float | None = None,
    rng: int | np.random.Generator | None = None,
    raises: bool = True,
    step: float | None = None,
) -> GradientReport:
    """Check a hand-written backward of NumPy against differences of its forward.

    Parameters
    ----------
    forward : callable
        ``forward(*args)`` returns an array, or a tuple of them.
    backward : callable
        ``backward(dl_dy, *args)`` returns the gradient of each argument in ``wrt``, as an array or
        a tuple. ``dl_dy`` has the shape of the output; it is a tuple if that is one.
    *args
        Arrays or numbers.
    wrt : int or sequence of int, optional
        Positions of the arguments whose gradients ``backward`` returns; by default all that hold
        floats.
    directions, rtol, atol, rng, raises, step
        As for :func:`check_gradients`.

    Returns
    -------
    GradientReport

    Raises
    ------
    GradientError
        With ``raises``, if the gradient is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> from tinygrad_hw.testing import check_pair
    >>> check_pair(np.sin, lambda g, x: g * np.cos(x), np.array([0.5, 1.0])).verdict
    'ok'
    >>> report = check_pair(np.sin, lambda g, x: -g * np.cos(x), np.array([0.5]), raises=False)
    >>> report.cause
    'the gradient of x has the wrong sign'
    """
    __tracebackhide__ = True  # From pytest, which shows all of a function in a traceback.
    pair = _Pair(forward, backward, args, wrt, rng, Settings(directions, rtol, atol, step))
    report = pair.report()
    if raises and report.verdict in ("wrong", "nondeterministic"):
        raise GradientError(report)
    return report


class _Pair:
    """One run of :func:`check_pair`."""

    def __init__(
        self, forward: Any, backward: Any, args: Any, wrt: Any, rng: Any, settings: Settings
    ) -> None:
        self.forward, self.backward, self.settings = forward, backward, settings
        self.args, self.wrt = args, wrt
        self.flat = Flat(args, wrt, _without_first_parameter(backward))
        self.rng = np.random.default_rng(0 if rng is None else rng)
        self.name = name_of(backward)

    def outputs(self, values: Sequence[Array]) -> list[Array]:
        return float_arrays(self.flat.call(self.forward, [x.copy() for x in values]))

    def gradients(self, weights: Sequence[Array], copies: Sequence[Array]) -> list[Array]:
        given = [u[()] for u in weights]
        upstream: Any = tuple(given) if self.several else given[0]
        found = self.backward(upstream, *self.flat.arguments(copies))
        return [g.copy() for g in float_arrays(found, kinds="fiu")]

    def fresh(self, values: Sequence[Array] | None = None) -> list[Array]:
        return [x.copy() for x in (self.flat.values if values is None else values)]

    def report(self) -> GradientReport:
        """Check."""
        with np.errstate(all="ignore"):
            found = self._found()
        options = "" if self.wrt is None else f", wrt={self.wrt!r}"
        rerun = script((self.forward, self.backward), self.args, "check_pair", options)
        return replace(found, reproducer=rerun)

    def _found(self) -> GradientReport:
        raw = self.flat.call(self.forward, self.fresh())
        self.several = isinstance(raw, (tuple, list))
        outputs = [np.array(y) for y in float_leaves(raw, name_of(self.forward))]
        if not all(np.isfinite(y).all() for y in outputs):
            return GradientReport("nonfinite", self.name, "the value itself is not finite")
        weights = random_weights(self.rng, outputs)
        try:
            gradient, broken = self._gradient(outputs, weights)
        except Nondeterministic as difference:
            return GradientReport("nondeterministic", self.name, str(difference))
        if broken and gradient is None:
            return GradientReport("wrong", self.name, broken[0], broken=broken)
        checks = self._checks(weights, gradient)
        verdict = min((c.verdict for c in checks), key=GRAVEST_FIRST.index, default="ok")
        if not broken and verdict != "wrong":
            return GradientReport(verdict, self.name, advice(verdict, self.settings.step), checks)
        numeric = entrywise(
            self._along(weights),
            self.flat.values,
            step=self.settings.step,
            declared=False,
            only=some_entries(self.rng, self.flat.values),
        )
        precision, labels = precision_of(gradient), self.flat.labels
        entries = worst_entries(labels, gradient, numeric, precision)
        cause = likely_cause(gradient, numeric, entries, labels, precision)
        return GradientReport("wrong", self.name, "", checks, entries, broken, cause=cause)

    def _gradient(
        self, outputs: Sequence[Array], weights: Sequence[Array]
    ) -> tuple[Any, tuple[str, ...]]:
        """Compute the gradient, and name the laws that do not hold; None if it is of no use."""
        self._run_elsewhere(weights)
        copies = self.fresh()
        given = self.fresh(weights)
        try:
            gradient = self.gradients(given, copies)
        except Exception as error:
            return None, (f"the backward raised {type(error).__name__}: {error}",)
        misfit = self._misfit(gradient)
        if misfit:
            return None, (misfit,)
        return gradient, tuple(self._broken_laws(outputs, weights, gradient, given, copies))

    def _run_elsewhere(self, weights: Sequence[Array]) -> None:
        """Run at another point, so that what the pair remembers from there shows here."""
        direction = random_direction(self.rng, self.flat.values)
        # In reverse, so that other entries are positive, or the largest.
        moved = [np.flip(x + v / 64) for x, v in zip(self.flat.values, direction, strict=True)]
        with contextlib.suppress(Exception):
            self.outputs(moved)
            # A backward may write to what it gets: nothing here may depend on that any more.
            self.gradients(self.fresh(weights), moved)

    def _misfit(self, gradient: Sequence[Array]) -> str:
        """Say which gradient has not the shape of its argument; empty if all have."""
        values, labels = self.flat.values, self.flat.labels
        if len(gradient) != len(values):
            return (
                f"the backward returned {len(gradient)} gradients for {len(values)} arguments "
                f"({', '.join(labels)}); name those that it differentiates by in wrt"
            )
        for label, x, g in zip(labels, values, gradient, strict=True):
            if g.shape == x.shape:
                continue
            text = f"the gradient of {label} has shape {g.shape}, the argument {x.shape}"
            if g.shape == x.shape[::-1]:
                return f"{text}: it is transposed"
            if g.size > x.size:
                return f"{text}: it lacks the sum over an axis that was broadcast"
            return text
        return ""

    def _broken_laws(
        self,
        outputs: Sequence[Array],
        weights: Sequence[Array],
        gradient: Sequence[Array],
        given: Sequence[Array],
        copies: Sequence[Array],
    ) -> Iterator[str]:
        values = self.flat.values
        if not (_equal(copies, values) and _equal(given, weights)):
            yield "the backward writes to its arguments"
        raw = float_arrays(self.flat.call(self.forward, copies := self.fresh()))
        if not _equal(raw, outputs):
            raise Nondeterministic("a second run on the same arguments gives other values")
        if not _equal(copies, values):
            yield "the forward writes to its arguments"
        # The first came after a forward elsewhere, these two come after one here.
        second, third = (self.gradients(self.fresh(weights), self.fresh()) for _ in range(2))
        if not _equal(second, third):
            raise Nondeterministic("a second run on the same arguments gives another gradient")
        if not _equal(second, gradient):
            yield "the backward uses what the forward left behind, and not its arguments alone"
            return
        yield from self._layout(outputs, weights, gradient)
        others = random_weights(self.rng, outputs)
        both = [u + w for u, w in zip(weights, others, strict=True)]
        other, total = (self.gradients(self.fresh(u), self.fresh()) for u in (others, both))
        for label, a, b, c in zip(self.flat.labels, gradient, other, total, strict=True):
            if not _close(a + b, c, np.abs(a) + np.abs(b)):
                yield f"the gradient of {label} is not linear in the upstream one"

    def _layout(
        self, outputs: Sequence[Array], weights: Sequence[Array], gradient: Sequence[Array]
    ) -> Iterator[str]:
        """Compare with a run on the same numbers that lie in memory in another order."""
        where = "on arrays of another memory layout, such as x.T,"
        laid = [laid_otherwise(x) for x in self.flat.values]
        try:
            values = float_arrays(self.flat.call(self.forward, laid))
            found = self.gradients([laid_otherwise(u) for u in weights], laid)
        except Exception as error:
            yield f"{where} it raised {type(error).__name__}: {error}"
            return
        if not all(map(_close, values, outputs, map(np.abs, outputs))):
            yield f"{where} the values are others"
        elif self._misfit(found) or not all(map(_close, found, gradient, map(np.abs, gradient))):
            yield f"{where} the gradient is another"

    def _checks(self, weights: Sequence[Array], gradient: Sequence[Array]) -> tuple[Check, ...]:
        checks = []
        along = self._along(weights)
        for _ in range(self.settings.directions):
            direction = random_direction(self.rng, self.flat.values)
            checks.append(self._check(along, gradient, direction))
            if checks[-1].verdict == "kink":
                part = off_kinks(along, direction, step=self.settings.step, declared=False)
                beside = self._check(along, gradient, part)
                checks += [beside] if beside.verdict == "wrong" else []
            if checks[-1].verdict != "ok":
                break
        return tuple(checks)

    def _check(self, along: Any, gradient: Sequence[Array], direction: Sequence[Array]) -> Check:
        engine, magnitude = dot(gradient, direction)
        found = slope(along(direction), step=self.settings.step, declared=False)
        rtol, atol = self.settings.rtol, self.settings.atol
        return compare(1, engine, magnitude, found, precision_of(gradient), rtol, atol)

    def _along(self, weights: Sequence[Array]) -> Any:
        values = self.flat.values

        def along(direction: Sequence[Array]) -> Callable[[float], Sample]:
            def phi(t: float) -> Sample:
                moved = [np.asarray(x + t * v) for x, v in zip(values, direction, strict=True)]
                value, magnitude, precision = weigh(self.outputs(moved), weights)
                return Sample(value, magnitude, (), precision)

            return phi

        return along


def _close(a: Array, b: Array, size: Array) -> bool:
    """Tell whether arrays are the same but for rounding in numbers of a size."""
    largest = float(np.max(size, initial=0.0))
    close = 1e4 * precision_of([b]) * largest
    return not np.isfinite(largest) or np.allclose(a, b, rtol=0, atol=close)


def _equal(a: Sequence[Array], b: Sequence[Array]) -> bool:
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True))


def _without_first_parameter(backward: Any) -> Any:
    """Give a function whose parameters name the arguments, out of those of the backward."""
    try:
        names = list(inspect.signature(backward).parameters.values())[1:]
        return _Named(inspect.Signature(names))
    except (TypeError, ValueError):
        return None


class _Named:
    """Carries a signature."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.__signature__ = signature

    def __call__(self) -> None:
        raise NotImplementedError
