"""hw5.py against plain loops, complex steps, and the ways in which a student's script uses it."""

from __future__ import annotations

import contextlib
import doctest
import inspect
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import reference_hw5 as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hw5

settings.register_profile(
    "hw5",
    deadline=None,
    max_examples=40,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
quick = settings(settings.get_profile("hw5"))

CLOSE = {"rtol": 1e-7, "atol": 1e-11}
seeds = st.integers(0, 2**32 - 1)
dims = st.integers(1, 5)
layouts = st.permutations(range(3))


def close(actual, wanted):
    assert np.shape(actual) == np.shape(wanted)
    np.testing.assert_allclose(actual, wanted, **CLOSE)


def complex_step(f, x):
    """The gradient of a real function of an array, to the last digit: no difference is taken."""
    gradient = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[at] += 1e-30j
        gradient[at] = f(moved).imag / 1e-30
    return gradient


def central(f, x):
    """The gradient by central differences at three steps, extrapolated twice (Richardson)."""
    gradient = np.zeros(x.shape)
    for at in np.ndindex(x.shape):

        def slope(h, at=at):
            nudge = np.zeros(x.shape)
            nudge[at] = h
            return (f(x + nudge) - f(x - nudge)) / (2 * h)

        steps = [slope(h) for h in (4e-3, 2e-3, 1e-3)]
        once = [(4 * b - a) / 3 for a, b in itertools.pairwise(steps)]
        gradient[at] = (16 * once[1] - once[0]) / 15
    return gradient


def away_from_zero(rng, shape):
    """Values whose size is 0.05 or more: no difference crosses the kink of the ReLU."""
    values = rng.uniform(0.05, 2.0, shape)
    return values * rng.choice([-1.0, 1.0], shape)


def apart(rng, shape):
    """Values no two of which are closer than 0.02: no difference changes a maximum."""
    size = int(np.prod(shape))
    return (rng.permutation(size) * 0.02 - 0.01 * size).reshape(shape)


def laid_out(images, order):
    """The same images with their last three axes in another order in memory."""
    order = [*range(images.ndim - 3), *(images.ndim - 3 + axis for axis in order)]
    return np.ascontiguousarray(images.transpose(order)).transpose(np.argsort(order))


# --- Against the loops and the derivatives ----------------------------------------------------


@quick
@given(n=dims, m=dims, columns=st.integers(1, 3), seed=seeds)
def test_fc(n, m, columns, seed):
    rng = np.random.default_rng(seed)
    x, w, b = (rng.standard_normal(shape) for shape in ((m, columns), (n, m), (n, 1)))
    g = rng.standard_normal((n, columns))
    close(hw5.fc(x, w, b), reference.fc(x, w, b))
    ours = hw5.fc_backward(g, x, w, b)
    steps = (
        complex_step(lambda x: (g * reference.fc(x, w, b)).sum(), x),
        complex_step(lambda w: (g * reference.fc(x, w, b)).sum(), w),
        complex_step(lambda b: (g * reference.fc(x, w, b)).sum(), b),
    )
    differences = (
        central(lambda x: np.vdot(g, hw5.fc(x, w, b)), x),
        central(lambda w: np.vdot(g, hw5.fc(x, w, b)), w),
        central(lambda b: np.vdot(g, hw5.fc(x, w, b)), b),
    )
    for one, loop, step, difference in zip(
        ours, reference.fc_backward(g, x, w, b), steps, differences, strict=True
    ):
        close(one, loop)
        close(one, step)
        np.testing.assert_allclose(one, difference, rtol=1e-7, atol=1e-9)


@quick
@given(shape=st.lists(dims, max_size=4).map(tuple), seed=seeds)
def test_relu(shape, seed):
    rng = np.random.default_rng(seed)
    x, g = away_from_zero(rng, shape), rng.standard_normal(shape)
    close(hw5.relu(x), reference.relu(x))
    close(hw5.relu_backward(g, x), reference.relu_backward(g, x))
    difference = central(lambda x: np.vdot(g, hw5.relu(x)), x)
    np.testing.assert_allclose(hw5.relu_backward(g, x), difference, rtol=1e-7, atol=1e-9)


@quick
@given(m=dims, columns=st.integers(1, 3), hot=st.booleans(), seed=seeds)
def test_loss(m, columns, hot, seed):
    rng = np.random.default_rng(seed)
    x = 3 * rng.standard_normal((m, columns))
    y = rng.uniform(size=(m, columns))
    if hot:
        y = np.eye(m)[:, rng.integers(m, size=columns)]
    loss, dl_dx = hw5.loss_cross_entropy_softmax(x, y)
    loop_loss, loop_dl_dx = reference.loss_cross_entropy_softmax(x, y)
    close(loss, loop_loss)
    close(dl_dx, loop_dl_dx)
    close(dl_dx, complex_step(lambda x: reference.loss_cross_entropy_softmax(x, y)[0], x))
    difference = central(lambda x: hw5.loss_cross_entropy_softmax(x, y)[0], x)
    np.testing.assert_allclose(dl_dx, difference, rtol=1e-7, atol=1e-9)


@st.composite
def convolutions(draw, dilated=False):
    """Arguments and settings of a convolution whose kernel fits the padded image."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2))) if dilated else (1, 1)
    edge = st.tuples(st.integers(0, 2), st.integers(0, 2))
    padding = draw(st.one_of(st.just("same"), st.just("valid"), st.tuples(edge, edge)))
    given_padding = ((0, 0), (0, 0)) if isinstance(padding, str) else padding
    image = [
        draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), 7))
        if padding != "same"
        else draw(st.integers(1, 6))
        for k, d, p in zip(size, dilation, given_padding, strict=True)
    ]
    c1, c2 = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(seeds))
    x = laid_out(rng.standard_normal((*image, c1)), draw(layouts))
    return (
        x,
        rng.standard_normal((*size, c1, c2)),
        rng.standard_normal((c2, 1)),
        {"stride": stride, "padding": padding, "dilation": dilation},
        rng,
    )


@quick
@given(convolutions())
def test_conv(drawn):
    x, w, b, window, rng = drawn
    del window["dilation"]
    y = hw5.conv(x, w, b, **window)
    close(y, reference.conv(x, w, b, **window))
    g = rng.standard_normal(y.shape)
    dl_dw, dl_db = hw5.conv_backward(g, x, w, b, **window)
    loop_dl_dw, loop_dl_db, _ = reference.conv_backward(g, x, w, b, **window)
    close(dl_dw, loop_dl_dw)
    close(dl_db, loop_dl_db)


@settings(quick, max_examples=12)
@given(convolutions())
def test_conv_derivatives(drawn):
    x, w, b, window, rng = drawn
    del window["dilation"]
    g = rng.standard_normal(hw5.conv(x, w, b, **window).shape)
    dl_dw, dl_db = hw5.conv_backward(g, x, w, b, **window)
    dl_dx = hw5.correlate_dx(g, w, shape=x.shape[:2], **window)
    for one, difference in (
        (dl_dw, central(lambda w: np.vdot(g, hw5.conv(x, w, b, **window)), w)),
        (dl_db, central(lambda b: np.vdot(g, hw5.conv(x, w, b, **window)), b)),
        (dl_dx, central(lambda x: np.vdot(g, hw5.conv(x, w, b, **window)), x)),
    ):
        np.testing.assert_allclose(one, difference, rtol=1e-7, atol=1e-9)
    bent = [at for at in np.ndindex(w.shape)][:3]
    for at in bent:
        moved = w.astype(complex)
        moved[at] += 1e-30j
        close(dl_dw[at], (g * reference.conv(x, moved, b, **window)).sum().imag / 1e-30)


# As if rows were long, images large, products too long, weights many, and on another processor.
SIZES = [
    {},
    {"SHORT": 0},
    *({"SHORT": 0, "LARGE": 0, "PART": part} for part in (0, 200, 1000)),
    {"SHORT": 0, "LARGE": 300, "MANY_FILTERS": 0},
    {"SHORT": 0, "AT_ONCE": 30, "AVX512": True},
    {"SHORT": 0, "STACK": 8},
    {"SHORT": 0, "FEW_ENTRIES": 0, "AVX512": True},
    {"SHORT": 0, "FEW_ENTRIES": 0, "AVX512": False},
    {"LARGE": 0},
]


@settings(quick, max_examples=100)
@given(convolutions(dilated=True), st.lists(st.integers(0, 3), max_size=2), st.sampled_from(SIZES))
def test_correlate_is_bilinear_with_its_two_adjoints(drawn, lead, sizes):
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(hw5, name, size)
        check_adjoints(*drawn, lead)


def check_adjoints(x, w, b, window, rng, lead):
    close(hw5.correlate(x, w, **window), reference.conv(x, w, 0 * b, **window))
    x = rng.standard_normal((*lead, *x.shape))
    y = hw5.correlate(x, w, **window)
    g = rng.standard_normal(y.shape)
    dx = hw5.correlate_dx(g, w, shape=x.shape[-3:-1], **window)
    dw = hw5.correlate_dw(g, x, size=w.shape[:2], **window)
    assert (dx.shape, dw.shape) == (x.shape, w.shape)
    inner = np.vdot(y, g)
    scale = 1e-12 * (1 + np.vdot(abs(y), abs(g)))
    assert abs(np.vdot(x, dx) - inner) < scale
    assert abs(np.vdot(w, dw) - inner) < scale


LARGE_IMAGES = [
    # Images as they come, with long rows, with many short rows, of one row, dilated.
    ((64, 32, 32, 8), (3, 3), 8, {}),
    ((300, 40, 40, 3), (3, 3), 2, {}),
    ((1, 20000, 4, 4), (3, 3), 8, {}),
    ((1, 1, 100_000, 8), (1, 5), 8, {}),
    ((4, 256, 64, 8), (9, 3), 8, {"dilation": (16, 1)}),
]


@pytest.mark.parametrize(("shape", "size", "filters", "window"), LARGE_IMAGES)
def test_large_images_are_copied_once_and_multiplied_in_few_parts(
    shape, size, filters, window, monkeypatch
):
    x = np.ones(shape, np.float32)
    w = np.ones((*size, shape[-1], filters), np.float32)
    parts, copies, peaks = [], [], []
    part, contiguous = hw5._patches_at, np.ascontiguousarray
    monkeypatch.setattr(hw5, "_patches_at", lambda *given: parts.append(1) or part(*given))
    monkeypatch.setattr(
        np,
        "ascontiguousarray",
        lambda a: copies.append(a.size >= x.size and not a.flags.c_contiguous) or contiguous(a),
    )
    window = {"padding": "valid", **window}
    met = hw5.windows_on(shape, size, 1, "valid", window.get("dilation", 1))
    nbytes = math.prod((*met.out, *size, shape[0], shape[-1])) * 4
    g = np.ones((shape[0], *met.out, filters), np.float32)
    for compute in (
        lambda: hw5.correlate(x, w, **window),
        lambda: hw5.correlate_dw(g, x, size=size, **window),
        lambda: hw5.correlate_dx(g, w, shape=shape[1:3], **window),
    ):
        tracemalloc.start()
        compute()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert sum(copies) <= 3
    assert len(parts) <= 3 * (1 + 4 * nbytes / hw5.PART)
    assert max(peaks) <= 3 * max(x.nbytes, g.nbytes) + 3 * hw5.LARGE


@quick
@given(convolutions(), st.lists(st.integers(1, 3), min_size=1, max_size=2))
def test_conv_of_a_batch_is_a_loop_over_its_images(drawn, lead):
    x, w, b, window, rng = drawn
    del window["dilation"]
    x = laid_out(rng.standard_normal((*lead, *x.shape)), rng.permutation(3))
    y = hw5.conv(x, w, b, **window)
    g = rng.standard_normal(y.shape)
    dl_dw, dl_db = np.zeros(w.shape), np.zeros(b.shape)
    for at in np.ndindex(*lead):
        close(y[at], hw5.conv(x[at], w, b, **window))
        one_dw, one_db = hw5.conv_backward(g[at], x[at], w, b, **window)
        dl_dw += one_dw
        dl_db += one_db
    for batched, summed in zip(
        hw5.conv_backward(g, x, w, b, **window), (dl_dw, dl_db), strict=True
    ):
        close(batched, summed)


@st.composite
def pools(draw):
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    image = [draw(st.integers(k, 7)) for k in size]
    lead = draw(st.lists(st.integers(1, 2), max_size=2))
    channels = draw(st.integers(1, 3))
    return size, stride, (*lead, *image, channels), draw(layouts), draw(st.booleans()), draw(seeds)


@quick
@given(pools())
def test_pooling_of_any_window(drawn):
    size, stride, shape, order, ties, seed = drawn
    rng = np.random.default_rng(seed)
    x = rng.integers(-1, 2, shape).astype(float) if ties else apart(rng, shape)
    x = laid_out(x, order)
    window = {"size": size, "stride": stride}
    y, winners = hw5.max_pool(x, **window), hw5.pool_winners(x, **window)
    picked = hw5.pool_pick(x, winners, **window)
    g = rng.standard_normal(y.shape)
    dx = hw5.max_unpool(g, winners, shape=shape[-3:-1], **window)
    np.testing.assert_array_equal(hw5.max_pool_dx(g, x, **window), dx)
    for at in np.ndindex(*shape[:-3]):
        loop_y, where, number = reference.pool(x[at], size, stride or size)
        np.testing.assert_array_equal(y[at], loop_y)
        np.testing.assert_array_equal(winners[at], number)
        np.testing.assert_array_equal(picked[at], loop_y)
        close(dx[at], reference.unpool(g[at], where, shape[-3:]))
    other = rng.standard_normal(shape)
    close(np.vdot(hw5.pool_pick(other, winners, **window), g), np.vdot(other, dx))


def test_masks_of_many_taps_are_not_kept():
    winners = np.zeros((8, 49, 49, 8), np.int16)
    g = np.ones(winners.shape, np.float32)
    tracemalloc.start()
    hw5.max_unpool(g, winners, shape=(64, 64), size=16, stride=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * g.nbytes


@settings(quick, max_examples=20)
@given(half=st.tuples(st.integers(1, 3), st.integers(1, 3)), c=dims, seed=seeds)
def test_pool2x2(half, c, seed):
    rng = np.random.default_rng(seed)
    x = apart(rng, (2 * half[0], 2 * half[1], c))
    g = rng.standard_normal((*half, c))
    close(hw5.pool2x2(x), reference.pool2x2(x))
    dl_dx = hw5.pool2x2_backward(g, x)
    close(dl_dx, reference.pool2x2_backward(g, x))
    difference = central(lambda x: np.vdot(g, hw5.pool2x2(x)), x)
    np.testing.assert_allclose(dl_dx, difference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dtype", "efdgiq")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_gradient_of_pooling_in_any_dtype(dtype, stride):
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (2, 6, 7, 2)).astype(dtype)
    y = hw5.max_pool(x, stride=stride)
    g = rng.integers(-9, 9, y.shape).astype(dtype)
    winners = hw5.pool_winners(x, y, stride=stride)
    dx = hw5.max_pool_dx(g, x, y, stride=stride)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(
        dx, hw5.max_unpool(g, winners, shape=(6, 7), stride=stride), strict=True
    )


@pytest.mark.parametrize("dtype", [*"efdi?", ">f4"])
@pytest.mark.parametrize(("n", "avx512"), [(7, False), (7000, False), (7000, True)])
def test_relu_of_few_and_of_many_entries(dtype, n, avx512, monkeypatch):
    monkeypatch.setattr(hw5, "AVX512", avx512)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1.0, -1.0, 0.0])
    special = (special if dtype in "efd" else np.arange(-3, 4)).astype(dtype)
    x = np.resize(special, n)
    y = hw5.relu(x)
    np.testing.assert_array_equal(y, np.resize(np.maximum(special, 0), n), strict=True)


def test_a_pool_window_of_many_entries_counts_beyond_one_byte():
    x = np.zeros((20, 20, 1))
    x[19, 18] = 1
    assert hw5.pool_winners(x, size=20).item() == 398


# --- Edges ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_a_thousand_stay_finite(dtype):
    x = np.array([[1000, -1000], [-1000, 1000], [0, 1000]], dtype)
    y = np.array([[0, 0], [1, 1], [0, 0]], dtype)
    loss, dl_dx = hw5.loss_cross_entropy_softmax(x, y)
    assert loss == pytest.approx(2000 + np.log(2))
    np.testing.assert_array_equal(dl_dx, [[1, 0], [-1, -0.5], [0, 0.5]])


def test_a_class_of_probability_zero_costs_nothing_unless_wanted():
    x, y = np.array([[0.0], [-np.inf]]), np.array([[1.0], [0.0]])
    loss, dl_dx = hw5.loss_cross_entropy_softmax(x, y)
    assert loss == 0
    np.testing.assert_array_equal(dl_dx, [[0], [0]])


@settings(quick, max_examples=20)
@given(seed=seeds, lead=st.lists(st.integers(1, 3), max_size=1))
def test_ties_go_to_the_first_entry_of_a_window_alone(seed, lead):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (*lead, 4, 6, 2)).astype(float)
    dl_dx = hw5.pool2x2_backward(np.ones((*lead, 2, 3, 2)), x)
    windows = dl_dx.reshape(*lead, 2, 2, 3, 2, 2)
    np.testing.assert_array_equal(windows.sum(axis=(-2, -4)), 1)
    for at in np.ndindex(*lead):
        np.testing.assert_array_equal(
            dl_dx[at], reference.pool2x2_backward(np.ones((2, 3, 2)), x[at])
        )


def test_infinite_gradients_do_not_leak_through_closed_gates():
    g = np.full((1, 1, 1), np.inf)
    x = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])
    np.testing.assert_array_equal(
        hw5.pool2x2_backward(g, x)[..., 0], [[0, 0], [0, np.inf]], strict=True
    )
    g = np.array([np.inf, -np.inf, np.nan, -1.0])
    zeros = hw5.relu_backward(g, np.array([-1.0, 0.0, -2.0, -3.0]))
    np.testing.assert_array_equal(zeros, 0)
    assert not np.signbit(zeros).any()


def column(m):
    return (m, 1)


# Each function, the shapes of its arguments in the handout, and the shapes of what it returns.
HANDOUT = {
    "fc": ([(196, 1), (30, 196), (30, 1)], [(30, 1)]),
    "fc_backward": ([(30, 1), (196, 1), (30, 196), (30, 1)], [(196, 1), (30, 196), (30, 1)]),
    "relu": ([(30, 1)], [(30, 1)]),
    "relu_backward": ([(30, 1), (30, 1)], [(30, 1)]),
    "loss_cross_entropy_softmax": ([(10, 1), (10, 1)], [(), (10, 1)]),
    "conv": ([(14, 14, 1), (3, 3, 1, 3), (3, 1)], [(14, 14, 3)]),
    "conv_backward": ([(14, 14, 3), (14, 14, 1), (3, 3, 1, 3), (3, 1)], [(3, 3, 1, 3), (3, 1)]),
    "pool2x2": ([(14, 14, 3)], [(7, 7, 3)]),
    "pool2x2_backward": ([(7, 7, 3), (14, 14, 3)], [(14, 14, 3)]),
    "flattening": ([(7, 7, 3)], [(147, 1)]),
    "flattening_backward": ([(147, 1), (7, 7, 3)], [(7, 7, 3)]),
}
SIGNATURES = {
    "get_mini_batch": "im_train, label_train, batch_size",
    "fc": "x, w, b",
    "fc_backward": "dl_dy, x, w, b",
    "relu": "x",
    "relu_backward": "dl_dy, x",
    "loss_cross_entropy_softmax": "x, y",
    "conv": "x, w_conv, b_conv",
    "conv_backward": "dl_dy, x, w_conv, b_conv",
    "pool2x2": "x",
    "pool2x2_backward": "dl_dy, x",
    "flattening": "x",
    "flattening_backward": "dl_dy, x",
    "train_mlp": "mini_batch_x, mini_batch_y, learning_rate=0.1, decay_rate=0.95, num_iters=10000",
    "train_cnn": "mini_batch_x, mini_batch_y, learning_rate=0.05, decay_rate=0.95, num_iters=10000",
    "infer_mlp": "x, w1, b1, w2, b2",
    "infer_cnn": "x, w_conv, b_conv, w_fc, b_fc",
    "get_MNIST_data": "resource_dir",
    "compute_confusion_matrix_and_accuracy": "pred, label, n_classes",
    "visualize_training_progress": "losses, num_batches",
    "visualize_confusion_matrix": "confusion, accuracy, label_classes",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_positional_arguments_are_the_handouts(name):
    positional = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in inspect.signature(getattr(hw5, name)).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert ", ".join(positional) == SIGNATURES[name]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", HANDOUT)
def test_shapes_dtypes_and_no_harm_to_arguments(name, dtype):
    rng = np.random.default_rng(0)
    shapes, wanted = HANDOUT[name]
    arguments = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    copies = [a.copy() for a in arguments]
    for argument in arguments:
        argument.flags.writeable = False
    results = getattr(hw5, name)(*arguments)
    results = results if isinstance(results, tuple) else (results,)
    assert [np.shape(r) for r in results] == wanted
    for result in results:
        assert np.asarray(result).dtype == dtype
        assert not any(np.shares_memory(result, a) for a in arguments)
        if np.ndim(result):
            result += 1  # A caller may: what comes back is theirs.
    for argument, copy in zip(arguments, copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


def test_kernels_do_not_alias_their_arguments():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 4, 1)), rng.standard_normal((1, 1, 1, 1))
    none = np.zeros((2, 4, 4, 1), np.int8)
    for result in (
        hw5.correlate(x, w),
        hw5.correlate_dx(x, w, shape=(4, 4)),
        hw5.correlate_dw(x, x, size=(1, 1)),
        hw5.max_pool(x, size=1),
        hw5.pool_pick(x, none, size=1),
        hw5.max_unpool(x, none, shape=(4, 4), size=1),
    ):
        assert not np.shares_memory(result, x)
        assert result.flags.writeable


def test_integers_are_welcome():
    x = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    close(hw5.pool2x2(x), reference.pool2x2(x))
    close(
        hw5.pool2x2_backward(np.ones((2, 2, 1), int), x),
        hw5.pool2x2_backward(np.ones((2, 2, 1)), x),
    )
    close(hw5.relu_backward(np.array([3, 4]), np.array([-1, 1])), np.array([0, 4]))
    loss, dl_dx = hw5.loss_cross_entropy_softmax([[0], [0]], [[1], [0]])
    assert loss == pytest.approx(np.log(2))
    close(dl_dx, np.array([[-0.5], [0.5]]))


def test_a_float32_network_stays_float32_under_float64_labels():
    _, dl_dx = hw5.loss_cross_entropy_softmax(np.zeros((10, 2), np.float32), np.eye(10, 2))
    assert dl_dx.dtype == np.float32


# --- A script as a student writes it ----------------------------------------------------------


def small_set(n=11, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(196, n)), rng.integers(0, 10, (1, n)).astype(np.uint8)


def test_one_image_at_a_time_equals_the_batch_mlp():
    xs, ys = hw5.get_mini_batch(*small_set(), 4, rng=1)
    w1, b1, w2, b2, losses = hw5.train_mlp(xs, ys, num_iters=7, rng=5)
    v1, c1, v2, c2, _ = hw5.train_mlp(xs, ys, learning_rate=1e-300, num_iters=1, rng=5)
    for k in range(7):
        x, y = xs[k % len(xs)], ys[k % len(ys)]
        dl_dw1, dl_db1 = np.zeros((30, 196)), np.zeros((30, 1))
        dl_dw2, dl_db2, loss = np.zeros((10, 30)), np.zeros((10, 1)), 0
        for i in range(x.shape[1]):
            image, label = x[:, i].reshape(196, 1), y[:, i].reshape(10, 1)
            a1 = hw5.fc(image, v1, c1)
            f1 = hw5.relu(a1)
            one_loss, dl_dy = hw5.loss_cross_entropy_softmax(hw5.fc(f1, v2, c2), label)
            dl_df1, one_dw2, one_db2 = hw5.fc_backward(dl_dy, f1, v2, c2)
            _, one_dw1, one_db1 = hw5.fc_backward(hw5.relu_backward(dl_df1, a1), image, v1, c1)
            dl_dw1 += one_dw1
            dl_db1 += one_db1
            dl_dw2 += one_dw2
            dl_db2 += one_db2
            loss += one_loss
        close(losses[k, 0], loss / x.shape[1])
        rate = 0.1 / x.shape[1]
        v1, c1 = v1 - rate * dl_dw1, c1 - rate * dl_db1
        v2, c2 = v2 - rate * dl_dw2, c2 - rate * dl_db2
    for ours, theirs in ((w1, v1), (b1, c1), (w2, v2), (b2, c2)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def test_one_image_at_a_time_equals_the_batch_cnn():
    xs, ys = hw5.get_mini_batch(*small_set(), 4, rng=1)
    xs[1] = np.zeros((196, 4))  # Ties in every window.
    w_conv, b_conv, w_fc, b_fc, losses = hw5.train_cnn(xs, ys, num_iters=7, rng=5)
    v_conv, c_conv, v_fc, c_fc, _ = hw5.train_cnn(xs, ys, learning_rate=1e-300, num_iters=1, rng=5)
    for k in range(7):
        x, y = xs[k % len(xs)], ys[k % len(ys)]
        dl_dw_conv, dl_db_conv = np.zeros((3, 3, 1, 3)), np.zeros((3, 1))
        dl_dw_fc, dl_db_fc, loss = np.zeros((10, 147)), np.zeros((10, 1)), 0
        for i in range(x.shape[1]):
            image, label = x[:, i].reshape(14, 14, 1), y[:, i].reshape(10, 1)
            a = hw5.conv(image, v_conv, c_conv)
            f = hw5.relu(a)
            p = hw5.pool2x2(f)
            v = hw5.flattening(p)
            one_loss, dl_dy = hw5.loss_cross_entropy_softmax(hw5.fc(v, v_fc, c_fc), label)
            dl_dv, one_dw_fc, one_db_fc = hw5.fc_backward(dl_dy, v, v_fc, c_fc)
            dl_df = hw5.pool2x2_backward(hw5.flattening_backward(dl_dv, p), f)
            one_dw, one_db = hw5.conv_backward(hw5.relu_backward(dl_df, a), image, v_conv, c_conv)
            dl_dw_conv += one_dw
            dl_db_conv += one_db
            dl_dw_fc += one_dw_fc
            dl_db_fc += one_db_fc
            loss += one_loss
        close(losses[k, 0], loss / x.shape[1])
        rate = 0.05 / x.shape[1]
        v_conv, c_conv = v_conv - rate * dl_dw_conv, c_conv - rate * dl_db_conv
        v_fc, c_fc = v_fc - rate * dl_dw_fc, c_fc - rate * dl_db_fc
    for ours, theirs in ((w_conv, v_conv), (b_conv, c_conv), (w_fc, v_fc), (b_fc, c_fc)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-13)


def test_the_learning_rate_decays_at_every_thousandth_iteration():
    x, y = np.zeros((196, 1)), np.eye(10, 1)
    x[0] = 1
    start = hw5.train_mlp([x], [y], 1e-9, 0.5, 1, rng=0)[3]
    moved = [
        np.abs(hw5.train_mlp([x], [y], 1e-9, 0.5, n, rng=0)[3] - start).max()
        for n in (1001, 2001, 3001)
    ]
    assert (moved[1] - moved[0]) / (moved[2] - moved[1]) == pytest.approx(2, rel=1e-3)


@pytest.mark.parametrize(
    ("train", "shapes"),
    [
        (hw5.train_mlp, [(30, 196), (30, 1), (10, 30), (10, 1), (12, 1)]),
        (hw5.train_cnn, [(3, 3, 1, 3), (3, 1), (10, 147), (10, 1), (12, 1)]),
    ],
)
def test_training_returns_the_handouts_arrays_and_repeats_itself(train, shapes):
    xs, ys = hw5.get_mini_batch(*small_set(), 4, rng=1)
    copies = [x.copy() for x in xs]
    first, second = (train(xs, ys, num_iters=12, rng=3) for _ in range(2))
    assert [a.shape for a in first] == shapes
    for one, two in zip(first, second, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_array_equal(one, two)
    for x, copy in zip(xs, copies, strict=True):
        np.testing.assert_array_equal(x, copy)


def test_infer_gives_the_class_of_one_image_as_an_int():
    rng = np.random.default_rng(0)
    for infer, shape, shapes in (
        (hw5.infer_mlp, (196, 1), [(30, 196), (30, 1), (10, 30), (10, 1)]),
        (hw5.infer_cnn, (14, 14, 1), [(3, 3, 1, 3), (3, 1), (10, 147), (10, 1)]),
    ):
        weights = [rng.standard_normal(s) for s in shapes]
        found = infer(rng.uniform(size=shape), *weights)
        assert type(found) is int
        assert 0 <= found < 10
    mlp = [np.zeros(s) for s in [(30, 196), (30, 1), (10, 30), (10, 1)]]
    with pytest.raises(ValueError, match="one at a time"):
        hw5.infer_mlp(np.zeros((196, 2)), *mlp)


# --- Mini-batches -----------------------------------------------------------------------------


@quick
@given(n=st.integers(1, 40), size=st.integers(1, 50), dtype=st.sampled_from("B f8 i8 f4".split()))
def test_mini_batches_cover_the_set_once_with_images_and_labels_paired(n, size, dtype):
    im_train = np.arange(3 * n, dtype=float).reshape(3, n)
    label = (np.arange(n) % 10)[np.newaxis].astype(dtype)
    xs, ys = hw5.get_mini_batch(im_train, label, np.int64(size), rng=n)
    assert type(xs) is list
    assert type(ys) is list
    wanted = [size] * (n // size) + [n % size] * (n % size > 0)
    assert [x.shape for x in xs] == [(3, r) for r in wanted]
    assert [y.shape for y in ys] == [(10, r) for r in wanted]
    order = np.concatenate(xs, axis=1)[0].astype(int)
    assert sorted(order) == list(range(n))
    for batches, loops in zip(
        (xs, ys), reference.get_mini_batch(im_train, label, size, order), strict=True
    ):
        for batch, loop in zip(batches, loops, strict=True):
            np.testing.assert_array_equal(batch, loop)


def test_mini_batches_are_shuffled_copies():
    im_train, label = small_set(200)
    firsts = [hw5.get_mini_batch(im_train, label, 200)[0][0] for _ in range(2)]
    assert not np.array_equal(*firsts)
    assert not np.shares_memory(firsts[0], im_train)


# --- Bad input --------------------------------------------------------------------------------

z = np.zeros
BAD = [
    ("get_mini_batch", (z((5, 14, 14)), z((1, 5)), 2), r"\(5, 14, 14\).*reshape\(\(-1, 196\)\)\.T"),
    ("get_mini_batch", (z(196), z((1, 1)), 2), r"\(196,\).*want \(196, N\)"),
    ("get_mini_batch", (z((196, 5)), z((5, 1)), 2), r"\(5, 1\).*\(1, 5\).*label_train\.T"),
    ("get_mini_batch", (z((196, 5)), z(5), 2), r"\(5,\).*want labels \(1, 5\)"),
    ("get_mini_batch", (z((5, 196)), z((1, 5)), 2), r"196 images; want labels \(1, 196\)"),
    ("get_mini_batch", (z((196, 0)), z((1, 0)), 2), "empty"),
    ("get_mini_batch", (z((196, 2)), [[3, 10]], 2), "label 10 is no class; want .* 0 to 9"),
    ("get_mini_batch", (z((196, 2)), [[3, -1]], 2), "label -1 is no class"),
    ("get_mini_batch", (z((196, 2)), [[3, 0.5]], 2), "label 0.5 is no class"),
    ("get_mini_batch", (z((196, 2)), [[3, np.nan]], 2), "label nan is no class"),
    ("get_mini_batch", (z((196, 2)), [["a", "b"]], 2), "label_train .* want numbers"),
    ("get_mini_batch", (None, [[1, 2]], 2), "im_train is NoneType .* want numbers"),
    ("get_mini_batch", ([[1], [2, 3]], [[1, 2]], 2), "im_train is no array"),
    *(
        (
            "get_mini_batch",
            (z((196, 2)), z((1, 2)), size),
            rf"batch_size is {re.escape(repr(size))}",
        )
        for size in (0, -3, 2.0, 1.5, True, None, "2", np.nan)
    ),
    ("fc", (z(196), z((30, 196)), z((30, 1))), r"x has the shape \(196,\).*x\.reshape\(-1, 1\)"),
    ("fc", (z((196, 1)), z((196, 30)), z((30, 1))), r"w has the shape \(196, 30\).*use w\.T"),
    ("fc", (z((196, 1)), z((30, 195)), z((30, 1))), r"\(30, 195\).*want w \(n, 196\)"),
    ("fc", (z((196, 1)), z(196), z((30, 1))), r"w has the shape \(196,\)"),
    ("fc", (z((196, 1)), z((30, 196)), z(30)), r"b has the shape \(30,\).*b\.reshape\(-1, 1\)"),
    ("fc", (z((196, 1)), z((30, 196)), z((1, 30))), r"b has the shape \(1, 30\); want \(30, 1\)"),
    ("fc", (z((196, 1)), None, z((30, 1))), "w is NoneType"),
    ("fc", ("image", z((30, 196)), z((30, 1))), "x is str"),
    ("fc_backward", (z(2), z((3, 1)), z((2, 3)), z((2, 1))), r"dl_dy.*dl_dy\.reshape\(-1, 1\)"),
    ("fc_backward", (z((1, 2)), z((3, 1)), z((2, 3)), z((2, 1))), r"dl_dy.*want \(2, 1\)"),
    ("fc_backward", (z((2, 1)), z(3), z((2, 3)), z((2, 1))), r"x\.reshape\(-1, 1\)"),
    ("fc_backward", (z((2, 1)), z((3, 1)), z((2, 3)), None), "b is NoneType"),
    ("relu", (None,), "x is NoneType"),
    ("relu", (["a"],), "x is list of <U1; want numbers"),
    ("relu", ([[1], [2, 3]],), "x is no array"),
    ("relu_backward", (z((1, 3)), z((3, 1))), r"dl_dy has the shape \(1, 3\); want \(3, 1\)"),
    ("relu_backward", (z(3), z((3, 1))), r"dl_dy\.reshape\(-1, 1\)"),
    ("relu_backward", (None, z(3)), "dl_dy is NoneType"),
    ("loss_cross_entropy_softmax", (z(10), z(10)), r"x has the shape \(10,\).*x\.reshape\(-1, 1\)"),
    ("loss_cross_entropy_softmax", (z((10, 1)), z(10)), r"y\.reshape\(-1, 1\)"),
    ("loss_cross_entropy_softmax", (z((10, 2)), z((10, 1))), r"y has .*want \(10, 2\)"),
    ("loss_cross_entropy_softmax", (z((0, 1)), z((0, 1))), r"\(0, 1\); want a column"),
    ("loss_cross_entropy_softmax", (z((2, 1)), None), "y is NoneType"),
    ("conv", (z((14, 14)), z((3, 3, 1, 3)), z((3, 1))), r"x\[:, :, np\.newaxis\]"),
    ("conv", (z((14, 14, 2)), z((3, 3, 1, 3)), z((3, 1))), r"want \(h, w, 2, C2\)"),
    ("conv", (z((14, 14, 1)), z((3, 3, 3)), z((3, 1))), r"w_conv has the shape \(3, 3, 3\)"),
    ("conv", (z((14, 14, 1)), z((3, 3, 1, 3)), z(3)), r"b_conv\.reshape\(-1, 1\)"),
    ("conv", (z((0, 14, 1)), z((3, 3, 1, 3)), z((3, 1))), r"\(0, 14, 1\); want \(H, W, C\)"),
    ("conv", (z((14, 14, 1)), z((3, 3, 1, 3)), None), "b_conv is NoneType"),
    ("conv_backward", (z((14, 14, 1)), z((14, 14, 1)), z((3, 3, 1, 3)), z((3, 1))), r"14, 14, 3"),
    ("conv_backward", (z((14, 14, 3)), z((14, 14)), z((3, 3, 1, 3)), z((3, 1))), "newaxis"),
    ("conv_backward", (z((14, 14, 3)), z((14, 14, 1)), z((3, 3, 1, 3)), z(3)), "reshape"),
    ("conv_backward", (None, z((14, 14, 1)), z((3, 3, 1, 3)), z((3, 1))), "dl_dy is NoneType"),
    ("pool2x2", (z((7, 7, 3)),), r"\(7, 7, 3\); want H a multiple of 2 and W of 2"),
    ("pool2x2", (z((14, 14)),), r"x\[:, :, np\.newaxis\]"),
    ("pool2x2", (z((0, 2, 1)),), r"\(0, 2, 1\)"),
    ("pool2x2", (None,), "x is NoneType"),
    ("pool2x2_backward", (z((14, 14, 3)), z((14, 14, 3))), r"dl_dy has .*want \(7, 7, 3\)"),
    ("pool2x2_backward", (z((3, 3, 1)), z((7, 7, 1))), r"H a multiple of 2"),
    ("pool2x2_backward", (z((7, 7, 3)), None), "x is NoneType"),
    ("flattening_backward", (z(147), z((7, 7, 3))), r"dl_dy\.reshape\(-1, 1\)"),
    ("train_mlp", ([], []), "at least 1"),
    ("train_mlp", ([z((196, 2))], []), "1 and 0 mini-batches"),
    ("train_mlp", (None, [z((10, 2))]), "mini_batch_x is a NoneType and mini_batch_y a list; want"),
    ("train_mlp", ([z((2, 196))], [z((10, 2))]), r"\(2, 196\).*want \(196, R\) and \(10, R\)"),
    ("train_cnn", ([z((196, 2))], [z((10, 3))]), r"\(10, 3\).*want"),
    ("train_cnn", ([z((196, 2))], [z((1, 2))]), r"\(1, 2\).*want"),
    ("train_mlp", ([z((196, 2))], [z((10, 2))], -1), "learning_rate is -1"),
    ("train_mlp", ([z((196, 2))], [z((10, 2))], np.nan), "learning_rate is nan"),
    ("train_mlp", ([z((196, 2))], [z((10, 2))], "0.1"), "learning_rate is '0.1'; want a number"),
    ("train_mlp", ([z((196, 2)) + np.nan], [z((10, 2))]), "the loss of iteration 1 is nan"),
    ("train_cnn", ([z((196, 2)) + np.nan], [z((10, 2))]), "the loss of iteration 1 is nan"),
    (
        "infer_mlp",
        (z((196, 1)) + np.nan, z((30, 196)), z((30, 1)), z((10, 30)), z((10, 1))),
        "the logits are NaN",
    ),
    ("train_mlp", ([z((196, 2))], [z((10, 2))], 0.1, 1.5), r"decay_rate is 1.5; want in \(0, 1\]"),
    ("train_cnn", ([z((196, 2))], [z((10, 2))], 0.1, 0.5, 0), "num_iters is 0"),
    ("train_cnn", ([z((196, 2))], [z((10, 2))], 0.1, 0.5, 1e4), "num_iters is 10000.0"),
    ("compute_confusion_matrix_and_accuracy", ([1], [1, 2], 10), "1 predictions for 2 labels"),
    ("compute_confusion_matrix_and_accuracy", ([], [], 10), "at least one"),
    ("compute_confusion_matrix_and_accuracy", ([1], [10], 10), r"label .*want 0\.\.9"),
    ("compute_confusion_matrix_and_accuracy", ([np.nan], [1], 10), "pred has entries"),
    ("compute_confusion_matrix_and_accuracy", ([0], [0], 0), "n_classes is 0"),
    ("visualize_training_progress", ([], 3), "want at least one"),
    ("visualize_training_progress", ([1.0], 0), "num_batches is 0; want a whole number"),
    ("visualize_training_progress", ([1.0], 312.5), "num_batches is 312.5; want a whole number"),
    ("visualize_training_progress", (None, 1), "losses is NoneType"),
    ("visualize_confusion_matrix", (z((9, 10)), 0.5, list("0123456789")), r"\(9, 10\); want"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "message"), BAD, ids=[f"{name}-{k}" for k, (name, *_) in enumerate(BAD)]
)
def test_bad_input_is_named(name, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        getattr(hw5, name)(*arguments)
    assert str(caught.value).startswith(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stride": 0}, "stride is 0; want a whole number >= 1 or a pair"),
        ({"stride": 1.5}, "stride is 1.5"),
        ({"stride": (1, 2, 3)}, "stride is .*pair"),
        ({"padding": -1}, "padding is -1; want a whole number >= 0"),
        ({"padding": "full"}, "padding is 'full'; want 'same', 'valid'"),
        ({"padding": None}, "padding is None"),
        ({"padding": ((1, 2), (3,))}, "padding is"),
    ],
)
def test_bad_windows_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        hw5.conv(z((6, 6, 1)), z((3, 3, 1, 1)), z((1, 1)), **settings)


def test_a_filter_larger_than_the_image_is_named():
    with pytest.raises(ValueError, match=r"7x7 is larger than the image 6x6 .*pad more"):
        hw5.conv(z((6, 6, 1)), z((7, 7, 1, 1)), z((1, 1)), padding="valid")
    with pytest.raises(ValueError, match="size is 0"):
        hw5.pool2x2(z((6, 6, 1)), size=0)


def test_windows_given_as_lists_are_those_given_as_tuples():
    x, w, b = np.ones((6, 6, 1)), np.ones((3, 3, 1, 1)), z((1, 1))
    close(hw5.conv(x, w, b, stride=[2, 1]), hw5.conv(x, w, b, stride=(2, 1)))
    close(hw5.max_pool(x, size=[2, 3]), hw5.max_pool(x, size=(2, 3)))


# --- Data -------------------------------------------------------------------------------------


def digits(n=40, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 10, (n, 1), dtype=np.uint8)
    return rng.integers(0, 256, (n, 14, 14), dtype=np.uint8), label


def write_digits(folder, **replaced):
    for name, seed in (("train", 0), ("test", 1)):
        img, label = digits(seed=seed)
        arrays = {"img": img, "label": label}
        if name == "test":
            arrays.update(replaced)
        arrays = {key: a for key, a in arrays.items() if a is not None}
        np.savez(folder / f"mnist_{name}.npz", **arrays)


def test_data_come_back_as_written(tmp_path):
    write_digits(tmp_path)
    image_train, label_train, image_test, label_test, classes = hw5.get_MNIST_data(str(tmp_path))
    for found, wanted in zip(
        (image_train, label_train, image_test, label_test), digits() + digits(seed=1), strict=True
    ):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, wanted)
    assert classes == list("0123456789")


def test_mini_batches_may_come_from_a_generator():
    x, y = np.eye(196, 4), np.eye(10, 4)
    lists = hw5.train_mlp([x, x[:, :2]], [y, y[:, :2]], num_iters=3, rng=0)
    parts = hw5.train_mlp((p for p in (x, x[:, :2])), iter([y, y[:, :2]]), num_iters=3, rng=0)
    assert all(map(np.array_equal, lists, parts))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, bool])
def test_logits_of_integers_do_not_wrap_around(dtype):
    x, y = np.array([[100], [0]]).astype(dtype), np.array([[0.0], [1.0]])
    loss, dl_dx = hw5.loss_cross_entropy_softmax(x, y)
    wanted, gradient = hw5.loss_cross_entropy_softmax(x.astype(float), y)
    assert loss == wanted
    np.testing.assert_array_equal(dl_dx, gradient)


def test_an_error_of_writing_names_the_path_that_was_asked_for(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    for path in (tmp_path / "nowhere" / "w.npz", tmp_path / "folder.npz"):
        with pytest.raises(OSError, match=re.escape(f"'{path}'")):
            hw5.save_weights(path, w=np.ones(2))


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"img": None}, r"keys \['label'\]; want 'img' and 'label'"),
        ({"label": None, "labels": z(3)}, r"keys \['img', 'labels'\]"),
        ({"img": z((40, 196), np.uint8)}, r"uint8 \(40, 196\); want uint8 \(N, 14, 14\)"),
        ({"img": z((40, 14, 14))}, r"float64 \(40, 14, 14\); want uint8"),
        ({"img": z((0, 14, 14), np.uint8), "label": z((0, 1), np.uint8)}, "holds no images"),
        ({"label": z(40, np.uint8)}, r"label is uint8 \(40,\); want integers \(40, 1\)"),
        ({"label": z((39, 1), np.uint8)}, r"\(39, 1\)"),
        ({"label": z((40, 1))}, "label is float64"),
        ({"label": np.full((40, 1), 10, np.uint8)}, "label 10 is no class"),
        ({"img": np.array([None] * 40)}, "damaged or not an .npz"),
    ],
)
def test_data_of_another_form_are_named(tmp_path, replaced, message):
    write_digits(tmp_path, **replaced)
    with pytest.raises(ValueError, match=message) as caught:
        hw5.get_MNIST_data(tmp_path)
    assert str(tmp_path / "mnist_test.npz") in str(caught.value)


def test_a_file_of_weights_holds_the_weights_alone(tmp_path):
    # NumPy 2.0 takes an unknown option for one more array.
    hw5.save_weights(tmp_path / "w.npz", w1=np.eye(2), b1=np.zeros(2))
    with np.load(tmp_path / "w.npz") as file:
        assert sorted(file.files) == ["b1", "w1"]


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"mnist_train\.npz: no such file"):
        hw5.get_MNIST_data(tmp_path)
    write_digits(tmp_path)
    path = tmp_path / "mnist_test.npz"
    whole = path.read_bytes()
    for damaged in (b"", b"no archive", whole[: len(whole) // 2], whole[:-30], bytes(2000)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"mnist_test\.npz: damaged or not an \.npz file"):
            hw5.get_MNIST_data(tmp_path)
    changed = bytearray(whole)
    changed[len(whole) // 3] ^= 0xFF
    path.write_bytes(changed)
    with pytest.raises(ValueError, match=r"mnist_test\.npz: damaged"):
        hw5.get_MNIST_data(tmp_path)
    np.save(tmp_path / "one.npy", z(3))
    shutil.copy(tmp_path / "one.npy", path)
    with pytest.raises(ValueError, match=r"mnist_test\.npz: damaged"):
        hw5.get_MNIST_data(tmp_path)


# --- Evaluation and figures -------------------------------------------------------------------


@quick
@given(n=st.integers(1, 30), classes=st.integers(1, 10), seed=seeds)
def test_confusion_and_accuracy_equal_loops(n, classes, seed):
    rng = np.random.default_rng(seed)
    pred, label = rng.integers(0, classes, (2, n))
    counts, right = z((classes, classes)), 0
    for p, t in zip(pred, label, strict=True):
        counts[p, t] += 1
        right += p == t
    for given_label in (label, label.reshape(-1, 1).astype(np.uint8), label.astype(float)):
        confusion, accuracy = hw5.compute_confusion_matrix_and_accuracy(pred, given_label, classes)
        close(confusion, counts / n)
        close(accuracy, right / n)


@pytest.fixture
def agg(monkeypatch):
    """Matplotlib as on a machine without a screen."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Matplotlib's own, on its first import.
        matplotlib = pytest.importorskip("matplotlib")
        from matplotlib import pyplot
    before = matplotlib.get_backend()
    pyplot.switch_backend("Agg")
    yield pyplot
    pyplot.close("all")
    pyplot.switch_backend(before)


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_figures_are_written_without_a_warning(agg, tmp_path, suffix):
    loss, confusion = tmp_path / f"loss.{suffix}", tmp_path / f"confusion.{suffix}"
    hw5.visualize_training_progress(np.linspace(2, 0.1, 25)[:, np.newaxis], 10, path=loss)
    hw5.visualize_confusion_matrix(np.eye(10) / 10, 1.0, list("0123456789"), path=confusion)
    assert sorted(tmp_path.iterdir()) == [confusion, loss]
    assert all(path.stat().st_size > 2000 for path in (loss, confusion))
    assert agg.get_fignums() == []


def test_figures_are_shown_without_a_warning(agg):
    hw5.visualize_training_progress(np.ones(5), 2)
    hw5.visualize_training_progress(z(5), 2)
    hw5.visualize_confusion_matrix(z((2, 2)), 0.0, ["a", "b"], title="no samples")
    assert agg.get_fignums() == []


def test_a_single_epoch_is_seen(agg, monkeypatch):
    drawn = []
    monkeypatch.setattr(agg, "show", lambda: drawn.extend(agg.gcf().axes))
    hw5.visualize_training_progress(np.linspace(2, 0.1, 30), 30)
    iterations, epochs = (axes.lines[0].get_marker() for axes in drawn)
    assert iterations in ("", "None")
    assert epochs == "o"


# --- The script -------------------------------------------------------------------------------

WEIGHTS = {
    "mlp.npz": {"w1": (30, 196), "b1": (30, 1), "w2": (10, 30), "b2": (10, 1)},
    "cnn.npz": {"w_conv": (3, 3, 1, 3), "b_conv": (3, 1), "w_fc": (10, 147), "b_fc": (10, 1)},
}
FIGURES = ["cnn_confusion.png", "cnn_loss.png", "mlp_confusion.png", "mlp_loss.png"]


@pytest.fixture
def short(monkeypatch):
    """Five iterations of training in place of the thousands that main asks for."""
    monkeypatch.setattr(hw5, "NUM_ITERS", 5)


def test_the_gradients_need_nothing_of_numpy_2():
    code = (
        "import numpy as np; vars(np).pop('vecdot', None); import hw5\n"
        "shapes = (4, 4, 2), (4, 4, 1), (3, 3, 1, 2), (2, 1)\n"
        "print(hw5.conv_backward(*map(np.ones, shapes))[0][1, 1].ravel())\n"
    )
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, cwd=Path(hw5.__file__).parent, capture_output=True, text=True)
    assert done.stdout == "[16. 16.]\n", done.stderr


