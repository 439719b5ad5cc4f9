"""The checker on wrong ops of many kinds, and on right ones that are hard to check."""

import inspect
import json
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.testing import (
    Estimate,
    GradientError,
    blame,
    check_gradients,
    numeric_gradient,
)

rng = np.random.default_rng(0)
M, V, S = rng.standard_normal((3, 4)), rng.standard_normal(5), rng.standard_normal((3, 3))


def op(forward, rule, keeps="", name="mine"):
    """Make a primitive with a rule that may be wrong."""
    primitive = tg.primitive(name=name)(forward)
    primitive.rule(rule, keeps=keeps)
    return primitive


def square_with(factor):
    return op(lambda x: x * x, lambda g, y, x: (g * 2 * x * factor,), "x")


def entry_off(n, amount):
    factors = np.where(np.arange(n) == n // 3, 1 + amount, 1.0)
    return op(lambda x: x * 1.0, lambda g, y, x: (g * factors,))


def writing_to_cotangent(g, y, x):
    g *= 2
    return (g,)


def writing_to_kept(g, y, x):
    x += 1
    return (g * 2 * (x - 1),)


def writing_to_argument(x):
    x *= 2
    return x


def writing_zeros_to_argument(x):
    x[x < 0] = 0
    return x.copy()


first = {}


def stale_rule(g, y, x):
    return (g * first.setdefault("y", y),)


buffer = np.zeros(5)


def into_one_buffer(x):
    return np.exp(x, out=buffer if x.dtype == buffer.dtype else None)


cube_grad = op(
    lambda g, x: 3 * g * x**2,
    lambda gg, y, g, x: (gg * 3 * x**2, gg * g * 5 * x),
    "g x",
    "cube_grad",
)
cube = op(lambda x: x**3, lambda g, y, x: (cube_grad(g, x),), "x", "cube")


def in_order_of_memory(g, y, x):
    return (g * 2 if isinstance(g, tg.Tensor) else g.ravel("K").reshape(g.shape) * 2,)


WRONG = {
    "off by 1e-2": (square_with(1 + 1e-2), [M]),
    "off by 1e-4": (square_with(1 + 1e-4), [M]),
    "off by 1e-6": (square_with(1 + 1e-6), [M]),
    "off by 1e-4, float32": (square_with(1 + 1e-4), [M.astype(np.float32)]),
    "off by a constant": (op(lambda x: x * x, lambda g, y, x: (g * (2 * x + 1e-7),), "x"), [V]),
    "wrong sign": (square_with(-1), [V]),
    "dropped sum": (op(lambda x, b: x + b, lambda g, y, x, b: (g, g[0])), [M, M[0]]),
    "transposed": (op(lambda a, b: a @ b, lambda g, y, a, b: (g @ b, a.T @ g), "a b"), [S, S + 1]),
    "swapped": (op(lambda a, b: a * b, lambda g, y, a, b: (g * a, g * b), "a b"), [V, V + 2]),
    "missing cotangent": (op(lambda a, b: a * b, lambda g, y, a, b: (g * b, None), "b"), [V, V]),
    "wrong for negative numbers": (
        op(
            lambda x: np.where(x > 0, x, 0.1 * x),
            lambda g, y, x: (tg.where(x > 0, g, 0.2 * g),),
            "x",
        ),
        [V],
    ),
    "mean for sum": (op(np.mean, lambda g, y, x: (tg.broadcast_to(g, x.shape),)), [S]),
    "one entry of many": (entry_off(1000, 1e-3), [rng.standard_normal(1000)]),
    "writes to its argument": (op(writing_to_argument, lambda g, y, x: (g * 2,)), [V]),
    "writes to its argument, the second time nothing new": (
        op(writing_zeros_to_argument, lambda g, y, x: (tg.where(y > 0, g, 0),), "y"),
        [V],
    ),
    "writes to the cotangent": (op(lambda x: x * 2.0, writing_to_cotangent), [V]),
    "writes to what it kept": (op(lambda x: x * x, writing_to_kept, "x"), [V]),
    "stale value": (op(lambda x: first.setdefault("x", np.exp(x)), lambda g, y, x: (g,)), [V]),
    "stale rule": (op(np.exp, stale_rule, "y"), [V]),
    "one buffer for all results": (op(into_one_buffer, lambda g, y, x: (g * y,), "y"), [V]),
    "NaN": (op(lambda x: x * x, lambda g, y, x: (g * np.nan,)), [V]),
    "in the order of memory": (
        op(lambda x: x.ravel("K").reshape(x.shape) * 2.0, lambda g, y, x: (g * 2,)),
        [M],
    ),
    "only of arrays without gaps": (
        op(lambda x: np.frombuffer(x).reshape(x.shape) * 2.0, lambda g, y, x: (g * 2,)),
        [V],
    ),
    "rule in the order of memory": (op(lambda x: x * 2.0, in_order_of_memory), [M]),
    "too few cotangents": (op(lambda a, b: a * b, lambda g, y, a, b: (g * b,), "b"), [V, V]),
    "cotangent of another shape": (op(lambda x: x * x, lambda g, y, x: (tg.sum(g),)), [V]),
    "rule that raises": (op(lambda x: x * 2.0, lambda g, y, x: (g @ g @ g,)), [M]),
    "off in float32 only": (
        op(lambda x: x * 2.0, lambda g, y, x: (g * (2 if g.dtype == np.float64 else 2.01),)),
        [M.astype(np.float32)],
    ),
    "off in float32 only, beside a larger gradient": (
        op(
            lambda a, b: a * 100.0 + b,
            lambda g, y, a, b: (g * 100, g * (1 if g.dtype == np.float64 else 1.005)),
        ),
        [V.astype(np.float32), V.astype(np.float32)],
    ),
    "detached": (lambda x: tg.sin(x) * x.numpy(), [V]),
    "beyond the slopes of a kink": (
        op(np.abs, lambda g, y, x: (g * 3,), name="abs3"),
        [np.array([0.5, -1.0])],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_gradients_are_found(name):
    fn, args = WRONG[name]
    with pytest.raises(GradientError) as caught:
        check_gradients(fn, *[np.array(a) for a in args])
    report = caught.value.report
    assert report.verdict == "wrong"
    assert str(caught.value) == str(report)
    if isinstance(fn, tg.Primitive):
        assert [culprit.op for culprit in report.culprits] == [fn.name]
    else:
        assert "left the graph" in report.cause


@pytest.mark.parametrize("wrt", ["x", 1.0, ["x"]])
def test_wrt_takes_positions(wrt):
    with pytest.raises(TypeError, match="want the position of an argument, from 0, or several"):
        check_gradients(tg.sin, V, wrt=wrt)


def test_a_wrong_second_derivative_needs_order_2():
    assert check_gradients(cube, V).verdict == "ok"
    report = check_gradients(lambda x: tg.exp(cube(x)), V, order=2, raises=False)
    assert report.verdict == "wrong"
    assert [culprit.op for culprit in report.culprits] == ["cube_grad"]
    assert "order=2" in report.reproducer


def test_a_rule_that_leaves_the_graph_is_blamed():
    def value(x):
        return np.asarray(getattr(x, "_data", x))

    kept = op(lambda x: x * x, lambda g, y, x: (g * 2 * value(x),), "x")
    both = op(lambda x: x * x, lambda g, y, x: (value(g) * 2 * value(x),), "x")
    for mine, order in ((kept, 2), (both, 1), (both, 2)):
        fn = lambda x, mine=mine: tg.exp(mine(x))  # noqa: E731
        report = check_gradients(fn, V, order=order, raises=False)
        assert report.verdict == "wrong"
        assert [culprit.op for culprit in report.culprits] == ["mine"]


def test_forward_mode_is_compared_with_reverse_mode():
    # Its value on tensors is right, but not how it goes on from there.
    cut = op(lambda g: g * 2.0, lambda gg, y, g: (gg * 3.0,))
    twice = op(lambda x: x * 2.0, lambda g, y, x: (cut(g),))
    report = check_gradients(twice, V, raises=False)
    assert report.verdict == "wrong"
    assert any("forward mode" in law for law in report.broken)


RIGHT = {
    "no float64": (lambda x: tg.tanh(x @ x.T), [M.astype(np.float32)]),
    "float16": (tg.sin, [V.astype(np.float16)]),
    "cast inside": (lambda x: tg.sin(x.astype(np.float32)), [V]),
    "cast and back": (lambda x: tg.sin(x.astype(np.float32)).astype(np.float64) * x, [V]),
    "large": (lambda x: tg.sin(x / 1e6) * x, [V * 1e6]),
    "large float32": (lambda x: tg.tanh(x / 1e6), [(V * 1e6).astype(np.float32)]),
    "float32 that loses digits": (
        lambda x: (x - x.mean()) / x.std(),
        [(1e4 + V).astype(np.float32)],
    ),
    "float32, a bias that is normalised away": (
        lambda x, b: tg.tanh(tg.batch_norm(x + b, training=True)),
        [M.astype(np.float32), np.zeros(4, np.float32)],
    ),
    "float32, a bias of keys": (
        lambda x, b: tg.softmax(x @ (x + b).T) @ x,
        [M.astype(np.float32), M[0].astype(np.float32)],
    ),
    "float32, a constant": (lambda x: tg.softmax(x).sum(), [V.astype(np.float32)]),
    "tiny": (lambda x: x * x, [V * 1e-8]),
    "tiny and steep": (lambda x: tg.exp(x * 1e8), [V * 1e-8]),
    "vanishing": (lambda x: x * 1e-300, [V]),
    "sizes that differ": (lambda x: tg.sin(x * np.array([1e6, 1.0])), [np.array([1e-6, 1.0])]),
    "huge": (tg.exp, [np.array([300.0, -300.0])]),
    "saturated": (lambda x: tg.softmax(1000 * x), [V]),
    "cancelling in the backward": (lambda x: x / x, [np.array(0.875)]),
    "cancelling": (lambda x: tg.logsumexp(x), [np.array([300.0, -300.0, 299.0])]),
    "nothing": (lambda x: x - x, [V]),
    "nearly singular": (tg.inv, [np.array([[1, 1], [1, 1.001]])]),
    "near an infinite slope": (tg.sqrt, [np.array([1e-6, 1.0])]),
    "fast": (lambda x: tg.sin(500 * x), [V]),
    "near a kink": (tg.relu, [np.array([1e-5, 1.0, -1.0])]),
    "near a kink that nobody declared": (
        op(np.abs, lambda g, y, x: (g * tg.sign(x),), "x"),
        [np.array([1e-5, 1.0])],
    ),
    "kinks that cancel": (lambda x: tg.relu(x) + tg.relu(-x) * 1.0, [V]),
    "integers beside": (lambda x, i: x[i], [V, np.array([0, 2, 2])]),
    "integers out": (lambda x: (x * 2, tg.Tensor([1, 2])), [V]),
    "plateau": (lambda x: tg.relu(-1 - tg.exp(x)), [V]),
    "unused argument": (lambda x, y: x * 2, [V, V]),
    "constant": (lambda x: tg.Tensor([1.0]), [V]),
    "floor": (lambda x: tg.floor(x) * x, [V]),
    "empty": (lambda x: tg.sum(x * x) + 1.0, [np.zeros((0, 3))]),
    "list of numbers": (tg.sin, [[1.0, 2.0]]),
    "tensor": (tg.sin, [tg.Tensor(V, requires_grad=True)]),
    "not writeable": (tg.sin, [np.broadcast_to(np.array([1.0, 2.0]), (3, 2))]),
    "not contiguous": (tg.sin, [np.asfortranarray(M)[::2]]),
    "fixed seed": (lambda x: tg.dropout(x, 0.5, rng=0), [M]),
    "several outputs": (lambda x: (x, {"a": [x.sum(), tg.exp(x)]}), [V]),
    "containers": (
        lambda p, x: {"y": tg.tanh(p["w"][0] @ x + p["b"])},
        [{"w": [S], "b": np.zeros(3)}, V[:3]],
    ),
    "many entries": (
        lambda x, w, b: tg.relu(x @ w + b).sum(),
        [rng.standard_normal(s) for s in [(32, 100), (100, 50), 50]],
    ),
    "assignment": (lambda x: _assigned(x * 2) * x, [V]),
}


def _assigned(z):
    z[0] = 5.0
    return z


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_are_right_however_hard(name):
    fn, args = RIGHT[name]
    assert check_gradients(fn, *args, raises=False).verdict == "ok"


@pytest.mark.parametrize("seed", range(3))
def test_a_derivative_that_loses_digits_is_not_called_wrong(seed):
    # At 1e-6 a third of the digits of the second derivative are left, by any engine.
    x = np.array([0.03, 7e-5, 2e-6, 1e-6, 0.5, 2.5])
    report = check_gradients(lambda x: tg.sin(x) / x, x, order=2, rng=seed, raises=False)
    assert report.verdict != "wrong"
    assert [check.verdict for check in report.checks[:2]] == ["ok", "ok"]


def test_orders_1_to_3_of_scalars_and_arrays():
    for x in (0.7, np.array(0.7), V):
        report = check_gradients(lambda x: tg.sin(x) * tg.exp(x), x, order=3)
        assert [check.order for check in report.checks] == [1, 1, 2, 2, 3, 3]
        assert report.verdict == "ok"


# --- The other verdicts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "fn", "args"),
    [
        ("kink", tg.relu, [[0.0, 1.0]]),
        ("kink", tg.abs, [[0.0]]),
        ("kink", op(np.abs, lambda g, y, x: (g * tg.sign(x),), "x"), [[0.0, 1.0]]),
        ("kink", tg.sort, [[1.0, 1.0, 2.0]]),
        ("kink", tg.max, [[1.0, 1.0, 0.0]]),
        ("kink", lambda x: tg.norm(x), [[0.0, 0.0]]),
        ("nonfinite", tg.log, [[-1.0, 1.0]]),
        ("nonfinite", lambda x: tg.sqrt(x * x), [[0.0, 1.0]]),
        ("nonfinite", tg.sqrt, [[0.0, 1.0]]),
        ("inconclusive", lambda x: tg.sin(1e12 * x), [[0.3, 1.1]]),
        ("inconclusive", lambda x: (1 + 1e-12 * x) - 1, [[0.3, 1.1]]),
        ("inconclusive", lambda x: (1 + 1e-20 * x) - 1, [[0.3, 1.1]]),
        ("nondeterministic", lambda x: x * np.random.default_rng().random(), [[0.3, 1.1]]),
    ],
)
def test_verdicts_of_what_cannot_be_judged(verdict, fn, args):
    report = check_gradients(fn, *args, raises=False)
    assert report.verdict == verdict
    assert str(report).startswith(f"{report.function}: {verdict}: ")
    beside = verdict == "kink" and any(check.verdict == "ok" for check in report.checks)
    assert report.conclusive == (beside or verdict == "nondeterministic")


def test_a_coarse_step_gives_no_verdict():
    for fn in (lambda x: tg.sin(500 * x), op(np.sin, lambda g, y, x: (-g,))):
        for x in (np.array([0.3, 1.1]), rng.standard_normal(20)):
            steep = lambda x, fn=fn: fn(500 * x)  # noqa: E731
            assert check_gradients(steep, x, step=0.5, raises=False).verdict == "inconclusive"


def test_a_random_gradient_is_nondeterministic_and_raises():
    generator = np.random.default_rng(0)
    noisy = op(lambda x: x * 2.0, lambda g, y, x: (g * (2 + 1e-3 * generator.random()),))
    with pytest.raises(GradientError, match="another gradient"):
        check_gradients(noisy, V)


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.25, 1.0])
def test_at_a_kink_what_lies_between_the_slopes_is_accepted(slope):
    sides = op(np.abs, lambda g, y, x: (g * tg.where(x == 0, slope, tg.sign(x)),), "x")
    sides.piece = np.sign
    assert check_gradients(sides, [0.0], raises=False).verdict == "kink"


