"""Every primitive of the package: gradients of order 1, 2 and 3, dtypes, and what it declares."""

import math

import numpy as np
import pytest
from numerical import check_call

import tinygrad_hw as tg
from tinygrad_hw.domains import RandomDraw

PRIMITIVES = tg.ops.primitives()
SEEDS = range(12)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_derivatives_of_order_1_to_3(name):
    primitive = PRIMITIVES[name]
    for seed in SEEDS:
        args, params = primitive.domain.sample(RandomDraw(seed))
        order = 3 if max(np.ndim(a) for a in args) == 0 or seed < 3 else 2
        check_call(primitive, args, params, order=order, seed=seed)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_float32_stays_float32(name):
    primitive = PRIMITIVES[name]
    for seed in SEEDS:
        args, params = primitive.domain.sample(RandomDraw(seed))
        if name == "cast":
            params = {"dtype": np.float32}
        tensors = [
            tg.Tensor(np.asarray(a, np.float32), requires_grad=True)
            if np.asarray(a).dtype.kind == "f"
            else a
            for a in args
        ]
        y = primitive(*tensors, **params)
        assert y.dtype == np.float32
        if y.requires_grad:
            y.sum().backward()
        for t in tensors:
            if isinstance(t, tg.Tensor) and t.grad is not None:
                assert t.grad.dtype == np.float32
                assert t.grad.shape == t.shape


@pytest.mark.parametrize("name", PRIMITIVES)
def test_arguments_are_left_alone_and_arrays_give_arrays(name):
    primitive = PRIMITIVES[name]
    for seed in SEEDS:
        args, params = primitive.domain.sample(RandomDraw(seed))
        for arg in args:
            if isinstance(arg, np.ndarray):
                arg.flags.writeable = False
        y = primitive(*args, **params)
        assert type(y) is np.ndarray
        again = primitive(*args, **params)
        np.testing.assert_array_equal(y, again)


@pytest.mark.parametrize(("dtype", "x"), [(np.float64, 1e200), (np.float32, 1e25), ("f2", 300.0)])
@pytest.mark.parametrize(
    ("op", "slope"), [(tg.arcsinh, lambda x: 1 / x), (lambda x: tg.arctan2(x, x), lambda x: 0.0)]
)
def test_slopes_of_numbers_whose_square_overflows(op, slope, dtype, x):
    got = tg.grad(op)(tg.Tensor(x, dtype=dtype)).item()
    np.testing.assert_allclose(got, slope(x), rtol=2e-3)


@pytest.mark.parametrize(
    ("dtype", "b"), [(np.float64, 1e200), (np.float64, 1e-200), (np.float32, 1e-25), ("f2", 300.0)]
)
def test_slopes_of_a_quotient_by_numbers_whose_square_over_or_underflows(dtype, b):
    b = tg.Tensor([b, b], dtype=dtype)
    by_divisor = tg.grad(lambda a, b: (a / b).sum(), 1)
    # The quotients are 1 and 0.
    slopes = by_divisor(b * [1, 0], b).numpy()
    np.testing.assert_allclose(slopes, [-1 / b.numpy()[0], 0], rtol=2e-3)


def test_of_two_that_are_nothing_logaddexp_takes_no_share():
    shares = tg.grad(lambda a, b: tg.logaddexp(a, b).sum(), (0, 1))
    low = -np.inf
    a, b = shares(np.array([low, low, 0.0]), np.array([low, 0.0, 0.0]))
    assert (a.tolist(), b.tolist()) == ([0.0, 0.0, 0.5], [0.0, 1.0, 0.5])
    assert tg.hessian(tg.logaddexp)(np.zeros(()), np.zeros(())).item() == 0.25


@pytest.mark.parametrize(
    ("op", "slope"),
    [
        (tg.arcsin, lambda x: 1 / np.sqrt((1 - x) * (1 + x))),
        (tg.arccos, lambda x: -1 / np.sqrt((1 - x) * (1 + x))),
        (tg.arctanh, lambda x: 1 / ((1 - x) * (1 + x))),
    ],
)
def test_slopes_beside_a_pole_are_exact(op, slope):
    x = np.float32([0.9999, -0.9999])
    np.testing.assert_allclose(
        tg.grad(lambda x: op(x).sum())(x).numpy(), slope(x.astype(float)), rtol=1e-6
    )


def test_a_small_share_of_logaddexp_is_not_lost_beside_the_other():
    slopes = tg.grad(tg.logaddexp, (0, 1))(np.float32(20), np.float32(0))
    np.testing.assert_allclose([s.item() for s in slopes], [1, np.exp(-20.0)], rtol=1e-5)


def test_every_primitive_has_a_domain_a_rule_and_a_name_of_its_own():
    from tinygrad_hw.dispatch import Primitive

    everything = [
        p for family in tg.ops.FAMILIES for p in vars(family).values() if isinstance(p, Primitive)
    ]
    assert len({p.name for p in everything}) == len({id(p) for p in everything})
    for primitive in everything:
        assert primitive.domain is not None, primitive
        assert primitive.gradient is not None, primitive


def test_erf_of_float32_to_six_units():
    x = np.linspace(-5, 5, 20_001, dtype=np.float32)
    exact = np.vectorize(math.erf)(x)
    unit = np.spacing(np.abs(exact).astype(np.float32))
    assert (np.abs(tg.erf(x) - exact) <= 6 * unit).all()
    ends = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0], np.float32)
    np.testing.assert_array_equal(tg.erf(ends), np.array([1, -1, np.nan, 0, 0], np.float32))
    assert np.signbit(tg.erf(ends)[-1])
