"""The graph and the walk through it: what is kept, freed, checked, and what it costs."""

import array
import copy
import functools
import gc
import operator
import os
import pickle
import threading
import time
import tracemalloc
import weakref

import numpy as np
import pytest

import tinygrad_hw as tg
from tinygrad_hw.errors import GraphError


def leaf(*values):
    return tg.Tensor(values[0] if len(values) == 1 else values, requires_grad=True)


# --- Shape of the graph -----------------------------------------------------------------------


def test_a_chain_of_100_000_ops_runs_forward_and_backward_and_is_freed():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1e-5
    y.backward()
    assert x.grad == 1.0
    del y


def test_60_doublings_are_walked_once_each():
    x = leaf(1.0)
    y = x
    for _ in range(60):
        y = y + y
    y.backward()
    assert x.grad == 2.0**60


def test_memory_grows_linearly_with_the_ops():
    def peak(n):
        x = leaf(np.ones(10))
        tracemalloc.start()
        y = x
        for _ in range(n):
            y = y * 1.0
        y.sum().backward()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    # Quadratic growth would make it 16; hash tables grow in steps.
    assert peak(4000) < 8 * peak(1000)


def test_time_grows_linearly_with_the_ops():
    def seconds(n):
        best = np.inf
        for _ in range(3):
            x = leaf(1.0)
            start = time.process_time()
            y = x
            for _ in range(n):
                y = y * 1.0
            y.backward()
            best = min(best, time.process_time() - start)
        return best

    # Quadratic growth would make it 64; the bound leaves room for a busy machine.
    assert seconds(16_000) < 30 * seconds(2_000)


def test_no_cyclic_garbage():
    w = leaf(np.ones(3))
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            (tg.sin(w) * w).sum().backward()
            tg.grad((w * w).sum(), w)
            tg.grad(tg.grad((w**3).sum(), w, create_graph=True).sum(), w)
            tg.grad(tg.grad(tg.sin))(1.0)
            tg.checkpoint(lambda x: (x * w).sum(), w).backward()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_graph_dies_with_its_last_tensor():
    import weakref

    y = leaf(2.0) * 3.0
    node = weakref.ref(y._node)
    del y
    assert node() is None


# --- Freeing, overwriting ---------------------------------------------------------------------


def test_a_second_backward_raises_with_advice():
    for make in (lambda x: (x * x).sum(), lambda x: (x + x).sum()):
        y = make(leaf(1.0, 2.0))
        y.backward()
        with pytest.raises(tg.GraphError, match="retain_graph=True"):
            y.backward()


def test_retain_graph_accumulates():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_array_equal(x.grad, [4.0, 8.0])


@pytest.mark.parametrize("kept", ["elsewhere", "by nobody, read-only", "by a view"])
def test_what_adds_up_is_written_to_no_array_of_others(kept):
    constant = np.full(3, 2.0)
    views = []

    @tg.primitive
    def double(x):
        return 2 * x

    @double.rule
    def _(g, y, x):
        if kept == "elsewhere":
            return (constant,)
        own = np.full(3, 2.0)
        if kept == "by a view":
            views.append(own[:1])
        else:
            own.flags.writeable = False
        return (own,)

    x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    for _ in range(2):
        x.grad = None
        (double(x) + double(x) + double(x)).sum().backward()
        np.testing.assert_array_equal(x.grad, [6.0, 6.0, 6.0])
        double(x).sum().backward()
        np.testing.assert_array_equal(x.grad, [8.0, 8.0, 8.0])
        x.grad[0] = 9.0
    assert (constant == 2).all()
    assert all(view == 2 for view in views)


def test_grad_does_not_free_or_accumulate():
    x = leaf(3.0)
    y = x * x
    assert tg.grad(y, x).item() == 6.0
    assert x.grad is None
    y.backward()
    assert x.grad == 6.0


@pytest.mark.parametrize(
    "write",
    [
        lambda x: x.data.__setitem__(0, 5.0),
        lambda x: x.data.__iadd__(1.0),
        lambda x: x.data.fill(3.0),
        lambda x: np.copyto(x.data, 3.0),
        lambda x: np.add(x.data, 1.0, out=x.data),
        lambda x: x.data[1:].__setitem__(0, 7.0),
        lambda x: x.data.flat.__setitem__(0, 5.0),
        lambda x: setattr(x.data, "flat", 5.0),
        lambda x: np.reshape(x.data, (2, 1)).__setitem__(0, 5.0),
        lambda x: np.split(x.data, 2)[1].__setitem__(0, 5.0),
        lambda x: np.clip(x.data, 5.0, 6.0, x.data),
        lambda x: np.dot(np.eye(2), np.ones(2), x.data),
    ],
)
def test_a_raw_write_after_use_raises(write):
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    write(x)
    with pytest.raises(tg.GraphError, match="written to in place after 'multiply'"):
        y.backward()


def test_replacing_nan_in_place_after_use_raises():
    x = leaf(np.nan, 2.0)
    y = (x * x).sum()
    np.nan_to_num(x.data, copy=False)
    with pytest.raises(tg.GraphError, match="in place"):
        y.backward()


def test_augmented_assignment_to_data_after_use_raises():
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    x.data -= 1.0
    with pytest.raises(tg.GraphError, match="in place"):
        y.backward()


