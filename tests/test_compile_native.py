"""What native code computes in its own way equals what NumPy computes."""

import numpy as np
import pytest

import tinygrad_hw as tg

pytest.importorskip("numba")
pytest.importorskip("scipy")

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("TINYGRAD_HW_CACHE", str(tmp_path_factory.mktemp("native")))
    yield
    patch.undo()


def native(function):
    return tg.compile(function, backend="numba")


# Rows, terms and columns: whole tiles, remainders, less than a tile, less than a vector.
SIZES = [
    (32, 196, 30),
    (5, 7, 17),
    (3, 2, 9),
    (1, 4, 16),
    (4, 1, 2),
    (6, 5, 1),
    (2, 3, 5),
    (9, 8, 33),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_many_sizes(dtype):
    factors = [
        (RNG.normal(size=(m, k)).astype(dtype), RNG.normal(size=(k, n)).astype(dtype))
        for m, k, n in SIZES
    ]

    def products(factors):
        straight = [a @ b for a, b in factors]
        turned = [a.T @ y for (a, _), y in zip(factors, straight, strict=True)]
        backwards = [y @ b.T for (_, b), y in zip(factors, straight, strict=True)]
        parts = [a[1:, 1:] @ b[1:, ::-1] for a, b in factors if min(a.shape) > 1]
        return straight + turned + backwards + parts

    found = native(products)(factors)
    for y, expected in zip(found, products(factors), strict=True):
        assert y.dtype == dtype
        close = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(y, expected, rtol=close, atol=close * np.abs(expected).max())


def test_a_product_with_infinity_and_nan():
    a, b = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 20))
    a[1, 2], a[3, 3], b[4, 17] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(native(lambda a, b: a @ b)(a, b), a @ b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes_and_shares_along_axes(dtype):
    x = RNG.normal(size=(4, 5, 3)).astype(dtype)
    special = x.copy()
    special[0, 1], special[1, 2, 0], special[2, 3, 1] = -np.inf, np.nan, np.inf

    def shares(x):
        return [
            *(f(x, axis=a, keepdims=k) for f in (tg.max, tg.min) for a in (0, -1) for k in (0, 1)),
            *(f(x) for f in (tg.max, tg.min)),
            *(f(x, axis=a) for f in (tg.softmax, tg.log_softmax) for a in (0, 1, 2)),
        ]

    compiled = native(shares)
    with np.errstate(all="ignore"):
        for value in (x, special):
            for y, expected in zip(compiled(value), shares(value), strict=True):
                assert y.dtype == dtype
                assert y.shape == expected.shape
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_and_its_gradient(reduction):
    logits, labels = 100 * RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    logits[0, 1 - labels[0] % 2] = -np.inf

    def step(x):
        x.grad = None
        loss = tg.softmax_cross_entropy(x, labels, reduction=reduction)
        loss.sum().backward()
        return loss

    eager, compiled = (tg.Tensor(logits, requires_grad=True) for _ in range(2))
    expected, run = step(eager), native(step)
    for _ in range(2):
        loss = run(compiled)
    np.testing.assert_allclose(loss.numpy(), expected.numpy())
    np.testing.assert_allclose(compiled.grad, eager.grad, atol=1e-12)