def check_weights(folder):
    for name, shapes in WEIGHTS.items():
        with np.load(folder / name) as file:
            assert {key: file[key].shape for key in file.files} == shapes
            assert all(file[key].dtype == np.float64 for key in file.files)


def test_the_script_alone_in_a_folder_needs_numpy_alone(tmp_path):
    write_digits(tmp_path)
    # Other modules than NumPy and the standard library's are made impossible to import.
    script = Path(shutil.copy(hw5.__file__, tmp_path)).read_text()
    assert script.count("NUM_ITERS = 20000\n") == 1
    (tmp_path / "hw5.py").write_text(script.replace("NUM_ITERS = 20000\n", "NUM_ITERS = 5\n"))
    code = (
        "import sys, runpy\n"
        "for name in ('matplotlib', 'tqdm', 'tinygrad_hw'): sys.modules[name] = None\n"
        "sys.argv = ['hw5.py']\n"
        "runpy.run_path('hw5.py', run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-I", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"MLP: accuracy \d\.\d{4} on 40 test images", done.stdout)
    assert "CNN: no figures, since matplotlib is not installed" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [*WEIGHTS, "hw5.py", "mnist_test.npz", "mnist_train.npz"]
    )
    check_weights(tmp_path)


def test_main_writes_weights_and_figures(agg, short, tmp_path, capsys):
    write_digits(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    assert hw5.main(["--data", str(tmp_path), "--out", str(out), "--seed", "3"]) == 0
    check_weights(out)
    assert sorted(path.name for path in out.iterdir()) == sorted([*WEIGHTS, *FIGURES])
    assert "CNN: accuracy" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in out.glob("*.png")}
    assert hw5.main(["--data", str(tmp_path), "--out", str(out), "--seed", "3"]) == 0
    assert first == {path.name: path.read_bytes() for path in out.glob("*.png")}


