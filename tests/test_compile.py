"""A compiled function computes what the function computes, and runs only where it fits."""

import array
import collections
import concurrent.futures
import contextlib
import copy
import csv
import functools
import itertools
import operator
import os
import pickle
import random
import re
import sys
import threading
import time
import types
import typing
import warnings
import weakref

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.compile import CompileError
from tinygrad_hw.errors import GraphError

RNG = np.random.default_rng(0)


@pytest.fixture(params=["numpy", "numba"], scope="module")
def backend(request, tmp_path_factory):
    if request.param == "numba":
        pytest.importorskip("numba")
        pytest.importorskip("scipy")
        patch = pytest.MonkeyPatch()
        patch.setenv("TINYGRAD_HW_CACHE", str(tmp_path_factory.mktemp("native")))
        yield "numba"
        patch.undo()
    else:
        yield "numpy"


class Net(tg.nn.Module):
    """Convolution, dropout if asked for, a hidden layer."""

    def __init__(self, seed=0, dtype=np.float32, p=0.0):
        rng = np.random.default_rng(seed)
        self.conv = tg.nn.Conv2d(1, 2, 2, padding="same", rng=rng, dtype=dtype)
        self.hidden = tg.nn.Linear(18, 5, rng=rng, dtype=dtype)
        self.out = tg.nn.Linear(5, 3, rng=rng, dtype=dtype)
        self.dropout = tg.nn.Dropout(p, rng=seed)

    def forward(self, x):
        x = tg.max_pool2d(tg.relu(self.conv(x)), 2)
        x = tg.tanh(self.hidden(tg.reshape(x, (len(x), 18))))
        return self.out(self.dropout(x))


def training(make_optimizer, *, seed=0, dtype=np.float32, p=0.0):
    model = Net(seed, dtype, p)
    optimizer = make_optimizer(model.parameters())

    def step(x, labels):
        optimizer.zero_grad()
        loss = tg.softmax_cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


def batch(n=4, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6, 6, 1)).astype(dtype), rng.integers(0, 3, n)


def assert_same_parameters(one, two, rtol):
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=rtol, atol=rtol)
        np.testing.assert_allclose(a.grad, b.grad, rtol=rtol, atol=rtol)
        assert a.grad.dtype == a.dtype
        assert a.grad.shape == a.shape


# --- Training steps -----------------------------------------------------------------------------

