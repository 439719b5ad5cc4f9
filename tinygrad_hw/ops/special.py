"""Special functions, element by element."""

from __future__ import annotations

import math

import numpy as np

from ..blocks import by_blocks
from ..dispatch import primitive
from ..domains import REAL, elementwise
from .elementwise import exp

__all__ = ["erf", "sinc"]


@primitive(domain=elementwise(REAL))
def sinc(x):
    """Compute ``sin(pi x) / (pi x)``, 1 at 0."""
    return np.sinc(x)


sinc.rule(lambda g, y, x: (g * _sinc_derivative(x, order=1),), keeps="x")


@primitive(name="sinc_derivative", domain=elementwise(REAL, order=1))
def _sinc_derivative(x, *, order):
    # Near 0: sinc(x) is the mean of cos(pi x t) over t in [0, 1], so the n-th derivative is that of
    # (pi t)**n cos(pi x t + n pi / 2), by Gauss-Legendre. Elsewhere: x sinc(x) = sin(pi x) / pi,
    # differentiated n times, gives each derivative from the one before.
    x = np.asarray(x)
    near = np.abs(x) < 2
    nodes, weights = np.polynomial.legendre.leggauss(40)
    t = np.pi * (nodes + 1) / 2
    wave = _sin_turned(np.multiply.outer(np.where(near, x, 0), t), order + 1)
    far_x = np.where(near, 2.0, x)
    far = np.sinc(far_x)
    for n in range(1, order + 1):
        far = (np.pi ** (n - 1) * _sin_turned(np.pi * far_x, n) - n * far) / far_x
    return np.where(near, wave @ (weights / 2 * t**order), far).astype(x.dtype, copy=False)


def _sin_turned(x, quarters):
    """``sin(x + quarters * pi / 2)`` without a rounded phase, so that what is odd is 0 at 0."""
    wave = (np.sin, np.cos)[quarters % 2](x)
    return -wave if quarters % 4 > 1 else wave


@_sinc_derivative.rule(keeps="x")
def _(g, y, x, *, order):
    return (g * _sinc_derivative(x, order=order + 1),)


@primitive(domain=elementwise(REAL))
def erf(x):
    """Error function, to 6 units in the last place of float32, else as C has it.

    Examples
    --------
    >>> import tinygrad_hw as tg
    >>> tg.erf(np.array([0.0, 0.5, -6.0])).round(6)
    array([ 0.    ,  0.5205, -1.    ])
    """
    x = np.asarray(x)
    if x.dtype == np.float32:
        return by_blocks(_erf32, x)
    values = np.fromiter(map(math.erf, x.ravel().tolist()), float, x.size).reshape(x.shape)
    return values.astype(x.dtype if x.dtype.kind == "f" else float, copy=False)


erf.rule(lambda g, y, x: (g * (exp(-x * x) * (2 / math.sqrt(math.pi))),), keeps="x")

# erf(x) = x P(x**2) / Q(x**2) up to where it rounds to 1, by coefficients that make the largest
# relative error least, as fitted by weights that grow where the error is large (Lawson 1961).
ERF_END = np.float32(3.92)
ERF_P = tuple(
    map(
        np.float32,
        (1.1283791, 0.1904075, 0.05274881, 0.0037656494, 0.00028488136, 2.0500511e-06),
    )
)
ERF_Q = tuple(
    map(np.float32, (1.0, 0.502077, 0.11410949, 0.014969281, 0.0011625396, 3.8091272e-05))
)


def _erf32(x):
    z = np.clip(x, -ERF_END, ERF_END)
    square = z * z
    z *= _polynomial(ERF_P, square)
    z /= _polynomial(ERF_Q, square)
    return np.clip(z, np.float32(-1), np.float32(1))


def _polynomial(coefficients, x):
    value = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        value *= x
        value += c
    return value