def test_a_raw_write_before_use_or_to_values_nobody_kept_is_fine():
    x = leaf(1.0, 2.0)
    x.data[0] = 5.0
    y = (x * x).sum()
    y.backward()
    np.testing.assert_array_equal(x.grad, [10.0, 4.0])
    z = (x + x).sum()
    x.data[0] = 7.0
    x.grad = None
    z.backward()
    np.testing.assert_array_equal(x.grad, [2.0, 2.0])


def test_a_raw_write_to_an_intermediate_or_a_constant_raises():
    x, c = leaf(1.0, 2.0), tg.Tensor([3.0, 4.0])
    h = tg.exp(x)
    y = (h * c).sum()
    c.data[0] = 0.0
    with pytest.raises(tg.GraphError, match="in place"):
        y.backward()
    h = tg.exp(x)
    y = h.sum()
    h.data[0] = 0.0
    with pytest.raises(tg.GraphError, match="in place after 'exp'"):
        y.backward()


@pytest.mark.parametrize(
    "view",
    [lambda h: h[:], lambda h: h.T, lambda h: tg.reshape(h, (2, 2)), tg.ravel],
    ids=["slice", "transpose", "reshape", "ravel"],
)
def test_a_raw_write_through_a_view_after_use_raises(view):
    h = leaf([[1.0, 2.0], [3.0, 4.0]]) * 2
    y = h * h
    view(h).data[...] = 100
    with pytest.raises(GraphError, match="written to in place"):
        y.sum().backward()


@pytest.mark.parametrize("written", ["base", "view", "sibling"])
@pytest.mark.parametrize("used", ["base", "view"])
@pytest.mark.parametrize("tracked", [False, True])
def test_a_raw_write_through_a_constant_view_after_use_raises(tracked, used, written):
    base = tg.Tensor(np.arange(6.0).reshape(2, 3), requires_grad=tracked)
    with tg.no_grad():
        tensors = {"base": base, "view": base.reshape(3, 2).T, "sibling": base[:1]}
    x = tensors[used]
    w = tg.Tensor(np.ones(x.shape), requires_grad=True)
    loss = (w * x).sum()
    tensors[written].data[0, 0] = 100
    with pytest.raises(GraphError, match="written to in place"):
        loss.backward()


def test_a_raw_write_does_not_reach_constants_that_are_copies():
    base = tg.Tensor(np.arange(6.0).reshape(2, 3))
    w = tg.Tensor(np.ones(6), requires_grad=True)
    loss = (w * base.T.reshape(-1)).sum() + (w[:2] * base[[0, 1], 0]).sum()
    base.data[...] = 100
    loss.backward()
    assert w.grad.tolist() == [0, 6, 1, 4, 2, 5]


def test_a_constant_view_keeps_no_graph():
    y = tg.exp(leaf(1.0, 2.0))
    node = weakref.ref(y._node)
    with tg.no_grad():
        view = y[:1]
    del y
    assert node() is None
    assert (view * leaf(1.0)).requires_grad


def test_a_view_that_becomes_a_leaf_has_memory_of_its_own():
    base = tg.Tensor([1.0, 2.0])
    for view in (base[:1], tg.broadcast_to(tg.Tensor(1.0), (1,))):
        view.requires_grad = True
        (view * view).backward()
        tg.optim.SGD([view], 0.5).step()
        assert view.tolist() == [0.0]
    assert base.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: np.clip(x, 5, 6, out=x),
        lambda x: np.cumsum(x, out=x),
        lambda x: np.concatenate([x[1:], x[:1]], out=x),
    ],
    ids=["clip", "cumsum", "concatenate"],
)
def test_a_raw_write_by_a_function_with_out_after_use_raises(function):
    h = leaf(1.0, 2.0) * 2
    y = h * h
    function(h.data)
    with pytest.raises(GraphError, match="written to in place"):
        y.sum().backward()


@pytest.mark.parametrize(
    "copied",
    [
        lambda data: data.copy(),
        lambda data: data[[1, 0]],
        lambda data: data[data > 0],
        lambda data: data.astype(np.float32),
        lambda data: data.flatten(),
    ],
)
def test_a_write_to_a_copy_of_data_concerns_nobody(copied):
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    copied(x.data)[...] = 9.0
    y.backward()
    np.testing.assert_array_equal(x.grad, [2.0, 4.0])