@pytest.mark.parametrize("slope", [-1.1, 1.5, np.inf, np.nan])
def test_at_a_kink_what_lies_beyond_the_slopes_is_wrong(slope):
    sides = op(np.abs, lambda g, y, x: (g * tg.where(x == 0, slope, tg.sign(x)),), "x")
    sides.piece = np.sign
    report = check_gradients(sides, [0.0], raises=False)
    assert report.verdict == "wrong"
    assert "kink" in report.checks[-1].note
    assert np.isinf(slope) or np.isnan(slope) or "on a kink" in report.culprits[0].cause
    assert [entry.wrong for entry in report.entries] == [True]


@pytest.mark.parametrize("x", [[0.0, 0.0], [[0.0, 1.0], [0.0, 0.0]]])
def test_several_entries_on_kinks_allow_no_more_than_one(x):
    for slope, verdict in ((1.0, "kink"), (1.1, "wrong")):
        sides = op(np.abs, lambda g, y, x, s=slope: (g * tg.where(x == 0, s, tg.sign(x)),), "x")
        sides.piece = np.sign
        assert check_gradients(sides, x, raises=False).verdict == verdict


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("off", [1.5, 1.001])
def test_a_wrong_gradient_beside_a_kink_is_wrong(seed, off):
    square = op(lambda x: x**2, lambda g, y, x: (2 * off * g * x,), "x")
    fn = lambda x: tg.sum(tg.relu(x[:1])) + tg.sum(square(x[1:]))  # noqa: E731
    report = check_gradients(fn, np.array([0.0, 1.0, 2.0]), rng=seed, raises=False)
    assert report.verdict == "wrong"
    right = lambda x: tg.sum(tg.relu(x[:1])) + tg.sum(x[1:] ** 2)  # noqa: E731
    report = check_gradients(right, np.array([0.0, 1.0, 2.0]), rng=seed, raises=False)
    assert report.verdict == "kink"


