"""What native code computes in its own way equals what NumPy computes."""

import math
import os
import platform
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.kernels import hw5
from tinygrad_hw.training import step_of

pytest.importorskip("numba")
pytest.importorskip("scipy")

from tinygrad_hw.compile.native import scalars, schedule

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("TINYGRAD_HW_CACHE", str(tmp_path_factory.mktemp("native")))
    # All that has a native rule is native, on every processor.
    patch.setattr("tinygrad_hw.compile.native.schedule.numpy_is_quicker", lambda *_: False)
    yield
    patch.undo()


def native(function):
    return tg.compile(function, backend="numba")


@pytest.mark.parametrize(
    ("f", "exact", "units"),
    [
        (tg.exp, np.exp, 1),
        (tg.expm1, np.expm1, 2),
        (tg.log, np.log, 1),
        (tg.log1p, np.log1p, 2),
        (tg.softplus, lambda x: np.logaddexp(x, 0), 2),
        (tg.tanh, np.tanh, 5),
        (tg.sigmoid, lambda x: 1 / (1 + np.exp(-x)), 3),
        (tg.erf, np.vectorize(math.erf), 6),
    ],
)
def test_functions_of_our_own_for_float32_are_right_everywhere(f, exact, units):
    # Every 4099th number of the dtype: infinities, NaN, zeros and what is too small for a normal
    # number among them.
    bits = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32)
    ends = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 88.72284, -103.97], np.float32)
    x = np.concatenate([bits.view(np.float32), ends])
    with np.errstate(all="ignore"):
        found, wide = native(f)(x), exact(x.astype(float))
        expected = wide.astype(np.float32)
    normal = np.isfinite(expected)
    np.testing.assert_array_equal(found[~normal], expected[~normal])
    unit = np.spacing(np.abs(expected[normal])).astype(float)
    # What is added to 1 may overflow a little earlier than its reciprocal vanishes.
    error = np.abs(found[normal] - wide[normal])
    assert (error <= units * unit + (1e-38 if f is tg.sigmoid else 0)).all()
    if f in (tg.tanh, tg.sigmoid, tg.erf):
        assert np.abs(found[normal]).max() == 1
    if f in (tg.tanh, tg.expm1, tg.log1p):
        np.testing.assert_array_equal(np.signbit(found[normal]), np.signbit(x[normal]))


@pytest.mark.parametrize("size", [63, 64, 95, 2047, 2048, 2090])
def test_an_entry_is_computed_alike_wherever_it_lies(size):
    # Alone, in a vector, or in one of several vectors at a time.
    def function(x):
        once = tg.tanh(x)
        return once, tg.exp(tg.sigmoid(x) - tg.erf(once))

    x = RNG.normal(size=size).astype(np.float32) * 4
    found, turned = native(function)(x), native(function)(x[::-1].copy())
    for a, b, wanted in zip(found, turned, function(x), strict=True):
        np.testing.assert_array_equal(a, b[::-1])
        np.testing.assert_allclose(a, wanted, rtol=2e-6)


DTYPES = "?bhilBHILfd"


def numbers_of(dtype):
    """Each of a dtype's notable numbers beside each, as two arrays."""
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        f = np.finfo(dtype)
        some = [0.0, 0.5, 1, 1.5, 2.5, 3, 100, f.max, f.tiny, f.smallest_subnormal, np.inf]
        some = [np.nan, *some, *(-x for x in some)]
    elif dtype.kind == "b":
        some = [False, True]
    else:
        i = np.iinfo(dtype)
        some = [i.min, i.min + 1, 0, 1, 2, 3, 7, i.max - 1, i.max, *[-1, -2] * (i.min < 0)]
    return [side.ravel() for side in np.meshgrid(*2 * [np.array(some, dtype)])]


