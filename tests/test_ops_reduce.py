"""Reductions: values against NumPy, gradients of three orders, conventions, dtypes, errors."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerical import check_call

import tinygrad_hw as tg
from tinygrad_hw.dispatch import Primitive
from tinygrad_hw.domains import RandomDraw
from tinygrad_hw.ops import exponential, order, primitives, reduce, scan

OWN = sorted(
    p.name
    for family in (reduce, exponential, scan, order)
    for p in vars(family).values()
    if isinstance(p, Primitive) and p.__module__ == family.__name__
)
AXES = [None, 0, 1, -1, (0, 2), (-1, 0), (0, 1, 2), ()]


def logsumexp(x, axis=None, keepdims=False):
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


# Of each: the op, NumPy's function of the same call.
REDUCTIONS = {
    "sum": (tg.sum, np.sum),
    "mean": (tg.mean, np.mean),
    "var": (tg.var, np.var),
    "std": (tg.std, np.std),
    "prod": (tg.prod, np.prod),
    "max": (tg.max, np.max),
    "min": (tg.min, np.min),
    "amax": (tg.amax, np.amax),
    "amin": (tg.amin, np.amin),
    "median": (tg.median, np.median),
    "logsumexp": (tg.logsumexp, logsumexp),
    "norm": (
        tg.norm,
        lambda x, axis, keepdims: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    ),
}
CONSTANTS = {
    "argmax": (tg.argmax, np.argmax),
    "argmin": (tg.argmin, np.argmin),
    "any": (tg.any, np.any),
    "all": (tg.all, np.all),
    "count_nonzero": (tg.count_nonzero, np.count_nonzero),
}
each_reduction = pytest.mark.parametrize("name", REDUCTIONS)
finite = st.floats(-10, 10, width=32)


def cube():
    return np.random.default_rng(0).standard_normal((3, 4, 5))


def gradient(function, x, cotangent=None):
    t = tg.Tensor(x, requires_grad=True)
    function(t).backward(cotangent)
    return t.grad


def gradients(function, x, order):
    """The gradients of order 1, 2, ... of a scalar function, each of the sum of the last."""
    t = tg.Tensor(x, requires_grad=True)
    y = function(t)
    found = []
    for _ in range(order):
        (y,) = tg.grad(y, [t], create_graph=True) if y.requires_grad else (t * 0,)
        found.append(y.numpy())
        y = y.sum()
    return found


# --- Values -----------------------------------------------------------------------------------


@each_reduction
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_values(name, axis, keepdims):
    op, numpy = REDUCTIONS[name]
    x = cube()
    expected = np.asarray(numpy(x, axis=axis, keepdims=keepdims))
    for y in (
        op(x, axis=axis, keepdims=keepdims),
        op(tg.Tensor(x), axis=axis, keepdims=keepdims).data,
    ):
        assert isinstance(y, np.ndarray)
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-13)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_values_of_scalars_and_lists(name):
    op, numpy = REDUCTIONS[name]
    for x in (2.0, [1.0, 4.0, 2.0], np.float64(3.0), np.array(2.0)):
        np.testing.assert_allclose(op(x), numpy(np.asarray(x), axis=None, keepdims=False))
    assert type(op(np.array(2.0))) is np.ndarray
    assert type(op([1.0, 4.0, 2.0])) is np.ndarray


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_constants(name, axis, keepdims):
    op, numpy = CONSTANTS[name]
    x = np.random.default_rng(0).integers(-1, 2, (3, 4, 5)).astype(float)
    expected = np.asarray(numpy(x, axis=axis, keepdims=keepdims))
    plain = op(x, axis=axis, keepdims=keepdims)
    assert type(plain) is np.ndarray
    np.testing.assert_array_equal(plain, expected)
    y = op(tg.Tensor(x, requires_grad=True), axis=axis, keepdims=keepdims)
    assert isinstance(y, tg.Tensor)
    assert not y.requires_grad
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(y.numpy(), expected)


@pytest.mark.parametrize("correction", [0, 1, 0.5, 2])
@pytest.mark.parametrize("axis", AXES[:-1], ids=str)
def test_correction(correction, axis):
    x = cube()
    for op, numpy in ((tg.var, np.var), (tg.std, np.std)):
        expected = numpy(x, axis=axis, correction=correction)
        np.testing.assert_allclose(op(x, axis, correction=correction), expected)
        check_call(op, (x,), {"axis": axis, "correction": correction}, order=3)
    np.testing.assert_allclose(np.var(tg.Tensor(x), axis, ddof=1).numpy(), np.var(x, axis, ddof=1))


@pytest.mark.parametrize("ord", [None, 1, 2, 2.5, 3, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_norm(ord, axis):
    x = cube()
    expected = np.linalg.norm(x, ord, axis, keepdims=True)
    np.testing.assert_allclose(tg.norm(x, ord, axis, keepdims=True), expected)
    np.testing.assert_allclose(
        np.linalg.norm(tg.Tensor(x), ord, axis).numpy(), expected.squeeze(axis)
    )
    check_call(tg.norm, (x,), {"ord": ord, "axis": axis}, order=3)


def test_complex_numbers_keep_their_imaginary_part():
    x = np.array([3 + 4j, 1j, -2 + 1j])
    total = np.exp(x).sum()
    np.testing.assert_allclose(tg.softmax(x), np.exp(x) / total)
    np.testing.assert_allclose(tg.logsumexp(x), np.log(total))
    np.testing.assert_allclose(np.exp(tg.log_softmax(x)), np.exp(x) / total)
    for ord in (None, 1, 2, 3, math.inf):
        np.testing.assert_allclose(np.linalg.norm(tg.Tensor(x), ord), np.linalg.norm(x, ord))


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_running(name, axis):
    op, numpy = getattr(tg, name), getattr(np, name)
    x = cube()[:2, :3, :3]
    np.testing.assert_allclose(op(x, axis), numpy(x, axis))
    np.testing.assert_allclose(numpy(tg.Tensor(x), axis).numpy(), numpy(x, axis))
    check_call(op, (x,), {"axis": axis}, order=3)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), ()], ids=str)
def test_softmax(axis):
    x = cube()
    shares = np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(tg.softmax(x, axis), shares)
    np.testing.assert_allclose(tg.log_softmax(x, axis), np.log(shares), atol=1e-14)
    np.testing.assert_allclose(np.exp(tg.log_softmax(x + 1e4, axis)), shares, rtol=1e-9)
    np.testing.assert_allclose(tg.softmax(x - 1e4, axis), shares, rtol=1e-9)


def test_exponentials_do_not_overflow():
    x = np.array([[1e4, 0.0, -1e4], [-1e300, 1e300, 0.0]])
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(tg.logsumexp(x, -1), [1e4, 1e300])
        np.testing.assert_array_equal(tg.softmax(x), [[1, 0, 0], [0, 1, 0]])
        np.testing.assert_array_equal(tg.log_softmax(x[0]), [0, -1e4, -2e4])
    np.testing.assert_array_equal(gradient(lambda t: tg.logsumexp(t, -1).sum(), x), tg.softmax(x))
    empty = np.array([[-np.inf, -np.inf], [-np.inf, 1.0]])
    np.testing.assert_array_equal(tg.logsumexp(empty, 1), [-np.inf, 1])
    shares = gradient(lambda t: tg.logsumexp(t, 1).sum(), empty)
    np.testing.assert_array_equal(shares, [[0, 0], [0, 1]])
    np.testing.assert_array_equal(tg.logsumexp(np.array([np.inf, 0.0])), np.inf)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_sort(axis, descending):
    x = np.random.default_rng(0).integers(0, 3, (3, 4, 5)) + 0.0
    order = tg.argsort(x, axis, descending=descending)
    expected = np.sort(-x if descending else x, axis)
    expected = -expected if descending else expected
    np.testing.assert_array_equal(tg.sort(x, axis, descending=descending), expected)
    np.testing.assert_array_equal(order, np.argsort(-x if descending else x, axis, stable=True))
    t = tg.Tensor(x, requires_grad=True)
    assert not tg.argsort(t).requires_grad
    distinct = np.random.default_rng(0).permutation(np.arange(60.0)).reshape(3, 4, 5)
    check_call(tg.sort, (distinct,), {"axis": axis, "descending": descending}, order=3)


def test_topk():
    x = np.random.default_rng(0).permutation(np.arange(60.0)).reshape(3, 4, 5)
    for axis, k in [(0, 1), (1, 4), (-1, 2), (-1, 0)]:
        values, indices = tg.topk(x, k, axis)
        expected = np.flip(np.sort(x, axis), axis).take(range(k), axis)
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_array_equal(np.take_along_axis(x, indices, axis), expected)
        check_call(lambda t, k=k, axis=axis: tg.topk(t, k, axis)[0], (x,), {}, order=3)
    values, indices = tg.topk(tg.Tensor([1.0, 3.0, 3.0], requires_grad=True), 2)
    np.testing.assert_array_equal(indices.numpy(), [1, 2])
    assert values.requires_grad
    assert not indices.requires_grad


# --- Gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("seed", range(30))
def test_derivatives_over_the_domain(name, seed):
    op = primitives()[name]
    args, params = op.domain.sample(RandomDraw(seed))
    check_call(op, args, params, order=3)


@each_reduction
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_derivatives_over_axes(name, axis):
    # Distinct and well apart, so that no difference straddles a change of the extremes.
    x = np.random.default_rng(0).permutation(24).reshape(2, 3, 4) / 12 + 0.1
    if name == "std" and axis == ():
        return  # Each entry alone: the convention, tested below.
    op = REDUCTIONS[name][0]
    check_call(op, (x,), {"axis": axis, "keepdims": True}, order=3)
    check_call(op, (x,), {"axis": axis}, order=3)


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@settings(max_examples=120, deadline=None)
@given(shapes, st.sampled_from(list(REDUCTIONS)), st.data())
def test_any_shape(shape, name, data):
    op, numpy = REDUCTIONS[name]
    some = st.lists(st.integers(0, len(shape) - 1), unique=True) if shape else st.just([])
    axis = data.draw(st.none() | some.map(tuple))
    keepdims = data.draw(st.booleans())
    x = np.asarray(np.random.default_rng(0).permutation(math.prod(shape)).reshape(shape) / 8 + 0.1)
    reduced = [shape[n] for n in (range(len(shape)) if axis is None else axis)]
    if 0 in reduced and name not in ("sum", "prod", "norm"):
        if math.prod(shape) == 0 and name in ("max", "min", "amax", "amin", "logsumexp"):
            return
        with pytest.raises(tg.ShapeError, match=name):
            op(x, axis=axis, keepdims=keepdims)
        return
    y = op(x, axis=axis, keepdims=keepdims)
    if name == "median" and x.size == 0:
        numpy = np.sum  # NumPy's median cannot do it.
    expected = np.asarray(numpy(x, axis=axis, keepdims=keepdims))
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)
    assert y.shape == expected.shape
    if not (name == "std" and math.prod(reduced) == 1):
        check_call(op, (x,), {"axis": axis, "keepdims": keepdims}, order=2, rtol=1e-5)


@pytest.mark.parametrize("zeros", [0, 1, 2, 3, 6])
@pytest.mark.parametrize("name", ["prod", "cumprod"])
def test_products_are_exact_at_zeros(name, zeros):
    # Polynomials: differences across zero are as good as anywhere.
    op = getattr(tg, name)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0.5, 1.5, (2, 3))
        x.flat[rng.permutation(6)[:zeros]] = 0
        for axis in (None, 0, 1):
            check_call(op, (x,), {"axis": axis}, order=3)


def test_factors_whose_product_underflows():
    np.testing.assert_allclose(gradient(tg.prod, np.array([1e-200, 1e-150])), [1e-150, 1e-200])


def test_cumprod_of_factors_whose_product_overflows():
    x = np.array([1e-20, 1e20, 1e20, 1e-20], np.float32)
    np.testing.assert_array_equal(gradient(lambda t: tg.cumprod(t)[0], x), [1, 0, 0, 0])


def test_cumprod_against_every_factor_left_out():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(37)
    x[[5, 20]] = 0
    u = rng.standard_normal(37)
    expected = [
        sum(u[i] * np.prod(np.delete(x[: i + 1], k)) for i in range(k, 37)) for k in range(37)
    ]
    np.testing.assert_allclose(gradient(tg.cumprod, x, u), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cumprod", "prod", "sort", "median", "max"])
def test_long_axes_are_fast(name):
    x = np.random.default_rng(0).uniform(0.9, 1.1, 200_000)
    start = time.process_time()
    gradient(lambda t: getattr(tg, name)(t).sum(), x)
    assert time.process_time() - start < 2


# --- Conventions ------------------------------------------------------------------------------


def test_ties_of_extremes_split_equally():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    third = 1 / 3
    high = [[0, 0.5, 0.5], [third] * 3]
    np.testing.assert_allclose(gradient(lambda t: tg.max(t, 1).sum(), x), high)
    low = [[1, 0, 0], [third] * 3]
    np.testing.assert_allclose(gradient(lambda t: tg.amin(t, 1).sum(), x), low)
    np.testing.assert_allclose(gradient(tg.max, x), [[0, 0.5, 0.5], [0, 0, 0]])
    assert not gradients(tg.max, x, 2)[1].any()


def test_ties_of_the_median_split_equally():
    for x, shares in [
        ([3.0, 1.0, 2.0], [0, 0, 1]),
        ([4.0, 1.0, 2.0, 3.0], [0, 0, 0.5, 0.5]),
        ([2.0, 1.0, 2.0, 2.0, 5.0], [1 / 3, 0, 1 / 3, 1 / 3, 0]),
        ([1.0, 1.0, 2.0, 3.0], [0.25, 0.25, 0.5, 0]),
    ]:
        np.testing.assert_allclose(gradient(tg.median, np.array(x)), shares)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e20, -3.3])
def test_std_of_equal_entries_has_gradient_zero(value):
    x = np.full(7, value)
    for g in gradients(tg.std, x, 3):
        np.testing.assert_array_equal(g, 0)
    half = np.array([[value] * 3, [1.0, 2.0, 4.0]])
    g = gradient(lambda t: tg.std(t, 1).sum(), half)
    np.testing.assert_array_equal(g[0], 0)
    assert g[1].all()
    np.testing.assert_array_equal(gradient(lambda t: tg.std(t, ()).sum(), half), 0)


@pytest.mark.parametrize("ord", [None, 0.5, 1, 2, 2.5, 3, math.inf, -math.inf])
def test_norm_of_zero_has_gradient_zero(ord):
    for g in gradients(lambda t: tg.norm(t, ord), np.zeros(3), 3):
        np.testing.assert_array_equal(g, 0)
    rows = np.array([[0.0, 0.0], [3.0, 4.0]])
    g = gradient(lambda t: tg.norm(t, ord, 1).sum(), rows)
    np.testing.assert_array_equal(g[0], 0)
    assert g[1].any()


def test_an_entry_0_has_no_slope_in_a_norm_whose_power_is_infinitely_steep_there():
    g = gradient(lambda t: tg.norm(t, 0.5), np.array([0.0, 1.0, 4.0]))
    np.testing.assert_allclose(g, [0.0, 3.0, 1.5])


def test_nan_stays_nan():
    x = np.array([1.0, np.nan, 2.0])
    for op in (tg.max, tg.min, tg.sum, tg.median):
        assert np.isnan(op(x))
    np.testing.assert_array_equal(gradient(tg.max, x), [0, 1, 0])


# --- Dtypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*REDUCTIONS, "cumsum", "cumprod", "softmax", "log_softmax", "sort"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_small_floats_stay(name, dtype):
    x = np.array([[1.0, 2.0], [0.5, 3.0]], dtype)
    op = getattr(tg, name)
    assert op(x).dtype == dtype
    assert op(x, axis=0).dtype == dtype
    for g in gradients(lambda t: op(t, axis=0).sum(), x, 2):
        assert g.dtype == dtype


@pytest.mark.parametrize("name", ["mean", "var", "std"])
def test_more_entries_than_half_precision_counts_to(name):
    x = np.arange(70_000) % 2
    half, double = (gradient(getattr(tg, name), x.astype(t)) for t in (np.float16, np.float64))
    np.testing.assert_allclose(half, double, rtol=0.01)


def test_rules_compute_in_float32():
    x = tg.Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    seen = []
    with tg.observe(lambda op, args, params, y: seen.append((op.name, y.dtype))):
        for name in [*REDUCTIONS, "cumsum", "cumprod", "softmax", "log_softmax", "sort"]:
            y = getattr(tg, name)(x, axis=1)
            tg.grad(y.sum(), [x], create_graph=True)
    assert not [(name, dtype) for name, dtype in seen if dtype == np.float64]


def test_integers_are_constants():
    x = np.array([[3, 1], [2, 4]])
    for name, (op, numpy) in REDUCTIONS.items():
        expected = numpy(x, axis=0, keepdims=False)
        np.testing.assert_allclose(op(x, axis=0), expected)
        assert op(x, axis=0).dtype == expected.dtype, name
        assert not op(tg.Tensor(x)).requires_grad
    small = np.array([1, 200], np.uint8)
    np.testing.assert_allclose(tg.softmax(small), [0, 1], atol=1e-80)
    np.testing.assert_allclose(tg.log_softmax(small), [-199, 0])
    assert tg.norm(small) == pytest.approx(math.hypot(1, 200))


# --- Errors -----------------------------------------------------------------------------------


@each_reduction
def test_wrong_axis(name):
    with pytest.raises(np.exceptions.AxisError, match="axis 3"):
        REDUCTIONS[name][0](tg.Tensor(cube()), axis=3)


@pytest.mark.parametrize("name", ["mean", "var", "std", "median", "max", "min", "logsumexp"])
def test_nothing_to_reduce(name):
    with pytest.raises(tg.ShapeError, match=name):
        getattr(tg, name)(np.zeros((2, 0)), axis=1)
    assert getattr(tg, name)(np.zeros((0, 2)), axis=1).shape == (0,)


def test_other_errors():
    with pytest.raises(tg.ShapeError, match=r"var: axis None has 1 entries; want more than 1"):
        tg.var(np.ones(1), correction=1)
    for ord in (0, -1, "nuc"):
        with pytest.raises(ValueError, match=f"norm: got ord={ord!r}; want None, 'fro', inf"):
            tg.norm(np.ones(2), ord)
    for axis in (None, (0, 1)):
        with pytest.raises(ValueError, match=r"norm.*matrix; want one axis, or ravel"):
            tg.norm(np.ones((2, 2)), 2, axis)
    for k in (4, -1):
        with pytest.raises(tg.ShapeError, match=rf"topk: got k={k} for 3 entries .* want 0 to 3"):
            tg.topk(np.ones(3), k)
    with pytest.raises(tg.ShapeError, match="argmax"):
        tg.argmax(np.ones(0))
    with pytest.raises(np.exceptions.AxisError):
        tg.argmax(np.ones(2), axis=1)
    with pytest.raises(np.exceptions.AxisError):
        tg.sort(np.ones(2), axis=1)
    with pytest.raises(np.exceptions.AxisError, match="cumsum"):
        tg.cumsum(np.ones(2), axis=1)
