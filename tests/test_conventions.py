"""The conventions of docs/conventions.md: its examples, and each of them in more depth."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import tinygrad_hw as tg

PAGE = Path(__file__).parents[1] / "docs" / "conventions.md"


def slope(f, *xs):
    """The gradients of ``sum(f(*xs) * r)`` over the random cotangent r, divided out again."""
    tensors = [tg.Tensor(np.array(x, float), requires_grad=True) for x in xs]
    with np.errstate(all="ignore"):
        y = f(*tensors)
        y.backward(np.ones(y.shape))
    return [t.grad for t in tensors]


def second(f, x):
    """The diagonal of the second derivative of an elementwise function."""
    t = tg.Tensor(np.array(x, float), requires_grad=True)
    with np.errstate(all="ignore"):
        first = tg.grad(f(t).sum(), t, create_graph=True)
        return tg.grad(first.sum(), t).numpy() if first.requires_grad else np.zeros(t.shape)


def test_the_page():
    text = PAGE.read_text()
    test = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, PAGE.name, 0)
    assert len(test.examples) > 20
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("op", [tg.relu, tg.abs])
@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_slope_at_the_kink_is_zero(op, zero):
    assert slope(op, [zero])[0] == 0
    assert second(op, [zero, -1.0, 1.0]).tolist() == [0, 0, 0]


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_elu_at_zero_has_the_slopes_of_its_exponential(alpha):
    assert slope(lambda x: tg.elu(x, alpha), [0.0, 1000.0])[0].tolist() == [alpha, 1]
    assert second(lambda x: tg.elu(x, alpha), [0.0, 1000.0]).tolist() == [alpha, 0]


@pytest.mark.parametrize("op", [tg.maximum, tg.minimum])
def test_elementwise_ties_share(op):
    a, b = slope(op, [1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    assert a[0] == b[0] == 0.5
    np.testing.assert_array_equal(a + b, 1)


@pytest.mark.parametrize("op", [tg.max, tg.min])
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 1), -1])
def test_reduced_ties_share(op, axis):
    (g,) = slope(lambda x: op(x, axis=axis), np.ones((2, 3)))
    share = {None: 6, 0: 2, 1: 3, (0, 1): 6, -1: 3}[axis]
    np.testing.assert_allclose(g, 1 / share)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pooling_window_has_one_winner(stride):
    (g,) = slope(lambda x: tg.max_pool2d(x, 2, stride), np.zeros((1, 4, 4, 2)))
    n = len(range(0, 3, stride))
    assert g.sum() == n * n * 2
    assert g[0, 0, 0].tolist() == [1, 1]
    assert g[0, 3].sum() == 0


@pytest.mark.parametrize("x", [0.0, 1.0])
def test_clip_at_its_bounds(x):
    assert slope(lambda t: tg.clip(t, 0.0, 1.0), x)[0] == 1


def test_clip_between_bounds_that_are_the_wrong_way_is_constant():
    x = [0.0, 1.0, 1.5, 2.0, 3.0]
    assert tg.clip(np.array(x), 2.0, 1.0).tolist() == [1] * 5
    assert slope(lambda t: tg.clip(t, 2.0, 1.0), x)[0].tolist() == [0] * 5


@pytest.mark.parametrize("kind", [np.asarray, tg.Tensor, list])
def test_a_later_write_to_the_bounds_of_clip_changes_nothing(kind):
    x = tg.Tensor([1.0, -1.0], requires_grad=True)
    low = kind(np.zeros(2))
    y = tg.clip(x, low)
    (low.data if kind is tg.Tensor else low)[:] = [5.0, 5.0]
    y.sum().backward()
    assert x.grad.tolist() == [1, 0]


@pytest.mark.parametrize("op", [tg.sign, tg.floor, tg.ceil, tg.round])
def test_steps_are_flat(op):
    g = tg.grad(lambda x: (op(x) + x).sum())(np.array([-1.5, 0.0, 0.5, 2.0]))
    np.testing.assert_array_equal(g.numpy(), 1)


def test_an_angle_at_the_origin_has_the_slope_zero():
    by_y, by_x = slope(tg.arctan2, [0.0, -0.0, 1.0, 0.0], [0.0, -0.0, 0.0, -2.0])
    assert (by_y.tolist(), by_x.tolist()) == ([0, 0, 0, -0.5], [0, 0, -1, 0])


@pytest.mark.parametrize("op", [tg.hypot, tg.arctan2, lambda a, b: tg.norm(tg.stack([a, b]))])
def test_lengths_and_angles_have_second_derivatives_of_zero_at_the_origin(op):
    assert [[h.item() for h in row] for row in tg.hessian(op, (0, 1))(0.0, 0.0)] == [[0, 0], [0, 0]]


def test_derivatives_of_sinc_are_exact_at_zero():
    first = tg.grad(tg.sinc)
    third = tg.grad(tg.grad(first))
    assert (first(0.0).item(), third(0.0).item()) == (0, 0)
    assert first(1e-9).item() == -first(-1e-9).item() == pytest.approx(-(np.pi**2) / 3 * 1e-9)


def test_a_negative_power_of_0_has_the_slope_zero_by_its_exponent():
    by_base, by_exponent = slope(tg.power, [0.0, 0.0, 2.0], [-1.0, -0.5, -1.0])
    assert by_base.tolist() == [-np.inf, -np.inf, -0.25]
    np.testing.assert_allclose(by_exponent, [0, 0, np.log(2) / 2])


def test_power_at_zero():
    assert slope(lambda x: x**0, [0.0, -1.0])[0].tolist() == [0, 0]
    assert slope(lambda x, y: x**y, [0.0], [0.0]) == [0, 0]
    assert slope(lambda x, y: x**y, [0.0], [2.0]) == [0, 0]
    assert slope(lambda x, y: x**y, [0.0], [1.0])[0] == 1
    assert second(lambda x: x**1, [0.0, 3.0]).tolist() == [0, 0]
    assert second(lambda x: x**2, [0.0, 3.0]).tolist() == [2, 2]
    assert second(lambda x: x**2.0, [0.0, -3.0]).tolist() == [2, 2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8, bool])
def test_exponents_of_any_dtype_of_whole_numbers(dtype):
    zero_and_one = np.array([0, 1], dtype)
    assert slope(lambda x: x**zero_and_one, [1000.0, 2.0])[0].tolist() == [0, 1]


def test_a_quotient_that_is_rounded_up_does_not_change_the_slope_of_its_remainder():
    assert 1.0 // 0.1 == 9
    assert slope(tg.remainder, 1.0, 0.1)[1] == -9
    assert slope(lambda x: x // 2 + x, 5.0)[0] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_of_large_negative_numbers_keeps_all_its_digits(dtype):
    x = np.array([-80, -30, -5], dtype)
    expected = np.exp(x) / (1 + np.exp(x))
    found = tg.sigmoid(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(tg.sigmoid(np.array([-1e4, 1e4, np.nan], dtype)), [0, 1, np.nan])
    assert tg.sigmoid(np.uint8(3)) == tg.sigmoid(3.0)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float32, np.float64])
def test_softplus_is_numpys_logaddexp_with_0_of_any_number(dtype):
    x = np.array([0, 1, 3, 88, 100], dtype)
    if dtype is not np.uint8:
        x = np.append(x, -x)
    if x.dtype.kind == "f":
        x = np.append(x, np.array([1e4, -1e4, np.inf, -np.inf, np.nan], dtype))
    with np.errstate(all="ignore"):
        wanted = np.logaddexp(x, 0)
    kind = wanted.dtype
    np.testing.assert_allclose(tg.softplus(x), wanted, rtol=4 * np.finfo(kind).eps, strict=True)
    assert tg.softplus(1.0) == pytest.approx(np.log1p(np.e))


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_arctan2_of_small_and_of_large_numbers(size):
    a, b = (tg.Tensor(np.float32(size), requires_grad=True) for _ in range(2))
    tg.arctan2(a, b).backward()
    np.testing.assert_allclose([a.grad, b.grad], [0.5 / size, -0.5 / size], rtol=1e-5)


def test_norm_and_std_at_their_corner():
    for ord in (0.5, 1, 1.5, 3, np.inf, -np.inf):
        assert np.isfinite(slope(lambda x, ord=ord: tg.norm(x, ord), [0.0, 0.0])[0]).all()
    for ord in (0.5, 1.5, 3):
        some = slope(lambda x, ord=ord: tg.norm(x, ord), [0.0, -2.0])[0]
        assert some.tolist() == pytest.approx([0, -1])
        assert np.isfinite(second(lambda x, ord=ord: tg.norm(x, ord), [0.0, -2.0])).all()
    assert slope(tg.norm, np.zeros((2, 2)))[0].tolist() == [[0, 0], [0, 0]]
    rows = slope(lambda x: tg.norm(x, axis=1), [[0.0, 0.0], [3.0, 4.0]])[0]
    assert rows[0].tolist() == [0, 0]
    np.testing.assert_allclose(rows[1], [0.6, 0.8])
    assert slope(tg.std, np.full(5, 0.1))[0].tolist() == [0] * 5
    assert np.isfinite(second(lambda x: tg.norm(x), [0.0, 0.0])).all()


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_prod_with_zeros_is_exact(zeros):
    x = np.array([3.0, -2.0, 5.0, 0.5])
    x[:zeros] = 0
    want = [np.prod(np.delete(x, i)) for i in range(4)]
    np.testing.assert_array_equal(slope(tg.prod, x)[0], want)
    second_want = [sum(np.prod(np.delete(x, [i, j])) for j in range(4) if j != i) for i in range(4)]
    t = tg.Tensor(x, requires_grad=True)
    first = tg.grad(tg.prod(t), t, create_graph=True)
    np.testing.assert_allclose(tg.grad(first.sum(), t).numpy(), second_want)


@pytest.mark.parametrize(
    ("branch", "bad"),
    [(tg.log, 0.0), (tg.sqrt, 0.0), (tg.log, -1.0), (tg.reciprocal, 0.0), (tg.arccosh, 0.5)],
)
def test_where_leaks_nothing_from_the_branch_not_taken(branch, bad):
    for f in (
        lambda x: tg.where(x > 1, branch(x), 3 * x),
        lambda x: tg.where(x <= 1, 3 * x, branch(x)),
    ):
        (g,) = slope(f, [bad, 2.0])
        assert g[0] == 3
        assert np.isfinite(g).all()
        assert np.isfinite(second(f, [bad, 2.0])).all()


def test_a_nan_that_belongs_to_the_result_stays():
    assert np.isnan(slope(tg.log, [-1.0])[0]).tolist() == [False]
    assert np.isnan(slope(lambda x: tg.sqrt(x) * 1, [-1.0])[0]).all()
    assert np.isinf(slope(tg.sqrt, [0.0])[0]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: 2 * x,
        lambda x: x + 1.5,
        lambda x: 1 / x,
        lambda x: x**2,
        lambda x: 2.0**x,
        lambda x: tg.where(x > 0, x, 0.0),
        lambda x: tg.maximum(x, 0.5),
        lambda x: tg.clip(x, 0.1, 0.9),
        lambda x: tg.mean(x, axis=0),
        lambda x: tg.softmax(x),
        lambda x: tg.std(x),
        lambda x: np.exp(x),
    ],
)
def test_pythons_numbers_do_not_promote(f, dtype):
    x = tg.Tensor(np.linspace(0.2, 0.8, 4), dtype=dtype, requires_grad=True)
    y = f(x)
    assert y.dtype == dtype
    y.sum().backward()
    assert x.grad.dtype == dtype


def test_a_gradient_has_the_dtype_of_its_input_in_mixed_sums():
    a = tg.Tensor(np.ones(3), dtype=np.float32, requires_grad=True)
    b = tg.Tensor(np.ones((2, 1)), requires_grad=True)
    y = a * b
    assert y.dtype == np.float64
    y.sum().backward()
    assert (a.grad.dtype, a.grad.shape) == (np.float32, (3,))
    assert (b.grad.dtype, b.grad.shape) == (np.float64, (2, 1))


@pytest.mark.parametrize(
    "f", [tg.sum, tg.mean, tg.max, lambda x: x[0], lambda x: tg.dot(x, x), lambda x: -x.sum()]
)
def test_zero_dimensional_results_are_arrays(f):
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    y = f(x)
    assert isinstance(y.data, np.ndarray)
    assert isinstance(y.numpy(), np.ndarray)
    assert y.shape == ()
    assert isinstance(f(x.detach()).data, np.ndarray)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x > 0,
        lambda x: x == x,
        tg.argmax,
        tg.argmin,
        tg.argsort,
        tg.isnan,
        lambda x: tg.any(x),
        lambda x: tg.topk(x, 2)[1],
        lambda x: x.astype(int),
    ],
)
def test_integers_and_booleans_are_constants(f):
    y = f(tg.Tensor([1.0, 3.0, 2.0], requires_grad=True))
    assert not y.requires_grad
    assert y.dtype.kind in "bi"


@pytest.mark.parametrize("backend", [None, "numpy", "numba"])
@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_the_operators_of_bits_are_those_of_numpy(dtype, backend):
    def bits(a, b):
        return a & b, a | b, a ^ b, ~a, (~a > b) & (b > 0)

    if backend == "numba":
        pytest.importorskip("numba")
    a, b = np.array([6, 0, 5, 1]).astype(dtype), np.array([3, 1, 0, 0]).astype(dtype)
    found = (bits if backend is None else tg.compile(bits, backend=backend))(
        *map(tg.Tensor, (a, b))
    )
    for y, expected in zip(found, bits(a, b), strict=True):
        assert isinstance(y, tg.Tensor)
        assert y.dtype == expected.dtype
        np.testing.assert_array_equal(y.numpy(), expected)


def test_bits_meet_python_numbers_and_arrays_on_either_side():
    x = tg.Tensor([6, 1])
    for y in (x & 3, 3 & x, np.array([3, 3]) & x, np.bitwise_and(3, x)):
        assert y.numpy().tolist() == [2, 1]


@pytest.mark.parametrize("f", [lambda x: x & x, lambda x: (x > 0) | x, lambda x: ~x])
def test_floats_have_no_bits(f):
    with pytest.raises(TypeError, match=r"^\w+: got .*float64; want integers or truth values"):
        f(tg.Tensor([1.0]))


def test_gradients_share_no_memory():
    a, b, c = (tg.Tensor(np.ones((2, 3)), requires_grad=True) for _ in range(3))
    cotangent = np.ones((2, 3))
    y = tg.transpose(tg.transpose(a + b)) - 0 * c + c.reshape(3, 2).reshape(2, 3)
    y.backward(cotangent)
    arrays = [a.grad, b.grad, c.grad, cotangent, a.data, b.data, c.data]
    for i, one in enumerate(arrays):
        for other in arrays[:i]:
            assert not np.shares_memory(one, other)
    assert all(g.flags.writeable for g in arrays[:3])


def test_assignment_makes_a_new_node_and_is_differentiable():
    x, v = (tg.Tensor([1.0, 2.0, 3.0], requires_grad=True) for _ in range(2))
    y = x * 2
    before = y * y
    y[1:] = v[1:] * 5
    y += v
    (before.sum() + y.sum()).backward()
    np.testing.assert_array_equal(x.grad, [8 + 2, 16, 24])
    np.testing.assert_array_equal(v.grad, [1, 6, 6])


def test_a_power_of_0_has_a_derivative_by_the_exponent_in_its_slope():
    # d/da a**b = b a**(b - 1), of which the derivative by b at b = 0 is 1/a.
    mixed = tg.grad(lambda b: tg.grad(lambda a: (a**b).sum())(np.array([2.0])).sum())
    np.testing.assert_allclose(mixed(np.array([0.0])).numpy(), [0.5])
    assert tg.grad(lambda a: (a ** tg.Tensor([0.0, 0.0])).sum())([0.0, 1e-320]).tolist() == [0, 0]