OPTIMIZERS = {
    "sgd": lambda p: tg.optim.SGD(p, lr=0.1),
    "nesterov": lambda p: tg.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda p: tg.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: tg.optim.RMSprop(p, lr=0.01),
    "lion": lambda p: tg.optim.Lion(p, lr=0.001),
    "adam": lambda p: tg.optim.Adam(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_steps_equal_eager_while_the_rate_changes(name, backend):
    eager = training(OPTIMIZERS[name], dtype=np.float64)
    compiled = training(OPTIMIZERS[name], dtype=np.float64)
    step = tg.compile(compiled[2], backend=backend)
    schedules = [tg.optim.Cosine(run[1], total=10) for run in (eager, compiled)]
    for i in range(6):
        x, labels = batch(dtype=np.float64, seed=i)
        assert step(x, labels).item() == pytest.approx(eager[2](x, labels).item(), rel=1e-9)
        for schedule in schedules:
            schedule.step()
    assert_same_parameters(eager[0], compiled[0], 1e-8)
    assert eager[1].steps == compiled[1].steps == 6
    # Once without gradients and memory, once with them.
    assert len(step.programs) == 2


def test_float32_stays_float32(backend):
    eager, compiled = (training(OPTIMIZERS["sgd"]) for _ in range(2))
    step = tg.compile(compiled[2], backend=backend)
    for i in range(4):
        loss, expected = step(*batch(seed=i)), eager[2](*batch(seed=i))
        assert loss.dtype == np.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert_same_parameters(eager[0], compiled[0], 1e-4)
    assert all(p.dtype == np.float32 for p in compiled[0].parameters())


def test_other_shapes_and_dtypes_record_again_and_are_right():
    eager, compiled = (training(OPTIMIZERS["sgd"]) for _ in range(2))
    step = tg.compile(compiled[2])
    for n, dtype in [(4, "f4"), (1, "f4"), (4, "f4"), (3, "f8"), (1, "f4"), (3, "f8")]:
        x, labels = batch(n, dtype, seed=n)
        assert step(x, labels).item() == pytest.approx(eager[2](x, labels).item(), rel=1e-4)
    assert "argument 0 was ndarray (4, 6, 6, 1) float32" in step.explain()


def test_dropout_draws_anew_as_eager_does(backend):
    eager, compiled = (training(OPTIMIZERS["sgd"], p=0.5) for _ in range(2))
    step = tg.compile(compiled[2], backend=backend)
    losses = [step(*batch()).item() for _ in range(4)]
    assert losses == pytest.approx([eager[2](*batch()).item() for _ in range(4)], rel=1e-4)


def test_eval_mode_records_again():
    model = Net(p=0.5)
    predict = tg.compile(lambda x: model(x))
    x = batch()[0]
    first, second = predict(x).numpy(), predict(x).numpy()
    assert not np.array_equal(first, second)
    model.eval()
    np.testing.assert_allclose(predict(x).numpy(), model(x).numpy(), rtol=1e-6)
    np.testing.assert_array_equal(predict(x).numpy(), predict(x).numpy())


def test_batch_norm_updates_its_running_averages(backend):
    layers = [tg.nn.BatchNorm(3) for _ in range(2)]
    f = tg.compile(lambda x: layers[0](x).sum(), backend=backend)
    for i in range(4):
        x = np.random.default_rng(i).normal(size=(8, 3)).astype(np.float32)
        np.testing.assert_allclose(f(x).item(), layers[1](x).sum().item(), atol=1e-4)
    np.testing.assert_allclose(layers[0].running_var.numpy(), layers[1].running_var.numpy(), 1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_step_that_clips_its_gradients_is_the_same_compiled(dtype, backend):
    def run(make):
        w = tg.Tensor(np.ones(3, dtype), requires_grad=True)
        sgd = tg.optim.SGD([w], lr=0.1)

        def step(x):
            sgd.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            tg.optim.clip_grad_norm([w], 1.0)
            sgd.step()
            return loss

        f = make(step)
        for i in range(4):
            f(np.arange(3, dtype=dtype) + i * 100)
        return w.numpy()

    np.testing.assert_array_equal(
        run(lambda step: tg.compile(step, backend=backend)), run(lambda step: step)
    )


def test_a_diverged_step_is_left_to_the_function():
    def run(compiled):
        w = tg.Tensor([1.0, 4.0], requires_grad=True)

        def step(x):
            w.grad = None
            loss = tg.where(x > 0, tg.sqrt(w * x), 0.0).sum()
            loss.backward()
            return loss

        f = tg.compile(step) if compiled else step
        for x in ([1.0, 2.0], [1.0, 2.0], [0.0, 2.0], [1.0, 0.0]):
            f(np.array(x))
        return w.grad

    np.testing.assert_array_equal(run(True), run(False))


def test_a_first_step_that_diverges_says_so():
    w = tg.Tensor(np.full(2, np.nan), requires_grad=True)

    def step():
        w.grad = None
        (w * w).sum().backward()
        return isinstance(tg.optim.clip_grad_norm([w], 1.0), float)

    with pytest.raises(FloatingPointError, match="the norm is nan"):
        tg.compile(step)()

    @tg.compile
    def careful():
        try:
            return step()
        except FloatingPointError:
            return "diverged"

    found = []
    for value in (np.nan, 1.0, np.nan, 2.0):
        w.data[...] = value
        found.append(careful())
    assert found == ["diverged", True, "diverged", True]


def test_labels_out_of_range_raise_as_always():
    _, _, step = training(OPTIMIZERS["sgd"])
    compiled = tg.compile(step)
    x, labels = batch()
    for _ in range(3):
        compiled(x, labels)
    with pytest.raises(IndexError, match="label 7"):
        compiled(x, labels * 0 + 7)


def test_parameters_written_between_calls_are_read_again(backend):
    model, _, step = training(OPTIMIZERS["sgd"])
    other, _, eager = training(OPTIMIZERS["sgd"])
    compiled = tg.compile(step, backend=backend)
    for i in range(4):
        assert compiled(*batch()).item() == pytest.approx(eager(*batch()).item(), rel=1e-4)
        for m in (model, other):
            m.load_state_dict(Net(seed=i).state_dict())


# --- Functions ----------------------------------------------------------------------------------


def test_decorator_with_and_without_arguments():
    @tg.compile
    def double(x):
        return x * 2

    @tg.compile(backend="numpy", limit=3)
    def triple(x):
        """Three times."""
        return x * 3

    for _ in range(2):
        assert double(tg.Tensor(2.0)).item() == 4.0
        assert triple(tg.Tensor(2.0)).item() == 6.0
    assert triple.__name__ == "triple"
    assert triple.__doc__ == "Three times."


def test_structures_go_in_and_out():
    f = tg.compile(lambda d, *, k: {"sum": d["a"] + d["b"][0], "rest": (k, d["a"] * k)})
    for i in range(3):
        a, b = tg.Tensor([1.0 + i]), tg.Tensor([2.0])
        y = f({"a": a, "b": [b]}, k=2)
        assert y["sum"].tolist() == [3.0 + i]
        assert y["rest"][0] == 2
        assert y["rest"][1].tolist() == [2.0 + 2 * i]
    assert len(f.programs) == 1


def test_arrays_in_arrays_out():
    f = tg.compile(lambda x: np.tanh(x).sum(axis=0) + x[0])
    for i in range(3):
        x = np.arange(6.0).reshape(2, 3) + i
        y = f(x)
        assert type(y) is np.ndarray
        np.testing.assert_allclose(y, np.tanh(x).sum(axis=0) + x[0])


def test_gradients_flow_through_a_compiled_function(backend):
    w = tg.Tensor(RNG.normal(size=(3, 2)), requires_grad=True)
    f = tg.compile(lambda x: (tg.tanh(x @ w), (x * x).sum()), backend=backend)
    for i in range(3):
        x = tg.Tensor(np.random.default_rng(i).normal(size=(4, 3)), requires_grad=True)
        y, z = f(x)
        w.grad = None
        (y.sum() * 2 + z * y[0, 0]).backward()
        got = w.grad, x.grad
        w.grad = x.grad = None
        y, z = tg.tanh(x @ w), (x * x).sum()
        (y.sum() * 2 + z * y[0, 0]).backward()
        np.testing.assert_allclose(got[0], w.grad, rtol=1e-12)
        np.testing.assert_allclose(got[1], x.grad, rtol=1e-12)


def test_gradients_through_dropout_use_the_mask_of_the_call():
    rng = np.random.default_rng(0)
    f = tg.compile(lambda x: tg.dropout(x, 0.5, rng))
    for _ in range(3):
        x = tg.Tensor(np.ones(50), requires_grad=True)
        y = f(x)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, y.numpy())


def test_second_derivatives_say_what_to_do():
    x = tg.Tensor(1.0, requires_grad=True)
    y = tg.compile(lambda x: x * x * x)(x)
    with pytest.raises(tg.GraphError, match="compile the function that computes"):
        tg.grad(y, x, create_graph=True)
    second = tg.compile(tg.grad(tg.grad(lambda x: x * x * x)))
    assert [second(2.0).item(), second(2.0).item()] == [12.0, 12.0]


def test_a_derivative_is_taken_of_whatever_is_passed(backend):
    run = tg.compile(tg.grad(lambda x: (x**3).sum()), backend=backend)
    for i in range(3):
        given = X + i
        for x in (given, tg.Tensor(given)):
            np.testing.assert_allclose(run(x).numpy(), 3 * given**2)
    # What is passed is not taken for granted.
    assert not any(np.ndim(value) for p in run.programs for _, value in p.checks)


@pytest.mark.parametrize("first", [1.0, np.nan, np.inf])
def test_a_gradient_that_is_no_number_at_the_first_call_or_later(backend, first):
    gradient = tg.grad(lambda x: (tg.abs(x) ** 0.5).sum())
    run = tg.compile(gradient, backend=backend)
    for x in (first, np.nan, 0.0, -np.inf, 4.0, first):
        given = np.array([x, 1.0, -1.0])
        np.testing.assert_allclose(run(given).numpy(), gradient(given).numpy())


def test_an_object_method():
    class Trainer:
        def __init__(self, start):
            self.w = tg.Tensor(start, requires_grad=True)
            self.seen = []

        @tg.compile
        def step(self, x):
            self.w.grad = None
            loss = self.w * self.w * x
            loss.backward()
            return loss

    one, two = Trainer(1.0), Trainer(3.0)
    for _ in range(3):
        assert one.step(np.array(1.0)).item() == 1.0
        assert two.step(np.array(1.0)).item() == 9.0
        one.seen.append(1)
    assert one.w.grad == 2.0
    assert two.w.grad == 6.0
    assert "1 recorded" not in repr(Trainer.step)


# --- What recording could get wrong ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "use"),
    [
        ("bool", lambda y: 1 if y > 0 else 2),
        ("float", lambda y: float(y)),
        ("item", lambda y: y.item()),
        ("print", lambda y: print(y)),
        ("print", lambda y: f"{y}"),
        ("tolist", lambda y: y.tolist()),
        ("asarray", lambda y: np.asarray(y)),
        ("as a key", lambda y: {1.0: 2}.get(y.data.sum(), 3)),
        ("in a set", lambda y: y.data.sum() in {1.0}),
        ("int", lambda y: round(y.data.sum())),
    ],
)
def test_values_that_are_asked_for_raise_with_the_reason_and_the_line(what, use):
    f = tg.compile(lambda x: use(x * 2))
    with pytest.raises(CompileError, match=rf"{what}.*test_compile.py:\d+.*recorded once"):
        f(tg.Tensor(1.0))


def test_a_failed_recording_changes_nothing():
    w = tg.Tensor([1.0, 2.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.5, momentum=0.9)

    def step(x):
        loss = (w * x).sum()
        loss.backward()
        optimizer.step()
        return loss.item()

    with pytest.raises(CompileError):
        tg.compile(step)(np.ones(2))
    assert w.tolist() == [1.0, 2.0]
    assert type(w.numpy()) is np.ndarray
    assert w.grad is None
    assert optimizer.steps == 0
    assert optimizer.memory == [{}]
    assert optimizer.lr == 0.5


def test_a_python_counter_is_never_frozen():
    calls = []

    @tg.compile(limit=3)
    def f(x):
        calls.append(1)
        return x * len(calls)

    with pytest.warns(RuntimeWarning, match="recorded 3 times.*length of calls"):
        values = [f(tg.Tensor(1.0)).item() for _ in range(6)]
    assert values == [1, 2, 3, 4, 5, 6]


def test_what_keeps_recording_says_what_to_do_instead():
    f = tg.compile(lambda x, rate: x * rate, limit=2)
    x = np.ones(2, np.float32)
    with pytest.warns(RuntimeWarning, match=r"argument 1 was .*np\.asarray\(number, np\.float32\)"):
        _ = [f(x, rate) for rate in np.linspace(0, 1, 3)]
    mean = tg.Tensor(0.0)

    @tg.compile(limit=2)
    def rebound(x):
        nonlocal mean
        mean = 0.5 * mean + 0.5 * x.mean()

    with pytest.warns(RuntimeWarning, match=r"mean is another Tensor.*t\.data = value"):
        _ = [rebound(x) for _ in range(3)]
    # As advised.
    g = tg.compile(lambda x, rate: x * rate, limit=1)
    kept = tg.Tensor(0.0)

    @tg.compile(limit=1)
    def written(x):
        kept.data = 0.5 * kept.data + 0.5 * x.mean()

    for rate in np.linspace(0, 1, 3):
        assert g(x, np.asarray(rate, np.float32)).dtype == np.float32
        written(x)
    assert kept.item() == mean.item() == 0.875


def test_a_frozen_parameter_and_a_mode_are_named_as_they_are_said():
    model = tg.nn.Sequential(tg.nn.Linear(2, 2, rng=0), tg.nn.Dropout(rng=0))
    f, x = tg.compile(model), np.ones((1, 2), np.float32)
    for _ in range(2):
        for mode in (True, False):
            model.train(mode)
            f(x)
    model.layers[0].weight.requires_grad = False
    f(x)
    text = f.explain()
    assert "recorded again: Sequential.training changed from True to False" in text
    assert "recorded again: a tensor (2, 2): the kind was leaf, is constant" in text


def test_an_input_used_twice():
    f = tg.compile(lambda a, b: a * b + a)
    x, y = tg.Tensor(3.0), tg.Tensor(5.0)
    assert [f(x, x).item(), f(x, x).item()] == [12.0, 12.0]
    assert [f(x, y).item(), f(y, x).item(), f(x, x).item()] == [18.0, 20.0, 12.0]


def test_gradients_of_an_input_used_twice():
    f = tg.compile(lambda a, b: a * b)
    x, y = (tg.Tensor(v, requires_grad=True) for v in (3.0, 5.0))
    for a, b, expected in [(x, y, 5.0), (x, x, 6.0), (x, y, 5.0)]:
        x.grad = y.grad = None
        f(a, b).backward()
        assert x.grad == expected


def test_an_input_mutated_between_calls():
    x = np.ones(3)
    f = tg.compile(lambda x: (x * 2).sum())
    for i in range(3):
        x[0] = i
        assert f(x) == 2 * (i + 2)


def test_an_input_mutated_by_the_function():
    def f(x):
        x += 1
        return x * 2

    compiled = tg.compile(f)
    for _ in range(3):
        x = np.zeros(2)
        np.testing.assert_array_equal(compiled(x), [2, 2])
        np.testing.assert_array_equal(x, [1, 1])


def test_a_closure_over_a_changed_tensor(backend):
    scale = tg.Tensor([1.0, 2.0])
    f = tg.compile(lambda x: (x * scale).sum(), backend=backend)
    x = np.ones(2)
    for i in range(4):
        scale.data[0] = i
        assert f(x).item() == i + 2
    scale = tg.Tensor([5.0, 5.0])
    assert f(x).item() == 10.0


def test_a_closure_over_a_changed_array_and_number():
    array, number = np.ones(2), 3.0
    f = tg.compile(lambda x: x * array * number)
    assert f(np.ones(2)).tolist() == [3, 3]
    array[0] = 7
    assert f(np.ones(2)).tolist() == [21, 3]
    number = 1.0
    assert f(np.ones(2)).tolist() == [7, 1]


def test_outputs_are_kept_across_calls(backend):
    w = tg.Tensor(np.ones(3), requires_grad=True)

    def f(x):
        w.grad = None
        y = tg.tanh(w * x)
        y.sum().backward()
        return y, y[:2], w * 1.0, w

    compiled = tg.compile(f, backend=backend)
    kept = []
    for i in range(4):
        y, part, _, _ = compiled(np.full(3, float(i)))
        kept.append((i, y.numpy(), y, part, w.grad))
    for i, before, y, part, gradient in kept:
        np.testing.assert_array_equal(y.numpy(), before)
        np.testing.assert_array_equal(part.numpy(), before[:2])
        np.testing.assert_allclose(gradient, i * (1 - np.tanh(i) ** 2))
    assert not np.shares_memory(kept[-1][2].numpy(), kept[-2][2].numpy())


@pytest.mark.parametrize("same", [np.squeeze, np.real, np.atleast_1d, lambda x: x])
def test_what_comes_out_as_it_went_in_is_an_array_of_its_own(same, backend):
    x, run = np.ones(3), tg.compile(same, backend=backend)
    for _ in range(2):
        assert not np.shares_memory(run(x), x)


def test_a_returned_parameter_is_what_it_was():
    w = tg.Tensor([1.0], requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=1.0)

    @tg.compile
    def step(x):
        optimizer.zero_grad()
        before = w.detach()
        (w * x).sum().backward()
        optimizer.step()
        return before

    kept = [step(np.ones(1)) for _ in range(4)]
    assert [t.item() for t in kept] == [1.0, 0.0, -1.0, -2.0]


def test_random_numbers_of_numpy_raise():
    rng = np.random.default_rng(0)
    with pytest.raises(CompileError, match="random numbers"):
        tg.compile(lambda x: x * rng.normal(size=3))(tg.Tensor(np.ones(3)))


def test_a_shape_that_depends_on_values_raises():
    with pytest.raises(CompileError, match="shape depends on values"):
        tg.compile(lambda x: x[x > 0].sum())(tg.Tensor([1.0, -1.0]))


@pytest.mark.parametrize(
    "use",
    [
        lambda x, n: np.bincount(n),
        lambda x, n: np.union1d(x, n),
        lambda x, n: np.repeat(x, n),
        lambda x, n: x.repeat(repeats=n),
        lambda x, n: np.delete(x, n),
        lambda x, n: np.extract(n, x),
        lambda x, n: np.pad(x, n[0]),
        lambda x, n: np.tile(x, n),
        lambda x, n: np.linspace(0, x, n[0]),
        lambda x, n: np.insert(x, n > 1, 0.0),
    ],
)
@pytest.mark.filterwarnings("ignore:in the future insert:FutureWarning")  # By NumPy 2.0.
def test_a_shape_that_numpy_makes_of_values_raises(use):
    with pytest.raises(CompileError, match="shape depends on values"):
        tg.compile(use)(np.ones(3), np.array([1, 2, 1]))


def test_a_dtype_that_numpy_makes_of_values_raises():
    run = tg.compile(np.real_if_close)
    np.testing.assert_array_equal(run(np.ones(3)), np.ones(3), strict=True)
    with pytest.raises(CompileError, match="dtype depends on values"):
        run(np.full(3, 1 + 1j))


def test_shapes_that_numpy_makes_of_constants_are_recorded():
    def function(x):
        return np.repeat(x, 2), np.pad(x, 1, constant_values=x[0]), np.insert(x, 1, x[2])

    run = tg.compile(function)
    for x in (np.arange(3.0), np.ones(3)):
        for found, expected in zip(run(x), function(x), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_gradients_add_up_without_zero_grad():
    w = tg.Tensor([2.0], requires_grad=True)

    @tg.compile
    def step(x):
        loss = (w * w * x).sum()
        loss.backward()
        return loss

    for i in range(1, 5):
        step(np.ones(1))
        assert w.grad.tolist() == [4.0 * i]


def test_gradients_of_single_numbers_are_arrays_that_change_in_place(backend):
    def train(wrap):
        s = tg.Tensor(2.0, requires_grad=True)
        optimizer = tg.optim.SGD([s], lr=0.1)

        def step(x, zero):
            if zero:
                optimizer.zero_grad()
            (s * s * x + tg.exp(s)).backward()
            norm = tg.optim.clip_grad_norm([s], 0.5)
            g = s.grad
            g += 0.25
            optimizer.step()
            return norm, s.grad

        step = wrap(step)
        found = [step(np.array(1.0 + k), k % 3 == 0) for k in range(7)]
        assert all(isinstance(g, np.ndarray) for _, g in found)
        return [*found, (s.item(), s.grad)]

    eager = train(lambda f: f)
    np.testing.assert_allclose(train(lambda f: tg.compile(f, backend=backend)), eager, rtol=1e-12)


def test_plain_updates_without_an_optimizer(backend):
    w, b = tg.Tensor([1.0, 2.0], requires_grad=True), tg.Tensor(0.5, requires_grad=True)

    def step(x):
        w.grad = b.grad = None
        loss = ((w * x + b) ** 2).sum()
        loss.backward()
        with tg.no_grad():
            w[...] = w - 0.1 * w.grad
        b.data -= 0.1 * b.grad
        return loss

    compiled = tg.compile(step, backend=backend)
    losses = [compiled(np.ones(2)).item() for _ in range(4)]
    w, b = tg.Tensor([1.0, 2.0], requires_grad=True), tg.Tensor(0.5, requires_grad=True)
    assert losses == pytest.approx([step(np.ones(2)).item() for _ in range(4)], rel=1e-12)


def test_an_unknown_backend_and_a_missing_function():
    with pytest.raises(ValueError, match=r"numpy.*numba"):
        tg.compile(lambda x: x, backend="cuda")
    with pytest.raises(TypeError, match="want a function"):
        tg.compile(3)


def test_a_picture_of_a_program_that_is_not_there():
    run = tg.compile(lambda x: x * 2)
    run(X)
    with pytest.raises(IndexError, match=r"graph\(3\) of 1 recorded; want 0, the latest, to 0"):
        run.graph(3)


def waves(x, scale):
    y = tg.tanh(x * scale) + 1
    level = y.sum()
    return (y - level / y.size) * y, level, y.max(), (y > 1) & (x < scale)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [False, True])
def test_long_arrays_are_computed_block_by_block(dtype, turned):
    run = tg.compile(waves, backend="numpy")
    x = np.random.default_rng(0).normal(size=(3, 200_001)).astype(dtype)
    x = x[::-1].T if turned else x
    for scale in (2.0, -1.0, np.nan):
        scale = np.asarray(scale, dtype)
        for _ in range(2):
            got, wanted = run(x, scale), waves(x, scale)
            for a, b in zip(got, wanted, strict=True):
                close = 1e-4 if dtype == np.float32 else 1e-9
                np.testing.assert_allclose(a, b, rtol=close, atol=close)
    assert run.explain().count("block by block") == 2


def test_zeros_of_both_signs_in_a_long_constant_stay():
    zeros = np.zeros(200_000)
    zeros[::2] = -0.0
    run = tg.compile(lambda x: np.copysign(tg.exp(x), zeros), backend="numpy")
    x = np.ones(zeros.shape)
    np.testing.assert_allclose(run(x), np.where(np.signbit(zeros), -np.e, np.e))
    assert "block by block" in run.explain()


def test_draws_between_long_arrays_stay_in_their_order():
    def noisy(rng):
        def noise(x):
            first = tg.dropout(tg.exp(x) * 2, 0.5, rng=rng)
            second = tg.dropout(x + 1, 0.5, rng=rng)
            return tg.dropout(tg.exp(first) + second, 0.5, rng=rng)

        return noise

    run, noise = (tg.compile(noisy(np.random.default_rng(0))), noisy(np.random.default_rng(0)))
    x = np.random.default_rng(1).normal(size=400_000)
    for _ in range(3):
        np.testing.assert_array_equal(run(x), noise(x))
    assert "block by block" in run.explain()


@pytest.mark.parametrize(
    "exponent",
    [0, 1, 2, 2.0, 3, 3.0, 4, 7, -1, -2, -3.0, 0.5, 2**24 + 1, np.inf, np.full(9, 2)],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_powers_are_those_of_numpy(exponent, dtype, backend):
    values = [1, 4, 9, 0, -1, -2, 3, -4, 1]
    if dtype is not np.int16:
        values[4:] = [-0.0, -1.5, np.inf, -np.inf, np.nan]
    elif isinstance(exponent, (int, float)) and not 0 <= exponent < 2**15:
        return
    # Whether a power of 1/2 is a root of what has none depends on NumPy's version.
    x = np.abs(np.array(values, dtype)) if np.all(exponent == 0.5) else np.array(values, dtype)
    run = tg.compile(lambda x: x**exponent, backend=backend)
    with np.errstate(all="ignore"):
        wanted = x**exponent
        results = [run(x), run(x), tg.power(x, exponent), (tg.Tensor(x) ** exponent).numpy()]
        if dtype is not np.int16:
            results.append((tg.Tensor(x, requires_grad=True) ** exponent).numpy())
    for y in results:
        np.testing.assert_allclose(y, wanted, rtol=1e-6, strict=True)
        known = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(y)[known], np.signbit(wanted)[known])


@pytest.mark.parametrize(
    ("exponent", "made"),
    [(-1, [np.reciprocal]), (3, [np.square, np.multiply]), (4, [np.abs, np.power])],
)
def test_whole_powers_are_computed_as_the_engine_does(exponent, made):
    run = tg.compile(lambda x: x**exponent, backend="numpy")
    run(X)
    called = run._variants[0].executable.run.__globals__.values()
    assert all(any(value is ufunc for value in called) for ufunc in made)


@pytest.mark.parametrize("size", [100, 300_000])
def test_the_sign_takes_not_the_place_of_its_argument(size):
    # NumPy computes it one by one there, ten times as slow.
    run = tg.compile(lambda x: tg.sign(x * 2.0) + x, backend="numpy")
    x = np.linspace(-1, 1, size)
    np.testing.assert_array_equal(run(x), np.sign(x) + x)
    executable = run._variants[0].executable
    (sign,) = [name for name, value in executable.run.__globals__.items() if value is np.sign]
    lies = dict(re.findall(r"(\w+) = .*out=(\w+)\)", executable.source))
    ((given, out),) = re.findall(rf"{sign}\((\w+), out=(\w+)\)", executable.source)
    assert lies[given] != out


def test_what_can_be_exchanged_is_computed_once():
    run = tg.compile(lambda a, b: a * b + tg.exp(b * a) - b / a - a / b)
    a, b = tg.Tensor([1.0, 2.0]), tg.Tensor([3.0, 5.0])
    np.testing.assert_array_equal(run(a, b), a * b + tg.exp(b * a) - b / a - a / b)
    text = run.explain()
    assert (text.count("multiply("), text.count("divide(")) == (1, 2)


def test_a_product_with_ones_is_its_other_factor():
    step = tg.compile(lambda x: tg.grad(lambda x: (x * 3.0).sum())(x) * x)
    np.testing.assert_array_equal(step(X), 3 * X)
    assert step.explain().count("multiply(") == 1
    ones = tg.compile(lambda x: np.multiply(np.ones_like(X), x))
    y = ones(X)
    assert y is not X
    np.testing.assert_array_equal(y, X)
    y[0] = 9.0
    assert (ones(X) == X).all()


def test_an_array_of_one_number_serves_in_any_layout(backend):
    full, x = np.full((3, 4), 2.0), np.arange(12.0).reshape(4, 3).T

    def f(x):
        return full * x, tg.reshape(full, (4, 3)).T - x, tg.Tensor(full)

    run = tg.compile(f, backend=backend)
    for _ in range(2):
        for y, expected in zip(run(x), f(x), strict=True):
            np.testing.assert_array_equal(y, expected)
        run(x)[2].data[...] = 7.0
    assert (full == 2).all()


def test_explain_shows_the_program():
    f = tg.compile(lambda x: tg.exp(x) + tg.exp(x))
    for _ in range(3):
        f(tg.Tensor([0.0]))
    text = f.explain()
    assert text.count("exp(") == 1
    assert "add(" in text
    assert "buffers" in text
    assert len(f.programs[0].instructions) == 2


def test_explain_counts_the_calls_that_are_left_to_the_function():
    x = tg.Tensor(np.zeros((2, 3)), requires_grad=True)
    step = tg.compile(lambda labels: tg.softmax_cross_entropy(x, labels))
    for labels in ([0, 1], [2, 0]):
        step(np.array(labels))
    assert "left to" not in step.explain()
    with pytest.raises(IndexError):
        step(np.array([0, 3]))
    assert "left to the function itself 1 times" in step.explain()


@pytest.mark.parametrize(
    "read",
    [
        lambda x, at: tg.take(x, at),
        lambda x, at: tg.take(x, at, axis=1),
        lambda x, at: np.take(x, at, axis=1),
        lambda x, at: tg.take_along_axis(x, at[:, np.newaxis], axis=1),
        lambda x, at: tg.take_along_axis(x, at, axis=None),
        lambda x, at: tg.take_along_axis(x, tg.argsort(x * at[:, np.newaxis], axis=1), axis=1),
        lambda x, at: tg.sort(x * at[:, np.newaxis], axis=1),
        lambda x, at: tg.median(x * at[:, np.newaxis], axis=1),
    ],
)
def test_positions_may_change_from_call_to_call(read):
    rng = np.random.default_rng(0)
    run = tg.compile(read)
    for _ in range(4):
        x, at = rng.normal(size=(5, 4)), rng.integers(-4, 4, 5)
        np.testing.assert_array_equal(run(tg.Tensor(x), at).numpy(), read(x, at))
    # A check that fails calls the function itself, which is right but slow.
    assert "left to the function" not in run.explain()
    assert len(run.programs) == 1


def test_compile_inside_compile_is_one_program():
    inner = tg.compile(lambda x: x * 2)
    outer = tg.compile(lambda x: inner(x) + 1)
    assert [outer(tg.Tensor(1.0)).item(), outer(tg.Tensor(2.0)).item()] == [3.0, 5.0]
    assert len(outer.programs[0].instructions) == 2
    assert not inner.programs


def test_no_warning_in_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = tg.compile(lambda x: x / 2)
        assert [f(tg.Tensor(v)).item() for v in (2.0, 4.0, 6.0)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_convolution_of_one_image_as_native_code(padding):
    pytest.importorskip("numba")
    pytest.importorskip("scipy")
    rng = np.random.default_rng(0)
    w = tg.Tensor(rng.normal(size=(2, 1, 1, 2)), requires_grad=True)

    def run(x):
        w.grad = None
        y = tg.conv2d_transpose(x, w, padding=padding)
        (y * y).sum().backward()
        return y

    compiled = tg.compile(run, backend="numba")
    for _ in range(3):
        x = rng.normal(size=(1, 2, 1, 2))
        y, gradient = compiled(x), w.grad
        np.testing.assert_allclose(y.numpy(), run(x).numpy(), rtol=1e-12)
        np.testing.assert_allclose(gradient, w.grad, rtol=1e-12)


@pytest.mark.parametrize("kept_as", ["step", "run"])
def test_a_compiled_method_kept_in_its_object_is_recorded_once(kept_as):
    class Trainer:
        def __init__(self):
            self.w = tg.Tensor(np.ones(3), requires_grad=True)
            self.optimizer = tg.optim.SGD([self.w], lr=0.1, momentum=0.5)
            setattr(self, kept_as, tg.compile(self.learn))

        def learn(self, x):
            self.optimizer.zero_grad()
            loss = (self.w * x).sum()
            loss.backward()
            self.optimizer.step()
            return loss

    trainer = Trainer()
    compiled = getattr(trainer, kept_as)
    eager = Trainer()
    for _ in range(6):
        assert compiled(np.ones(3)).item() == eager.learn(np.ones(3)).item()
    # Once without, once with the gradient and the velocity of the step before.
    assert len(compiled.programs) == 2


def test_a_step_of_the_package_itself_clears_gradients_that_it_finds():
    from tinygrad_hw.training import step_of

    model = tg.nn.Linear(3, 2, rng=0)
    compiled = tg.compile(step_of(model, tg.optim.SGD(model.parameters(), lr=0.1)))
    for _ in range(5):
        compiled(np.ones((4, 3)), np.zeros(4, int))
    assert len(compiled.programs) == 2


def test_the_first_call_gives_the_numbers_of_the_back_end(backend):
    model, _, step = training(lambda p: tg.optim.SGD(p, lr=0.1))
    other, _, again = training(lambda p: tg.optim.SGD(p, lr=0.1))
    compiled, warm = tg.compile(step, backend=backend), tg.compile(again, backend=backend)
    before = other.state_dict()
    warm(*batch())
    other.load_state_dict(before)
    assert compiled(*batch()).item() == warm(*batch()).item()
    for name, value in model.state_dict().items():
        assert np.array_equal(value, other.state_dict()[name]), name


def test_what_is_written_in_place_is_read_before(backend):
    class Odd(tg.optim.Optimizer):
        """Its memory is overwritten by one long operation, and its old value goes into another."""

        def update(self, p, g, memory):
            old = memory.setdefault("m", np.linspace(-1, 1, p.size, dtype=p.dtype))
            before = old.copy()
            np.tanh(old, out=old)
            p -= self.lr * np.exp(before)

    def run(compiled):
        w = tg.Tensor(np.linspace(-1, 1, 5000, dtype=np.float32), requires_grad=True)
        optimizer = Odd([w], lr=0.5)

        def step():
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()

        step = tg.compile(step, backend=backend) if compiled else step
        for _ in range(4):
            step()
        return w.numpy(), optimizer.memory[0]["m"]

    for one, other in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_squares_of_what_is_read_in_some_order_are_run_as_recorded(backend, capsys):
    class Scaled(tg.optim.Optimizer):
        """By the length of the gradient, whose order is given by its place or by its name."""

        def update(self, p, g, memory):
            print("called")
            length = np.vdot(g.ravel("K"), g.ravel("K")) + np.vdot(g.ravel(), g.ravel(order="C"))
            p -= self.lr * g / np.sqrt(length)

    w = tg.Tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True)
    optimizer = Scaled([w], lr=0.5)

    def step():
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()

    compiled = tg.compile(step, backend=backend)
    for _ in range(4):
        before = w.numpy()
        compiled()
        np.testing.assert_allclose(
            w.numpy(), before - 0.5 * before / np.sqrt(2 * np.sum(before**2)), rtol=1e-6
        )
    # Only the recordings call Python.
    assert capsys.readouterr().out.count("called") == len(compiled.programs)


def test_bits_of_whole_numbers(backend):
    def bits(x):
        shifted = (x << 2) ^ (x >> 1)
        shifted |= 1 << (x & 3)
        return shifted, ~x

    compiled = tg.compile(bits, backend=backend)
    for start in (-3, 5):
        x = np.arange(start, start + 6)
        for _ in range(2):
            for one, other in zip(compiled(x), bits(x), strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_users_op_may_have_the_name_of_another(backend):
    @tg.primitive(name="reshape")
    def columns(x, *, shape):
        return np.reshape(x, shape, order="F")

    columns.rule(lambda g, y, x, *, shape: (columns(g, shape=x.shape),))

    @tg.primitive
    def ravel(x):
        return 2 * np.ravel(x)

    x = np.arange(6.0).reshape(2, 3)
    compiled = tg.compile(lambda x: (columns(x, shape=(3, 2)), ravel(x)), backend=backend)
    for _ in range(2):
        by_columns, doubled = compiled(tg.Tensor(x))
        np.testing.assert_array_equal(by_columns.numpy(), x.reshape((3, 2), order="F"))
        np.testing.assert_array_equal(doubled.numpy(), 2 * x.ravel())


@pytest.mark.parametrize("filters", [7, 8, 9])
def test_filters_in_blocks_and_what_is_left_over(filters, monkeypatch, tmp_path):
    pytest.importorskip("numba")
    pytest.importorskip("scipy")
    monkeypatch.setenv("TINYGRAD_HW_CACHE", str(tmp_path))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 5, 4, 2)).astype(np.float32)
    w = tg.Tensor(rng.normal(size=(3, 3, 2, filters)).astype(np.float32))
    compiled = tg.compile(lambda x: tg.conv2d(x, w, padding="same", stride=(1, 2)), backend="numba")
    found = [compiled(tg.Tensor(x)).numpy() for _ in range(2)]
    expected = tg.conv2d(x, w, padding="same", stride=(1, 2)).numpy()
    for one in found:
        np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)