@pytest.mark.parametrize("dtype", DTYPES)
def test_functions_of_numpy_at_notable_numbers(dtype):
    from tinygrad_hw.compile.native.scalars import UFUNCS

    def of_all(x, y):
        return [f(*(x, y)[: f.nin]) for f in functions]

    x, y = numbers_of(dtype)
    functions = []
    with np.errstate(all="ignore"):
        for f in UFUNCS:
            # Some are not of this dtype, or not of these numbers.
            with suppress(TypeError, ValueError):
                f(*(x, y)[: f.nin])
                functions.append(f)
        assert len(functions) > 40
        for f, found, expected in zip(functions, native(of_all)(x, y), of_all(x, y), strict=True):
            assert found.dtype == expected.dtype, f
            close = 3e-6 if expected.dtype == np.float32 else 1e-13
            np.testing.assert_allclose(found, expected, rtol=close, atol=0, err_msg=f.__name__)
            if expected.dtype.kind == "f":
                zero = expected == 0
                signs = np.signbit(found[zero]), np.signbit(expected[zero])
                np.testing.assert_array_equal(*signs, err_msg=f.__name__)


@pytest.mark.parametrize("dtype", DTYPES)
def test_conversions_are_those_of_numpy(dtype):
    def into_all(x):
        return [x.astype(wanted) for wanted in DTYPES]

    x, _ = numbers_of(dtype)
    if x.dtype.kind == "f":
        # What no whole number is near to differs from processor to processor, what is negative
        # and becomes unsigned on some.
        x = x[np.abs(x) < 128]
        x = x if platform.machine() in ("x86_64", "AMD64") else np.abs(x)
    for found, expected in zip(native(into_all)(x), into_all(x), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


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
    (20, 5, 45),
    (31, 9, 100),
]


@pytest.mark.parametrize("vectors", [(32, 16), (64, 32)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_many_sizes(dtype, vectors, monkeypatch):
    # Of vectors as wide as those of other processors LLVM makes several of this one's.
    monkeypatch.setattr("tinygrad_hw.compile.native.matrices.vectors", lambda: vectors)
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


STACKS = [
    ((3, 5, 7), (7, 4)),
    ((2, 3, 5, 7), (7, 4)),
    ((5, 7), (3, 7, 4)),
    ((2, 3, 5, 7), (2, 3, 7, 4)),
    ((2, 1, 5, 7), (3, 7, 4)),
    ((3, 1, 7), (3, 7, 1)),
    ((7,), (3, 7, 4)),
    ((3, 5, 7), (7,)),
    ((7,), (7,)),
    ((2, 9, 300), (300, 300)),
]


def straight(factors):
    return [a @ b for a, b in factors]


def turned(factors):
    return [
        np.swapaxes(b, -1, -2) @ np.swapaxes(a, -1, -2) @ (a[..., ::-1] @ b)
        for a, b in factors
        if min(a.ndim, b.ndim) > 1
    ]


@pytest.mark.parametrize("products", [straight, turned])
@pytest.mark.parametrize("threads", [None, 1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_of_stacks_of_matrices(dtype, threads, products, request):
    if threads:
        request.getfixturevalue("crew")(threads)
    factors = [tuple(RNG.normal(size=side).astype(dtype) for side in pair) for pair in STACKS]
    if products is straight:
        factors += [tuple(np.asfortranarray(m) for m in pair) for pair in factors]
    run = native(products)
    found, expected = run(factors), products(factors)
    assert "gemm" in (source := "".join(run._variants[0].executable.sources)) or threads
    assert " product" in source
    assert "packed_product" in source or not threads
    for y, wanted in zip(found, expected, strict=True):
        assert y.dtype == dtype
        close = 1e-5 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(y, wanted, rtol=close, atol=close * np.abs(wanted).max())


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
            # The primitives take several axes too, or all.
            *(tg.ops.primitives()["softmax"](x, axis=a) for a in (None, (0, 2))),
        ]

    compiled = native(shares)
    with np.errstate(all="ignore"):
        for value in (x, special):
            for y, expected in zip(compiled(value), shares(value), strict=True):
                assert y.dtype == dtype
                assert y.shape == expected.shape
                np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [None, 0.0, 0.25])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_and_its_gradient(reduction, smoothing):
    logits, labels = 100 * RNG.normal(size=(6, 4)), RNG.integers(0, 4, 6)
    if not smoothing:
        logits[0, 1 - labels[0] % 2] = -np.inf
    targets = labels if smoothing is None else np.eye(4)[labels] * (1 - smoothing) + smoothing / 4

    def step(x):
        x.grad = None
        loss = tg.softmax_cross_entropy(x, targets, reduction=reduction)
        loss.sum().backward()
        return loss

    eager, compiled = (tg.Tensor(logits, requires_grad=True) for _ in range(2))
    expected, run = step(eager), native(step)
    for _ in range(2):
        loss = run(compiled)
    assert phases(run) == [True]
    np.testing.assert_allclose(loss.numpy(), expected.numpy())
    np.testing.assert_allclose(compiled.grad, eager.grad, atol=1e-12)


def test_a_step_that_begins_an_optimisers_memory_is_not_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path))
    found = []
    for wrap in (native, lambda step: step):
        w = tg.Tensor(np.ones(3), requires_grad=True)
        optimizer = tg.optim.SGD([w], lr=0.1, momentum=0.9)

        def step(x, w=w, optimizer=optimizer):
            optimizer.zero_grad()
            (w * x).sum().backward()
            optimizer.step()

        run = wrap(step)
        for _ in range(3):
            run(np.arange(3.0))
        found.append(w.numpy())
    assert len(list(tmp_path.glob("*.native"))) == 1
    np.testing.assert_allclose(*found)


