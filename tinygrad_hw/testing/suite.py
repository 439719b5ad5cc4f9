"""Ready-made property tests: of a function, and of every primitive of a module."""

from __future__ import annotations

import inspect
import math
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ..dispatch import Primitive
from ..ops.shape import broadcast_to
from ..tensor import Tensor
from .strategies import Call, Like, calls, primitives_of

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as error:  # pragma: no cover
    raise ImportError('property tests need Hypothesis: pip install "tinygrad_hw[test]"') from error

from .check import check_gradients
from .report import GradientError, GradientReport

__all__ = ["PROFILES", "Tally", "gradients_match", "load_profile", "op_suite"]

# No deadline: the machine may be slow. `ci` draws the same examples every time. To explain a
# failure takes ten times as long as to find it, and names lines of ours.
_COMMON = hypothesis.settings(
    deadline=None,
    phases=[phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain],
    report_multiple_bugs=False,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
PROFILES = {
    "quick": hypothesis.settings(_COMMON, max_examples=8),
    "ci": hypothesis.settings(_COMMON, max_examples=25, derandomize=True, database=None),
    "thorough": hypothesis.settings(_COMMON, max_examples=500),
}
# Of the largest entry of a gradient, what float32 may be off. Ours are off by 1e-3 at most.
_LOW_PRECISION = 3e-3


def load_profile(name: str) -> None:
    """Make one of the profiles Hypothesis's default: ``quick``, ``ci`` or ``thorough``.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        If there is no such profile.

    Examples
    --------
    >>> load_profile("ci")  # in conftest.py
    """
    if name not in PROFILES:
        raise ValueError(f"load_profile: there is no profile {name!r}; want {', '.join(PROFILES)}")
    hypothesis.settings.register_profile(f"tinygrad_hw-{name}", PROFILES[name])
    hypothesis.settings.load_profile(f"tinygrad_hw-{name}")


class Tally:
    """Counts verdicts, so that a property cannot pass by setting its examples aside."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._kept = 0

    def add(self, report: GradientReport) -> None:
        """Count a report."""
        self.counts[report.verdict] += 1
        self._kept += report.conclusive
        hypothesis.event(f"verdict: {report.verdict}")

    def check(self) -> None:
        """Raise if more than half of the examples said nothing."""
        total = self.counts.total()
        if 2 * self._kept < total:
            raise AssertionError(
                f"{total - self._kept} of {total} examples were set aside "
                f"({', '.join(f'{n} {verdict}' for verdict, n in self.counts.items())}): draw "
                "arguments off the kinks, and of ordinary size"
            )


def gradients_match(
    *, order: int = 1, rtol: float | None = None, atol: float | None = None, **arguments: Any
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a test of a function: its gradients are right for all arguments that are drawn.

    Parameters
    ----------
    order, rtol, atol
        As for :func:`~tinygrad_hw.testing.check_gradients`.
    **arguments : strategy
        One for each parameter of the decorated function, of
        :mod:`tinygrad_hw.testing.strategies` or Hypothesis. Tensors are differentiated by.

    Returns
    -------
    callable
        Decorates the function under test; the result is a test without parameters, which still is
        that function for those who pass arguments. Put Hypothesis's ``@settings`` and ``@example``
        below it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> from tinygrad_hw.testing import gradients_match, strategies as ts
    >>> @gradients_match(x=ts.tensors(), w=ts.tensors(like="x"))
    ... def test_gated(x, w):
    ...     return tg.silu(x) * w
    >>> test_gated()
    """

    def decorate(function: Callable[..., Any]) -> Callable[[], None]:
        tally = Tally()
        names = list(inspect.signature(function).parameters)
        if set(names) != set(arguments):
            raise TypeError(
                f"gradients_match: {function.__name__} takes {', '.join(names)}, but the "
                f"strategies are for {', '.join(arguments)}"
            )

        def check(drawn: dict[str, Any]) -> None:
            values = [drawn[name] for name in names]
            wrt = tuple(i for i, value in enumerate(values) if isinstance(value, Tensor)) or None
            report = check_gradients(function, *values, wrt=wrt, order=order, rtol=rtol, atol=atol)
            tally.add(report)

        check.__name__ = check.__qualname__ = function.__name__
        _hand_on_settings(function, check)
        return _counted(hypothesis.given(_drawn(arguments))(check), tally, function)

    return decorate


class _Arguments(dict[str, Any]):
    """Drawn arguments, shown as the lines that make them."""

    def __repr__(self) -> str:
        return "".join(f"\n    {name}={value!r}," for name, value in self.items()) + "\n"


@st.composite
def _drawn(draw: Any, arguments: dict[str, Any]) -> _Arguments:
    found = _Arguments()
    waiting = dict(arguments)
    while waiting:
        ready = {
            name: strategy
            for name, strategy in waiting.items()
            if not isinstance(strategy, Like) or strategy.argument in found
        }
        if not ready:
            raise ValueError(f"like= of {', '.join(waiting)} names no other argument")
        for name, strategy in ready.items():
            of = strategy.of(found[strategy.argument]) if isinstance(strategy, Like) else strategy
            found[name] = draw(of)
            del waiting[name]
    return found


def _hand_on_settings(source: Any, target: Any) -> None:
    """Have a test run with the settings of the function that it is made from."""
    attribute = "_hypothesis_internal_use_settings"
    chosen = getattr(source, attribute, None)
    setattr(target, attribute, chosen or hypothesis.settings(_COMMON, **_of_profile()))


def _of_profile() -> dict[str, Any]:
    default: Any = hypothesis.settings.default
    chosen = {name: getattr(default, name) for name in ("max_examples", "derandomize", "database")}
    if chosen["derandomize"]:
        chosen["database"] = None
    return chosen


def _counted(test: Callable[[], None], tally: Tally, source: Any) -> Callable[..., Any]:
    # With arguments it is the function under test, so that a report can name it.
    def run(*args: Any) -> Any:
        __tracebackhide__ = True
        if args:
            return source(*args)
        tally.__init__()  # type: ignore[misc]
        test()
        return tally.check()

    run.__name__ = run.__qualname__ = source.__name__
    run.__doc__, run.__module__ = source.__doc__, source.__module__
    return run


# --- Every primitive of a module -----------------------------------------------------------------


def op_suite(ops: Any, order: int = 2) -> Any:
    """Make one test that checks every primitive of a module.

    Of each primitive, calls are drawn from its domain. Checked are its gradients up to ``order``
    and one further on scalars, the laws of :func:`~tinygrad_hw.testing.check_gradients`, that
    float32 stays float32 and its gradients are those of float64, that arrays give arrays and
    arguments are left alone, and that an op that
    broadcasts agrees with itself on arguments that were broadcast before.

    Parameters
    ----------
    ops : module, primitive, or collection of them
    order : int

    Returns
    -------
    function
        A test with the parameter ``primitive``, which pytest runs for each of them.

    Raises
    ------
    ValueError
        If the module has no primitives, or one of them has no domain or no rule.

    Examples
    --------
    >>> from tinygrad_hw.testing import op_suite
    >>> test_my_ops = op_suite(["exp", "matmul"])  # or op_suite(my_module)
    """
    import pytest

    primitives = primitives_of(ops)
    if not primitives:
        raise ValueError(f"op_suite: found no primitives in {ops!r}")
    without_rule = [p.name for p in primitives if p.gradient is None]
    if without_rule:
        raise ValueError(f"op_suite: {', '.join(without_rule)}: declare a rule")
    without_domain = [p.name for p in primitives if p.domain is None]
    if without_domain:
        raise ValueError(
            f"op_suite: {', '.join(without_domain)}: declare a domain, from which calls are drawn, "
            "such as @primitive(domain=domains.elementwise(domains.REAL)) with one domains.REAL an "
            "argument; of other functions, domains.Domain(text, sample)"
        )

    @pytest.mark.parametrize("primitive", primitives, ids=lambda p: p.name)
    def test_primitive(primitive: Primitive) -> None:
        __tracebackhide__ = True
        check_primitive(primitive, order)

    return test_primitive


def check_primitive(
    primitive: Primitive, order: int = 2, settings: hypothesis.settings | None = None
) -> None:
    """Check one primitive on many calls; see :func:`op_suite`."""
    __tracebackhide__ = True
    tally = Tally()

    def check(call: Call) -> None:
        check_call(call, order, tally)

    check.__name__ = check.__qualname__ = f"check_{primitive.name}"
    chosen = settings or hypothesis.settings(_COMMON, **_of_profile())
    test = chosen(hypothesis.given(calls(primitive))(check))
    if chosen.derandomize:
        # The same examples every time, but not the same for all primitives.
        test = hypothesis.seed(zlib.crc32(primitive.name.encode()))(test)
    test()
    tally.check()


def check_call(call: Call, order: int, tally: Tally) -> None:
    """Check one call of a primitive against everything that is asked of primitives."""
    __tracebackhide__ = True
    if not call.wrt:
        return
    _check_values(call)
    scalar = all(np.ndim(arg) == 0 for arg in call.args)
    report = check_gradients(call, *call.args, wrt=call.wrt, order=min(3, order + scalar))
    tally.add(report)
    _check_low_precision(call)
    _check_broadcasting(call)


def _check_values(call: Call) -> None:
    before = [np.array(arg) for arg in call.args]
    first = call()
    assert type(first) is np.ndarray, f"{call}: arrays gave a {type(first).__name__}"
    for arg, copy in zip(call.args, before, strict=True):
        assert np.array_equal(arg, copy, equal_nan=True), f"{call}: an argument was written to"
    assert first.tobytes() == call().tobytes(), f"{call}: two runs differ"
    for arg in call.args:
        shared = isinstance(arg, np.ndarray) and np.may_share_memory(first, arg)
        assert call.primitive.view or not shared, (
            f"{call}: the result shares memory with its argument; declare view=True, or copy"
        )


def _check_low_precision(call: Call) -> None:
    """Compare the gradients in float32 with those in float64 at the same numbers."""
    low, exact = (_gradients_in(call, dtype) for dtype in (np.float32, np.float64))
    for i in call.wrt:
        if low[i] is None or exact[i] is None:
            continue
        largest = float(np.abs(exact[i]).max(initial=0.0))
        if not np.allclose(low[i], exact[i], rtol=0, atol=_LOW_PRECISION * (largest + 0.01)):
            raise AssertionError(
                f"{call}: the gradient of argument {i} in float32 is {low[i]}, in float64 "
                f"{exact[i]}; does the rule round, or treat a dtype apart?"
            )


def _gradients_in(call: Call, dtype: Any) -> list[Any]:
    """Gradients by the arguments, rounded to float32 and then taken as of a dtype."""
    params = dict(call.params)
    if params.get("dtype") is np.float64:
        params["dtype"] = dtype
    args = [
        Tensor(np.asarray(arg, np.float32), dtype=dtype, requires_grad=True)
        if i in call.wrt
        else arg
        for i, arg in enumerate(call.args)
    ]
    y = call.primitive(*args, **params)
    assert y.dtype == dtype, f"{call}: {np.dtype(dtype)} gave {y.dtype}"
    if y.requires_grad:
        y.backward(np.linspace(0.5, 1.5, y.size, dtype=dtype).reshape(y.shape))
    gradients = [args[i].grad if i in call.wrt else None for i in range(len(args))]
    for i in call.wrt:
        g = gradients[i]
        assert g is None or (g.dtype, g.shape) == (args[i].dtype, args[i].shape)
    return gradients


def _broadcasts(call: Call, full: tuple[int, ...]) -> bool:
    """Tell whether it gives the same for arguments of one shape; of zeros, a product does too."""
    rng = np.random.default_rng(0)
    for size in (0.0, 1e-3):
        args = [
            arg + size * rng.random(np.shape(arg)) if i in call.wrt else arg
            for i, arg in enumerate(call.args)
        ]
        with np.errstate(all="ignore"):
            plain, expanded = call(*args), call(*[np.broadcast_to(arg, full) for arg in args])
        if plain.shape != full or not np.array_equal(plain, expanded, equal_nan=True):
            return False
    return True


def _check_broadcasting(call: Call) -> None:
    """Compare with the same call on arguments that were broadcast by hand."""
    shapes = [np.shape(arg) for arg in call.args]
    if len(set(shapes)) < 2:
        return
    try:
        full = np.broadcast_shapes(*shapes)
        if not _broadcasts(call, full):
            return  # The arguments have roles of their own.
    except (ValueError, IndexError):
        return
    weights = np.linspace(0.5, 1.5, math.prod(full)).reshape(full)
    direct: list[Any]
    by_hand: list[Any]
    direct, by_hand = (
        [
            Tensor(arg, requires_grad=True) if i in call.wrt else arg
            for i, arg in enumerate(call.args)
        ]
        for _ in range(2)
    )
    (call(*direct) * weights).sum().backward()
    (call(*[broadcast_to(arg, full) for arg in by_hand]) * weights).sum().backward()
    for i in call.wrt:
        a, b = np.asarray(direct[i].grad), np.asarray(by_hand[i].grad)
        size = 1 + float(np.abs(b).max(initial=0.0))
        if not np.allclose(a, b, rtol=0, atol=1e-10 * size):
            report = GradientReport(
                "wrong",
                call.primitive.name,
                f"broadcasting argument {i} gives another gradient than broadcasting it by hand",
                reproducer=call.script("check_gradients", ""),
            )
            raise GradientError(report)
