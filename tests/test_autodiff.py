"""grad, value_and_grad, vjp, jvp, jacobian, hessian, hvp: nested, and on containers."""

import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_hw as tg

RNG = np.random.default_rng(0)


def quartic(x):
    return (x**4).sum()


def test_grad_of_a_tensor_keeps_the_container():
    w, b = (tg.Tensor(v, requires_grad=True) for v in ([1.0, 2.0], 3.0))
    y = (w * w).sum() * b
    assert isinstance(tg.grad(y, w), tg.Tensor)
    assert [g.tolist() for g in tg.grad(y, [w, b])] == [[6.0, 12.0], 5.0]
    nested = tg.grad(y, {"w": w, "rest": (b,)})
    assert nested["rest"][0].item() == 5.0


def test_gradients_of_any_order():
    function = tg.sin
    expected = [np.cos, lambda x: -np.sin(x), lambda x: -np.cos(x), np.sin, np.cos]
    for derivative in expected:
        function = tg.grad(function)
        assert function(0.7).item() == pytest.approx(derivative(0.7), rel=1e-12)
    x = tg.Tensor(0.7, requires_grad=True)
    y = x**5
    for coefficient, power in ((5, 4), (20, 3), (60, 2), (120, 1), (120, 0)):
        y = tg.grad(y, x, create_graph=True)
        assert y.item() == pytest.approx(coefficient * 0.7**power, rel=1e-12)


def test_a_mixed_derivative_keeps_no_graph():
    def f(a, b):
        return tg.sin(a * b)

    mixed = tg.grad(tg.grad(f, 0), 1)(0.5, 2.0)
    assert mixed.item() == pytest.approx(np.cos(1) - np.sin(1))
    assert not mixed.requires_grad
    slope, tangent = tg.jvp(tg.grad(f, 0), (0.5, 2.0), (0.0, 1.0))
    assert tangent.item() == pytest.approx(mixed.item())
    assert not slope.requires_grad
    assert not tangent.requires_grad


def test_a_derivative_keeps_the_graph_of_leaves_that_its_function_makes():
    made = []

    def loss(x):
        # As a layer that learns the size of its weights from its first input.
        if not made:
            made.append(tg.Tensor([1.0, 2.0], requires_grad=True))
        return (made[0] * x**2).sum()

    for derivative in (tg.grad, tg.jacobian):
        made.clear()
        (derivative(loss)([3.0, 4.0]) ** 2).sum().backward()
        np.testing.assert_allclose(made[0].grad, [72, 256])
    made.clear()
    value, _ = tg.value_and_grad(loss)([3.0, 4.0])
    value.backward()
    np.testing.assert_array_equal(made[0].grad, [9, 16])


def test_argnums_containers_and_keywords():
    def loss(params, x, *, scale=1.0):
        return ((x @ params["w"] + params["b"][0]) ** 2).sum() * scale

    params = {"w": RNG.standard_normal((3, 2)), "b": [RNG.standard_normal(2)]}
    x = RNG.standard_normal((5, 3))
    g = tg.grad(loss)(params, x, scale=2.0)
    residual = x @ params["w"] + params["b"][0]
    np.testing.assert_allclose(g["w"].numpy(), 4 * x.T @ residual, rtol=1e-12)
    np.testing.assert_allclose(g["b"][0].numpy(), 4 * residual.sum(0), rtol=1e-12)
    both = tg.grad(loss, argnums=(0, 1))(params, x)
    assert isinstance(both, tuple)
    assert tg.grad(loss, (1, 0))(params, x)[0].shape == (5, 3)
    assert tg.grad(loss, -1)(params, x).shape == (5, 3)
    with pytest.raises(ValueError, match="argnums is 2"):
        tg.grad(loss, 2)(params, x)


def test_named_tuples_and_lists_of_numbers():
    class Point(NamedTuple):
        x: object
        y: object

    g = tg.grad(lambda p: p.x * p.y)(Point(2.0, 5.0))
    assert isinstance(g, Point)
    assert (g.x.item(), g.y.item()) == (5.0, 2.0)
    assert tg.grad(lambda v: (v * v).sum())([1, 2]).tolist() == [2.0, 4.0]
    assert [t.item() for t in tg.grad(lambda t: t[0] * t[1])((2.0, 3.0))] == [3.0, 2.0]