# --- Constants ------------------------------------------------------------------------------------


def test_a_constant_of_zeros_of_both_signs_is_not_one_number():
    zeros, x = np.array([0.0, -0.0, 0.0]), np.arange(1.0, 4.0)
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(native(lambda x: x / zeros)(x), x / zeros)


def test_truth_values_that_are_the_same_everywhere():
    def function(x):
        some = x > 0
        constants = np.zeros(3, bool), np.ones(3, bool)
        return [f(some, c) for f in (np.logical_and, np.logical_or, np.equal) for c in constants]

    x = np.array([1.0, -1.0, np.nan])
    np.testing.assert_array_equal(native(function)(x), function(x))


# --- Entries that move ----------------------------------------------------------------------------


def phases(run):
    return [phase.native for phase in run._variants[-1].executable.plan.phases]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("f", "wide", "theirs"),
    [
        (lambda x: tg.sin(x) * 2, True, {np.float32, np.float64}),
        (lambda x: tg.sin(x) * 2, False, {np.float32}),
        (lambda x: tg.sigmoid(x) * 2, True, {np.float64}),
        (lambda x: tg.sigmoid(x) * 2, False, set()),
        (lambda x: tg.power(tg.abs(x), 1.5) * 2, True, {np.float32, np.float64}),
        (lambda x: x**5 * 2, True, {np.float32, np.float64}),
        (lambda x: x**3 * tg.abs(x) ** 0.5, True, set()),
    ],
)
def test_what_numpy_is_quicker_with_is_left_to_it_where_there_are_many(
    f, wide, theirs, dtype, monkeypatch
):
    monkeypatch.setattr(schedule, "numpy_is_quicker", scalars.numpy_is_quicker)
    monkeypatch.setattr(hw5, "AVX512", wide)
    for size, many in ((1023, False), (1024, True)):
        x = RNG.normal(size=size).astype(dtype)
        run = native(f)
        for _ in range(2):
            found = run(x)
        np.testing.assert_allclose(found, f(x), rtol=1e-5)
        assert (False in phases(run)) == (many and dtype in theirs)


@pytest.fixture(params=[None, 1, 2])
def maybe_crew(request):
    if request.param:
        request.getfixturevalue("crew")(request.param)


@pytest.mark.parametrize("shape", [(-1,), (4, 6), (6, 1, 4), (2, 12), (4, 2, 3), (1, 24), (24, 1)])
def test_reshaping_what_lies_in_another_order(shape, maybe_crew):
    def reshape(x):
        y, z = tg.exp(x), x.reshape(2, 2, 6)
        return [
            tg.reshape(a, shape)
            for a in (x.T, y.T, x[:, ::-1], z.transpose(2, 0, 1), z.transpose(0, 2, 1))
        ]

    x = RNG.normal(size=(4, 6))
    run = native(reshape)
    for given in (x, np.asfortranarray(x)):
        for found, expected in zip(run(given), reshape(given), strict=True):
            np.testing.assert_allclose(found, expected)


