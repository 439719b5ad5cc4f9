"""What the strategies draw, how it shrinks, and that its repr makes it again."""

import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import tinygrad_hw as tg
from tinygrad_hw import domains
from tinygrad_hw.testing import strategies as ts
from tinygrad_hw.testing.suite import PROFILES


def test_tensors_shrink_to_the_simplest_numbers_every_time():
    # An example that an earlier run has kept might shrink to another one.
    anew = settings(max_examples=2000, database=None)
    for _ in range(10):
        found = find(ts.tensors((2,)), lambda x: x.sum().item() > 2.5, settings=anew)
        assert repr(found) == "Tensor([1., 2.], requires_grad=True)"
        found = find(ts.tensors(), lambda x: (x.numpy() < 0).sum() >= 2, settings=anew)
        assert repr(found) == "Tensor([-1., -1.], requires_grad=True)"


@given(x=ts.tensors(), y=ts.tensors(low=0, high=1))
def test_entries_are_small_multiples_of_a_power_of_two(x, y):
    for tensor, low, high in ((x, -3, 3), (y, 0, 1)):
        values = tensor.numpy()
        assert ((low < values) & (values < high)).all()
        assert (values * 512 == np.round(values * 512)).all()


@given(x=ts.tensors(low=-40, high=40), y=ts.tensors((80,), low=1, high=1e6))
def test_entries_of_wide_intervals_are_few_and_lie_all_over_them(x, y):
    assert (np.abs(x.numpy()) < 40).all()
    assert ((y.numpy() > 1) & (y.numpy() < 1e6)).all()


def test_entries_of_wide_intervals_go_far():
    assert find(ts.tensors(low=-1e6, high=1e6), lambda x: (x.numpy() < -9e5).any())
    assert find(ts.tensors(low=-40, high=40), lambda x: (x.numpy() > 39).any())


@pytest.mark.parametrize(("low", "high"), [(3, 1), (1, 1), (np.nan, 2), (-1e308, 1e308)])
def test_an_interval_without_numbers_is_an_error(low, high):
    with pytest.raises(ValueError, match="want low below high"):
        find(ts.tensors(low=low, high=high), lambda x: True)


@settings(max_examples=3)
@given(x=ts.tensors((20, 20), low=1e17), y=ts.tensors((3,), high=-1e17))
def test_intervals_may_begin_at_large_numbers(x, y):
    assert (x.numpy() > 1e17).all()
    assert (y.numpy() < -1e17).all()


@settings(max_examples=30)
@given(program=ts.programs())
def test_a_program_is_its_repr(program):
    again = eval(repr(program), {"Program": ts.Program, "np": np, "tg": tg})
    assert repr(again) == repr(program)
    for y, z in zip(_outputs(program), _outputs(again), strict=True):
        np.testing.assert_array_equal(y, z)


def _outputs(program):
    result = program(*program.args)
    return result if isinstance(result, tuple) else (result,)


def test_programs_shrink_to_the_op_that_matters():
    def ends_in_a_matrix_of_shares(program):
        return "softmax" in program.source.splitlines()[-1] and _outputs(program)[-1].ndim == 2

    pool = ["add", "tanh", "matmul", "softmax", "sum"]
    found = find(ts.programs(pool), ends_in_a_matrix_of_shares, random=Random(0))
    assert found.steps == 1


def test_programs_share_values_and_return_what_is_left():
    shared = find(
        ts.programs(["multiply"]),
        lambda p: re.search(r"\((y\d), \1\)", p.source),
        settings=settings(max_examples=2000),
        random=Random(0),
    )
    assert shared.steps == 2
    several = find(ts.programs(["exp"]), lambda p: isinstance(p(*p.args), tuple), random=Random(0))
    assert len(several(*several.args)) == 2


def test_programs_of_primitives_and_modules_of_ones_own():
    @tg.primitive(domain=domains.elementwise(domains.REAL))
    def thrice(x):
        return x * 3

    thrice.rule(lambda g, y, x: (g * 3,))
    found = find(ts.programs([thrice, "sum"]), lambda p: "thrice" in p.source, random=Random(0))
    assert found.source == "y0 = thrice(x0)"
    np.testing.assert_array_equal(found(np.ones(2)), [3, 3])
    names = {p.name for p in ts.primitives_of(tg.ops.scan)}
    assert names == {"cumsum", "shift", "recurrence", "cumprod", "prod"}
    with pytest.raises(ValueError, match="no primitive 'nosuch'"):
        find(ts.programs(["nosuch"]), lambda p: True)
    with pytest.raises(TypeError, match="has no domain"):
        find(ts.calls(tg.primitive(lambda x: x)), lambda call: True)


def test_zeros_are_drawn_often_and_axes_in_any_order():
    seen = Counter()

    @settings(PROFILES["ci"], max_examples=200)
    @given(x=ts.tensors((4,)), axis=ts.axes(3))
    def draw(x, axis):
        several = isinstance(axis, tuple) and len(axis) > 1
        seen["zero"] += not x.numpy().all()
        seen["from the end"] += several and min(axis) < 0
        seen["descending"] += several and axis[0] % 3 > axis[-1] % 3

    draw()
    assert min(seen[kind] for kind in ("zero", "from the end", "descending")) >= 3


@given(data=st.data(), shape=ts.shapes(min_dims=1))
def test_axes_and_indices_fit_the_shape(data, shape):
    x = np.zeros(shape)
    x[data.draw(ts.indices(shape))]
    x.sum(axis=data.draw(ts.axes(len(shape))))


@given(tensors=ts.broadcastable(3))
def test_broadcastable_tensors_broadcast(tensors):
    full = np.broadcast_shapes(*(t.shape for t in tensors))
    assert full == tensors[0].shape
    assert all(t.requires_grad for t in tensors)


@given(
    call=st.sampled_from(["add", "matmul", "solve", "conv", "getitem"]).flatmap(
        lambda name: ts.calls(tg.ops.primitives()[name])
    )
)
def test_a_call_is_its_repr(call):
    again = eval(repr(call), {"Call": ts.Call, "np": np, "tg": tg})
    np.testing.assert_array_equal(call(), again())
