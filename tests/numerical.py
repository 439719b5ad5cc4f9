"""Numerical derivatives for the tests of the ops: a plain reference beside the public checker."""

from __future__ import annotations

import numpy as np

import tinygrad_hw as tg


def check_call(op, args, params, order=2, seed=0, rtol=1e-6):
    """Check the directional derivatives of a call, each order against differences of the last.

    The first function is ``<op(args), u>`` for a random u; each next is the derivative of the one
    before along a random direction, by the engine. Each is compared with a Richardson-extrapolated
    central difference of the one before.
    """
    rng = np.random.default_rng(seed)
    moving = [i for i, a in enumerate(args) if np.asarray(a).dtype.kind == "f"]
    y = np.asarray(op(*args, **params))
    assert type(op(*args, **params)) is np.ndarray
    cotangent = rng.standard_normal(y.shape)

    def level_zero(*xs):
        full = list(args)
        for i, x in zip(moving, xs, strict=True):
            full[i] = x
        return (op(*full, **params) * cotangent).sum()

    function = level_zero
    for level in range(1, order + 1):
        directions = [rng.standard_normal(np.shape(args[i])) for i in moving]
        function = _compare(function, [args[i] for i in moving], directions, rtol, level, op)


def _compare(function, xs, directions, rtol, level, op):
    def derivative(*points):
        tensors = [
            p if isinstance(p, tg.Tensor) else tg.Tensor(p, requires_grad=True) for p in points
        ]
        value = function(*tensors)
        if not value.requires_grad:
            return tg.Tensor(0.0) * sum((t * 0).sum() for t in tensors)
        grads = tg.grad(value, tensors, create_graph=True)
        plain = tg.grad(value, tensors)
        for g, p, t in zip(grads, plain, tensors, strict=True):
            assert g.shape == p.shape == t.shape
            assert g.dtype == p.dtype == t.dtype
            # A rule may take another way for arrays than for tensors.
            np.testing.assert_allclose(p.numpy(), g.numpy(), rtol=1e-8, atol=1e-8)
        return sum((g * d).sum() for g, d in zip(grads, directions, strict=True))

    def along(h):
        points = [
            tg.Tensor(x + h * d, requires_grad=True) for x, d in zip(xs, directions, strict=True)
        ]
        return function(*points).item()

    def central(h):
        return (along(h) - along(-h)) / (2 * h)

    h = 1e-3
    coarse, fine, finest = central(h), central(h / 2), central(h / 4)
    once, twice = (4 * fine - coarse) / 3, (4 * finest - fine) / 3
    numeric = (16 * twice - once) / 15
    analytic = derivative(*xs).item()
    scale = max(abs(numeric), abs(analytic), abs(along(0.0)), 1.0)
    assert abs(numeric - analytic) <= rtol * scale, (
        f"{op}: order {level}: engine {analytic!r}, numerical {numeric!r}"
    )
    return derivative