def test_parts_are_joined(maybe_crew):
    parts = [RNG.normal(size=(40, n, 30)).astype(np.float32) for n in (1, 2, 3)]

    def join(parts):
        return [
            tg.concatenate(parts, axis=1),
            tg.concatenate([parts[0], 2 * parts[0]], axis=-1),
            tg.concatenate([parts[1].astype(np.float64), parts[2]], axis=-2),
            tg.concatenate([np.swapaxes(part, 0, 1) for part in parts]),
            tg.stack([parts[1], parts[1] + 1], axis=1),
            tg.concatenate([parts[0] > 0, parts[1] > 0], axis=1),
        ]

    run = native(join)
    run(parts)
    assert phases(run) == [True]
    for found, expected in zip(run(parts), join(parts), strict=True):
        np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize(
    ("kind", "shape", "rest"),
    [
        (np.int64, (5,), ()),
        (np.int32, (2, 3), ()),
        (np.int8, (5,), (2,)),
        (np.uint8, (2, 3), (3, 400)),
    ],
)
def test_rows_are_read_and_their_gradients_added(kind, shape, rest, maybe_crew):
    x = tg.Tensor(RNG.normal(size=(6, *rest)), requires_grad=True)
    low = 0 if kind == np.uint8 else -6
    index = RNG.integers(low, 6, shape).astype(kind)
    weights = RNG.normal(size=(*shape, *rest))

    def read(index):
        x.grad = None
        y = x[index]
        (y * weights).sum().backward()
        return y

    run = native(read)
    for _ in range(2):
        found, gradient = run(index).numpy(), x.grad
    assert phases(run) == [True]
    np.testing.assert_array_equal(found, read(index).numpy())
    np.testing.assert_allclose(gradient, x.grad)
    for outside in (6, -7)[: 1 if kind == np.uint8 else 2]:
        index.flat[-1] = outside
        with pytest.raises(IndexError, match="out of bounds"):
            run(index)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "shape"),
    [
        (2, "same", 1, (9, 12)),
        ((1, 3), "valid", 1, (8, 11)),
        ((3, 2), 1, (1, 2), (10, 9)),
        (2, ((0, 1), (2, 0)), 2, (7, 10)),
        (4, "same", 1, (7, 8)),
    ],
)
def test_convolution_with_strides(stride, padding, dilation, shape, maybe_crew):
    x = tg.Tensor(RNG.normal(size=(5, *shape, 2)), requires_grad=True)
    w = tg.Tensor(RNG.normal(size=(3, 3, 2, 4)), requires_grad=True)

    def gradients(scale):
        x.grad = w.grad = None
        y = tg.conv2d(x * scale, w, stride=stride, padding=padding, dilation=dilation)
        (y * y).sum().backward()
        return y

    run = native(gradients)
    for _ in range(2):
        found, *mine = run(np.array(0.5)).numpy(), x.grad, w.grad
    np.testing.assert_allclose(found, gradients(np.array(0.5)).numpy())
    for mine_, other in zip(mine, (x.grad, w.grad), strict=True):
        np.testing.assert_allclose(mine_, other, atol=1e-12)
    assert phases(run) == [True]


@pytest.mark.parametrize("size", [(1, 1, 9), (2, 3, 1), (3, 5, 7), (3, 3, 12)])
@pytest.mark.parametrize("activation", [tg.relu, tg.tanh, lambda y: y, lambda y: tg.relu(y) * y])
def test_convolution_with_a_bias_and_what_follows(size, activation, maybe_crew):
    height, channels, filters = size
    x = RNG.normal(size=(3, 6, 5, channels))
    x[0, 0, 0, 0], x[1, 5, 4, 0] = np.nan, np.inf
    w = tg.Tensor(RNG.normal(size=(height, 2, channels, filters)), requires_grad=True)
    b = tg.Tensor(RNG.normal(size=filters), requires_grad=True)

    def gradients(x):
        w.grad = b.grad = None
        y = tg.conv2d(x, w, b, padding="same")
        z = activation(y)
        z[1:, 1:4].sum().backward()
        return z

    with np.errstate(invalid="ignore"):
        run = native(gradients)
        for _ in range(2):
            found, *mine = run(x).numpy(), w.grad, b.grad
        np.testing.assert_allclose(found, gradients(x).numpy(), atol=1e-12)
    for mine_, other in zip(mine, (w.grad, b.grad), strict=True):
        np.testing.assert_allclose(mine_, other, atol=1e-12)
    assert phases(run) == [True]