def test_parameters_stay_where_they_are(backend):
    w, b = tg.Tensor(np.ones((3, 2)), requires_grad=True), tg.Tensor(0.5, requires_grad=True)
    optimizer = tg.optim.SGD([w, b], lr=0.1, momentum=0.9)
    before = [w.data, b.data]

    @tg.compile(backend=backend)
    def step(x):
        optimizer.zero_grad()
        loss = ((x @ w + b) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(np.ones((4, 3))).item() for _ in range(6)]
    assert len(set(losses)) == 6
    assert np.shares_memory(before[0], w.data)
    assert np.shares_memory(before[1], b.data)


def test_an_update_that_reads_what_another_has_written(backend):
    def train(compiled):
        w, v = tg.Tensor([2.0, 3.0], requires_grad=True), tg.Tensor([1.0, 1.0], requires_grad=True)

        @compiled
        def step():
            w.grad = v.grad = None
            loss = (w * w * v).sum()
            loss.backward()
            old, turned = w.data.copy(), tg.Tensor(w)[::-1]
            w.data -= 0.01 * w.grad
            v.data -= 0.01 * old * v.grad + w.data - 0.1 * turned.data
            return loss

        return [step().item() for _ in range(4)], w.tolist(), v.tolist()

    expected, found = train(lambda step: step), train(tg.compile(backend=backend))
    for a, b in zip(expected, found, strict=True):
        assert b == pytest.approx(a, rel=1e-12)