def test_flat_data_reads_as_in_numpy():
    flat = leaf([[1.0, 2.0], [3.0, 4.0]]).data.flat
    assert (flat[2], len(flat), flat.index, next(flat), flat.index) == (3.0, 4, 0, 1.0, 1)
    assert list(flat) == [2.0, 3.0, 4.0]
    np.testing.assert_array_equal(np.array(flat), [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(flat == 2.0, [False, True, False, False])
    np.testing.assert_array_equal(flat < 2.0, [True, False, False, False])


def test_functions_of_numpy_name_the_parts_of_what_they_give_of_data():
    data = leaf([[2.0, 0.0], [0.0, 3.0]]).data
    np.testing.assert_array_equal(np.linalg.svd(data).S, [3.0, 2.0])
    assert np.linalg.slogdet(data).sign == 1.0


def test_data_belongs_to_the_value_that_it_was_taken_of():
    h = leaf(1.0, 2.0) * 2
    data = h.data
    y = h * h
    h += 1
    data[0] = 100.0
    with pytest.raises(GraphError, match="written to in place"):
        y.sum().backward()
    w, constant = leaf(1.0, 2.0), tg.Tensor([1.0, 2.0])
    y = w * constant
    constant += 1
    constant.data[0] = 9.0
    y.sum().backward()
    np.testing.assert_array_equal(w.grad, [1, 2])


def test_data_behaves_as_an_array():
    x = leaf(1.0, 2.0)
    assert isinstance(x.data, np.ndarray)
    assert type(x.data + 1) is np.ndarray
    assert repr(x.data) == "array([1., 2.])"
    assert type(np.sort(x.data)) is np.ndarray
    x.data = [5.0, 6.0]
    np.testing.assert_array_equal(x.numpy(), [5.0, 6.0])


# --- Gradients --------------------------------------------------------------------------------


def test_gradients_never_alias():
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    seed = np.ones(2)
    (a + b).backward(seed)
    assert not np.shares_memory(a.grad, b.grad)
    assert not np.shares_memory(a.grad, seed)
    a.grad += 1
    np.testing.assert_array_equal(b.grad, [1.0, 1.0])
    np.testing.assert_array_equal(seed, [1.0, 1.0])
    x, y = leaf(1.0, 2.0), leaf(2.0, 5.0)
    gx, gy = tg.grad(x + y, [x, y], np.ones(2))
    assert not np.shares_memory(gx.data, gy.data)
    x.sum().backward()
    x.grad[0] = 9.0  # A gradient is an ordinary, writable array.


def test_the_sum_of_two_gradients_of_a_number_can_be_clipped():
    w = leaf(3.0)
    for _ in range(2):
        (w * w).backward()
    assert type(w.grad) is np.ndarray
    tg.optim.clip_grad_norm([w], 1.0)
    assert w.grad == pytest.approx(1)


@pytest.mark.parametrize(
    "op",
    [
        lambda a, b: leaf(1.0, 1.0) * [a, b],
        lambda a, b: tg.mean([a, b]),
        lambda a, b: tg.where([True, False], [a, b], leaf(1.0, 2.0)),
        lambda a, b: tg.mse_loss([a, b], np.zeros(2)),
        lambda a, b: tg.reshape([[a], [b]], (2,)),
        lambda a, b: tg.Tensor([a, b]),
    ],
)
def test_a_list_of_tensors_does_not_lose_their_gradients(op):
    a, b = leaf(2.0), leaf(3.0)
    with pytest.raises(TypeError, match=r"use stack\(list\)"):
        op(a, b)
    with tg.no_grad():
        op(a, b)
    op(a.detach(), b.detach())


def test_a_gradient_has_its_inputs_shape_and_dtype():
    x = tg.Tensor(np.ones((3, 1), np.float32), requires_grad=True)
    y = tg.Tensor(np.ones(4), requires_grad=True)
    (x * y).sum().backward()
    assert (x.grad.shape, x.grad.dtype) == ((3, 1), np.float32)
    assert (y.grad.shape, y.grad.dtype) == ((4,), np.float64)
    np.testing.assert_array_equal(x.grad, np.full((3, 1), 4.0))


def test_tensors_are_of_the_machines_byte_order():
    x = tg.Tensor(np.array([1.0, 2.0], ">f4"), requires_grad=True)
    (x * x).sum().backward()
    assert x.dtype == x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [2, 4])
    assert tg.Tensor([3], dtype=">i8").dtype == np.int64


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "divide", "maximum", "hypot"])
def test_broadcasting_equals_explicit_expand(op):
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 2, (2, 1, 3)), rng.uniform(2, 3, (4, 1))
    g = rng.standard_normal((2, 4, 3))
    function = getattr(tg, op)
    one, two = leaf(a), leaf(b)
    function(one, two).backward(g)
    three, four = leaf(a), leaf(b)
    function(tg.broadcast_to(three, (2, 4, 3)), tg.broadcast_to(four, (2, 4, 3))).backward(g)
    np.testing.assert_allclose(one.grad, three.grad, rtol=1e-14)
    np.testing.assert_allclose(two.grad, four.grad, rtol=1e-14)


def test_unused_and_zero_gradients_are_zeros():
    x, y = leaf(1.0, 2.0), leaf(3.0)
    g = tg.grad(x.sum(), [x, y])
    np.testing.assert_array_equal(g[1].numpy(), 0.0)
    tg.floor(x).sum().backward()
    np.testing.assert_array_equal(x.grad, [0.0, 0.0])


def test_a_cotangent_for_a_non_scalar():
    x = leaf(1.0, 2.0)
    with pytest.raises(tg.GraphError, match=r"call \.sum\(\)"):
        (x * x).backward()
    with pytest.raises(tg.ShapeError, match="cotangent has shape"):
        (x * x).backward(np.ones(3))
    (x * x).backward(np.array([1.0, 10.0]))
    np.testing.assert_array_equal(x.grad, [2.0, 40.0])