def test_pooling_behind_a_convolution(maybe_crew):
    x, w, b = RNG.normal(size=(4, 8, 6, 2)), RNG.normal(size=(3, 3, 2, 5)), RNG.normal(size=5)

    def slopes(x, w, b):
        def total(w):
            return (tg.max_pool2d(tg.relu(tg.conv2d(x, w, b, padding="same")), 2) ** 3).sum()

        return tg.grad(total)(w), tg.grad(lambda w: (tg.grad(total)(w) ** 2).sum())(w)

    run = native(slopes)
    for _ in range(2):
        found = run(x, w, b)
    for mine, other in zip(found, slopes(x, w, b), strict=True):
        np.testing.assert_allclose(mine.numpy(), other.numpy())
    # What convolves also adds and cuts off.
    assert "relu" not in run._variants[0].executable.explain().split()


def test_gradients_of_images_that_lie_otherwise(maybe_crew):
    x = tg.Tensor(RNG.normal(size=(5, 6, 7, 2)), requires_grad=True)
    w = tg.Tensor(RNG.normal(size=(3, 2, 2, 4)), requires_grad=True)

    def gradients(weights):
        x.grad = w.grad = None
        y = tg.concatenate([tg.conv2d(x, w, padding="same"), x], axis=-1)
        (weights * y).sum().backward()
        return y

    run, weights = native(gradients), RNG.normal(size=(5, 6, 7, 6))
    for _ in range(2):
        run(weights)
        found = x.grad, w.grad
    gradients(weights)
    for mine, other in zip(found, (x.grad, w.grad), strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-12)
    assert phases(run) == [True]


def written(x, *places):
    y = x * 2
    for index, value in places:
        y[index] = value
    return y


@pytest.mark.parametrize(
    "function",
    [
        lambda x: written(x, ((slice(None), 1), 0.5)),
        lambda x: written(x, ((slice(1, 3), slice(None, None, 2), -1), x[:2, :3, 0])),
        lambda x: written(x, ((0, 1, 2), x[1, 1, 1]), (..., x[0])),
        lambda x: written(x, (0, 7), ((slice(None), slice(None, None, -1)), x)),
        lambda x: written(x, *(((..., t), x[..., t] * t) for t in range(60))),
        lambda x: tg.cumsum(x, axis=0),
        lambda x: tg.cumsum(x[:, ::-1], axis=-1) * tg.cumsum(x).reshape(4, 5, 60),
        lambda x: tg.cumsum(x.T, axis=1),
        lambda x: tg.std(x, axis=1),
        lambda x: x / tg.std(x, axis=(0, 2), keepdims=True, correction=1),
        lambda x: tg.std(x * 0 + 1, axis=0) * x,
        lambda x: (
            tg.norm(x, axis=(0, -1), keepdims=True) + tg.norm(x * 0, axis=-1)[..., np.newaxis]
        ),
        lambda x: tg.where(np.any(x > 3, axis=1, keepdims=True), x, 1 - x),
        lambda x: x * np.all(x > -3, axis=(0, 2), keepdims=True),
    ],
)
def test_writing_running_sums_and_deviations(function, maybe_crew):
    x = tg.Tensor(RNG.normal(size=(4, 5, 60)).astype(np.float32), requires_grad=True)

    def gradient(scale):
        x.grad = None
        y = function(tg.exp(x) * scale)
        weights = np.arange(y.size, dtype=np.float32).reshape(y.shape)
        (y * weights).sum().backward()
        return y

    run = native(gradient)
    for _ in range(2):
        found, mine = run(np.float32(0.5)).numpy(), x.grad
    expected = gradient(np.float32(0.5)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mine, x.grad, rtol=1e-4, atol=1e-4 * np.abs(mine).max())
    assert phases(run) == [True]


AT = np.array([[2, 0, -1], [0, 3, 3]], np.int16)