def test_a_label_out_of_range_leaves_the_parameters_alone(backend):
    w = tg.Tensor(np.ones((3, 2)), requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=0.1)

    @tg.compile(backend=backend)
    def step(x, labels):
        optimizer.zero_grad()
        loss = tg.softmax_cross_entropy(x @ w, labels)
        loss.backward()
        optimizer.step()
        return loss

    x = np.arange(12.0).reshape(4, 3)
    for _ in range(3):
        step(x, np.array([0, 1, 1, 0]))
    before = w.numpy()
    with pytest.raises(IndexError, match="label 2 at"):
        step(x, np.array([0, 1, 2, 0]))
    assert (w.numpy() == before).all()


@pytest.mark.parametrize("shape", [(40, 30), (70, 70), (300, 300), (90_000, 1), (90_000,)])
@pytest.mark.parametrize("turned", [False, True])
def test_relu_of_any_size(shape, turned):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x.flat[:3] = np.nan, -0.0, 0.0
    step = tg.compile(lambda x: tg.grad(lambda x: (tg.relu(x) ** 2).sum())(x))
    x = x.T if turned else x
    for _ in range(2):
        np.testing.assert_array_equal(step(x), np.where(x > 0, 2 * x, 0))


@pytest.mark.parametrize("window", [(1, 3), (3, 1), (2, 2), (3, 2)])
def test_pooling_over_any_window(backend, window):
    x = np.random.default_rng(0).integers(-3, 4, (2, 6, 6, 3)).astype(float)

    def gradient(x):
        return tg.grad(lambda x: (tg.max_pool2d(x, window) ** 2).sum())(x)

    compiled = tg.compile(gradient, backend=backend)
    for _ in range(2):
        np.testing.assert_allclose(compiled(x).numpy(), gradient(x).numpy())


@pytest.mark.parametrize("dtype", "efd")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_gradient_of_pooling_moves_what_is_no_number(dtype, stride, backend):
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, 7, 6, 3)).astype(dtype)
    weights = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1.0, 2.0], (2, 7, 6, 3)).astype(dtype)

    def gradient(x, weights):
        x = tg.Tensor(x, requires_grad=True)
        y = tg.max_pool2d(x, 2, stride)
        return tg.grad(y, x, weights[:, : y.shape[1], : y.shape[2]])

    compiled = tg.compile(gradient, backend=backend)
    for _ in range(2):
        got, wanted = compiled(x, weights).numpy(), gradient(x, weights).numpy()
        np.testing.assert_array_equal(got, wanted, strict=True)


def _images(kind, window):
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 6 * 6 * 3).reshape(2, 6, 6, 3) - 100.0
    h, w = window
    windows = x.reshape(2, 6 // h, h, 6 // w, w, 3).transpose(0, 1, 3, 5, 2, 4).reshape(-1, h * w)
    if kind == "equal":
        windows = rng.integers(-3, 4, windows.shape)
    if "NaN" in kind:
        windows[0, 0], windows[0, 1:] = np.nan, 50
    if kind == "NaN beside equal ones":
        # As many entries are the largest of a window as without NaN and equal ones.
        windows[1 : 1 + h * w, :2] = 500
    windows = windows.reshape(2, 6 // h, 6 // w, 3, h, w).transpose(0, 1, 4, 2, 5, 3)
    return windows.reshape(x.shape).astype(np.float32)


@pytest.mark.parametrize("window", [(2, 2), (1, 3), (3, 1)])
@pytest.mark.parametrize("kind", ["apart", "equal", "NaN", "NaN beside equal ones"])
def test_the_gradient_of_pooling_behind_a_relu(kind, window, backend):
    rng = np.random.default_rng(0)

    def gradient(x, weights):
        x = tg.Tensor(x, requires_grad=True)
        y = tg.max_pool2d(tg.relu(x), window)
        return tg.grad(y, x, weights[:, : y.shape[1], : y.shape[2]])

    compiled = tg.compile(gradient, backend=backend)
    for entries in ("apart", kind):
        x = _images(entries, window)
        weights = rng.choice([np.inf, -0.0, 1.0, -2.0], x.shape).astype(x.dtype)
        got, wanted = compiled(x, weights).numpy(), gradient(x, weights).numpy()
        np.testing.assert_array_equal(got, wanted, strict=True)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (np.sum(x, 0), x.sum(1), np.sum(x, 0, keepdims=True), np.sum(x > 0, 1)),
        lambda x: (np.max(x, 0), x.min(1), x.mean(0), np.var(x, 1), np.mean(x, 1)),
        lambda x: (np.sum(x, initial=9.0), np.max(x, axis=0, initial=9.0)),
        lambda x: (np.sum(x, where=[True, False, True]), np.mean(x, 0, where=[[True]] * 3)),
        lambda x: (np.min(x, initial=9.0, where=x > 1), np.sum(x, dtype=np.float32)),
        lambda x: (np.transpose(x, (0, 1)) + 1, x.transpose(1, 0) + 1, np.ravel(x, "F") + 1),
        lambda x: (np.reshape(x, (1, 9), order="F") + 1, np.reshape(x, (9, 1), "F") + 1),
        lambda x: (
            np.matmul(x, x, axes=[(1, 0), (0, 1), (0, 1)]),
            np.matmul(x, x, dtype=np.float32),
        ),
        lambda x: (*divmod(x, 2), *divmod(7, x + 9), round(x.sum(), 1)),
        lambda x: (np.block([[x, x + 1], [x * 2, x]]), x.clip(0), x.clip(max=2), x.clip(x.T, 3)),
    ],
)
def test_numpys_functions_by_position_and_with_options(backend, function):
    run = tg.compile(function, backend=backend)
    for x in (np.arange(9.0).reshape(3, 3) - 3, np.arange(9.0)[::-1].reshape(3, 3).copy()):
        for found, expected in zip(run(x), function(x), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, strict=True)


def test_a_sum_of_a_whole_matrix_that_keeps_its_axes_is_compiled():
    run = tg.compile(lambda x: tg.sum(x, keepdims=True))
    for x in (np.ones((3, 4)), np.arange(12.0).reshape(3, 4)):
        np.testing.assert_array_equal(run(x), x.sum(keepdims=True))
        (result,) = run._variants[0].executable.run(x)
        np.testing.assert_array_equal(result, x.sum(keepdims=True))