# --- The oracle --------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_estimates_hold_the_truth_within_their_error(scale):
    x = rng.standard_normal(7) * scale
    (estimate,) = numeric_gradient(lambda x: (tg.sin(x / scale) * scale).sum(), x)
    assert isinstance(estimate, Estimate)
    assert estimate.value.shape == estimate.error.shape == x.shape
    assert (np.abs(estimate.value - np.cos(x / scale)) <= 2 * estimate.error + 1e-15).all()
    assert (estimate.error < 1e-8).all()


def test_estimates_know_what_they_do_not_know():
    (estimate,) = numeric_gradient(lambda x: tg.sin(1e12 * x).sum(), np.array([0.3]))
    assert np.isinf(estimate.error).all()
    (estimate,) = numeric_gradient(lambda x: tg.relu(x).sum(), np.array([-1.0, 0.0, 2.0]))
    np.testing.assert_allclose(estimate.value, [0, 0.5, 1], atol=1e-9)
    np.testing.assert_allclose(estimate.error, [0, 0.5, 0], atol=1e-6)


def test_estimates_of_containers_and_of_plain_numpy():
    found = numeric_gradient(lambda p, n: (p["a"] ** 2).sum() * n, {"a": V, "b": [M]}, 3)
    assert [e.value.shape for e in found] == [(5,), (3, 4)]
    np.testing.assert_allclose(found[0].value, 6 * V, rtol=1e-9)
    (found,) = numeric_gradient(lambda x: float(np.sum(x.numpy() ** 2)), V)
    np.testing.assert_allclose(found.value, 2 * V, rtol=1e-9)
    with pytest.raises(tg.ShapeError, match=r"no scalar; take \.sum\(\)"):
        numeric_gradient(tg.sin, V)


