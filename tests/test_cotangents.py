"""Gradients of long arrays, which are computed block by block, and of many choices."""

import functools

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw import blocks, walk

LENGTH = 600_000  # Of float32, more than two megabytes.


def numbers(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def gradient(f, values):
    x = tg.Tensor(values, requires_grad=True)
    f(x).sum().backward()
    return x.grad


@pytest.fixture
def cut(monkeypatch):
    """Which runs of operations were pulled back block by block, and whether that was possible."""
    runs = []

    def watched(run, *args):
        possible = pull_blocks(run, *args)
        runs.append(([node.primitive.name for node in run], possible))
        return possible

    pull_blocks = walk.pull_blocks
    monkeypatch.setattr(walk, "pull_blocks", watched)
    return runs


CHAINS = {
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
def test_the_gradient_of_a_long_array_is_that_of_its_parts(f, cut):
    values = numbers(LENGTH)
    values[::1000] = 0
    parts = [gradient(f, part) for part in np.split(values, 30)]
    assert not cut
    np.testing.assert_array_equal(gradient(f, values), np.concatenate(parts))
    assert all(possible for _, possible in cut)
    handed_on = CHAINS["cotangents handed on"], CHAINS["other dtypes on the way"]
    assert bool(cut) == (f not in handed_on)


def test_what_few_operations_make_is_not_cut(cut):
    for f in (tg.tanh, lambda x: tg.exp(x + x), lambda x: (x - 1.0) * 2.0 + x):
        gradient(f, numbers(LENGTH))
    assert not cut
    gradient(lambda x: tg.gelu(x) * 2.0, numbers(LENGTH))
    assert {"erf", "multiply"} < set(cut[0][0])


def test_blocks_are_what_follows_in_memory_and_make_up_the_array():
    whole = np.empty((6, 100, 1000), np.float32)
    for array in (
        whole,
        whole.T,
        whole.transpose(1, 0, 2),
        whole.reshape(2, -1),
        whole.reshape(1, -1, 1),
        whole.ravel(),
        np.broadcast_to(np.float32(1), (10, 70_000)),
    ):
        counts = np.zeros_like(array, dtype=int)
        for block in blocks.blocks_of(array, array.nbytes):
            assert 0 < array[block].nbytes <= blocks.BLOCK
            counts[block] += 1
            low, high = np.lib.array_utils.byte_bounds(array[block])
            assert high - low <= blocks.BLOCK
        assert (counts == 1).all()


@pytest.mark.parametrize("order", ["C", "F"])
def test_axes_may_lie_in_any_order(order):
    values = numbers(6, 100, 1000)
    lying = gradient(CHAINS["a chain"], np.asarray(values, order=order))
    np.testing.assert_array_equal(lying.ravel(), gradient(CHAINS["a chain"], values.ravel()))


WHOLE = {
    "a number that wants a gradient": lambda x: tg.exp((x - x.mean()) * 0.5) * x,
    "a row that wants a gradient": lambda x: tg.exp(x * x[0] * 0.5) * x,
    "products of matrices": lambda x: tg.exp(tg.tanh(x) @ (x * 0.01)) * x,
    "bounds for each entry": lambda x: tg.exp(tg.clip(x, np.full(x.shape, -1), None) * 0.5) * x,
    "an op along an axis": lambda x: tg.exp(tg.softmax(x)) * x,
    "another dtype beside": lambda x: tg.exp(x) * x + tg.exp(x.astype(np.float64)).astype(x.dtype),
}


@pytest.mark.parametrize("f", WHOLE.values(), ids=WHOLE)
def test_what_does_not_go_entry_by_entry_takes_part(f, cut):
    values = numbers(800, 800) * np.float32(0.1)
    found = gradient(f, values)
    assert cut
    assert all(possible for _, possible in cut)
    exact = gradient(f, values.astype(np.float64))
    np.testing.assert_allclose(found, exact, atol=1e-4 * np.abs(exact).max())


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


def test_rules_of_others_are_applied_to_whole_arrays(monkeypatch):
    limit = tg.primitive(np.positive, name="limit_norm")
    limit.rule(lambda g, y, x: (g / np.sqrt(np.vdot(g, g)),))
    weights = numbers(LENGTH)
    found = gradient(lambda x: limit(x * 2.0) * weights * tg.exp(x * 0), numbers(LENGTH))
    assert np.linalg.norm(found) == pytest.approx(2, rel=1e-2)
    # One in the place of ours that looks like it.
    ours = tg.exp.gradient

    @functools.wraps(ours)
    def limited(g, y, x):
        (h,) = ours(g, y, x)
        return (h / np.sqrt(np.vdot(h, h)),)

    monkeypatch.setattr(tg.exp, "gradient", limited)
    assert np.linalg.norm(gradient(lambda x: tg.exp(tg.abs(x) * 0.5), weights)) == pytest.approx(
        0.5, rel=1e-4
    )


def test_an_array_that_is_added_to_is_nobody_elses(cut):
    x = tg.Tensor(numbers(LENGTH), requires_grad=True)
    y = x * 2.0
    z = (y + x) + tg.tanh(y) * y
    seed = numbers(LENGTH)
    given = seed.copy()
    by_y, by_x = tg.grad(z, [y, x], seed)
    assert cut
    assert all(possible for _, possible in cut)
    np.testing.assert_array_equal(seed, given)
    inner = np.tanh(y.data) + y.data * (1 - np.tanh(y.data) ** 2) + 1
    np.testing.assert_allclose(by_y, seed * inner, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(by_x, seed * (2 * inner + 1), rtol=1e-3, atol=1e-5)
    read_only = np.broadcast_to(np.float32(3), LENGTH)
    np.testing.assert_allclose(tg.grad(z, x, read_only), 3 * (2 * inner + 1), rtol=1e-3, atol=1e-4)


def test_what_becomes_of_another_dtype_is_pulled_back_whole(cut):
    exponents = np.full(LENGTH, 2, np.int8)
    values = numbers(LENGTH)
    found = gradient(lambda x: tg.exp(tg.power(x * 2.0, exponents) * 0.1), values)
    assert not all(possible for _, possible in cut)
    np.testing.assert_allclose(found, 0.8 * values * np.exp(0.4 * values**2), rtol=1e-5)


def test_constants_may_be_arrays_of_other_kinds(tmp_path):
    mapped = np.memmap(tmp_path / "numbers", np.float32, "w+", shape=LENGTH)
    mapped[:] = numbers(LENGTH)
    masked = np.ma.masked_array(numbers(LENGTH))
    for constant in (mapped, masked):
        found = gradient(lambda x, c=constant: tg.tanh(x) * c * tg.exp(x), numbers(LENGTH))
        wanted = gradient(lambda x: tg.tanh(x) * numbers(LENGTH) * tg.exp(x), numbers(LENGTH))
        np.testing.assert_array_equal(found, wanted)


def test_debug_names_the_op_of_a_long_gradient_too():
    values = np.abs(numbers(LENGTH))
    values[1234] = 0
    with (
        tg.debug(),
        pytest.raises(FloatingPointError, match="sqrt: the gradient of argument 0 has"),
        np.errstate(all="ignore"),
    ):
        gradient(lambda x: tg.sqrt(x) * tg.exp(x), values)


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
