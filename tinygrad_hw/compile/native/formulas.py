"""Functions that native code has of its own, as native text.

What gives a number becomes part of what calls it, and has neither a branch nor a loop, so that LLVM
makes vectors of loops over it. The coefficients make the largest relative error least, as fitted by
weights that grow where the error is large (Lawson 1961).
"""

# mypy: ignore-errors
# What is called here is of intrinsics.py; this is never run as Python.
# ruff: noqa: F821

from __future__ import annotations

import numpy as np

from ...ops.special import ERF_END
from ...ops.special import ERF_P as P
from ...ops.special import ERF_Q as Q

F = np.float32
_ONE = F(1.0)

_TOP, _BOTTOM = F(89.0), F(-104.0)
_PER_LOG2, _LOG2_HIGH, _LOG2_LOW = F(1.44269504088896), F(0.693145751953125), F(1.42860682030942e-6)
# Added to a small number, it leaves the nearest whole number in the last bits, plus twice what an
# exponent is kept with.
_ROUNDING = F(1.5 * 2**23 + 254)
_E2, _E3, _E4 = F(0.49999994), F(0.16666521), F(0.041668389)
_E5, _E6 = F(0.0083687454), F(0.0013814541)


def exp32(x):
    """Exponential of a float32, to 1 unit in the last place.

    x = n log 2 + r, where |r| is at most log(2) / 2, and a polynomial for exp(r) (Muller,
    "Elementary Functions", section 11.3), by Estrin's scheme.
    """
    z = most(_BOTTOM, least(_TOP, x))
    rounded = fused(z, _PER_LOG2, _ROUNDING)
    n = rounded - _ROUNDING
    r = fused(n, -_LOG2_LOW, fused(n, -_LOG2_HIGH, z))
    square = r * r
    p = fused(fused(_E6, square, fused(_E5, r, _E4)), square, fused(_E3, r, _E2))
    q = fused(p, square, r)
    # Two factors, since 2**n itself may be no normal number.
    whole = bits(rounded)
    half = whole >> 1
    power = with_exponent(half)
    return fused(q, power, power) * with_exponent(whole - half)


_LIMIT = F(9.02)
_P1, _P2, _P3, _P4 = F(0.13382687), F(0.0034974565), F(2.0635803e-5), F(1.3384264e-8)
_Q1, _Q2, _Q3, _Q4 = F(0.46716008), F(0.025884356), F(0.00032885154), F(7.7902381e-7)


def tanh32(x):
    """Hyperbolic tangent of a float32, to 5 units in the last place: x P(x**2) / Q(x**2)."""
    z = most(-_LIMIT, least(_LIMIT, x))
    s = z * z
    p = fused(fused(fused(fused(_P4, s, _P3), s, _P2), s, _P1), s, _ONE)
    q = fused(fused(fused(fused(_Q4, s, _Q3), s, _Q2), s, _Q1), s, _ONE)
    return most(-_ONE, least(_ONE, z * p / q))


def sigmoid32(x):
    """Logistic function of a float32."""
    return 1 / (1 + exp32(-x))


def erf32(x):
    """Error function of a float32, to 6 units in the last place: x P(x**2) / Q(x**2)."""
    z = most(-ERF_END, least(ERF_END, x))
    s = z * z
    p = fused(fused(fused(fused(fused(P[5], s, P[4]), s, P[3]), s, P[2]), s, P[1]), s, P[0])
    q = fused(fused(fused(fused(fused(Q[5], s, Q[4]), s, Q[3]), s, Q[2]), s, Q[1]), s, Q[0])
    return most(-_ONE, least(_ONE, z * p / q))


def larger(a, b):
    """Maximum as NumPy's: NaN if one is."""
    return pick((a > b) | (a != a), a, b)


def smaller(a, b):
    """Minimum as NumPy's: NaN if one is."""
    return pick((a < b) | (a != a), a, b)


def sign(x):
    """Sign of a number, NaN of NaN."""
    return pick(x > 0, 1, pick(x < 0, -1, pick(x == 0, 0, x)))


def logaddexp(a, b):
    """Logarithm of the sum of two exponentials; of equal infinities that infinity."""
    further = np.log1p(np.exp(-abs(a - b)))
    return pick(a == b, a + 0.6931471805599453, larger(a, b) + further)


def isinf(x):
    """Tell whether a number is infinite."""
    return abs(x) == np.inf


def isfinite(x):
    """Tell whether a number is neither infinite nor NaN."""
    return abs(x) < np.inf


# So long a thread waits before it lets others have its core.
_PATIENCE = 2000


def meet(counter, crew):
    """Wait until all threads of the crew are here."""
    if crew > 1:
        everybody = (arrive(counter) // crew + 1) * crew
        waited = 0
        while arrived(counter) < everybody:
            waited += 1
            if waited > _PATIENCE:
                let_pass()
