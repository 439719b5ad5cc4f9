"""Indexing of every kind: values, gradients of three orders, winners, errors, time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerical import check_call

import tinygrad_hw as tg
from tinygrad_hw.domains import RandomDraw
from tinygrad_hw.ops import primitives

ROWS = np.array([2, 0, 2, -1])
INDICES = {
    "one": 1,
    "last": -1,
    "numpy integer": np.int64(2),
    "slice": slice(1, None),
    "steps back": slice(None, None, -2),
    "ellipsis": (..., 0),
    "new axes": (None, 1, None, ..., None),
    "all integers": (1, 2, 3),
    "nothing": (),
    "empty slice": slice(2, 2),
    "rows": ROWS,
    "list": [0, 0, 1],
    "empty list": [],
    "matrix of rows": ROWS.reshape(2, 2),
    "two arrays": (ROWS, ROWS),
    "three arrays": (ROWS, ROWS, ROWS),
    "arrays apart": (ROWS, slice(None), ROWS),
    "array and new axis": (slice(None), None, ROWS),
    "array, number, slice": (ROWS, 1, slice(None, 2)),
    "grid": np.ix_([0, 0, 2], [1, 3]),
    "array after ellipsis": (..., ROWS),
    "array before ellipsis": (ROWS, ..., ROWS),
    "0-d array": np.array(1),
    "0-d array and slice": (np.array(1), slice(0, 2)),
    "small integers": np.array([2, 1], dtype=np.uint8),
    "mask": np.arange(60).reshape(3, 4, 5) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "mask of two axes": np.eye(3, 4, dtype=bool),
    "mask and slice": (slice(1), np.array([True, False, True, True])),
    "mask and integers": (np.array([True, False, True]), [3, 3]),
    "two masks": (np.array([True, False, True]), np.array([True, True, False, False])),
    "empty mask": np.zeros(3, bool),
    "true": True,
    "false": False,
}
BAD = [
    (5, IndexError, "getitem.*out of bounds"),
    ((0, 0, 0, 0), IndexError, "getitem.*too many"),
    ([0, 9], IndexError, "getitem.*out of bounds"),
    (1.0, IndexError, "getitem.*float64; want integers"),
    (np.array([0.0]), IndexError, "want integers or booleans.*astype"),
    ("rows", IndexError, "want integers"),
    (slice(0.5, None), IndexError, "getitem.*0.5.*want an integer"),
    (np.zeros(4, bool), IndexError, "getitem.*boolean"),
    (([0, 1], [0, 1, 2]), IndexError, "getitem"),
]
each_index = pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
each_primitive = pytest.mark.parametrize("name", ["getitem", "scatter_add", "setitem"])


def cube():
    return np.random.default_rng(0).standard_normal((3, 4, 5))


def gradient(function, *xs, seed=1):
    """The gradients of ``<function(xs), u>`` and the u."""
    tensors = [tg.Tensor(x, requires_grad=True) for x in xs]
    y = function(*tensors)
    u = np.random.default_rng(seed).standard_normal(y.shape).astype(y.dtype)
    y.backward(u)
    return [t.grad for t in tensors], u


# --- getitem and scatter_add ------------------------------------------------------------------


@each_index
def test_getitem_gives_numpys_values(index):
    x = cube()
    expected = np.asarray(x[index])
    for y in (tg.getitem(x, index), tg.Tensor(x)[index].numpy()):
        assert type(y) is np.ndarray
        assert y.shape == expected.shape
        np.testing.assert_array_equal(y, expected)


@each_index
def test_gradient_of_getitem_adds_up(index):
    x = cube()
    (g,), u = gradient(lambda t: t[index], x)
    expected = np.zeros_like(x)
    np.add.at(expected, index, u)
    np.testing.assert_allclose(g, expected, rtol=1e-14)
    check_call(tg.getitem, (x,), {"index": index}, order=3)


@each_index
def test_scatter_add_is_add_at(index):
    g = np.random.default_rng(1).standard_normal(np.zeros((3, 4, 5))[index].shape)
    expected = np.zeros((3, 4, 5))
    np.add.at(expected, index, g)
    params = {"index": index, "shape": (3, 4, 5)}
    np.testing.assert_allclose(tg.scatter_add(g, **params), expected, rtol=1e-14)
    check_call(tg.scatter_add, (g,), params, order=3)


def any_index(shape):
    kinds = [
        hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True),
        hnp.arrays(bool, shape),
    ]
    if shape and min(shape) > 0:
        kinds.append(hnp.integer_array_indices(shape))
    return st.one_of(kinds)


shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
shapes_with_index = shapes.flatmap(lambda shape: st.tuples(st.just(shape), any_index(shape)))


@settings(max_examples=150, deadline=None)
@given(shapes_with_index)
def test_any_index_on_any_shape(case):
    shape, index = case
    x = np.random.default_rng(0).standard_normal(shape)
    (g,), u = gradient(lambda t: t[index], x)
    expected = np.zeros(shape)
    np.add.at(expected, index, u)
    np.testing.assert_allclose(g, expected, rtol=1e-14)
    check_call(tg.getitem, (x,), {"index": index}, order=3)


@each_primitive
@pytest.mark.parametrize("seed", range(40))
def test_derivatives_over_the_domain(name, seed):
    op = primitives()[name]
    args, params = op.domain.sample(RandomDraw(seed))
    check_call(op, args, params, order=3)


def test_index_may_hold_tensors():
    x = cube()
    rows = tg.Tensor([2, 0])
    t = tg.Tensor(x)
    np.testing.assert_array_equal(t[rows].numpy(), x[[2, 0]])
    np.testing.assert_array_equal(t[:, rows, 1].numpy(), x[:, [2, 0], 1])
    np.testing.assert_array_equal(t[rows[0] :].numpy(), x[2:])
    np.testing.assert_array_equal(t[[rows[0], rows[1]]].numpy(), x[[2, 0]])
    np.testing.assert_array_equal(t[t > 0].numpy(), x[x > 0])
    np.testing.assert_array_equal(tg.getitem(x, rows), x[[2, 0]])


def test_a_later_write_to_the_index_changes_nothing():
    index = np.array([0, 1])
    x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x[index] * x[index,]
    index[:] = 2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [2.0, 4.0, 0.0])


@pytest.mark.parametrize("index", [[0, 0, 1], slice(1), (0, [1, 1]), np.eye(3, dtype=bool)])
def test_float32_stays(index):
    x = np.ones((3, 3), np.float32)
    (g,), _ = gradient(lambda t: t[index] * 2, x)
    assert g.dtype == np.float32
    assert tg.getitem(x, index).dtype == np.float32
    assert tg.setitem(x, 2.5, index=index).dtype == np.float32
    assert tg.setitem(x, np.float64(2.5), index=index).dtype == np.float32


@pytest.mark.parametrize(("index", "kind", "message"), BAD, ids=repr)
def test_bad_index(index, kind, message):
    for x in (cube(), tg.Tensor(cube(), requires_grad=True)):
        with pytest.raises(kind, match=message):
            tg.getitem(x, index)


def test_bad_scatter():
    with pytest.raises(IndexError, match="scatter_add"):
        tg.scatter_add(np.ones(2), index=[0, 5], shape=(3,))
    with pytest.raises(IndexError, match="scatter_add"):
        tg.scatter_add(np.ones((2, 2)), index=[0, 5], shape=(3, 2))
    with pytest.raises(tg.ShapeError, match="scatter_add"):
        tg.scatter_add(np.ones(2), index=[0, 1, 2], shape=(3,))
    with pytest.raises(tg.ShapeError, match="scatter_add"):
        tg.scatter_add(np.ones((2, 3)), index=[0, 1], shape=(3, 2))


@pytest.mark.parametrize("tail", [(), (8,)])
def test_scatter_takes_linear_time(tail):
    rng = np.random.default_rng(0)

    def seconds(n):
        index = rng.integers(0, n // 4, n)
        g = np.ones((n, *tail))
        times = []
        for _ in range(5):
            start = time.process_time()
            tg.scatter_add(g, index=index, shape=(n // 4, *tail))
            times.append(time.process_time() - start)
        return min(times)

    # 20 times the entries: 20 times the time and more, for they leave the caches; not 400 times.
    assert any(seconds(400_000) < 150 * seconds(20_000) for _ in range(3))


# --- setitem ----------------------------------------------------------------------------------


def written_in_turn(x, v, index):
    """Write entry by entry; say which entries of v are the last on their place."""
    places = np.arange(x.size).reshape(x.shape)[index]
    v = v.reshape(v.shape[-places.ndim :] if places.ndim else ())
    out = x.copy()
    last = {}
    for n, (place, value) in enumerate(
        zip(np.ravel(places), np.ravel(np.broadcast_to(v, np.shape(places))), strict=True)
    ):
        out.flat[place] = value
        last[place] = n
    winners = np.zeros(np.size(places))
    winners[list(last.values())] = 1
    return out, winners.reshape(np.shape(places)), np.isin(np.arange(x.size), list(last))


def check_setitem(x, v, index):
    before = x.copy()
    expected, winners, overwritten = written_in_turn(x, v, index)
    np.testing.assert_array_equal(tg.setitem(x, v, index=index), expected)
    np.testing.assert_array_equal(x, before)
    (gx, gv), u = gradient(lambda a, b: tg.setitem(a, b, index=index), x, v)
    np.testing.assert_array_equal(gx, np.where(overwritten.reshape(x.shape), 0, u))
    np.testing.assert_allclose(gv, _unbroadcast(u[index] * winners, v.shape), atol=1e-12)
    check_call(tg.setitem, (x, v), {"index": index}, order=3)


def _unbroadcast(g, shape):
    g = g.reshape((1,) * (len(shape) - g.ndim) + g.shape)
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    short = tuple(n for n, side in enumerate(shape) if side == 1)
    return g.sum(axis=short, keepdims=True)


@each_index
def test_setitem(index):
    x = cube()
    shape = x[index].shape
    rng = np.random.default_rng(2)
    check_setitem(x, rng.standard_normal(shape), index)
    check_setitem(x, rng.standard_normal(()), index)
    # NumPy allows axes of length 1 in front, but not of a single number or a mask's entries.
    if shape and not (isinstance(index, np.ndarray) and index.shape == x.shape):
        check_setitem(x, rng.standard_normal((1, *shape)), index)


@settings(max_examples=100, deadline=None)
@given(shapes_with_index, st.data())
def test_any_assignment(case, data):
    shape, index = case
    x = np.random.default_rng(0).standard_normal(shape)
    full = x[index].shape
    sides = [data.draw(st.sampled_from([side, 1])) for side in full]
    v = np.random.default_rng(1).standard_normal(sides[data.draw(st.integers(0, len(full))) :])
    check_setitem(x, v, index)


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_winner_does_not_depend_on_memory_order(order):
    rng = np.random.default_rng(0)
    rows = np.asarray(rng.integers(0, 2, (4, 5)), order=order)
    v = np.asarray(rng.standard_normal((4, 5, 3)), order=order)
    check_setitem(rng.standard_normal((2, 3)), v, rows)
    check_setitem(rng.standard_normal((2, 3)), v[::-1, ::-1, ::-1], rows[::-1, ::-1])
    check_setitem(rng.standard_normal((2, 5)), v[..., 0], (rows[:, :1], rows[0] * 2))


def test_assignment_to_a_tensor():
    x = tg.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    v = tg.Tensor([5.0, 7.0], requires_grad=True)
    y = x * 1
    y[[0, 0]] = v
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.numpy(), [7.0, 2.0, 3.0])
    np.testing.assert_array_equal(x.grad, [0.0, 4.0, 6.0])
    np.testing.assert_array_equal(v.grad, [0.0, 14.0])


def test_bad_assignment():
    with pytest.raises(tg.ShapeError, match="setitem"):
        tg.setitem(np.zeros(3), np.ones(2), index=slice(None))
    with pytest.raises(tg.ShapeError, match="setitem"):
        tg.setitem(np.zeros(3), np.ones((1, 3)), index=np.ones(3, bool))
    with pytest.raises(IndexError, match="setitem"):
        tg.setitem(np.zeros(3), 1.0, index=3)
    with pytest.raises(IndexError, match=r"setitem.*want integers"):
        tg.setitem(np.zeros(3), 1.0, index=[0.0])
    with pytest.raises(TypeError, match=r"setitem.*float64 into int.*astype"):
        tg.setitem(np.zeros(3, int), 1.5, index=0)


# --- take and take_along_axis -----------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3])
@pytest.mark.parametrize("indices", [2, [0, -1, 0], np.array([[1, 2], [0, 0]])], ids=str)
def test_take(axis, indices):
    x = cube()
    np.testing.assert_array_equal(tg.take(x, indices, axis), np.take(x, indices, axis))
    np.testing.assert_array_equal(
        np.take(tg.Tensor(x), indices, axis).numpy(), np.take(x, indices, axis)
    )
    check_call(lambda t: tg.take(t, indices, axis), (x,), {}, order=3)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -3])
def test_take_along_axis(axis):
    x = cube()
    indices = np.argsort(x, axis=axis)
    expected = np.take_along_axis(x, indices, axis)
    np.testing.assert_array_equal(tg.take_along_axis(x, indices, axis), expected)
    y = tg.take_along_axis(tg.Tensor(x), tg.Tensor(indices), axis)
    np.testing.assert_array_equal(y.numpy(), expected)
    check_call(lambda t: tg.take_along_axis(t, indices, axis), (x,), {}, order=3)


def test_take_along_axis_broadcasts():
    x = cube()
    indices = np.array([0, 0, 3, 1, 1, 2]).reshape(1, 6, 1)
    expected = np.take_along_axis(x, indices, 1)
    np.testing.assert_array_equal(tg.take_along_axis(x, indices, 1), expected)
    check_call(lambda t: tg.take_along_axis(t, indices, 1), (x,), {}, order=3)


def test_bad_take():
    x = tg.Tensor(cube(), requires_grad=True)
    with pytest.raises(IndexError, match=r"take: index 3 is out of bounds.*want -3 to 2"):
        tg.take(x, [0, 3], 0)
    with pytest.raises(IndexError, match=r"take_along_axis: index -6 is out of bounds"):
        tg.take_along_axis(x, np.full((3, 4, 1), -6), -1)
    with pytest.raises(IndexError, match=r"take.*want integer"):
        tg.take(x, [0.5], 0)
    with pytest.raises(IndexError, match="take: want integer"):
        tg.take(x, [True, False, True], 0)
    with pytest.raises(tg.ShapeError, match=r"take_along_axis.*\(3,\).*\(3, 4, 5\).*3 axes"):
        tg.take_along_axis(x, [0, 1, 2], 0)
    with pytest.raises(tg.ShapeError, match="take_along_axis"):
        tg.take_along_axis(x, np.zeros((2, 4, 5), int), 1)
    with pytest.raises(np.exceptions.AxisError):
        tg.take(x, 0, 3)


def test_a_python_number_is_put_into_integers_of_any_size():
    x = tg.Tensor(np.zeros(3, np.uint8))
    x[0] = 200
    assert (x.tolist(), x.dtype) == ([200, 0, 0], np.uint8)
    with pytest.raises(ArithmeticError, match="setitem: Python integer 300 out of bounds"):
        x[0] = 300
    with pytest.raises(TypeError, match="cannot put float64 into uint8"):
        x[0] = 1.5