@pytest.mark.parametrize(
    "read",
    [
        lambda x, at: x[:, at],
        lambda x, at: x[..., at],
        lambda x, at: x[:, :, at],
        lambda x, at: x[at, at],
        lambda x, at: x[at, 1],
        lambda x, at: x[:, -1, at],
        lambda x, at: x[at[:, :1], at],
        lambda x, at: x[np.arange(3), at],
        lambda x, at: x[at[0], at[:, :1], at],
        lambda x, at: x[at.T, ..., :],
        lambda x, at: x.T[at[:, ::2], at[:, 1:]],
        lambda x, at: x[1:][:, at[1]],
        lambda x, at: x[np.array([1, 1, -4])],
        lambda x, at: x[at[0, 0] - 1 + np.arange(2)],
        lambda x, at: tg.take(x, at, axis=1),
        lambda x, at: tg.take_along_axis(x, at.reshape(1, 6, 1), axis=1),
        lambda x, at: x[1, 2, 3] * x[-1, 0, 0],
        lambda x, at: x[0, 1] * x[:, 0, 1][:, np.newaxis],
    ],
)
def test_reading_at_positions(read, maybe_crew):
    x, at = tg.Tensor(RNG.normal(size=(4, 4, 4)), requires_grad=True), AT

    def gradient(at):
        x.grad = None
        y = read(tg.exp(x), at)
        (y * np.arange(1.0, y.size + 1).reshape(y.shape)).sum().backward()
        return y

    run = native(gradient)
    for k in range(3):
        found, mine = run(at - (k == 1)).numpy(), x.grad
        np.testing.assert_allclose(found, gradient(at - (k == 1)).numpy())
        np.testing.assert_allclose(mine, x.grad)
    assert phases(run) == [True]
    assert "left to the function" not in run.explain()


@pytest.mark.parametrize("shape", [(), (2,)])
def test_positions_beyond_signed_ones_are_left_to_numpy(shape, maybe_crew):
    x, at = RNG.normal(size=(3, 4)), np.full(shape, 1, np.uint64)
    run = native(lambda x, at: tg.exp(x)[:, at])
    for number in (1, 3, 1):
        np.testing.assert_allclose(run(x, np.full_like(at, number)), np.exp(x)[:, at * 0 + number])
    beyond = np.full_like(at, 2**64 - 1)
    try:
        # At an array NumPy itself reads the last.
        expected = np.exp(x)[:, beyond[()]]
    except OverflowError:
        with pytest.raises(OverflowError):
            run(x, beyond)
    else:
        np.testing.assert_allclose(run(x, beyond), expected)


@pytest.mark.parametrize("axis", [0, -1, (0,), None])
@pytest.mark.parametrize("fold", [tg.norm, tg.sum, tg.max, tg.mean, tg.var, tg.std, np.any])
def test_a_single_number_has_an_axis_as_numpy_has_it(fold, axis):
    x = tg.Tensor(-2.5)
    try:
        expected = fold(x, axis=axis)
    except ValueError as error:
        with pytest.raises(type(error)):
            native(lambda: fold(x, axis=axis) * 2)()
        return
    for backend in ("numpy", "numba"):
        run = tg.compile(lambda: fold(x, axis=axis) * 2, backend=backend)
        for _ in range(2):
            np.testing.assert_allclose(run(), expected * 2)


@pytest.mark.parametrize(
    "index",
    [
        1,
        slice(1, None, 2),
        (slice(None), slice(None, None, -1)),
        (..., None, -1),
        (2, slice(1, 3)),
        ...,
        (),
    ],
    ids=str,
)
def test_gradients_of_views(index, maybe_crew):
    x = tg.Tensor(RNG.normal(size=(40, 5, 30)), requires_grad=True)

    def read(scale):
        x.grad = None
        (tg.exp(x[index]) * scale).sum().backward()

    run = native(read)
    for _ in range(2):
        run(np.array(2.0))
    assert phases(run) == [True]
    found = x.grad
    read(np.array(2.0))
    np.testing.assert_allclose(found, x.grad)


