"""What the strategies draw, how it shrinks, and that its repr makes it again."""

import numpy as np
from hypothesis import find, given, settings

import tinygrad_hw as tg
from tinygrad_hw.testing import strategies as ts


def test_tensors_shrink_to_the_simplest_numbers_every_time():
    for _ in range(10):
        found = find(ts.tensors((2,)), lambda x: x.sum().item() > 2.5)
        assert repr(found) == "Tensor([1., 2.], requires_grad=True)"
        found = find(ts.tensors(), lambda x: (x.numpy() < 0).sum() >= 2)
        assert repr(found) == "Tensor([-1., -1.], requires_grad=True)"


@given(x=ts.tensors(), y=ts.tensors(low=0, high=1))
def test_entries_are_small_multiples_of_a_power_of_two(x, y):
    for tensor, low, high in ((x, -3, 3), (y, 0, 1)):
        values = tensor.numpy()
        assert ((low < values) & (values < high)).all()
        assert (values * 512 == np.round(values * 512)).all()


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