def test_value_and_grad_with_aux():
    value, g = tg.value_and_grad(lambda x: (x * x, "aux"), has_aux=True)(3.0)
    assert (value[0].item(), value[1], g.item()) == (9.0, "aux", 6.0)
    value, g = tg.value_and_grad(quartic)([1.0, 2.0])
    assert value.item() == 17.0
    assert not value.requires_grad
    assert not g.requires_grad


def test_aux_comes_without_the_graph():
    f = tg.value_and_grad(lambda x: ((x * x).sum(), {"y": x * 2, "n": 3}), has_aux=True)
    (_, aux), _ = f([1.0, 2.0])
    assert not aux["y"].requires_grad
    assert aux["n"] == 3
    kept = Counter("aab")
    assert tg.value_and_grad(lambda x: ((x * x).sum(), kept), has_aux=True)([1.0])[0][1] is kept


def test_parameters_in_a_closure_get_their_gradients_through_a_derivative():
    # A physics-informed loss: the derivative by x, then by the weights.
    w = tg.Tensor(0.5, requires_grad=True)
    slope = tg.grad(lambda x: tg.sin(w * x))(2.0)
    (slope**2).backward()
    h = 1e-6

    def loss(w):
        return (w * np.cos(2 * w)) ** 2

    assert w.grad == pytest.approx((loss(0.5 + h) - loss(0.5 - h)) / (2 * h), rel=1e-8)


def test_a_constant_function_has_gradient_zero():
    assert tg.grad(lambda x: tg.Tensor(3.0))([1.0, 2.0]).tolist() == [0.0, 0.0]
    assert tg.grad(lambda x: tg.floor(x).sum())([1.5, 2.5]).tolist() == [0.0, 0.0]


def test_vjp_and_jvp_agree_with_the_jacobian():
    a = RNG.standard_normal((3, 4))

    def function(x):
        return tg.tanh(a @ x) * (x * x).sum()

    x, v, u = RNG.standard_normal(4), RNG.standard_normal(4), RNG.standard_normal(3)
    jacobian = tg.jacobian(function)(x).numpy()
    assert jacobian.shape == (3, 4)
    y, pullback = tg.vjp(function, x)
    np.testing.assert_allclose(pullback(u)[0].numpy(), u @ jacobian, rtol=1e-12)
    np.testing.assert_allclose(pullback(2 * u)[0].numpy(), 2 * u @ jacobian, rtol=1e-12)
    out, tangent = tg.jvp(function, (x,), (v,))
    np.testing.assert_allclose(tangent.numpy(), jacobian @ v, rtol=1e-12)
    np.testing.assert_array_equal(out.numpy(), y.numpy())
    assert not tangent.requires_grad


def test_jvp_of_several_arguments_and_outputs():
    def function(a, b):
        return {"product": a * b, "sum": a + 2 * b}

    out, tangent = tg.jvp(function, (2.0, 3.0), (1.0, 10.0))
    assert (out["product"].item(), tangent["product"].item()) == (6.0, 23.0)
    assert tangent["sum"].item() == 21.0
    _, pullback = tg.vjp(function, 2.0, 3.0)
    ga, gb = pullback({"product": 1.0, "sum": 100.0})
    assert (ga.item(), gb.item()) == (103.0, 202.0)


@pytest.mark.parametrize("f", [tg.sqrt, tg.cbrt, lambda x: x**0.5])
def test_a_tangent_grows_infinite_as_a_gradient_does(f):
    slope = tg.jvp(f, (np.zeros(2),), ([1.0, 0.0],))[1]
    assert slope.tolist() == [np.inf, 0.0]

    def opposite(x):
        y = f(x)
        return y, -y

    # Neither from the outputs together, where one cancels the other.
    for outputs in (opposite, lambda x: (f(x), -f(x))):
        assert [t.item() for t in tg.jvp(outputs, 0.0, 1.0)[1]] == [np.inf, -np.inf]