@pytest.mark.parametrize("axis", [0, 1, 2, (0, 1), (1, 2), (0, 2), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_over_any_axes(axis, keepdims):
    x = np.random.default_rng(0).normal(size=(4, 3, 5))
    x[1, 2, 3] = np.inf

    def total(x):
        return tg.exp(tg.sum(tg.transpose(x * 1.5, (2, 0, 1)), axis, keepdims)) + 1

    compiled = tg.compile(total, backend="numpy")
    for _ in range(2):
        np.testing.assert_allclose(compiled(x), total(x), rtol=1e-12)


def test_threads_wait_for_each_other_in_a_compiled_function(backend):
    w = tg.Tensor(np.zeros(3), requires_grad=True)
    optimizer = tg.optim.SGD([w], lr=1.0)

    @tg.compile(backend=backend)
    def step(x):
        optimizer.zero_grad()
        (w * x).sum().backward()
        optimizer.step()

    def many():
        for _ in range(200):
            step(-np.ones(3))

    step(-np.ones(3))
    threads = [threading.Thread(target=many) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(w.numpy(), np.full(3, 601.0))


def test_threads_go_back_through_one_compiled_function(backend):
    w = np.random.default_rng(0).normal(size=(30, 30))
    inputs = np.random.default_rng(1).normal(size=(2, 40, 30))

    def work(x):
        return tg.tanh(tg.tanh(x @ w) @ w).sum()

    compiled = tg.compile(work, backend=backend)
    expected, wrong = [], []
    for x in inputs:
        t = tg.Tensor(x, requires_grad=True)
        work(t).backward()
        expected.append(t.grad)

    def back(x, gradient):
        for _ in range(50):
            t = tg.Tensor(x, requires_grad=True)
            compiled(t).backward()
            if not np.allclose(t.grad, gradient):
                wrong.append(x)

    threads = [
        threading.Thread(target=back, args=pair) for pair in zip(inputs, expected, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- What a recording must not take for something else --------------------------------------------


def same_as_eagerly(function, *calls, backend="numpy"):
    """Call a compiled function and an ordinary one in turns; functions among the calls between."""
    run = tg.compile(function, backend=backend)
    for call in calls:
        if callable(call):
            call()
        else:
            found, expected = run(*call), function(*call)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


X, Y = np.array([1.0, 2.0]), np.array([3.0, 5.0])


def test_what_the_function_makes_begins_anew_at_each_call():
    def accumulate(x):
        total = tg.Tensor(np.zeros(2))
        for _ in range(2):
            total += x
        total[0] = total[1] + 1
        return total

    def train(x):
        w = tg.Tensor([0.0, 0.0], requires_grad=True)
        optimizer = tg.optim.Adam([w], lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            ((w - x) ** 2).sum().backward()
            optimizer.step()
        w.data -= 0.1 * w.grad
        return w

    for function in (accumulate, train):
        same_as_eagerly(function, (tg.Tensor(X),), (tg.Tensor(Y),), (tg.Tensor(X),))


def test_arrays_that_the_function_writes_to_are_taken_as_they_were():
    def shift(x):
        buffer = np.zeros(2)
        y = x + buffer
        buffer += 1
        return y + buffer

    def one_hot(x):
        mask = np.zeros(2)
        y = x * 0
        for i in range(2):
            mask[i] = 1
            y = y + (x * mask).sum() * (mask + i)
            mask[i] = 0
        return y

    for function in (shift, one_hot):
        same_as_eagerly(function, (tg.Tensor(X),), (tg.Tensor(Y),))


@pytest.mark.parametrize(
    "write",
    [
        lambda y, x: np.add.at(y, np.array([0, 0, 1]), x[0]),
        lambda y, x: np.copyto(y, x[::-1]),
        lambda y, x: np.copyto(y, 1.0, where=x > 1),
        lambda y, x: np.fill_diagonal(y, x[0]),
        lambda y, x: (np.copyto(y, np.nan, where=x > 1), np.nan_to_num(y, copy=False)),
        lambda y, x: (np.copyto(y, np.inf, where=x > 1), np.nan_to_num(y, False, posinf=7.0)),
        lambda y, x: np.put(y, [0, 3], x[1]),
        lambda y, x: np.putmask(y, x > 1, 0),
        lambda y, x: np.place(y, x > 1, [7.0]),
        lambda y, x: np.put_along_axis(y, np.array([[0], [1]]), 7.0, axis=1),
        lambda y, x: np.divide(1.0, x, out=y, where=x != 0),
        lambda y, x: np.dot(x, x, y),
        lambda y, x: np.cumsum(x, 0, None, y),
        lambda y, x: np.cumsum(x, axis=1, out=y),
    ],
)
def test_functions_of_numpy_that_write_in_place(backend, write):
    def function(x):
        y = x * 2
        write(y, x)
        write(x, y)
        return y, y + x

    run = tg.compile(function, backend=backend)
    for start in (0.0, 1.0):
        given, expected = (np.arange(4.0).reshape(2, 2) + start for _ in range(2))
        for found, wanted in zip(run(given), function(expected), strict=True):
            np.testing.assert_allclose(found, wanted, strict=True)
        np.testing.assert_allclose(given, expected)


def halve_rows(x):
    for row in x:
        row *= 0.5


def write_below_below(x):
    x[1:][0] *= 2
    x[0][1] = 5
    x[..., None][0] -= 1


def write_by_a_name(x):
    row = x[1]
    row *= 2
    row += x[0]
    row[0] = 4
    x[0] = row * 3


def write_by_functions(x):
    np.clip(x[0], -1, 1, out=x[0])
    np.copyto(x[1], x[0])
    x[1:] -= x[:-1]


@pytest.mark.parametrize(
    "write", [halve_rows, write_below_below, write_by_a_name, write_by_functions]
)
def test_a_part_of_an_array_is_written_to_in_place(backend, write):
    def train(wrap):
        w = tg.Tensor(np.arange(6.0).reshape(2, 3) / 5, requires_grad=True)

        def step(x):
            w.grad = None
            ((w * x) ** 2).sum().backward()
            write(w.grad)
            write(x)
            w.data[0] -= 0.1 * w.grad[0]
            return w.grad * 1, w.data.sum()

        step, found = wrap(step), []
        for k in range(4):
            x = np.arange(6.0).reshape(2, 3) - k
            found += [*step(x), x, w.numpy()]
        return found

    found = train(lambda f: tg.compile(f, backend=backend))
    for one, wanted in zip(found, train(lambda f: f), strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_what_is_read_at_a_number_that_changes_is_a_view(backend, dtype):
    def write(x, at, last):
        row = x[at[0]]
        row += 1.0
        copy = x[:, last]
        copy *= 9
        column = x[:, at.max() - 1]
        column -= 0.5
        x[at[1]][1:] = 5.0
        return x.sum(), copy

    run = tg.compile(write, backend=backend)
    for start in (0, 1, 0):
        at, last = np.array([1, start, 2 - start], dtype), np.array(2 - start, dtype)
        x, wanted = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3)
        for one, other in zip(run(x, at, last), write(wanted, at, last), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(x, wanted)


def test_what_reads_entries_to_begin_with_waits_for_them(backend):
    def function(x, i):
        y, j = x * 2, i + 1
        inverse = np.linalg.inv(np.eye(3) + np.outer(y[:3], y[:3]))
        return y[j] + 1, np.choose(j % 2, [y[:3], y[3:]]) + 1, inverse + 1

    run = tg.compile(function, backend=backend)
    for k in range(3):
        given = np.arange(6.0) + k, np.array([k, 0, 1])
        for found, expected in zip(run(*given), function(*given), strict=True):
            np.testing.assert_allclose(found, expected)


def test_a_view_at_a_number_that_changes_is_not_read_after_a_write():
    x = tg.Tensor(np.ones((3, 2)), requires_grad=True)
    sgd = tg.optim.SGD([x], lr=0.1)

    def step(at):
        x.grad = None
        row = x[at]
        (row * row).sum().backward()
        sgd.step()
        return row

    def double(a, at):
        column = a[:, at[0]]
        a *= 2
        return column

    for function, args in (
        (step, [np.array(1)]),
        (double, [np.ones((2, 3)), np.array([1])]),
        (lambda a, at: double(a, at[np.newaxis]), [np.ones((2, 3)), np.array(1)]),
    ):
        with pytest.raises(CompileError, match="shares its memory was written to"):
            tg.compile(function)(*args)


def test_a_function_of_numpy_that_gives_nothing_is_refused(tmp_path):
    with pytest.raises(CompileError, match=r"save, which gives nothing, .* call it outside"):
        tg.compile(lambda x: np.save(tmp_path / "x", x))(X)
    with pytest.raises(CompileError, match="copyto, which gives nothing"):
        tg.compile(lambda x: np.copyto(dst=x * 1, src=x))(X)


def test_what_objects_among_the_arguments_hold_is_guarded():
    model = tg.nn.Sequential(tg.nn.Linear(2, 2, rng=0), tg.nn.Dropout(0.5, rng=0)).eval()
    run = tg.compile(lambda model, x: model(x))
    np.testing.assert_array_equal(run(model, X), model(X))
    model[0].weight = tg.Tensor(np.ones((2, 2)))
    np.testing.assert_array_equal(run(model, X), model(X))
    model.train()
    assert (run(model, np.ones((50, 2))) == 0).any()
    with pytest.raises(CompileError, match="random numbers were drawn"):
        tg.compile(lambda rng, x: x + rng.normal(size=2))(np.random.default_rng(0), X)


def test_an_argument_may_be_in_the_closure_too():
    w = tg.Tensor([10.0, 10.0])
    run = tg.compile(lambda x: x * w)
    for x in (w, tg.Tensor(X), w):
        np.testing.assert_array_equal(run(x).numpy(), x.numpy() * 10)
    v, w = tg.Tensor(X, requires_grad=True), tg.Tensor(Y, requires_grad=True)

    @tg.compile
    def step(x):
        x.zero_grad()
        w.zero_grad()
        (x * w).sum().backward()

    for _ in range(2):
        step(v)
    for _ in range(2):
        step(w)
    np.testing.assert_array_equal(w.grad, 2 * Y)


class Scale:
    factor = 2.0


class Slotted:
    __slots__ = ("factor",)


class Halved(tg.nn.Dropout):
    def hello(self):
        return self.p


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [
        (Scale, "factor", 3.0),
        (Scale(), "factor", 3.0),
        (Slotted(), "factor", 4.0),
        (Halved(0.5, rng=0), "training", False),
    ],
    ids=["class", "object", "slots", "module"],
)
def test_attributes_wherever_they_are_kept_are_guarded(owner, name, value):
    if isinstance(owner, Slotted):
        owner.factor = 2.0
    before = getattr(owner, name)

    def function(x):
        return x * owner.factor if name == "factor" else owner(x)

    run = tg.compile(function)
    run(X)
    setattr(owner, name, value)
    np.testing.assert_array_equal(run(X), function(X))
    setattr(owner, name, before)


def test_a_label_out_of_range_is_named_while_recording_too():
    run = tg.compile(lambda x, labels: tg.softmax_cross_entropy(x, labels))
    with pytest.raises(IndexError, match=r"label 5 at \(0,\) is out of range"):
        run(np.eye(2), np.array([5, 0]))


def test_a_method_that_is_replaced_is_noticed():
    class Model:
        def scaled(self, x):
            return x * 2

    model = Model()
    run = tg.compile(lambda x: model.scaled(x))
    run(X)
    Model.scaled = lambda self, x: x * 3
    np.testing.assert_array_equal(run(X), 3 * X)


def test_a_count_kept_on_a_class_goes_on():
    class Calls:
        count = 0

    @tg.compile(limit=3)
    def f(x):
        Calls.count += 1
        return x * Calls.count

    for i in range(1, 4):
        np.testing.assert_array_equal(f(X), X * i)
    Calls.count = 0
    np.testing.assert_array_equal(f(X), X)
    assert Calls.count == 1


@pytest.mark.filterwarnings("error")
def test_what_does_not_change_the_program_records_nothing_again():
    class Net(tg.nn.Module):
        def __init__(self):
            self.w = tg.Tensor(X, requires_grad=True)

        @classmethod
        def build(cls):
            return cls()

        def forward(self, x):
            return (self.w * x).sum()

    class Trainer:
        def __init__(self):
            self.net = Net.build()
            self.optimizer = tg.optim.Adam(self.net.parameters(), lr=0.1)
            self.steps = 2

        @tg.compile
        def train(self, x):
            for _ in range(self.steps):
                self.optimizer.zero_grad()
                loss = self.net(x)
                loss.backward()
                self.optimizer.step()
            return loss

        @tg.compile
        def evaluate(self, x):
            return self.net(x)

    trainer = Trainer()
    for _ in range(12):
        trainer.train(Y)
        trainer.evaluate(Y)
        trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())
        # As when the other of two networks learns.
        trainer.net.w.requires_grad = False
        trainer.net.w.requires_grad = True
        trainer.net.w.register_hook(lambda g: g)()
    assert trainer.optimizer.steps == 24
    assert len(trainer.evaluate.programs) <= 2


def test_numbers_that_somebody_keeps_have_values():
    kept, w = [], tg.Tensor(X, requires_grad=True)

    @tg.compile
    def step():
        w.grad = None
        (w * w).sum().backward()
        kept.append(tg.optim.clip_grad_norm([w], 1.0))

    step()
    assert f"{kept[0]:.3f}" == f"{np.linalg.norm(2 * X):.3f}"
    without = tg.Tensor(X, requires_grad=True)
    found = tg.compile(lambda x: x * tg.optim.clip_grad_norm([without], 1.0))(X)
    np.testing.assert_array_equal(found, 0 * X)


def test_any_generator_in_reach_is_watched():
    generator = np.random.RandomState(np.random.PCG64(0))
    run = tg.compile(lambda x: x * 2 if generator is not None else x)
    np.testing.assert_array_equal(run(X), 2 * X)


def test_flags_that_the_function_sets_are_set_at_each_call():
    model = tg.nn.Dropout(0.5, rng=0)

    @tg.compile
    def step(x):
        model.train()
        return model(x)

    for _ in range(3):
        model.eval()
        assert (step(np.ones(50)) == 0).any()
        assert model.training


def test_sets_and_long_tables_are_guarded():
    chosen, table, model = {1}, {i: str(i) for i in range(30_000)}, tg.nn.Dropout(0.5, rng=0)

    def function(x):
        return model(x) * len(chosen) * len(table[5])

    same_as_eagerly(
        function,
        model.eval,
        (X,),
        lambda: chosen.add(2),
        (X,),
        lambda: table.update({5: "ab"}),
        (X,),
    )
    run = tg.compile(function)
    run(X)
    model.train()
    assert (run(np.ones(50)) == 0).any()


def test_defaults_and_signed_zeros_are_guarded():
    def divide(x, k=1.0):
        return x / k

    with np.errstate(divide="ignore"):
        same_as_eagerly(divide, (X, 0.0), (X, -0.0), (X, np.nan))
    run = tg.compile(divide)
    run(X)
    divide.__defaults__ = (2.0,)
    np.testing.assert_array_equal(run(X), X / 2)


def test_a_name_that_is_not_bound_yet_hides_no_argument():
    def make():
        def function(x, k):
            return later if x is None else x * k

        run = tg.compile(function)
        found = [run(X, 2.0), run(X, 3.0)]
        later = 1
        return found

    np.testing.assert_array_equal(make(), [2 * X, 3 * X])


def test_learning_rates_and_counts_that_the_function_reads_are_not_frozen():
    def training(wrap):
        w = tg.Tensor(X, requires_grad=True)
        optimizer = tg.optim.SGD([w], lr=0.1)

        @wrap
        def step():
            optimizer.zero_grad()
            (w * w).sum().backward()
            w.data -= optimizer.lr * w.grad
            optimizer.step()
            return w * optimizer.steps

        found = []
        for _ in range(5):
            found.append(step().numpy())
            optimizer.lr *= 0.5
        return found

    np.testing.assert_allclose(training(tg.compile), training(lambda step: step))
    optimizer = tg.optim.SGD([tg.Tensor(X, requires_grad=True)], lr=0.1)
    with pytest.raises(CompileError, match=r"bool\(\) of a recorded"):
        tg.compile(lambda x: x if optimizer.steps < 3 else -x)(X)


def test_hooks_that_come_and_go_are_noticed():
    w = tg.Tensor(X, requires_grad=True)

    @tg.compile
    def step():
        w.grad = None
        (w * w).sum().backward()

    def gradient():
        step()
        return w.grad.copy()

    np.testing.assert_array_equal(gradient(), 2 * X)
    remove = w.register_hook(lambda g: g * 100)
    for _ in range(2):
        np.testing.assert_array_equal(gradient(), 200 * X)
    remove()
    np.testing.assert_array_equal(gradient(), 2 * X)


def test_modes_around_a_call_hold():
    w = tg.Tensor(X, requires_grad=True)
    run = tg.compile(lambda: tg.log(w))
    with tg.no_grad():
        assert not run().requires_grad
    assert run().requires_grad
    with tg.no_grad():
        assert not run().requires_grad
    w.data[...] = -1
    with tg.debug(), pytest.raises(FloatingPointError, match="log"):
        run()


def test_tensors_that_somebody_keeps_have_values():
    kept = []

    @tg.compile
    def function(x):
        kept.append(x * 2)
        return x * 3

    function(tg.Tensor(X))
    np.testing.assert_array_equal(kept[0].numpy(), 2 * X)
    assert repr(kept[0] + 1) == "Tensor([3., 5.])"


def test_a_refused_recording_leaves_the_model_as_it_was():
    model = tg.nn.Linear(2, 2, rng=0)

    @tg.compile
    def step(x):
        model.weight.requires_grad = False
        loss = model(x).sum()
        loss.backward()
        return loss

    with pytest.raises(CompileError, match="given another graph"):
        step(np.ones((1, 2)))
    assert model.weight.requires_grad
    for p in model.parameters():
        assert type(p.numpy()) is np.ndarray
        assert p.grad is None


def test_copies_of_an_object_have_programs_of_their_own():
    class Model:
        def __init__(self):
            self.w = tg.Tensor(X)

        @tg.compile
        def scaled(self, x):
            return x * self.w

    model = Model()
    np.testing.assert_array_equal(model.scaled(Y), X * Y)
    for copied in (copy.copy(model), copy.deepcopy(model)):
        copied.w = tg.Tensor(Y)
        np.testing.assert_array_equal(copied.scaled(Y), Y * Y)
    assert model.scaled is model.scaled


def test_arrays_are_arrays_to_the_function():
    same_as_eagerly(lambda x: x / 255 if isinstance(x, np.ndarray) else x, (X,), (Y,))


def test_arguments_that_share_memory_are_written_to_eagerly():
    def function(a, b):
        a[0] = 100.0
        return b * 2

    run = tg.compile(function)
    with pytest.raises(CompileError, match="shares its memory was written to"):
        run(a := X.copy(), a[:1])
    assert run(X.copy(), Y).tolist() == [6, 10]
    a = X.copy()
    np.testing.assert_array_equal(run(a, a[::-1]), [4, 200])
    np.testing.assert_array_equal(a, [100, 2])


def test_an_argument_that_comes_twice_is_one_array(backend):
    def function(x, y):
        x += 1
        return x * y

    run = tg.compile(function, backend=backend)
    for _ in range(3):
        x, y = X.copy(), X.copy()
        np.testing.assert_array_equal(run(x, x), (X + 1) ** 2)
        np.testing.assert_array_equal(x, X + 1)
        np.testing.assert_array_equal(run(y, X), (X + 1) * X)


def test_arrays_of_objects_are_refused(backend):
    run = tg.compile(lambda x: x * 2 + x[0], backend=backend)
    with pytest.raises(CompileError, match="holds objects of Python; want numbers"):
        run(X.astype(object))
    with pytest.raises(CompileError, match="holds objects of Python"):
        tg.compile(lambda x: x.astype(object) * 2, backend=backend)(X)


def test_masked_arrays_are_refused():
    with pytest.raises(CompileError, match="argument 0 is a MaskedArray"):
        tg.compile(lambda x: x * 2)(np.ma.array(X, mask=[True, False]))


def test_what_cannot_be_compiled_is_said():
    with pytest.raises(TypeError, match="got a generator"):
        tg.compile(lambda x: (yield x))
    for limit in (0, "3", None):
        with pytest.raises(ValueError, match=f"limit is {limit!r}; want a whole number"):
            tg.compile(lambda x: x, limit=limit)
    with pytest.raises(ValueError, match="not recorded yet"):
        tg.compile(lambda x: x).graph()
    with pytest.raises(CompileError, match="returns a Slotted that it made"):
        tg.compile(lambda x: Slotted())(X)
    assert tg.compile(lambda x: np.float32)(X) is np.float32
    run = tg.compile(functools.partial(np.multiply, 2))
    np.testing.assert_array_equal(run(X), 2 * X)
    assert repr(run) == "<compiled partial, 1 recorded>"


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda b: (b * 1.0) + ((b + b) * 1.0), [np.array([True, False])]),
        (lambda b: (b + b) > b, [np.array([True, False])]),
        (lambda n: (n != -1) * 1.0, [np.array([0, 1, 255], np.uint8)]),
        (lambda n: (n < 300) * 1.0, [np.array([0, 1, 255], np.uint8)]),
        (lambda n: ((n + n) > n) * 1.0, [np.array([100, -100], np.int8)]),
        (lambda a, b: a == b, [np.array([2**63 - 1, -1, 5]), np.array([2**63, 1, 5], np.uint64)]),
    ],
)
def test_native_whole_numbers_and_truth_values_are_numpys(function, args):
    pytest.importorskip("numba")
    found, expected = tg.compile(function, backend="numba")(*args), function(*args)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_write_to_what_the_pullback_kept_is_noticed():
    k, x = tg.Tensor(X), tg.Tensor(Y, requires_grad=True)
    run = tg.compile(lambda x: tg.exp(x))
    times = tg.compile(lambda x, k: x * k)
    closed = tg.compile(lambda x: x * k)
    for _ in range(2):
        own = run(x)
        for y, written in ((own, own), (times(x, k), k), (closed(x), k)):
            written.data[...] = 0
            with pytest.raises(GraphError, match="written to in place"):
                y.sum().backward()
            k.data[...] = X


def test_a_write_to_another_output_changes_no_gradient():
    @tg.compile
    def function(x):
        y = tg.exp(x)
        return y, y * y

    x = tg.Tensor(X, requires_grad=True)
    for _ in range(2):
        x.grad = None
        y, z = function(x)
        y.data[...] = 0
        z.sum().backward()
        np.testing.assert_allclose(x.grad, 2 * np.exp(2 * X))


@pytest.mark.parametrize("shape", [(1, 2), (2,)])
def test_a_write_to_what_was_multiplied_by_ones_changes_no_gradient(shape):
    w = tg.Tensor(np.zeros(shape), requires_grad=True)
    run = tg.compile(lambda x: x.reshape(shape) * np.ones(shape) * w)
    for _ in range(2):
        w.grad, x = None, X.copy()
        y = run(x)
        x[...] = 7
        y.sum().backward()
        np.testing.assert_array_equal(w.grad, X.reshape(shape))


@pytest.mark.parametrize("same", [np.exp, lambda y: y * np.ones_like(X)])
def test_a_write_to_what_a_tensor_was_given_changes_no_gradient(same):
    kept, w = tg.Tensor(X), tg.Tensor(Y, requires_grad=True)

    @tg.compile
    def run(x):
        kept.data = np.exp(x)
        return same(x if same is np.exp else kept.data) * w

    for _ in range(2):
        w.grad = None
        y = run(X)
        kept.data[...] = 0
        y.sum().backward()
        np.testing.assert_allclose(w.grad, np.exp(X))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_clipped_step_runs_from_its_record_and_draws_as_eagerly(dtype, backend):
    def training(wrap):
        model = tg.nn.Sequential(tg.nn.Linear(3, 3, rng=0), tg.nn.Dropout(0.5, rng=1))
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)

        def step(x, labels):
            optimizer.zero_grad()
            loss = tg.softmax_cross_entropy(model(x), labels)
            loss.backward()
            norm = tg.optim.clip_grad_norm(model.parameters(), 0.8)
            optimizer.step()
            return loss, norm

        step, found = wrap(step), []
        for k, labels in enumerate([[0, 1], [1, 2], [0, 7], [2, 2], [1, 0]]):
            try:
                loss, norm = step(np.full((2, 3), k, dtype), np.array(labels))
                assert type(norm) is float
                found.append((loss.item(), norm))
            except IndexError:
                # By then the masks were drawn.
                found.append((0, 0))
        return found, step

    found, step = training(lambda f: tg.compile(f, backend=backend))
    np.testing.assert_allclose(found, training(lambda f: f)[0], rtol=1e-5)
    # No number of a call is taken for granted, only that there is no NaN.
    assert all(value.dtype == bool or value == 2 for _, value in step.programs[0].checks)


# --- What comes later, and what moves on by itself ------------------------------------------------


class Lazy:
    """It makes its state when it is first asked, and reads a setting by its name."""

    def step(self, x):
        if not hasattr(self, "h"):
            self.h = tg.Tensor(np.zeros(2))
        self.h = tg.tanh(self.h + x * getattr(self, "scale", 1.0))
        return self.shown(self.h)

    def shown(self, h):
        return h * 2


def test_attributes_that_come_later_are_noticed():
    def lives(wrap):
        one, found = Lazy(), []
        step = wrap(one.step)
        for k in range(7):
            if k in (3, 4):
                one.scale = float(k)
            if k == 5:
                one.shown = lambda h: h * 3
            found.append(step(X).numpy())
        return found, step

    found, step = lives(tg.compile)
    np.testing.assert_array_equal(found, lives(lambda f: f)[0])
    assert "step has a new attribute, h" in step.explain()


class Counting:
    """It counts in a method that is not compiled."""

    def __init__(self):
        self.steps, self.last = 0, None

    def fit(self, x):
        self.last, self.steps = self.doubled(x), self.steps + 1

    @tg.compile
    def doubled(self, x):
        return self.twice(x)

    def twice(self, x):
        return x * 2


def test_what_a_method_that_the_function_does_not_call_counts_records_nothing_again(monkeypatch):
    one = Counting()
    for _ in range(3):
        one.fit(X)
    assert (one.steps, len(one.doubled.programs)) == (3, 1)
    monkeypatch.setattr(Counting, "twice", lambda self, x: x + x + x)
    np.testing.assert_array_equal(one.doubled(X), X * 3)


class Maker:
    def __init__(self):
        self.factor = float(SETTINGS["factor"])

    def scaled(self, x, *, times=1):
        return x * self.factor * times

    def another(self):
        return type(self)()

    @classmethod
    def made(cls):
        return cls()


SETTINGS = {"factor": 1}
MAKER = Maker()
scaled, doubled = operator.methodcaller("scaled", X), operator.methodcaller("scaled", X, times=2)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * operator.attrgetter("factor")(MAKER),
        lambda x: x + scaled(MAKER),
        lambda x: x + doubled(MAKER),
    ],
)
def test_what_getters_reach_is_guarded(function, monkeypatch):
    run = tg.compile(function)
    for k in range(1, 4):
        monkeypatch.setattr(MAKER, "factor", float(k))
        np.testing.assert_array_equal(run(X), function(X))


