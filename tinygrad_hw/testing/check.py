"""``check_gradients``, ``check_pair`` and ``blame``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..graph import Handle, Primitive
from .calls import Call
from .compare import compare, worst_entries
from .culprits import Recorded, calls_of_graph, culprits_among, likely_cause, record_calls
from .functions import Flat, float_arrays, float_leaves, precision_of, weigh
from .laws import Nondeterministic, broken_laws, forward_mode
from .levels import (
    Level,
    array_of,
    dot,
    first_level,
    random_direction,
    random_weights,
)
from .oracle import STEP, Sample, complex_step, entrywise, slope
from .report import Check, Culprit, Entry, GradientError, GradientReport
from .spelling import function_name, script

Array = np.ndarray[Any, Any]

_GRAVEST_FIRST = ("wrong", "nonfinite", "inconclusive", "kink", "ok")
_MOST_ENTRIES = 128


def check_gradients(
    fn: Callable[..., Any],
    *args: Any,
    wrt: int | Sequence[int] | None = None,
    order: int = 1,
    directions: int = 2,
    rtol: float | None = None,
    atol: float | None = None,
    rng: int | np.random.Generator | None = None,
    raises: bool = True,
    step: float = STEP,
) -> GradientReport:
    """Check the gradients of a function against differences, and the laws that all gradients obey.

    Parameters
    ----------
    fn : callable
        Takes tensors and returns a tensor of any shape, or a container of them.
    *args
        Arrays, tensors, numbers, or containers of them. Integers and booleans are constants.
    wrt : int or sequence of int, optional
        Positions of the arguments to differentiate by; by default all that hold floats.
    order : int
        Check derivatives up to this order, 1 to 3.
    directions : int
        Random directions per order.
    rtol, atol : float, optional
        How far off a gradient may be, relative to the terms of a slope and absolute. By default it
        follows from the error of the differences and the precision of the dtype.
    rng : int or numpy.random.Generator, optional
        For weights and directions; the same ones by default.
    raises : bool
        Raise if the gradient is wrong; otherwise only report.
    step : float
        The longest step of the differences, relative to the size of an argument. A function that
        changes faster wants a shorter one.

    Returns
    -------
    GradientReport
        Its ``verdict`` is ``ok``, ``wrong``, ``kink``, ``inconclusive``, ``nondeterministic`` or
        ``nonfinite``.

    Raises
    ------
    GradientError
        With ``raises``, if the verdict is ``wrong`` or ``nondeterministic``.

    Examples
    --------
    >>> import numpy as np, tinygrad_hw as tg
    >>> from tinygrad_hw.testing import check_gradients
    >>> check_gradients(lambda x, w: tg.tanh(x @ w), np.ones((2, 3)), np.ones((3, 1))).verdict
    'ok'
    >>> detached = lambda x: x * tg.stop_gradient(x)
    >>> report = check_gradients(detached, np.array([1.0, 2.0]), raises=False)
    >>> report.verdict, report.cause
    ('wrong', 'the gradient of x is off by a factor of 0.5')
    """
    if order not in (1, 2, 3):
        raise ValueError(f"check_gradients: order is {order}; want 1, 2 or 3")
    settings = _Settings(directions, rtol, atol, step)
    report = _Examination(fn, args, wrt, rng, settings).report(order)
    if raises and report.verdict in ("wrong", "nondeterministic"):
        raise GradientError(report)
    return report


def blame(output: Any, *leaves: Any) -> tuple[Culprit, ...]:
    """Check every op of the graph of a tensor at its own inputs, and name those that are wrong.

    Parameters
    ----------
    output : Tensor
        Before a backward has freed its graph.
    *leaves : Tensor
        Leaves that the graph was computed from. The values of others are known where a rule keeps
        them, and drawn at random elsewhere.

    Returns
    -------
    tuple of Culprit
        Empty if every op is right.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> from tinygrad_hw.testing import blame
    >>> @tg.primitive
    ... def cube(x):
    ...     return x**3
    >>> _ = cube.rule(lambda g, y, x: (g * 3 * x,), keeps="x")
    >>> x = tg.Tensor([1.0, 2.0], requires_grad=True)
    >>> [culprit.op for culprit in blame(tg.exp(cube(x)).sum(), x)]
    ['cube']
    """
    if not isinstance(output, Handle) or output._node is None:
        raise TypeError("blame: want a tensor that was computed from one that requires a gradient")
    return culprits_among(list(calls_of_graph(output, leaves)), _examine_alone)


class _Settings:
    def __init__(
        self, directions: int, rtol: float | None, atol: float | None, step: float
    ) -> None:
        self.directions, self.rtol, self.atol, self.step = directions, rtol, atol, step


class _Examination:
    """One run of :func:`check_gradients`."""

    def __init__(
        self, fn: Callable[..., Any], args: Any, wrt: Any, rng: Any, settings: _Settings
    ) -> None:
        self.fn, self.args, self.wrt = fn, args, wrt
        self.settings = settings
        self.flat = Flat(args, wrt, fn)
        self.rng = np.random.default_rng(0 if rng is None else rng)
        self.name = function_name(fn)[1] if isinstance(fn, Primitive) else _name_of(fn)

    def report(self, order: int, *, alone: bool = False) -> GradientReport:
        """Check; with ``alone`` for one op, so that nobody else is looked for to blame."""
        with np.errstate(all="ignore"):
            outputs = float_leaves(self.flat.call(self.fn, self.flat.variables()))
        if not all(np.isfinite(array_of(y)).all() for y in outputs):
            return GradientReport("nonfinite", self.name, "the value itself is not finite")
        self.weights = random_weights(self.rng, outputs)
        base = first_level(self.fn, self.flat, self.weights)
        try:
            with np.errstate(all="ignore"):
                broken = self._broken_laws(outputs, alone)
        except Nondeterministic as difference:
            return GradientReport(
                "nondeterministic",
                self.name,
                f"{difference}; fix the seed inside the function",
                reproducer=self._script(order),
            )
        checks, failed = self._checks(base, order)
        verdict = min((c.verdict for c in checks), key=_GRAVEST_FIRST.index, default="ok")
        if broken:
            verdict = "wrong"
        if verdict != "wrong":
            return GradientReport(
                verdict,
                self.name,
                _advice(verdict, self.settings.step),
                tuple(checks),
                reproducer=self._script(order),
            )
        return self._accusation(checks, failed, base, broken, order, alone)

    def _broken_laws(self, outputs: Sequence[Any], alone: bool) -> tuple[str, ...]:
        others = random_weights(self.rng, outputs)
        direction = random_direction(self.rng, self.flat.values)
        laws = broken_laws(self.fn, self.flat, self.weights, others)
        # Forward mode goes through the rules of what the op's own rule calls.
        pushed = () if alone else forward_mode(self.fn, self.flat, self.weights, direction)
        return (*laws, *pushed)

    def _checks(self, base: Level, order: int) -> tuple[list[Check], Level | None]:
        """Compare slopes, order by order, until one does not agree; give the level that failed."""
        checks: list[Check] = []
        level = base
        for n in range(1, order + 1):
            with np.errstate(all="ignore"):
                gradient = level.gradient(self.flat.variables())
            for _ in range(self.settings.directions):
                direction = random_direction(self.rng, self.flat.values)
                checks.append(self._check(level, n, gradient, direction))
                if checks[-1].verdict == "wrong":
                    return checks, level
                if checks[-1].verdict != "ok":
                    return checks, None
            level = level.next(direction, level.value(self.flat.values)[1])
        return checks, None

    def _check(
        self, level: Level, order: int, gradient: list[Array], direction: list[Array]
    ) -> Check:
        self.direction = direction
        engine, magnitude = dot(gradient, direction)
        found = slope(level.along(self.flat.values)(direction), step=self.settings.step)
        precision = precision_of(gradient)
        rtol, atol = self.settings.rtol, self.settings.atol
        return compare(order, engine, magnitude, found, precision, rtol, atol)

    def _accusation(
        self,
        checks: list[Check],
        failed: Level | None,
        base: Level,
        broken: tuple[str, ...],
        order: int,
        alone: bool,
    ) -> GradientReport:
        """Say all there is to say about a wrong gradient."""
        level = failed or base
        with np.errstate(all="ignore"):
            gradient = level.gradient(self.flat.variables())
        numeric = entrywise(
            level.along(self.flat.values),
            self.flat.values,
            step=self.settings.step,
            only=_some_entries(self.rng, self.flat.values),
        )
        precision, labels = precision_of(gradient), self.flat.labels
        entries = worst_entries(labels, gradient, numeric, precision)
        if failed and not broken and _unconfirmed(checks, entries, self.flat.values):
            # A slope that looks wrong though no entry is: two errors of the differences were alike.
            return GradientReport("inconclusive", self.name, "no entry is wrong", tuple(checks))
        culprits = () if alone else self._culprits(failed, base)
        cause = likely_cause(gradient, numeric, entries, labels, precision)
        if culprits:
            cause = ""
        elif not alone and not cause and failed is not None:
            cause = (
                "every op is right at its own inputs: look for a value that left the graph "
                "(.data, .numpy(), detach)"
            )
        first = failed is base
        return GradientReport(
            "wrong",
            self.name,
            f"broken law: {broken[0]}" if broken and failed is None else "",
            tuple(checks),
            entries,
            broken,
            culprits,
            cause,
            complex_step(self.fn, self.flat, self.weights, self.direction) if first else None,
            self._script(order),
        )

    def _culprits(self, failed: Level | None, base: Level) -> tuple[Culprit, ...]:
        """Blame ops of the level that failed; without one, of the backward, where laws broke."""
        found: tuple[Culprit, ...] = ()
        for level in (failed, base.next(random_direction(self.rng, self.flat.values))):
            if level is not None and not found:
                calls = record_calls(partial(level.outputs, self.flat.variables()))
                found = culprits_among(calls, _examine_alone)
        return found

    def _script(self, order: int) -> str:
        options = f", order={order}" if order > 1 else ""
        if self.wrt is not None and self.wrt != tuple(range(len(self.args))):
            options += f", wrt={self.wrt!r}"
        return script(self.fn, self.args, "check_gradients", options)


def _examine_alone(recorded: Recorded) -> GradientReport | None:
    """Check one op at the inputs that it got; None if it has no gradient to check."""
    call = Call(recorded.primitive, *recorded.args, **recorded.params)
    if not call.wrt or recorded.primitive.gradient is None:
        return None
    settings = _Settings(2, None, None, STEP)
    return _Examination(call, call.args, call.wrt, None, settings).report(1, alone=True)


def _unconfirmed(
    checks: Sequence[Check], entries: Sequence[Entry], values: Sequence[Array]
) -> bool:
    """Tell whether all entries are known to be right, off any kink."""
    few = all(x.size <= _MOST_ENTRIES for x in values)
    whole = few and len(entries) == len(values)
    smooth = not checks[-1].note
    return whole and smooth and not any(entry.wrong for entry in entries)


def _some_entries(rng: np.random.Generator, values: Sequence[Array]) -> list[Array]:
    """Choose the entries whose gradient is estimated: all, if they are few."""
    chosen = []
    for x in values:
        mask = np.ones(x.shape, bool)
        if x.size > _MOST_ENTRIES:
            mask.flat[rng.permutation(x.size)[_MOST_ENTRIES:]] = False
        chosen.append(mask)
    return chosen


def _name_of(fn: Any) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def _advice(verdict: str, step: float) -> str:
    if verdict == "inconclusive":
        return (
            "the differences do not agree with each other, so they say nothing: the function "
            f"changes too fast for steps of {step:g} of its arguments (try a shorter step=), or "
            "rounding hides the slope"
        )
    return ""


# --- Hand-written backwards ---------------------------------------------------------------------


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
    step: float = STEP,
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
    pair = _Pair(forward, backward, args, wrt, rng, _Settings(directions, rtol, atol, step))
    report = pair.report()
    if raises and report.verdict in ("wrong", "nondeterministic"):
        raise GradientError(report)
    return report


class _Pair:
    """One run of :func:`check_pair`."""

    def __init__(
        self, forward: Any, backward: Any, args: Any, wrt: Any, rng: Any, settings: _Settings
    ) -> None:
        self.forward, self.backward, self.settings = forward, backward, settings
        self.flat = Flat(args, wrt, backward_signature(backward, args))
        self.rng = np.random.default_rng(0 if rng is None else rng)
        self.name = _name_of(backward)

    def outputs(self, values: Sequence[Array]) -> list[Array]:
        return float_arrays(self.flat.call(self.forward, [x.copy() for x in values]))

    def gradients(self, weights: Sequence[Array], copies: Sequence[Array]) -> list[Array]:
        upstream: Any = tuple(u[()] for u in weights) if self.several else weights[0][()]
        given = self.backward(upstream, *self.flat.arguments(copies))
        return float_arrays(given)

    def report(self) -> GradientReport:
        values = self.flat.values
        raw = self.flat.call(self.forward, [x.copy() for x in values])
        self.several = isinstance(raw, (tuple, list))
        outputs = [y.copy() for y in float_arrays(raw)]
        if not all(np.isfinite(y).all() for y in outputs):
            return GradientReport("nonfinite", self.name, "the value itself is not finite")
        weights = random_weights(self.rng, outputs)
        copies = [x.copy() for x in values]
        gradient = [g.copy() for g in self.gradients(weights, copies)]
        misfit = self._misfit(gradient)
        if misfit:
            return GradientReport("wrong", self.name, misfit, broken=(misfit,))
        broken = tuple(self._broken_laws(outputs, weights, gradient, copies))
        checks = self._checks(weights, gradient)
        verdict = min((c.verdict for c in checks), key=_GRAVEST_FIRST.index, default="ok")
        if not broken and verdict != "wrong":
            return GradientReport(verdict, self.name, _advice(verdict, self.settings.step), checks)
        numeric = entrywise(
            self._along(weights),
            values,
            step=self.settings.step,
            declared=False,
            only=_some_entries(self.rng, values),
        )
        precision, labels = precision_of(gradient), self.flat.labels
        entries = worst_entries(labels, gradient, numeric, precision)
        cause = likely_cause(gradient, numeric, entries, labels, precision)
        return GradientReport("wrong", self.name, "", checks, entries, broken, cause=cause)

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
        copies: Sequence[Array],
    ) -> Iterator[str]:
        others = random_weights(self.rng, outputs)
        if any((a != b).any() for a, b in zip(copies, self.flat.values, strict=True)):
            yield "the backward writes to its arguments"
        self.flat.call(self.forward, copies := [x.copy() for x in self.flat.values])
        if any((a != b).any() for a, b in zip(copies, self.flat.values, strict=True)):
            yield "the forward writes to its arguments"
        other = [g.copy() for g in self.gradients(others, [x.copy() for x in self.flat.values])]
        both = [u + w for u, w in zip(weights, others, strict=True)]
        total = self.gradients(both, [x.copy() for x in self.flat.values])
        for label, a, b, c in zip(self.flat.labels, gradient, other, total, strict=True):
            size = float(np.max(np.abs(a) + np.abs(b), initial=0.0))
            if not np.allclose(a + b, c, rtol=0, atol=1e4 * precision_of([a]) * size):
                yield f"the gradient of {label} is not linear in the upstream one"

    def _checks(self, weights: Sequence[Array], gradient: Sequence[Array]) -> tuple[Check, ...]:
        checks = []
        along = self._along(weights)
        for _ in range(self.settings.directions):
            direction = random_direction(self.rng, self.flat.values)
            engine, magnitude = dot(gradient, direction)
            found = slope(along(direction), step=self.settings.step, declared=False)
            rtol, atol = self.settings.rtol, self.settings.atol
            checks.append(compare(1, engine, magnitude, found, precision_of(gradient), rtol, atol))
            if checks[-1].verdict != "ok":
                break
        return tuple(checks)

    def _along(self, weights: Sequence[Array]) -> Any:
        values = self.flat.values

        def along(direction: Sequence[Array]) -> Callable[[float], Sample]:
            def phi(t: float) -> Sample:
                moved = [np.asarray(x + t * v) for x, v in zip(values, direction, strict=True)]
                value, magnitude, precision = weigh(self.outputs(moved), weights)
                return Sample(value, magnitude, (), precision)

            return phi

        return along


def backward_signature(backward: Any, args: Sequence[Any]) -> Any:
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