def test_a_hessian_that_is_infinite_times_a_vector():
    at = np.array([0.0, 4.0])
    assert tg.hvp(lambda x: (x**1.5).sum(), at, [1.0, 1.0]).tolist() == [np.inf, 0.375]
    with np.errstate(invalid="ignore"):
        slope = tg.jvp(tg.sqrt, np.array([-1.0, 4.0]), [1.0, 1.0])[1]
        np.testing.assert_array_equal(slope.numpy(), [np.nan, 0.25])
        # But nothing comes from a branch that is not taken.
        taken = tg.jvp(lambda x: tg.where(x > 0, tg.sqrt(x), x), np.array([-1.0, 0.0]), [1.0, 1.0])
    assert taken[1].tolist() == [1.0, 1.0]


def test_a_list_of_numbers_of_numpy_stands_for_an_array_too():
    assert tg.grad(lambda x: (x * x).sum())([np.float32(1), np.float32(2)]).tolist() == [2.0, 4.0]


def test_directions_belong_to_arguments_by_their_keys():
    def f(p):
        return p["a"] ** 2 * p["b"]

    at, turned = {"a": 3.0, "b": 2.0}, {"b": 0.0, "a": 1.0}
    assert tg.jvp(f, (at,), (turned,))[1].item() == 12
    assert {k: v.item() for k, v in tg.hvp(f, at, turned).items()} == {"a": 4, "b": 6}
    _, pullback = tg.vjp(lambda x: {"a": x, "b": x * 2}, 1.0)
    assert pullback({"b": 0.0, "a": 3.0})[0].item() == 3
    with pytest.raises(ValueError, match=r"jvp: .* want a mapping with the keys \['a', 'b'\]"):
        tg.jvp(f, (at,), ({"a": 1.0, "c": 1.0},))
    with pytest.raises(ValueError, match="got a tuple of 1; want a tuple of 2"):
        tg.jvp(tg.multiply, (1.0, 2.0), (1.0,))


def test_hessian_and_hvp():
    a = RNG.standard_normal((4, 4))

    def function(x):
        return tg.exp(a @ x).sum() + (x**3).sum()

    x, v = RNG.standard_normal(4), RNG.standard_normal(4)
    expected = a.T @ np.diag(np.exp(a @ x)) @ a + np.diag(6 * x)
    np.testing.assert_allclose(tg.hessian(function)(x).numpy(), expected, rtol=1e-10)
    np.testing.assert_allclose(tg.hvp(function, x, v).numpy(), expected @ v, rtol=1e-10)
    np.testing.assert_allclose(tg.jacobian(tg.grad(function))(x).numpy(), expected, rtol=1e-10)
    blocks = tg.hessian(lambda p: p["a"] ** 2 * p["b"])({"a": 3.0, "b": 5.0})
    assert blocks["a"]["a"].item() == 10.0
    assert blocks["a"]["b"].item() == blocks["b"]["a"].item() == 6.0
    assert blocks["b"]["b"].item() == 0.0


@given(st.lists(st.integers(-16, 16).map(lambda n: n / 8), min_size=1, max_size=4))
def test_forward_over_reverse_equals_reverse_over_reverse(xs):
    def function(x):
        return (tg.sin(x) * x[0]).sum() + tg.logsumexp(x)

    x = np.array(xs)
    v = np.arange(1.0, len(xs) + 1)
    forward = tg.jvp(tg.grad(function), (x,), (v,))[1].numpy()
    reverse = tg.grad(lambda x: (tg.grad(function)(x) * v).sum())(x).numpy()
    np.testing.assert_allclose(forward, reverse, rtol=1e-10, atol=1e-12)


def test_jvp_inside_grad():
    # d/dx of the directional derivative of x**3 along 1, which is 3 x**2.
    assert tg.grad(lambda x: tg.jvp(lambda z: z**3, (x,), (1.0,))[1])(2.0).item() == 12.0
    w = tg.Tensor(2.0, requires_grad=True)
    tg.jvp(lambda x: w * x**2, (3.0,), (1.0,))[1].backward()
    assert w.grad == 6.0
    # A tangent is an input too.
    assert tg.grad(lambda v: tg.jvp(tg.sin, (0.0,), (v,))[1])(5.0).item() == 1.0


