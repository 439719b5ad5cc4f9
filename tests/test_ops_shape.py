"""What moves entries: NumPy's values and gradients of order 2 on drawn shapes, and the corners."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numerical import check_call

import tinygrad_hw as tg


def shapes(min_dims=0, max_dims=4, min_side=0):
    return hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=3)


def one_axis(draw, ndim):
    return draw(st.integers(-ndim, ndim - 1))


def some_axes(draw, ndim):
    """Different axes, counted from either end."""
    chosen = draw(st.lists(st.integers(0, ndim - 1), unique=True)) if ndim else []
    return tuple(draw(st.sampled_from([axis, axis - ndim])) for axis in chosen)


# Of each op: draw the shapes of its arguments, and the parameters.


def reshape(draw):
    shape = draw(shapes())
    new = draw(st.permutations(shape))
    if new and 0 not in new and draw(st.booleans()):
        new[draw(st.integers(0, len(new) - 1))] = -1
    return [shape], {"shape": (*new, *[1] * draw(st.integers(0, 1)))}


def transpose(draw):
    shape = draw(shapes())
    order = draw(st.permutations(range(len(shape))))
    order = tuple(draw(st.sampled_from([axis, axis - len(shape)])) for axis in order)
    return [shape], {"axes": draw(st.sampled_from([None, order]))}


def swapaxes(draw):
    shape = draw(shapes(1))
    return [shape], {"axis1": one_axis(draw, len(shape)), "axis2": one_axis(draw, len(shape))}


def moveaxis(draw):
    shape = draw(shapes(1))
    source = some_axes(draw, len(shape))
    places = draw(st.permutations(range(len(shape))))[: len(source)]
    return [shape], {"source": source, "destination": tuple(places)}


def squeeze(draw):
    shape = draw(shapes())
    ones = [n for n, side in enumerate(shape) if side == 1]
    axis = tuple(draw(st.lists(st.sampled_from(ones), unique=True))) if ones else None
    return [shape], {"axis": draw(st.sampled_from([None, axis]))}


def expand_dims(draw):
    shape = draw(shapes())
    count = draw(st.integers(1, 2))
    axes = draw(st.lists(st.integers(0, len(shape) + count - 1), min_size=count, max_size=count,
                         unique=True))  # fmt: skip
    return [shape], {"axis": axes[0] - len(shape) - 1 if count == 1 else tuple(axes)}


def broadcast_to(draw):
    full = draw(shapes())
    kept = full[draw(st.integers(0, len(full))) :]
    return [tuple(draw(st.sampled_from([n, 1])) for n in kept)], {"shape": full}


def tile(draw):
    reps = draw(st.lists(st.integers(0, 2), max_size=4))
    return [draw(shapes(max_dims=3))], {"reps": tuple(reps)}


def repeat(draw):
    shape = draw(shapes(1))
    axis = draw(st.sampled_from([None, one_axis(draw, len(shape))]))
    side = int(np.prod(shape)) if axis is None else shape[axis]
    each = draw(st.lists(st.integers(0, 2), min_size=side, max_size=side))
    return [shape], {"repeats": draw(st.sampled_from([2, each])), "axis": axis}


def flip(draw):
    shape = draw(shapes())
    return [shape], {"axis": draw(st.sampled_from([None, some_axes(draw, len(shape))]))}


def roll(draw):
    shape = draw(shapes(1))
    axis = one_axis(draw, len(shape))
    shift = draw(st.integers(-5, 5))
    params = [(shift, None), (shift, axis), ((shift, 1), (axis, axis)), (shift, (axis, 0))]
    shift, axis = draw(st.sampled_from(params))
    return [shape], {"shift": shift, "axis": axis}


def diag(draw):
    return [draw(shapes(1, 2))], {"k": draw(st.integers(-4, 4))}


def triangle(draw):
    return [draw(shapes(2))], {"k": draw(st.integers(-4, 4))}


def pad(draw):
    shape = draw(shapes(min_side=2))
    pairs = st.tuples(st.integers(0, 3), st.integers(0, 3))
    widths = draw(st.lists(pairs, min_size=len(shape), max_size=len(shape)))
    mode = draw(st.sampled_from(["constant", "edge", "reflect"]))
    return [shape], {"pad_width": draw(st.sampled_from([2, (1, 2), widths or 1])), "mode": mode}


def ravel(draw):
    return [draw(shapes())], {}


def matrices(draw):
    return [draw(shapes(2))], {}


OPS = {
    "reshape": reshape,
    "transpose": transpose,
    "swapaxes": swapaxes,
    "moveaxis": moveaxis,
    "squeeze": squeeze,
    "expand_dims": expand_dims,
    "broadcast_to": broadcast_to,
    "tile": tile,
    "repeat": repeat,
    "flip": flip,
    "roll": roll,
    "diag": diag,
    "tril": triangle,
    "triu": triangle,
    "pad": pad,
    "ravel": ravel,
    "matrix_transpose": matrices,
}


def entries(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def same(y, expected):
    """Values, shape and dtype agree, and the result is an array."""
    assert type(y) is np.ndarray
    assert (y.shape, y.dtype) == (np.shape(expected), np.asarray(expected).dtype)
    np.testing.assert_array_equal(y, expected)


def asked_for(module, name, params):
    op = getattr(module, name)
    if name in ("reshape", "transpose"):
        return lambda x: op(x, *params.values())
    return lambda x: op(x, **params)


@pytest.mark.parametrize("name", OPS)
def test_values_and_gradients_on_any_shape(name):
    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def check(data):
        (shape,), params = OPS[name](data.draw)
        op = asked_for(tg, name, params)
        x = entries(shape)
        expected = asked_for(np, name, params)(x)
        same(op(x), expected)
        same(op(tg.Tensor(x)).numpy(), expected)
        check_call(op, (x,), {}, order=2)

    check()


@pytest.mark.parametrize("name", ["concatenate", "stack"])
def test_joining_any_number_of_any_shape(name):
    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def check(data):
        shape = list(data.draw(shapes(1)))
        axis = one_axis(data.draw, len(shape) + (name == "stack"))
        parts = []
        for seed in range(data.draw(st.integers(1, 3))):
            if name == "concatenate":
                shape[axis] = data.draw(st.integers(0, 3))
            parts.append(entries(shape, seed))
        expected = getattr(np, name)(parts, axis=axis)
        same(getattr(tg, name)(parts, axis=axis), expected)
        check_call(lambda *parts: getattr(tg, name)(parts, axis=axis), parts, {}, order=2)

    check()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_split_on_any_shape(data):
    shape = data.draw(shapes(1))
    axis = one_axis(data.draw, len(shape))
    x = entries(shape)
    divisors = [n for n in (1, 2, 3) if shape[axis] % n == 0]
    places = sorted(data.draw(st.lists(st.integers(0, shape[axis]), max_size=3)))
    for cut in (data.draw(st.sampled_from(divisors)), places):
        expected = np.split(x, cut, axis)
        parts = tg.split(x, cut, axis)
        assert len(parts) == len(expected)
        for part, want in zip(parts, expected, strict=True):
            same(part, want)
        # Each part with another weight, so that a wrong place would show.
        check_call(
            lambda x, cut=cut: tg.concatenate(
                [part * n for n, part in enumerate(tg.split(x, cut, axis), 1)], axis
            ),
            (x,),
            {},
            order=2,
        )


@settings(max_examples=25, deadline=None)
@given(shapes(2), st.integers(-4, 4))
def test_trace_of_any_matrices(shape, offset):
    x = entries(shape)
    expected = np.trace(x, offset, axis1=-2, axis2=-1)
    np.testing.assert_allclose(tg.trace(x, offset), expected, atol=1e-14)
    check_call(lambda x: tg.trace(x, offset), (x,), {}, order=2)


@settings(max_examples=25, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3, max_dims=3))
def test_broadcast_arrays_of_any_shapes(drawn):
    xs = [entries(shape, seed) for seed, shape in enumerate(drawn.input_shapes)]
    for y, expected in zip(tg.broadcast_arrays(*xs), np.broadcast_arrays(*xs), strict=True):
        same(y, expected)
    check_call(lambda *xs: tg.stack(tg.broadcast_arrays(*xs)), xs, {}, order=2)


@settings(max_examples=40, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=4))
def test_a_broadcast_gradient_is_that_of_the_explicit_repetition(drawn):
    a, b = (entries(shape, seed) for seed, shape in enumerate(drawn.input_shapes))
    u = entries(drawn.result_shape, 2)
    implicit = [tg.Tensor(x, requires_grad=True) for x in (a, b)]
    explicit = [tg.Tensor(x, requires_grad=True) for x in (a, b)]
    (implicit[0] * implicit[1]).backward(u)
    repeated = [tg.broadcast_to(t, drawn.result_shape) for t in explicit]
    (repeated[0] * repeated[1]).backward(u)
    for one, other in zip(implicit, explicit, strict=True):
        assert one.grad.shape == one.shape
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-13, atol=1e-14)


# --- Corners ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: x.reshape(3, 2), (3, 2)),
        (lambda x: x.reshape((3, 2)), (3, 2)),
        (lambda x: x.reshape([3, 2]), (3, 2)),
        (lambda x: x.reshape(np.array([3, 2])), (3, 2)),
        (lambda x: x.reshape(-1), (6,)),
        (lambda x: x.T, (3, 2)),
        (lambda x: x.mT, (3, 2)),
        (lambda x: x.transpose(), (3, 2)),
        (lambda x: x.transpose(1, 0), (3, 2)),
        (lambda x: x.transpose((1, 0)), (3, 2)),
        (lambda x: x.swapaxes(0, -1), (3, 2)),
        (lambda x: x.ravel(), (6,)),
        (lambda x: x[None].squeeze(), (2, 3)),
        (lambda x: x.expand_dims(0), (1, 2, 3)),
        (lambda x: tg.expand_dims(x, np.int64(1)), (2, 1, 3)),
        (lambda x: x.broadcast_to((4, 2, 3)), (4, 2, 3)),
        (lambda x: x.repeat(2), (12,)),
        (lambda x: x.flip(0), (2, 3)),
        (lambda x: tg.stack(x, 1), (3, 2)),
        (lambda x: tg.concatenate(x), (6,)),
        (lambda x: tg.concatenate((x, x), -1), (2, 6)),
    ],
)
def test_every_way_to_ask(call, shape):
    x = tg.Tensor(entries((2, 3)), requires_grad=True)
    y = call(x)
    assert y.shape == shape
    u = entries(shape, 1)
    y.backward(u)
    # These only move entries: moving the cotangent's sum back keeps it.
    np.testing.assert_allclose(x.grad.sum(), u.sum())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(4097, 3), (9, 64, 17), (2**16 + 1, 3), (3, 5)])
def test_the_gradient_of_what_many_rows_share_is_their_sum(shape, dtype):
    g = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
    g[(0,) * len(shape)], g[(1,) * len(shape)] = np.inf, np.nan
    bias = tg.Tensor(np.zeros(shape[-1], dtype), requires_grad=True)
    (tg.Tensor(np.zeros(shape, dtype)) + bias).backward(g)
    assert bias.grad.dtype == dtype
    assert np.isinf(bias.grad[0])
    assert np.isnan(bias.grad[1])
    rows = g.reshape(-1, shape[-1])[:, 2:].astype(np.float64)
    slack = 4 * np.finfo(dtype).eps * np.abs(rows).sum(axis=0)
    assert np.all(np.abs(bias.grad[2:] - rows.sum(axis=0)) <= slack)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [(7, 3, 5, 2), (1, 3, 5), (4, 1, 3), (3, 2, 1), (2, 0, 3)])
def test_images_whose_batch_lies_innermost_are_flattened(shape, compiled):
    entries = np.arange(np.prod(shape), dtype=float).reshape(*shape[1:], shape[0])
    x = np.moveaxis(entries, -1, 0)
    columns = x.size // shape[0]
    for wanted in ((shape[0], columns), (columns, shape[0])):

        def flat(x, wanted=wanted):
            return tg.reshape(x, wanted) * 2

        run = tg.compile(flat, backend="numpy") if compiled else flat
        for _ in range(2):
            np.testing.assert_array_equal(run(x), x.reshape(wanted) * 2)
    with pytest.raises(tg.ShapeError, match="want equal sizes"):
        tg.reshape(x, (shape[0], 1000))


def test_a_0d_tensor_takes_new_shapes():
    x = tg.Tensor(2.0, requires_grad=True)
    for y in (x.reshape(1, 1), tg.expand_dims(x, 0), x.ravel(), tg.tile(x, 1), x[None]):
        assert y.size == 1
        (g,) = tg.grad(y * 3, [x])
        assert g.shape == ()
        assert g.item() == 3
    assert x.transpose().shape == x.squeeze().shape == tg.flip(x).shape == x.reshape(()).shape == ()


def test_parts_of_other_dtypes_get_gradients_of_their_own():
    a = tg.Tensor(np.ones(2), dtype=np.float32, requires_grad=True)
    b = tg.Tensor(np.ones(3), requires_grad=True)
    y = tg.concatenate([a, np.arange(2), b])
    assert y.dtype == np.float64
    y.backward(np.arange(7.0))
    assert (a.grad.dtype, b.grad.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(a.grad, [0, 1])
    np.testing.assert_array_equal(b.grad, [4, 5, 6])


def test_the_same_part_twice_gets_both_gradients():
    x = tg.Tensor([1.0, 2.0], requires_grad=True)
    tg.concatenate([x, x, x]).backward(np.arange(6.0))
    np.testing.assert_array_equal(x.grad, [0 + 2 + 4, 1 + 3 + 5])


@pytest.mark.parametrize("values", [7, (7, 8), [(7, 8)], [(7, 8), (5, 6)]])
def test_pad_takes_every_form_of_constant_values(values):
    x = tg.Tensor(entries((2, 3)), requires_grad=True)
    widths = [(1, 2), (2, 1)]
    expected = np.pad(x.numpy(), widths, constant_values=values)
    for pad in (tg.pad, np.pad):
        y = pad(x, widths, constant_values=values)
        np.testing.assert_array_equal(y.numpy(), expected)
        (g,) = tg.grad(y, [x], np.ones(y.shape))
        np.testing.assert_array_equal(g.numpy(), 1)


def test_pad_refuses_values_that_want_a_gradient():
    t = tg.Tensor([1.0, 2.0], requires_grad=True)
    for values in (t, t[0]):
        with pytest.raises(TypeError, match="pad: constant_values require a gradient"):
            tg.pad(t, 1, constant_values=values)


def test_tril_and_triu_hide_what_they_leave_out():
    x = tg.Tensor([[1.0, np.nan], [np.inf, 2.0]], requires_grad=True)
    tg.tril(tg.triu(x)).backward(np.ones((2, 2)))
    np.testing.assert_array_equal(x.grad, np.eye(2))


@pytest.mark.parametrize("axis", [3, -4])
@pytest.mark.parametrize(
    "op",
    [
        lambda x, axis: tg.transpose(x, (0, 1, axis)),
        lambda x, axis: tg.swapaxes(x, 0, axis),
        lambda x, axis: tg.moveaxis(x, axis, 0),
        lambda x, axis: tg.moveaxis(x, 0, axis),
        lambda x, axis: tg.squeeze(x, axis),
        lambda x, axis: tg.expand_dims(x, axis + axis // 3),
        lambda x, axis: tg.stack([x, x], axis + axis // 3),
        lambda x, axis: tg.concatenate([x, x], axis),
        lambda x, axis: tg.split(x, 1, axis),
        lambda x, axis: tg.flip(x, axis),
        lambda x, axis: tg.roll(x, 1, axis),
        lambda x, axis: tg.repeat(x, 2, axis),
        lambda x, axis: tg.sum(x, axis),
    ],
)
def test_an_axis_out_of_bounds_raises(op, axis):
    for x in (np.ones((1, 1, 1)), tg.Tensor(np.ones((1, 1, 1)), requires_grad=True)):
        with pytest.raises(np.exceptions.AxisError, match=r"^\w+: axis .* is out of bounds"):
            op(x, axis)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: tg.transpose(x, (0, 0)),
        lambda x: tg.moveaxis(x, (0, -2), (0, 1)),
        lambda x: tg.moveaxis(x, (0, 1), (1, -1)),
        lambda x: tg.squeeze(x, (0, -2)),
        lambda x: tg.expand_dims(x, (1, 1)),
        lambda x: tg.flip(x, (1, -1)),
    ],
)
def test_an_axis_given_twice_raises(call):
    with pytest.raises(tg.ShapeError, match=r"^\w+: axis .* names an axis twice"):
        call(tg.Tensor(np.ones((1, 2))))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: tg.transpose(x, (0,)), "transpose: got 1 axes for shape (2, 3)"),
        (lambda x: tg.transpose(x[None], (1, 2)), "want each once; swapaxes exchanges two"),
        (lambda x: tg.moveaxis(x, (0, 1), 0), "moveaxis: 2 axes to 1 places; want as many"),
        (lambda x: tg.tile(x, -1), "tile: reps is -1; want no negative number"),
        (lambda x: tg.broadcast_to(x, (3, 2)), "broadcast_to: (2, 3) does not broadcast to (3, 2)"),
        (lambda x: tg.broadcast_to(x, (3,)), "broadcast_to: (2, 3) does not broadcast to (3,)"),
        (lambda x: tg.broadcast_arrays(x, np.ones(2)), "shapes (2, 3) and (2,) do not broadcast"),
        (lambda x: tg.stack([]), "stack: got no tensors; want at least one"),
        (lambda x: tg.stack([x, x], (0, 1)), "stack: axis is (0, 1); want a whole number"),
        (lambda x: tg.tril(x[0]), "tril: got shape (3,); want matrices (..., n, m)"),
        (lambda x: tg.matrix_transpose(x[0]), "swapaxes: axis (-1, -2) is out of bounds"),
        (lambda x: tg.repeat(x, [1, 2], 1), "repeat: got (2,) repeats for 3 places; want 1 or"),
        (lambda x: tg.repeat(x, -1), "repeat: repeats is -1; want no negative number"),
        (lambda x: tg.pad(x, -1), "pad: pad_width is -1; want no negative number"),
        (lambda x: tg.pad(x, 1, constant_values=(1, 2, 3)), "pad: constant_values (1, 2, 3) does"),
        (lambda x: tg.pad(x[:, :1], 1, "reflect"), "axis 1 of shape (2, 1) has nothing to reflect"),
        (lambda x: tg.split(x, 2, 1), "split: 3 entries do not divide into 2 equal parts"),
        (lambda x: tg.diag(x[None]), "diag: got shape (1, 2, 3); want a vector or a matrix"),
    ],
)
def test_what_does_not_fit_says_so(call, message):
    for x in (entries((2, 3)), tg.Tensor(entries((2, 3)), requires_grad=True)):
        with pytest.raises((TypeError, ValueError), match=r"^\w+: ") as caught:
            call(x)
        assert message in str(caught.value)


def test_a_roll_along_no_axis_is_the_same():
    for x in (np.array(2.0), np.ones((2, 3)), tg.Tensor(2.0)):
        assert tg.roll(x, 1, axis=()) is x