@pytest.mark.parametrize(("size", "stride"), [(2, 2), ((2, 3), (1, 2)), (3, 4), (5, 5)])
def test_means_of_windows(size, stride, maybe_crew):
    x = tg.Tensor(RNG.normal(size=(6, 9, 11, 3)), requires_grad=True)

    def pool(scale):
        x.grad = None
        y = tg.avg_pool2d(x, size, stride)
        (y * y * scale).sum().backward()
        return y

    run = native(pool)
    for _ in range(2):
        found, gradient = run(np.array(2.0)).numpy(), x.grad
    assert (phases(run) == [True]) == (size != 5)
    np.testing.assert_allclose(found, pool(np.array(2.0)).numpy())
    np.testing.assert_allclose(gradient, x.grad)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_spreads_and_sums_of_exponentials(dtype):
    x = RNG.normal(size=(4, 5, 6)).astype(dtype)
    special = x.copy()
    special[0], special[1, 2], special[2, 3, 1], special[3, 0, 0] = -np.inf, -np.inf, np.inf, np.nan

    def spreads(x):
        return [
            *(
                tg.logsumexp(x, axis=a, keepdims=k)
                for a in (0, (1, 2), None)
                for k in (False, True)
            ),
            *(tg.var(x, axis=a, correction=c) for a in (-1, (0, 2), None) for c in (0, 1)),
            np.var(x, axis=1),
            np.sum(x > 0, axis=1),
            np.sum((x > 0).astype(np.int8), axis=(0, 2), keepdims=True),
            *(tg.ops.primitives()["standardize"](x, axis=a, eps=1e-5) for a in ((-1,), (0, 1))),
        ]

    run = native(spreads)
    with np.errstate(all="ignore"):
        for value in (x, special):
            for found, expected in zip(run(value), spreads(value), strict=True):
                assert np.asarray(found).dtype == expected.dtype
                assert np.shape(found) == expected.shape
                np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
    assert phases(run) == [True]


@pytest.mark.parametrize(
    "spec",
    [
        "ij,jk->ik",
        "bhqd,bhkd->bhqk",
        "bqhd,bkhd->bhqk",
        "bhqk,bkhd->bqhd",
        "abij,abkj->kiba",
        "abc,cbd->da",
        "abc,c->ab",
        "i,ij->j",
    ],
)
def test_einsum_is_products_of_stacks(spec):
    sides = {letter: n for n, letter in enumerate(sorted(set(spec) - set(",->")), 2)}
    terms = spec.split("->")[0].split(",")
    operands = [
        tg.Tensor(RNG.normal(size=[sides[c] for c in term]), requires_grad=True) for term in terms
    ]

    def contract(*operands):
        for x in operands:
            x.grad = None
        y = tg.einsum(spec, *operands)
        tg.tanh(y).sum().backward()
        return y

    run = native(contract)
    for _ in range(2):
        found = run(*operands).numpy(), *(x.grad for x in operands)
    if "c->" not in spec and "i," not in spec:
        assert phases(run) == [True]
    expected = contract(*operands).numpy(), *(x.grad for x in operands)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)


def test_steps_that_are_alike_share_a_function():
    x = RNG.normal(size=(50, 8))

    def walk(x):
        for _ in range(5):
            x = tg.tanh(x) @ np.ones((8, 8))
        return x

    run = native(walk)
    np.testing.assert_allclose(run(x), walk(x))
    (source,) = run._variants[0].executable.sources
    assert source.count("def step_") < source.count("step_") / 2


# --- Threads --------------------------------------------------------------------------------------


@pytest.fixture
def crew(monkeypatch):
    """Have every program shared, however small; ``crew(n)`` sets the number of threads."""
    from tinygrad_hw.compile.native import crew, schedule

    monkeypatch.setattr(schedule, "WORTH_THREADS", 0)

    def of_size(size):
        monkeypatch.setattr(crew, "_crew", crew._Crew(size))

    return of_size


def convolve(seed=0):
    rng = np.random.default_rng(seed)
    model = tg.nn.Sequential(
        tg.nn.Conv2d(1, 2, 2, padding="same", rng=rng),
        tg.relu,
        tg.nn.MaxPool2d(2, 1),
        tg.nn.Flatten(),
        tg.nn.Linear(32, 4, rng=rng),
    )
    return model, step_of(model, tg.optim.SGD(model.parameters(), lr=0.1))