def test_a_complex_step_gives_a_second_opinion_where_it_can():
    report = check_gradients(square_with(1.5), V, raises=False)
    assert report.second_opinion == pytest.approx(report.checks[-1].numeric, rel=1e-9)
    assert "complex step" in str(report)
    for cast in (lambda x: x.astype(np.float32), tg.relu):
        off = square_with(1.5)
        report = check_gradients(lambda x, off=off, cast=cast: off(cast(x)), M, raises=False)
        assert report.verdict == "wrong"
        assert report.second_opinion is None


# --- Reports -----------------------------------------------------------------------------------


def wrong_report():
    twice = op(lambda x: x * 2.0, lambda g, y, x: (g,), name="twice")
    fn = lambda w, x: tg.tanh(twice(w) @ x)  # noqa: E731
    return check_gradients(fn, S, V[:3], raises=False)


def test_a_report_names_the_worst_entries_the_op_and_the_cause():
    report = wrong_report()
    (culprit,) = report.culprits
    assert (culprit.op, culprit.shapes) == ("twice", ((3, 3),))
    assert culprit.cause == "the gradient of x is off by a factor of 0.5"
    file, line = culprit.where.rsplit(":", 1)
    assert file == __file__
    assert int(line) > 1
    w, x = report.entries
    assert (w.argument, w.wrong, x.argument, x.wrong) == ("w", True, "x", False)
    assert w.engine == pytest.approx(w.numeric / 2, rel=1e-6)
    assert 0 < w.error < 1e-6
    for words in ("w[", "(wrong)", "(right)", "to blame: twice (call 1", "run it again:"):
        assert words in str(report)