def test_python_scalars_never_promote_float32():
    x = tg.Tensor(np.ones(3, np.float32), requires_grad=True)
    y = ((2.0 * x + 1) / 3 - 0.5) ** 2
    assert y.dtype == np.float32
    y.sum().backward()
    assert x.grad.dtype == np.float32
    zero_d = tg.Tensor(np.float32(2.0), requires_grad=True)
    z = zero_d * 3.0
    assert z.dtype == np.float32
    assert tg.grad(tg.grad(z * z, zero_d, create_graph=True), zero_d).dtype == np.float32


def test_0_d_stays_an_array_to_order_3():
    x = leaf(0.7)
    y = tg.sin(x) * x
    assert type(y.data[()]) is not tg.Tensor
    assert y.shape == ()
    assert isinstance(y.numpy(), np.ndarray)
    d = tg.grad(tg.grad(tg.grad(lambda x: tg.sin(x) * x)))(0.7).item()
    assert d == pytest.approx(-3 * np.sin(0.7) - 0.7 * np.cos(0.7), rel=1e-13)


def test_nothing_leaks_from_where_a_zero_cotangent_meets_an_infinite_slope():
    x = leaf(0.0, 4.0)
    tg.where(x > 0, tg.sqrt(x), 0.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0.0, 0.25])
    x = leaf(0.0, 2.0)
    with np.errstate(divide="ignore"):
        tg.where(x != 0, 1.0 / x, 0.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [0.0, -0.25])
    x = leaf(1000.0, 0.0)
    with np.errstate(over="ignore"):
        y = tg.where(x < 100, tg.exp(x), 1.0)
    np.testing.assert_array_equal(tg.grad(y.sum(), x).numpy(), [0.0, 1.0])
    x = leaf(0.0, 4.0)
    tg.sqrt(x)[1].backward()
    np.testing.assert_array_equal(x.grad, [0.0, 0.25])


@pytest.mark.parametrize(
    "op",
    [
        lambda x: tg.logsumexp(x, 1),
        lambda x: tg.logsumexp(x, (1,), keepdims=True)[:, 0],
        lambda x: tg.softmax(x, 1)[:, 0],
        lambda x: tg.softmax_cross_entropy(x, [0, 1], reduction="none"),
        lambda x: tg.relu(x - x)[:, 0],
    ],
)
def test_nothing_leaks_through_ops_along_an_axis(op):
    slope = tg.grad(lambda x: tg.where(np.array([False, True]), op(x), 0.0).sum())
    with np.errstate(invalid="ignore"):
        g = slope(np.array([[np.inf, np.inf], [1.0, 2.0]])).numpy()
    np.testing.assert_array_equal(g, slope(np.array([[0.0, 0.0], [1.0, 2.0]])).numpy())


def test_nothing_leaks_from_an_op_of_which_nothing_is_asked():
    x = np.array([[np.nan, 1.0], [1.0, 1.0]])
    w = leaf([[1.0], [1.0]])
    (tg.where(False, x @ w, 0.0).sum() + w.sum()).backward()
    np.testing.assert_array_equal(w.grad, [[1.0], [1.0]])


def test_a_nan_is_no_leak_where_its_entry_has_a_part_in_what_is_asked():
    x = np.array([[np.nan, 1.0], [1.0, 1.0]])
    w = leaf([[1.0], [1.0]])
    tg.where(np.array([[False], [True]]), x @ w, 0.0).sum().backward()
    # The first may be 1 too, but never the 0 of the row that has the NaN.
    np.testing.assert_array_equal(w.grad, [[np.nan], [1.0]])


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (tg.add, (array.array("d", [1.0, 2.0]), array.array("d", [3.0, 4.0]))),
        (tg.multiply, (array.array("d", [1.0, 2.0]), 2)),
        (tg.add, (np.ones(2), np.ma.masked_array([3.0, 4.0], [False, True]))),
        (tg.multiply, (np.ma.masked_array([3.0, 4.0], [False, True]), 2)),
        (tg.add, (range(3), 1.0)),
        (tg.divide, (1.0, np.float64(4))),
    ],
)
def test_an_op_computes_what_numpys_function_does_whatever_operators_a_value_has(op, args):
    wanted = getattr(np, op.name)(*map(np.asarray, args))
    np.testing.assert_array_equal(op(*args), wanted)
    mixed = [tg.Tensor(np.asarray(args[0], float)), args[1]]
    np.testing.assert_array_equal(op(*mixed), wanted)


def test_a_text_is_no_factor():
    with pytest.raises(TypeError, match="multiply: got 'ab'; want numbers, arrays or tensors"):
        tg.multiply("ab", 3)


# --- no_grad, hooks, retain_grad, debug ----------------------------------------------------------


def test_no_grad_gives_the_same_values_and_no_graph():
    x = leaf(1.0, 2.0)
    with tg.no_grad():
        y = tg.exp(x) * x
        with tg.enable_grad():
            z = x * 2
    assert not y.requires_grad
    assert z.requires_grad
    np.testing.assert_array_equal(y.numpy(), (tg.exp(x) * x).numpy())

    @tg.no_grad()
    def double(x):
        return x * 2

    assert not double(x).requires_grad
    assert not double(x).requires_grad


def test_no_grad_is_of_its_thread():
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]