def test_derivatives_under_no_grad_are_computed_but_not_recorded():
    w = tg.Tensor(2.0, requires_grad=True)
    with tg.no_grad():
        g = tg.grad(lambda x: w * x**2)(3.0)
    assert g.item() == 12.0
    assert not g.requires_grad


def test_grad_names_what_it_cannot_do():
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(tg.GraphError, match="no scalar"):
        tg.grad(x * x, x)
    with pytest.raises(tg.GraphError, match="requires_grad=True"):
        tg.grad(x.sum(), tg.Tensor([1.0]))
    with pytest.raises(tg.GraphError, match="jacobian or vjp"):
        tg.grad(lambda x: x * x)([1.0, 2.0])
    with pytest.raises(TypeError, match="want a scalar Tensor"):
        tg.grad(lambda x: 3.0)(1.0)
    with pytest.raises(TypeError, match="dtype"):
        tg.grad(lambda x: x.sum())(np.array([True, False]))
    with pytest.raises(tg.ShapeError, match="direction"):
        tg.jvp(tg.sin, (np.ones(2),), (np.ones(3),))
    with pytest.raises(tg.ShapeError, match="hvp: a direction"):
        tg.hvp(lambda x: (x**3).sum(), np.ones(2), np.ones(3))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: tg.grad(tg.sin, "x")(1.0), TypeError, "grad: argnums is 'x'; want the position"),
        (lambda: tg.grad(tg.sin, 1.0)(1.0), TypeError, "grad: argnums is 1.0; want the position"),
        (lambda: tg.grad(tg.sin, np.ones(2)), TypeError, "at a point it is grad(f)(x)"),
        (lambda: tg.hessian(tg.sin, tg.Tensor(1.0)), TypeError, "at a point it is hessian(f)(x)"),
        (lambda: tg.jacobian(tg.sin, np.ones(2)), TypeError, "at a point it is jacobian(f)(x)"),
        (lambda: tg.grad(tg.sin, ())(1.0), ValueError, "argnums is (), but got 1 positional"),
        (lambda: tg.grad(tg.sin, create_graph=True), TypeError, "grad(grad(f)) for the second"),
        (lambda: tg.grad(tg.sin, 0, 1.0), TypeError, "use vjp with a cotangent"),
        (lambda: tg.grad(tg.add, (0, -2))(1.0, 2.0), ValueError, "names an argument twice"),
        (lambda: tg.grad(tg.Tensor(1.0), argnums=0), TypeError, "are for functions"),
        (lambda: tg.grad(lambda p: p["a"])({"a": 1.0, "b": None}), TypeError, "by a NoneType"),
        (lambda: tg.grad(tg.sin)(tg.nn.Linear(1, 1)), TypeError, "by a Linear; want numbers"),
        (
            lambda: tg.value_and_grad(lambda x: x * np.ones(2), has_aux=True)(1.0),
            TypeError,
            "with has_aux the function returned a Tensor; want a pair",
        ),
    ],
)
def test_a_wrong_call_of_grad_has_its_message(call, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        call()


def test_argnums_may_be_a_number_of_numpys_or_a_range():
    f = lambda x, y: x * y  # noqa: E731
    assert tg.grad(f, np.int64(1))(2.0, 3.0).item() == 2.0
    assert [g.item() for g in tg.grad(f, range(2))(2.0, 3.0)] == [3.0, 2.0]
    assert tg.grad(lambda x: (x * x, "dropped"), has_aux=True)(3.0).item() == 6.0


@pytest.mark.parametrize("argnums", [(0, 1), [0, 1], np.array([0, 1]), range(2)])
def test_several_argnums_come_in_any_container(argnums):
    a, b = tg.grad(lambda a, b: a * b, argnums)(2.0, 3.0)
    assert (a.item(), b.item()) == (3.0, 2.0)