first_row = lambda g, y, x, b: (g, g[0])  # noqa: E731


@pytest.mark.parametrize(
    ("forward", "rule", "args", "cause"),
    [
        (np.sin, lambda g, y, x: (-g * tg.cos(x),), [M], "has the wrong sign"),
        (np.sin, lambda g, y, x: (3 * g * tg.cos(x),), [M], "is off by a factor of 3"),
        (np.sin, lambda g, y, x: (g * tg.cos(x) + 1,), [M], "off by the same amount everywhere"),
        (np.sin, lambda g, y, x: (None,), [M], "nothing arrives at"),
        (np.sin, lambda g, y, x: (g * np.float32(0.1) * 10 * tg.cos(x),), [M], "8 digits only"),
        (writing_zeros_to_argument, lambda g, y, x: (g,), [V], "writes to its arguments"),
        (lambda a: a.T * 1.0, lambda g, y, x: (g,), [S], "of a is transposed"),
        (
            lambda x, b: np.hypot(x, b),
            lambda g, y, x, b: (g * b / y, g * x / y),
            [V, V + 4],
            "the gradients of x and b are swapped",
        ),
        (np.add, first_row, [M, M[0]], "lacks the sum over axis 0 of the result"),
        (
            np.add,
            lambda g, y, x, b: (g, g[:1, :1]),
            [M, M[:1, :1]],
            "lacks the sum over axes 0, 1 of",
        ),
        (
            lambda x: x[[0, 0, 1]],
            lambda g, y, x: (tg.concatenate([g[1:], 0 * x[2:]]),),
            [V],
            "4 of 5 entries of the gradient of x are right: see whether the others are "
            "used more than once (`=` for `+=`)",
        ),
    ],
)
def test_a_report_says_what_the_numbers_look_like(forward, rule, args, cause):
    keeps = " ".join(["y", *list(inspect.signature(rule).parameters)[2:]])
    report = check_gradients(op(forward, rule, keeps), *args, raises=False)
    assert cause in report.culprits[0].cause


