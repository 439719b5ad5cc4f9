"""Gradients of long arrays, which are computed block by block, and of many choices."""

import numpy as np
import pytest

import tinygrad_hw as tg

LENGTH = 600_000  # Of float32, more than two megabytes.


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def gradient(f, values):
    x = tg.Tensor(values, requires_grad=True)
    f(x).sum().backward()
    return x.grad


CHAINS = {
    "one op": lambda x: tg.tanh(x),
    "a chain": lambda x: tg.exp(-tg.tanh(x * 0.5)) * x,
    "an input met again and again": lambda x: x * x + x / (x * x + 1) - x,
    "cotangents handed on": lambda x: (x + x) - (x + 1.0),
    "ops that are no ufuncs between": lambda x: tg.sigmoid(x * x) + tg.relu(x - 0.5) * x,
    "constants": lambda x: (np.float32(2) - x) * (x > 0).astype(np.float32) / 3,
    "slopes that are infinite where nothing is asked": lambda x: tg.where(
        x > 0, 3 * tg.sqrt(tg.abs(x)), x
    ),
    "other dtypes on the way": lambda x: (x * x.astype(np.float64) * 2).astype(np.float32) * x,
}


@pytest.mark.parametrize("f", CHAINS.values(), ids=CHAINS)
def test_the_gradient_of_a_long_array_is_that_of_its_parts(f):
    values = numbers(LENGTH)
    values[::1000] = 0
    parts = [gradient(f, part) for part in np.split(values, 30)]
    np.testing.assert_array_equal(gradient(f, values), np.concatenate(parts))


@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_may_lie_in_any_order(order):
    values = numbers(6, 100, 1000)
    lying = gradient(CHAINS["a chain"], np.asarray(values, order=order))
    np.testing.assert_array_equal(lying.ravel(), gradient(CHAINS["a chain"], values.ravel()))


def test_a_number_that_wants_a_gradient_sums_up_those_of_all_entries():
    values = numbers(LENGTH)

    def normalized(x):
        shifted = x - x.mean()
        return (shifted / tg.sqrt((shifted * shifted).mean())) ** 3

    x = tg.Tensor(values, requires_grad=True)
    exact = tg.Tensor(values.astype(np.float64), requires_grad=True)
    normalized(x).mean().backward()
    normalized(exact).mean().backward()
    np.testing.assert_allclose(x.grad, exact.grad, atol=1e-4 * np.abs(exact.grad).max())


def test_intermediate_gradients_and_a_second_walk():
    x = tg.Tensor(numbers(LENGTH), requires_grad=True)
    inner = tg.tanh(x)
    y = (tg.exp(inner) * inner).sum()
    by_inner, by_x = tg.grad(y, [inner, x])
    np.testing.assert_allclose(by_inner, np.exp(inner.data) * (1 + inner.data), atol=1e-6)
    np.testing.assert_allclose(by_x, by_inner * (1 - inner.data**2), atol=1e-6)
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * by_x)


def test_what_is_added_to_keeps_what_was_there():
    x = tg.Tensor(numbers(LENGTH), requires_grad=True)
    seed = numbers(LENGTH)
    given = seed.copy()
    y = -(x * 2.0)
    y.backward(seed, retain_graph=True)
    first = x.grad
    y.backward(seed)
    np.testing.assert_array_equal(seed, given)
    np.testing.assert_array_equal(first, -2 * seed)
    np.testing.assert_array_equal(x.grad, 2 * first)


def test_rules_of_others_are_applied_to_whole_arrays():
    limit = tg.primitive(np.positive, name="limit_norm")
    limit.rule(lambda g, y, x: (g / np.sqrt(np.vdot(g, g)),))
    weights = numbers(LENGTH)
    found = gradient(lambda x: limit(x * 2.0) * weights, numbers(LENGTH))
    assert np.linalg.norm(found) == pytest.approx(2, rel=1e-5)


def test_a_rule_that_returns_too_many_cotangents_says_so_for_long_arrays_too():
    twice = tg.primitive(np.negative, name="twice_given")
    twice.rule(lambda g, y, x: (-g, -g))
    with pytest.raises(TypeError, match="twice_given: its rule returned 2 cotangents for 1 input"):
        gradient(lambda x: twice(twice(x)), numbers(LENGTH))


@pytest.mark.parametrize("f", CHAINS.values(), ids=CHAINS)
def test_a_compiled_gradient_of_a_long_array_is_the_same(f):
    values = numbers(LENGTH)
    run = tg.compile(lambda x: tg.grad(lambda x: f(x).sum())(x), backend="numpy")
    for _ in range(2):
        np.testing.assert_allclose(run(values), gradient(f, values), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_many_choices_are_numpys(dtype):
    values = numbers(2, 10_000).astype(dtype)
    for i, special in enumerate([0.0, -0.0, np.inf, -np.inf, np.nan]):
        values[0, i::10], values[1, i::7] = special, special
    a, b = values
    for condition in (a > 0, b > 2, np.ones(10_000, int), np.array(True)):
        for pair in [(a, b), (a, 0), (0, b), (a, -0.0), (0.0, 1), (a, b[:1]), (a, values[1, :1])]:
            got, wanted = tg.where(condition, *pair), np.where(condition, *pair)
            assert got.dtype == wanted.dtype
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))
