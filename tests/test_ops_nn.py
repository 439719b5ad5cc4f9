"""The network ops: against loops, against hw5, and against numerical derivatives."""

from __future__ import annotations

import itertools
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numerical import check_call

import tinygrad_hw as tg
from tinygrad_hw.dispatch import Primitive
from tinygrad_hw.domains import RandomDraw
from tinygrad_hw.kernels import hw5
from tinygrad_hw.ops import conv, losses, nn

PRIMITIVES = {
    value.name: value
    for family in (conv, nn, losses)
    for value in vars(family).values()
    if isinstance(value, Primitive) and value.__module__ == family.__name__
}
rng = np.random.default_rng(0)
START = rng.bit_generator.state


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order():
    rng.bit_generator.state = START


def leaf(*shape, dtype=float):
    return tg.Tensor(rng.standard_normal(shape), requires_grad=True, dtype=dtype)


def gradients(y, xs, cotangent):
    """The engine's gradients of ``sum(y * cotangent)``, as arrays."""
    return [np.asarray(g) for g in tg.grad(y, xs, cotangent)]


# --- Every primitive --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIMITIVES)
def test_derivatives_to_order_three(name):
    primitive = PRIMITIVES[name]
    for seed in range(40):
        args, params = primitive.domain.sample(RandomDraw(seed))
        check_call(primitive, args, params, order=3, seed=seed)


def test_the_primitives_are_those_of_the_design():
    assert set(PRIMITIVES) == {
        "conv", "conv_dx", "conv_dw", "max_pool", "pick", "unpool", "sum_windows",
        "spread_windows", "standardize", "softmax_cross_entropy",
    }  # fmt: skip


# --- hw5 is the kernel or the oracle ----------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 5])
def test_fc_backward_is_the_gradient_of_linear(columns):
    x, w, b = leaf(columns, 4), leaf(4, 3), leaf(3)
    g = rng.standard_normal((columns, 3))
    y = tg.linear(x, w, b)
    dx, dw, db = gradients(y, [x, w, b], g)
    args = (x.numpy().T, w.numpy().T, b.numpy()[:, np.newaxis])
    want_dx, want_dw, want_db = hw5.fc_backward(g.T, *args)
    np.testing.assert_allclose(y.data.T, hw5.fc(*args))
    np.testing.assert_allclose(dx.T, want_dx)
    np.testing.assert_allclose(dw.T, want_dw)
    np.testing.assert_allclose(db[:, np.newaxis], want_db)


def test_relu_backward_is_the_gradient_of_relu():
    x, g = leaf(4, 5), rng.standard_normal((4, 5))
    x.data[0, 0] = 0.0
    np.testing.assert_array_equal(gradients(tg.relu(x), [x], g)[0], hw5.relu_backward(g, x.numpy()))


@pytest.mark.parametrize("lead", [(), (2,)])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "valid"), ((2, 1), (0, 2))])
def test_conv_backward_is_the_gradient_of_conv2d(lead, stride, padding):
    x, w, b = leaf(*lead, 7, 6, 2), leaf(3, 2, 2, 4), leaf(4, 1)
    y = tg.conv2d(x, w, b, stride=stride, padding=padding)
    arrays = x.numpy(), w.numpy(), b.numpy()
    np.testing.assert_array_equal(y.data, hw5.conv(*arrays, stride=stride, padding=padding))
    g = rng.standard_normal(y.shape)
    dw, db = gradients(y, [w, b], g)
    want = hw5.conv_backward(g, *arrays, stride=stride, padding=padding)
    np.testing.assert_allclose(dw, want[0])
    np.testing.assert_allclose(db, want[1])


@pytest.mark.parametrize("size", [2, (3, 2)])
def test_pool2x2_backward_is_the_gradient_of_max_pool2d(size):
    # Whole numbers, so that there are ties.
    x = tg.Tensor(rng.integers(0, 3, (2, 6, 4, 3)).astype(float), requires_grad=True)
    y = tg.max_pool2d(x, size)
    np.testing.assert_array_equal(y.data, hw5.pool2x2(x.numpy(), size=size))
    g = rng.standard_normal(y.shape)
    np.testing.assert_array_equal(
        gradients(y, [x], g)[0], hw5.pool2x2_backward(g, x.numpy(), size=size)
    )


def test_flattening_backward_is_the_gradient_of_reshape():
    x, g = leaf(2, 3, 4), rng.standard_normal((24, 1))
    y = tg.reshape(x, (-1, 1))
    np.testing.assert_array_equal(y.data, hw5.flattening(x.numpy()))
    np.testing.assert_array_equal(gradients(y, [x], g)[0], hw5.flattening_backward(g, x.numpy()))


@pytest.mark.parametrize("columns", [1, 6])
@pytest.mark.parametrize("kind", ["classes", "one-hot", "weights"])
def test_the_loss_of_hw5_is_softmax_cross_entropy(columns, kind):
    x = leaf(10, columns)
    classes = rng.integers(0, 10, columns)
    y = np.eye(10)[:, classes] if kind != "weights" else rng.random((10, columns))
    labels = classes if kind == "classes" else y
    loss = tg.softmax_cross_entropy(x, labels, axis=0, reduction="sum")
    want, want_dx = hw5.loss_cross_entropy_softmax(x.numpy(), y)
    np.testing.assert_allclose(loss.item(), want)
    np.testing.assert_allclose(gradients(loss, [x], None)[0], want_dx, atol=1e-14)