def test_backwards_of_threads_add_up_in_a_shared_leaf():
    w = leaf(*np.zeros(1000))

    def work():
        for _ in range(100):
            (w * 1.0).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(w.grad, np.full(1000, 400.0))


def test_one_no_grad_serves_threads_at_once():
    quiet, inside, leave = tg.no_grad(), threading.Event(), threading.Event()
    found = []

    def other():
        with tg.no_grad(), quiet:
            inside.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with quiet:
        thread.start()
        inside.wait()
    found.append((leaf(1.0) * 2).requires_grad)
    leave.set()
    thread.join()
    assert found == [True]


def test_hooks_see_and_replace_the_gradient_and_can_be_removed():
    x = leaf(2.0)
    y = x * x
    seen = []
    remove = y.register_hook(lambda g: seen.append(g.item()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.backward(retain_graph=True)
    assert seen == [1.0]
    assert x.grad == 41.0
    remove()
    y.backward()
    assert seen == [1.0]
    z = x * x
    z.register_hook(lambda g: np.ones(3))
    with pytest.raises(tg.ShapeError, match="hook"):
        z.backward()


@pytest.mark.parametrize("create_graph", [False, True])
def test_what_a_hook_returns_gets_the_dtype_of_the_tensor(create_graph):
    x = leaf(np.ones(2, np.float32))
    x.register_hook(lambda g: [2, 3])
    g = tg.grad((x * x).sum(), x, create_graph=create_graph)
    assert g.dtype == np.float32
    np.testing.assert_array_equal(g.numpy(), [2, 3])


@pytest.mark.parametrize("op", [tg.add, tg.subtract, lambda a, b: tg.concatenate([a, b])])
def test_what_a_hook_writes_to_its_gradient_changes_no_other(op):
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    cotangent = np.ones(op(a, b).shape)
    op(a, b).backward(cotangent)
    want = b.grad.copy()
    for x in (a, b):
        x.zero_grad()
    a.register_hook(lambda g: g.data.fill(7))
    op(a, b).backward(cotangent)
    np.testing.assert_array_equal(a.grad, [7, 7])
    np.testing.assert_array_equal(b.grad, want)
    np.testing.assert_array_equal(cotangent, np.ones(cotangent.shape))


def test_a_hook_that_returns_complex_numbers_is_refused():
    x = leaf(1.0, 2.0)
    y = x * 2
    y.register_hook(lambda g: np.array([1j, 2.0]))
    with pytest.raises(TypeError, match=r"hook: .* complex128"):
        y.sum().backward()


def test_no_grad_can_be_entered_again_and_decorates_under_any_mode():
    x, quiet = leaf(-1.0), tg.no_grad()
    for _ in range(2):
        with quiet, quiet:
            assert not (x * 2).requires_grad
        assert (x * 2).requires_grad

    @quiet
    def log(x):
        return tg.log(x)

    with tg.debug(), pytest.raises(FloatingPointError, match="log"):
        log(x)


def test_retain_grad_of_an_intermediate():
    x = leaf(2.0)
    h = x * 3
    h.retain_grad()
    assert h.grad is None
    (h * h).backward()
    assert h.grad == 12.0
    assert x.grad == 36.0
    h.zero_grad()
    assert h.grad is None
    assert x.grad == 36.0
    (x * 2).zero_grad()
    tg.Tensor(1.0).zero_grad()


def test_debug_names_the_op_and_the_line():
    x = leaf(-1.0, 1.0)
    with np.errstate(invalid="ignore"), tg.debug():
        with pytest.raises(FloatingPointError, match=r"log: NaN in 1 of 2 values.*test_engine\.py"):
            tg.log(x)
        y = tg.sqrt(leaf(0.0, 1.0)).sum()
    with pytest.raises(FloatingPointError, match=r"sqrt: the gradient of argument 0 has inf"):
        y.backward()


def test_debug_names_a_line_of_a_script_that_is_called_like_the_package():
    script = os.path.dirname(tg.__file__) + "_demo.py"
    code = compile("tg.log(tg.Tensor(-1.0))", script, "exec")
    with tg.debug(), pytest.raises(FloatingPointError, match=r"_demo\.py:1$"):
        exec(code)


# --- checkpoint -------------------------------------------------------------------------------


def test_checkpoint_gives_the_same_gradients_for_arguments_and_captured_tensors():
    rng = np.random.default_rng(0)
    x, w = leaf(rng.standard_normal((4, 3))), leaf(rng.standard_normal((3, 2)))

    def layer(x):
        return tg.tanh(x @ w)

    plain = tg.grad((layer(x) ** 2).sum(), [x, w])
    again = tg.grad((tg.checkpoint(layer, x) ** 2).sum(), [x, w])
    for a, b in zip(plain, again, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-14)
    second = [
        tg.grad((tg.grad((f(x) ** 2).sum(), x, create_graph=True) ** 2).sum(), [x, w])
        for f in (layer, lambda x: tg.checkpoint(layer, x))
    ]
    for a, b in zip(*second, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_checkpoint_keeps_less():
    x = leaf(np.ones(100_000))

    def deep(x):
        for _ in range(20):
            x = tg.sin(x)
        return x

    def kept(f):
        tracemalloc.start()
        y = f(x).sum()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        y.backward()
        return size

    assert kept(lambda x: tg.checkpoint(deep, x)) < kept(deep) / 5


def test_checkpoint_notices_other_values():
    rng = np.random.default_rng(0)
    x = leaf(1.0, 2.0)
    y = tg.checkpoint(lambda x: x * rng.standard_normal(2), x)
    with pytest.raises(tg.GraphError, match="other values"):
        y.sum().backward()


# --- Assignment -------------------------------------------------------------------------------


def test_item_assignment_is_differentiable_and_has_value_semantics():
    x, v = leaf(1.0, 2.0, 3.0), leaf(10.0)
    y = x * 2
    before = y * 1
    y[1] = v
    np.testing.assert_array_equal(before.numpy(), [2.0, 4.0, 6.0])
    np.testing.assert_array_equal(y.numpy(), [2.0, 10.0, 6.0])
    (y * np.array([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 0.0, 200.0])
    assert v.grad == 10.0


def test_augmented_assignment_moves_the_handle():
    x = leaf(1.0, 2.0)
    y = x * 1
    same = y
    y += x
    y *= 3
    assert same is y
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [6.0, 6.0])


def test_assignment_to_a_leaf():
    w = leaf(1.0, 2.0)
    with pytest.raises(tg.GraphError, match="leaf"):
        w[0] = 5.0
    with pytest.raises(tg.GraphError, match="leaf"):
        w += 1.0
    with tg.no_grad():
        w[0] = 5.0
        w -= 1.0
    assert w.requires_grad
    np.testing.assert_array_equal(w.numpy(), [4.0, 1.0])
    (w * w).sum().backward()
    np.testing.assert_array_equal(w.grad, [8.0, 2.0])
    c = tg.Tensor([1.0, 2.0])
    c[0] = 7.0
    np.testing.assert_array_equal(c.numpy(), [7.0, 2.0])


@pytest.mark.parametrize("name", "add sub mul truediv floordiv mod pow matmul".split())
def test_every_operator_can_be_augmented(name):
    x = alias = leaf([[5.0, 2.0], [1.0, 3.0]]) * 1
    other = np.eye(2) + 1
    expected = getattr(operator, name)(x, other).numpy()
    x = getattr(operator, f"i{name}")(x, other)
    assert x is alias
    assert x.requires_grad
    np.testing.assert_array_equal(x.numpy(), expected)


@pytest.mark.parametrize(
    ("values", "other"), [([1, 2], 0.5), ([True], 1), (np.ones(2, np.float32), 1j)]
)
def test_augmented_assignment_refuses_what_the_dtype_cannot_hold(values, other):
    x = tg.Tensor(values)
    with pytest.raises(TypeError, match=r"x \+= v: the result is of dtype"):
        x += other
    np.testing.assert_array_equal(x.numpy(), values)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_leaves_and_models_can_be_copied_and_pickled(copied):
    model = tg.nn.Linear(2, 2, rng=0)
    model.weight.name = "w"
    model(np.ones((1, 2))).sum().backward()
    other, optimizer = copied((model, tg.optim.Adam(model.parameters())))
    np.testing.assert_array_equal(other.weight.numpy(), model.weight.numpy())
    np.testing.assert_array_equal(other.weight.grad, model.weight.grad)
    assert other.weight.name == "w"
    optimizer.step()
    assert (other.weight.numpy() != model.weight.numpy()).all()
    constant = copied(tg.Tensor([1, 2]))
    assert not constant.requires_grad
    with pytest.raises(GraphError, match=r"use \.detach\(\)"):
        copied(model.weight * 2)


def test_detach_and_numpy_are_copies():
    x = leaf(1.0, 2.0)
    d, n = x.detach(), x.numpy()
    assert not d.requires_grad
    n[0] = 9.0
    d.data[0] = 9.0
    np.testing.assert_array_equal(x.numpy(), [1.0, 2.0])
    source = np.ones(2)
    t = tg.Tensor(source)
    source[0] = 9.0
    np.testing.assert_array_equal(t.numpy(), [1.0, 1.0])


# --- Primitives of one's own ------------------------------------------------------------------


def test_a_users_primitive_and_its_missing_rule():
    @tg.primitive
    def double(x, *, times=1):
        return x * 2.0**times

    x = leaf(1.0, 2.0)
    y = double(x, times=2)
    with pytest.raises(tg.MissingRuleError, match=r"double.*@double\.rule"):
        y.sum().backward()

    @double.rule
    def _(g, y, x, *, times):
        return (double(g, times=times),)

    y = double(x, times=2)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [4.0, 4.0])
    assert type(double(np.ones(2))) is np.ndarray
    with pytest.raises(TypeError, match="names out of"):
        double.rule(lambda g, y, x: (g,), keeps="z")


@pytest.mark.parametrize("rule", [lambda g, y, x: (g, g), lambda g, y, a, b, c: (g, g, g)])
def test_a_rule_whose_parameters_are_not_what_it_is_called_with(rule):
    plus = tg.primitive(lambda a, b: a + b, name="plus")
    with pytest.raises(TypeError, match=r"2 inputs, .*want 4 parameters, as in \(g, y, a, b\)"):
        plus.rule(rule)
    for fits in (lambda g, y, *inputs: (g, g), lambda g, y, a, b=None, e=None: (g, g)):
        assert plus.rule(fits) is fits


@pytest.mark.parametrize(
    "rule", [lambda g, y, x, *, times: (g * times,), lambda g, y, x, *, times=7.0: (g * times,)]
)
def test_a_rule_gets_the_static_parameters_of_a_call_or_the_defaults_of_the_forward(rule):
    x = leaf(1.0, 2.0)
    for default in (3.0, 5.0):
        scaled = tg.primitive(lambda x, *, times=default: x * times, name="scaled")
        assert scaled.rule(rule) is rule
        for y, slope in ((scaled(x), default), (scaled(x, times=2.0), 2.0)):
            np.testing.assert_array_equal(tg.grad(y.sum(), x).numpy(), [slope, slope])


def test_a_rule_that_takes_no_static_parameter():
    scaled = tg.primitive(lambda x, *, times=3.0: x * times, name="scaled")
    with pytest.raises(TypeError, match=r"rule is \(g, y, x\); .*want times behind a star"):
        scaled.rule(lambda g, y, x: (g,))
    scaled.rule(lambda g, y, x, **params: (g * params.get("times", 3.0),))


def test_a_rule_that_returns_too_few_or_misshapen_cotangents():
    @tg.primitive
    def plus(a, b):
        return a + b

    plus.rule(lambda g, y, a, b: (g,))
    with pytest.raises(TypeError, match="1 cotangents for 2 inputs"):
        plus(leaf(1.0), leaf(2.0)).backward()
    plus.rule(lambda g, y, a, b: (g[:1], g))
    with pytest.raises(tg.ShapeError, match="cotangent"):
        plus(leaf(1.0, 2.0), leaf(1.0, 2.0)).sum().backward()


def test_a_rule_that_returns_no_arrays():
    double = tg.primitive(name="double")(lambda x: 2.0 * x)
    double.rule(lambda g, y, x: (2.0,))
    with pytest.raises(TypeError, match=r"double: its rule returned 2.0, a float; want arrays"):
        double(leaf(1.0)).backward()
    double.rule(lambda g, y, x: g)
    x = leaf(1.0)
    for create_graph in (False, True):
        with pytest.raises(TypeError, match="double: its rule returned no tuple"):
            tg.grad(double(x), x, create_graph=create_graph)


def test_needs_may_be_any_parameter_and_defaults_may_be_left_out():
    scaled = tg.primitive(name="scaled")(lambda x, factor=2.0: x * factor)

    @scaled.rule(keeps="x")
    def _(g, y, x, needs):
        assert needs == (True,)
        return (2.0 * g,)

    assert scaled(leaf(3.0)).item() == 6.0
    assert tg.grad(scaled)(3.0).item() == 2.0
    product = tg.primitive(name="product")(lambda a, b: a * b)
    product.rule(lambda g, y, a, b, needs: (g * b, g * a), keeps="a b")
    assert tg.grad(product, (0, 1))(2.0, 3.0)[0].item() == 3.0


def _traced(function):
    """A decorator as users write them."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def _only_by_position(g, y, a, b, /, *, needs):
    return (g * b if needs[0] else None, g * a if needs[1] else None)


def _with_a_setting(scale, g, y, a, b, *, needs):
    return (scale * g * b if needs[0] else None, scale * g * a if needs[1] else None)


@pytest.mark.parametrize(
    "rule", [_only_by_position, _traced(_only_by_position), functools.partial(_with_a_setting, 1.0)]
)
def test_a_rule_may_be_any_callable_that_names_its_parameters(rule):
    product = tg.primitive(name="product")(lambda a, b: a * b)
    product.rule(rule, keeps="a b")
    assert product.asks_needs
    gradients = tg.grad(product, (0, 1))(2.0, 3.0)
    assert [g.item() for g in gradients] == [3.0, 2.0]


@pytest.mark.parametrize("op", [tg.relu, tg.exp, tg.softmax_cross_entropy, tg.conv2d, tg.matmul])
def test_ops_are_copied_and_pickled_as_functions(op):
    assert copy.deepcopy(op) is op
    assert pickle.loads(pickle.dumps(op)) is op


def test_a_model_with_ops_as_layers_can_be_pickled():
    model = tg.nn.Sequential(tg.nn.Linear(2, 2, rng=0), tg.relu)
    same = pickle.loads(pickle.dumps(model))
    x = np.array([[1.0, -2.0]], np.float32)
    np.testing.assert_array_equal(same(x).numpy(), model(x).numpy())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t * 1j, "multiply: gradients are of real numbers"),
        (lambda t: t * np.array([1j]), "multiply: gradients are of real numbers"),
        (lambda t: tg.add(t, [[1.0], [1.0, 2.0]]), "add: .* rows of one length"),
        (lambda t: tg.sin([[1.0], [1.0, 2.0]]), "sin: .* rows of one length"),
    ],
)
def test_errors_about_arguments_name_the_op(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call(leaf(1.0))


@pytest.mark.parametrize("keeps", ["a b", ("a", "b"), ["a", "b"]])
def test_a_rule_names_what_it_keeps_in_a_string_or_a_sequence(keeps):
    @tg.primitive
    def product(a, b):
        return a * b

    product.rule(lambda g, y, a, b: (g * b, g * a), keeps=keeps)
    a, b = leaf(2.0), leaf(3.0)
    product(a, b).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (3.0, 2.0)
    with pytest.raises(TypeError, match="names out of"):
        product.rule(lambda g, y, a, b: (g * b, g * a), keeps=(*keeps, "c"))


def test_needs_spares_the_gradient_that_nobody_wants():
    asked = []

    @tg.primitive
    def product(a, b):
        return a * b

    @product.rule(keeps="a b")
    def _(g, y, a, b, *, needs):
        asked.append(tuple(needs))
        return g * b, g * a

    x, w = leaf(1.0), leaf(2.0)
    product(np.array(3.0), w).backward()
    tg.grad(product(x, w), [w])
    product(x, w).backward()
    assert asked == [(False, True), (False, True), (True, True)]


def powers():
    """A primitive that hands what it computed to its rule, and what its rule was handed."""
    handed = []

    def with_exp(x, *, needs, times=1):
        e = np.exp(x)
        return times * e, e

    @tg.primitive(residual=with_exp)
    def power(x, *, times=1):
        return times * np.exp(x)

    @power.rule(keeps="x")
    def _(g, y, x, e=None, *, times=1):
        handed.append(e is not None)
        return (g * times * (tg.exp(x) if e is None else e),)

    return power, handed


def test_a_rule_gets_the_residual_of_a_recorded_call():
    power, handed = powers()
    x = leaf(0.0, 1.0)
    y = power(x, times=2)
    np.testing.assert_allclose(y.numpy(), 2 * np.exp([0.0, 1.0]))
    y.sum().backward()
    np.testing.assert_allclose(x.grad, 2 * np.exp([0.0, 1.0]))
    assert handed == [True]
    with pytest.raises(GraphError, match="freed"):
        y.sum().backward()
    assert type(power(np.ones(2))) is np.ndarray


def test_the_rule_of_an_op_of_two_inputs_gets_the_residual_behind_them():
    @tg.primitive(residual=lambda x, y, needs: (x * y, x * y))
    def product(x, y):
        return x * y

    # So that the residual shows in the gradient of y.
    product.rule(lambda g, out, x, y, xy=None: (g * y, g * (x if xy is None else xy)), keeps="x y")
    a, b = leaf(2.0), leaf(3.0)
    product(a, b).sum().backward()
    assert (a.grad, b.grad) == (3.0, 6.0)


def test_a_rule_does_without_the_residual_where_it_is_differentiated_or_compiled():
    power, handed = powers()
    third = tg.grad(tg.grad(tg.grad(power)))
    np.testing.assert_allclose(third(1.0).item(), np.e)
    assert not all(handed)
    step = tg.compile(tg.value_and_grad(lambda x: power(x).sum()))
    for x in ([0.0, 1.0], [2.0, 3.0]):
        value, gradient = step(np.array(x))
        np.testing.assert_allclose(value.item(), np.exp(x).sum())
        np.testing.assert_allclose(gradient.numpy(), np.exp(x))


def test_a_raw_write_after_a_call_with_a_residual_raises():
    power, _ = powers()
    x = leaf(0.0, 1.0)
    y = power(x).sum()
    x.data[0] = 3.0
    with pytest.raises(GraphError, match="written to"):
        y.backward()


def test_patches_are_kept_for_filters_that_want_a_gradient_alone():
    def kept(w):
        x = tg.Tensor(np.ones((4, 8, 8, 2)), requires_grad=True)
        graph = tg.conv2d(x, w, padding="same").graph()
        return max(vertex.cost.bytes for vertex in graph.nodes)

    frozen, trained = (tg.Tensor(np.ones((3, 3, 2, 2)), requires_grad=r) for r in (False, True))
    assert kept(trained) > 5 * kept(frozen)


def test_the_check_finds_a_wrong_residual():
    @tg.primitive(residual=lambda x, needs: (x * x, 3 * x))
    def squared(x):
        return x * x

    squared.rule(lambda g, y, x, slope=None: (g * (2 * x if slope is None else slope),), keeps="x")
    with pytest.raises(AssertionError, match="squared"):
        tg.testing.check_gradients(squared, np.array([1.0, 2.0]))


def test_a_tensor_of_one_entry_formats_as_its_number():
    assert f"{tg.Tensor(2 / 3):.3f}, {tg.Tensor([[1.5]]):5.1f}|" == "0.667,   1.5|"
    assert f"{tg.Tensor([1.0, 2.0])}" == "Tensor([1., 2.])"
    with pytest.raises(ValueError, match=r"format: '.3f' is for one number, .* has shape \(2,\)"):
        f"{tg.Tensor([1.0, 2.0]):.3f}"
    with pytest.raises(ValueError, match="code 'd'"):
        f"{tg.Tensor(1.5):d}"


def test_the_text_of_a_tensor_without_entries_says_its_shape():
    assert repr(tg.Tensor(np.zeros((0, 3)))) == "Tensor([], shape=(0, 3))"
    assert repr(tg.Tensor([])) == "Tensor([])"
