"""``check_gradients`` and ``blame``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ..dispatch import Primitive
from ..graph import Handle
from ..settings import check_least, check_positive, check_whole
from .calls import Call
from .compare import compare, worst_entries
from .culprits import (
    Recorded,
    alike,
    calls_of_graph,
    culprits_among,
    likely_cause,
    parts_of_broadcast,
    record_calls,
)
from .functions import Flat, float_leaves, precision_of
from .laws import WRITES, Nondeterministic, broken_laws, forward_mode, jumps
from .levels import (
    BackwardFailed,
    Level,
    array_of,
    dot,
    first_level,
    random_direction,
    random_weights,
)
from .oracle import Estimate, complex_step, entrywise, off_kinks, slope
from .pictures import picture
from .report import Check, Culprit, Entry, GradientError, GradientReport
from .spelling import function_name, script

Array = np.ndarray[Any, Any]

GRAVEST_FIRST = ("wrong", "nonfinite", "inconclusive", "kink", "ok")
_MOST_ENTRIES = 128
_LEFT_THE_GRAPH = (
    "its rule is right, but not what is derived from the rule: a value in it left the graph "
    "(.data, .numpy(), a function of NumPy)"
)


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
    step: float | None = None,
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
    step : float, optional
        The longest step of the differences, relative to the size of an argument. By default it is
        1/64, and shorter where the function changes too fast for that.

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
    __tracebackhide__ = True  # From pytest, which shows all of a function in a traceback.
    if order not in (1, 2, 3):
        raise ValueError(f"check_gradients: order is {order}; want 1, 2 or 3")
    settings = Settings(directions, rtol, atol, step)
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


@dataclass(frozen=True)
class Settings:
    """The options of a check; see :func:`check_gradients`."""

    directions: int = 2
    rtol: float | None = None
    atol: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        check_whole("gradient check", "directions", self.directions, 1)
        for name in ("rtol", "atol"):
            if (value := getattr(self, name)) is not None:
                check_least("gradient check", name, value, 0)
        if self.step is not None:
            check_positive("gradient check", "step", self.step)


class _Examination:
    """One run of :func:`check_gradients`."""

    def __init__(
        self, fn: Callable[..., Any], args: Any, wrt: Any, rng: Any, settings: Settings
    ) -> None:
        self.fn, self.args, self.wrt = fn, args, wrt
        self.settings = settings
        self.flat = Flat(args, wrt, fn)
        self.rng = np.random.default_rng(0 if rng is None else rng)
        self.name = function_name(fn)[1] if isinstance(fn, Primitive) else name_of(fn)

    def report(self, order: int, *, alone: bool = False) -> GradientReport:
        """Check; with ``alone`` for one op, so that nobody else is looked for to blame."""
        found = self._found(order, alone)
        return replace(
            found,
            reproducer=self._script(order),
            draw=partial(picture, self.fn, self.flat, [c.op for c in found.culprits]),
        )

    def _found(self, order: int, alone: bool) -> GradientReport:
        with np.errstate(all="ignore"):
            outputs = float_leaves(self.flat.call(self.fn, self.flat.variables()))
        if not all(np.isfinite(array_of(y)).all() for y in outputs):
            return GradientReport("nonfinite", self.name, "the value itself is not finite")
        self.weights = random_weights(self.rng, outputs)
        base = first_level(self.fn, self.flat, self.weights)
        try:
            with np.errstate(all="ignore"):
                broken = self._broken_laws(outputs, forward=not alone or order > 1)
                checks, failed = self._checks(base, order)
        except Nondeterministic as difference:
            reason = f"{difference}; fix the seed inside the function"
            return GradientReport("nondeterministic", self.name, reason)
        except BackwardFailed as error:
            culprits = () if alone else self._culprits(None, base)
            return GradientReport(
                "wrong", self.name, str(error), broken=(str(error),), culprits=culprits
            )
        verdict = min((c.verdict for c in checks), key=GRAVEST_FIRST.index, default="ok")
        if broken or verdict == "wrong":
            return self._accusation(checks, failed, base, broken, alone)
        reason = advice(verdict, self.settings.step)
        return GradientReport(verdict, self.name, reason, tuple(checks))

    def _broken_laws(self, outputs: Sequence[Any], forward: bool) -> tuple[str, ...]:
        others = random_weights(self.rng, outputs)
        direction = random_direction(self.rng, self.flat.values)
        laws = broken_laws(self.fn, self.flat, self.weights, others, direction)
        # Forward mode goes through the rules of what the op's own rule calls.
        pushed = forward_mode(self.fn, self.flat, self.weights, direction) if forward else ()
        return (*laws, *pushed)

    def _checks(self, base: Level, order: int) -> tuple[list[Check], Level | None]:
        """Compare slopes, order by order, until one does not agree; give the level that failed."""
        checks: list[Check] = []
        level = base
        for n in range(1, order + 1):
            gradient = level.gradient(self.flat.variables(exact=True))
            for _ in range(self.settings.directions):
                direction = random_direction(self.rng, self.flat.values)
                checks.append(self._check(level, n, gradient, direction))
                if checks[-1].verdict == "kink":
                    beside = self._beside_kink(level, n, gradient, direction)
                    wrong = any(check.verdict == "wrong" for check in beside)
                    return [*checks, *beside], level if wrong else None
                if checks[-1].verdict == "wrong":
                    return checks, level
                if checks[-1].verdict != "ok":
                    return checks, None
            # Copies, in case the function writes to its arguments.
            level = level.next(direction, level.value([x.copy() for x in self.flat.values])[1])
        return checks, None

    def _check(
        self, level: Level, order: int, gradient: list[Array], direction: list[Array]
    ) -> Check:
        self.direction = direction
        engine, magnitude = dot(gradient, direction)
        found = slope(level.along(self.flat.values)(direction), step=self.settings.step)
        # The backward goes through the dtypes of the forward.
        self.precision = max(precision_of(gradient), found.precision)
        rtol, atol = self.settings.rtol, self.settings.atol
        return compare(order, engine, magnitude, found, self.precision, rtol, atol)

    def _beside_kink(
        self, level: Level, order: int, gradient: list[Array], direction: list[Array]
    ) -> list[Check]:
        """Compare along the entries that are on no kink, and along one that is.

        Several kinks at once would allow any slope. Given are the checks that say anything.
        """
        along = level.along(self.flat.values)
        beside = off_kinks(along, direction, step=self.settings.step)
        parts = [part for part in (beside, first_left_out(beside, direction)) if any_moves(part)]
        checks = [self._check(level, order, gradient, part) for part in parts]
        return [check for check in checks if check.verdict in ("ok", "wrong")]

    def _accusation(
        self,
        checks: list[Check],
        failed: Level | None,
        base: Level,
        broken: tuple[str, ...],
        alone: bool,
    ) -> GradientReport:
        """Say all there is to say about a wrong gradient."""
        level = failed or base
        with np.errstate(all="ignore"):
            gradient = level.gradient(self.flat.variables(exact=True))
        numeric = entrywise(
            level.along(self.flat.values),
            self.flat.values,
            step=self.settings.step,
            only=some_entries(self.rng, self.flat.values),
        )
        numeric = self._with_rounding(level, numeric)
        precision, labels = self.precision, self.flat.labels
        entries = worst_entries(labels, gradient, numeric, precision)
        if failed and not broken and _unconfirmed(checks, entries, self.flat.values):
            # A slope that looks wrong though no entry is: two errors of the differences were alike,
            # or the gradient loses digits where large terms cancel.
            reason = "no entry is wrong by more than rounding"
            return GradientReport("inconclusive", self.name, reason, tuple(checks))
        culprits = () if alone else self._culprits(failed, base)
        # The numbers of a run that changed its own arguments look like nothing.
        told = bool(culprits) or WRITES in broken
        cause = "" if told else self._missing_sum(level, gradient, entries)
        if not told and not cause:
            cause = likely_cause(gradient, numeric, entries, labels, precision)
        if not told and not cause and not alone and failed is not None:
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
        )

    def _with_rounding(self, level: Level, numeric: Sequence[Estimate]) -> tuple[Estimate, ...]:
        """Add what the gradient itself is rounded by to the errors of the differences."""
        values = self.flat.values
        with np.errstate(all="ignore"):
            rounding = jumps(
                lambda moved: level.gradient(self.flat.variables(moved, exact=True)),
                values,
                [x.dtype for x in values],
            )
        known = [np.where(np.isfinite(jump), jump, 0.0) for jump in rounding]
        pairs = zip(numeric, known, strict=True)
        return tuple(replace(e, error=e.error + jump) for e, jump in pairs)

    def _missing_sum(
        self, level: Level, gradient: Sequence[Array], entries: Sequence[Entry]
    ) -> str:
        """Say along which axes of its result an argument was broadcast, if no sum was taken."""
        wrong = {entry.argument for entry in entries if entry.wrong}
        values = self.flat.values
        for i, label in enumerate(self.flat.labels):
            if label not in wrong or len(level.weights) > 1 or values[i].size > _MOST_ENTRIES:
                continue
            mine = [np.full(x.shape, k == i) for k, x in enumerate(values)]
            for axes, part in parts_of_broadcast(values[i].shape, level.weights[0]):
                along = replace(level, weights=[part]).along(values)
                numeric = entrywise(along, values, step=self.settings.step, only=mine)
                if alike(gradient[i], numeric[i].value):
                    return f"the gradient of {label} lacks the sum over {axes} of the result"
        return ""

    def _culprits(self, failed: Level | None, base: Level) -> tuple[Culprit, ...]:
        """Blame ops of the level that failed; without one, of the backward, where laws broke."""
        levels = [level for level in (failed, self._backward(base)) if level is not None]
        # A rule that leaves the graph, as by NumPy, is right by itself but not what it goes on to.
        for order in (1,) if failed is base else (1, 2):
            for level in levels:
                calls = record_calls(level.outputs, self.flat.variables())
                found = culprits_among(calls, partial(_examine_alone, order=order))
                if found:
                    return found
        return ()

    def _backward(self, base: Level) -> Level:
        return base.next(random_direction(self.rng, self.flat.values))

    def _script(self, order: int) -> str:
        options = f", order={order}" if order > 1 else ""
        if self.wrt is not None and self.wrt != tuple(range(len(self.args))):
            options += f", wrt={self.wrt!r}"
        return script(self.fn, self.args, "check_gradients", options)


def _examine_alone(recorded: Recorded, order: int = 1) -> GradientReport | None:
    """Check one op at the inputs that it got; None if it has no gradient to check."""
    call = Call(recorded.primitive, *recorded.args, **recorded.params)
    if not call.wrt or recorded.primitive.gradient is None:
        return None
    report = _Examination(call, call.args, call.wrt, None, Settings()).report(order, alone=True)
    # Higher orders are asked for where all ops are right, those that the rule calls too.
    return report if order == 1 else replace(report, cause=_LEFT_THE_GRAPH)


def _unconfirmed(
    checks: Sequence[Check], entries: Sequence[Entry], values: Sequence[Array]
) -> bool:
    """Tell whether all entries are known to be right, off any kink."""
    few = all(x.size <= _MOST_ENTRIES for x in values)
    whole = few and len(entries) == len(values)
    smooth = not checks[-1].note
    return whole and smooth and not any(entry.wrong for entry in entries)


def some_entries(rng: np.random.Generator, values: Sequence[Array]) -> list[Array]:
    """Choose the entries whose gradient is estimated: all, if they are few."""
    chosen = []
    for x in values:
        mask = np.ones(x.shape, bool)
        if x.size > _MOST_ENTRIES:
            mask.flat[rng.permutation(x.size)[_MOST_ENTRIES:]] = False
        chosen.append(mask)
    return chosen


def any_moves(direction: Sequence[Array]) -> bool:
    """Tell whether a direction is not 0."""
    return any(v.any() for v in direction)


def first_left_out(part: Sequence[Array], direction: Sequence[Array]) -> list[Array]:
    """Give the part of a direction that moves the first entry that another part leaves alone."""
    first = [np.zeros_like(v) for v in direction]
    for one, moved, v in zip(first, part, direction, strict=True):
        if not moved.all():
            place = int(np.argmin(moved != 0))
            one.flat[place] = v.flat[place]
            break
    return first


def name_of(fn: Any) -> str:
    """Give the name of a function or callable object."""
    return getattr(fn, "__name__", type(fn).__name__)


def advice(verdict: str, step: float | None) -> str:
    """Say what to do about a verdict; empty if nothing."""
    if verdict != "inconclusive":
        return ""
    fast = "however short" if step is None else f"of {step:g} of its arguments; try a shorter step="
    return (
        "the differences do not agree well enough, so they say nothing: the function changes too "
        f"fast for steps {fast}, or rounding hides the slope"
    )