def test_the_whole_cnn_has_the_gradients_of_hw5():
    x, labels = rng.random((5, 14, 14, 1)), rng.integers(0, 10, 5)
    w, b, wf, bf = leaf(3, 3, 1, 3), leaf(3), leaf(147, 10), leaf(10)
    h = tg.max_pool2d(tg.relu(tg.conv2d(x, w, b, padding="same")), 2)
    loss = tg.softmax_cross_entropy(tg.reshape(h, (5, -1)) @ wf + bf, labels)
    grads = gradients(loss, [w, b, wf, bf], None)

    a = hw5.conv(x, w.numpy(), b.numpy()[:, np.newaxis])
    r = hw5.relu(a)
    p = hw5.pool2x2(r)
    f = p.reshape(5, -1).T
    args = f, wf.numpy().T, bf.numpy()[:, np.newaxis]
    want, dy = hw5.loss_cross_entropy_softmax(hw5.fc(*args), np.eye(10)[:, labels])
    df, dwf, dbf = hw5.fc_backward(dy, *args)
    da = hw5.relu_backward(hw5.pool2x2_backward(df.T.reshape(p.shape), r), a)
    dw, db = hw5.conv_backward(da, x, w.numpy(), b.numpy()[:, np.newaxis])
    np.testing.assert_allclose(loss.item(), want / 5)
    for got, wanted in zip(grads, [dw, db[:, 0], dwf.T, dbf[:, 0]], strict=True):
        np.testing.assert_allclose(got, wanted / 5, atol=1e-14)


# --- Convolution ------------------------------------------------------------------------------