@pytest.mark.parametrize(
    "function",
    [lambda x: MAKER.another().scaled(x), lambda x: MAKER.made().scaled(x)],
)
def test_what_the_maker_of_another_object_reads_is_guarded(function, monkeypatch):
    run = tg.compile(function)
    for k in range(1, 4):
        monkeypatch.setitem(SETTINGS, "factor", k)
        np.testing.assert_array_equal(run(X), function(X))


def test_an_attribute_that_nobody_names_records_nothing_again():
    one = Lazy()
    run = tg.compile(lambda x: x * getattr(one, "scale", 1.0))
    for k in range(5):
        run(X)
        setattr(one, f"note{k}", k)
    assert len(run.programs) == 1


def numbered():
    """Batches, one after the other."""
    i = 0
    while True:
        i += 1
        yield X * i


@pytest.mark.parametrize(
    "iterator",
    [
        lambda: iter([X, Y]),
        numbered,
        lambda: (a * 2 for a in [X, Y]),
        lambda: zip(numbered(), [1, 2], strict=False),
        itertools.count,
        lambda: csv.reader(["1", "2"]),
    ],
    ids=["list", "generator", "expression", "zip", "count", "unpicklable"],
)
def test_taking_from_an_iterator_is_refused(iterator):
    batches = iterator()
    with pytest.raises(CompileError, match=r"takes from batches, .*pass it as an argument"):
        tg.compile(lambda x: x if next(batches) is None else x + 1)(X)


def test_an_iterator_that_somebody_else_takes_from_records_nothing_again():
    batches = numbered()
    run = tg.compile(lambda x: x * 2 if batches is not None else x)
    for _ in range(3):
        run(next(batches))
    assert len(run.programs) == 1


def knows_itself():
    """A generator among whose variables it is itself."""

    def numbers():
        while me is not None:
            yield 1

    me = numbers()
    return me


class Workers:
    """Batches that other processes make, as a library's loader."""

    __module__ = "logging"

    def __iter__(self):
        return self

    def __next__(self):
        return 1

    def __reduce__(self):
        raise NotImplementedError("cannot be pickled")


@pytest.mark.parametrize("iterator", [knows_itself, Workers])
def test_an_iterator_of_any_kind_in_reach_is_nobodys_business(iterator):
    batches = iterator()
    run = tg.compile(lambda x: x * 2 if batches is not None else x)
    for _ in range(2):
        np.testing.assert_array_equal(run(X), X * 2)
        next(batches)
    assert len(run.programs) == 1


def test_numbers_of_a_generator_of_python_are_refused():
    generator = random.Random(0)
    with pytest.raises(CompileError, match="random numbers were drawn"):
        tg.compile(lambda x: x * generator.random())(X)


def test_the_generator_of_the_system_in_reach_is_nobodys_business():
    generator = random.SystemRandom()
    run = tg.compile(lambda x: x * 2 if generator is not None else x)
    np.testing.assert_array_equal(run(X), X * 2)


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_dropout_draws_from_generators_of_every_kind(kind):
    one, other = (np.random.Generator(kind(0)) for _ in range(2))
    run = tg.compile(lambda x: tg.dropout(x, 0.5, one))
    for _ in range(3):
        np.testing.assert_array_equal(run(np.ones(50)), tg.dropout(np.ones(50), 0.5, other))


def test_dropout_of_a_seed_and_of_none(backend):
    seeded = tg.compile(lambda x: tg.dropout(x, 0.5, 3), backend=backend)
    fresh = tg.compile(lambda x: tg.dropout(x, 0.5), backend=backend)
    masks = []
    for _ in range(3):
        np.testing.assert_array_equal(seeded(np.ones(50)), tg.dropout(np.ones(50), 0.5, 3))
        masks.append(fresh(np.ones(50)).tolist())
    assert masks[0] != masks[1] != masks[2]


FACTOR = [1.0]


class OfEveryKind:
    """Each way to compute reads a value in a place of its own."""

    @property
    def factor(self):
        return FACTOR[0]

    @staticmethod
    def static(x):
        return x * FACTOR[0]

    @tg.compile
    def compiled(self, x):
        return x * FACTOR[0]


class Made:
    def __call__(self, x):
        return x * FACTOR[0]


@pytest.mark.parametrize(
    "use",
    [
        lambda one, x: x * one.factor,
        lambda one, x: one.static(x),
        lambda one, x: one.compiled(x),
        lambda _, x: Made()(x),
    ],
    ids=["property", "static", "compiled", "made"],
)
def test_code_that_runs_without_being_a_plain_method_is_followed(use):
    one = OfEveryKind()
    run = tg.compile(lambda x: use(one, x))
    for FACTOR[0] in (1.0, 2.0, 3.0):
        np.testing.assert_array_equal(run(tg.Tensor(X)).numpy(), X * FACTOR[0])