def test_threads_give_the_bits_of_one_and_the_numbers_of_eager(crew):
    x = RNG.normal(size=(7, 5, 5, 1)).astype(np.float32)
    labels = RNG.integers(0, 4, 7)
    weights = []
    for size in (1, 2, 3):
        crew(size)
        model, step = convolve()
        run = native(step)
        for _ in range(3):
            run(x, labels)
        weights.append([p.numpy() for p in model.parameters()])
    model, step = convolve()
    for _ in range(3):
        step(x, labels)
    for one, two, three, p in zip(*weights, model.parameters(), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
        np.testing.assert_allclose(one, p.numpy(), rtol=1e-4, atol=1e-6)


def test_threads_do_not_wait_for_each_other_between_steps_of_one(crew):
    crew(2)
    x = RNG.normal(size=(3, 4))

    def several(x):
        y = tg.sum(x @ x.T, axis=0)
        return tg.sum(tg.exp(-y) @ x)

    run = native(several)
    np.testing.assert_allclose(run(x), several(x))
    (source,) = run._variants[0].executable.sources
    # One step has several loops, and at the end of the function all meet once more.
    assert source.count(" step_") > 4
    assert source.count("if me == 0:") == 1
    assert source.count("meet(") == 2


def test_a_long_sum_does_not_depend_on_the_number_of_threads(crew):
    x = RNG.normal(size=40_001)

    def chain(x):
        x.grad = None
        y = (tg.exp(tg.tanh(x)) * tg.tanh(x)).sum()
        y.backward()
        return y

    found = []
    for size in (1, 2, 3):
        crew(size)
        t = tg.Tensor(x, requires_grad=True)
        run = native(chain)
        run(t)
        found.append((run(t).item(), t.grad))
    eager = tg.Tensor(x, requires_grad=True)
    expected = chain(eager).item()
    for sum_, grad in found:
        assert sum_ == found[0][0]
        np.testing.assert_allclose(sum_, expected)
        np.testing.assert_array_equal(grad, found[0][1])
        np.testing.assert_allclose(grad, eager.grad)


def test_a_second_caller_works_alone_while_the_crew_is_busy(crew):
    crew(2)
    x = RNG.normal(size=(30, 40))
    run = [native(lambda x: tg.exp(x) @ x.T) for _ in range(2)]
    expected = np.exp(x) @ x.T
    for f in run:
        np.testing.assert_allclose(f(x), expected)
    wrong = []

    def many(f):
        for _ in range(300):
            if not np.allclose(f(x), expected):
                wrong.append(f)

    threads = [threading.Thread(target=many, args=(f,)) for f in run]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no choice of cores here")
def test_no_thread_leaves_before_the_others_have_looked(crew, request):
    # On one core many wait for their turn while others go on.
    cores = os.sched_getaffinity(0)
    request.addfinalizer(lambda: os.sched_setaffinity(0, cores))
    os.sched_setaffinity(0, {min(cores)})
    crew(4)
    x, index = tg.Tensor(RNG.normal(size=(50, 40))), np.zeros(3, int)
    run = native(lambda index: tg.exp(x)[index])
    leaf = tg.Tensor(RNG.normal(size=(5, 70)), requires_grad=True)

    def rise():
        leaf.grad = None
        (tg.exp(leaf) * (leaf * leaf).sum()).sum().backward()

    # That no gradient is NaN is looked at last, and lies where the sum of squares does.
    rising = native(rise)
    run(index)
    rising()
    expected = np.exp(x.numpy())
    for row in range(50):
        index[0] = 50
        with pytest.raises(IndexError, match="out of bounds"):
            run(index)
        index[0] = row
        np.testing.assert_allclose(run(index).numpy(), expected[index])
        leaf.data[...] = RNG.normal(size=(5, 70))
        for _ in range(20):
            rising()
        found = leaf.grad
        rise()
        np.testing.assert_allclose(found, leaf.grad)


def test_arrays_that_lie_otherwise_are_refitted_for_all_threads(crew):
    crew(2)
    run = native(lambda x, y: tg.tanh(x) * y)
    x, y = RNG.normal(size=(2, 50, 60))
    np.testing.assert_allclose(run(x, y), np.tanh(x) * y)
    np.testing.assert_allclose(run(x[:, ::-1], y), np.tanh(x[:, ::-1]) * y)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_a_crew_of_its_own(crew):
    crew(2)
    run = native(lambda x: tg.exp(x) * x)
    x = RNG.normal(size=3000)
    expected = run(x)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(run(x), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_places_in_the_arena_are_found_in_linear_time():
    from tinygrad_hw.compile.native.backend import Slots

    def seconds(n):
        best = math.inf
        for _ in range(3):
            slots, start = Slots(), time.process_time()
            first = [slots.take(100, t, 2 * n - t) for t in range(n)]
            second = [slots.take(100, t, t) for t in range(n + 1, 2 * n)]
            best = min(best, time.process_time() - start)
            assert first == list(range(n))
            assert len(slots.sizes) == n + 1
            assert len(set(second)) < n
        return best

    # Quadratic growth would make it 64; the bound leaves room for a busy machine.
    assert seconds(8_000) < 30 * seconds(1_000)