def test_a_report_says_of_one_number_only_what_a_plain_factor_can_be():
    for factor, cause in ((1.01, "off by a factor of 1.01"), (2.15223, "")):
        (culprit,) = check_gradients(square_with(factor), [0.5], raises=False).culprits
        assert culprit.cause == (cause and f"the gradient of x is {cause}")


def test_a_report_says_that_a_rule_leaves_the_graph():
    value = lambda x: getattr(x, "_data", x)  # noqa: E731
    leaky = op(
        lambda x: np.where(x > 0, x, 0.1 * x),
        # Its second derivative is 0 either way: it shows in forward mode alone.
        lambda g, y, x: (value(g) * np.where(value(x) > 0, 1, 0.1),),
        "x",
    )
    kept = op(lambda x: x * x, lambda g, y, x: (g * 2 * value(x),), "x")
    for mine in (leaky, kept):
        (culprit,) = check_gradients(mine, V, order=2, raises=False).culprits
        assert (culprit.op, "left the graph" in culprit.cause) == ("mine", True)


def test_a_report_draws_the_graph_with_the_op_marked():
    graph = wrong_report().graph
    marked = [v.title for v in graph.nodes if v.marks]
    assert marked == ["twice"]
    assert "! wrong gradient" in graph.text()
    assert {v.title for v in graph.nodes} >= {"w", "x", "matmul", "tanh"}
    report = check_gradients(lambda x: tg.exp(cube(x)), V, order=2, raises=False)
    assert [v.title for v in report.graph.nodes if v.marks] == ["cube_grad"]
    assert not [v for v in check_gradients(tg.sin, V).graph.nodes if v.marks]


def test_a_report_is_json_and_html():
    report = wrong_report()
    data = json.loads(report.to_json(indent=1))
    assert data["verdict"] == "wrong"
    assert data["culprits"][0]["op"] == "twice"
    assert data["entries"][0]["argument"] == "w"
    page = report._repr_html_()
    assert "<b" in page
    assert "wrong" in page
    assert "twice" in page
    infinite = op(lambda x: x * 2.0, lambda g, y, x: (g * np.inf,))
    assert '"inf"' in check_gradients(infinite, [1.0], raises=False).to_json()