def test_a_method_of_a_container_is_followed():
    settings = {"scale": 1.0}
    setting = settings.get
    run = tg.compile(lambda x: x * setting("scale"))
    for scale in (1.0, 2.0):
        settings["scale"] = scale
        np.testing.assert_array_equal(run(X), X * scale)


def test_the_sign_of_a_zero_in_an_array_from_outside_is_guarded():
    zero = np.array([0.0])
    with np.errstate(divide="ignore"):
        same_as_eagerly(lambda x: x / zero, (X,), lambda: np.negative(zero, zero), (X,))


def test_scalars_of_numpy_come_out_as_scalars(backend):
    def function(x):
        return x.sum(), np.linalg.norm(x), x[0], tg.sum(x), x[:1]

    run = tg.compile(function, backend=backend)
    for _ in range(2):
        found, expected = run(X), function(X)
        assert [type(y) for y in found] == [type(y) for y in expected]
        assert round(found[1], 3) == round(expected[1], 3)


def test_truth_values_of_numpys_functions_come_out_as_such():
    run = tg.compile(lambda x: np.allclose(x, 1))
    assert [bool(run(np.full(3, value))) for value in (1.0, 2.0)] == [True, False]
    assert np.isscalar(run(np.ones(3)))


def test_copies_inside_a_function_are_recorded():
    model = tg.nn.Linear(2, 2, rng=0, dtype=float)

    def function(x):
        fast, flat = copy.deepcopy(model), copy.copy(x).flatten()
        loss = (fast(x) ** 2).sum()
        loss.backward()
        for p in fast.parameters():
            p.data -= 0.1 * p.grad
        flat[0] = 5.0
        return loss, (fast(x) ** 2).sum(), flat, x

    run = tg.compile(function)
    for k in range(3):
        x = np.eye(2) + k
        for found, expected in zip(run(x), function(x), strict=True):
            np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("use", "advice"),
    [
        (lambda x: np.asarray(x, np.float32), r"x\.astype\(dtype\)"),
        (lambda x: np.zeros(2) + np.split(x, 2)[0], r"take the parts one by one"),
        (lambda x: operator.iadd(np.zeros(2), x), r"begin with one that is, as np\.zeros_like"),
        (lambda x: x.tobytes(), r"\.tobytes of an array is not recorded"),
        (lambda x: pickle.dumps(x), "pickle of a recorded"),
    ],
)
def test_what_is_refused_says_what_to_use_instead(use, advice):
    with pytest.raises((CompileError, AttributeError), match=advice):
        tg.compile(use)(X)


def test_what_shares_memory_with_what_was_written_to_is_not_read_as_it_was():
    w = tg.Tensor(X, requires_grad=True)
    sgd = tg.optim.SGD([w], lr=0.5)
    with tg.no_grad():
        turned = w[::-1]

    def step(late):
        sgd.zero_grad()
        loss = (w * turned).sum()
        loss.backward()
        sgd.step()
        return turned * 1.0 if late else loss

    def twice(a, b):
        a[0] = 100.0
        return b * 2

    whole = X.copy()
    for function, args in (
        (step, [True]),
        (twice, [whole, whole[:]]),
        (twice, [whole, whole[::-1]]),
    ):
        with pytest.raises(CompileError, match="shares its memory was written to"):
            tg.compile(function)(*args)
    np.testing.assert_array_equal(tg.compile(twice)(*[tg.Tensor(X)] * 2), [200, 4])
    run, before = tg.compile(step), w.numpy()
    assert run(False).item() == before @ before[::-1]