def complaint(capsys, *arguments):
    assert hw5.main([str(a) for a in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("hw5: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_a_folder_that_cannot_be_used_is_named_before_training(tmp_path, capsys, monkeypatch):
    write_digits(tmp_path)
    monkeypatch.setattr(hw5, "train_and_test", None)  # Not reached.
    missing = tmp_path / "missing"
    assert str(missing) in complaint(capsys, "--data", tmp_path, "--out", missing)
    assert "mnist_train.npz: no such file" in complaint(capsys, "--data", missing)
    assert "seed is -1; want at least 0" in complaint(capsys, "--data", tmp_path, "--seed", -1)
    file = tmp_path / "file"
    file.touch()
    assert str(file) in complaint(capsys, "--data", tmp_path, "--out", file)
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir(mode=0o500)
        assert str(locked) in complaint(capsys, "--data", tmp_path, "--out", locked)


@pytest.mark.parametrize("failing", ["replace", "savez"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path, capsys, monkeypatch, short, failing
):
    write_digits(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mlp.npz").write_bytes(b"old")

    def fail(*arguments, **keywords):
        with contextlib.suppress(AttributeError):
            arguments[0].write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(*((os, "replace") if failing == "replace" else (np, "savez")), fail)
    assert "no space left" in complaint(capsys, "--data", tmp_path, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mlp.npz"]
    assert (out / "mlp.npz").read_bytes() == b"old"


def test_docstring_examples():
    # Not the module's own name: NumPy's repr of scalars must not depend on who ran before.
    failed, tried = doctest.testmod(hw5)
    assert failed == 0
    assert tried > 30


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's setting")
def test_freed_memory_is_kept_unless_the_environment_says_otherwise(monkeypatch):
    calls = []
    library = SimpleNamespace(mallopt=lambda *setting: calls.append(setting))
    monkeypatch.setattr("ctypes.CDLL", lambda name: library)
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(name)
    hw5.keep_freed_memory()
    assert len(calls) == 2
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    hw5.keep_freed_memory()
    assert len(calls) == 2
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_")
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())
    hw5.keep_freed_memory()  # Another C library does without.