def test_the_reproducer_runs(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import tinygrad_hw as tg\n\n\n@tg.primitive\ndef twice(x):\n    return x * 2\n\n\n"
        "twice.rule(lambda g, y, x: (g,))\n\n\ndef fn(x, w):\n    return tg.exp(twice(x)) * w\n"
    )
    code = (
        "import mine, numpy as np\nfrom tinygrad_hw.testing import check_gradients\n"
        "r = check_gradients(mine.fn, np.array([0.1, 0.7]), 2.0, wrt=0, order=2, raises=False)\n"
        "for text in (r.reproducer, r.culprits[0].reproducer):\n"
        "    try:\n        exec(text)\n    except AssertionError as error:\n"
        "        print(error.report.verdict, [c.op for c in error.report.culprits] or 'alone')\n"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert out.stderr == ""
    assert out.stdout.splitlines() == ["wrong ['twice']", "wrong ['twice']"]


class Halved:
    def __call__(self, x):
        return x * tg.stop_gradient(x)


def test_the_reproducer_takes_no_object_for_its_class():
    halved = lambda x, n: Halved()(x) * n  # noqa: E731
    for fn, kind in ((Halved(), f"{__name__}.Halved"), (partial(halved, n=2), "functools.partial")):
        text = check_gradients(fn, V, raises=False).reproducer
        assert f"# fn is an object of the class {kind}\n" in text
        assert "check_gradients(fn, " in text


def test_blame_finds_wrong_ops_and_only_those():
    x = tg.Tensor(np.abs(V), requires_grad=True)
    twice = op(lambda x: x * 2.0, lambda g, y, x: (g,), name="twice")
    thrice = op(lambda x: x * 3.0, lambda g, y, x: (g * 2,), name="thrice")
    good = tg.log(tg.sqrt(x) + 1) * x
    assert blame(good.sum(), x) == ()
    found = blame((twice(good) + thrice(tg.exp(x))).sum(), x)
    assert {culprit.op for culprit in found} == {"twice", "thrice"}
    assert {culprit.op for culprit in blame(twice(good).sum())} == {"twice"}
    with pytest.raises(TypeError, match="requires a gradient"):
        blame(tg.Tensor(1.0))


# --- Arguments ---------------------------------------------------------------------------------


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(TypeError, match=r"nothing to differentiate by.*astype\(float\)"):
        check_gradients(lambda i: i, np.array([0, 2]))
    with pytest.raises(ValueError, match="wrt is 2; want positions of arguments, 0 to 0"):
        check_gradients(tg.sin, V, wrt=2)
    with pytest.raises(ValueError, match="order is 4; want 1, 2 or 3"):
        check_gradients(tg.sin, V, order=4)
    wrong = ("directions", 0), ("rtol", -1e-3), ("rtol", "a"), ("atol", np.nan), ("step", 0)
    for name, value in wrong:
        with pytest.raises(ValueError, match=f"{name} is {value!r}; want a"):
            check_gradients(tg.sin, V, **{name: value})
    with pytest.raises(TypeError, match="the function: returned a str; want floats, in"):
        check_gradients(lambda x: "x", V)
    with pytest.raises(ZeroDivisionError):
        check_gradients(lambda x: 1 / 0, V)


def test_wrt_chooses_and_options_count():
    half = lambda x, w: tg.sin(x) * tg.stop_gradient(w)  # noqa: E731
    assert check_gradients(half, V, V, wrt=0).verdict == "ok"
    assert check_gradients(half, V, V, wrt=-1, raises=False).verdict == "wrong"
    off = square_with(1 + 1e-4)
    assert check_gradients(off, V, rtol=1e-3).verdict == "ok"
    assert check_gradients(off, V, atol=1.0).verdict == "ok"
    assert len(check_gradients(tg.sin, V, directions=5).checks) == 5
    checks = [check_gradients(tg.sin, V, rng=seed).checks for seed in (0, 0, 1)]
    assert checks[0] == checks[1] != checks[2]
    assert checks[0] == check_gradients(tg.sin, V).checks


def test_arguments_are_left_as_they_were():
    x, w = V.copy(), tg.Tensor(V, requires_grad=True)
    check_gradients(lambda x, w: tg.sin(x) * w, x, w, order=2)
    np.testing.assert_array_equal(x, V)
    np.testing.assert_array_equal(w.numpy(), V)
    assert w.grad is None