class Attributes(dict):
    """Its entries are attributes too."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict, Attributes])
def test_mappings_keep_their_kind(kind):
    @tg.compile
    def function(batch):
        x = batch.x if isinstance(batch, Attributes) else batch["x"]
        return kind(twice=x * 2)

    for x in (X, Y):
        found = function(kind(x=x))
        assert type(found) is kind
        np.testing.assert_array_equal(found["twice"], x * 2)


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (lambda batch: batch.pop("x"), {"x": X, "y": Y}),
        (lambda batch: batch.update(z=batch["x"] * 2), {"x": X}),
        (lambda batch: batch.append(batch[0]), [X]),
        (lambda batch: batch.reverse(), [X, Y]),
    ],
)
def test_a_changed_container_among_the_arguments_is_refused(change, given):
    with pytest.raises(CompileError, match="changes a list or a dict among its arguments"):
        tg.compile(change)(given)
    assert len(given) in (1, 2)


def test_code_that_is_loaded_again_is_noticed():
    def scaled(x):
        return x * 2

    run = tg.compile(lambda x: scaled(x))
    run(X)
    scaled.__code__ = (lambda x: x * 3).__code__
    np.testing.assert_array_equal(run(X), X * 3)


@tg.primitive
def gated(x, gate):
    return x * gate


@gated.rule(keeps="x gate")
def _(g, y, x, gate):
    # Nobody asks for the second: the gate is a constant.
    return g * gate, g * x


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: tg.floor(x),
        lambda x, w: tg.sign(x) + w,
        lambda x, w: gated(x, tg.Tensor(Y)) * w,
        lambda x, w: tg.Tensor(X, requires_grad=True) * 2,
    ],
    ids=["zero", "zero and one", "unused", "of its own"],
)
def test_gradients_that_are_zero_unused_or_nobodys(function, backend):
    w = tg.Tensor(Y, requires_grad=True)

    def gradients(run):
        x = tg.Tensor(X, requires_grad=True)
        w.grad = None
        run(x, w).sum().backward()
        return x.grad, w.grad

    run = tg.compile(function, backend=backend)
    for _ in range(2):
        for found, expected in zip(gradients(run), gradients(function), strict=True):
            assert (found is None) == (expected is None)
            np.testing.assert_array_equal(found, expected)


def test_a_leaf_that_the_function_makes_comes_out_as_a_leaf(backend):
    def attacked(x):
        leaf = tg.Tensor(x, requires_grad=True, name="image")
        (leaf**2).sum().backward()
        return leaf, tg.Tensor(x * 2, requires_grad=True)

    run = tg.compile(attacked, backend=backend)
    for x in (X, Y):
        leaf, other = run(x)
        assert leaf.is_leaf
        assert leaf.name == "image"
        np.testing.assert_array_equal(leaf.grad, 2 * x)
        assert other.grad is None
        (other * 3).sum().backward()
        np.testing.assert_array_equal(other.grad, [3, 3])


def test_explain_says_in_words_what_is_different():
    model = tg.nn.Sequential(tg.nn.Linear(2, 2, rng=0), tg.relu).name_parameters()

    @tg.compile
    def step(x):
        model(x).sum().backward()

    for layers in ([*model.layers], [model.layers[0], tg.tanh], [tg.nn.Linear(2, 2), tg.tanh]):
        model.layers[:] = layers
        step(np.ones((1, 2)))
    text = step.explain()
    assert "model.layers[1] changed from relu to tanh" in text
    assert "model.layers[0] is another Linear" in text
    step(np.ones((1, 2)))
    assert ": whether it has a gradient was False, is True" in step.explain()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_hooks_of_what_goes_in_are_called_once(backend):
    w = tg.Tensor(Y, requires_grad=True)
    w.register_hook(lambda g: g * 2)

    def function(x):
        y = tg.log(w * x)
        y.register_hook(lambda g: g + 1)
        return y * x

    def gradients(run, values):
        x = tg.Tensor(values, requires_grad=True)
        x.register_hook(lambda g: g * 3)
        w.grad = None
        run(x).sum().backward()
        return x.grad, w.grad

    run = tg.compile(function, backend=backend)
    # The last is left to the function itself: its gradient has NaN.
    for values in (X, Y, [0.0, 1.0]):
        for found, expected in zip(
            gradients(run, values), gradients(function, values), strict=True
        ):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_hooks_reach_is_guarded():
    w, scale = tg.Tensor(X, requires_grad=True), [1.0]
    w.register_hook(lambda g: g * scale[0])

    @tg.compile
    def step(x):
        w.grad = None
        (w * x).sum().backward()

    for scale[0] in (1.0, 1.0, 2.0, 3.0):
        step(Y)
        np.testing.assert_array_equal(w.grad, Y * scale[0])


def test_threads_record_functions_of_one_model():
    model = tg.nn.Linear(8, 8, rng=0, dtype=float)
    x = np.ones((4, 8))
    expected, wrong = model(x).numpy(), []

    def work(k):
        for _ in range(20):
            run = tg.compile(lambda x: model(x) * k)
            for _ in range(2):
                if not np.allclose(run(x).numpy(), expected * k):
                    wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert not wrong


def test_a_recording_waits_for_what_runs_on_tensors_that_it_reaches():
    """Two models in one list: each function reaches both."""
    weights = [tg.Tensor(np.ones(2), requires_grad=True) for _ in range(3)]
    optimizers = [tg.optim.Adam([w], lr=0.01) for w in weights]

    def step_of(k, seconds):
        def step(x):
            time.sleep(seconds)
            optimizers[k].zero_grad()
            ((weights[k] * x) ** 2).sum().backward()
            optimizers[k].step()

        return step

    quick, slow = tg.compile(step_of(0, 0.0)), tg.compile(step_of(1, 0.05))
    quick(X)
    quick(X)
    thread = threading.Thread(target=lambda: [slow(X) for _ in range(3)])
    thread.start()
    count = 2
    while thread.is_alive():
        quick(X)
        count += 1
    thread.join()
    eager = step_of(2, 0.0)
    for k in range(count):
        eager(X)
        if k == 2:
            np.testing.assert_allclose(weights[1].numpy(), weights[2].numpy(), rtol=1e-12)
    np.testing.assert_allclose(weights[0].numpy(), weights[2].numpy(), rtol=1e-9)
    assert optimizers[0].steps == count


class Tripled:
    @tg.compile
    def triple(self, x):
        return x * 3


TRIPLED = Tripled()


@pytest.mark.parametrize(
    ("triple", "known"),
    [
        (tg.compile(lambda x: x * 3), True),
        (tg.compile(lambda x: x * 3), False),
        (lambda x: TRIPLED.triple(x), False),
    ],
)
def test_a_function_that_an_op_calls_waits_for_no_recording(triple, known, monkeypatch):
    """The recording waits for the function that the op is in."""
    inside, go = threading.Event(), threading.Event()

    @tg.primitive
    def tripled(x):
        # No guard looks there: what is recorded runs again.
        if "OP_CALLS" in os.environ:
            inside.set()
            go.wait()
            return triple(x)
        return x * 3

    run, found = tg.compile(tripled), []
    run(X)
    if known:
        triple(X)
    others = [tg.compile(lambda x: x + 1) for _ in range(8)]
    monkeypatch.setenv("OP_CALLS", "1")
    running = threading.Thread(target=lambda: found.append(run(X)), daemon=True)
    running.start()
    inside.wait()
    recording = threading.Thread(target=lambda: others[0](X), daemon=True)
    recording.start()
    recording.join(0.2)
    assert recording.is_alive()
    go.set()
    for thread in (running, recording):
        thread.join(20)
        assert not thread.is_alive()
    np.testing.assert_array_equal(found, [3 * X])
    assert len(run.programs) == len(others[0].programs) == 1


def test_a_recording_that_is_interrupted_lets_others_go_on():
    error = KeyboardInterrupt

    def stopped(x):
        raise error

    with pytest.raises(KeyboardInterrupt):
        tg.compile(stopped)(X)
    run, found = tg.compile(lambda x: x + 1), []
    thread = threading.Thread(target=lambda: found.append(run(X)), daemon=True)
    thread.start()
    thread.join(20)
    np.testing.assert_array_equal(found, [X + 1])


def test_threads_that_call_a_new_function_record_it_once():
    run, found = tg.compile(lambda x: x * 2), []
    together = threading.Barrier(8)

    def call():
        together.wait()
        found.append(run(X))

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.programs) == 1
    np.testing.assert_array_equal(found, [2 * X] * 8)


def test_zeros_of_both_signs_are_not_merged():
    def function(x):
        return 1 / (x * np.float32(0.0)), 1 / (x * np.float32(-0.0))

    run = tg.compile(function)
    with np.errstate(divide="ignore"):
        for found, expected in zip(run(tg.Tensor(X)), function(tg.Tensor(X)), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())


class Doubling:
    @tg.compile
    def step(self, x):
        return x * 2


class Plain(Doubling):
    def step(self, x):
        return super().step(x) + 1


class Compiled(Doubling):
    @tg.compile
    def step(self, x):
        return super().step(x) + 1


@pytest.mark.parametrize("kind", [Plain, Compiled])
def test_a_subclass_calls_the_compiled_method_of_its_base(kind):
    one = kind()
    for _ in range(3):
        np.testing.assert_array_equal(one.step(X), 2 * X + 1)


def test_a_method_that_is_set_on_an_object_takes_the_place_of_a_compiled_one():
    one, other = Doubling(), Doubling()
    np.testing.assert_array_equal(one.step(X), 2 * X)
    one.step = tg.compile(lambda x: x * 5)
    np.testing.assert_array_equal(one.step(X), 5 * X)
    np.testing.assert_array_equal(other.step(X), 2 * X)


class Classes:
    factor = 2.0

    @classmethod
    @tg.compile
    def scaled(cls, x):
        return x * cls.factor


class OtherClasses(Classes):
    factor = 3.0


def test_a_method_of_a_class_is_compiled(monkeypatch):
    for kind in (Classes, OtherClasses, OtherClasses()):
        for _ in range(2):
            np.testing.assert_array_equal(kind.scaled(X), X * kind.factor)
    monkeypatch.setattr(OtherClasses, "factor", 5.0)
    np.testing.assert_array_equal(OtherClasses.scaled(X), X * 5)
    with pytest.raises(TypeError, match=r"got a classmethod; .* put @tg.compile below it"):
        tg.compile(vars(Classes)["scaled"])


def test_an_object_without_room_for_its_programs_says_so():
    class Narrow:
        __slots__ = ()

        @tg.compile
        def step(self, x):
            return x * 2

    with pytest.raises(TypeError, match="Narrow has __slots__ and no place to keep"):
        Narrow().step(X)


def test_sign_and_logarithm_of_a_determinant():
    run = tg.compile(lambda a: tg.slogdet(a))
    for sign in (1.0, -1.0):
        matrix = np.diag([2.0, sign])
        for given in (matrix, tg.Tensor(matrix)):
            found, expected = run(given), tg.slogdet(given)
            assert [type(y) for y in found] == [type(y) for y in expected]
            np.testing.assert_array_equal(np.asarray(found.sign), sign)
            np.testing.assert_allclose(np.asarray(found.logabsdet), np.log(2))


# --- What the function leaves behind --------------------------------------------------------------


class Keeper:
    """It keeps what it computes, and is set back from outside."""

    def __init__(self):
        self.h, self.other, self.seen, self.array = None, X, [], np.zeros(2)

    def hold(self, x):
        h = X if self.h is None else self.h
        self.h = tg.tanh(h + tg.Tensor(x))
        return self.h

    def swap(self, x):
        self.array, self.other = self.other, self.array
        return x + self.array

    def append(self, x):
        self.seen.append((x * x).sum())
        return x

    def count(self, x):
        self.array += 1
        return x * self.array

    def reset(self):
        self.h = None
        self.seen.clear()
        self.array[...] = 0

    def state(self):
        return [self.h, self.other, *self.seen, self.array]


@pytest.mark.parametrize("name", ["hold", "swap", "append", "count"])
def test_what_the_function_leaves_behind_is_there_after_each_call(name, backend):
    """A program that a state from outside makes fit again would leave nothing."""
    one, other = Keeper(), Keeper()
    plain = getattr(one, name)
    compiled = tg.compile(getattr(other, name), backend=backend)
    for k in range(6):
        if name != "swap":
            one.reset()
            other.reset()
        np.testing.assert_array_equal(np.asarray(compiled(X * k)), np.asarray(plain(X * k)))
        for mine, wanted in zip(other.state(), one.state(), strict=True):
            np.testing.assert_array_equal(np.asarray(mine), np.asarray(wanted))
    assert "the function itself changes what it reaches" in compiled.explain()


def test_what_is_kept_of_one_recording_is_an_array_to_the_next(backend):
    kept = {"mean": np.zeros(2)}

    def averaged(x):
        kept["mean"] = x * 0.1 + kept["mean"]
        kept["mean"] += x
        return kept["mean"] * 2

    expected = [averaged(X * k) for k in range(5)]
    kept["mean"] = np.zeros(2)
    compiled = tg.compile(averaged, backend=backend)
    np.testing.assert_allclose([compiled(X * k) for k in range(5)], expected, rtol=1e-15)
    kept["mean"] += 1
    kept["mean"][0] = 7
    np.testing.assert_allclose(kept["mean"].copy(), [7, expected[-1][1] / 2 + 1], rtol=1e-15)


def test_scalars_of_numpy_do_not_change_under_another_name(backend):
    def sums(x):
        first = total = x[0]
        total += x[1]
        whole = x.sum()
        more = whole
        more *= 2
        place = np.zeros_like(whole) + whole
        return first, total, whole, more, isinstance(whole, float), isinstance(x, float), place

    same_as_eagerly(sums, (X,), (2 * X,), backend=backend)


def test_an_operation_that_fails_is_no_branch_to_record():
    def inverse(a):
        try:
            return tg.inv(a)
        except np.linalg.LinAlgError:
            return a * 0

    run = tg.compile(inverse)
    with pytest.raises(CompileError, match="inv failed, the function went on"):
        run(np.zeros((2, 2)))
    # Recorded where it does not fail, the function decides itself where it does.
    same_as_eagerly(inverse, (np.eye(2),), (np.zeros((2, 2)),), (2 * np.eye(2),))

    def either(x, w):
        try:
            return x @ w
        except ValueError:
            return x @ w.T

    same_as_eagerly(either, (tg.Tensor(np.ones((2, 3))), tg.Tensor(np.ones((2, 3)))))


def test_numbers_of_python_in_an_optimisers_memory_are_refused():
    class Own(tg.optim.Optimizer):
        def update(self, p, g, memory):
            memory["count"] = memory.get("count", 0) + 1
            p -= self.lr * g / memory["count"]

    w = tg.Tensor(X, requires_grad=True)
    optimizer = Own([w], 0.1)

    @tg.compile
    def step():
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()

    step()
    with pytest.raises(CompileError, match="Own keeps 'count' in its memory as int; keep an array"):
        step()


@pytest.mark.parametrize("kind", [functools.partial(tg.optim.SGD, momentum=0.9), tg.optim.Adam])
def test_a_memory_that_is_replaced_is_noticed(kind, backend):
    def trained(wrap):
        w = tg.Tensor([1.0, 2.0], requires_grad=True)
        optimizer = kind([w], lr=0.1)

        def step():
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()

        run = wrap(step)
        for k in range(6):
            run()
            if k == 2:
                # A count becomes a scalar, which does not change in place.
                kept = {name: value * 0 for name, value in optimizer.memory[0].items()}
                optimizer.memory[0] = kept
        return w.numpy()

    compiled = functools.partial(tg.compile, backend=backend)
    np.testing.assert_allclose(trained(compiled), trained(lambda f: f), rtol=1e-12)


# --- More places --------------------------------------------------------------------------------


def scaled_by_an_import(x):
    import settings_of_a_test

    return x * settings_of_a_test.factor


def scaled_by_an_imported(x):
    from settings_of_a_test import factor

    return x * factor


def scaled_by_a_global(x):
    return x * globals()["SETTINGS"]["factor"]


@contextlib.contextmanager
def the_factor():
    yield SETTINGS["factor"]


def scaled_in_a_context(x):
    with the_factor() as factor:
        return x * factor


def scaled_by_an_attribute(x):
    return x * scaled_by_an_attribute.factor


@functools.singledispatch
def scaled_by_kind(x):
    return x


@scaled_by_kind.register
def _(x: np.ndarray):
    return x * SETTINGS["factor"]


class Times(typing.NamedTuple):
    count: int

    def of(self, x):
        return x * self.count * SETTINGS["factor"]


class Titled(dict):
    factor = 1.0


def of_the_settings(name):
    if name not in SETTINGS:
        raise AttributeError(name)
    return SETTINGS[name]


class OfTheClass(type):
    @property
    def factor(cls):
        return SETTINGS["factor"]


class Classy(metaclass=OfTheClass):
    pass


SLOPE = tg.grad(lambda x: (x * x * SETTINGS["factor"]).sum())
PARENT, TIMES, TITLED = Maker(), Times(2), Titled()
WEAK, PROXY, VIEW = weakref.ref(PARENT), weakref.proxy(PARENT), types.MappingProxyType(SETTINGS)
LAZY, VALUES = types.ModuleType("lazy_of_a_test"), SETTINGS.values()
LAZY.__getattr__ = of_the_settings
NUMBERS, BYTES = array.array("d", [0.0]), bytearray(1)


@pytest.mark.parametrize(
    "function",
    [
        scaled_by_an_import,
        scaled_by_an_imported,
        scaled_by_a_global,
        scaled_in_a_context,
        scaled_by_an_attribute,
        lambda x: scaled_by_kind(x),
        lambda x: TIMES.of(x),
        lambda x: x * TITLED.factor,
        lambda x: x * WEAK().factor,
        lambda x: x * PROXY.factor,
        lambda x: x * VIEW["factor"],
        lambda x: x * sum(VALUES),
        lambda x: x * Classy.factor,
        lambda x: x * LAZY.factor,
        lambda x: x * NUMBERS[0],
        lambda x: x * BYTES[0],
        lambda x: x * memoryview(BYTES)[0],
        tg.grad(lambda x: (x * x * VIEW["factor"]).sum()),
        lambda x: SLOPE(x),
    ],
)
def test_what_is_reached_by_a_way_around_is_guarded(function, monkeypatch):
    module = types.ModuleType("settings_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    run = tg.compile(function)
    for k in range(1, 4):
        for owner in (module, scaled_by_an_attribute, PARENT, TITLED):
            monkeypatch.setattr(owner, "factor", float(k), raising=False)
        monkeypatch.setitem(SETTINGS, "factor", k)
        NUMBERS[0] = BYTES[0] = k
        np.testing.assert_array_equal(run(X), function(X))


def test_what_each_thread_has_of_its_own_is_guarded():
    own = threading.local()
    run = tg.compile(lambda x: x * own.factor)

    def scaled(factor):
        own.factor = factor
        return run(X)

    np.testing.assert_array_equal(scaled(2.0), 2 * X)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(pool.submit(scaled, 3.0).result(), 3 * X)
    np.testing.assert_array_equal(run(X), 2 * X)


@pytest.mark.parametrize("name", ["lambda", "learning rate"])
def test_attributes_that_are_no_names_of_python_are_guarded(name):
    own = threading.local()
    run = tg.compile(lambda x: x * getattr(own, name))
    for factor in (2.0, 3.0):
        setattr(own, name, factor)
        np.testing.assert_array_equal(run(X), factor * X)


def test_attributes_of_a_class_that_are_words_of_python_are_guarded():
    kind = type("Settings", (), {"lambda": 2.0})
    settings = kind()
    run = tg.compile(lambda x: x * getattr(settings, "lambda"))
    np.testing.assert_array_equal(run(X), 2 * X)
    setattr(kind, "lambda", 3.0)
    np.testing.assert_array_equal(run(X), 3 * X)


@pytest.mark.parametrize(
    "make",
    [
        threading.local,
        lambda: types.ModuleType("settings_of_a_test"),
        lambda: made_with_getattr({"rate": 1.0}.__getitem__),
        lambda: type("Settings", (), {}),
        lambda: OfTheClass("Settings", (), {}),
    ],
    ids=["of a thread", "module", "module with __getattr__", "class", "class of a metaclass"],
)
def test_an_attribute_that_is_there_later_is_noticed(make):
    owner = make()
    run = tg.compile(lambda x: x * getattr(owner, "rate", 1.0))
    np.testing.assert_array_equal(run(X), X)
    owner.rate = 3.0
    np.testing.assert_array_equal(run(X), 3 * X)
    del owner.rate
    np.testing.assert_array_equal(run(X), X)


def made_with_getattr(get):
    module = types.ModuleType("settings_of_a_test")
    module.__getattr__ = get
    return module


@pytest.mark.parametrize("get", [None, {"rate": 1.0}.__getitem__])
def test_a_getattr_that_a_module_has_later_is_noticed(get):
    module = types.ModuleType("settings_of_a_test") if get is None else made_with_getattr(get)
    run = tg.compile(lambda x: x * getattr(module, "rate", 1.0))
    np.testing.assert_array_equal(run(X), X)
    module.__getattr__ = {"rate": 5.0}.__getitem__
    np.testing.assert_array_equal(run(X), 5 * X)


def test_imports_that_fail_or_come_after_many_names(monkeypatch):
    module = types.ModuleType("settings_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # Beyond 255 names an instruction takes another one before it.
    unused = "".join(f"        x.name{k}\n" for k in range(300))
    source = f"""def scaled(x):
    if x is None:
{unused}
    try:
        from .... import far
    except ImportError:
        from settings_of_a_test import factor
    return x * factor
"""
    there = {"__package__": "tests"}
    exec(source, there)
    run = tg.compile(there["scaled"])
    for module.factor in (2.0, 3.0):
        np.testing.assert_array_equal(run(X), X * module.factor)


def test_what_a_set_holds_is_guarded():
    layers = {tg.nn.Dropout(0.5, rng=0)}

    def function(x):
        for layer in layers:
            x = layer(x)
        return x

    run, ones = tg.compile(function), np.ones(50)
    assert (run(ones) == 0).any()
    next(iter(layers)).eval()
    np.testing.assert_array_equal(run(ones), ones)


def test_a_descriptor_that_needs_an_object_is_not_asked_of_the_class():
    class Stored:
        def __get__(self, instance, owner):
            return vars(instance)["stored"]

    class Owner:
        factor = Stored()

    one = Owner()
    one.stored = 3.0
    np.testing.assert_array_equal(tg.compile(lambda x: x * one.factor)(X), 3 * X)
