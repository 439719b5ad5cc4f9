"""Activation functions of networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import domains
from ..dispatch import primitive
from ..domains import REAL, elementwise
from ..kernels import hw5
from .constants import greater
from .elementwise import add, expm1, multiply, sigmoid, where
from .special import erf

__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "relu",
    "relu_grad",
    "silu",
    "softplus",
]


@primitive(domain=elementwise(REAL), piece=np.sign, conventions="relu'(0) = 0")
def relu(x):
    """Rectified linear unit ``max(0, x)``; its gradient at 0 is 0.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return hw5.relu(x)


def _relu_grad_call(draw):
    shape = domains.shape(draw)
    return (draw.array(shape), draw.array(shape)), {}


@primitive(
    domain=domains.Domain("all reals", _relu_grad_call, "entry"), piece=lambda g, x: np.sign(x)
)
def relu_grad(g, x):
    """The handout's ``relu_backward``: the gradient of relu, itself a primitive."""
    return hw5.relu_backward(g, x)


@relu.rule(keeps="x")
def _(g, y, x):
    return (relu_grad(g, x),)


@relu_grad.rule(keeps="x")
def _(gg, y, g, x):
    return relu_grad(gg, x), None


@primitive(domain=elementwise(REAL))
def softplus(x):
    """Smooth relu ``log(1 + exp(x))``, without overflow.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.softplus(np.array([-1000.0, 1000.0]))
    array([   0., 1000.])
    """
    x = np.asarray(x)
    if x.dtype.kind != "f":
        return np.logaddexp(x, 0)
    # That function takes ten times as long.
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


softplus.rule(lambda g, y, x: (g * sigmoid(x),), keeps="x")


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """Compute ``x`` where positive, ``slope * x`` elsewhere; the gradient at 0 is ``slope``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.leaky_relu(np.array([-1.0, 2.0]), 0.1)
    array([-0.1,  2. ])
    """
    return where(greater(x, 0), x, multiply(x, slope))


def elu(x: Any, alpha: float = 1.0) -> Any:
    """Compute ``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2016).

    The gradient at 0 is ``alpha``.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.elu(np.array([0.0, 2.0]))
    array([0., 2.])
    """
    positive = greater(x, 0)
    # expm1 may not overflow where it is not taken; minimum(x, 0) would halve the slope at 0.
    return where(positive, x, multiply(alpha, expm1(where(positive, 0, x))))


def silu(x: Any) -> Any:
    """Compute ``x * sigmoid(x)``, also called swish (Ramachandran et al. 2017).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.silu(np.array([0.0, 1000.0]))
    array([   0., 1000.])
    """
    return multiply(x, sigmoid(x))


def gelu(x: Any) -> Any:
    """Gaussian error linear unit, exact: ``x (1 + erf(x / sqrt 2)) / 2`` (Hendrycks, Gimpel 2016).

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.gelu(np.array([0.0, 10.0]))
    array([ 0., 10.])
    """
    return multiply(multiply(x, 0.5), add(erf(multiply(x, math.sqrt(0.5))), 1))
