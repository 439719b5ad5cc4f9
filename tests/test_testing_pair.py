"""Backwards written by hand, right ones and the mistakes that students make."""

import re

import numpy as np
import pytest

import hw5
from tinygrad_hw.testing import GradientError, check_pair

rng = np.random.default_rng(0)
X, W, B = (rng.standard_normal(s) for s in [(6, 1), (4, 6), (4, 1)])
IMAGE, FILTERS, BIAS = (rng.standard_normal(s) for s in [(6, 6, 2), (3, 3, 2, 3), (3, 1)])
LOGITS, LABEL = rng.standard_normal((5, 1)), np.eye(5)[:, 2:3]
V = rng.standard_normal(4)


def loss(x, y):
    return hw5.loss_cross_entropy_softmax(x, y)[0]


def loss_backward(dl_dy, x, y):
    return dl_dy * hw5.loss_cross_entropy_softmax(x, y)[1]


@pytest.mark.parametrize(
    ("forward", "backward", "args", "options"),
    [
        (hw5.fc, hw5.fc_backward, [X, W, B], {}),
        (hw5.relu, hw5.relu_backward, [X], {}),
        (hw5.pool2x2, hw5.pool2x2_backward, [IMAGE], {}),
        (hw5.flattening, hw5.flattening_backward, [IMAGE], {}),
        (hw5.conv, hw5.conv_backward, [IMAGE, FILTERS, BIAS], {"wrt": (1, 2)}),
        (loss, loss_backward, [LOGITS, LABEL], {"wrt": 0}),
        (loss, loss_backward, [1000 * LOGITS, LABEL], {"wrt": 0}),
        (np.sin, lambda g, x: g * np.cos(x), [0.5], {}),
        (np.sin, lambda g, x: g * np.cos(x), [np.zeros((0, 2))], {}),
        (np.sin, lambda g, x: g * np.cos(x), [V.astype(np.float32)], {}),
        (lambda x: np.sin(x.astype(np.float32)), lambda g, x: g * np.cos(x), [V], {}),
        (np.abs, lambda g, x: g * np.sign(x), [np.array([1e-3, 1.0])], {}),
        (lambda x: (np.sin(x), x.sum()), lambda g, x: g[0] * np.cos(x) + g[1], [V], {}),
        (hw5.fc, lambda g, x, w, b: [w.T @ g, g @ x.T, g], [X, W, B], {}),
        (np.sum, lambda g, x: np.ones(x.shape, int) * g, [V], {}),
    ],
)
def test_right_backwards(forward, backward, args, options):
    assert check_pair(forward, backward, *args, **options).verdict == "ok"


first = {}


@pytest.mark.parametrize(
    ("forward", "backward", "args", "said"),
    [
        (hw5.fc, lambda g, x, w, b: (w.T @ g, x @ g.T, g), [X, W, B], "transposed"),
        (hw5.fc, lambda g, x, w, b: (w.T @ g, -g @ x.T, g), [X, W, B], "w has the wrong sign"),
        (hw5.fc, lambda g, x, w, b: (w.T @ g, 2 * g @ x.T, g), [X, W, B], "a factor of 2"),
        (hw5.fc, lambda g, x, w, b: (w.T @ g, g @ x.T), [X, W, B], "2 gradients for 3 arguments"),
        (hw5.fc, lambda g, x, w, b: (w @ g, g @ x.T, g), [X, W, B], "raised ValueError: matmul"),
        (lambda x, b: x + b, lambda g, x, b: (g, g), [W, W[0]], "lacks the sum over an axis"),
        (lambda x: 2 * x, lambda g, x: (2 * g).ravel(), [X], "has shape (6,), the argument (6, 1)"),
        (hw5.relu, lambda g, x: g, [X], "are right: see"),
        (np.sin, lambda g, x: np.multiply(g, np.cos(x), out=g), [V], "writes to its arguments"),
        (np.sin, lambda g, x: (5 * g * np.cos(x), g.fill(0))[0], [V], "a factor of 5"),
        (np.sin, lambda g, x: (g * np.cos(x), g.fill(0))[0], [V], "writes to its arguments"),
        (np.sin, lambda g, x: g * np.cos(first.setdefault("x", x)), [V], "(wrong)"),
        (np.sin, lambda g, x: g * np.nan, [V], "not finite"),
        (np.sin, lambda g, x: np.cos(x), [V], "not linear"),
        (np.sin, lambda g, x: None, [V], "0 gradients for 1 arguments"),
    ],
)
def test_wrong_backwards(forward, backward, args, said):
    with pytest.raises(GradientError) as caught:
        check_pair(forward, backward, *args)
    assert caught.value.report.verdict == "wrong"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("verdict", "forward", "args"),
    [
        ("kink", hw5.relu, [np.array([[0.0], [1.0]])]),
        ("nonfinite", np.log, [np.array([-1.0])]),
        ("inconclusive", lambda x: np.sin(1e12 * x), [V]),
        ("nondeterministic", lambda x: x + np.random.default_rng().random(), [V]),
    ],
)
def test_other_verdicts(verdict, forward, args):
    report = check_pair(forward, lambda g, x: g, *args, raises=False)
    assert report.verdict == verdict


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        (lambda x: None, "<lambda>: returned a NoneType; want floats"),
        (lambda x: x > 0, "<lambda>: returned a ndarray of bool; want floats"),
    ],
)
def test_a_forward_that_returns_no_floats_is_named(forward, said):
    with pytest.raises(TypeError, match=re.escape(said)):
        check_pair(forward, lambda g, x: g, np.ones(2))


def test_the_reproducer_names_both_functions():
    report = check_pair(hw5.fc, hw5.relu_backward, X, W, B, raises=False)
    assert "from hw5 import fc" in report.reproducer
    assert "from hw5 import relu_backward" in report.reproducer
    assert "check_pair(fc, relu_backward, np.array(" in report.reproducer
    assert report.graph is None


@pytest.mark.parametrize("seed", range(5))
def test_a_wrong_backward_beside_a_kink_is_wrong(seed):
    x = np.array([0.0, 1.0, 2.0, 3.0])
    for slope in (lambda x: x < 0, lambda x: 5.0, lambda x: 0.0):
        wrong = lambda g, x, slope=slope: g * slope(x)  # noqa: E731
        assert check_pair(hw5.relu, wrong, x, rng=seed, raises=False).verdict == "wrong"
    assert check_pair(hw5.relu, lambda g, x: g * (x > 0), x, rng=seed).verdict == "kink"


class Remembers:
    def forward(self, x):
        self.mask = x > 0
        return np.where(self.mask, x, 0)

    def backward(self, g, x):
        return g * self.mask


def test_a_backward_that_leans_on_its_forward():
    pair, x = Remembers(), rng.normal(size=(3, 4))
    report = check_pair(pair.forward, pair.backward, x, raises=False)
    assert report.verdict == "wrong"
    assert report.broken == (
        "the backward uses what the forward left behind, and not its arguments alone",
    )


@pytest.mark.parametrize(
    ("backward", "broken"),
    [
        (lambda g, x: g * 2 * x, ()),
        (
            lambda g, x: (g.ravel("K") * 2 * x.ravel("K")).reshape(x.shape),
            ("on arrays of another memory layout, such as x.T, the gradient is another",),
        ),
    ],
)
def test_arrays_of_another_memory_layout(backward, broken):
    x = rng.normal(size=(3, 4))
    assert check_pair(np.square, backward, x, raises=False).broken == broken