def slow_conv(x, w, stride, pads, dilation, groups):
    """Convolution by its definition: x (N, H, W, C1), pads ((top, bottom), (left, right))."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    (h, k, c, c2), (sh, sw), (dh, dw) = w.shape, stride, dilation
    rows = (x.shape[1] - dh * (h - 1) - 1) // sh + 1
    columns = (x.shape[2] - dw * (k - 1) - 1) // sw + 1
    y = np.zeros((len(x), rows, columns, c2))
    for r, q, o in itertools.product(range(rows), range(columns), range(c2)):
        first = o // (c2 // groups) * c
        for i, j in itertools.product(range(h), range(k)):
            seen = x[:, r * sh + i * dh, q * sw + j * dw, first : first + c]
            y[:, r, q, o] += seen @ w[i, j, :, o]
    return y


def same(n, k, stride):
    total = max((-(-n // stride) - 1) * stride + k - n, 0)
    return total // 2, total - total // 2


@st.composite
def convolutions(draw):
    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    size, stride, dilation = pair(1, 4), pair(1, 3), pair(1, 2)
    image = tuple(
        d * (k - 1) + 1 + draw(st.integers(0, 4)) for k, d in zip(size, dilation, strict=True)
    )
    groups = draw(st.integers(1, 3))
    c1, c2 = draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    padding = draw(st.sampled_from(["valid", "same", 1, (0, 2), ((1, 0), (0, 2))]))
    x = (draw(st.integers(1, 2)), *image, c1 * groups)
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x, (*size, c1, c2), window


def spelled_out(x, w, window):
    """The padding as pairs."""
    padding, stride, dilation = window["padding"], window["stride"], window["dilation"]
    if padding == "same":
        reach = [d * (k - 1) + 1 for d, k in zip(dilation, w[:2], strict=True)]
        return tuple(map(same, x[1:3], reach, stride))
    if isinstance(padding, str):
        return (0, 0), (0, 0)
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return tuple((p, p) if isinstance(p, int) else p for p in (rows, columns))


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_conv2d_is_its_definition(call):
    rng = np.random.default_rng(0)
    x_shape, w_shape, window = call
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    pads = spelled_out(x_shape, w_shape, window)
    want = slow_conv(x, w, window["stride"], pads, window["dilation"], window["groups"])
    np.testing.assert_allclose(tg.conv2d(x, w, **window), want, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.data())
def test_conv2d_transpose_is_the_adjoint(call, data):
    rng = np.random.default_rng(0)
    x_shape, w_shape, window = call
    a, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = tg.conv2d(a, w, **window)
    x = rng.standard_normal(y.shape)
    if window["padding"] == "same":
        image = [n * s for n, s in zip(y.shape[1:3], window["stride"], strict=True)]
        extra = (0, 0)
    else:
        pads = spelled_out(x_shape, w_shape, window)
        image = [
            (n - 1) * s - sum(p) + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                y.shape[1:3], window["stride"], pads, window["dilation"], w_shape, strict=False
            )
        ]
        extra = tuple(data.draw(st.integers(0, s - 1)) for s in window["stride"])
    image = [n + e for n, e in zip(image, extra, strict=True)]
    assume(min(image) > 0)
    a = rng.standard_normal((x_shape[0], *image, x_shape[3]))
    back = tg.conv2d_transpose(x, w, output_padding=extra, **window)
    assert back.shape == a.shape
    np.testing.assert_allclose(
        np.vdot(tg.conv2d(a, w, **window), x), np.vdot(a, back), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=25, deadline=None)
@given(convolutions())
def test_the_three_convolutions_are_adjoint(call):
    rng = np.random.default_rng(0)
    x_shape, w_shape, window = call
    x_shape = (*x_shape[:3], w_shape[2])
    window.pop("groups")
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y = conv.conv(x, w, **window)
    g = rng.standard_normal(y.shape)
    want = np.vdot(g, y)
    dx = conv.conv_dx(g, w, shape=x_shape[1:3], **window)
    dw = conv.conv_dw(g, x, size=w_shape[:2], **window)
    np.testing.assert_allclose([np.vdot(dx, x), np.vdot(dw, w)], want, atol=1e-9)


@pytest.mark.parametrize("layer", [tg.conv2d, tg.conv2d_transpose])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_have_derivatives_of_order_three(layer, groups):
    x = rng.standard_normal((2, 4, 3, 4))
    w = rng.standard_normal((2, 3, 4 // groups, 4))
    b = rng.standard_normal(4)
    for stride, padding in [(1, "same"), ((2, 1), ((1, 0), (1, 1)))]:
        window = {"stride": stride, "padding": padding, "groups": groups}
        check_call(layer, (x, w, b), window, order=3)


def test_the_gradient_of_a_bias_is_summed_in_any_layout():
    rng = np.random.default_rng(0)
    v = rng.standard_normal((20, 30, 5))
    laid = [v, np.asfortranarray(v), v.transpose(1, 0, 2).copy().transpose(1, 0, 2)]
    laid += [v[:, ::-1], v[::-1], v[..., ::-1], np.asfortranarray(v)[..., ::-1]]
    laid += [np.broadcast_to(a, (4, *v.shape)) for a in laid]
    laid += [np.broadcast_to(a[:, :1], v.shape) for a in laid[:3]]
    for one in laid:
        b = tg.Tensor(np.zeros(5), requires_grad=True)
        (b + np.zeros(one.shape)).backward(one)
        np.testing.assert_allclose(b.grad, one.sum(axis=tuple(range(one.ndim - 1))), rtol=1e-12)


def test_conv2d_takes_images_without_a_batch_and_with_several_batch_axes():
    x, w = rng.standard_normal((2, 3, 6, 5, 1)), rng.standard_normal((3, 3, 1, 2))
    y = tg.conv2d(x, w, [1.0, 2.0])
    assert y.shape == (2, 3, 4, 3, 2)
    np.testing.assert_allclose(y[1, 2], tg.conv2d(x[1, 2], w, [[1.0], [2.0]]))


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        ((4, 4), (3, 3, 1, 1), {}, r"x is \(4, 4\).*np.newaxis"),
        ((4, 4, 2), (3, 3, 1, 1), {}, r"has 2 channels, w \(3, 3, 1, 1\) takes 1"),
        ((4, 4, 4), (3, 3, 4, 2), {"groups": 2}, "takes 4 in each of 2 groups"),
        ((4, 4, 4), (3, 3, 2, 3), {"groups": 2}, "3 filters do not split"),
        ((4, 4, 1), (5, 5, 1, 1), {}, "larger than the image.*pad more"),
        ((4, 4, 1), (3, 3, 1, 1), {"stride": 0}, "stride is 0"),
        ((4, 4, 1), (3, 3, 1, 1), {"stride": 1.5}, "stride is 1.5"),
        ((4, 4, 1), (3, 3, 1, 1), {"dilation": (1, 2, 3)}, "dilation is"),
        ((4, 4, 1), (3, 3, 1, 1), {"padding": "full"}, "padding is 'full'"),
        ((4, 4, 1), (3, 3, 1, 1), {"padding": -1}, "padding is -1"),
        ((4, 4, 1), (3, 3, 1, 1), {"b": np.zeros(2)}, r"b is \(2,\) for 1 channels"),
    ],
)
def test_conv2d_explains_what_does_not_fit(x, w, options, message):
    with pytest.raises(tg.ShapeError, match=f"(?s){message}"):
        tg.conv2d(leaf(*x), leaf(*w), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 2, "output_padding": 2}, "output_padding"),
        ({"padding": "same", "stride": 2, "output_padding": 1}, "same"),
        ({"padding": 9}, "pad less"),
        ({"b": np.zeros(2)}, "b is"),
    ],
)
def test_conv2d_transpose_explains_what_does_not_fit(options, message):
    with pytest.raises(tg.ShapeError, match=message):
        tg.conv2d_transpose(leaf(4, 4, 2), leaf(3, 3, 1, 2), **options)
    with pytest.raises(tg.ShapeError, match=r"2 channels.* takes 1"):
        tg.conv2d_transpose(leaf(4, 4, 2), leaf(3, 3, 2, 1))


def test_conv2d_keeps_no_large_patches_of_a_small_image_with_a_wide_border():
    w = leaf(3, 3, 1, 1)
    x = np.ones((4, 4, 1))
    tracemalloc.start()
    try:
        y = tg.conv2d(x, w, padding=400)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    # The patches would take nine times as much.
    assert used < 2 * y.data.nbytes


# --- Pooling ----------------------------------------------------------------------------------


@st.composite
def poolings(draw):
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 3), st.integers(1, 3))))
    pads = [(draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in size]
    image = [k + draw(st.integers(0, 4)) for k in size]
    # Few values, so that there are ties.
    seed = draw(st.integers(0, 9))
    x = np.random.default_rng(seed).integers(-3, 3, (2, *image, 2)).astype(float)
    return x, size, stride, tuple(pads)


def slow_pool(x, size, stride, pads, reduce):
    x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.nan)
    (h, k), (sh, sw) = size, size if stride is None else stride
    rows, columns = (x.shape[1] - h) // sh + 1, (x.shape[2] - k) // sw + 1
    y = np.zeros((len(x), rows, columns, x.shape[3]))
    for i, j in itertools.product(range(rows), range(columns)):
        y[:, i, j] = reduce(x[:, i * sh : i * sh + h, j * sw : j * sw + k], axis=(1, 2))
    return y


@settings(max_examples=60, deadline=None)
@given(poolings())
def test_pooling_is_its_definition(call):
    x, *window = call
    np.testing.assert_array_equal(tg.max_pool2d(x, *window), slow_pool(x, *window, np.nanmax))
    np.testing.assert_allclose(
        tg.avg_pool2d(x, *window), slow_pool(x, *window, np.nanmean), atol=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(poolings())
def test_max_pool2d_sends_the_gradient_to_the_first_of_equal_entries(call):
    x, size, stride, pads = call
    t = tg.Tensor(x, requires_grad=True)
    y = tg.max_pool2d(t, size, stride, pads)
    g = np.random.default_rng(0).standard_normal(y.shape)
    # Earlier entries a little larger: the same winners, and no ties.
    slope = np.arange(x[0, ..., 0].size).reshape(x.shape[1:3])[:, :, np.newaxis] * 1e-6
    untied = tg.Tensor(x - slope, requires_grad=True)
    want = gradients(tg.max_pool2d(untied, size, stride, pads), [untied], g)[0]
    np.testing.assert_array_equal(gradients(y, [t], g)[0], want)
    np.testing.assert_allclose(want.sum(), g.sum(), atol=1e-12)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
@pytest.mark.parametrize("padding", ["valid", "same", ((1, 0), (0, 1))])
def test_pooling_has_derivatives_of_order_three(pool, padding):
    x = rng.permutation(np.arange(60.0)).reshape(2, 5, 3, 2) / 8
    params = {"size": (3, 2), "stride": (2, 1), "padding": padding}
    check_call(pool, (x,), params, order=3)


@pytest.mark.parametrize("pool", [tg.max_pool2d, tg.avg_pool2d])
def test_pooling_explains_what_does_not_fit(pool):
    with pytest.raises(tg.ShapeError, match=r"np\.newaxis"):
        pool(leaf(4, 4), 2)
    with pytest.raises(ValueError, match="larger than the image"):
        pool(leaf(4, 4, 1), 5)
    with pytest.raises(tg.ShapeError, match=r"_pool2d.*larger than the image"):
        pool(leaf(4, 4, 1), 7, padding=1)
    with pytest.raises(tg.ShapeError, match="narrower than a window"):
        pool(leaf(4, 4, 1), 2, padding=2)
    with pytest.raises(tg.ShapeError, match="size is 0"):
        pool(leaf(4, 4, 1), 0)


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, 200), (np.int8, -100), (bool, 1)])
def test_means_of_windows_of_whole_numbers_do_not_wrap_around(dtype, value, padding):
    image = np.full((4, 4, 1), value, dtype)
    assert (tg.avg_pool2d(image, 2, padding=padding) == value).all()
    pooled = tg.avg_pool2d(tg.Tensor(image), 2, padding=padding)
    assert (pooled.numpy() == value).all()
    assert pooled.dtype == float


LOSSES_OF_WHOLE_NUMBERS = {
    "softmax_cross_entropy": (tg.softmax_cross_entropy, [[1, 200], [3, 4]], [0, 1]),
    "nll_loss": (tg.nll_loss, [[1, 200], [3, 4]], [0, 1]),
    "mse_loss": (tg.mse_loss, [1, 200], [3, 100]),
    "l1_loss": (tg.l1_loss, [1, 200], [3, 100]),
    "huber_loss": (tg.huber_loss, [1, 200], [3, 100]),
    "bce": (tg.binary_cross_entropy_with_logits, [1, 200], [1, 0]),
    "kl_div": (tg.kl_div, [[1, 200]], [[0, 1]]),
}


@pytest.mark.parametrize("case", LOSSES_OF_WHOLE_NUMBERS)
def test_losses_of_whole_numbers_are_those_of_floats(case):
    loss, predictions, targets = LOSSES_OF_WHOLE_NUMBERS[case]
    expected = loss(np.array(predictions, float), np.array(targets))
    assert loss(np.array(predictions, np.uint8), np.array(targets, np.uint8)) == expected
    assert loss(tg.Tensor(predictions, dtype=np.uint8), targets).item() == expected


def test_pooling_whole_numbers_pads_with_the_smallest():
    x = -np.ones((2, 2, 1), int)
    assert (tg.max_pool2d(x, 3, 1, padding=1) == -1).all()


def test_pooling_truth_values_tells_whether_any_is_true():
    x = np.array([[True, False, False], [False, False, False]])[..., None]
    assert tg.max_pool2d(x, 2, padding="same")[..., 0].tolist() == [[True, False]]
    assert tg.max_pool2d(x, 3, padding=1)[..., 0].tolist() == [[True]]


@pytest.mark.parametrize("backend", [None, "numpy"])
def test_a_window_with_nan_sends_its_gradient_to_the_last_entry(backend):
    def slope(x):
        return tg.grad(tg.max_pool2d(x, 2).sum(), x)

    x = tg.Tensor(np.array([[1.0, np.nan], [3.0, 2.0]])[..., None], requires_grad=True)
    found = (slope if backend is None else tg.compile(slope, backend=backend))(x)
    assert found.numpy()[..., 0].tolist() == [[0, 0], [0, 1]]


# --- Layers -----------------------------------------------------------------------------------


def test_linear_explains_what_does_not_fit():
    with pytest.raises(tg.ShapeError, match=r"pass w\.T"):
        tg.linear(leaf(4, 3), leaf(2, 3))
    with pytest.raises(tg.ShapeError, match=r"b is \(2, 1\)"):
        tg.linear(leaf(4, 3), leaf(3, 2), leaf(2, 1))


def test_batch_norm_in_training_normalises_each_channel():
    x, gamma, beta = (rng.standard_normal(s) * 3 + 1 for s in [(4, 5, 3), (3,), (3,)])
    y = tg.batch_norm(x, training=True, eps=0.0)
    np.testing.assert_allclose(y.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=(0, 1)), 1)
    affine = tg.batch_norm(x, gamma, beta, training=True, eps=0.0)
    np.testing.assert_allclose(affine, y * gamma + beta)
    check_call(tg.batch_norm, (x, gamma, beta), {"training": True, "eps": 0.1}, order=3)


def test_batch_norm_with_the_statistics_of_the_batch_is_training():
    x, gamma, beta = rng.standard_normal((6, 3)), rng.standard_normal(3), rng.standard_normal(3)
    statistics = tg.batch_statistics(tg.Tensor(x))
    np.testing.assert_allclose(
        tg.batch_norm(x, gamma, beta, *statistics),
        tg.batch_norm(x, gamma, beta, training=True),
    )
    check_call(tg.batch_norm, (x, gamma, beta, *statistics), {}, order=3)


def test_batch_norm_explains_what_does_not_fit():
    with pytest.raises(tg.ShapeError, match=r"gamma is \(2,\) for x \(4, 3\); want \(3,\)"):
        tg.batch_norm(leaf(4, 3), leaf(2), training=True)
    with pytest.raises(ValueError, match="running_mean is None"):
        tg.batch_norm(leaf(4, 3))
    with pytest.raises(tg.ShapeError, match="no variance"):
        tg.batch_norm(leaf(1, 3), training=True)


@pytest.mark.parametrize("axis", [-1, (1, 2), (2, -3)])
def test_layer_norm_normalises_over_its_axes(axis):
    x = rng.standard_normal((2, 3, 4)) * 2 + 1
    axes = tuple(sorted(i % 3 for i in np.atleast_1d(axis)))
    weight, bias = (rng.standard_normal([x.shape[i] for i in axes]) for _ in range(2))
    y = tg.layer_norm(x, axis=axis, eps=0.0)
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(axis=axes), 1)
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    np.testing.assert_allclose(
        tg.layer_norm(x, weight, bias, axis=axis, eps=0.0),
        y * weight.reshape(shape) + bias.reshape(shape),
    )
    check_call(tg.layer_norm, (x, weight, bias), {"axis": axis, "eps": 0.1}, order=3)


def test_layer_norm_explains_what_does_not_fit():
    with pytest.raises(tg.ShapeError, match=r"weight is \(3,\).*want \(4,\)"):
        tg.layer_norm(leaf(3, 4), leaf(3))


def test_dropout_keeps_the_mean_and_the_gradient_knows_the_mask():
    x = tg.Tensor(np.ones(20_000), requires_grad=True)
    y = tg.dropout(x, 0.25, rng=1)
    assert set(np.unique(y.data)) == {0.0, 1 / 0.75}
    assert abs(y.data.mean() - 1) < 0.02
    np.testing.assert_array_equal(gradients(y, [x], np.ones(20_000))[0], y.data)
    np.testing.assert_array_equal(tg.dropout(x, 0.25, rng=1).data, y.data)
    generator = np.random.default_rng(1)
    first, second = (tg.dropout(x, 0.25, rng=generator).data for _ in range(2))
    assert (first != second).any()


def test_dropout_is_the_identity_outside_training():
    x = leaf(4)
    np.testing.assert_array_equal(tg.dropout(x, 0.9, training=False).data, x.data)
    np.testing.assert_array_equal(tg.dropout(x, 0.0).data, x.data)
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="p is"):
            tg.dropout(x, p)


def test_embedding_adds_the_gradients_of_repeated_rows():
    table, indices = leaf(5, 2), np.array([[1, 3], [1, 1]])
    y = tg.embedding(indices, table)
    g = rng.standard_normal((2, 2, 2))
    want = np.zeros((5, 2))
    np.add.at(want, indices, g)
    np.testing.assert_array_equal(y.data, table.data[indices])
    np.testing.assert_allclose(gradients(y, [table], g)[0], want)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([0, 5], IndexError, r"index 5 at \(1,\) is out of range; want 0 to 4"),
        ([[-1]], IndexError, r"index -1 at \(0, 0\)"),
        ([0.0], TypeError, "float64; use .astype"),
        ([True], TypeError, "bool"),
    ],
)
def test_embedding_takes_only_rows_of_the_table(indices, error, message):
    with pytest.raises(error, match=message):
        tg.embedding(indices, leaf(5, 2))


def test_one_hot():
    np.testing.assert_array_equal(tg.one_hot([[2], [0]], 3), [[[0, 0, 1]], [[1, 0, 0]]])
    assert tg.one_hot([0], 2, np.float32).dtype == np.float32
    assert isinstance(tg.one_hot(tg.Tensor([0]), 2), tg.Tensor)
    assert tg.one_hot([], 3).shape == (0, 3)
    with pytest.raises(IndexError, match=r"label 3 at \(1,\) is out of range; want 0 to 2"):
        tg.one_hot([0, 3], 3)
    with pytest.raises(TypeError, match=r"one_hot: n is 2\.5; want a whole number"):
        tg.one_hot([0], 2.5)


# --- Losses -----------------------------------------------------------------------------------


def log_softmax(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


REDUCTIONS = {"none": lambda v: v, "sum": np.sum, "mean": np.mean}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_softmax_cross_entropy_of_classes(reduction, dtype):
    x, labels = rng.standard_normal((2, 3, 4)), rng.integers(0, 4, (2, 3)).astype(dtype)
    want = -np.take_along_axis(log_softmax(x), labels[..., np.newaxis].astype(int), -1)[..., 0]
    want = REDUCTIONS[reduction](want)
    for given_labels in (labels, np.eye(4)[labels], np.eye(4, dtype=int)[labels],
                         np.eye(4, dtype=bool)[labels], tg.Tensor(labels)):  # fmt: skip
        loss = np.asarray(tg.softmax_cross_entropy(x, given_labels, reduction=reduction))
        np.testing.assert_allclose(loss, want)
    moved = tg.softmax_cross_entropy(x.transpose(0, 2, 1), labels, axis=1, reduction=reduction)
    np.testing.assert_allclose(moved, want)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_softmax_cross_entropy_smooths_labels(smoothing, reduction):
    x, labels = rng.standard_normal((5, 4)), rng.integers(0, 4, 5)
    target = np.eye(4)[labels] * (1 - smoothing) + smoothing / 4
    want = REDUCTIONS[reduction](-(target * log_softmax(x)).sum(axis=-1))
    params = {"label_smoothing": smoothing, "reduction": reduction}
    for given_labels in (labels, np.eye(4)[labels]):
        np.testing.assert_allclose(tg.softmax_cross_entropy(x, given_labels, **params), want)
    check_call(lambda x, **p: tg.softmax_cross_entropy(x, labels, **p), (x,), params, order=3)
    p = rng.random((5, 4)) + 0.1
    check_call(tg.softmax_cross_entropy, (x, p), params, order=3)


def test_softmax_cross_entropy_neither_overflows_nor_loses_infinite_logits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = tg.Tensor([[1e4, 0.0], [0.0, -np.inf]], requires_grad=True)
        for labels in ([1, 0], [[0.0, 1.0], [1.0, 0.0]]):
            loss = tg.softmax_cross_entropy(x, labels, reduction="none")
            np.testing.assert_array_equal(loss.data, [1e4, 0.0])
            np.testing.assert_array_equal(
                gradients(loss, [x], np.ones(2))[0], [[1.0, -1.0], [0.0, 0.0]]
            )


def test_softmax_cross_entropy_of_tensors_gives_targets_their_gradient():
    x, y = leaf(3, 4), tg.Tensor(rng.random((3, 4)), requires_grad=True)
    loss = tg.softmax_cross_entropy(x, y, reduction="sum")
    np.testing.assert_allclose(gradients(loss, [y], None)[0], -log_softmax(x.data))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1, 4], IndexError, r"label 4 at \(2,\) is out of range; want 0 to 3"),
        ([0, -1, 0], IndexError, r"label -1 at \(1,\)"),
        ([0.0, 1.0, 2.0], TypeError, "whole number.*float64"),
        ([[0], [1], [2]], tg.ShapeError, r"labels\[\.\.\., 0\]"),
        ([0, 1], tg.ShapeError, r"labels are \(2,\) for \(3,\) rows of 4 classes"),
        (np.ones((3, 5)), tg.ShapeError, r"labels are \(3, 5\)"),
        (-np.ones((3, 4)), ValueError, "negative"),
    ],
)
def test_softmax_cross_entropy_takes_only_classes_and_probabilities(labels, error, message):
    with pytest.raises(error, match=message):
        tg.softmax_cross_entropy(leaf(3, 4), labels)


def test_nll_loss_takes_the_entries_of_the_labels():
    x, labels = log_softmax(rng.standard_normal((2, 3, 4))), rng.integers(0, 4, (2, 3))
    for reduction in REDUCTIONS:
        np.testing.assert_allclose(
            tg.nll_loss(x, labels, reduction=reduction),
            REDUCTIONS[reduction](-np.take_along_axis(x, labels[..., np.newaxis], -1)[..., 0]),
        )
    np.testing.assert_allclose(
        tg.nll_loss(np.moveaxis(x, -1, 0), labels, axis=0), tg.nll_loss(x, labels)
    )
    check_call(lambda x: tg.nll_loss(x, labels), (x,), {}, order=2)
    with pytest.raises(IndexError, match="label 9"):
        tg.nll_loss(x, labels + 9 * (labels == labels.max()) - labels * (labels == labels.max()))


def slow_huber(x, t):
    return np.where(abs(x - t) < 0.7, 0.5 * (x - t) ** 2, 0.7 * (abs(x - t) - 0.35))


ELEMENTWISE = {
    "mse_loss": (tg.mse_loss, {}, lambda x, t: (x - t) ** 2),
    "l1_loss": (tg.l1_loss, {}, lambda x, t: abs(x - t)),
    "huber_loss": (tg.huber_loss, {"delta": 0.7}, slow_huber),
    "bce": (
        tg.binary_cross_entropy_with_logits,
        {},
        lambda x, t: -t * np.log(1 / (1 + np.exp(-x))) - (1 - t) * np.log(1 / (1 + np.exp(x))),
    ),
    "bce weighted": (
        tg.binary_cross_entropy_with_logits,
        {"pos_weight": 3.0},
        lambda x, t: -3 * t * np.log(1 / (1 + np.exp(-x))) - (1 - t) * np.log(1 / (1 + np.exp(x))),
    ),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_elementwise_losses(name, reduction):
    loss, params, formula = ELEMENTWISE[name]
    x, t = rng.standard_normal((4, 3)) * 2, rng.random((4, 3)) * 0.8 + 0.1
    params = {**params, "reduction": reduction}
    np.testing.assert_allclose(loss(x, t, **params), REDUCTIONS[reduction](formula(x, t)))
    check_call(loss, (x, t), params, order=3)


@pytest.mark.parametrize(
    "loss",
    [tg.mse_loss, tg.l1_loss, tg.huber_loss, tg.binary_cross_entropy_with_logits, tg.kl_div],
)
def test_losses_never_broadcast_the_target(loss):
    x = leaf(3, 1)
    with pytest.raises(tg.ShapeError, match=r"\(3, 1\).*\(3,\).*equal shapes"):
        loss(x, np.zeros(3))
    with pytest.raises(ValueError, match="reduction is 'average'"):
        loss(x, np.zeros((3, 1)), reduction="average")
    with pytest.raises(tg.ShapeError, match="batch is empty"):
        loss(np.zeros((0, 2)), np.zeros((0, 2)))
    assert loss(np.zeros((0, 2)), np.zeros((0, 2)), reduction="sum") == 0


def test_binary_cross_entropy_neither_overflows_nor_cancels():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss = tg.binary_cross_entropy_with_logits(
            [1e4, -1e4, 50.0], [0, 1, True], reduction="none"
        )
    np.testing.assert_allclose(loss, [1e4, 1e4, np.exp(-50.0)])
    for logit, target in ((20.0, 1), (-20.0, 0)):
        x = tg.Tensor([logit], requires_grad=True, dtype=np.float32)
        loss = tg.binary_cross_entropy_with_logits(x, [target])
        loss.backward()
        # Either is the share of the other class, much less than a rounding of 1.
        np.testing.assert_allclose(loss.item(), np.exp(-20.0), rtol=1e-5)
        np.testing.assert_allclose(abs(x.grad), np.exp(-20.0), rtol=1e-5)
    with pytest.raises(ValueError, match="not in"):
        tg.binary_cross_entropy_with_logits([0.0], [-1])
    for shape in ((2, 1), (2,)):
        with pytest.raises(tg.ShapeError, match=r"pos_weight is .* for logits \(1, 3\); want"):
            tg.binary_cross_entropy_with_logits(
                np.zeros((1, 3)), np.ones((1, 3)), pos_weight=np.ones(shape)
            )
    with pytest.raises(ValueError, match="delta"):
        tg.huber_loss([0.0], [1.0], delta=0)


@pytest.mark.parametrize("axis", [-1, 0])
def test_kl_div_is_zero_of_equal_distributions_and_positive_otherwise(axis):
    p, q = rng.random((4, 3)) + 0.1, rng.random((4, 3)) + 0.1
    p, q = p / p.sum(axis=axis, keepdims=True), q / q.sum(axis=axis, keepdims=True)
    np.testing.assert_allclose(tg.kl_div(np.log(p), p, axis=axis), 0, atol=1e-15)
    want = (p * np.log(p / q)).sum(axis=axis)
    assert (want > 0).all()
    for reduction in REDUCTIONS:
        np.testing.assert_allclose(
            tg.kl_div(np.log(q), p, axis=axis, reduction=reduction), REDUCTIONS[reduction](want)
        )
        params = {"axis": axis, "reduction": reduction}
        check_call(tg.kl_div, (np.log(q), p), params, order=3)


def test_kl_div_takes_zero_log_zero_for_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = tg.Tensor([[np.log(0.5), np.log(0.5), -np.inf]], requires_grad=True)
        t = tg.Tensor([[1.0, 0.0, 0.0]], requires_grad=True)
        loss = tg.kl_div(x, t)
        dx, dt = gradients(loss, [x, t], None)
    np.testing.assert_allclose(loss.item(), np.log(2))
    np.testing.assert_array_equal(dx, [[-1.0, 0.0, 0.0]])
    np.testing.assert_allclose(dt, [[np.log(2) + 1, 0.0, 0.0]])
    with pytest.raises(ValueError, match="negative"):
        tg.kl_div(x, -t.data)


# --- Promises that hold for all ---------------------------------------------------------------

T64, CLASSES = rng.random((2, 4, 4, 2)), np.array([0, 1])
FLOAT32 = {
    "conv2d": lambda x: tg.conv2d(x, np.ones((2, 2, 2, 2), np.float32), np.ones(2, np.float32)),
    "conv2d groups": lambda x: tg.conv2d(x, np.ones((2, 2, 1, 2), np.float32), groups=2),
    "conv2d_transpose": lambda x: tg.conv2d_transpose(x, np.ones((2, 2, 1, 2), np.float32)),
    "max_pool2d": lambda x: tg.max_pool2d(x, 2, padding=1),
    "avg_pool2d": lambda x: tg.avg_pool2d(x, 3, padding=1),
    "avg_pool2d valid": lambda x: tg.avg_pool2d(x, 2),
    "linear": lambda x: tg.linear(x, np.ones((2, 3), np.float32), np.ones(3, np.float32)),
    "batch_norm": lambda x: tg.batch_norm(x, np.ones(2, np.float32), training=True),
    "batch_norm eval": lambda x: tg.batch_norm(x, None, None, *tg.batch_statistics(x)),
    "layer_norm": lambda x: tg.layer_norm(x, np.ones(2, np.float32)),
    "dropout": lambda x: tg.dropout(x, 0.3),
    "embedding": lambda x: tg.embedding([0, 1], tg.reshape(x, (-1, 4))),
    "softmax_cross_entropy": lambda x: tg.softmax_cross_entropy(
        tg.reshape(x, (2, -1)), CLASSES, label_smoothing=0.1
    ),
    "softmax_cross_entropy classes": lambda x: tg.softmax_cross_entropy(
        tg.reshape(x, (2, -1)), CLASSES
    ),
    "softmax_cross_entropy soft": lambda x: tg.softmax_cross_entropy(x, T64),
    "nll_loss": lambda x: tg.nll_loss(tg.reshape(x, (2, -1)), CLASSES),
    "mse_loss": lambda x: tg.mse_loss(x, T64),
    "l1_loss": lambda x: tg.l1_loss(x, T64),
    "huber_loss": lambda x: tg.huber_loss(x, T64, delta=0.5),
    "bce": lambda x: tg.binary_cross_entropy_with_logits(x, T64, pos_weight=[2.0, 3.0]),
    "kl_div": lambda x: tg.kl_div(x, T64),
}


@pytest.mark.parametrize("name", FLOAT32)
def test_float32_stays(name):
    x = leaf(2, 4, 4, 2, dtype=np.float32)
    y = FLOAT32[name](x)
    assert y.dtype == np.float32
    (g,) = gradients(y, [x], np.ones(y.shape))
    assert g.dtype == np.float32
    assert np.asarray(FLOAT32[name](x.data)).dtype == np.float32
    exact = FLOAT32[name](x.data.astype(float)) if name != "dropout" else y.data
    np.testing.assert_allclose(y.data, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FLOAT32)
def test_arrays_give_arrays_and_nothing_is_overwritten(name):
    x = rng.standard_normal((2, 4, 4, 2))
    x.flags.writeable = False
    assert type(FLOAT32[name](x)) is np.ndarray


@pytest.mark.parametrize(
    "layer",
    [
        lambda x: tg.conv2d(x, np.ones((2, 2, 2, 3)), padding=1),
        lambda x: tg.conv2d_transpose(x, np.ones((2, 2, 3, 2))),
        lambda x: tg.max_pool2d(x, 2),
        lambda x: tg.avg_pool2d(x, 2, padding=1),
        lambda x: tg.linear(x, np.ones((2, 3))),
        lambda x: tg.layer_norm(x),
    ],
)
def test_an_empty_batch_gives_an_empty_result(layer):
    x = tg.Tensor(np.zeros((0, 4, 4, 2)), requires_grad=True)
    y = layer(x)
    assert y.shape[0] == 0
    assert gradients(y, [x], np.zeros(y.shape))[0].shape == x.shape
